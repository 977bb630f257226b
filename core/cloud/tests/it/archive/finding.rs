//! What is archived is found: by id, in lists, by whoever asked before, and by nobody else.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use skyloom_cloud::{
    Archive, ArchiveConfig, ArchiveParts, Caller, ErrorKind, EventQuery, OrderTask, TaskQuery,
};
use skyloom_identity::BuiltIn;
use skyloom_model::{Clock as _, OrderVerb, Reason, Resource as _, Scope, Task, TaskState, paths};
use skyloom_store::{DynBackend, Txn, Value, Versioned};

use super::shared::{DAY, Fated, Fates, Fault, memory};
use crate::engine::{Engine, active_image};
use crate::facade_tasks::{read, task};
use crate::world::{World, caller, key, server, with_key};

/// A world whose archive is another store.
fn world() -> (World, DynBackend) {
    let mut world = World::new();
    let cold = memory(&world.clock);
    let archive = archive(&world, cold.clone());
    world.cloud = world.cloud.clone().with_archive(archive);
    (world, cold)
}

fn archive(world: &World, store: DynBackend) -> Archive {
    Archive::new(ArchiveParts {
        hot: world.store.clone(),
        store,
        clock: Arc::new(world.clock.clone()),
        readiness: None,
        config: ArchiveConfig::default(),
    })
    .unwrap()
}

/// Ends a task as an engine would.
async fn end(world: &World, task: &Task, state: TaskState, reason: Option<Reason>) -> Task {
    let found: Versioned<Task> = read(world, task).await;
    let next = Task {
        state,
        reason,
        ended_at: Some(world.clock.now()),
        ..found.value.clone()
    };
    let txn = found.replace(&next).unwrap().delete(key(&paths::active(task.id)));
    assert!(world.store.commit(txn).await.unwrap().committed().is_some());
    next
}

fn archived() -> TaskQuery {
    TaskQuery {
        archived: true,
        ..TaskQuery::default()
    }
}

async fn ids(world: &World, caller: &Caller, query: &TaskQuery) -> Vec<skyloom_model::TaskId> {
    let mut query = query.clone();
    let mut found = Vec::new();
    loop {
        let page = world.cloud.list_tasks(caller, &query).await.unwrap();
        found.extend(page.items.iter().map(|t| t.id));
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return found,
        }
    }
}

