//! Stages, what is stuck, what is too late, and what kills its engines.

use skyloom_flow::{MAX_CLAIMS, Rest};
use skyloom_model::{
    Actor, Event, EventKind, Order, OrderVerb, Plan, StageOutcome, TaskState, Timestamp, paths,
};
use skyloom_store::{Key, ListOptions, Prefix, Revision};

use crate::world::{Step1, World};

fn staged(name: &str, stage: u32) -> Step1 {
    Step1 {
        stage,
        ..Step1::new(name, &[])
    }
}

fn order(verb: OrderVerb) -> Order {
    Order {
        verb,
        by: Actor {
            id: "o".into(),
            name: "olga".into(),
        },
        at: Timestamp::UNIX_EPOCH,
        request_id: "r".into(),
        why: "seen to by hand".into(),
        carried_out: false,
    }
}

async fn plan(world: &World, mark: &skyloom_model::ActiveTask) -> Plan {
    let key = Key::parse(&paths::plan(mark.task)).unwrap();
    world
        .store
        .get(&key)
        .await
        .unwrap()
        .unwrap()
        .value
        .parse()
        .unwrap()
}

async fn events(world: &World) -> Vec<EventKind> {
    let page = world
        .store
        .list(&Prefix::parse("events").unwrap(), ListOptions::default())
        .await
        .unwrap();
    let mut events: Vec<(Revision, EventKind)> = page
        .items
        .iter()
        .map(|kv| (kv.modified, kv.value.parse::<Event>().unwrap().kind))
        .collect();
    events.sort();
    events.into_iter().map(|(_, kind)| kind).collect()
}

#[tokio::test]
async fn a_stage_is_planned_when_the_one_before_is_done() {
    let world = World::new();
    let mark = world
        .submit(&[staged("look", 0), staged("act", 1), staged("tell", 2)])
        .await;
    let task = world.life("e1").await.carry(&world, &mark).await;
    assert_eq!(task.state, TaskState::Done, "{:?}", task.reason);
    assert_eq!(world.ledger.lock().order, ["look", "act", "tell"]);
    assert_eq!(
        (task.progress.done, task.progress.total, task.plan_version),
        (3, 3, 3)
    );
    let plan = plan(&world, &mark).await;
    let stages: Vec<(&str, bool)> = plan
        .stages
        .iter()
        .map(|s| (s.name.as_str(), s.outcome == Some(StageOutcome::Done)))
        .collect();
    assert_eq!(
        stages,
        [("0", true), ("1", true), ("2", false)],
        "the last one's outcome is the task's"
    );
    let planned = EventKind::TaskPlanned;
    assert_eq!(
        events(&world).await,
        [planned, planned, planned, EventKind::TaskEnded]
    );
}

#[tokio::test]
async fn a_failed_stage_goes_back_alone_when_the_flow_knows_another_way() {
    let world = World::new();
    let broken = Step1 {
        fail: true,
        ..staged("here", 1)
    };
    let mark = world
        .submit(&[staged("first", 0), broken, staged("there", 101)])
        .await;
    let task = world.life("e1").await.carry(&world, &mark).await;
    assert_eq!(task.state, TaskState::Done, "{:?}", task.reason);
    assert_eq!(task.reason, None);
    assert_eq!(world.ledger.lock().order, ["first", "here", "-here", "there"]);
    let outcome = plan(&world, &mark).await.stages[1].outcome.clone();
    assert!(matches!(outcome, Some(StageOutcome::Undone(r)) if r.code == "test.broken"));
}

#[tokio::test]
async fn without_another_way_all_stages_go_back() {
    let world = World::new();
    let broken = Step1 {
        fail: true,
        ..staged("c", 2)
    };
    let mark = world.submit(&[staged("a", 0), staged("b", 1), broken]).await;
    let task = world.life("e1").await.carry(&world, &mark).await;
    assert_eq!(
        (task.state, task.reason.unwrap().code.as_str()),
        (TaskState::Failed, "test.broken")
    );
    let ledger = world.ledger.lock();
    assert_eq!(ledger.order[..4], ["a", "b", "c", "-c"]);
    assert!(ledger.present.is_empty(), "{:?}", ledger.present);
}

#[tokio::test]
async fn a_task_that_is_too_late_goes_back() {
    let world = World::new();
    let hangs = Step1 {
        hang: true,
        ..Step1::new("b", &["a"])
    };
    let deadline = world
        .clock
        .now()
        .checked_add(jiff::SignedDuration::from_millis(300))
        .unwrap();
    let mark = world
        .submit_as(&[Step1::new("a", &[]), hangs], |t| t.deadline = Some(deadline))
        .await;
    let task = world.life("e1").await.carry(&world, &mark).await;
    assert_eq!(
        (task.state, task.reason.unwrap().code.as_str()),
        (TaskState::Failed, "task.deadline")
    );
    assert!(world.ledger.lock().present.is_empty());
}

