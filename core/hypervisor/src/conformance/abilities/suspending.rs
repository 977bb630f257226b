//! Guests that are off with their memory on disk.

use skyloom_model::{DiskFormat, PowerState};

use crate::conformance::domains::{at, must_refuse};
use crate::conformance::harness::{Case, Desk, Need, case};
use crate::conformance::hypervisor::nobody;
use crate::conformance::watching::until_booted;
use crate::{ErrorKind, Result, StopMode, Stopped, VmSpec};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(suspend_ends_the_process_and_start_goes_on, Suspend),
        case!(suspended_guest_does_not_boot_again, Suspend, Console),
        case!(suspend_twice_is_once, Suspend),
        case!(suspend_of_a_domain_that_is_off_is_a_conflict, Suspend),
        case!(suspend_of_an_absent_domain_is_not_found, Suspend),
        case!(suspend_of_an_older_generation_is_stale, Suspend),
        case!(suspend_of_a_newer_generation_is_taken_on, Suspend),
        case!(suspend_again_after_going_on, Suspend),
        case!(
            suspended_guest_is_found_after_reopening,
            Suspend,
            DurableGeneration
        ),
        case!(stop_of_a_suspended_domain_drops_the_memory, Suspend, Console),
        case!(suspended_domain_can_be_undefined, Suspend),
        case!(suspended_guest_keeps_its_definition, Suspend),
        case!(paused_guest_can_be_suspended, Suspend, Pause),
        case!(pause_of_a_suspended_domain_is_a_conflict, Suspend, Pause),
        case!(event_tells_of_a_suspend, Suspend),
    ]
}

impl Desk {
    pub(super) async fn suspend(&self, spec: &VmSpec, generation: u64) -> Result<()> {
        let hypervisor = self.hypervisor();
        let suspend = hypervisor.as_suspend().expect("suspending is promised");
        suspend.suspend(spec.id, generation).await
    }
    pub(super) async fn suspended(&self) -> VmSpec {
        let spec = self.running().await;
        self.suspend(&spec, 1).await.expect("suspend");
        spec
    }
    /// How often the live guest has booted, as its console tells.
    async fn boots(&self, spec: &VmSpec) -> usize {
        let hypervisor = self.hypervisor();
        let console = hypervisor.as_console().expect("a console is promised");
        let tail = console.console_tail(spec.id, 1 << 20).await.expect("console");
        String::from_utf8_lossy(&tail)
            .matches(self.host.live_text())
            .count()
    }
}