#[tokio::test]
async fn an_archived_task_is_shown_as_it_was() {
    let (mut world, _) = world();
    let admin = world.admin().await;
    world.host(&admin, "h1").await;
    let member = world.member(&admin, "shop").await;
    let image = active_image(&world, &member).await;
    let made = world
        .cloud
        .create_server(&with_key(&member, "once"), server("s", image))
        .await
        .unwrap();
    Engine::new(&world).await.carry(&made.task).await;
    let before = world.cloud.task_detail(&member, made.task.id).await.unwrap();
    let why = world
        .cloud
        .server_placement(&member, made.server.id())
        .await
        .unwrap();
    assert!(!before.value.archived && !before.value.jobs.is_empty() && why.placement.is_some());
    world.clock.advance(DAY + Duration::from_secs(1));
    let moved = world.cloud.archive().move_all().await.unwrap();
    assert!(moved.tasks >= 1 && moved.left == 0, "{moved:?}");
    assert!(world.documents("tasks").await.is_empty());
    assert!(world.documents("plans").await.is_empty() && world.documents("runs").await.is_empty());

    let after = world.cloud.task_detail(&member, made.task.id).await.unwrap();
    assert!(after.value.archived);
    assert_eq!((&after.key, after.modified), (&before.key, before.modified));
    let same = skyloom_cloud::TaskDetail {
        archived: true,
        ..before.value
    };
    assert_eq!(after.value, same);
    // Who may not see it is told what he was told before.
    let stranger = world.member(&admin, "other").await;
    for who in [&stranger, &caller(BuiltIn::Admin, stranger.project)] {
        let refused = world.cloud.task_detail(who, made.task.id).await.unwrap_err();
        assert_eq!(refused.code(), "task.not_found");
        let refused = world.cloud.get_task(who, made.task.id).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotFound);
        assert!(!ids(&world, who, &archived()).await.contains(&made.task.id));
    }
    // Everything that goes by the task goes on.
    assert_eq!(
        world
            .cloud
            .server_placement(&member, made.server.id())
            .await
            .unwrap(),
        why
    );
    let waited = world.cloud.wait_for_task(&member, made.task.id).await.unwrap();
    assert_eq!(waited, same.task);
    let refused = world.cloud.cancel_task(&member, made.task.id).await.unwrap_err();
    assert_eq!(refused.code(), "task.ended");
    let stale = Caller {
        if_match: Some(before.modified),
        ..member.clone()
    };
    let refused = world.cloud.cancel_task(&stale, made.task.id).await.unwrap_err();
    assert_eq!(refused.code(), "task.ended");
    let order = OrderTask { why: "so".to_owned() };
    let owner = caller(BuiltIn::Admin, member.project);
    let refused = world
        .cloud
        .order_task(&owner, made.task.id, OrderVerb::Retry, &order.why)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "task.not_stuck");
    // The same request with the same key, while its answer is remembered: the same task.
    let again = world
        .cloud
        .create_server(&with_key(&member, "once"), server("s", image))
        .await
        .unwrap();
    assert_eq!(
        (again.task.id, again.server.id()),
        (made.task.id, made.server.id())
    );
    // No secret came along.
    let text: String = world.documents("secrets").await.into_values().collect();
    let cold = world
        .cloud
        .task_detail(&member, made.task.id)
        .await
        .unwrap()
        .value;
    let shown = serde_json::to_string(&cold).unwrap();
    let secrets: serde_json::Value = serde_json::from_str(&text).unwrap();
    for secret in secrets.as_object().unwrap().values().filter_map(|v| v.as_str()) {
        assert!(secret.len() < 12 || !shown.contains(secret));
    }
}

