//! Planning: the first stage, and what comes after a stage.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use skyloom_model::{
    JobRecord, JobState, Owner, Plan, Reason, StageOutcome, TaskEnd, TaskState, Timestamp, crash_point,
};
use skyloom_scheduler::Inventory;
use skyloom_store::{ErrorKind, Outcome, Result, Revision, Txn, Value};

use super::here::Here;
use super::look::{Draft, mark_outcome};
use super::{Driver, Held, Life, Look};
use crate::compose::{self, append_stage, first_stage};
use crate::decide::given_up;
use crate::{PlanContext, Planned, Reading, Records, Refusal, StageEnd, TaskFlow};

/// What became of a stage's end.
pub(super) enum Continued {
    /// The draft has changed: look again.
    Staged,
    /// The flow waits for the world.
    Waiting,
    /// The task ends.
    Ended(TaskEnd, Option<Reason>),
}

/// Operations of the last commit beside those for jobs.
const SPARE_OPS: usize = 32;

impl Driver {
    /// Plans a task's first stage and commits it with everything that goes with it.
    pub(super) async fn plan(&self, flow: &dyn TaskFlow, held: &mut Held, life: &Life) -> Result<Look> {
        let now = self.parts.clock.now();
        if let Some(reason) = given_up(&held.task.value, now) {
            let end = if held.task.value.cancel {
                TaskEnd::Cancelled
            } else {
                TaskEnd::Failed
            };
            return self
                .finish(
                    flow,
                    held,
                    end,
                    Some(reason),
                    &mut Here::new(self.job_slots.clone()),
                    life,
                )
                .await;
        }
        let task = &held.task.value;
        let records = Reading::of(&self.parts.backend)
            .records(flow, task, &held.outputs)
            .await?;
        let created = held.task.created;
        let planned = self
            .ask(&records, now, created, |cx| flow.plan(task, cx).map(Some))
            .await?;
        let composed = match planned {
            Ok(planned) => self.composed(first_stage(
                task,
                planned.unwrap_or_default(),
                now,
                &*self.parts.ids,
            )),
            Err(refusal) => Ok(Err(refusal)),
        }?;
        let composed = match composed {
            Ok(composed) => composed,
            Err(Refusal::Fail(reason)) => {
                let end = TaskEnd::Failed;
                return self
                    .finish(
                        flow,
                        held,
                        end,
                        Some(reason),
                        &mut Here::new(self.job_slots.clone()),
                        life,
                    )
                    .await;
            }
            Err(Refusal::NoHost(reason, said)) => {
                held.refused = Some(*said);
                let mut none = Here::new(self.job_slots.clone());
                return self
                    .finish(flow, held, TaskEnd::Failed, Some(reason), &mut none, life)
                    .await;
            }
            Err(Refusal::Wait(reason)) => return self.wait(held, reason, None, life).await,
            Err(Refusal::WaitForRoom(reason, until)) => {
                return self.wait(held, reason, Some(until), life).await;
            }
        };
        let compose::Composed {
            task: mut next,
            plan,
            txn: staged,
            lend,
        } = composed;
        next.owner = Some(Owner {
            engine: self.parts.engine.clone(),
            lease_epoch: life.fence.epoch,
            claims: 0,
        });
        let guards = held.guards(life)?;
        let own_guards = guards.guards.len();
        let txn = guards
            .put(held.task.key.clone(), Value::json(&next)?)
            .and(staged)
            .and(compose::lend(Reading::of(&self.parts.backend), &lend).await?);
        held.jobs = BTreeMap::new();
        for decision in crate::decide(held.view(&next, &plan, now)) {
            if let crate::Decision::Dispatch(id) = decision
                && let Some(record) = JobRecord::first(&next, &plan, &id, JobState::Ready)
            {
                held.insert(record);
            }
        }
        let txn = txn.and(held.job_writes()?);
        crash_point("engine.before_plan_commit");
        match self.parts.backend.commit(txn).await? {
            Outcome::Committed { revision } => {
                crash_point("engine.after_plan_commit");
                tracing::info!(task = %next.id, flow = next.flow, request_id = next.request_id, jobs = plan.jobs.len(), "planned");
                held.task.value = next;
                held.task.modified = revision;
                held.counted = false;
                held.written(revision);
                let plan = Arc::new(plan);
                self.remember(&held.task.value, plan.clone());
                held.plan = Some(plan);
                Ok(Look::Go)
            }
            Outcome::Conflict { guard, current } => {
                self.catch_up(guard >= own_guards, current).await;
                Ok(Look::Conflict)
            }
        }
    }

