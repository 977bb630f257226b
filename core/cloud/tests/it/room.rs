//! Creates that no host can take: they wait for room if they are told to, and what was said of the hosts is kept.

use skyloom_cloud::{Caller, CreateServer};
use skyloom_flow::Rest;
use skyloom_model::{Clock as _, Task, TaskState, paths};
use skyloom_store::Revision;

use crate::engine::{Engine, active_image};
use crate::world::{World, key, server};

/// A cloud without hosts, who runs it, and who has asked for a server there.
async fn asked(wait: Option<u32>) -> (World, Caller, Caller, Task) {
    let world = World::new();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    let image = active_image(&world, &member).await;
    let request = CreateServer {
        wait_for_room_seconds: wait,
        ..server("web", image)
    };
    let made = world.cloud.create_server(&member, request).await.unwrap();
    (world, admin, member, made.task)
}

async fn written(world: &World, task: &Task) -> (Task, Revision) {
    let at = key(&paths::task(task.scope, task.id));
    let found = world.store.get(&at).await.unwrap().unwrap();
    (found.value.parse().unwrap(), found.modified)
}

#[tokio::test]
async fn a_create_waits_until_a_host_has_room() {
    let (mut world, admin, _, task) = asked(Some(3600)).await;
    let mut engine = Engine::new(&world).await;
    assert!(matches!(engine.drive(&task).await, Rest::Room(_)));
    let (waits, revision) = written(&world, &task).await;
    assert_eq!(waits.state, TaskState::Waiting);
    assert_eq!(waits.reason.unwrap().code, "placement.no_host");
    assert!(matches!(engine.drive(&task).await, Rest::Room(_)));
    let again = written(&world, &task).await.1;
    assert_eq!(again, revision, "a look that finds no room writes nothing");
    drop(engine);

    world.host(&admin, "a").await;
    let ended = Engine::new(&world).await.carry(&task).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    assert_eq!(ended.reason, None);
}

#[tokio::test]
async fn a_create_that_waited_in_vain_fails_and_one_that_waits_can_be_cancelled() {
    let (world, _, _, task) = asked(Some(60)).await;
    let began = world.clock.now();
    let ended = Engine::new(&world).await.carry(&task).await;
    assert_eq!(ended.state, TaskState::Failed);
    assert_eq!(ended.reason.unwrap().code, "placement.no_host");
    let waited = world.clock.now().duration_since(began);
    assert!(waited.as_secs() >= 60, "{waited}");

    let (world, _, member, task) = asked(Some(60)).await;
    let mut engine = Engine::new(&world).await;
    assert!(matches!(engine.drive(&task).await, Rest::Room(_)));
    world.cloud.cancel_task(&member, task.id).await.unwrap();
    let ended = engine.carry(&task).await;
    assert_eq!(ended.state, TaskState::Cancelled);
}

#[tokio::test]
async fn what_was_said_of_the_hosts_is_kept_with_a_create_that_found_none() {
    let mut world = World::new();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    let host = world.host(&admin, "a").await;
    let image = active_image(&world, &member).await;
    let request = CreateServer {
        host_labels: [("rack".to_owned(), "none has it".to_owned())].into(),
        ..server("web", image)
    };
    let made = world.cloud.create_server(&member, request).await.unwrap();
    let ended = Engine::new(&world).await.carry(&made.task).await;
    assert_eq!(ended.state, TaskState::Failed);
    let operator = Caller {
        project: member.project,
        lineage: member.lineage.clone(),
        ..admin
    };
    let id = skyloom_model::Resource::id(&made.server);
    let told = world.cloud.server_placement(&operator, id).await.unwrap();
    let told = told.placement.unwrap();
    assert_eq!((&told["considered"], &told["fitting"]), (&1.into(), &0.into()));
    assert!(told.to_string().contains(&host.to_string()), "{told}");
    let told = world.cloud.server_placement(&member, id).await.unwrap();
    let told = told.placement.unwrap();
    assert!(
        told.to_string().contains("rack") && !told.to_string().contains(&host.to_string()),
        "{told}"
    );
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let (world, _, member, _) = asked(None).await;
    let image = active_image(&world, &member).await;
    for seconds in [0, 82_801] {
        let request = CreateServer {
            wait_for_room_seconds: Some(seconds),
            ..server("web", image)
        };
        let refused = world.cloud.create_server(&member, request).await.unwrap_err();
        assert_eq!(refused.code(), "wait_for_room.invalid");
    }
}