async fn suspend_ends_the_process_and_start_goes_on(desk: &mut Desk) {
    let spec = desk.suspended().await;
    desk.must_be(&spec, 1, PowerState::Suspended).await;
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn suspended_guest_does_not_boot_again(desk: &mut Desk) {
    let spec = desk.live().await;
    until_booted(desk, &spec).await;
    desk.suspend(&spec, 1).await.expect("suspend");
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    desk.must_be(&spec, 1, PowerState::Running).await;
    let mode = StopMode::Graceful {
        timeout: desk.offers.patience,
    };
    // It runs on: it answers, and has not booted in between.
    desk.hypervisor().stop(spec.id, 1, mode).await.expect("stop");
    assert_eq!(desk.boots(&spec).await, 1);
}

async fn suspend_twice_is_once(desk: &mut Desk) {
    let spec = desk.suspended().await;
    desk.suspend(&spec, 1).await.expect("suspend again");
    desk.must_be(&spec, 1, PowerState::Suspended).await;
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn suspend_of_a_domain_that_is_off_is_a_conflict(desk: &mut Desk) {
    let spec = desk.defined().await;
    must_refuse(desk.suspend(&spec, 1).await, ErrorKind::Conflict);
    desk.must_be(&spec, 1, PowerState::Stopped).await;
}

async fn suspend_of_an_absent_domain_is_not_found(desk: &mut Desk) {
    let spec = VmSpec {
        id: nobody(),
        ..desk.idle().await
    };
    must_refuse(desk.suspend(&spec, 1).await, ErrorKind::NotFound);
    desk.must_be_absent(spec.id).await;
}

async fn suspend_of_an_older_generation_is_stale(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.hypervisor().start(spec.id, 5).await.expect("start newer");
    must_refuse(desk.suspend(&spec, 4).await, ErrorKind::Stale);
    desk.must_be(&spec, 5, PowerState::Running).await;
}

async fn suspend_of_a_newer_generation_is_taken_on(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.suspend(&spec, 3).await.expect("suspend newer");
    desk.must_be(&spec, 3, PowerState::Suspended).await;
    must_refuse(desk.hypervisor().start(spec.id, 2).await, ErrorKind::Stale);
    desk.must_be(&spec, 3, PowerState::Suspended).await;
    desk.suspend(&spec, 4).await.expect("suspend newer again");
    desk.must_be(&spec, 4, PowerState::Suspended).await;
    desk.hypervisor().start(spec.id, 5).await.expect("start newer");
    desk.must_be(&spec, 5, PowerState::Running).await;
}

async fn suspend_again_after_going_on(desk: &mut Desk) {
    let spec = desk.suspended().await;
    for _ in 0..2 {
        desk.hypervisor().start(spec.id, 1).await.expect("start");
        desk.must_be(&spec, 1, PowerState::Running).await;
        desk.suspend(&spec, 1).await.expect("suspend");
        desk.must_be(&spec, 1, PowerState::Suspended).await;
    }
}

async fn suspended_guest_is_found_after_reopening(desk: &mut Desk) {
    let spec = desk.suspended().await;
    desk.host.reopen().await;
    desk.hypervisor().recover().await.expect("recover");
    desk.must_be(&spec, 1, PowerState::Suspended).await;
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn stop_of_a_suspended_domain_drops_the_memory(desk: &mut Desk) {
    let spec = desk.live().await;
    until_booted(desk, &spec).await;
    desk.suspend(&spec, 1).await.expect("suspend");
    let how = desk.hypervisor().stop(spec.id, 1, StopMode::Force).await;
    assert_eq!(how.expect("stop"), Stopped::AlreadyOff);
    desk.must_be(&spec, 1, PowerState::Stopped).await;
    must_refuse(desk.suspend(&spec, 1).await, ErrorKind::Conflict);
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    let deadline = tokio::time::Instant::now() + desk.offers.patience;
    let mut pause = tokio::time::interval(std::time::Duration::from_millis(50));
    while desk.boots(&spec).await < 2 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "it boots from the beginning"
        );
        pause.tick().await;
    }
}

async fn suspended_domain_can_be_undefined(desk: &mut Desk) {
    let spec = desk.suspended().await;
    desk.hypervisor().undefine(spec.id, 1).await.expect("undefine");
    desk.must_be_absent(spec.id).await;
    let again = at(&spec, 2);
    desk.hypervisor().define(&again).await.expect("define again");
    desk.must_be(&again, 2, PowerState::Stopped).await;
}

async fn suspended_guest_keeps_its_definition(desk: &mut Desk) {
    let spec = desk.suspended().await;
    let more = desk.host.disk(spec.id, "more", DiskFormat::Raw).await;
    let mut newer = at(&spec, 2);
    newer.disks.push(more.clone());
    desk.hypervisor().define(&newer).await.expect("define newer");
    desk.must_be(&newer, 2, PowerState::Suspended).await;
    desk.hypervisor().start(spec.id, 2).await.expect("go on");
    desk.must_be(&newer, 2, PowerState::Running).await;
    assert!(
        !desk.host.holds(spec.id, &more).await,
        "its memory knows no such disk"
    );
    desk.force_off(&newer).await;
    desk.hypervisor().start(spec.id, 2).await.expect("start");
    assert!(
        desk.host.holds(spec.id, &more).await,
        "the next boot has the disk"
    );
}

async fn paused_guest_can_be_suspended(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.pause(&spec, 1).await.expect("pause");
    desk.suspend(&spec, 1).await.expect("suspend");
    desk.must_be(&spec, 1, PowerState::Suspended).await;
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn pause_of_a_suspended_domain_is_a_conflict(desk: &mut Desk) {
    let spec = desk.suspended().await;
    must_refuse(desk.pause(&spec, 1).await, ErrorKind::Conflict);
    must_refuse(desk.unpause(&spec, 1).await, ErrorKind::Conflict);
    desk.must_be(&spec, 1, PowerState::Suspended).await;
}

async fn event_tells_of_a_suspend(desk: &mut Desk) {
    let spec = desk.running().await;
    let mut events = desk.hypervisor().events();
    desk.suspend(&spec, 1).await.expect("suspend");
    desk.until_told(&mut events, spec.id, PowerState::Suspended).await;
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    desk.until_told(&mut events, spec.id, PowerState::Running).await;
}