async fn stuck(world: &World) -> skyloom_model::ActiveTask {
    let steps = [
        Step1::new("a", &[]),
        Step1 {
            undo_fails: true,
            ..Step1::new("b", &["a"])
        },
        Step1 {
            fail: true,
            ..Step1::new("c", &["b"])
        },
    ];
    let mark = world.submit(&steps).await;
    let task = world.life("e1").await.carry(world, &mark).await;
    assert_eq!(
        (task.state, task.reason.unwrap().code.as_str()),
        (TaskState::Stuck, "task.undo_failed")
    );
    assert_eq!(task.resume, Some(TaskState::Unwinding));
    assert_eq!(
        world.ledger.lock().order,
        ["a", "b", "c", "-c"],
        "what builds on it is gone, the rest stays"
    );
    let life = world.life("e1").await;
    assert_eq!(
        life.drive(&mark).await,
        Rest::Until(None),
        "without an order nothing happens"
    );
    mark
}

#[tokio::test]
async fn a_stuck_task_goes_on_when_its_cause_is_repaired() {
    let world = World::new();
    let mark = stuck(&world).await;
    world.heal();
    world
        .edit(&mark, |t| t.orders.push(order(OrderVerb::Retry)))
        .await;
    let task = world.life("e1").await.carry(&world, &mark).await;
    assert_eq!(task.state, TaskState::Failed);
    assert!(task.orders[0].carried_out);
    assert!(world.ledger.lock().present.is_empty());
}

#[tokio::test]
async fn a_retry_without_repair_is_stuck_again() {
    let world = World::new();
    let mark = stuck(&world).await;
    world
        .edit(&mark, |t| t.orders.push(order(OrderVerb::Retry)))
        .await;
    let task = world.life("e1").await.carry(&world, &mark).await;
    assert_eq!(task.state, TaskState::Stuck);
    assert!(task.orders[0].carried_out);
    assert_eq!(world.ledger.lock().undos["b"], 2);
}

#[tokio::test]
async fn what_was_dealt_with_by_hand_is_skipped() {
    let world = World::new();
    let mark = stuck(&world).await;
    world.edit(&mark, |t| t.orders.push(order(OrderVerb::Skip))).await;
    let task = world.life("e1").await.carry(&world, &mark).await;
    assert_eq!(task.state, TaskState::Failed);
    let ledger = world.ledger.lock();
    assert_eq!(ledger.undos["b"], 1, "not tried again");
    assert_eq!(
        ledger.present.keys().collect::<Vec<_>>(),
        ["b"],
        "the operator's word, not the engine's"
    );
}

#[tokio::test]
async fn what_is_abandoned_ends() {
    let world = World::new();
    let mark = stuck(&world).await;
    world
        .edit(&mark, |t| t.orders.push(order(OrderVerb::Abandon)))
        .await;
    let task = world.life("e1").await.carry(&world, &mark).await;
    let reason = task.reason.unwrap();
    assert_eq!(
        (task.state, reason.code.as_str()),
        (TaskState::Failed, "task.abandoned")
    );
    assert!(reason.message.contains("olga: seen to by hand"));
    for left in ["active", "steps", "jobs"] {
        let page = world
            .store
            .list(&Prefix::parse(left).unwrap(), ListOptions::default())
            .await
            .unwrap();
        assert!(page.items.is_empty(), "{left}");
    }
}

#[tokio::test]
async fn a_task_that_kills_its_engines_is_set_aside_and_can_be_taken_up_again() {
    let world = World::new();
    let kills = Step1 {
        hang: true,
        ..Step1::new("a", &[])
    };
    let mark = world.submit(&[kills]).await;
    // Each life takes it up and dies before anything is known of it: the record says who tried.
    for tries in 1..=MAX_CLAIMS {
        world
            .edit(&mark, |t| {
                t.owner = Some(skyloom_model::Owner {
                    engine: "dead".into(),
                    lease_epoch: 1,
                    claims: tries,
                });
            })
            .await;
    }
    let life = world.life("e1").await;
    assert_eq!(life.drive(&mark).await, Rest::Until(None));
    let task = world.task(&mark).await;
    assert_eq!(
        (task.state, task.reason.unwrap().code.as_str()),
        (TaskState::Stuck, "task.poison")
    );
    assert!(world.ledger.lock().runs.is_empty(), "not tried once more");
    world.heal();
    world
        .edit(&mark, |t| t.orders.push(order(OrderVerb::Retry)))
        .await;
    assert_eq!(life.carry(&world, &mark).await.state, TaskState::Done);
}

#[tokio::test]
async fn tries_of_older_tasks_are_counted_before_they_are_made() {
    let world = World::new();
    let hangs = Step1 {
        hang: true,
        ..Step1::new("a", &[])
    };
    let mark = world.submit(&[hangs]).await;
    let mut life = world.life("e1").await;
    life.born = Revision(1_000_000); // the task is older than this life
    tokio::select! {
        biased;
        _ = life.drive(&mark) => panic!("it hangs"),
        () = world.hanging.notified() => {}
    }
    let history = world.task(&mark).await;
    assert_eq!(
        history.owner.unwrap().claims,
        0,
        "survived: the plan's commit says so"
    );
    // A life that dies between its claim and its first commit leaves a count. The store shows three commits before the
    // job ran: the task, the claim, the plan.
    let page = world
        .store
        .list(&Prefix::parse("plans").unwrap(), ListOptions::default())
        .await
        .unwrap();
    assert_eq!(
        page.items[0].created.0 - 1,
        world.revision_of_claim(&mark).await.0
    );
}
