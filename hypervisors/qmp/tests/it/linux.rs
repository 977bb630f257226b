//! The demo's Linux guest: boots from an overlay, talks on its console, hears the power button, survives its agent.

use std::process::Command;

use skyloom_hypervisor::{Console, DiskSpec, Hypervisor, Inspection, NicSpec, StopMode, Stopped, VmSpec};
use skyloom_model::{DiskFormat, MacAddr, NicKind, PowerState};
use skyloom_qmp::QmpHypervisor;

use crate::guest::{Mode, linux_image};
use crate::host::{Host, PATIENCE, qemus, until};

async fn wait_for_text(hypervisor: &QmpHypervisor, spec: &VmSpec, text: &str, times: usize) {
    until(text, async || {
        let tail = hypervisor.console_tail(spec.id, 1 << 20).await.unwrap();
        (String::from_utf8_lossy(&tail).matches(text).count() >= times).then_some(())
    })
    .await;
}

#[tokio::test]
async fn linux_boots_from_an_overlay_and_hears_the_power_button() {
    let base = linux_image();
    let host = Host::new();
    let overlay = host.temp.path().join("root.qcow2");
    let create = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
        .arg(&base)
        .arg(&overlay)
        .arg("1G")
        .status();
    assert!(create.unwrap().success());
    let mut spec = host.spec("linux", Mode::Idle);
    spec.memory_mib = 192;
    spec.disks = vec![DiskSpec {
        limits: None,
        name: "root".into(),
        path: overlay,
        format: DiskFormat::Qcow2,
        backing_format: Some(DiskFormat::Qcow2),
        read_only: false,
    }];
    spec.nics = vec![NicSpec {
        device: None,
        kind: NicKind::User,
        mac: MacAddr::qemu([0, 0, 1]),
    }];

    let hypervisor = host.open().await;
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    wait_for_text(&hypervisor, &spec, "skyloom-guest ready", 1).await;

    // The agent goes and comes back: the same process, no second boot.
    let pid = qemus(spec.id);
    drop(hypervisor);
    let hypervisor = host.open().await;
    assert_eq!(qemus(spec.id), pid);
    let running = Inspection::Found {
        generation: 1,
        power: PowerState::Running,
    };
    assert_eq!(hypervisor.inspect(spec.id).await.unwrap(), running);

    let mode = StopMode::Graceful { timeout: PATIENCE };
    assert_eq!(
        hypervisor.stop(spec.id, 1, mode).await.unwrap(),
        Stopped::Gracefully
    );
    assert!(qemus(spec.id).is_empty());
    assert_eq!(host.live(spec.id)["cause"], "guest-shutdown");

    // Again, asked at once: the button is pressed until the guest can hear it.
    hypervisor.start(spec.id, 1).await.unwrap();
    assert_eq!(
        hypervisor.stop(spec.id, 1, mode).await.unwrap(),
        Stopped::Gracefully
    );
    let tail = hypervisor.console_tail(spec.id, 1 << 20).await.unwrap();
    assert!(
        String::from_utf8_lossy(&tail).contains("skyloom-guest ready"),
        "the log goes over restarts"
    );
}
