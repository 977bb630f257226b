//! Driver and worker together on a memory store: the way forward, the way back, and crashes.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use skyloom_flow::{Fence, Job, JobContext, JobError, JobRegistry, Life, Rest, Undo};
use skyloom_model::{JobState, Run, TaskState, paths};
use skyloom_store::{Key, ListOptions, Prefix};

use crate::world::{Step1, World};

async fn leftovers(world: &World, prefix: &str) -> usize {
    world
        .store
        .list(&Prefix::parse(prefix).unwrap(), ListOptions::default())
        .await
        .unwrap()
        .items
        .len()
}

#[tokio::test]
async fn jobs_run_in_order_and_the_task_is_put_away() {
    let world = World::new();
    let mark = world
        .submit(&[
            Step1::new("a", &[]),
            Step1::new("b", &["a"]),
            Step1::new("c", &["a"]),
            Step1::new("d", &["b", "c"]),
        ])
        .await;
    let task = world.life("e1").await.carry(&world, &mark).await;
    assert_eq!(task.state, TaskState::Done, "{:?}", task.reason);
    assert_eq!((task.progress.done, task.progress.total), (4, 4));
    assert_eq!(task.result, Some(json!({ "end": "Done" })));
    let order = world.ledger.lock().order.clone();
    assert_eq!(
        (
            order.first().unwrap().as_str(),
            order.last().unwrap().as_str(),
            order.len()
        ),
        ("a", "d", 4)
    );
    assert_eq!(
        (leftovers(&world, "jobs").await, leftovers(&world, "active").await),
        (0, 0)
    );
    let run: Run = world
        .store
        .get(&Key::parse(&paths::run(task.id)).unwrap())
        .await
        .unwrap()
        .unwrap()
        .value
        .parse()
        .unwrap();
    assert_eq!(
        run.jobs
            .iter()
            .map(|j| j.id.as_str().to_owned())
            .collect::<Vec<_>>(),
        ["a", "b", "c", "d"]
    );
    assert!(
        run.jobs
            .iter()
            .all(|j| j.state == JobState::Succeeded && j.attempt == 1)
    );
}

#[tokio::test]
async fn a_passing_failure_is_tried_again() {
    let world = World::new();
    let mark = world
        .submit(&[Step1 {
            fail_times: 2,
            ..Step1::new("a", &[])
        }])
        .await;
    let task = world.life("e1").await.carry(&world, &mark).await;
    assert_eq!(task.state, TaskState::Done);
    assert_eq!(world.ledger.lock().runs["a"], 3);
}

#[tokio::test]
async fn a_failure_is_undone_in_reverse_also_where_it_was_half_done() {
    let world = World::new();
    let steps = [
        Step1::new("a", &[]),
        Step1::new("b", &["a"]),
        Step1 {
            fail: true,
            ..Step1::new("c", &["b"])
        },
        Step1::new("d", &["c"]),
    ];
    let mark = world.submit(&steps).await;
    let task = world.life("e1").await.carry(&world, &mark).await;
    assert_eq!(task.state, TaskState::Failed);
    assert_eq!(task.reason.unwrap().code, "test.broken");
    let ledger = world.ledger.lock();
    assert!(ledger.present.is_empty(), "left over: {:?}", ledger.present);
    assert_eq!(ledger.order, ["a", "b", "c", "-c", "-b", "-a"]);
    assert!(!ledger.runs.contains_key("d"));
}

#[tokio::test]
async fn a_result_that_cannot_be_kept_fails_the_task() {
    let world = World::new();
    let big = Step1 {
        big: true,
        ..Step1::new("a", &[])
    };
    let mark = world.submit(&[big]).await;
    let task = world.life("e1").await.carry(&world, &mark).await;
    assert_eq!(
        (task.state, task.reason.unwrap().code.as_str()),
        (TaskState::Failed, "job.result_refused")
    );
    assert!(world.ledger.lock().present.is_empty());
}

#[tokio::test]
async fn a_job_that_panics_fails_its_task_and_the_engine_goes_on() {
    let world = World::new();
    let life = world.life("e1").await;
    let bad = Step1 {
        panic: true,
        ..Step1::new("b", &["a"])
    };
    let mark = world.submit(&[Step1::new("a", &[]), bad]).await;
    let task = life.carry(&world, &mark).await;
    assert_eq!(
        (task.state, task.reason.unwrap().code.as_str()),
        (TaskState::Failed, "job.panicked")
    );
    assert!(world.ledger.lock().present.is_empty());
    let mark = world.submit(&[Step1::new("c", &[])]).await;
    assert_eq!(life.carry(&world, &mark).await.state, TaskState::Done);
}

