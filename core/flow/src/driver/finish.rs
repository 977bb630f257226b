//! The end of a task: its last state, the flow's record changes, and the job records put away, in one commit.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value as Json;
use skyloom_model::ablation::{Rule, kept};
use skyloom_model::{
    EventKind, FORMAT, Owner, Place, Plan, Reason, Run, StepRecord, Task, TaskEnd, TaskState, Timestamp,
    crash_point, paths,
};
use skyloom_store::{Outcome, Result, Txn, Value};

use super::here::Here;
use super::{Driver, Held, Life, Look};
use crate::compose::{event, key, lent_keys};
use crate::{Reading, SettleContext, Settled, TaskFlow};

impl Driver {
    /// Ends the task.
    pub(super) async fn finish(
        &self,
        flow: &dyn TaskFlow,
        held: &mut Held,
        end: TaskEnd,
        reason: Option<Reason>,
        here: &mut Here,
        life: &Life,
    ) -> Result<Look> {
        let now = self.parts.clock.now();
        let plan = held.plan.clone();
        let task = &held.task.value;
        let records = Reading::of(&self.parts.backend)
            .records(flow, task, &held.outputs)
            .await?;
        let context = SettleContext {
            end,
            reason: reason.as_ref(),
            plan: plan.as_deref(),
            outputs: &held.outputs,
            records: &records,
            now,
        };
        let settled = catch_unwind(AssertUnwindSafe(|| flow.settle(task, &context)))
            .unwrap_or_else(|_| Err(Reason::new("flow.panicked", "the flow panicked while it settled")));
        let settled = match settled {
            Ok(settled) => settled,
            // Given up means given up: what the flow would have recorded is left as it is.
            Err(why) if end == TaskEnd::Abandoned => {
                tracing::error!(task = %task.id, flow = task.flow, %why, "abandoned without settling");
                Settled::default()
            }
            Err(why) => {
                return self
                    .set_aside(
                        held,
                        why.hint("repair the record, then: task retry; or task abandon"),
                        life,
                    )
                    .await;
            }
        };
        let mut next = task.clone();
        next.state = match end {
            TaskEnd::Done => TaskState::Done,
            TaskEnd::Failed | TaskEnd::Abandoned => TaskState::Failed,
            TaskEnd::Cancelled => TaskState::Cancelled,
        };
        next.reason = reason;
        next.result = settled.result;
        next.resume = None;
        next.ended_at = Some(now);
        next.orders.iter_mut().for_each(|o| o.carried_out = true);
        if end == TaskEnd::Done {
            next.progress.done = next.progress.total;
        }
        if next.owner.is_none() {
            next.owner = Some(Owner {
                engine: self.parts.engine.clone(),
                lease_epoch: life.fence.epoch,
                claims: 0,
            });
        }
        // What was said when no host was found is kept as a plan of nothing.
        let nothing = held.refused.take().map(|said| refusal(&next, said, now));
        let mut txn = held
            .guards(life)?
            .put(held.task.key.clone(), Value::json(&next)?)
            .delete(key(&paths::active(next.id))?)
            .and(put_away(held, &next, nothing.as_ref().or(plan.as_deref()))?);
        let message = format!("{}: {}", next.flow, said(end));
        txn = txn.and(event(
            &next,
            EventKind::TaskEnded,
            message,
            next.reason.clone(),
            now,
            &*self.parts.ids,
        )?);
        if let Some(plan) = nothing {
            txn = txn.put(key(&paths::plan(next.id))?, Value::json(&plan)?);
        }
        let mut later = Txn::new();
        if kept(Rule::SettleWithEnd) {
            txn = txn.and(settled.changes);
        } else {
            later = settled.changes;
        }
        match end {
            TaskEnd::Done => crash_point("engine.before_end"),
            _ => crash_point("engine.all_undone"),
        }
        match self.parts.backend.commit(txn).await {
            Ok(Outcome::Committed { .. }) => {
                crash_point("engine.after_end");
                here.saved();
                self.forget(&next);
                tracing::info!(task = %next.id, flow = next.flow, request_id = next.request_id, state = ?next.state, reason = ?next.reason, "ended");
                if !later.writes.is_empty() {
                    self.parts.backend.commit(later).await?;
                }
                Ok(Look::Ended)
            }
            Ok(Outcome::Conflict { .. }) => Ok(Look::Conflict),
            Err(error) if !error.may_pass() => {
                if here.refuse_results(&skyloom_model::report(&error)) {
                    return Ok(Look::Conflict);
                }
                Err(error)
            }
            Err(error) => Err(error),
        }
    }
}

/// The plan of a task that found no host: nothing to do, and why.
fn refusal(task: &Task, said: Json, now: Timestamp) -> Plan {
    Plan {
        format: FORMAT,
        task: task.id,
        jobs: Vec::new(),
        placement: Some(said),
        made_at: now,
        stages: Vec::new(),
    }
}

/// The job records go into the run, and what was lent to hosts goes.
fn put_away(held: &Held, task: &Task, plan: Option<&Plan>) -> Result<Txn> {
    let mut txn = Txn::new();
    let Some(plan) = plan else {
        return Ok(txn);
    };
    let in_order = plan
        .jobs
        .iter()
        .filter_map(|j| held.jobs.get(&j.id))
        .map(StepRecord::of)
        .collect();
    txn = txn.put(
        key(&paths::run(task.id))?,
        Value::json(&Run {
            format: FORMAT,
            jobs: in_order,
        })?,
    );
    for (id, (at, revision)) in &held.saved {
        // A host's agent may be writing its job's record; an engine's is its own.
        let host = held.jobs.get(id).is_some_and(|r| r.spec.place != Place::Engine);
        if host {
            txn = txn.guard(skyloom_store::Guard::Revision(at.clone(), *revision));
        }
        txn = txn.delete(at.clone());
    }
    for lent in lent_keys(plan, task)? {
        txn = txn.delete(lent);
    }
    Ok(txn)
}

fn said(end: TaskEnd) -> &'static str {
    match end {
        TaskEnd::Done => "done",
        TaskEnd::Failed => "failed, and undone",
        TaskEnd::Cancelled => "cancelled, and undone",
        TaskEnd::Abandoned => "abandoned by an operator",
    }
}
