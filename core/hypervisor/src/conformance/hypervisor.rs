//! The verbs: ensure, generations, independence.

use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use skyloom_model::{Id, PowerState, ServerId};

use super::domains::{at, must_refuse, name};
use super::harness::{Case, Desk, Need, case};
use super::{Guest, abilities, generations, reopening, watching};
use crate::{ErrorKind, Inspection, Recovered, StopMode, Stopped};

const GENTLY: StopMode = StopMode::Graceful {
    timeout: Duration::from_secs(1),
};

/// All cases of the hypervisor's exam.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut all = vec![
        case!(facts_are_sane),
        case!(capability_is_as_offered),
        case!(define_makes_a_domain_that_is_off),
        case!(define_twice_changes_nothing),
        case!(define_twice_does_not_disturb_the_guest),
        case!(define_brings_a_domain_to_a_newer_generation),
        case!(define_newer_while_running_keeps_the_guest),
        case!(define_refuses_an_older_generation),
        case!(start_runs_the_guest),
        case!(start_twice_is_one_process),
        case!(start_of_an_undefined_domain_is_not_found),
        case!(start_of_an_older_generation_is_stale),
        case!(concurrent_starts_are_one_process),
        case!(dropped_start_can_be_repeated),
        case!(start_after_stop_runs_again),
        case!(stop_by_force),
        case!(stop_twice_is_already_off),
        case!(stop_of_a_defined_domain_is_already_off),
        case!(stop_of_an_absent_domain_is_already_off),
        case!(stop_of_an_older_generation_is_stale),
        case!(graceful_stop_of_a_deaf_guest_is_forced),
        case!(graceful_stop_is_answered, GracefulStop),
        case!(undefine_removes_a_running_domain),
        case!(undefine_removes_a_stopped_domain),
        case!(undefine_of_an_absent_domain_is_done),
        case!(undefine_of_an_older_generation_is_stale),
        case!(undefined_domain_can_be_defined_again),
        case!(inspect_of_an_unknown_domain_is_absent),
        case!(names_are_only_text),
        case!(two_domains_are_independent),
        case!(list_of_an_empty_host_is_empty),
        case!(list_tells_what_inspect_tells),
        case!(list_does_not_wait_for_a_slow_stop),
    ];
    all.extend(generations::cases());
    all.extend(watching::cases());
    all.extend(reopening::cases());
    all.extend(abilities::cases());
    all
}

/// An id that no domain has.
pub(super) fn nobody() -> ServerId {
    Id::from_uuid(skyloom_model::Ids::uuid(&skyloom_model::SeededIds::new(
        skyloom_model::ManualClock::new(),
        99,
    )))
}

async fn facts_are_sane(desk: &mut Desk) {
    let facts = desk.hypervisor().facts().await.expect("facts");
    assert!(
        facts.capacity.vcpus > 0 && facts.capacity.memory_mib > 0,
        "{facts:?}"
    );
    for text in [
        &facts.architecture,
        &facts.hypervisor,
        &facts.hypervisor_version,
        &facts.accelerator,
    ] {
        assert!(!text.is_empty(), "{facts:?}");
    }
    assert!(
        !facts.accelerator_reason.is_empty(),
        "the reason of the accelerator is told: {facts:?}"
    );
}

async fn capability_is_as_offered(desk: &mut Desk) {
    assert_eq!(desk.hypervisor().capability(), desk.offers.capability);
    let (hypervisor, offered) = (desk.hypervisor(), desk.offers.capability);
    let abilities = [
        (hypervisor.as_console().is_some(), offered.console_log),
        (hypervisor.as_pause().is_some(), offered.pause),
        (hypervisor.as_suspend().is_some(), offered.suspend),
        (hypervisor.as_snapshots().is_some(), offered.snapshots),
        (hypervisor.as_hotplug().is_some(), offered.hotplug),
        (hypervisor.as_screen().is_some(), offered.screenshot),
        (hypervisor.as_guest_agent().is_some(), offered.guest_agent),
    ];
    for (at, (there, offered)) in abilities.into_iter().enumerate() {
        assert_eq!(there, offered, "ability {at} is there exactly if it is claimed");
    }
}

