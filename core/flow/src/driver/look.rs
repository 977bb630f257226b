//! One look at a task: results in, decisions out, one commit.

use std::sync::Arc;

use skyloom_model::{
    EventKind, JobId, JobRecord, JobState, JobWant, Place, Plan, Reason, StageOutcome, Task, TaskEnd,
    TaskState, Timestamp, crash_point,
};
use skyloom_store::{Outcome, Result, Txn, Value};

use super::here::{Here, Order};
use super::plan::Continued;
use super::{Driver, Held, Life, Look};
use crate::compose::event;
use crate::{Decision, TaskFlow, decide, wake};

/// What decisions come to, before it is committed.
pub(super) struct Draft {
    /// The task as it will be.
    pub(super) task: Task,
    /// Writes beside the task and its jobs.
    pub(super) extra: Txn,
    /// The plan as it will be, when it changes.
    pub(super) plan: Option<Plan>,
    /// Engine jobs to begin once it is committed.
    begin: Vec<(JobId, JobWant)>,
    /// A back-off of no time at all: look again once it is committed.
    soon: bool,
}

impl Driver {
    /// Looks at a task and does what is next.
    pub(super) async fn look(
        &self,
        flow: &dyn TaskFlow,
        held: &mut Held,
        here: &mut Here,
        life: &Life,
    ) -> Result<Look> {
        let now = self.parts.clock.now();
        here.stamp(now);
        match held.task.value.state {
            TaskState::Queued | TaskState::Waiting => return self.plan(flow, held, life).await,
            TaskState::Stuck if held.plan.is_none() => return self.obey_without_plan(flow, held, life).await,
            _ => {}
        }
        let Some(plan) = held.plan.clone() else {
            let reason = Reason::new("task.plan_missing", "the task was planned and its plan is gone");
            return self.set_aside(held, reason, life).await;
        };
        here.hand_over(held);
        let mut draft = Draft {
            task: held.task.value.clone(),
            extra: Txn::new(),
            plan: None,
            begin: Vec::new(),
            soon: false,
        };
        // A change of state is looked at again at once, so that what follows from it is in the same commit.
        let mut again = true;
        while again {
            again = false;
            let current = draft.plan.as_ref().unwrap_or(&plan);
            for decision in decide(held.view(&draft.task, current, now)) {
                match decision {
                    Decision::StageEnd(outcome) => {
                        match self
                            .after_stage(flow, held, &mut draft, &plan, outcome, now)
                            .await?
                        {
                            Continued::Staged => again = true,
                            Continued::Waiting => {}
                            Continued::Ended(end, reason) => {
                                return self.finish(flow, held, end, reason, here, life).await;
                            }
                        }
                    }
                    Decision::End(end, reason) => {
                        return self.finish(flow, held, end, reason, here, life).await;
                    }
                    other => again |= self.note(held, &mut draft, &plan, other, now)?,
                }
            }
        }
        if draft.task.state == TaskState::Unwinding {
            here.turn_back();
        }
        self.commit_draft(held, here, draft, &plan, life, now).await
    }

    /// Notes one decision in the records. `true`: the state has changed, look again.
    fn note(
        &self,
        held: &mut Held,
        draft: &mut Draft,
        plan: &Plan,
        decision: Decision,
        now: Timestamp,
    ) -> Result<bool> {
        let current = draft.plan.as_ref().unwrap_or(plan);
        match decision {
            Decision::Dispatch(id) => {
                if let Some(record) = JobRecord::first(&draft.task, current, &id, JobState::Ready) {
                    held.insert(record);
                }
            }
            Decision::RunHere(id) => draft.begin.push((id, JobWant::Run)),
            Decision::UndoHere(id) => draft.begin.push((id, JobWant::Undo)),
            Decision::Retry(id, at) => {
                draft.soon |= at <= now;
                held.edit(&id, |r| again_at(r, JobState::Ready, at));
            }
            Decision::RetryUndo(id, at) => {
                draft.soon |= at <= now;
                held.edit(&id, |r| again_at(r, JobState::UndoReady, at));
            }
            Decision::Withdraw(id) | Decision::Skip(id) => held.edit(&id, |r| {
                r.state = JobState::Undone;
                r.ended_at = Some(now);
            }),
            Decision::Undo(id) => {
                crash_point("engine.amid_unwind");
                held.edit(&id, |r| {
                    r.want = JobWant::Undo;
                    r.state = JobState::UndoReady;
                    r.attempt = 1;
                    r.not_before = None;
                    r.worker = None;
                    r.ended_at = None;
                });
            }
            Decision::Unwind(reason) => {
                crash_point("engine.unwind_decided");
                tracing::warn!(task = %draft.task.id, flow = draft.task.flow, request_id = draft.task.request_id, %reason, "unwinding");
                draft.task.state = TaskState::Unwinding;
                draft.task.reason = Some(reason.clone());
                draft.begin.clear();
                self.tell(
                    draft,
                    EventKind::TaskUnwinding,
                    "on the way back",
                    Some(reason),
                    now,
                )?;
                return Ok(true);
            }
            Decision::Stuck(reason) => self.stick(draft, reason, now)?,
            Decision::Resume(state) => {
                draft.task.state = state;
                draft.task.resume = None;
                obeyed(&mut draft.task);
                return Ok(true);
            }
            Decision::StageEnd(_) | Decision::End(..) => {}
        }
        Ok(false)
    }