    /// Asks the flow what comes after a stage, and puts it into the draft.
    pub(super) async fn after_stage(
        &self,
        flow: &dyn TaskFlow,
        held: &mut Held,
        draft: &mut Draft,
        plan: &Plan,
        outcome: StageOutcome,
        now: Timestamp,
    ) -> Result<Continued> {
        let current = draft.plan.clone().unwrap_or_else(|| plan.clone());
        let stage = current.last_stage().map(|s| s.name.clone()).unwrap_or_default();
        let task = draft.task.clone();
        let outputs = held.outputs.clone();
        let records = Reading::of(&self.parts.backend)
            .records(flow, &task, &outputs)
            .await?;
        let end = StageEnd {
            plan: &current,
            stage: &stage,
            outcome: &outcome,
            outputs: &outputs,
        };
        let asked = self
            .ask(&records, now, Revision(u64::MAX), |cx| flow.next(&task, &end, cx))
            .await?;
        let refusal = match asked {
            Ok(Some(planned)) => {
                let marked = compose::with_outcome(&current, outcome.clone());
                match self.composed(append_stage(&task, marked, planned, now, &*self.parts.ids))? {
                    Ok(composed) => {
                        let lend = compose::lend(Reading::of(&self.parts.backend), &composed.lend).await?;
                        tracing::info!(task = %task.id, flow = task.flow, request_id = task.request_id, stages = composed.plan.stages.len(), "another stage planned");
                        draft.task = composed.task;
                        // The composed commit writes the plan itself; the draft writes it again with all of its changes.
                        let mut staged = composed.txn;
                        let at = compose::key(&skyloom_model::paths::plan(task.id))?;
                        staged.writes.retain(|w| *w.key() != at);
                        draft.extra = std::mem::take(&mut draft.extra).and(staged).and(lend);
                        draft.plan = Some(composed.plan);
                        return Ok(Continued::Staged);
                    }
                    Err(refusal) => Some(refusal),
                }
            }
            Ok(None) => None,
            Err(refusal) => Some(refusal),
        };
        Ok(match (outcome, refusal) {
            (_, Some(Refusal::Wait(reason) | Refusal::WaitForRoom(reason, _))) => {
                draft.task.reason = Some(reason);
                Continued::Waiting
            }
            (StageOutcome::Done, None) => Continued::Ended(TaskEnd::Done, None),
            (StageOutcome::Done, Some(Refusal::Fail(reason) | Refusal::NoHost(reason, _))) => {
                draft.task.state = TaskState::Unwinding;
                draft.task.reason = Some(reason.clone());
                let kind = skyloom_model::EventKind::TaskUnwinding;
                self.tell(draft, kind, "on the way back", Some(reason), now)?;
                Continued::Staged
            }
            (StageOutcome::Undone(reason), _) => {
                if current.stages.len() <= 1 {
                    Continued::Ended(TaskEnd::Failed, Some(reason))
                } else {
                    mark_outcome(draft, plan, StageOutcome::Undone(reason));
                    Continued::Staged
                }
            }
        })
    }

