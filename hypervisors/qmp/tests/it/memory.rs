//! Memory on disk when something goes wrong: the guest goes on as it was, or stays suspended.

use std::fs;
use std::time::Duration;

use skyloom_hypervisor::{
    DiskSpec, ErrorKind, Hotplug, Hypervisor, Inspection, Pause, SnapshotOrder, Snapshots, StopMode, Suspend,
    VmSpec,
};
use skyloom_model::{DiskFormat, PowerState, SnapshotId};
use skyloom_qmp::{QmpHypervisor, Timeouts};

use crate::guest::Mode;
use crate::host::{Host, fresh_uuid, holds, img, img_info, qemus};

async fn running(host: &Host, hypervisor: &QmpHypervisor) -> VmSpec {
    let mut spec = host.spec("memory", Mode::Live);
    spec.disks.push(host.disk("data", DiskFormat::Qcow2));
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    spec
}

async fn must_be(hypervisor: &QmpHypervisor, spec: &VmSpec, power: PowerState) {
    let seen = hypervisor.inspect(spec.id).await.unwrap();
    assert_eq!(seen, Inspection::Found { generation: 1, power });
    assert_eq!(qemus(spec.id).len(), usize::from(power.may_execute()));
}

fn order(memory: bool) -> SnapshotOrder {
    SnapshotOrder {
        snapshot: SnapshotId::from_uuid(fresh_uuid()),
        disks: vec!["data".into()],
        memory,
    }
}

#[tokio::test]
async fn a_suspend_that_fails_leaves_the_guest_as_it_was() {
    let host = Host::new();
    let timeouts = Timeouts {
        memory: Duration::ZERO,
        ..Timeouts::default()
    };
    let hypervisor = host.open_with(host.config().with_timeouts(timeouts)).await;
    let spec = running(&host, &hypervisor).await;
    for (held, power) in [(false, PowerState::Running), (true, PowerState::Paused)] {
        let (pids, failed) = loop {
            if held {
                hypervisor.pause(spec.id, 1).await.unwrap();
            }
            let pids = qemus(spec.id);
            match hypervisor.suspend(spec.id, 1).await {
                Err(failed) => break (pids, failed),
                // All was written before anybody looked at the clock: anew.
                Ok(()) => hypervisor.start(spec.id, 1).await.unwrap(),
            }
        };
        assert_eq!(failed.kind(), ErrorKind::Timeout);
        must_be(&hypervisor, &spec, power).await;
        assert_eq!(qemus(spec.id), pids);
        assert_eq!(host.live(spec.id)["phase"], "running");
        let dir = host.vm_dir(spec.id);
        assert!(!dir.join("memory.part").exists() && !dir.join("memory.state").exists());
    }
    hypervisor.unpause(spec.id, 1).await.unwrap();
    hypervisor.close().await;
    drop(hypervisor);
    let hypervisor = host.open().await;
    hypervisor.suspend(spec.id, 1).await.unwrap();
    must_be(&hypervisor, &spec, PowerState::Suspended).await;
}

#[tokio::test]
async fn a_guest_whose_memory_cannot_be_read_stays_suspended() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let spec = running(&host, &hypervisor).await;
    hypervisor.suspend(spec.id, 1).await.unwrap();
    let memory = host.vm_dir(spec.id).join("memory.state");
    let whole = fs::read(&memory).unwrap();
    for damaged in [&whole[..whole.len() / 2], b"", &[0; 4096]] {
        fs::write(&memory, damaged).unwrap();
        hypervisor.start(spec.id, 1).await.unwrap_err();
        must_be(&hypervisor, &spec, PowerState::Suspended).await;
    }
    fs::write(&memory, whole).unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    must_be(&hypervisor, &spec, PowerState::Running).await;
    hypervisor.suspend(spec.id, 1).await.unwrap();
    fs::remove_file(&memory).unwrap();
    let gone = hypervisor.start(spec.id, 1).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Corrupt);
    must_be(&hypervisor, &spec, PowerState::Suspended).await;
    hypervisor.stop(spec.id, 1, StopMode::Force).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    must_be(&hypervisor, &spec, PowerState::Running).await;
}

