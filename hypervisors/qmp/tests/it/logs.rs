//! Logs stay bounded, and no line of the guest is lost at a rotation.

use std::fs;

use skyloom_hypervisor::{Console, Hypervisor, StopMode};

use crate::guest::Mode;
use crate::host::{Host, quick, until};

/// The counter of a line of the flooding guest.
fn counter(line: &str) -> Option<u16> {
    let digit = |n: u16, b: u8| (b'a'..=b'p').contains(&b).then(|| n << 4 | u16::from(b - b'a'));
    if line.len() == 4 {
        line.bytes().try_fold(0, digit)
    } else {
        None
    }
}

#[tokio::test]
async fn a_flooding_guest_loses_no_line_over_rotations() {
    const LIMIT: u64 = 40_000;
    let host = Host::new();
    let hypervisor = host
        .open_with(host.config().with_timeouts(quick()).with_log_bytes(LIMIT))
        .await;
    let spec = host.spec("flood", Mode::Flood);
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    let old = host.vm_dir(spec.id).join("serial.log.1");
    for _ in 0..3 {
        let before = fs::read(&old).ok();
        until("a rotation", async || {
            fs::read(&old)
                .ok()
                .filter(|now| Some(now) != before.as_ref())
                .map(drop)
        })
        .await;
    }
    hypervisor.stop(spec.id, 1, StopMode::Force).await.unwrap();
    let tail = hypervisor.console_tail(spec.id, 1 << 24).await.unwrap();
    let text = String::from_utf8_lossy(&tail).into_owned();
    let counters: Vec<u16> = text.lines().skip(1).filter_map(counter).collect();
    assert!(
        counters.len() as u64 > LIMIT / 5,
        "both files: {}",
        counters.len()
    );
    assert!(
        counters.windows(2).all(|two| two[0].wrapping_add(1) == two[1]),
        "a line is missing or out of order"
    );
    let all = fs::metadata(&old).unwrap().len() + fs::metadata(old.with_extension("")).unwrap().len();
    assert_eq!(tail.len() as u64, all);
    let logs = fs::read_dir(host.vm_dir(spec.id)).unwrap();
    let serial = |e: &fs::DirEntry| e.file_name().to_string_lossy().starts_with("serial.log");
    assert_eq!(logs.filter_map(Result::ok).filter(serial).count(), 2);
}
