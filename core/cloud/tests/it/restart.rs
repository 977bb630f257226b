//! A server whose process ended by itself runs again when its time has come, if that is wanted.

use std::time::Duration;

use skyloom_cloud::{Reconciled, Suspects, UpdateServer};
use skyloom_model::{Clock as _, Crashes, OnCrash, PowerState, Resource as _, Server, TaskState, paths};
use skyloom_store::{Outcome, Versioned};

use crate::engine::{Engine, active_image};
use crate::world::{World, key, server};

#[tokio::test]
async fn a_crashed_server_is_started_when_its_wait_is_over_and_not_before() {
    let mut world = World::new();
    let admin = world.admin().await;
    world.host(&admin, "h1").await;
    let image = active_image(&world, &admin).await;
    let made = world
        .cloud
        .create_server(&admin, server("web", image))
        .await
        .unwrap();
    let id = made.server.id();
    let mut engine = Engine::new(&world).await;
    engine.carry(&made.task).await;
    let path = key(&paths::resource(Server::KIND, admin.scope(), id.uuid()));
    let read = async || -> Versioned<Server> {
        Versioned::decode(&world.store.get(&path).await.unwrap().unwrap()).unwrap()
    };
    // What the observer writes of a crash; the mark is its own matter.
    let mut crashed = read().await;
    crashed.value.status.power = PowerState::Crashed;
    let crashes = Crashes::after(None, None, world.clock.now(), OnCrash::Restart);
    crashed.value.status.crashes = Some(crashes);
    let txn = crashed.replace(&crashed.value).unwrap();
    assert!(matches!(
        world.store.commit(txn).await.unwrap(),
        Outcome::Committed { .. }
    ));

    let cloud = &world.cloud;
    let mut suspects = Suspects::default();
    world.clock.advance(Duration::from_secs(60));
    let left = cloud.reconcile(&mut suspects).await.unwrap();
    assert_eq!(left, Reconciled::default(), "it is to be left off");
    let request = UpdateServer {
        on_crash: Some(OnCrash::Restart),
        ..UpdateServer::default()
    };
    assert_eq!(
        cloud
            .update_server(&admin, id, request)
            .await
            .unwrap()
            .spec
            .on_crash,
        OnCrash::Restart
    );
    let mut early = read().await;
    let soon = Crashes::after(None, None, world.clock.now(), OnCrash::Restart);
    early.value.status.crashes = Some(soon);
    let txn = early.replace(&early.value).unwrap();
    assert!(matches!(
        world.store.commit(txn).await.unwrap(),
        Outcome::Committed { .. }
    ));
    assert_eq!(
        cloud.reconcile(&mut suspects).await.unwrap().due,
        0,
        "it cools down"
    );

    world.clock.advance(Duration::from_secs(10));
    assert_eq!(cloud.reconcile(&mut suspects).await.unwrap().due, 1);
    let start = read().await.value.status.activity.unwrap();
    assert_eq!(start.flow, "server.start");
    let start = cloud.get_task(&admin, start.task).await.unwrap().value;
    assert_eq!(engine.carry(&start).await.state, TaskState::Done);
    let now = read().await.value.status;
    assert_eq!(
        (now.power, now.crashes.map(|c| c.count)),
        (PowerState::Running, Some(1))
    );
    assert_eq!(
        cloud.reconcile(&mut suspects).await.unwrap(),
        Reconciled::default()
    );
}
