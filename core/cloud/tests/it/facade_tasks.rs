//! Tasks beyond their making: operators' orders, submission by key, deadlines and priorities, what is shown.

use std::time::Duration;

use serde_json::json;
use skyloom_cloud::{Caller, ErrorKind, EventQuery, SweepHost};
use skyloom_model::{
    ActiveTask, Clock as _, Event, EventKind, FORMAT, JobId, JobRecord, JobSpec, JobState, JobWant,
    OrderVerb, Place, Plan, Priority, Reason, Stage, StageOutcome, Task, TaskId, TaskState, paths,
};
use skyloom_store::{Revision, Txn, Value, Versioned};

use crate::engine::active_image;
use crate::world::{World, image, key, server, with_key};

/// A task of `caller`'s project: an import that nobody carries out.
pub(crate) async fn task(world: &World, caller: &Caller) -> Task {
    let mut request = image("debian");
    request.url = Some("https://images.example.org/debian".to_owned());
    let made = world.cloud.create_image(caller, request).await.unwrap();
    made.task.unwrap()
}

pub(crate) async fn read(world: &World, task: &Task) -> Versioned<Task> {
    let at = key(&paths::task(task.scope, task.id));
    Versioned::decode(&world.store.get(&at).await.unwrap().unwrap()).unwrap()
}

/// Writes a task's record as an engine would.
async fn put(world: &World, task: &Task, change: impl FnOnce(&mut Task)) -> Task {
    let mut found = read(world, task).await;
    let txn = {
        let mut next = found.value.clone();
        change(&mut next);
        let txn = found.replace(&next).unwrap();
        found.value = next;
        txn
    };
    assert!(world.store.commit(txn).await.unwrap().committed().is_some());
    found.value
}

async fn stuck(world: &World, caller: &Caller) -> Task {
    let task = task(world, caller).await;
    put(world, &task, |t| {
        t.state = TaskState::Stuck;
        t.resume = Some(TaskState::Unwinding);
        t.reason = Some(Reason::new("task.undo_failed", "cannot undo"));
    })
    .await
}

async fn mark(world: &World, task: &Task) -> (ActiveTask, Revision) {
    let kv = world
        .store
        .get(&key(&paths::active(task.id)))
        .await
        .unwrap()
        .unwrap();
    (kv.value.parse().unwrap(), kv.modified)
}

pub(crate) async fn events(world: &World, caller: &Caller, query: EventQuery) -> Vec<Event> {
    world.cloud.list_events(caller, &query).await.unwrap().items
}

pub(crate) async fn some_image(world: &World, caller: &Caller) -> skyloom_model::Image {
    world
        .cloud
        .create_image(caller, image("plain"))
        .await
        .unwrap()
        .image
}

#[tokio::test]
async fn an_order_stands_in_the_task_and_wakes_its_engine() {
    let world = World::new();
    let admin = world.admin().await;
    let task = stuck(&world, &admin).await;
    let (_, before) = mark(&world, &task).await;
    let keyed = with_key(&admin, "order-1");
    let given = world
        .cloud
        .order_task(&keyed, task.id, OrderVerb::Skip, "  removed by hand ")
        .await
        .unwrap()
        .task;
    let [order] = given.orders.as_slice() else {
        panic!("{given:?}")
    };
    assert_eq!(
        (order.verb, order.why.as_str(), order.carried_out),
        (OrderVerb::Skip, "removed by hand", false)
    );
    assert_eq!((&order.by, &order.request_id), (&admin.actor, &admin.request_id));
    assert_eq!(given.state, TaskState::Stuck, "the engine carries it out");
    let record = read(&world, &task).await;
    let (active, touched) = mark(&world, &task).await;
    assert!(touched > before && touched == record.modified, "one commit");
    assert_eq!(
        (active.priority, record.value.priority),
        (Priority::High, Priority::High)
    );
    let query = EventQuery {
        kind: Some(EventKind::TaskOrdered),
        ..EventQuery::default()
    };
    let [event] = events(&world, &admin, query).await.try_into().unwrap();
    assert_eq!(event.message, "skip was ordered by admin: removed by hand");
    assert_eq!(
        (event.task, event.request_id),
        (Some(task.id), Some(admin.request_id.clone()))
    );

    // The same key gives the same answer; another order has to wait for this one.
    let again = world
        .cloud
        .order_task(&keyed, task.id, OrderVerb::Skip, "removed by hand")
        .await
        .unwrap();
    assert_eq!(again.task, given);
    let open = world
        .cloud
        .order_task(&admin, task.id, OrderVerb::Retry, "x")
        .await
        .unwrap_err();
    assert_eq!(
        (open.kind(), open.code(), open.reason().retryable),
        (ErrorKind::Conflict, "task.order_open", true)
    );
    put(&world, &task, |t| t.orders[0].carried_out = true).await;
    let next = world
        .cloud
        .order_task(&admin, task.id, OrderVerb::Abandon, "enough")
        .await
        .unwrap()
        .task;
    assert_eq!(next.orders.len(), 2);
}

