//! Old orders that come again, and hypervisors that do as they are told.

use futures::StreamExt;
use skyloom_hypervisor::{
    EffectKind, Executions, FakeOptions, FakeWorld, Fault, FaultPoint, Hypervisor, StopMode,
    never_two_running,
};
use skyloom_model::PowerState;

use super::{power, spec, world};

#[tokio::test]
async fn old_orders_that_come_again_do_nothing() {
    let (world, spec) = world().await;
    let hypervisor = world.hypervisor();
    assert_eq!(world.replay_old_order(spec.id).unwrap(), None, "none came yet");
    hypervisor.start(spec.id, 3).await.unwrap();
    assert_eq!(
        world.replay_old_order(spec.id).unwrap(),
        None,
        "the start is as new as the domain"
    );
    hypervisor.stop(spec.id, 4, StopMode::Force).await.unwrap();
    assert_eq!(world.replay_old_order(spec.id).unwrap(), Some(vec![]));
    assert_eq!(power(&world, spec.id).await, PowerState::Stopped);
    hypervisor.start(spec.id, 5).await.unwrap();
    assert_eq!(world.replay_old_order(spec.id).unwrap(), Some(vec![]));
    assert_eq!(power(&world, spec.id).await, PowerState::Running);
    hypervisor.undefine(spec.id, 6).await.unwrap();
    assert_eq!(world.replay_old_order(spec.id).unwrap(), Some(vec![]));
}

#[tokio::test]
async fn old_orders_are_remembered_in_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let open = || FakeWorld::open(FakeOptions::directory(directory.path())).unwrap();
    let spec = spec(1);
    let hypervisor = open().hypervisor();
    hypervisor.define(&spec).await.unwrap();
    hypervisor.start(spec.id, 3).await.unwrap();
    hypervisor.stop(spec.id, 4, StopMode::Force).await.unwrap();
    let world = open();
    assert_eq!(world.replay_old_order(spec.id).unwrap(), Some(vec![]));
    assert_eq!(world.domain(spec.id).unwrap().unwrap().spec.generation, 4);
}

#[tokio::test]
async fn naive_hypervisor_starts_a_second_execution_and_the_history_shows_it() {
    let world = FakeWorld::open(FakeOptions::in_memory().naive_start().tag(7)).unwrap();
    let (hypervisor, spec) = (world.hypervisor(), spec(1));
    let mut events = hypervisor.events();
    hypervisor.define(&spec).await.unwrap();
    world.fault_next(FaultPoint::Start, Fault::Twice).unwrap();
    hypervisor.start(spec.id, 3).await.unwrap();
    // A newer order finds the guest running and takes it over.
    hypervisor.start(spec.id, 4).await.unwrap();
    assert_eq!(never_two_running(&[world.history().unwrap()]), Ok(()));
    hypervisor.start(spec.id, 4).await.unwrap();
    let history = world.history().unwrap();
    assert_eq!(
        history.last().map(|e| (&e.kind, e.generation, e.host)),
        Some((&EffectKind::StartedTwice, 4, 7))
    );
    assert!(never_two_running(&[history]).is_err());
    assert!(events.next().await.is_some());
}

#[tokio::test]
async fn executions_are_told_effect_by_effect_over_hosts() {
    let sequence = std::sync::Arc::default();
    let host = |tag| {
        let options = FakeOptions::in_memory();
        FakeWorld::open(options.tag(tag).sequence(std::sync::Arc::clone(&sequence))).unwrap()
    };
    let (one, other, spec) = (host(1), host(2), spec(1));
    let mut seen = Executions::default();
    let mut from = 0;
    let mut look = || {
        let mut news = one.history_since(from).unwrap();
        news.extend(other.history_since(from).unwrap());
        news.sort_by_key(|e| e.at);
        from = one.position().unwrap();
        let told = news.iter().try_for_each(|e| seen.see(e));
        (news.len(), told.is_ok(), seen.host_of(spec.id))
    };
    for world in [&one, &other] {
        world.hypervisor().define(&spec).await.unwrap();
    }
    one.hypervisor().start(spec.id, 3).await.unwrap();
    assert_eq!(look(), (3, true, Some(1)));
    assert_eq!(look(), (0, true, Some(1)), "nothing is told twice");
    assert!(one.crash_guest(spec.id).unwrap());
    assert_eq!(look(), (1, true, None));
    other.hypervisor().start(spec.id, 3).await.unwrap();
    assert_eq!(look(), (1, true, Some(2)));
    one.hypervisor().start(spec.id, 3).await.unwrap();
    assert_eq!(look(), (1, false, Some(2)));
}