async fn define_makes_a_domain_that_is_off(desk: &mut Desk) {
    let spec = desk.defined().await;
    desk.must_be(&spec, 1, PowerState::Stopped).await;
}

async fn define_twice_changes_nothing(desk: &mut Desk) {
    let spec = desk.defined().await;
    desk.hypervisor().define(&spec).await.expect("define again");
    desk.must_be(&spec, 1, PowerState::Stopped).await;
}

async fn define_twice_does_not_disturb_the_guest(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.hypervisor().define(&spec).await.expect("define again");
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn define_brings_a_domain_to_a_newer_generation(desk: &mut Desk) {
    let spec = at(&desk.defined().await, 7);
    desk.hypervisor().define(&spec).await.expect("define newer");
    desk.must_be(&spec, 7, PowerState::Stopped).await;
    desk.hypervisor().start(spec.id, 7).await.expect("start newer");
    desk.must_be(&spec, 7, PowerState::Running).await;
}

async fn define_newer_while_running_keeps_the_guest(desk: &mut Desk) {
    let spec = at(&desk.running().await, 2);
    desk.hypervisor().define(&spec).await.expect("define newer");
    desk.must_be(&spec, 2, PowerState::Running).await;
    desk.hypervisor().start(spec.id, 2).await.expect("start newer");
    desk.must_be(&spec, 2, PowerState::Running).await;
}

async fn define_refuses_an_older_generation(desk: &mut Desk) {
    let spec = at(&desk.idle().await, 5);
    desk.hypervisor().define(&spec).await.expect("define");
    must_refuse(desk.hypervisor().define(&at(&spec, 4)).await, ErrorKind::Stale);
    desk.must_be(&spec, 5, PowerState::Stopped).await;
}

async fn start_runs_the_guest(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn start_twice_is_one_process(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.hypervisor().start(spec.id, 1).await.expect("start again");
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn start_of_an_undefined_domain_is_not_found(desk: &mut Desk) {
    let spec = desk.idle().await;
    must_refuse(desk.hypervisor().start(spec.id, 1).await, ErrorKind::NotFound);
    desk.must_be_absent(spec.id).await;
}

async fn start_of_an_older_generation_is_stale(desk: &mut Desk) {
    let spec = at(&desk.idle().await, 5);
    desk.hypervisor().define(&spec).await.expect("define");
    must_refuse(desk.hypervisor().start(spec.id, 4).await, ErrorKind::Stale);
    desk.must_be(&spec, 5, PowerState::Stopped).await;
}

async fn concurrent_starts_are_one_process(desk: &mut Desk) {
    let spec = desk.defined().await;
    let hypervisor = desk.hypervisor();
    for done in join_all((0..8).map(|_| hypervisor.start(spec.id, 1))).await {
        done.expect("every start succeeds");
    }
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn dropped_start_can_be_repeated(desk: &mut Desk) {
    let spec = desk.defined().await;
    let hypervisor = desk.hypervisor();
    // Polled once, then dropped: whatever it had begun, a repetition makes one guest of it.
    let _ = hypervisor.start(spec.id, 1).now_or_never();
    hypervisor.start(spec.id, 1).await.expect("start again");
    desk.must_be(&spec, 1, PowerState::Running).await;
}

async fn start_after_stop_runs_again(desk: &mut Desk) {
    let spec = desk.running().await;
    for _ in 0..2 {
        desk.force_off(&spec).await;
        desk.must_be(&spec, 1, PowerState::Stopped).await;
        desk.hypervisor().start(spec.id, 1).await.expect("start again");
        desk.must_be(&spec, 1, PowerState::Running).await;
    }
}

async fn stop_by_force(desk: &mut Desk) {
    let spec = desk.running().await;
    let how = desk
        .hypervisor()
        .stop(spec.id, 1, StopMode::Force)
        .await
        .expect("stop");
    assert_eq!(how, Stopped::Forced);
    desk.must_be(&spec, 1, PowerState::Stopped).await;
}

async fn stop_twice_is_already_off(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.force_off(&spec).await;
    for mode in [StopMode::Force, GENTLY] {
        assert_eq!(
            desk.hypervisor()
                .stop(spec.id, 1, mode)
                .await
                .expect("stop again"),
            Stopped::AlreadyOff
        );
    }
    desk.must_be(&spec, 1, PowerState::Stopped).await;
}

async fn stop_of_a_defined_domain_is_already_off(desk: &mut Desk) {
    let spec = desk.defined().await;
    let how = desk
        .hypervisor()
        .stop(spec.id, 1, StopMode::Force)
        .await
        .expect("stop");
    assert_eq!(how, Stopped::AlreadyOff);
}

async fn stop_of_an_absent_domain_is_already_off(desk: &mut Desk) {
    for mode in [StopMode::Force, GENTLY] {
        assert_eq!(
            desk.hypervisor().stop(nobody(), 1, mode).await.expect("stop"),
            Stopped::AlreadyOff
        );
    }
    desk.must_be_absent(nobody()).await;
}

async fn stop_of_an_older_generation_is_stale(desk: &mut Desk) {
    let spec = at(&desk.idle().await, 5);
    desk.hypervisor().define(&spec).await.expect("define");
    desk.hypervisor().start(spec.id, 5).await.expect("start");
    for mode in [StopMode::Force, GENTLY] {
        must_refuse(desk.hypervisor().stop(spec.id, 4, mode).await, ErrorKind::Stale);
    }
    desk.must_be(&spec, 5, PowerState::Running).await;
}

async fn graceful_stop_of_a_deaf_guest_is_forced(desk: &mut Desk) {
    let spec = desk.running().await;
    let how = desk.hypervisor().stop(spec.id, 1, GENTLY).await.expect("stop");
    assert_eq!(how, Stopped::Forced);
    desk.must_be(&spec, 1, PowerState::Stopped).await;
}

async fn graceful_stop_is_answered(desk: &mut Desk) {
    let spec = desk.live().await;
    watching::until_booted(desk, &spec).await;
    let mode = StopMode::Graceful {
        timeout: desk.offers.patience,
    };
    assert_eq!(
        desk.hypervisor().stop(spec.id, 1, mode).await.expect("stop"),
        Stopped::Gracefully
    );
    desk.must_be(&spec, 1, PowerState::Stopped).await;
}

async fn undefine_removes_a_running_domain(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.hypervisor().undefine(spec.id, 1).await.expect("undefine");
    desk.must_be_absent(spec.id).await;
}

async fn undefine_removes_a_stopped_domain(desk: &mut Desk) {
    let spec = desk.defined().await;
    // An order of a newer generation is obeyed, too.
    desk.hypervisor().undefine(spec.id, 2).await.expect("undefine");
    desk.must_be_absent(spec.id).await;
}

async fn undefine_of_an_absent_domain_is_done(desk: &mut Desk) {
    let spec = desk.defined().await;
    for _ in 0..2 {
        desk.hypervisor().undefine(spec.id, 1).await.expect("undefine");
    }
    desk.hypervisor()
        .undefine(nobody(), 1)
        .await
        .expect("undefine what never was");
    desk.must_be_absent(spec.id).await;
}

async fn undefine_of_an_older_generation_is_stale(desk: &mut Desk) {
    let spec = at(&desk.idle().await, 5);
    desk.hypervisor().define(&spec).await.expect("define");
    desk.hypervisor().start(spec.id, 5).await.expect("start");
    must_refuse(desk.hypervisor().undefine(spec.id, 4).await, ErrorKind::Stale);
    desk.must_be(&spec, 5, PowerState::Running).await;
}

async fn undefined_domain_can_be_defined_again(desk: &mut Desk) {
    let spec = desk.running().await;
    desk.hypervisor().undefine(spec.id, 1).await.expect("undefine");
    let again = at(&spec, 2);
    desk.hypervisor().define(&again).await.expect("define again");
    desk.must_be(&again, 2, PowerState::Stopped).await;
}

async fn inspect_of_an_unknown_domain_is_absent(desk: &mut Desk) {
    desk.must_be_absent(nobody()).await;
}

async fn names_are_only_text(desk: &mut Desk) {
    for text in [
        "x,process=evil",
        "-S",
        "../../etc/passwd",
        "a\"b'c\\d",
        "<x/>&amp;",
        "$(reboot)",
        "{\"a\":1}",
        "云",
    ] {
        let spec = desk.host.spec(name(text), Guest::Idle).await;
        let hypervisor = desk.hypervisor();
        hypervisor.define(&spec).await.expect("define");
        hypervisor.start(spec.id, 1).await.expect("start");
        desk.must_be(&spec, 1, PowerState::Running).await;
        hypervisor.undefine(spec.id, 1).await.expect("undefine");
        desk.must_be_absent(spec.id).await;
    }
}

async fn two_domains_are_independent(desk: &mut Desk) {
    let (one, other) = (desk.running().await, desk.running().await);
    desk.force_off(&one).await;
    desk.must_be(&one, 1, PowerState::Stopped).await;
    desk.must_be(&other, 1, PowerState::Running).await;
    desk.hypervisor().undefine(one.id, 1).await.expect("undefine");
    desk.must_be_absent(one.id).await;
    desk.must_be(&other, 1, PowerState::Running).await;
}

async fn list_of_an_empty_host_is_empty(desk: &mut Desk) {
    assert_eq!(desk.hypervisor().list().await.expect("list"), []);
}

async fn list_tells_what_inspect_tells(desk: &mut Desk) {
    let (runs, off, gone) = (desk.running().await, desk.defined().await, desk.running().await);
    let hypervisor = desk.hypervisor();
    hypervisor.undefine(gone.id, 1).await.expect("undefine");
    hypervisor.define(&at(&off, 4)).await.expect("define newer");
    let mut expected = Vec::new();
    for id in [runs.id, off.id] {
        let inspection = hypervisor.inspect(id).await.expect("inspect");
        expected.push(Recovered { id, inspection });
    }
    expected.sort_by_key(|r| r.id);
    for _ in 0..2 {
        assert_eq!(hypervisor.list().await.expect("list"), expected);
    }
    desk.must_be(&runs, 1, PowerState::Running).await;
    desk.must_be(&off, 4, PowerState::Stopped).await;
}

async fn list_does_not_wait_for_a_slow_stop(desk: &mut Desk) {
    let spec = desk.running().await;
    let hypervisor = desk.hypervisor();
    // Far longer than the case may take: an idle guest answers no power button.
    let mode = StopMode::Graceful {
        timeout: desk.offers.patience * 100,
    };
    let stop = hypervisor.stop(spec.id, 1, mode);
    let look = async {
        // The stop was asked first; after some looks it has the domain to itself.
        let mut found = Vec::new();
        for _ in 0..20 {
            found = hypervisor.list().await.expect("list");
        }
        found
    };
    futures::pin_mut!(stop, look);
    match futures::future::select(stop, look).await {
        futures::future::Either::Left((how, _)) => {
            panic!("the guest does not answer, but the stop says {how:?}")
        }
        futures::future::Either::Right((found, _)) => {
            assert!(
                matches!(found.as_slice(), [one] if one.id == spec.id),
                "{found:?}"
            );
            assert_ne!(found[0].inspection, Inspection::Absent);
        }
    }
}
