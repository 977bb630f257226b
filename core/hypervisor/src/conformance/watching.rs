//! Events and consoles.

use futures::StreamExt;
use skyloom_model::PowerState;

use super::domains::at;
use super::harness::{Case, Desk, Need, case};
use crate::{VmEventKind, VmSpec};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(event_tells_of_a_start),
        case!(event_tells_of_a_stop),
        case!(event_tells_of_a_guest_that_shuts_down, GuestPowerOff),
        case!(event_tells_of_a_guest_that_dies, Crash),
        case!(every_stream_is_told),
        case!(slow_stream_is_told_lost, EventBound),
        case!(guest_that_shut_down_is_off_and_can_start, GuestPowerOff),
        case!(guest_that_died_is_off_and_can_start, Crash),
        case!(console_shows_what_the_guest_wrote, Console),
        case!(console_tail_is_bounded, Console),
        case!(console_survives_a_restart_of_the_guest, Console),
    ]
}

/// Waits until the console shows the live guest's text.
pub(super) async fn until_booted(desk: &Desk, spec: &VmSpec) {
    let hypervisor = desk.hypervisor();
    let Some(console) = hypervisor.as_console() else {
        return;
    };
    let booted = async {
        let mut pause = tokio::time::interval(std::time::Duration::from_millis(50));
        loop {
            pause.tick().await;
            let tail = console.console_tail(spec.id, 1 << 20).await.expect("console");
            if String::from_utf8_lossy(&tail).contains(desk.host.live_text()) {
                return;
            }
        }
    };
    let in_time = tokio::time::timeout(desk.offers.patience, booted).await;
    assert!(
        in_time.is_ok(),
        "the console never shows {:?}",
        desk.host.live_text()
    );
}

async fn event_tells_of_a_start(desk: &mut Desk) {
    let mut events = desk.hypervisor().events();
    let spec = desk.running().await;
    desk.until_told(&mut events, spec.id, PowerState::Running).await;
}

async fn event_tells_of_a_stop(desk: &mut Desk) {
    let spec = desk.running().await;
    let mut events = desk.hypervisor().events();
    desk.force_off(&spec).await;
    desk.until_told(&mut events, spec.id, PowerState::Stopped).await;
}

async fn event_tells_of_a_guest_that_shuts_down(desk: &mut Desk) {
    let spec = desk.running().await;
    let mut events = desk.hypervisor().events();
    desk.host.power_off_guest(spec.id).await;
    desk.until_told(&mut events, spec.id, PowerState::Stopped).await;
}

async fn event_tells_of_a_guest_that_dies(desk: &mut Desk) {
    let spec = desk.running().await;
    let mut events = desk.hypervisor().events();
    desk.host.crash_guest(spec.id).await;
    desk.until_told(&mut events, spec.id, PowerState::Crashed).await;
}

async fn every_stream_is_told(desk: &mut Desk) {
    let (mut one, mut other) = (desk.hypervisor().events(), desk.hypervisor().events());
    let spec = desk.running().await;
    desk.until_told(&mut one, spec.id, PowerState::Running).await;
    drop(one);
    desk.force_off(&spec).await;
    desk.until_told(&mut other, spec.id, PowerState::Running).await;
    desk.until_told(&mut other, spec.id, PowerState::Stopped).await;
}

async fn slow_stream_is_told_lost(desk: &mut Desk) {
    let bound = desk.offers.event_bound.unwrap_or_default();
    let spec = desk.defined().await;
    let mut events = desk.hypervisor().events();
    for _ in 0..=bound / 2 {
        desk.hypervisor().start(spec.id, 1).await.expect("start");
        desk.force_off(&spec).await;
    }
    let lost = async {
        while let Some(event) = events.next().await {
            if event.kind == VmEventKind::Lost {
                return;
            }
        }
        panic!("the stream of events has ended");
    };
    let in_time = tokio::time::timeout(desk.offers.patience, lost).await;
    assert!(
        in_time.is_ok(),
        "{} unread events, and the stream does not say Lost",
        2 * (bound / 2 + 1)
    );
}

async fn guest_that_shut_down_is_off_and_can_start(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.host.power_off_guest(spec.id).await;
    assert_eq!(desk.until_off(spec.id).await, PowerState::Stopped);
    desk.hypervisor().start(spec.id, 1).await.expect("start again");
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn guest_that_died_is_off_and_can_start(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.host.crash_guest(spec.id).await;
    assert_eq!(desk.until_off(spec.id).await, PowerState::Crashed);
    let newer = at(&spec, 2);
    desk.hypervisor().define(&newer).await.expect("define newer");
    desk.hypervisor().start(spec.id, 2).await.expect("start again");
    desk.must_be(&newer, 2, PowerState::Running).await;
}

async fn tail(desk: &Desk, spec: &VmSpec, bytes: usize) -> Vec<u8> {
    let hypervisor = desk.hypervisor();
    let console = hypervisor.as_console().expect("a console is promised");
    console.console_tail(spec.id, bytes).await.expect("console")
}

async fn console_shows_what_the_guest_wrote(desk: &mut Desk) {
    let spec = desk.live().await;
    until_booted(desk, &spec).await;
}

async fn console_tail_is_bounded(desk: &mut Desk) {
    let spec = desk.live().await;
    until_booted(desk, &spec).await;
    desk.force_off(&spec).await;
    let all = tail(desk, &spec, 1 << 20).await;
    for bytes in [0, 1, 7] {
        assert_eq!(
            tail(desk, &spec, bytes).await,
            all[all.len() - bytes..],
            "the last {bytes} bytes"
        );
    }
}

async fn console_survives_a_restart_of_the_guest(desk: &mut Desk) {
    let spec = desk.live().await;
    until_booted(desk, &spec).await;
    desk.force_off(&spec).await;
    let before = tail(desk, &spec, 1 << 20).await;
    desk.hypervisor().start(spec.id, 1).await.expect("start again");
    let after = tail(desk, &spec, 1 << 20).await;
    assert!(after.starts_with(&before), "the first boot's text is still there");
}