    /// Asks a flow, first with the inventory at hand; a refusal has to hold against the store itself, for the inventory may
    /// be behind what the caller has seen, such as room that a deletion gave back. A panic is a refusal.
    async fn ask(
        &self,
        records: &Records,
        now: Timestamp,
        seen: Revision,
        question: impl Fn(&mut PlanContext<'_>) -> std::result::Result<Option<Planned>, Refusal>,
    ) -> Result<std::result::Result<Option<Planned>, Refusal>> {
        let attempt = |inventory: &Inventory| {
            let mut cx = PlanContext {
                records,
                inventory,
                scheduler: &*self.parts.scheduler,
                ids: &*self.parts.ids,
                now,
            };
            catch_unwind(AssertUnwindSafe(|| question(&mut cx))).unwrap_or_else(|_| {
                Err(Refusal::Fail(Reason::new(
                    "flow.panicked",
                    "the flow panicked while it planned",
                )))
            })
        };
        let answer = self.parts.inventory.with(attempt);
        let refused = matches!(
            answer,
            Err(Refusal::Fail(_) | Refusal::NoHost(..) | Refusal::WaitForRoom(..))
        );
        if refused && !self.parts.inventory.has_seen(seen) {
            return Ok(attempt(&self.parts.inventory.read(&self.parts.backend).await?));
        }
        Ok(answer)
    }

    /// A composed stage, or the refusal of one that is no plan or could never be ended in one commit.
    fn composed(
        &self,
        composed: Result<compose::Composed>,
    ) -> Result<std::result::Result<compose::Composed, Refusal>> {
        let composed = match composed {
            Err(error) if error.kind() == ErrorKind::Invalid => {
                let reason = Reason::new("flow.bad_plan", skyloom_model::report(&error));
                return Ok(Err(Refusal::Fail(reason)));
            }
            other => other?,
        };
        let most = self.parts.backend.capability().max_txn_ops;
        let hosts: BTreeSet<_> = composed.plan.jobs.iter().map(|j| j.place).collect();
        let ops: usize = composed
            .plan
            .jobs
            .iter()
            .map(|j| {
                if j.place == skyloom_model::Place::Engine {
                    1
                } else {
                    2
                }
            })
            .sum();
        if ops + hosts.len() + SPARE_OPS > most {
            let jobs = composed.plan.jobs.len();
            let message = format!(
                "{jobs} jobs are more than one commit of this store can put away ({most} operations)"
            );
            return Ok(Err(Refusal::Fail(
                Reason::new("plan.too_large", message).hint("plan it in several tasks"),
            )));
        }
        Ok(Ok(composed))
    }

    /// The task waits: for room when there is a moment `until` which.
    async fn wait(
        &self,
        held: &mut Held,
        reason: Reason,
        until: Option<Timestamp>,
        life: &Life,
    ) -> Result<Look> {
        let rest = |deadline: Option<Timestamp>| match until {
            None => Look::Rest(deadline),
            Some(until) => Look::Room(deadline.map_or(until, |deadline| deadline.min(until))),
        };
        let mut next = held.task.value.clone();
        // One that waits on for the same is not written anew with each look: what was said first stands.
        let same = |before: &Reason| next.state == TaskState::Waiting && before.code == reason.code;
        if !next.reason.as_ref().is_some_and(same) {
            next.reason = Some(reason);
        }
        next.state = TaskState::Waiting;
        self.survived(held, &mut next);
        if next == held.task.value {
            return Ok(rest(next.deadline));
        }
        if next.owner.is_none() {
            next.owner = Some(Owner {
                engine: self.parts.engine.clone(),
                lease_epoch: life.fence.epoch,
                claims: 0,
            });
        }
        let txn: Txn = held.guards(life)?.put(held.task.key.clone(), Value::json(&next)?);
        Ok(match self.parts.backend.commit(txn).await? {
            Outcome::Committed { revision } => {
                held.task.value = next;
                held.task.modified = revision;
                held.counted = false;
                rest(held.task.value.deadline)
            }
            Outcome::Conflict { .. } => Look::Conflict,
        })
    }
}
