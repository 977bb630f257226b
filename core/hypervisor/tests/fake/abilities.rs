//! Faults of the abilities, what is left of verbs that ended halfway, and what the history tells.

use skyloom_hypervisor::{
    Boot, Capability, DiskSpec, EffectKind, ErrorKind, FakeOptions, FakeWorld, Fault, FaultPoint, GuestAgent,
    Hotplug, Hypervisor, NicSpec, Pause, Screen, SnapshotOrder, Snapshots, StopMode, Suspend, VmSpec,
    never_two_running,
};
use skyloom_model::{DiskFormat, Id, MacAddr, NicKind, PowerState, Secret, SnapshotId};

use super::{power, spec};

fn disk(name: &str) -> DiskSpec {
    DiskSpec {
        limits: None,
        name: name.into(),
        path: format!("/pool/{name}").into(),
        format: DiskFormat::Qcow2,
        backing_format: None,
        read_only: false,
    }
}

fn nic() -> NicSpec {
    NicSpec {
        device: None,
        kind: NicKind::User,
        mac: MacAddr::qemu([1, 2, 3]),
    }
}

fn snapshot(spec: &VmSpec) -> SnapshotId {
    Id::from_uuid(spec.project.uuid())
}

fn order(spec: &VmSpec, memory: bool) -> SnapshotOrder {
    SnapshotOrder {
        snapshot: snapshot(spec),
        disks: vec!["one".into(), "two".into()],
        memory,
    }
}

/// A guest that runs, of two disks.
async fn running() -> (FakeWorld, VmSpec) {
    let world = FakeWorld::in_memory();
    let mut spec = spec(1);
    spec.disks = vec![disk("one"), disk("two")];
    world.hypervisor().define(&spec).await.unwrap();
    world.hypervisor().start(spec.id, 3).await.unwrap();
    (world, spec)
}

#[tokio::test]
async fn every_ability_meets_its_fault() {
    let (world, spec) = running().await;
    let (host, id, before) = (world.hypervisor(), spec.id, world.position().unwrap());
    for point in FaultPoint::ABILITIES {
        world.fail_next(point, ErrorKind::Refused).unwrap();
        let failed = match point {
            FaultPoint::Pause => host.pause(id, 3).await.err(),
            FaultPoint::Unpause => host.unpause(id, 3).await.err(),
            FaultPoint::Suspend => host.suspend(id, 3).await.err(),
            FaultPoint::TakeSnapshot => host.take(id, 3, &order(&spec, false)).await.err(),
            FaultPoint::RevertSnapshot => host.revert(id, 3, snapshot(&spec)).await.err(),
            FaultPoint::ForgetSnapshot => host.forget(id, 3, snapshot(&spec)).await.err(),
            FaultPoint::Snapshots => host.snapshots(id).await.err(),
            FaultPoint::AttachDisk => host.attach_disk(id, 3, &disk("more")).await.err(),
            FaultPoint::DetachDisk => host.detach_disk(id, 3, "two").await.err(),
            FaultPoint::GrowDisk => host.grow_disk(id, 3, "one", 8 << 30).await.err(),
            FaultPoint::LimitDisk => host.limit_disk(id, 3, "one", None).await.err(),
            FaultPoint::AttachNic => host.attach_nic(id, 3, &nic()).await.err(),
            FaultPoint::DetachNic => host.detach_nic(id, 3, nic().mac).await.err(),
            FaultPoint::Screenshot => host.screenshot(id).await.err(),
            FaultPoint::AgentAnswers => host.answers(id).await.err(),
            FaultPoint::SetPassword => {
                let password = Secret::new("x".to_owned());
                host.set_password(id, "root", &password).await.err()
            }
            other => panic!("{other:?} is no ability's"),
        };
        assert_eq!(failed.map(|e| e.kind()), Some(ErrorKind::Refused), "{point:?}");
        assert_eq!(world.heal().unwrap(), 0, "{point:?} met its fault once");
    }
    assert_eq!(
        world.history_since(before).unwrap(),
        [],
        "no failed verb did anything"
    );
}

#[tokio::test]
async fn half_a_snapshot_is_not_told_of_and_is_taken_anew() {
    let (world, spec) = running().await;
    let host = world.hypervisor();
    let halfway = Fault::Halfway(ErrorKind::Unavailable);
    world.fault_next(FaultPoint::TakeSnapshot, halfway).unwrap();
    let cut = host.take(spec.id, 3, &order(&spec, false)).await.unwrap_err();
    assert_eq!(cut.kind(), ErrorKind::Unavailable);
    assert_eq!(
        world.domain(spec.id).unwrap().unwrap().snapshots.len(),
        1,
        "it was begun"
    );
    assert_eq!(host.snapshots(spec.id).await.unwrap(), []);
    host.take(spec.id, 3, &order(&spec, false)).await.unwrap();
    assert_eq!(host.snapshots(spec.id).await.unwrap().len(), 1);
    world.fault_next(FaultPoint::ForgetSnapshot, halfway).unwrap();
    host.forget(spec.id, 3, snapshot(&spec)).await.unwrap_err();
    assert_eq!(
        host.snapshots(spec.id).await.unwrap(),
        [],
        "half of it may be gone"
    );
    host.forget(spec.id, 3, snapshot(&spec)).await.unwrap();
    assert_eq!(world.domain(spec.id).unwrap().unwrap().snapshots, []);
}

