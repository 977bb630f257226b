//! Held guests.

use std::time::Duration;

use skyloom_model::PowerState;

use crate::conformance::domains::{at, must_refuse};
use crate::conformance::harness::{Case, Desk, Need, case};
use crate::conformance::hypervisor::nobody;
use crate::{ErrorKind, Result, StopMode, Stopped, VmSpec};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(pause_holds_the_guest, Pause),
        case!(pause_and_unpause_can_be_repeated, Pause),
        case!(pause_of_a_domain_that_is_off_is_a_conflict, Pause),
        case!(pause_of_an_absent_domain_is_not_found, Pause),
        case!(pause_of_an_older_generation_is_stale, Pause),
        case!(pause_of_a_newer_generation_is_taken_on, Pause),
        case!(paused_guest_can_be_started, Pause),
        case!(paused_guest_is_forced_off, Pause),
        case!(paused_guest_stays_paused_after_reopening, Pause, Outlive),
        case!(events_tell_of_a_pause, Pause),
    ]
}

impl Desk {
    pub(super) async fn pause(&self, spec: &VmSpec, generation: u64) -> Result<()> {
        let hypervisor = self.hypervisor();
        let pause = hypervisor.as_pause().expect("pausing is promised");
        pause.pause(spec.id, generation).await
    }
    pub(super) async fn unpause(&self, spec: &VmSpec, generation: u64) -> Result<()> {
        let hypervisor = self.hypervisor();
        let pause = hypervisor.as_pause().expect("pausing is promised");
        pause.unpause(spec.id, generation).await
    }
}

async fn pause_holds_the_guest(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.pause(&spec, 1).await.expect("pause");
    desk.must_be(&spec, 1, PowerState::Paused).await;
    desk.unpause(&spec, 1).await.expect("unpause");
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn pause_and_unpause_can_be_repeated(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.unpause(&spec, 1)
        .await
        .expect("a guest that runs is left alone");
    for _ in 0..2 {
        desk.pause(&spec, 1).await.expect("pause");
        desk.must_be(&spec, 1, PowerState::Paused).await;
    }
    for _ in 0..2 {
        desk.unpause(&spec, 1).await.expect("unpause");
        desk.must_be(&spec, 1, PowerState::Running).await;
    }
}

async fn pause_of_a_domain_that_is_off_is_a_conflict(desk: &mut Desk) {
    let spec = desk.defined().await;
    must_refuse(desk.pause(&spec, 1).await, ErrorKind::Conflict);
    must_refuse(desk.unpause(&spec, 1).await, ErrorKind::Conflict);
    desk.must_be(&spec, 1, PowerState::Stopped).await;
}

async fn pause_of_an_absent_domain_is_not_found(desk: &mut Desk) {
    let spec = VmSpec {
        id: nobody(),
        ..desk.idle().await
    };
    must_refuse(desk.pause(&spec, 1).await, ErrorKind::NotFound);
    must_refuse(desk.unpause(&spec, 1).await, ErrorKind::NotFound);
    desk.must_be_absent(spec.id).await;
}

async fn pause_of_an_older_generation_is_stale(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.hypervisor().start(spec.id, 5).await.expect("start newer");
    must_refuse(desk.pause(&spec, 4).await, ErrorKind::Stale);
    desk.must_be(&spec, 5, PowerState::Running).await;
    desk.pause(&spec, 5).await.expect("pause");
    must_refuse(desk.unpause(&spec, 4).await, ErrorKind::Stale);
    desk.must_be(&spec, 5, PowerState::Paused).await;
}

async fn pause_of_a_newer_generation_is_taken_on(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.pause(&spec, 3).await.expect("pause newer");
    desk.must_be(&spec, 3, PowerState::Paused).await;
    must_refuse(desk.unpause(&spec, 2).await, ErrorKind::Stale);
    desk.unpause(&spec, 4).await.expect("unpause newer");
    desk.must_be(&spec, 4, PowerState::Running).await;
}

async fn paused_guest_can_be_started(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.pause(&spec, 1).await.expect("pause");
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn paused_guest_is_forced_off(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.pause(&spec, 1).await.expect("pause");
    // It hears no button: nobody waits for it.
    let mode = StopMode::Graceful {
        timeout: Duration::from_secs(100_000),
    };
    let how = desk.hypervisor().stop(spec.id, 1, mode).await.expect("stop");
    assert_eq!(how, Stopped::Forced);
    desk.must_be(&spec, 1, PowerState::Stopped).await;
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn paused_guest_stays_paused_after_reopening(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.pause(&spec, 1).await.expect("pause");
    desk.host.reopen().await;
    desk.hypervisor().recover().await.expect("recover");
    desk.must_be(&spec, 1, PowerState::Paused).await;
    desk.hypervisor()
        .define(&at(&spec, 2))
        .await
        .expect("define newer");
    desk.must_be(&spec, 2, PowerState::Paused).await;
    desk.unpause(&spec, 2).await.expect("unpause");
    desk.must_be(&spec, 2, PowerState::Running).await;
}

async fn events_tell_of_a_pause(desk: &mut Desk) {
    let spec = desk.running().await;
    let mut events = desk.hypervisor().events();
    desk.pause(&spec, 1).await.expect("pause");
    desk.until_told(&mut events, spec.id, PowerState::Paused).await;
    desk.unpause(&spec, 1).await.expect("unpause");
    desk.until_told(&mut events, spec.id, PowerState::Running).await;
}
