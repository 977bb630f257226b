//! Every call may fail, and every process may die at every call: each finished task is archived once and none is lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::FutureExt as _;
use proptest::prelude::*;
use serde_json::Value as Json;
use skyloom_cloud::ArchiveConfig;
use skyloom_model::{Clock as _, Task, TaskId, TaskState};
use skyloom_store::{Capability, DynBackend, Error, ErrorKind, Prefix};

use super::shared::{DAY, Fated, Fates, Fault, Stores, below, everything, project};

/// Five finished tasks of two projects, a running and a stuck one; all old, with their events.
async fn filled(stores: &Stores) -> Vec<Task> {
    let (a, b) = (project(&stores.ids), project(&stores.ids));
    let mut finished = vec![
        stores.finished(a, TaskState::Done, 2).await,
        stores.finished(b, TaskState::Failed, 3).await,
        stores.finished(a, TaskState::Cancelled, 0).await,
    ];
    stores.finished(a, TaskState::Running, 1).await;
    stores.finished(b, TaskState::Stuck, 1).await;
    stores.clock.advance(DAY);
    finished.push(stores.finished(b, TaskState::Done, 40).await);
    finished.push(stores.finished(a, TaskState::Done, 1).await);
    stores.clock.advance(DAY * 8);
    finished
}

/// The ids of the tasks that are in a store, hot or archived.
fn ids(documents: &std::collections::BTreeMap<String, Json>, area: &str) -> Vec<TaskId> {
    let of = |(key, _): (&String, &Json)| {
        let mut segments = key.strip_prefix(area)?.rsplit('/');
        segments.next()?.parse().ok()
    };
    documents.iter().filter_map(of).collect()
}

/// Calls that end at once, as those of memory stores do.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().unwrap()
}

fn all_there(hot: &DynBackend, cold: &DynBackend, finished: &BTreeSet<TaskId>) {
    // In this order: what moves in between is seen twice, never not at all.
    let mut seen: BTreeSet<TaskId> = ids(&now(everything(hot)), "tasks/").into_iter().collect();
    seen.extend(ids(&now(everything(cold)), "archive/task/"));
    assert!(finished.is_subset(&seen), "a finished task is nowhere");
    let cold = now(everything(cold));
    let (mut archived, mut places) = (ids(&cold, "archive/task/"), ids(&cold, "archive/task-id/"));
    archived.sort();
    places.sort();
    assert_eq!(archived, places, "what is archived is found by its id, and once");
}

/// Only what is finished has moved, once and whole.
async fn settled(stores: &Stores, finished: &[Task], before: &std::collections::BTreeMap<String, Json>) {
    let (hot, cold) = (everything(&stores.hot).await, everything(&stores.cold).await);
    let left = ids(&hot, "tasks/");
    assert_eq!(left.len(), 2, "the running and the stuck one stay");
    assert_eq!(ids(&hot, "plans/").len(), 2);
    assert_eq!(ids(&hot, "runs/").len(), 2);
    assert_eq!(ids(&hot, "events/").len(), 0);
    assert_eq!(ids(&cold, "archive/event/").len(), 7);
    let mut archived = ids(&cold, "archive/task/");
    let mut wanted: Vec<TaskId> = finished.iter().map(|t| t.id).collect();
    archived.sort();
    wanted.sort();
    assert_eq!(archived, wanted, "each once");
    let mut places = ids(&cold, "archive/task-id/");
    places.sort();
    assert_eq!(places, wanted);
    for task in finished {
        let at = skyloom_model::paths::archived_task(task.scope, task.ended_at.unwrap(), task.id);
        let document = &cold[&at];
        assert_eq!(
            document["task"],
            before[&format!("tasks/{}/{}", task.scope, task.id)]
        );
        if document.get("parts").is_none() {
            for (field, path) in [("plan", "plans"), ("run", "runs")] {
                let record = before.get(&format!("{path}/{}", task.id));
                assert_eq!(document.get(field), record, "{field} of {}", task.id);
            }
        }
    }
}

/// Lives with one fault each, at the first call, the second and so on, till no fault is met; after each a life without.
async fn every_call(fault: Fault, capability: Capability) -> usize {
    for call in 0.. {
        assert!(call < 2000, "it never ends");
        let stores = Stores::new();
        let finished = filled(&stores).await;
        let before = everything(&stores.hot).await;
        let wanted: BTreeSet<TaskId> = finished.iter().map(|t| t.id).collect();
        let look = {
            let (hot, cold, wanted) = (stores.hot.clone(), stores.cold.clone(), wanted.clone());
            move || all_there(&hot, &cold, &wanted)
        };
        let fates = Arc::new(Fates::one(call, fault).looked_at(look.clone()));
        let life = |fates: &Arc<Fates>| {
            let cold = Fated {
                capability,
                ..Fated::new(&stores.cold, fates)
            };
            let hot = Arc::new(Fated::new(&stores.hot, fates));
            stores.archive_with(hot, Arc::new(cold), ArchiveConfig::default())
        };
        let first = life(&fates).move_all().await;
        all_there(&stores.hot, &stores.cold, &wanted);
        // A later life, without faults, does the rest.
        let second = life(&Arc::new(Fates::default().looked_at(look)))
            .move_all()
            .await
            .unwrap();
        assert_eq!(second.left, 0, "{fault:?} at call {call}: {first:?}");
        settled(&stores, &finished, &before).await;
        let third = life(&Arc::new(Fates::default())).move_all().await.unwrap();
        assert_eq!((third.tasks, third.events), (0, 0));
        if !fates.met() {
            let moved = first.unwrap();
            assert_eq!((moved.tasks, moved.events, moved.left), (5, 7, 0));
            return call;
        }
    }
    0
}

