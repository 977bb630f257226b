//! The agent dies and comes back.

use std::collections::BTreeMap;

use skyloom_model::{PowerState, ServerId};

use super::domains::{at, must_refuse};
use super::harness::{Case, Desk, Need, case};
use super::watching::until_booted;
use crate::{ErrorKind, Inspection, StopMode, Stopped};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(recover_of_an_empty_host_is_empty),
        case!(reopen_keeps_the_guest_running, Outlive),
        case!(
            recover_finds_all_with_their_generations,
            Outlive,
            DurableGeneration
        ),
        case!(recover_does_not_find_the_undefined, DurableGeneration),
        case!(recover_twice_says_the_same, DurableGeneration),
        case!(adopted_guest_is_not_started_twice, Outlive),
        case!(adopted_guest_can_be_stopped, Outlive),
        case!(adopted_guest_can_be_undefined, Outlive),
        case!(adopted_guest_sends_events, Outlive, Crash),
        case!(older_orders_stay_stale, DurableGeneration),
        case!(guest_that_ended_unseen_is_off, Outlive, Crash),
        case!(console_survives_reopening, Outlive, Console),
    ]
}

impl Desk {
    /// The agent dies, comes back and recovers.
    async fn comes_back(&mut self) -> BTreeMap<ServerId, Inspection> {
        self.host.reopen().await;
        self.recovered().await
    }
    async fn recovered(&self) -> BTreeMap<ServerId, Inspection> {
        let found = self.hypervisor().recover().await.expect("recover");
        let count = found.len();
        let found: BTreeMap<_, _> = found.into_iter().map(|r| (r.id, r.inspection)).collect();
        assert_eq!(found.len(), count, "no domain is found twice");
        found
    }
}

async fn recover_of_an_empty_host_is_empty(desk: &mut Desk) {
    assert!(desk.comes_back().await.is_empty());
}

async fn reopen_keeps_the_guest_running(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.host.reopen().await;
    assert_eq!(
        desk.host.processes(spec.id).await,
        1,
        "the guest runs without an agent's help"
    );
    desk.recovered().await;
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn recover_finds_all_with_their_generations(desk: &mut Desk) {
    let (runs, off, newer) = (desk.running().await, desk.defined().await, desk.running().await);
    desk.hypervisor()
        .define(&at(&newer, 9))
        .await
        .expect("define newer");
    let found = desk.comes_back().await;
    let expected = [
        (
            runs.id,
            Inspection::Found {
                generation: 1,
                power: PowerState::Running,
            },
        ),
        (
            off.id,
            Inspection::Found {
                generation: 1,
                power: PowerState::Stopped,
            },
        ),
        (
            newer.id,
            Inspection::Found {
                generation: 9,
                power: PowerState::Running,
            },
        ),
    ];
    assert_eq!(found, BTreeMap::from(expected));
    desk.must_be(&newer, 9, PowerState::Running).await;
}

async fn recover_does_not_find_the_undefined(desk: &mut Desk) {
    let (gone, stays) = (desk.running().await, desk.defined().await);
    desk.hypervisor().undefine(gone.id, 1).await.expect("undefine");
    let found = desk.comes_back().await;
    assert_eq!(found.into_keys().collect::<Vec<_>>(), [stays.id]);
    desk.must_be_absent(gone.id).await;
}

async fn recover_twice_says_the_same(desk: &mut Desk) {
    desk.running().await;
    desk.defined().await;
    let once = desk.comes_back().await;
    assert_eq!(once, desk.comes_back().await);
}

async fn adopted_guest_is_not_started_twice(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.comes_back().await;
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn adopted_guest_can_be_stopped(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.comes_back().await;
    assert_eq!(
        desk.hypervisor()
            .stop(spec.id, 1, StopMode::Force)
            .await
            .expect("stop"),
        Stopped::Forced
    );
    desk.must_be(&spec, 1, PowerState::Stopped).await;
    desk.hypervisor().start(spec.id, 1).await.expect("start");
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn adopted_guest_can_be_undefined(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.comes_back().await;
    desk.hypervisor().undefine(spec.id, 1).await.expect("undefine");
    desk.must_be_absent(spec.id).await;
}

async fn adopted_guest_sends_events(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.comes_back().await;
    let mut events = desk.hypervisor().events();
    desk.host.crash_guest(spec.id).await;
    desk.until_told(&mut events, spec.id, PowerState::Crashed).await;
}

async fn older_orders_stay_stale(desk: &mut Desk) {
    let spec = at(&desk.idle().await, 5);
    desk.hypervisor().define(&spec).await.expect("define");
    desk.comes_back().await;
    let hypervisor = desk.hypervisor();
    must_refuse(hypervisor.define(&at(&spec, 4)).await, ErrorKind::Stale);
    must_refuse(hypervisor.start(spec.id, 4).await, ErrorKind::Stale);
    must_refuse(
        hypervisor.stop(spec.id, 4, StopMode::Force).await,
        ErrorKind::Stale,
    );
    must_refuse(hypervisor.undefine(spec.id, 4).await, ErrorKind::Stale);
    desk.must_be(&spec, 5, PowerState::Stopped).await;
}

async fn guest_that_ended_unseen_is_off(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.host.reopen().await;
    desk.host.crash_guest(spec.id).await;
    desk.recovered().await;
    assert!(!desk.until_off(spec.id).await.may_execute());
    assert_eq!(desk.host.processes(spec.id).await, 0);
}

async fn console_survives_reopening(desk: &mut Desk) {
    let spec = desk.live().await;
    until_booted(desk, &spec).await;
    desk.comes_back().await;
    until_booted(desk, &spec).await;
}
