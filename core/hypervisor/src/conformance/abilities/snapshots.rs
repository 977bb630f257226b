//! Snapshots of disks.

use skyloom_model::{DiskFormat, Id, PowerState, SnapshotId};

use crate::conformance::domains::must_refuse;
use crate::conformance::harness::{Case, Desk, Need, case};
use crate::conformance::hypervisor::nobody;
use crate::{ErrorKind, Result, SnapshotFound, SnapshotOrder, VmSpec};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(snapshot_brings_disks_back, Snapshots),
        case!(snapshot_of_a_running_guest_brings_disks_back, Snapshots),
        case!(snapshot_leaves_other_disks_alone, Snapshots),
        case!(take_twice_is_one_snapshot, Snapshots),
        case!(take_of_what_cannot_be_taken_is_refused, Snapshots),
        case!(take_of_an_older_generation_is_stale, Snapshots),
        case!(snapshots_of_an_absent_domain_are_not_found, Snapshots),
        case!(snapshots_are_listed_in_order, Snapshots),
        case!(forget_can_be_repeated, Snapshots),
        case!(forget_while_the_guest_runs, Snapshots),
        case!(forgotten_snapshot_can_be_taken_anew, Snapshots),
        case!(revert_of_a_running_guest_is_a_conflict, Snapshots),
        case!(revert_to_nothing_is_not_found, Snapshots),
        case!(revert_can_be_repeated, Snapshots),
        case!(revert_without_its_disk_is_a_conflict, Snapshots),
        case!(snapshots_survive_reopening, Snapshots, DurableGeneration),
        case!(revert_of_a_suspended_domain_is_a_conflict, Snapshots, Suspend),
    ]
}

/// The same id for the same number.
pub(super) fn snapshot(number: u64) -> SnapshotId {
    Id::from_uuid(skyloom_model::Ids::uuid(&skyloom_model::SeededIds::new(
        skyloom_model::ManualClock::new(),
        number,
    )))
}

pub(super) fn of(number: u64, disks: &[&str]) -> SnapshotOrder {
    SnapshotOrder {
        snapshot: snapshot(number),
        disks: disks.iter().map(|d| (*d).to_owned()).collect(),
        memory: false,
    }
}

impl Desk {
    /// An idle guest's domain, off, whose last disks are `one` and `two`, of qcow2.
    pub(super) async fn with_two(&self) -> VmSpec {
        let mut spec = self.idle().await;
        for name in ["one", "two"] {
            spec.disks
                .push(self.host.disk(spec.id, name, DiskFormat::Qcow2).await);
        }
        self.hypervisor().define(&spec).await.expect("define");
        spec
    }
    pub(super) async fn take(
        &self,
        spec: &VmSpec,
        generation: u64,
        order: &SnapshotOrder,
    ) -> Result<SnapshotFound> {
        let hypervisor = self.hypervisor();
        let snapshots = hypervisor.as_snapshots().expect("snapshots are promised");
        snapshots.take(spec.id, generation, order).await
    }
    pub(super) async fn revert(&self, spec: &VmSpec, generation: u64, number: u64) -> Result<()> {
        let hypervisor = self.hypervisor();
        let snapshots = hypervisor.as_snapshots().expect("snapshots are promised");
        snapshots.revert(spec.id, generation, snapshot(number)).await
    }
    pub(super) async fn forget(&self, spec: &VmSpec, generation: u64, number: u64) -> Result<()> {
        let hypervisor = self.hypervisor();
        let snapshots = hypervisor.as_snapshots().expect("snapshots are promised");
        snapshots.forget(spec.id, generation, snapshot(number)).await
    }
    async fn listed(&self, spec: &VmSpec) -> Vec<SnapshotId> {
        let hypervisor = self.hypervisor();
        let snapshots = hypervisor.as_snapshots().expect("snapshots are promised");
        let found = snapshots.snapshots(spec.id).await.expect("snapshots");
        found.into_iter().map(|s| s.snapshot).collect()
    }
    /// Writes to the last two disks.
    pub(super) async fn write_two(&self, spec: &VmSpec, number: u64) {
        for (disk, more) in spec.disks[spec.disks.len() - 2..].iter().zip([0, 100]) {
            self.host.write(spec.id, disk, number + more).await;
        }
    }
    pub(super) async fn must_read(&self, spec: &VmSpec, one: u64, two: u64) {
        for (disk, number) in spec.disks[spec.disks.len() - 2..].iter().zip([one, two]) {
            assert_eq!(
                self.host.read(spec.id, disk).await,
                number,
                "what is on {}",
                disk.name
            );
        }
    }
}

