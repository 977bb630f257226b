//! What does not fit becomes a task, once, and nothing else changes.

use skyloom_cloud::{Reconciled, Suspects, TaskQuery};
use skyloom_model::{
    Claim, HostId, Id, PowerState, Resource as _, Resources, Server, ServerId, Task, VmObservation, paths,
};
use skyloom_store::{DynBackend, Outcome, Txn, Value, Versioned};

use crate::engine::{Engine, active_image};
use crate::world::{World, key, server};

async fn put<T: serde::Serialize>(store: &DynBackend, path: &str, document: &T) {
    let txn = Txn::new().put(key(path), Value::json(document).unwrap());
    assert!(matches!(
        store.commit(txn).await.unwrap(),
        Outcome::Committed { .. }
    ));
}

async fn tasks(world: &World, admin: &skyloom_cloud::Caller) -> Vec<Task> {
    let query = TaskQuery::default();
    world.cloud.list_tasks(admin, &query).await.unwrap().items
}

#[tokio::test]
async fn a_cloud_in_order_is_left_alone() {
    let mut world = World::new();
    let admin = world.admin().await;
    world.host(&admin, "h1").await;
    let image = active_image(&world, &admin).await;
    let made = world
        .cloud
        .create_server(&admin, server("web", image))
        .await
        .unwrap();
    Engine::new(&world).await.carry(&made.task).await;
    let before = world.documents("").await;
    let mut suspects = Suspects::default();
    for _ in 0..3 {
        assert_eq!(
            world.cloud.reconcile(&mut suspects).await.unwrap(),
            Reconciled::default()
        );
    }
    assert_eq!(world.documents("").await, before);
}

#[tokio::test]
async fn claims_and_domains_of_nobody_are_reported_once() {
    let mut world = World::new();
    let admin = world.admin().await;
    let host: HostId = world.host(&admin, "h1").await;
    let ghost: ServerId = Id::fresh(&*world.ids);
    let claim = Claim {
        server: ghost,
        scope: None,
        resources: Resources::default(),
        group: None,
    };
    put(&world.store, &paths::claim(host, ghost), &claim).await;
    let seen = VmObservation {
        server: ghost,
        project: admin.project,
        generation: 3,
        power: PowerState::Running,
        cause: None,
        accelerator: None,
        observed_at: jiff::Timestamp::UNIX_EPOCH,
    };
    put(&world.store, &paths::host_vm(host, ghost), &seen).await;
    let mut suspects = Suspects::default();
    for _ in 0..2 {
        let found = world.cloud.reconcile(&mut suspects).await.unwrap();
        assert_eq!((found.claims, found.domains, found.running), (1, 1, 0));
    }
    let mut flows: Vec<String> = tasks(&world, &admin).await.into_iter().map(|t| t.flow).collect();
    flows.sort();
    assert_eq!(
        flows,
        ["claim.release", "host.sweep"],
        "each once, however often it is looked"
    );
}

#[tokio::test]
async fn a_server_that_runs_and_should_not_is_stopped_after_a_second_look() {
    let mut world = World::new();
    let admin = world.admin().await;
    world.host(&admin, "h1").await;
    let image = active_image(&world, &admin).await;
    let made = world
        .cloud
        .create_server(&admin, server("web", image))
        .await
        .unwrap();
    Engine::new(&world).await.carry(&made.task).await;
    let id = made.server.id();
    let mut found: Versioned<Server> = world.cloud.get_server(&admin, id).await.unwrap();
    assert_eq!(found.value.status.power, PowerState::Running);
    found.value.spec.running = false;
    put(&world.store, found.key.as_str(), &found.value).await;
    let mut suspects = Suspects::default();
    assert_eq!(
        world.cloud.reconcile(&mut suspects).await.unwrap().running,
        0,
        "it may be on its way"
    );
    assert_eq!(world.cloud.reconcile(&mut suspects).await.unwrap().running, 1);
    let stop = tasks(&world, &admin)
        .await
        .into_iter()
        .find(|t| t.flow == "server.stop")
        .unwrap();
    assert_eq!(stop.actor.name, "reconciler");
    assert_eq!(
        world.cloud.reconcile(&mut suspects).await.unwrap().running,
        0,
        "under way"
    );
    Engine::new(&world).await.carry(&stop).await;
    let after = world.cloud.get_server(&admin, id).await.unwrap().value;
    assert_eq!(after.status.power, PowerState::Stopped);
}
