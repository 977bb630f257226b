//! A process that dies after every single commit of a create, a stop and a delete: the next life finishes the work, each
//! effect happens once, and nothing is left over.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Life, World};
use futures::StreamExt as _;
use skyloom::cloud::{CreateServer, StopOptions};
use skyloom::model::{PowerState, Resource as _, Task, TaskState};
use skyloom::store::{DynBackend, ListOptions, Prefix, WatchEvent, WatchOptions};

/// Lets `life` work for `commits` more commits, or until the task ends; then it dies. Tells whether the task had ended.
async fn die_after(backend: &DynBackend, life: Life, task: &Task, commits: usize) -> bool {
    let page = backend
        .list(&Prefix::all(), ListOptions::default())
        .await
        .unwrap();
    let mut seen = backend.watch(&Prefix::all(), WatchOptions::after(page.revision));
    let counted = async {
        let mut left = commits;
        while left > 0 {
            if let Some(Ok(WatchEvent::Commit { .. })) = seen.next().await {
                left -= 1;
            }
        }
    };
    tokio::select! {
        ended = life.cloud.wait_for_task(&life.me, task.id) => { ended.unwrap(); true }
        () = counted => false,
    }
}

/// One verb, cut after every number of commits.
async fn everywhere(name: &str, verb: impl AsyncFn(&Life, &str) -> Task, check: impl Fn(&World)) {
    for commits in 0..60 {
        let world = World::new();
        let life = world.live().await;
        life.image().await;
        let request = CreateServer::new("s", "blank", "m1.tiny");
        let (life, task) = if name == "create" {
            let task = life.cloud.create_server(&life.me, request).await.unwrap().task;
            (life, task)
        } else {
            let made = life.cloud.create_server(&life.me, request).await.unwrap();
            let done = life.cloud.wait_for_task(&life.me, made.task.id).await.unwrap();
            assert_eq!(done.state, TaskState::Done);
            let id = made.server.id().to_string();
            let task = verb(&life, &id).await;
            (life, task)
        };
        let ended = die_after(&world.backend, life, &task, commits).await;
        let next = world.live().await;
        let task = next.cloud.wait_for_task(&next.me, task.id).await.unwrap();
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
        if ended {
            assert!(commits > 3, "{name} was never cut in its middle");
            return;
        }
    }
    panic!("{name} takes more than 60 commits");
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
    let never = async |_: &Life, _: &str| -> Task { unreachable!() };
    everywhere("create", never, |world| {
        let domains = world.host.domains().unwrap();
        assert_eq!(domains.len(), 1);
        assert!(domains.iter().all(|d| d.power == PowerState::Running));
        assert_eq!(starts(world), 1, "I4: one start");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_survives_a_crash_after_every_commit() {
    let stop = async |life: &Life, id: &str| -> Task {
        life.cloud
            .stop_server(&life.me, id.parse().unwrap(), StopOptions::default())
            .await
            .unwrap()
            .task
    };
    everywhere("stop", stop, |world| {
        assert!(
            world
                .host
                .domains()
                .unwrap()
                .iter()
                .all(|d| d.power == PowerState::Stopped)
        );
        assert_eq!(starts(world), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_survives_a_crash_after_every_commit() {
    let delete = async |life: &Life, id: &str| -> Task {
        life.cloud
            .delete_server(&life.me, id.parse().unwrap())
            .await
            .unwrap()
            .task
    };
    everywhere("delete", delete, |world| {
        assert!(world.host.domains().unwrap().is_empty(), "I12: an orphan");
    })
    .await;
}