async fn snapshot_brings_disks_back(desk: &mut Desk) {
    let spec = desk.with_two().await;
    desk.write_two(&spec, 1).await;
    let found = desk.take(&spec, 1, &of(1, &["one", "two"])).await.expect("take");
    assert_eq!(found.memory_bytes, 0);
    let mut sizes = Vec::new();
    for disk in &spec.disks[spec.disks.len() - 2..] {
        sizes.push((disk.name.clone(), desk.host.bytes(spec.id, disk).await));
    }
    assert_eq!(found.disks, sizes, "in name order, with what they describe");
    desk.write_two(&spec, 2).await;
    desk.take(&spec, 1, &of(2, &["two", "one"]))
        .await
        .expect("take another");
    desk.write_two(&spec, 3).await;
    desk.revert(&spec, 1, 1).await.expect("revert");
    desk.must_read(&spec, 1, 101).await;
    desk.revert(&spec, 1, 2).await.expect("forth again");
    desk.must_read(&spec, 2, 102).await;
    desk.must_be(&spec, 1, PowerState::Stopped).await;
}

async fn snapshot_of_a_running_guest_brings_disks_back(desk: &mut Desk) {
    let spec = desk.with_two().await;
    desk.write_two(&spec, 1).await;
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    desk.take(&spec, 1, &of(1, &["one", "two"])).await.expect("take");
    desk.must_be(&spec, 1, PowerState::Running).await;
    desk.force_off(&spec).await;
    desk.write_two(&spec, 2).await;
    desk.revert(&spec, 1, 1).await.expect("revert");
    desk.must_read(&spec, 1, 101).await;
}

async fn snapshot_leaves_other_disks_alone(desk: &mut Desk) {
    let spec = desk.with_two().await;
    desk.write_two(&spec, 1).await;
    desk.take(&spec, 1, &of(1, &["two"])).await.expect("take");
    desk.write_two(&spec, 2).await;
    desk.revert(&spec, 1, 1).await.expect("revert");
    desk.must_read(&spec, 2, 101).await;
}

async fn take_twice_is_one_snapshot(desk: &mut Desk) {
    let spec = desk.with_two().await;
    desk.write_two(&spec, 1).await;
    let once = desk.take(&spec, 1, &of(1, &["one", "two"])).await.expect("take");
    desk.write_two(&spec, 2).await;
    let again = desk
        .take(&spec, 1, &of(1, &["one", "two"]))
        .await
        .expect("take again");
    assert_eq!(again, once);
    assert_eq!(desk.listed(&spec).await, [snapshot(1)]);
    must_refuse(desk.take(&spec, 1, &of(1, &["one"])).await, ErrorKind::Conflict);
    desk.revert(&spec, 1, 1).await.expect("revert");
    desk.must_read(&spec, 1, 101).await;
}