#[tokio::test]
async fn the_archive_is_searched_with_the_filters_of_the_list() {
    let (world, _) = world();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    let start = world.clock.now();
    let hour = Duration::from_secs(3600);
    let mut ended = Vec::new();
    for (state, code) in [
        (TaskState::Done, None),
        (TaskState::Failed, Some("image.fetch_failed")),
        (TaskState::Cancelled, Some("task.cancelled")),
        (TaskState::Failed, Some("imagery.odd")),
    ] {
        let asked = task(&world, &member).await;
        world.clock.advance(hour);
        let reason = code.map(|code| Reason::new(code, "so it is"));
        ended.push(end(&world, &asked, state, reason).await);
    }
    let own = world.cloud.own_task(
        "reconciler",
        "host.sweep",
        &crate::facade_tasks::some_image(&world, &admin).await,
        json!({}),
    );
    let own = world.cloud.submit_once("k", own).await.unwrap();
    end(&world, &own, TaskState::Done, None).await;
    let young = task(&world, &member).await;
    world.clock.advance(DAY + hour);
    world.cloud.archive().move_all().await.unwrap();

    let at = |hours: u32| {
        Some(
            start
                .checked_add(jiff::SignedDuration::try_from(hour * hours).unwrap())
                .unwrap(),
        )
    };
    let q = archived;
    let all: Vec<usize> = (0..4).collect();
    let cases: Vec<(TaskQuery, &[usize])> = vec![
        (q(), &all),
        (
            TaskQuery {
                limit: Some(1),
                ..q()
            },
            &all,
        ),
        (
            TaskQuery {
                state: Some(TaskState::Failed),
                ..q()
            },
            &[1, 3],
        ),
        (
            TaskQuery {
                flow: Some("image.import".to_owned()),
                ..q()
            },
            &all,
        ),
        (
            TaskQuery {
                flow: Some("host.sweep".to_owned()),
                ..q()
            },
            &[],
        ),
        (
            TaskQuery {
                subject: Some(ended[2].subject.id),
                ..q()
            },
            &[2],
        ),
        (
            TaskQuery {
                kind: Some("images".to_owned()),
                ..q()
            },
            &all,
        ),
        (
            TaskQuery {
                kind: Some("servers".to_owned()),
                ..q()
            },
            &[],
        ),
        (
            TaskQuery {
                name: Some("debian".to_owned()),
                ..q()
            },
            &all,
        ),
        (
            TaskQuery {
                name: Some("debia".to_owned()),
                ..q()
            },
            &[],
        ),
        (
            TaskQuery {
                actor: Some("member".to_owned()),
                ..q()
            },
            &all,
        ),
        (
            TaskQuery {
                actor: Some(member.actor.id.clone()),
                ..q()
            },
            &all,
        ),
        (
            TaskQuery {
                actor: Some("admin".to_owned()),
                ..q()
            },
            &[],
        ),
        (
            TaskQuery {
                code: Some("image.fetch_failed".to_owned()),
                ..q()
            },
            &[1],
        ),
        (
            TaskQuery {
                code: Some("image".to_owned()),
                ..q()
            },
            &[1],
        ),
        (
            TaskQuery {
                code: Some("task".to_owned()),
                ..q()
            },
            &[2],
        ),
        (
            TaskQuery {
                ended_after: at(2),
                ..q()
            },
            &[1, 2, 3],
        ),
        (
            TaskQuery {
                ended_before: at(2),
                ..q()
            },
            &[0],
        ),
        (
            TaskQuery {
                ended_after: at(2),
                ended_before: at(4),
                limit: Some(1),
                ..q()
            },
            &[1, 2],
        ),
        (
            TaskQuery {
                started_after: at(1),
                started_before: at(3),
                ..q()
            },
            &[1, 2],
        ),
        (
            TaskQuery {
                ended_after: at(90),
                ..q()
            },
            &[],
        ),
    ];
    for (query, wanted) in cases {
        let wanted: Vec<_> = wanted.iter().map(|n| ended[*n].id).collect();
        assert_eq!(ids(&world, &member, &query).await, wanted, "{query:?}");
        // The list of what is in the store knows the same conditions, and has none of these.
        let hot = TaskQuery {
            archived: false,
            ..query
        };
        let found = ids(&world, &member, &hot).await;
        assert!(found.is_empty() || found == [young.id], "{hot:?}");
    }
    // Administrators see the cloud's own too, in their own project; others do not.
    assert!(!ids(&world, &member, &archived()).await.contains(&own.id));
    let theirs = ids(&world, &admin, &archived()).await;
    assert!(theirs.contains(&own.id) && theirs.iter().all(|id| ended.iter().all(|t| t.id != *id)));
    // A cursor of one list is none of the other's.
    let page = world
        .cloud
        .list_tasks(
            &member,
            &TaskQuery {
                limit: Some(1),
                ..archived()
            },
        )
        .await
        .unwrap();
    let wrong = TaskQuery {
        cursor: page.next,
        ..TaskQuery::default()
    };
    assert_eq!(
        world.cloud.list_tasks(&member, &wrong).await.unwrap_err().code(),
        "cursor.invalid"
    );
}