#[tokio::test]
async fn orders_are_for_operators_and_for_stuck_tasks() {
    let world = World::new();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    let mine = stuck(&world, &member).await;
    let picked = Caller {
        project: member.project,
        ..admin.clone()
    };
    let order = |caller, id, why: &'static str| {
        let cloud = &world.cloud;
        async move {
            cloud
                .order_task(caller, id, OrderVerb::Retry, why)
                .await
                .unwrap_err()
        }
    };
    assert_eq!(order(&member, mine.id, "x").await.code(), "auth.forbidden");
    assert_eq!(
        order(&admin, mine.id, "x").await.code(),
        "task.not_found",
        "it is of another project"
    );
    for bad in ["", " \n ", "long"] {
        let why = if bad == "long" {
            "x".repeat(501).leak()
        } else {
            bad
        };
        let error = order(&picked, mine.id, why).await;
        assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, "why.invalid"));
    }
    let stale = Caller {
        if_match: Some(Revision(1)),
        ..picked.clone()
    };
    assert_eq!(order(&stale, mine.id, "x").await.code(), "precondition.failed");
    let running = task(&world, &member).await;
    assert_eq!(order(&picked, running.id, "x").await.code(), "task.not_stuck");
    let done = put(&world, &running, |t| t.state = TaskState::Done).await;
    assert_eq!(order(&picked, done.id, "x").await.code(), "task.not_stuck");
    assert!(read(&world, &mine).await.value.orders.is_empty());
}

#[tokio::test]
async fn a_hundred_orders_are_kept() {
    let world = World::new();
    let admin = world.admin().await;
    let task = stuck(&world, &admin).await;
    for n in 0..105 {
        world
            .cloud
            .order_task(&admin, task.id, OrderVerb::Retry, &n.to_string())
            .await
            .unwrap();
        put(&world, &task, |t| {
            t.orders.iter_mut().for_each(|o| o.carried_out = true)
        })
        .await;
    }
    let orders = read(&world, &task).await.value.orders;
    assert_eq!(
        (orders.len(), orders[0].why.as_str(), orders[99].why.as_str()),
        (100, "5", "104")
    );
}

#[tokio::test]
async fn a_stuck_task_rests_until_it_is_ordered_and_cannot_be_cancelled() {
    let world = World::new();
    let admin = world.admin().await;
    let stuck = stuck(&world, &admin).await;
    let refused = world.cloud.cancel_task(&admin, stuck.id).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.code()),
        (ErrorKind::Conflict, "task.stuck")
    );
    assert!(refused.reason().hint.as_deref().unwrap().contains("task abandon"));
    let rested = world.cloud.wait_for_task(&admin, stuck.id).await.unwrap();
    assert_eq!(rested.state, TaskState::Stuck);

    // With an order open it is waited for again: until the engine has carried it out.
    world
        .cloud
        .order_task(&admin, stuck.id, OrderVerb::Abandon, "enough")
        .await
        .unwrap();
    let waits = world.cloud.wait_for_task(&admin, stuck.id);
    tokio::pin!(waits);
    let pending = futures::poll!(waits.as_mut()).is_pending();
    assert!(pending, "it waits for what becomes of the order");
    put(&world, &stuck, |t| {
        t.orders[0].carried_out = true;
        t.state = TaskState::Failed;
    })
    .await;
    assert_eq!(waits.await.unwrap().state, TaskState::Failed);
}

#[tokio::test]
async fn a_key_is_submitted_once_whoever_comes() {
    let world = World::new();
    let admin = world.admin().await;
    let subject = some_image(&world, &admin).await;
    let make = || {
        world
            .cloud
            .own_task("reconciler", "image.delete", &subject, json!({}))
    };
    let (a, b, c) = (make(), make(), make());
    assert_eq!(
        (a.priority, a.actor.name.as_str(), a.state),
        (Priority::Low, "reconciler", TaskState::Queued)
    );
    let first = world.cloud.submit_once("image/1", a.clone()).await.unwrap();
    assert_eq!(first, a);
    assert_eq!(mark(&world, &first).await.0.priority, Priority::Low);
    assert_eq!(
        world.cloud.submit_once("image/1", b.clone()).await.unwrap(),
        first
    );
    let ended = put(&world, &first, |t| t.state = TaskState::Done).await;
    assert_eq!(
        world.cloud.submit_once("image/1", b).await.unwrap(),
        ended,
        "also when it has ended"
    );
    assert_eq!(world.documents("tasks").await.len(), 1);
    assert_eq!(world.cloud.submit_once("image/2", c.clone()).await.unwrap(), c);
    assert_eq!(world.documents("events").await.len(), 2);

    // Several at once: one of them wins, and all hear of it.
    let tasks = [make(), make(), make()];
    let [a, b, c] = tasks.map(|t| world.cloud.submit_once("image/3", t));
    let (a, b, c) = tokio::join!(a, b, c);
    let ids = [a.unwrap().id, b.unwrap().id, c.unwrap().id];
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
    // After a day the key is forgotten.
    world.clock.advance(Duration::from_secs(24 * 3600 + 1));
    world.cloud.forget_old().await.unwrap();
    let late = make();
    assert_eq!(
        world.cloud.submit_once("image/1", late.clone()).await.unwrap(),
        late
    );
}

