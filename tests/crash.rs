//! A process that dies after every single commit of a create, a stop and a delete: the next life finishes the work, each
//! effect happens once, and nothing is left over.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::World;
use skyloom::cloud::{CreateServer, StopOptions};
use skyloom::model::{PowerState, Resource as _, ServerId, Task, TaskState};
use skyloom::store::{ListOptions, Prefix};

/// Enough commits for any of these verbs.
const PLENTY: usize = 1_000_000;

/// One verb on a running server, cut after every number of commits until it gets through.
async fn everywhere(
    name: &str,
    verb: impl AsyncFn(&World, Option<ServerId>) -> Task,
    prepared: bool,
    check: impl Fn(&World),
) {
    for commits in 0..100 {
        let world = World::new().await;
        let life = world.live(PLENTY).await;
        world.image().await;
        let server = if prepared { Some(make(&world).await) } else { None };
        drop(life);

        let life = world.live(commits).await;
        let task = verb(&world, server).await;
        let through = tokio::select! {
            ended = world.cloud.wait_for_task(&world.me, task.id) => { ended.unwrap(); true }
            () = life.dead() => false,
        };
        drop(life);

        let _next = world.live(PLENTY).await;
        let task = world.cloud.wait_for_task(&world.me, task.id).await.unwrap();
        assert_eq!(
            task.state,
            TaskState::Done,
            "{name} cut after {commits} commits: {:?}",
            task.reason
        );
        check(&world);
        for prefix in ["active", "jobs", "lent"] {
            let left = world
                .backend
                .list(&Prefix::parse(prefix).unwrap(), ListOptions::default())
                .await
                .unwrap();
            assert!(
                left.items.is_empty(),
                "{name} cut after {commits} commits leaves {:?}",
                left.items
            );
        }
        if through {
            assert!(
                commits >= 5,
                "{name} takes at least claim, plan, start, result and end"
            );
            return;
        }
    }
    panic!("{name} takes more than 100 commits");
}

/// A server that runs.
async fn make(world: &World) -> ServerId {
    let made = world
        .cloud
        .create_server(&world.me, CreateServer::new("s", "blank", "m1.tiny"))
        .await
        .unwrap();
    let done = world.cloud.wait_for_task(&world.me, made.task.id).await.unwrap();
    assert_eq!(done.state, TaskState::Done);
    made.server.id()
}

fn starts(world: &World) -> usize {
    let history = world.host.history().unwrap();
    history
        .iter()
        .filter(|e| format!("{e:?}").contains("Start"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_survives_a_crash_after_every_commit() {
    let create = async |world: &World, _: Option<ServerId>| -> Task {
        world
            .cloud
            .create_server(&world.me, CreateServer::new("s", "blank", "m1.tiny"))
            .await
            .unwrap()
            .task
    };
    let check = |world: &World| {
        let domains = world.host.domains().unwrap();
        assert_eq!(domains.len(), 1);
        assert!(domains.iter().all(|d| d.power == PowerState::Running));
        assert_eq!(starts(world), 1, "I4: one start");
    };
    everywhere("create", create, false, check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_survives_a_crash_after_every_commit() {
    let stop = async |world: &World, id: Option<ServerId>| -> Task {
        world
            .cloud
            .stop_server(&world.me, id.unwrap(), StopOptions::default())
            .await
            .unwrap()
            .task
    };
    let check = |world: &World| {
        assert!(
            world
                .host
                .domains()
                .unwrap()
                .iter()
                .all(|d| d.power == PowerState::Stopped)
        );
        assert_eq!(starts(world), 1, "a stop starts nothing");
    };
    everywhere("stop", stop, true, check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_survives_a_crash_after_every_commit() {
    let delete = async |world: &World, id: Option<ServerId>| -> Task {
        world
            .cloud
            .delete_server(&world.me, id.unwrap())
            .await
            .unwrap()
            .task
    };
    let check = |world: &World| assert!(world.host.domains().unwrap().is_empty(), "I12: an orphan");
    everywhere("delete", delete, true, check).await;
}
