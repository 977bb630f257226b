//! `decide` on random plans with random outcomes: it ends, in order, and forgets nothing.

use std::collections::BTreeMap;

use proptest::prelude::*;
use skyloom_flow::{Decision, View, decide};
use skyloom_model::{
    Actor, FORMAT, Id, JobId, JobRecord, JobSpec, JobState, JobWant, ManualClock, Name, Place, Plan,
    Progress, Reason, RetryPolicy, Scope, SeededIds, Subject, Task, TaskEnd, TaskState, Timestamp,
};

fn job(index: usize, after: &[usize]) -> JobSpec {
    JobSpec {
        id: JobId::new(format!("j{index}")),
        kind: "test".into(),
        title: String::new(),
        input: serde_json::Value::Null,
        after: after.iter().map(|a| JobId::new(format!("j{a}"))).collect(),
        place: Place::Engine,
        retry: RetryPolicy {
            max_attempts: 2,
            backoff_ms: 1,
        },
        weight: 1,
        timeout_ms: None,
    }
}

fn task() -> Task {
    let ids = SeededIds::new(ManualClock::new(), 1);
    let id = Id::fresh(&ids);
    Task {
        format: FORMAT,
        id,
        scope: Scope::System,
        flow: "test".into(),
        subject: Subject {
            kind: "servers".into(),
            id: id.uuid(),
            name: Name::new("s").unwrap(),
        },
        params: serde_json::Value::Null,
        actor: Actor {
            id: "a".into(),
            name: "a".into(),
        },
        request_id: "r".into(),
        idempotency_key: None,
        state: TaskState::Running,
        reason: None,
        progress: Progress::default(),
        owner: None,
        cancel: false,
        priority: skyloom_model::Priority::Normal,
        deadline: None,
        plan_version: 0,
        resume: None,
        orders: Vec::new(),
        result: None,
        created_at: Timestamp::UNIX_EPOCH,
        planned_at: None,
        ended_at: None,
    }
}

