//! The demo's Linux guest: boots from an overlay, talks on its console, hears the power button, survives its daemon.

use std::process::Command;

use skyloom_hypervisor::{Console, DiskSpec, ErrorKind, Hypervisor, Inspection, NicSpec, StopMode, Stopped};
use skyloom_model::{DiskFormat, MacAddr, NicKind, PowerState};

use crate::guest::{Mode, linux_image};
use crate::host::{Host, PATIENCE, qemus, quick, until};

/// A busy guest may take longer than a try.
async fn until_let_go(mut detach: impl AsyncFnMut() -> skyloom_hypervisor::Result<()>) {
    until("the guest lets go", async || match detach().await {
        Ok(()) => Some(()),
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::Refused, "{e:?}");
            None
        }
    })
    .await;
}

#[tokio::test]
async fn linux_boots_from_an_overlay_lets_go_of_devices_and_hears_the_power_button() {
    let host = Host::new();
    let base = host.path("base.qcow2");
    std::fs::copy(linux_image(), &base).unwrap();
    let overlay = host.path("root.qcow2");
    let create = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
        .arg(&base)
        .arg(&overlay)
        .arg("1G")
        .status();
    assert!(create.unwrap().success());
    host.give(&base);
    host.give(&overlay);
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

    let hypervisor = host.open_with(host.config().with_timeouts(quick())).await;
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    let pid = qemus(spec.id);
    until("skyloom-guest ready", async || {
        let tail = hypervisor.console_tail(spec.id, 1 << 20).await.unwrap();
        String::from_utf8_lossy(&tail)
            .contains("skyloom-guest ready")
            .then_some(())
    })
    .await;

    // It lets go of what came while it ran.
    let more = host.path("more.qcow2");
    let create = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(&more)
        .arg("8M")
        .status();
    assert!(create.unwrap().success());
    host.give(&more);
    let disk = DiskSpec {
        limits: None,
        name: "more".into(),
        path: more.clone(),
        format: DiskFormat::Qcow2,
        backing_format: None,
        read_only: false,
    };
    let nic = NicSpec {
        mac: MacAddr::qemu([0, 0, 2]),
        ..spec.nics[0].clone()
    };
    let held = || {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", pid[0])).unwrap();
        fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok())
            .any(|file| file == more)
    };
    let plugs = hypervisor.as_hotplug().unwrap();
    for _ in 0..2 {
        plugs.attach_disk(spec.id, 1, &disk).await.unwrap();
        plugs.attach_nic(spec.id, 1, &nic).await.unwrap();
        assert!(held());
        until_let_go(async || plugs.detach_disk(spec.id, 1, "more").await).await;
        until_let_go(async || plugs.detach_nic(spec.id, 1, nic.mac).await).await;
        assert!(!held(), "nothing holds the file when this returns");
    }

    // Agent and daemon go and come back: the same process, no second boot.
    drop(hypervisor);
    host.kill_daemon();
    host.start_daemon();
    let hypervisor = host.open().await;
    let running = Inspection::Found {
        generation: 1,
        power: PowerState::Running,
    };
    assert_eq!(hypervisor.inspect(spec.id).await.unwrap(), running);
    assert_eq!(qemus(spec.id), pid);

    let mode = StopMode::Graceful { timeout: PATIENCE };
    assert_eq!(
        hypervisor.stop(spec.id, 1, mode).await.unwrap(),
        Stopped::Gracefully
    );
    assert!(qemus(spec.id).is_empty());
    // Again, asked at once: the button is pressed until the guest can hear it.
    hypervisor.start(spec.id, 1).await.unwrap();
    assert_eq!(
        hypervisor.stop(spec.id, 1, mode).await.unwrap(),
        Stopped::Gracefully
    );
}