#[tokio::test]
async fn a_disk_that_is_broken_makes_no_half_snapshot() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let mut spec = host.spec("halves", Mode::Idle);
    spec.disks.push(host.disk("a", DiskFormat::Qcow2));
    spec.disks.push(host.disk("b", DiskFormat::Qcow2));
    hypervisor.define(&spec).await.unwrap();
    let (good, bad) = (&spec.disks[1], &spec.disks[2]);
    let kept = fs::read(&bad.path).unwrap();
    fs::write(&bad.path, [0; 4096]).unwrap();
    let both = SnapshotOrder {
        disks: vec!["a".into(), "b".into()],
        ..order(false)
    };
    hypervisor.take(spec.id, 1, &both).await.unwrap_err();
    assert_eq!(hypervisor.snapshots(spec.id).await.unwrap(), []);
    fs::write(&bad.path, kept).unwrap();
    let found = hypervisor.take(spec.id, 1, &both).await.unwrap();
    assert_eq!(hypervisor.snapshots(spec.id).await.unwrap(), [found]);
    for disk in [good, bad] {
        let inside = &img_info(disk)["snapshots"];
        assert_eq!(inside.as_array().unwrap().len(), 1, "{inside}");
    }
}

#[tokio::test]
async fn a_memory_that_is_gone_from_its_disk_leaves_the_domain_off() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let spec = running(&host, &hypervisor).await;
    let order = order(true);
    hypervisor.take(spec.id, 1, &order).await.unwrap();
    hypervisor.stop(spec.id, 1, StopMode::Force).await.unwrap();
    let path = spec.disks[1].path.to_str().unwrap();
    img(&["snapshot", "-q", "-d", &order.snapshot.to_string(), path]);
    hypervisor.revert(spec.id, 1, order.snapshot).await.unwrap_err();
    must_be(&hypervisor, &spec, PowerState::Stopped).await;
    hypervisor.start(spec.id, 1).await.unwrap();
    must_be(&hypervisor, &spec, PowerState::Running).await;
}

#[tokio::test]
async fn a_disk_that_cannot_be_opened_is_not_attached() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let spec = running(&host, &hypervisor).await;
    let missing = DiskSpec {
        name: "missing".into(),
        path: host.temp.path().join("nowhere"),
        ..spec.disks[0].clone()
    };
    let taken = DiskSpec {
        name: "taken".into(),
        ..spec.disks[1].clone()
    };
    let damaged = host.disk("damaged", DiskFormat::Qcow2);
    fs::write(&damaged.path, [0; 4096]).unwrap();
    let bad_name = DiskSpec {
        name: "a,b".into(),
        ..host.disk("x", DiskFormat::Raw)
    };
    for disk in [&missing, &taken, &damaged, &bad_name] {
        hypervisor.attach_disk(spec.id, 1, disk).await.unwrap_err();
    }
    let good = host.disk("good", DiskFormat::Raw);
    hypervisor.attach_disk(spec.id, 1, &good).await.unwrap();
    assert!(holds(spec.id, &good.path));
    hypervisor.stop(spec.id, 1, StopMode::Force).await.unwrap();
    hypervisor.start(spec.id, 1).await.unwrap();
    must_be(&hypervisor, &spec, PowerState::Running).await;
    assert!(holds(spec.id, &good.path) && !holds(spec.id, &damaged.path));
}

#[tokio::test]
async fn a_hold_that_was_cut_short_is_finished_by_the_next_agent() {
    let host = Host::new();
    let hypervisor = host.open().await;
    let spec = running(&host, &hypervisor).await;
    hypervisor.close().await;
    // As an agent leaves it that dies between the record and the monitor's `stop`.
    let mut live = host.live(spec.id);
    live["run"]["paused"] = true.into();
    host.set_live(spec.id, &live);
    drop(hypervisor);
    let hypervisor = host.open().await;
    must_be(&hypervisor, &spec, PowerState::Paused).await;
    hypervisor.start(spec.id, 1).await.unwrap();
    must_be(&hypervisor, &spec, PowerState::Running).await;
    assert_eq!(host.live(spec.id)["run"]["paused"], false);
}