    pub(super) fn tell(
        &self,
        draft: &mut Draft,
        kind: EventKind,
        what: &str,
        reason: Option<Reason>,
        now: Timestamp,
    ) -> Result<()> {
        let message = format!("{}: {what}", draft.task.flow);
        let told = event(&draft.task, kind, message, reason, now, &*self.parts.ids)?;
        draft.extra = std::mem::take(&mut draft.extra).and(told);
        Ok(())
    }

    fn stick(&self, draft: &mut Draft, reason: Reason, now: Timestamp) -> Result<()> {
        tracing::error!(task = %draft.task.id, flow = draft.task.flow, request_id = draft.task.request_id, %reason, "stuck");
        draft.task.resume = Some(draft.task.state);
        draft.task.state = TaskState::Stuck;
        draft.task.reason = Some(reason.clone());
        draft.begin.clear();
        self.tell(
            draft,
            EventKind::TaskStuck,
            "stuck: an operator is needed",
            Some(reason),
            now,
        )
    }

    /// Sets a task aside until an operator says what to do.
    pub(super) async fn set_aside(&self, held: &mut Held, reason: Reason, life: &Life) -> Result<Look> {
        let now = self.parts.clock.now();
        let mut draft = Draft {
            task: held.task.value.clone(),
            extra: Txn::new(),
            plan: None,
            begin: Vec::new(),
            soon: false,
        };
        self.stick(&mut draft, reason, now)?;
        let txn = held
            .guards(life)?
            .put(held.task.key.clone(), Value::json(&draft.task)?)
            .and(draft.extra);
        Ok(match self.parts.backend.commit(txn).await? {
            Outcome::Committed { revision } => {
                held.task.value = draft.task;
                held.task.modified = revision;
                Look::Rest(None)
            }
            Outcome::Conflict { .. } => Look::Conflict,
        })
    }