#[tokio::test]
async fn a_refused_plan_fails_the_task_and_begins_nothing() {
    let world = World::new();
    let mark = world.submit(&[]).await;
    let task = world.life("e1").await.carry(&world, &mark).await;
    assert_eq!(
        (task.state, task.reason.unwrap().code.as_str()),
        (TaskState::Failed, "test.nothing")
    );
    assert!(world.ledger.lock().runs.is_empty());
    assert_eq!(leftovers(&world, "plans").await, 0);
}

#[tokio::test]
async fn the_next_life_of_the_same_engine_goes_on_at_once() {
    let world = World::new();
    let mark = world
        .submit(&[
            Step1::new("a", &[]),
            Step1 {
                hang: true,
                ..Step1::new("b", &["a"])
            },
            Step1::new("c", &["b"]),
        ])
        .await;
    {
        let first = world.life("e1").await;
        let carry = first.carry(&world, &mark);
        tokio::select! {
            biased;
            _ = carry => panic!("it hangs"),
            () = world.hanging.notified() => {}
        }
    } // crash in the middle of b: its effect is there, and no record of it
    let steps = world
        .store
        .list(&Prefix::parse("steps").unwrap(), ListOptions::default())
        .await
        .unwrap();
    assert_eq!(steps.items.len(), 1, "one record a step: its result");
    world.heal();
    let task = world.life("e1").await.carry(&world, &mark).await;
    assert_eq!(task.state, TaskState::Done);
    let ledger = world.ledger.lock();
    assert_eq!(ledger.order, ["a", "b", "c"], "I4: each effect once");
    assert_eq!((ledger.runs["a"], ledger.runs["b"]), (1, 2));
    assert_eq!(
        task.owner.unwrap().claims,
        0,
        "counted before it was tried, and survived"
    );
}

#[tokio::test]
async fn another_engine_keeps_off_while_the_owner_lives() {
    let world = World::new();
    let mark = world
        .submit(&[Step1 {
            hang: true,
            ..Step1::new("a", &[])
        }])
        .await;
    let first = world.life("e1").await;
    let second = world.life("e2").await;
    tokio::select! {
        biased;
        _ = first.drive(&mark) => panic!("it hangs"),
        () = world.hanging.notified() => {}
    }
    assert_eq!(second.drive(&mark).await, Rest::NotMine);
    assert_eq!(world.task(&mark).await.owner.unwrap().engine, "e1");
}

#[tokio::test]
async fn a_stale_lease_changes_nothing() {
    let world = World::new();
    let mark = world.submit(&[Step1::new("a", &[])]).await;
    let first = world.life("e1").await;
    let old = first.held();
    let second = world.life("e1").await; // takes the lease over
    assert!(second.held().epoch > old.epoch);
    let stale = skyloom_flow::Life {
        fence: old,
        born: skyloom_store::Revision(0),
    };
    assert_ne!(first.drive_as(&mark, stale).await, Rest::Ended);
    assert!(
        world.task(&mark).await.owner.is_none(),
        "I5: a write under a stale epoch"
    );
}

/// Loses its lease while it runs.
#[derive(Debug)]
struct Losing;

#[async_trait]
impl Job for Losing {
    fn kind(&self) -> &'static str {
        "test.step"
    }
    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let (fence, _) = cx.lease.unwrap();
        fence.extend(Duration::ZERO);
        cx.may_act()?;
        Ok(json!("it acted all the same"))
    }
    async fn undo(&self, _: &JobContext<'_>) -> Result<Undo, JobError> {
        Ok(Undo::Undone)
    }
}

#[tokio::test]
async fn tries_for_which_the_lease_did_not_last_count_for_nothing() {
    let world = World::new();
    let mark = world.submit(&[Step1::new("a", &[])]).await;
    // The lease ends while the job runs; and then it is over before the job begins.
    let losing = world.life_with("e1", JobRegistry::new().with(Losing)).await;
    assert!(matches!(losing.drive(&mark).await, Rest::Until(_)));
    let over = world.life("e1").await;
    let held = over.held();
    let fence = Fence::new(held.lease.clone(), held.epoch, Duration::ZERO);
    let life = Life {
        fence,
        born: over.born,
    };
    assert!(matches!(over.drive_as(&mark, life).await, Rest::Until(_)));
    assert!(world.ledger.lock().order.is_empty());

    let task = over.carry(&world, &mark).await;
    assert_eq!(task.state, TaskState::Done, "{:?}", task.reason);
    let run = world.store.get(&Key::parse(&paths::run(task.id)).unwrap()).await;
    let run: Run = run.unwrap().unwrap().value.parse().unwrap();
    assert_eq!(run.jobs[0].attempt, 1);
}