#[tokio::test]
async fn whatever_call_fails_each_task_is_archived_once() {
    for fault in Fault::ALL {
        let calls = every_call(fault, Capability::PORTABLE).await;
        assert!(calls > 20, "{fault:?} was tried at {calls} calls only");
    }
}

#[tokio::test]
async fn also_when_a_task_goes_in_parts() {
    let small = Capability::PORTABLE.with_max_value_len(10_000);
    for fault in Fault::ALL {
        let calls = every_call(fault, small).await;
        assert!(calls > 23, "{fault:?} was tried at {calls} calls only");
    }
}

/// Lives that die at any of their calls, and two at once, whose calls take turns in any way.
#[derive(Debug, Clone)]
struct Lives {
    lives: Vec<(usize, usize)>,
    pauses: (Vec<u8>, Vec<u8>),
}

fn lives() -> impl Strategy<Value = Lives> {
    let one = (0_usize..60, 0..Fault::ALL.len());
    let pauses = || proptest::collection::vec(0_u8..4, 200);
    (proptest::collection::vec(one, 0..4), pauses(), pauses()).prop_map(|(lives, a, b)| Lives {
        lives,
        pauses: (a, b),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_lives_and_any_two_at_once_archive_each_task_once(lives in lives()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let stores = Stores::new();
            let finished = filled(&stores).await;
            let before = everything(&stores.hot).await;
            let wanted: BTreeSet<TaskId> = finished.iter().map(|t| t.id).collect();
            let look = {
                let (hot, cold, wanted) = (stores.hot.clone(), stores.cold.clone(), wanted.clone());
                move || all_there(&hot, &cold, &wanted)
            };
            for (call, fault) in &lives.lives {
                let (archive, _) = stores.archive(Fates::one(*call, Fault::ALL[*fault]).looked_at(look.clone()));
                let _ = archive.move_all().await;
            }
            let (a, _) = stores.archive(Fates::pauses(lives.pauses.0.clone()).looked_at(look.clone()));
            let (b, _) = stores.archive(Fates::pauses(lives.pauses.1.clone()).looked_at(look));
            let (one, other) = tokio::join!(a.move_all(), b.move_all());
            let (one, other) = (one.unwrap(), other.unwrap());
            assert_eq!((one.left, other.left), (0, 0));
            // A batch of events on which both were at once is left to the next pass.
            a.move_all().await.unwrap();
            settled(&stores, &finished, &before).await;
        });
    }
}

#[tokio::test]
async fn an_archive_that_does_not_answer_costs_nothing_but_time() {
    let stores = Stores::new();
    let finished = filled(&stores).await;
    let before = everything(&stores.hot).await;
    let (archive, _) = stores.archive(Fates::one(0, Fault::DeadBefore));
    let error: Error = archive.move_all().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(everything(&stores.hot).await, before);
    assert_eq!(stores.calm().move_all().await.unwrap().tasks, finished.len());
}

#[tokio::test]
async fn another_task_of_the_same_id_is_reported_and_nothing_is_removed() {
    let stores = Stores::new();
    let finished = filled(&stores).await;
    assert_eq!(stores.calm().move_all().await.unwrap().tasks, 5);
    // As after going back to a backup in which the task was still under way: it ends a second time, in another way.
    let mut again = finished[0].clone();
    again.state = TaskState::Failed;
    again.created_at = stores.clock.now();
    again.ended_at = Some(stores.clock.now());
    let path = skyloom_model::paths::task(again.scope, again.id);
    stores.put(&path, &again).await;
    // And one that is as it was.
    let same = &finished[1];
    stores
        .put(&skyloom_model::paths::task(same.scope, same.id), same)
        .await;
    stores.clock.advance(DAY * 2);
    let before = below(&stores.cold, &Prefix::all()).await;
    let archive = stores.calm();
    for _ in 0..2 {
        let moved = archive.move_all().await.unwrap();
        // The second has no plan any more, so it is not the same.
        assert_eq!((moved.tasks, moved.left), (0, 2));
    }
    assert_eq!(below(&stores.cold, &Prefix::all()).await, before);
    assert!(everything(&stores.hot).await.contains_key(&path));
    let there = &finished[0];
    let at = skyloom_model::paths::archived_task(there.scope, there.ended_at.unwrap(), there.id);
    assert_eq!(before[&at]["task"]["state"], "done");
}