async fn take_of_what_cannot_be_taken_is_refused(desk: &mut Desk) {
    let mut spec = desk.idle().await;
    let mut fixed = desk.host.disk(spec.id, "fixed", DiskFormat::Qcow2).await;
    fixed.read_only = true;
    let raw = desk.host.disk(spec.id, "raw", DiskFormat::Raw).await;
    let good = desk.host.disk(spec.id, "good", DiskFormat::Qcow2).await;
    spec.disks.extend([fixed, raw, good]);
    desk.hypervisor().define(&spec).await.expect("define");
    let bad: [(&[&str], ErrorKind); 5] = [
        (&[], ErrorKind::Invalid),
        (&["good", "good"], ErrorKind::Invalid),
        (&["good", "fixed"], ErrorKind::Invalid),
        (&["good", "raw"], ErrorKind::Unsupported),
        (&["good", "other"], ErrorKind::NotFound),
    ];
    for (disks, kind) in bad {
        must_refuse(desk.take(&spec, 1, &of(1, disks)).await, kind);
    }
    let with_memory = SnapshotOrder {
        memory: true,
        ..of(1, &["good"])
    };
    must_refuse(desk.take(&spec, 1, &with_memory).await, ErrorKind::Unsupported);
    assert_eq!(desk.listed(&spec).await, []);
}

async fn take_of_an_older_generation_is_stale(desk: &mut Desk) {
    let spec = desk.with_two().await;
    desk.take(&spec, 5, &of(1, &["one"])).await.expect("take newer");
    desk.must_be(&spec, 5, PowerState::Stopped).await;
    must_refuse(desk.take(&spec, 4, &of(2, &["one"])).await, ErrorKind::Stale);
    must_refuse(desk.revert(&spec, 4, 1).await, ErrorKind::Stale);
    must_refuse(desk.forget(&spec, 4, 1).await, ErrorKind::Stale);
    assert_eq!(desk.listed(&spec).await, [snapshot(1)]);
}

async fn snapshots_of_an_absent_domain_are_not_found(desk: &mut Desk) {
    let spec = VmSpec {
        id: nobody(),
        ..desk.idle().await
    };
    must_refuse(desk.take(&spec, 1, &of(1, &["one"])).await, ErrorKind::NotFound);
    must_refuse(desk.revert(&spec, 1, 1).await, ErrorKind::NotFound);
    must_refuse(desk.forget(&spec, 1, 1).await, ErrorKind::NotFound);
    let hypervisor = desk.hypervisor();
    let snapshots = hypervisor.as_snapshots().expect("snapshots are promised");
    must_refuse(snapshots.snapshots(spec.id).await, ErrorKind::NotFound);
}

async fn snapshots_are_listed_in_order(desk: &mut Desk) {
    let spec = desk.with_two().await;
    assert_eq!(desk.listed(&spec).await, []);
    for number in [3, 1, 2] {
        desk.take(&spec, 1, &of(number, &["one"])).await.expect("take");
    }
    assert_eq!(desk.listed(&spec).await, [snapshot(3), snapshot(1), snapshot(2)]);
    desk.forget(&spec, 1, 1).await.expect("forget");
    assert_eq!(desk.listed(&spec).await, [snapshot(3), snapshot(2)]);
}

async fn forget_can_be_repeated(desk: &mut Desk) {
    let spec = desk.with_two().await;
    desk.take(&spec, 1, &of(1, &["one", "two"])).await.expect("take");
    for _ in 0..2 {
        desk.forget(&spec, 1, 1).await.expect("forget");
        assert_eq!(desk.listed(&spec).await, []);
        must_refuse(desk.revert(&spec, 1, 1).await, ErrorKind::NotFound);
    }
    desk.forget(&spec, 1, 7).await.expect("forget what never was");
}

async fn forget_while_the_guest_runs(desk: &mut Desk) {
    let spec = desk.with_two().await;
    desk.write_two(&spec, 1).await;
    desk.take(&spec, 1, &of(1, &["one", "two"])).await.expect("take");
    desk.take(&spec, 1, &of(2, &["one", "two"]))
        .await
        .expect("take another");
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    for _ in 0..2 {
        desk.forget(&spec, 1, 1).await.expect("forget");
    }
    desk.must_be(&spec, 1, PowerState::Running).await;
    assert_eq!(desk.listed(&spec).await, [snapshot(2)]);
    desk.force_off(&spec).await;
    desk.revert(&spec, 1, 2).await.expect("the other one is whole");
    desk.must_read(&spec, 1, 101).await;
}