#[tokio::test]
async fn half_an_attach_is_defined_only_and_half_a_detach_is_still_plugged_in() {
    let (world, spec) = running().await;
    let host = world.hypervisor();
    let halfway = Fault::Halfway(ErrorKind::Timeout);
    let disks = || {
        let domain = world.domain(spec.id).unwrap().unwrap();
        let names = |spec: VmSpec| spec.disks.into_iter().map(|d| d.name).collect::<Vec<_>>();
        (names(domain.spec), names(domain.guest.unwrap()))
    };
    world.fault_next(FaultPoint::AttachDisk, halfway).unwrap();
    host.attach_disk(spec.id, 3, &disk("more")).await.unwrap_err();
    assert_eq!((disks().0.len(), disks().1.len()), (3, 2));
    host.attach_disk(spec.id, 3, &disk("more")).await.unwrap();
    assert_eq!((disks().0.len(), disks().1.len()), (3, 3));
    world.fault_next(FaultPoint::DetachDisk, halfway).unwrap();
    host.detach_disk(spec.id, 3, "more").await.unwrap_err();
    assert_eq!((disks().0.len(), disks().1.len()), (2, 3));
    host.detach_disk(spec.id, 3, "more").await.unwrap();
    assert_eq!((disks().0.len(), disks().1.len()), (2, 2));
}

#[tokio::test]
async fn memory_goes_back_with_the_disks_and_no_two_guests_run() {
    let (world, spec) = running().await;
    let host = world.hypervisor();
    let memory = || world.domain(spec.id).unwrap().unwrap().memory;
    assert!(world.remember(spec.id, 7).unwrap());
    world.write_disk(spec.id, &spec.disks[0].path, 1).unwrap();
    host.take(spec.id, 3, &order(&spec, true)).await.unwrap();
    assert!(world.remember(spec.id, 8).unwrap());
    world.write_disk(spec.id, &spec.disks[0].path, 2).unwrap();
    host.suspend(spec.id, 3).await.unwrap();
    assert!(!world.remember(spec.id, 9).unwrap(), "nothing runs");
    host.start(spec.id, 3).await.unwrap();
    assert_eq!(memory(), 8);
    host.revert(spec.id, 3, snapshot(&spec)).await.unwrap();
    assert_eq!(memory(), 7);
    assert_eq!(world.read_disk(spec.id, &spec.disks[0].path).unwrap().content, 1);
    // Halfway it is off, with a disk that has gone back.
    let halfway = Fault::Halfway(ErrorKind::Timeout);
    world.fault_next(FaultPoint::RevertSnapshot, halfway).unwrap();
    host.revert(spec.id, 3, snapshot(&spec)).await.unwrap_err();
    assert_eq!(power(&world, spec.id).await, PowerState::Stopped);
    host.revert(spec.id, 3, snapshot(&spec)).await.unwrap();
    assert_eq!(power(&world, spec.id).await, PowerState::Running);
    assert_eq!(never_two_running(&[world.history().unwrap()]), Ok(()));
    let resumed = world.effects_of(spec.id).unwrap();
    assert_eq!(resumed.iter().filter(|k| **k == EffectKind::Resumed).count(), 3);
}

#[tokio::test]
async fn held_guest_can_die_and_hears_no_button() {
    let (world, spec) = running().await;
    let host = world.hypervisor();
    host.pause(spec.id, 3).await.unwrap();
    assert!(!world.power_off_guest(spec.id).unwrap(), "it does nothing");
    assert!(world.crash_guest(spec.id).unwrap());
    assert_eq!(power(&world, spec.id).await, PowerState::Crashed);
    assert_eq!(
        host.unpause(spec.id, 3).await.unwrap_err().kind(),
        ErrorKind::Conflict
    );
}

#[tokio::test]
async fn full_pool_takes_neither_memory_nor_snapshots_nor_more_bytes() {
    let (world, spec) = running().await;
    let host = world.hypervisor();
    world.pool_full(true).unwrap();
    let failed = [
        host.suspend(spec.id, 3).await.err(),
        host.take(spec.id, 3, &order(&spec, false)).await.err(),
        host.grow_disk(spec.id, 3, "one", 8 << 30).await.err(),
    ];
    for failed in failed {
        assert_eq!(failed.map(|e| e.kind()), Some(ErrorKind::Full));
    }
    assert_eq!(power(&world, spec.id).await, PowerState::Running);
}

#[tokio::test]
async fn nics_of_one_address_are_one() {
    let (world, spec) = running().await;
    let host = world.hypervisor();
    host.attach_nic(spec.id, 3, &nic()).await.unwrap();
    let elsewhere = NicSpec {
        device: Some("tap7".into()),
        ..nic()
    };
    let refused = host.attach_nic(spec.id, 3, &elsewhere).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    world.holds_on(spec.id, true).unwrap();
    let refused = host.detach_nic(spec.id, 3, nic().mac).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    let domain = world.domain(spec.id).unwrap().unwrap();
    assert_eq!((domain.spec.nics.len(), domain.guest.unwrap().nics.len()), (0, 1));
}

#[tokio::test]
async fn host_without_abilities_has_none() {
    let world = FakeWorld::open(FakeOptions::in_memory().capability(Capability::basic())).unwrap();
    let host = world.hypervisor();
    assert!(host.as_pause().is_none() && host.as_suspend().is_none() && host.as_snapshots().is_none());
    assert!(host.as_hotplug().is_none() && host.as_screen().is_none() && host.as_guest_agent().is_none());
    let mut spec = spec(1);
    spec.boot = Boot::Kernel {
        kernel: "/k".into(),
        initrd: None,
        command_line: String::new(),
    };
    assert_eq!(
        host.define(&spec).await.unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    let stopped = host.stop(spec.id, 3, StopMode::Force).await;
    assert!(stopped.is_ok(), "an absent domain is off");
}
