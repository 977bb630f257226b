//! How many tasks may be unfinished.

use std::sync::Arc;

use serde_json::json;
use skyloom_cloud::{Caller, CloudError, ErrorKind, TaskLimits};
use skyloom_model::{ImageId, ManualClock, Task, TaskState};
use skyloom_store::layer::{Chaos, ChaosConfig};
use skyloom_store::{DynBackend, MemoryConfig, MemoryStore, Txn};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, active_image};
use crate::world::{World, key, server};

/// Keeps a world's cloud tidy, and waits until its tasks are counted.
async fn counting(world: &World) -> (JoinSet<()>, CancellationToken) {
    let (mut running, stop) = (JoinSet::new(), CancellationToken::new());
    let (cloud, until) = (world.cloud.clone(), stop.clone());
    running.spawn(async move { cloud.keep_tidy(until).await });
    while world.cloud.unfinished_tasks().is_none() {
        tokio::task::yield_now().await;
    }
    (running, stop)
}

async fn create(world: &World, caller: &Caller, image: ImageId) -> Result<Task, CloudError> {
    let mut request = server("s", image);
    request.config_drive = Some(false); // no password, which would be slow to hash
    Ok(world.cloud.create_server(caller, request).await?.task)
}

/// Waits until the count is so.
async fn counted(world: &World, count: usize) {
    while world.cloud.unfinished_tasks() != Some(count) {
        tokio::task::yield_now().await;
    }
}

fn limited(mut world: World, per_project: usize, in_all: usize) -> World {
    world.cloud = world.cloud.with_limits(TaskLimits { per_project, in_all });
    world
}

#[tokio::test]
async fn the_1001st_unfinished_task_of_a_project_is_refused_until_one_has_ended() {
    let mut world = World::new();
    let admin = world.admin().await;
    world.host(&admin, "h1").await;
    let member = world.member(&admin, "shop").await;
    let (image, admins) = (
        active_image(&world, &member).await,
        active_image(&world, &admin).await,
    );
    let (_running, _stop) = counting(&world).await;
    let mut first = None;
    for _ in 0..1000 {
        // No pause: the watch has no time to tell of any of them.
        let task = create(&world, &member, image).await.unwrap();
        first.get_or_insert(task);
    }
    let refused = create(&world, &member, image).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.code()),
        (ErrorKind::TooManyRequests, "tasks.too_many")
    );
    assert!(refused.reason().retryable);
    let wait = refused.wait().unwrap();
    assert!((1..=30).contains(&wait.as_secs()), "{wait:?}");
    assert!(
        refused
            .reason()
            .message
            .contains("the project has 1000 unfinished tasks"),
        "{refused}"
    );
    assert_eq!(world.documents("active").await.len(), 1000, "nothing was written");
    assert!(
        world
            .cloud
            .create_flavor(&admin, crate::facade::flavor("f"))
            .await
            .is_ok(),
        "no task, no limit"
    );
    create(&world, &admin, admins)
        .await
        .expect("another project has its own");

    counted(&world, 1001).await;
    let task = first.unwrap();
    let ended = Engine::new(&world).await.carry(&task).await;
    assert_eq!(ended.state, TaskState::Done);
    counted(&world, 1000).await;
    create(&world, &member, image).await.expect("there is room again");
    create(&world, &member, image).await.expect_err("for one");
}

#[tokio::test]
async fn the_whole_cloud_has_a_limit_too() {
    let world = limited(World::new(), 3, 4);
    let admin = world.admin().await;
    let one = world.member(&admin, "one").await;
    let two = world.member(&admin, "two").await;
    let images = (active_image(&world, &one).await, active_image(&world, &two).await);
    for _ in 0..10 {
        // Nobody counts yet: nothing is limited.
        create(&world, &one, images.0).await.unwrap();
    }
    let marks: Vec<String> = world.documents("active").await.into_keys().collect();
    let forget = marks.iter().fold(Txn::new(), |txn, mark| txn.delete(key(mark)));
    world.store.commit(forget).await.unwrap();
    let (mut running, stop) = counting(&world).await;
    for _ in 0..3 {
        create(&world, &one, images.0).await.unwrap();
    }
    let own = create(&world, &one, images.0).await.unwrap_err();
    assert!(own.reason().message.starts_with("the project has 3"), "{own}");
    create(&world, &two, images.1).await.unwrap();
    let all = create(&world, &two, images.1).await.unwrap_err();
    assert!(all.reason().message.starts_with("the whole cloud has 4"), "{all}");
    let subject = world.cloud.get_image(&two, images.1).await.unwrap().value;
    let task = world
        .cloud
        .own_task("reconciler", "image.delete", &subject, json!({}));
    let reconciler = world.cloud.submit_once("k", task.clone()).await.unwrap_err();
    assert_eq!(reconciler.code(), "tasks.too_many");
    assert!(world.documents("submitted").await.is_empty());

    stop.cancel();
    while running.join_next().await.is_some() {}
    assert_eq!(world.cloud.unfinished_tasks(), None);
    create(&world, &two, images.1)
        .await
        .expect("who does not count does not limit");
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_for_another_reason_takes_no_place() {
    let clock = ManualClock::new();
    let store: DynBackend = Arc::new(MemoryStore::new(Arc::new(clock.clone()), MemoryConfig::default()));
    let calm = World::over(store.clone(), clock.clone());
    let admin = calm.admin().await;
    let image = active_image(&calm, &admin).await;
    let faults = ChaosConfig::default().with_refuse(300);
    let rough = limited(
        World::over(Arc::new(Chaos::new(store, faults, 7)), clock),
        20,
        1000,
    );
    for _ in 0..200 {
        rough.ids.uuid(); // other ids than those of the calm world
    }
    let (_running, _stop) = counting(&rough).await;
    let (mut made, mut failed) = (0, 0);
    let limit = loop {
        match create(&rough, &admin, image).await {
            Ok(_) => made += 1,
            Err(error) if error.kind() == ErrorKind::Unavailable => failed += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(limit.code(), "tasks.too_many");
    assert!(failed > 10, "{failed}");
    assert_eq!(made, 20);
}