async fn forgotten_snapshot_can_be_taken_anew(desk: &mut Desk) {
    let spec = desk.with_two().await;
    desk.write_two(&spec, 1).await;
    desk.take(&spec, 1, &of(1, &["one", "two"])).await.expect("take");
    desk.forget(&spec, 1, 1).await.expect("forget");
    desk.write_two(&spec, 2).await;
    desk.take(&spec, 1, &of(1, &["one", "two"]))
        .await
        .expect("take anew");
    desk.write_two(&spec, 3).await;
    desk.revert(&spec, 1, 1).await.expect("revert");
    desk.must_read(&spec, 2, 102).await;
}

async fn revert_of_a_running_guest_is_a_conflict(desk: &mut Desk) {
    let spec = desk.with_two().await;
    desk.take(&spec, 1, &of(1, &["one"])).await.expect("take");
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    must_refuse(desk.revert(&spec, 1, 1).await, ErrorKind::Conflict);
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn revert_to_nothing_is_not_found(desk: &mut Desk) {
    let spec = desk.with_two().await;
    desk.write_two(&spec, 1).await;
    must_refuse(desk.revert(&spec, 1, 1).await, ErrorKind::NotFound);
    desk.must_read(&spec, 1, 101).await;
}

async fn revert_can_be_repeated(desk: &mut Desk) {
    let spec = desk.with_two().await;
    desk.write_two(&spec, 1).await;
    desk.take(&spec, 1, &of(1, &["one", "two"])).await.expect("take");
    for number in 2..4 {
        desk.write_two(&spec, number).await;
        desk.revert(&spec, 1, 1).await.expect("revert");
        desk.must_read(&spec, 1, 101).await;
    }
}

async fn revert_without_its_disk_is_a_conflict(desk: &mut Desk) {
    let spec = desk.with_two().await;
    desk.write_two(&spec, 1).await;
    desk.take(&spec, 1, &of(1, &["one", "two"])).await.expect("take");
    desk.write_two(&spec, 2).await;
    let mut fewer = crate::conformance::domains::at(&spec, 2);
    fewer.disks.pop();
    desk.hypervisor().define(&fewer).await.expect("define newer");
    must_refuse(desk.revert(&spec, 2, 1).await, ErrorKind::Conflict);
    desk.must_read(&spec, 2, 102).await;
}

async fn snapshots_survive_reopening(desk: &mut Desk) {
    let spec = desk.with_two().await;
    desk.write_two(&spec, 1).await;
    let taken = desk.take(&spec, 1, &of(1, &["one", "two"])).await.expect("take");
    desk.host.reopen().await;
    desk.hypervisor().recover().await.expect("recover");
    assert_eq!(desk.listed(&spec).await, [snapshot(1)]);
    let again = desk
        .take(&spec, 1, &of(1, &["one", "two"]))
        .await
        .expect("take again");
    assert_eq!(again, taken);
    desk.write_two(&spec, 2).await;
    desk.revert(&spec, 1, 1).await.expect("revert");
    desk.must_read(&spec, 1, 101).await;
}

async fn revert_of_a_suspended_domain_is_a_conflict(desk: &mut Desk) {
    let spec = desk.with_two().await;
    desk.take(&spec, 1, &of(1, &["one"])).await.expect("take");
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    desk.suspend(&spec, 1).await.expect("suspend");
    must_refuse(desk.revert(&spec, 1, 1).await, ErrorKind::Conflict);
    desk.take(&spec, 1, &of(2, &["one"]))
        .await
        .expect("take of what is off");
    desk.forget(&spec, 1, 1).await.expect("forget");
    desk.must_be(&spec, 1, PowerState::Suspended).await;
    desk.hypervisor().start(spec.id, 1).await.expect("go on");
    desk.must_be(&spec, 1, PowerState::Running).await;
}