/// What a worker makes of its next attempt.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Works,
    FailsForNow,
    FailsForGood,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![6 => Just(Fate::Works), 2 => Just(Fate::FailsForNow), 1 => Just(Fate::FailsForGood)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn every_plan_ends_in_order(
        edges in prop::collection::vec(any::<u16>(), 1..9),
        fates in prop::collection::vec(fate(), 1..64),
        picks in prop::collection::vec(any::<u8>(), 1..64),
        cancel_at in prop::option::of(0_usize..40),
        undo_works in any::<bool>(),
    ) {
        let jobs: Vec<JobSpec> = edges.iter().enumerate()
            .map(|(i, bits)| job(i, &(0..i).filter(|j| bits >> j & 1 == 1).collect::<Vec<_>>()))
            .collect();
        let mut task = task();
        let plan = Plan { format: FORMAT, task: task.id, jobs, placement: None, made_at: Timestamp::UNIX_EPOCH,
 stages: Vec::new() };
        let mut records: BTreeMap<JobId, JobRecord> = BTreeMap::new();
        let (mut fates, mut picks) = (fates.iter().cycle(), picks.iter().cycle());
        let mut end = None;
        for step in 0..4000 {
            if cancel_at == Some(step) && !task.state.ended() {
                task.cancel = true;
            }
            let decisions = decide(View { task: &task, plan: &plan, jobs: &records, now: Timestamp::UNIX_EPOCH });
            for decision in &decisions {
                match decision {
                    Decision::Dispatch(id) => {
                        let spec = plan.jobs.iter().find(|j| j.id == *id).unwrap().clone();
                        for dep in &spec.after {
                            prop_assert_eq!(records[dep].state, JobState::Succeeded, "I7: started before its dependency");
                        }
                        prop_assert!(!records.contains_key(id), "dispatched twice");
                        records.insert(id.clone(), record(&task, spec));
                    }
                    Decision::Retry(id, _) => to(&mut records, id, JobState::Ready)?,
                    Decision::Withdraw(id) => to(&mut records, id, JobState::Undone)?,
                    Decision::Undo(id) => {
                        for later in plan.jobs.iter().filter(|j| j.after.contains(id)) {
                            let gone = records.get(&later.id).is_none_or(|r| r.state == JobState::Undone);
                            prop_assert!(gone, "undone before what is built on it");
                        }
                        to(&mut records, id, JobState::UndoReady)?;
                        records.get_mut(id).unwrap().want = JobWant::Undo;
                        records.get_mut(id).unwrap().attempt = 1;
                    }
                    Decision::RetryUndo(id, _) => {
                        to(&mut records, id, JobState::UndoReady)?;
                        records.get_mut(id).unwrap().attempt += 1;
                    }
                    Decision::Unwind(reason) => {
                        prop_assert!(task.state.may_become(TaskState::Unwinding));
                        task.state = TaskState::Unwinding;
                        task.reason = Some(reason.clone());
                    }
                    Decision::End(how, _) => end = Some(*how),
                }
            }
            if end.is_some() {
                break;
            }
            // One worker makes one move.
            let open: Vec<JobId> = records.values().filter(|r| r.state.for_worker()).map(|r| r.spec.id.clone()).collect();
            if open.is_empty() {
                prop_assert!(!decisions.is_empty(), "stuck without a reason: nothing to do and nobody working");
                continue;
            }
            let id = &open[usize::from(*picks.next().unwrap()) % open.len()];
            let (now, want) = (records[id].state, records[id].want);
            let next = match (now, want) {
                (JobState::Ready, _) => JobState::Started,
                (JobState::UndoReady, _) => JobState::UndoStarted,
                (_, JobWant::Run) => match fates.next().unwrap() {
                    Fate::Works => JobState::Succeeded,
                    Fate::FailsForNow => fail(&mut records, id, true),
                    Fate::FailsForGood => fail(&mut records, id, false),
                },
                (_, JobWant::Undo) if undo_works => JobState::Undone,
                (_, JobWant::Undo) => { fail(&mut records, id, true); JobState::UndoFailed }
            };
            to(&mut records, id, next)?;
        }
        let end = end.expect("I8: every task ends");
        let undone = records.values().all(|r| r.state == JobState::Undone);
        match end {
            TaskEnd::Done => prop_assert!(records.len() == plan.jobs.len() && records.values().all(|r| r.state == JobState::Succeeded)),
            TaskEnd::Failed | TaskEnd::Cancelled => prop_assert!(undone, "I10: something started is not undone"),
            TaskEnd::Stuck => prop_assert!(!undo_works),
        }
    }
}

fn record(task: &Task, spec: JobSpec) -> JobRecord {
    JobRecord {
        format: FORMAT,
        task: task.id,
        scope: task.scope,
        subject: task.subject.clone(),
        generation: 1,
        request_id: String::new(),
        spec,
        want: JobWant::Run,
        attempt: 1,
        not_before: None,
        state: JobState::Ready,
        worker: None,
        output: None,
        error: None,
        started_at: None,
        ended_at: None,
    }
}

fn fail(records: &mut BTreeMap<JobId, JobRecord>, id: &JobId, retryable: bool) -> JobState {
    let mut reason = Reason::new("test.failed", "as told");
    reason.retryable = retryable;
    records.get_mut(id).unwrap().error = Some(reason);
    JobState::Failed
}

fn to(records: &mut BTreeMap<JobId, JobRecord>, id: &JobId, next: JobState) -> Result<(), TestCaseError> {
    let record = records.get_mut(id).unwrap();
    prop_assert!(
        record.state.may_become(next),
        "{:?} -> {:?} is no legal move",
        record.state,
        next
    );
    if record.state == JobState::Failed && next == JobState::Ready {
        record.attempt += 1;
    }
    record.state = next;
    Ok(())
}
