//! `decide` on random plans with random outcomes: it ends, in order, and forgets nothing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use proptest::prelude::*;
use skyloom_flow::{Decision, View, decide};
use skyloom_model::{
    Actor, FORMAT, Id, JobId, JobRecord, JobSpec, JobState, JobWant, ManualClock, Name, Order, OrderVerb,
    Place, Plan, Progress, Reason, RetryPolicy, Scope, SeededIds, Stage, StageOutcome, Subject, Task,
    TaskEnd, TaskState, Timestamp,
};

fn job(index: usize, on_host: bool, after: &[usize]) -> JobSpec {
    JobSpec {
        id: JobId::new(format!("j{index}")),
        kind: "test".into(),
        title: String::new(),
        input: serde_json::Value::Null,
        after: after.iter().map(|a| JobId::new(format!("j{a}"))).collect(),
        place: if on_host {
            Place::Host(Id::from_uuid(uuid::Uuid::nil()))
        } else {
            Place::Engine
        },
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

/// A task, its records, and what is really there.
struct Game {
    task: Task,
    plan: Plan,
    records: BTreeMap<JobId, JobRecord>,
    /// Engine jobs that run now. A crash forgets them.
    here: BTreeMap<JobId, JobWant>,
    /// Effects that happened and were not taken back.
    effects: BTreeSet<JobId>,
    end: Option<TaskEnd>,
}

impl Game {
    fn new(jobs: Vec<JobSpec>) -> Self {
        let task = task();
        let stage = Stage {
            name: "main".into(),
            jobs: jobs.iter().map(|j| j.id.clone()).collect(),
            generation: 1,
            made_at: Timestamp::UNIX_EPOCH,
            outcome: None,
        };
        let plan = Plan {
            format: FORMAT,
            task: task.id,
            jobs,
            placement: None,
            made_at: Timestamp::UNIX_EPOCH,
            stages: vec![stage],
        };
        Self {
            task,
            plan,
            records: BTreeMap::new(),
            here: BTreeMap::new(),
            effects: BTreeSet::new(),
            end: None,
        }
    }

    fn decisions(&self) -> Vec<Decision> {
        decide(View {
            task: &self.task,
            plan: &self.plan,
            jobs: &self.records,
            now: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1),
        })
    }

    fn begin(&mut self, id: &JobId) -> Result<(), TestCaseError> {
        for dep in &self.plan.job(id).unwrap().after {
            let state = self.records.get(dep).map(|r| r.state);
            prop_assert_eq!(
                state,
                Some(JobState::Succeeded),
                "I7: started before its dependency"
            );
        }
        Ok(())
    }

    fn take_back(&self, id: &JobId) -> Result<(), TestCaseError> {
        for later in self.plan.jobs.iter().filter(|j| j.after.contains(id)) {
            prop_assert!(
                !self.effects.contains(&later.id),
                "{} undone before {}",
                id,
                later.id
            );
        }
        Ok(())
    }

    /// Does what was decided. Says whether anything was.
    fn obey(&mut self, decisions: &[Decision]) -> Result<bool, TestCaseError> {
        let mut moved = false;
        for decision in decisions {
            moved = true;
            match decision {
                Decision::Dispatch(id) => {
                    self.begin(id)?;
                    prop_assert!(!self.records.contains_key(id), "dispatched twice");
                    let spec = self.plan.job(id).unwrap().clone();
                    self.records.insert(id.clone(), record(&self.task, spec));
                }
                Decision::RunHere(id) => {
                    self.begin(id)?;
                    moved = self.here.insert(id.clone(), JobWant::Run).is_none();
                }
                Decision::UndoHere(id) => {
                    self.take_back(id)?;
                    moved = self.here.insert(id.clone(), JobWant::Undo) != Some(JobWant::Undo);
                }
                Decision::Retry(id, _) => {
                    self.host_move(id, JobState::Ready)?;
                    self.records.get_mut(id).unwrap().attempt += 1;
                }
                Decision::Withdraw(id) => {
                    prop_assert!(
                        !self.effects.contains(id),
                        "I10: {} was started and is only withdrawn",
                        id
                    );
                    self.host_move(id, JobState::Undone)?;
                }
                Decision::Skip(id) => {
                    self.effects.remove(id);
                    self.host_move(id, JobState::Undone)?;
                }
                Decision::Undo(id) => {
                    self.take_back(id)?;
                    self.host_move(id, JobState::UndoReady)?;
                    let record = self.records.get_mut(id).unwrap();
                    record.want = JobWant::Undo;
                    record.attempt = 1;
                }
                Decision::RetryUndo(id, _) => {
                    self.host_move(id, JobState::UndoReady)?;
                    self.records.get_mut(id).unwrap().attempt += 1;
                }
                Decision::Unwind(reason) => {
                    prop_assert!(self.task.state.may_become(TaskState::Unwinding));
                    self.task.state = TaskState::Unwinding;
                    self.task.reason = Some(reason.clone());
                    self.here.clear(); // the driver drops what is on the way forward
                }
                Decision::Stuck(reason) => {
                    self.task.resume = Some(self.task.state);
                    self.task.state = TaskState::Stuck;
                    self.task.reason = Some(reason.clone());
                }
                Decision::Resume(state) => {
                    self.task.state = *state;
                    self.task.orders.iter_mut().for_each(|o| o.carried_out = true);
                }
                // A flow of one stage has nothing more to say.
                Decision::StageEnd(StageOutcome::Done) => self.end = Some(TaskEnd::Done),
                Decision::StageEnd(StageOutcome::Undone(_)) => self.end = Some(TaskEnd::Failed),
                Decision::End(end, _) => self.end = Some(*end),
            }
        }
        Ok(moved)
    }

    fn host_move(&mut self, id: &JobId, to: JobState) -> Result<(), TestCaseError> {
        let record = self.records.get_mut(id).unwrap();
        let legal = match record.spec.place {
            Place::Host(_) => record.state.may_become(to),
            Place::Engine => JobState::may_become_here(Some(record.state), to),
        };
        prop_assert!(legal, "{:?} -> {:?} is no legal move", record.state, to);
        record.state = to;
        Ok(())
    }

    /// Jobs that somebody could move now.
    fn open(&self) -> Vec<JobId> {
        let hosts = self
            .records
            .values()
            .filter(|r| r.spec.place != Place::Engine && r.state.for_worker());
        hosts
            .map(|r| r.spec.id.clone())
            .chain(self.here.keys().cloned())
            .collect()
    }

    /// One worker makes one move.
    fn work(&mut self, id: &JobId, fate: Fate, undo_works: bool) -> Result<(), TestCaseError> {
        let here = self.here.remove(id);
        let mut record = match self.records.get(id) {
            Some(record) => record.clone(),
            None => record(&self.task, self.plan.job(id).unwrap().clone()),
        };
        if let Some(want) = here {
            if want != record.want {
                record.want = want;
                record.attempt = 1;
            }
        } else if record.state == JobState::Ready || record.state == JobState::UndoReady {
            let started = if record.want == JobWant::Run {
                JobState::Started
            } else {
                JobState::UndoStarted
            };
            record.started_at = Some(Timestamp::UNIX_EPOCH);
            self.records.insert(id.clone(), record);
            // Started is as good as done.
            if started == JobState::Started {
                self.effects.insert(id.clone());
            }
            return self.host_move(id, started);
        }
        record.started_at = Some(Timestamp::UNIX_EPOCH);
        let mut reason = Reason::new("test.failed", "as told");
        reason.retryable = matches!(fate, Fate::FailsForNow) || record.want == JobWant::Undo;
        record.error = Some(reason);
        let to = match (record.want, fate, undo_works) {
            (JobWant::Run, Fate::Works, _) => JobState::Succeeded,
            (JobWant::Run, _, _) => JobState::Failed,
            (JobWant::Undo, _, true) => JobState::Undone,
            (JobWant::Undo, _, false) => JobState::UndoFailed,
        };
        if record.want == JobWant::Run {
            self.effects.insert(id.clone());
        } else if undo_works {
            self.effects.remove(id);
        }
        let from = self.records.get(id).map(|r| r.state);
        if here.is_some() {
            prop_assert!(
                JobState::may_become_here(from, to),
                "{:?} -> {:?} is no legal move here",
                from,
                to
            );
            record.state = to;
            self.records.insert(id.clone(), record);
            Ok(())
        } else {
            self.records.insert(id.clone(), record);
            self.host_move(id, to)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn every_plan_ends_in_order(
        edges in prop::collection::vec(any::<u16>(), 1..9),
        on_hosts in any::<u16>(),
        fates in prop::collection::vec(fate(), 1..64),
        picks in prop::collection::vec(any::<u8>(), 1..64),
        cancel_at in prop::option::of(0_usize..40),
        crash_at in prop::option::of(0_usize..60),
        undo_works_from in prop_oneof![3 => Just(0_usize), 1 => 0_usize..400],
        verb in prop_oneof![Just(OrderVerb::Retry), Just(OrderVerb::Skip), Just(OrderVerb::Abandon)],
    ) {
        let jobs: Vec<JobSpec> = edges.iter().enumerate()
            .map(|(i, bits)| job(i, on_hosts >> i & 1 == 1, &(0..i).filter(|j| bits >> j & 1 == 1).collect::<Vec<_>>()))
            .collect();
        let mut game = Game::new(jobs);
        let (mut fates, mut picks) = (fates.iter().cycle(), picks.iter().cycle());
        for step in 0..6000 {
            if cancel_at == Some(step) {
                game.task.cancel = true;
            }
            if crash_at == Some(step) {
                // What ran in the engine may have happened; nobody knows.
                for (id, want) in std::mem::take(&mut game.here) {
                    if want == JobWant::Run {
                        game.effects.insert(id);
                    }
                }
            }
            let decisions = game.decisions();
            let moved = game.obey(&decisions)?;
            if game.end.is_some() {
                break;
            }
            let open = game.open();
            if open.is_empty() {
                if game.task.state == TaskState::Stuck && !moved {
                    game.task.orders.push(order(verb));
                } else {
                    prop_assert!(moved, "waits without a reason: nothing to do and nobody working");
                }
                continue;
            }
            let id = open[usize::from(*picks.next().unwrap()) % open.len()].clone();
            game.work(&id, *fates.next().unwrap(), step >= undo_works_from)?;
        }
        match game.end.expect("I8: every task ends") {
            TaskEnd::Done => {
                let all = game.plan.jobs.iter().all(|j| game.records[&j.id].state == JobState::Succeeded);
                prop_assert!(all);
            }
            TaskEnd::Failed | TaskEnd::Cancelled => {
                prop_assert!(game.effects.is_empty(), "I10: left behind: {:?}", game.effects);
            }
            TaskEnd::Abandoned => prop_assert!(verb == OrderVerb::Abandon),
        }
    }
}

fn order(verb: OrderVerb) -> Order {
    Order {
        verb,
        by: Actor {
            id: "o".into(),
            name: "o".into(),
        },
        at: Timestamp::UNIX_EPOCH,
        request_id: "r".into(),
        why: "test".into(),
        carried_out: false,
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
