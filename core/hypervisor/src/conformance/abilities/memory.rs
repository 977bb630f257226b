//! Snapshots with the guest's memory.

use skyloom_model::PowerState;

use super::snapshots::of;
use crate::conformance::domains::must_refuse;
use crate::conformance::harness::{Case, Desk, Need, case};
use crate::{ErrorKind, SnapshotOrder, VmSpec};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(memory_snapshot_leaves_the_guest_running, MemorySnapshots),
        case!(memory_snapshot_goes_on_after_a_stop, MemorySnapshots),
        case!(memory_snapshot_goes_on_in_a_running_domain, MemorySnapshots),
        case!(memory_snapshot_of_a_held_guest_is_held, MemorySnapshots, Pause),
        case!(
            memory_snapshot_survives_reopening,
            MemorySnapshots,
            DurableGeneration
        ),
        case!(memory_snapshot_can_be_forgotten, MemorySnapshots),
        case!(
            revert_with_memory_of_an_older_generation_is_stale,
            MemorySnapshots
        ),
    ]
}

fn with_memory(number: u64) -> SnapshotOrder {
    SnapshotOrder {
        memory: true,
        ..of(number, &["one", "two"])
    }
}

impl Desk {
    /// A guest that runs, with a snapshot of its memory, of when both disks held 1 and 101.
    async fn remembered(&self) -> VmSpec {
        let spec = self.with_two().await;
        self.write_two(&spec, 1).await;
        self.hypervisor().start(spec.id, 1).await.expect("start");
        let found = self.take(&spec, 1, &with_memory(1)).await.expect("take");
        assert!(found.memory_bytes > 0, "{found:?}");
        spec
    }
    async fn must_have_gone_back(&self, spec: &VmSpec) {
        self.must_be(spec, 1, PowerState::Running).await;
        self.force_off(spec).await;
        self.must_read(spec, 1, 101).await;
    }
}

async fn memory_snapshot_leaves_the_guest_running(desk: &mut Desk) {
    let spec = desk.remembered().await;
    desk.must_be(&spec, 1, PowerState::Running).await;
    let without = of(1, &["one", "two"]);
    must_refuse(desk.take(&spec, 1, &without).await, ErrorKind::Conflict);
}

async fn memory_snapshot_goes_on_after_a_stop(desk: &mut Desk) {
    let spec = desk.remembered().await;
    desk.force_off(&spec).await;
    desk.write_two(&spec, 2).await;
    desk.revert(&spec, 1, 1).await.expect("revert");
    desk.must_have_gone_back(&spec).await;
}

async fn memory_snapshot_goes_on_in_a_running_domain(desk: &mut Desk) {
    let spec = desk.remembered().await;
    desk.force_off(&spec).await;
    desk.write_two(&spec, 2).await;
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    for _ in 0..2 {
        desk.revert(&spec, 1, 1).await.expect("revert");
        desk.must_be(&spec, 1, PowerState::Running).await;
    }
    desk.must_have_gone_back(&spec).await;
}

async fn memory_snapshot_of_a_held_guest_is_held(desk: &mut Desk) {
    let spec = desk.with_two().await;
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    desk.pause(&spec, 1).await.expect("pause");
    desk.take(&spec, 1, &with_memory(1)).await.expect("take");
    desk.must_be(&spec, 1, PowerState::Paused).await;
    desk.force_off(&spec).await;
    desk.revert(&spec, 1, 1).await.expect("revert");
    desk.must_be(&spec, 1, PowerState::Paused).await;
    desk.unpause(&spec, 1).await.expect("unpause");
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn memory_snapshot_survives_reopening(desk: &mut Desk) {
    let spec = desk.remembered().await;
    desk.force_off(&spec).await;
    desk.write_two(&spec, 2).await;
    desk.host.reopen().await;
    desk.hypervisor().recover().await.expect("recover");
    desk.revert(&spec, 1, 1).await.expect("revert");
    desk.must_have_gone_back(&spec).await;
}

async fn memory_snapshot_can_be_forgotten(desk: &mut Desk) {
    let spec = desk.remembered().await;
    desk.forget(&spec, 1, 1).await.expect("forget");
    desk.must_be(&spec, 1, PowerState::Running).await;
    must_refuse(desk.revert(&spec, 1, 1).await, ErrorKind::NotFound);
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn revert_with_memory_of_an_older_generation_is_stale(desk: &mut Desk) {
    let spec = desk.remembered().await;
    desk.hypervisor().start(spec.id, 5).await.expect("start newer");
    must_refuse(desk.revert(&spec, 4, 1).await, ErrorKind::Stale);
    desk.must_be(&spec, 5, PowerState::Running).await;
}