    /// Commits a draft and begins the jobs that follow from it.
    async fn commit_draft(
        &self,
        held: &mut Held,
        here: &mut Here,
        mut draft: Draft,
        plan: &Arc<Plan>,
        life: &Life,
        now: Timestamp,
    ) -> Result<Look> {
        if let Some(changed) = &draft.plan {
            let at = crate::compose::key(&skyloom_model::paths::plan(draft.task.id))?;
            draft.extra = std::mem::take(&mut draft.extra).put(at, Value::json(changed)?);
        }
        let current = draft.plan.as_ref().unwrap_or(plan);
        draft.task.progress.done = done_weight(current, held);
        let write_task = self.task_differs(held, &mut draft.task, current);
        let mut txn = held.guards(life)?;
        let own_guards = txn.guards.len();
        if write_task {
            self.survived(held, &mut draft.task);
            txn = txn.put(held.task.key.clone(), Value::json(&draft.task)?);
        }
        txn = txn.and(held.job_writes()?).and(draft.extra);
        let staged = draft.plan.is_some();
        if !txn.writes.is_empty() {
            crash_point("engine.result_seen");
            match self.parts.backend.commit(txn).await {
                Ok(Outcome::Committed { revision }) => {
                    crash_point("engine.after_dispatch");
                    if write_task {
                        held.task.value = draft.task;
                        held.task.modified = revision;
                        held.counted = false;
                    }
                    held.written(revision);
                    here.saved();
                    if let Some(changed) = draft.plan {
                        let changed = Arc::new(changed);
                        self.remember(&held.task.value, changed.clone());
                        held.plan = Some(changed);
                    }
                }
                Ok(Outcome::Conflict { guard, current }) => {
                    self.catch_up(staged && guard >= own_guards, current).await;
                    return Ok(Look::Conflict);
                }
                Err(error) if !error.may_pass() => {
                    let why = skyloom_model::report(&error);
                    if here.refuse_results(&why) {
                        tracing::error!(task = %held.task.value.id, error = why, "a job's result is refused");
                        return Ok(Look::Conflict);
                    }
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        } else {
            here.saved();
        }
        let plan = held.plan.clone().unwrap_or_else(|| plan.clone());
        let begun = here.under_way();
        for (id, want) in draft.begin.into_iter().filter(|(id, _)| !begun.contains(id)) {
            self.begin(held, here, &plan, &id, want, life);
        }
        if draft.soon {
            return Ok(Look::Go);
        }
        Ok(Look::Rest(wake(held.view(&held.task.value, &plan, now))))
    }

    fn begin(&self, held: &Held, here: &mut Here, plan: &Plan, id: &JobId, want: JobWant, life: &Life) {
        // Under the next lease, then, by whoever has it.
        if !life.fence.may_act(&*self.parts.clock) {
            return;
        }
        let record = held.jobs.get(id).cloned();
        let Some(mut record) =
            record.or_else(|| JobRecord::first(&held.task.value, plan, id, JobState::Ready))
        else {
            return;
        };
        let Some(code) = self.parts.jobs.get(&record.spec.kind).cloned() else {
            tracing::warn!(task = %record.task, job = %id, kind = record.spec.kind, "unknown job: left to engines that know it");
            return;
        };
        if record.want != want {
            record.want = want;
            record.attempt = 1;
        }
        here.start(Order {
            code,
            record,
            outputs: held.outputs.clone(),
            started_at: self.parts.clock.now(),
            fence: life.fence.clone(),
            clock: self.parts.clock.clone(),
        });
    }

    /// Progress alone is worth a write only where hosts work: a step of the engine is one record.
    fn task_differs(&self, held: &Held, next: &mut Task, plan: &Plan) -> bool {
        let before = &held.task.value;
        if held.counted || next.owner.as_ref().is_none_or(|o| o.engine != self.parts.engine) {
            return true;
        }
        let progress = std::mem::replace(&mut next.progress, before.progress);
        let differs = *next != *before;
        next.progress = progress;
        differs || (progress != before.progress && plan.jobs.iter().any(|j| j.place != Place::Engine))
    }

    /// The life that writes this has survived its look at the task.
    pub(super) fn survived(&self, held: &Held, task: &mut Task) {
        if let Some(owner) = task.owner.as_mut().filter(|_| held.counted) {
            owner.claims = 0;
        }
    }

    /// A host's ledger moved: wait until the inventory has seen it, or planning would only lose again.
    pub(super) async fn catch_up(&self, lost_a_claim: bool, moved: Option<skyloom_store::Revision>) {
        if let Some(revision) = moved.filter(|_| lost_a_claim) {
            self.parts.inventory.wait_for(revision).await;
        }
    }

    /// What an operator has ordered for a task that never got a plan.
    async fn obey_without_plan(&self, flow: &dyn TaskFlow, held: &mut Held, life: &Life) -> Result<Look> {
        let Some(order) = crate::decide::open_order(&held.task.value).cloned() else {
            return Ok(Look::Rest(None));
        };
        if order.verb == skyloom_model::OrderVerb::Abandon {
            let mut none = Here::new(self.job_slots.clone());
            let reason = Some(crate::decide::abandoned(&order));
            return self
                .finish(flow, held, TaskEnd::Abandoned, reason, &mut none, life)
                .await;
        }
        let mut next = held.task.value.clone();
        next.state = TaskState::Queued;
        next.resume = None;
        next.reason = None;
        obeyed(&mut next);
        let txn = held.guards(life)?.put(held.task.key.clone(), Value::json(&next)?);
        Ok(match self.parts.backend.commit(txn).await? {
            Outcome::Committed { revision } => {
                held.task.value = next;
                held.task.modified = revision;
                Look::Go
            }
            Outcome::Conflict { .. } => Look::Conflict,
        })
    }
}

/// The operators' orders are carried out, and tries count anew.
fn obeyed(task: &mut Task) {
    task.orders.iter_mut().for_each(|o| o.carried_out = true);
    if let Some(owner) = &mut task.owner {
        owner.claims = 0;
    }
}

fn again_at(record: &mut JobRecord, state: JobState, at: Timestamp) {
    record.state = state;
    record.attempt += 1;
    record.not_before = Some(at);
    record.ended_at = None;
}

fn done_weight(plan: &Plan, held: &Held) -> u32 {
    let done = |id: &JobId| held.jobs.get(id).is_some_and(|r| r.state == JobState::Succeeded);
    plan.jobs.iter().filter(|j| done(&j.id)).map(|j| j.weight).sum()
}

/// The stage's outcome in the plan, and one more change of it counted.
pub(super) fn mark_outcome(draft: &mut Draft, plan: &Plan, outcome: StageOutcome) {
    let current = draft.plan.as_ref().unwrap_or(plan);
    draft.plan = Some(crate::compose::with_outcome(current, outcome));
    draft.task.plan_version += 1;
}