#[tokio::test]
async fn tasks_have_a_deadline_by_their_flow() {
    let mut world = World::new();
    let admin = world.admin().await;
    let host = world.host(&admin, "h1").await;
    let image = active_image(&world, &admin).await;
    let now = world.clock.now();
    let hours = |task: &Task| task.deadline.unwrap().duration_since(now).as_hours();
    let made = world
        .cloud
        .create_server(&admin, server("s", image))
        .await
        .unwrap()
        .task;
    let import = task(&world, &admin).await;
    let sweep = world
        .cloud
        .sweep_host(&admin, host, SweepHost::default())
        .await
        .unwrap()
        .task;
    assert_eq!([&made, &import, &sweep].map(hours), [24, 12, 6]);
    assert_eq!(
        [&made, &import, &sweep].map(|t| t.priority),
        [Priority::Normal; 3]
    );
}

fn job(id: &str, place: Place, after: &[&str]) -> JobSpec {
    JobSpec {
        id: JobId::new(id),
        kind: id.to_owned(),
        title: id.to_owned(),
        input: json!({}),
        after: after.iter().map(|a| JobId::new(*a)).collect(),
        place,
        retry: Default::default(),
        weight: 1,
        timeout_ms: None,
    }
}

fn record(task: &Task, spec: &JobSpec, state: JobState) -> JobRecord {
    JobRecord {
        format: FORMAT,
        task: task.id,
        scope: task.scope,
        subject: task.subject.clone(),
        generation: 1,
        request_id: String::new(),
        spec: spec.clone(),
        want: JobWant::Run,
        attempt: 1,
        not_before: None,
        state,
        worker: None,
        output: None,
        error: None,
        started_at: None,
        ended_at: None,
    }
}

#[tokio::test]
async fn what_runs_in_an_engine_is_shown_although_it_has_no_record() {
    let world = World::new();
    let admin = world.admin().await;
    let asked = task(&world, &admin).await;
    let jobs = vec![
        job("old", Place::Engine, &[]),
        job("a", Place::Engine, &[]),
        job("b", Place::Engine, &["a"]),
        job("c", Place::Engine, &["a"]),
        job("d", Place::Engine, &["b"]),
    ];
    let stage = |name: &str, jobs: &[&str], outcome| Stage {
        name: name.to_owned(),
        jobs: jobs.iter().map(|j| JobId::new(*j)).collect(),
        generation: 1,
        made_at: world.clock.now(),
        outcome,
    };
    let undone = StageOutcome::Undone(Reason::new("x", "y"));
    let plan = Plan {
        format: FORMAT,
        task: asked.id,
        jobs: jobs.clone(),
        placement: None,
        made_at: world.clock.now(),
        stages: vec![
            stage("first", &["old"], Some(undone)),
            stage("second", &["a", "b", "c", "d"], None),
        ],
    };
    let mut txn = Txn::new().create(key(&paths::plan(asked.id)), Value::json(&plan).unwrap());
    for (n, state) in [(1, JobState::Succeeded), (3, JobState::Failed)] {
        let at = key(&paths::job(Place::Engine, asked.id, &jobs[n].id));
        txn = txn.create(at, Value::json(&record(&asked, &jobs[n], state)).unwrap());
    }
    world.store.commit(txn).await.unwrap();
    let running = async |id: TaskId| world.cloud.task_detail(&admin, id).await.unwrap().value.running;
    assert!(running(asked.id).await.is_empty(), "it is queued still");
    put(&world, &asked, |t| t.state = TaskState::Running).await;
    assert_eq!(running(asked.id).await, [JobId::new("b")]);
    let detail = world.cloud.task_detail(&admin, asked.id).await.unwrap().value;
    assert_eq!(detail.plan.unwrap().stages, plan.stages);
    put(&world, &asked, |t| t.state = TaskState::Unwinding).await;
    assert!(running(asked.id).await.is_empty());
}
