//! Events, and how long they and other records are kept.

use std::time::Duration;

use serde_json::json;
use skyloom_cloud::{EventQuery, SweepHost};
use skyloom_model::{Event, EventKind, Scope, paths};
use skyloom_store::{Txn, Value};

use crate::facade_tasks::{events, read, some_image, task};
use crate::world::{World, key, with_key};

#[tokio::test]
async fn each_request_leaves_an_event_in_the_same_commit() {
    let mut world = World::new();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    let other = world.member(&admin, "other").await;
    let keyed = with_key(&member, "once");
    let asked = task(&world, &keyed).await;
    let again = task(&world, &keyed).await;
    assert_eq!(asked.id, again.id);

    let told = events(&world, &member, EventQuery::default()).await;
    let [event] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!(
        (event.kind, event.task),
        (EventKind::TaskAccepted, Some(asked.id))
    );
    assert_eq!(
        (&event.subject, &event.request_id),
        (&asked.subject, &Some(asked.request_id.clone()))
    );
    assert_eq!(event.message, "image.import of debian was asked for by member");
    let at = key(&paths::event(event.scope, event.id));
    let told_at = world.store.get(&at).await.unwrap().unwrap().modified;
    assert_eq!(told_at, read(&world, &asked).await.modified, "one commit");
    assert!(
        events(&world, &other, EventQuery::default()).await.is_empty(),
        "the project's own"
    );

    let host = world.host(&admin, "h1").await;
    let sweep = world
        .cloud
        .sweep_host(&admin, host, SweepHost { remove: true })
        .await
        .unwrap()
        .task;
    assert_eq!(
        (sweep.scope, &sweep.params),
        (Scope::System, &json!({"remove": true}))
    );
    let of = |subject, task, kind| EventQuery {
        subject,
        task,
        kind,
        ..EventQuery::default()
    };
    for (query, count) in [
        (of(Some(host.uuid()), None, None), 1),
        (of(None, Some(sweep.id), None), 1),
        (of(None, Some(asked.id), None), 0),
        (of(None, None, Some(EventKind::TaskEnded)), 0),
        (of(None, None, Some(EventKind::TaskAccepted)), 1),
    ] {
        let found = events(&world, &admin, query.clone()).await;
        assert_eq!(
            found.len(),
            count,
            "{query:?}: in the default project only the cloud's own"
        );
    }
    let denied = world
        .cloud
        .sweep_host(&member, host, SweepHost::default())
        .await
        .unwrap_err();
    assert_eq!(denied.code(), "host.not_found");
}

#[tokio::test]
async fn events_come_in_pages() {
    let world = World::new();
    let admin = world.admin().await;
    for _ in 0..5 {
        task(&world, &admin).await;
    }
    let mut query = EventQuery {
        limit: Some(2),
        ..EventQuery::default()
    };
    let (mut pages, mut seen) = (0, Vec::new());
    loop {
        let page = world.cloud.list_events(&admin, &query).await.unwrap();
        pages += 1;
        seen.extend(page.items.iter().map(|e| e.id));
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => break,
        }
    }
    assert_eq!((pages, seen.len()), (3, 5));
    assert!(seen.is_sorted(), "oldest first");
}

#[tokio::test]
async fn what_is_old_is_forgotten_and_only_that() {
    let world = World::new();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    let day = Duration::from_secs(24 * 3600);
    let own = world.cloud.own_task(
        "tests",
        "image.import",
        &some_image(&world, &admin).await,
        json!({}),
    );
    world.cloud.submit_once("k", own).await.unwrap();
    for who in [&admin, &member, &admin] {
        task(&world, who).await;
        world.clock.advance(day * 4);
    }
    // The ages of the events: 12 (submitted), 12, 8 and 4 days.
    let before = world.documents("events").await;
    assert_eq!(before.len(), 4);
    assert_eq!(world.documents("submitted").await.len(), 1);
    // What cannot be read stays where it is, and nobody stumbles over it.
    let odd = key(&format!(
        "events/{}/01900000-0000-7000-8000-000000000000",
        Scope::System
    ));
    let txn = Txn::new().put(odd.clone(), Value::json(&json!({"at": "never"})).unwrap());
    world.store.commit(txn).await.unwrap();
    assert_eq!(world.cloud.forget_old().await.unwrap(), 4);
    let left = world.documents("events").await;
    assert_eq!(left.len(), 2, "one young event and the odd one");
    assert!(left.contains_key(odd.as_str()));
    assert!(world.documents("submitted").await.is_empty());
    assert_eq!(world.cloud.forget_old().await.unwrap(), 0);
    assert_eq!(world.documents("tasks").await.len(), 4, "tasks are history");
}

#[tokio::test]
async fn many_old_records_go_in_one_run() {
    let world = World::new();
    let admin = world.admin().await;
    let asked = task(&world, &admin).await;
    let [event] = events(&world, &admin, EventQuery::default())
        .await
        .try_into()
        .unwrap();
    for _ in 0..1200 {
        let event = Event {
            id: skyloom_model::EventId::fresh(&*world.ids),
            ..event.clone()
        };
        let at = key(&paths::event(asked.scope, event.id));
        let txn = Txn::new().create(at, Value::json(&event).unwrap());
        world.store.commit(txn).await.unwrap();
    }
    world.clock.advance(Duration::from_secs(7 * 24 * 3600));
    let last = task(&world, &admin).await;
    assert_eq!(world.cloud.forget_old().await.unwrap(), 0, "a week is kept");
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.cloud.forget_old().await.unwrap(), 1201);
    let left = events(&world, &admin, EventQuery::default()).await;
    assert_eq!(left.iter().map(|e| e.task).collect::<Vec<_>>(), [Some(last.id)]);
}
