//! Orders come late and come again: the generation decides.

use skyloom_model::PowerState;

use super::domains::{at, must_refuse};
use super::harness::{Case, Desk, Need, case};
use crate::{ErrorKind, StopMode, Stopped, VmSpec};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(order_of_a_newer_generation_is_taken_on),
        case!(newer_start_of_a_running_domain_is_taken_on),
        case!(newer_stop_of_a_domain_that_is_off_is_taken_on),
        case!(old_start_after_a_newer_stop_starts_nothing),
        case!(old_stop_after_a_newer_start_stops_nothing),
        case!(old_undefine_after_a_newer_start_removes_nothing),
        case!(old_define_after_a_newer_start_changes_nothing),
        case!(
            old_start_after_reopening_starts_nothing,
            Outlive,
            DurableGeneration
        ),
        case!(old_stop_after_reopening_stops_nothing, Outlive, DurableGeneration),
    ]
}

impl Desk {
    async fn start(&self, spec: &VmSpec, generation: u64) {
        self.hypervisor().start(spec.id, generation).await.expect("start");
    }
    async fn stop(&self, spec: &VmSpec, generation: u64) -> Stopped {
        let hypervisor = self.hypervisor();
        hypervisor
            .stop(spec.id, generation, StopMode::Force)
            .await
            .expect("stop")
    }
    async fn must_not_start(&self, spec: &VmSpec, generation: u64) {
        must_refuse(
            self.hypervisor().start(spec.id, generation).await,
            ErrorKind::Stale,
        );
    }
    async fn must_not_stop(&self, spec: &VmSpec, generation: u64) {
        must_refuse(
            self.hypervisor().stop(spec.id, generation, StopMode::Force).await,
            ErrorKind::Stale,
        );
    }
}

async fn order_of_a_newer_generation_is_taken_on(desk: &mut Desk) {
    let spec = desk.defined().await;
    desk.start(&spec, 3).await;
    desk.must_be(&spec, 3, PowerState::Running).await;
    assert_eq!(desk.stop(&spec, 4).await, Stopped::Forced);
    desk.must_be(&spec, 4, PowerState::Stopped).await;
    desk.start(&spec, 5).await;
    desk.must_be(&spec, 5, PowerState::Running).await;
}

async fn newer_start_of_a_running_domain_is_taken_on(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.start(&spec, 2).await;
    desk.must_be(&spec, 2, PowerState::Running).await;
}

async fn newer_stop_of_a_domain_that_is_off_is_taken_on(desk: &mut Desk) {
    let spec = desk.defined().await;
    assert_eq!(desk.stop(&spec, 2).await, Stopped::AlreadyOff);
    desk.must_be(&spec, 2, PowerState::Stopped).await;
    desk.must_not_start(&spec, 1).await;
    desk.must_be(&spec, 2, PowerState::Stopped).await;
}

async fn old_start_after_a_newer_stop_starts_nothing(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.stop(&spec, 2).await;
    desk.must_not_start(&spec, 1).await;
    desk.must_be(&spec, 2, PowerState::Stopped).await;
}

async fn old_stop_after_a_newer_start_stops_nothing(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.stop(&spec, 2).await;
    desk.start(&spec, 3).await;
    desk.must_not_stop(&spec, 2).await;
    desk.must_be(&spec, 3, PowerState::Running).await;
}

async fn old_undefine_after_a_newer_start_removes_nothing(desk: &mut Desk) {
    let spec = desk.defined().await;
    desk.start(&spec, 2).await;
    must_refuse(desk.hypervisor().undefine(spec.id, 1).await, ErrorKind::Stale);
    desk.must_be(&spec, 2, PowerState::Running).await;
}

async fn old_define_after_a_newer_start_changes_nothing(desk: &mut Desk) {
    let spec = desk.defined().await;
    desk.start(&spec, 3).await;
    must_refuse(desk.hypervisor().define(&at(&spec, 2)).await, ErrorKind::Stale);
    desk.must_be(&spec, 3, PowerState::Running).await;
}

async fn old_start_after_reopening_starts_nothing(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.stop(&spec, 2).await;
    desk.host.reopen().await;
    desk.hypervisor().recover().await.expect("recover");
    desk.must_be(&spec, 2, PowerState::Stopped).await;
    desk.must_not_start(&spec, 1).await;
    desk.must_be(&spec, 2, PowerState::Stopped).await;
}

async fn old_stop_after_reopening_stops_nothing(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.start(&spec, 2).await;
    desk.host.reopen().await;
    desk.hypervisor().recover().await.expect("recover");
    desk.must_not_stop(&spec, 1).await;
    desk.must_be(&spec, 2, PowerState::Running).await;
}