#[tokio::test]
async fn archived_events_are_listed_on_their_own() {
    let (world, _) = world();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    let asked = task(&world, &member).await;
    world.clock.advance(DAY * 8);
    let young = task(&world, &member).await;
    assert_eq!(world.cloud.forget_old().await.unwrap(), 1);
    let tasks = async |archived| {
        let query = EventQuery {
            archived,
            ..EventQuery::default()
        };
        let found = world.cloud.list_events(&member, &query).await.unwrap();
        found.items.iter().map(|e| e.task.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(tasks(true).await, [asked.id]);
    assert_eq!(tasks(false).await, [young.id]);
    let none = EventQuery {
        archived: true,
        task: Some(young.id),
        ..EventQuery::default()
    };
    assert!(
        world
            .cloud
            .list_events(&member, &none)
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let stranger = world.member(&admin, "other").await;
    let all = EventQuery {
        archived: true,
        ..EventQuery::default()
    };
    assert!(
        world
            .cloud
            .list_events(&stranger, &all)
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

#[tokio::test]
async fn a_search_looks_at_a_bounded_part_and_goes_on_by_its_cursor() {
    let (world, cold) = world();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    let asked = task(&world, &member).await;
    let ended = end(&world, &asked, TaskState::Done, None).await;
    for number in 0..1500_u32 {
        let task = Task {
            id: skyloom_model::TaskId::fresh(&*world.ids),
            state: if number == 1400 {
                TaskState::Failed
            } else {
                TaskState::Done
            },
            ..ended.clone()
        };
        let at = key(&paths::archived_task(
            task.scope,
            ended.ended_at.unwrap(),
            task.id,
        ));
        let document = json!({"format": 1, "archived_at": world.clock.now(), "revision": 1, "task": task});
        let txn = Txn::new().create(at, Value::json(&document).unwrap());
        cold.commit(txn).await.unwrap();
    }
    let query = TaskQuery {
        state: Some(TaskState::Failed),
        ..archived()
    };
    let first = world.cloud.list_tasks(&member, &query).await.unwrap();
    assert!(first.items.is_empty() && first.next.is_some(), "a short page");
    let query = TaskQuery {
        cursor: first.next,
        ..query
    };
    let second = world.cloud.list_tasks(&member, &query).await.unwrap();
    assert_eq!((second.items.len(), second.next), (1, None));
}

#[tokio::test]
async fn without_its_archive_a_cloud_works_and_says_what_it_cannot_tell() {
    let (mut world, cold) = world();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    let asked = task(&world, &member).await;
    let old = end(&world, &asked, TaskState::Done, None).await;
    world.clock.advance(DAY * 2);
    world.cloud.archive().move_all().await.unwrap();
    let away = Arc::new(Fates::one(0, Fault::DeadBefore));
    let archive = archive(&world, Arc::new(Fated::new(&cold, &away)));
    world.cloud = world.cloud.clone().with_archive(archive);
    let young = task(&world, &member).await;
    assert_eq!(
        world.cloud.get_task(&member, young.id).await.unwrap().value,
        young
    );
    let detail = world.cloud.task_detail(&member, young.id).await.unwrap();
    assert_eq!(detail.value.task, young);
    let listed = world
        .cloud
        .list_tasks(&member, &TaskQuery::default())
        .await
        .unwrap();
    assert_eq!(listed.items.len(), 1);
    for refused in [
        world.cloud.get_task(&member, old.id).await.map(|_| ()),
        world.cloud.task_detail(&member, old.id).await.map(|_| ()),
        world.cloud.list_tasks(&member, &archived()).await.map(|_| ()),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "never `not found`: {error}");
    }
}

#[tokio::test]
async fn a_key_of_a_submission_is_answered_with_the_archived_task() {
    let (mut world, cold) = world();
    let admin = world.admin().await;
    let config = ArchiveConfig::default().with_after(Duration::from_secs(60));
    let archive = Archive::new(ArchiveParts {
        hot: world.store.clone(),
        store: cold,
        clock: Arc::new(world.clock.clone()),
        readiness: None,
        config,
    })
    .unwrap();
    world.cloud = world.cloud.clone().with_archive(archive);
    let image = crate::facade_tasks::some_image(&world, &admin).await;
    let make = || {
        world
            .cloud
            .own_task("reconciler", "image.delete", &image, json!({}))
    };
    let first = world.cloud.submit_once("k", make()).await.unwrap();
    let ended = end(&world, &first, TaskState::Done, None).await;
    world.clock.advance(Duration::from_secs(61));
    assert_eq!(world.cloud.archive().move_all().await.unwrap().tasks, 1);
    assert_eq!(world.cloud.submit_once("k", make()).await.unwrap(), ended);
    assert!(
        world.documents("tasks").await.is_empty(),
        "nothing was begun anew"
    );
    assert_eq!(ended.scope, first.scope);
    assert_ne!(ended.scope, Scope::System);
}
