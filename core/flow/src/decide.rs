//! What to do next, from what is. Pure: the whole state of a task is its record, its plan and its job records.
//!
//! ```text
//!  running    jobs whose `after` succeeded ──> dispatch (host) | run here (engine) ... all succeeded ──> stage done
//!     │ a job failed for good, cancel, deadline
//!     v
//!  unwinding  started jobs, last first ──> withdraw | undo | undo here ... all gone ──> stage undone | end
//!     │ an undo failed for good
//!     v
//!  stuck      an operator's order ──> resume, with tries counted anew, undos skipped, or abandoned
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skyloom_model::ablation::{Rule, kept};
use skyloom_model::{
    JobId, JobRecord, JobSpec, JobState, JobWant, Order, OrderVerb, Place, Plan, Reason, StageOutcome, Task,
    TaskEnd, TaskState, Timestamp,
};

use crate::backoff::{full_jitter, is_over};

/// After so many failed tries of one undo the task is stuck and operators decide; after each `retry` of theirs as many again.
pub const MAX_UNDO_ATTEMPTS: u32 = 8;
/// Second and later tries that all jobs of a task may have together; then a failure counts as final.
pub const RETRY_BUDGET: u32 = 64;

/// All that there is to know of a planned task.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Its record.
    pub task: &'a Task,
    /// Its plan.
    pub plan: &'a Plan,
    /// Its job records so far.
    pub jobs: &'a BTreeMap<JobId, JobRecord>,
    /// The time, for back-off and deadlines.
    pub now: Timestamp,
}

/// One thing to do. All decisions of one call go into one commit.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Make the host job's record, ready for its agent.
    Dispatch(JobId),
    /// Run the engine's job.
    RunHere(JobId),
    /// Let it be tried again, not before this moment.
    Retry(JobId, Timestamp),
    /// Nobody has started it: take it back.
    Withdraw(JobId),
    /// It was started on its host: have its effect taken back.
    Undo(JobId),
    /// It was, or may have been, run by an engine: take its effect back.
    UndoHere(JobId),
    /// Have its undo tried again, not before this moment.
    RetryUndo(JobId, Timestamp),
    /// An operator says that it is undone.
    Skip(JobId),
    /// Begin the way back.
    Unwind(Reason),
    /// The last stage is over: the flow says what comes next.
    StageEnd(StageOutcome),
    /// Only an operator can help.
    Stuck(Reason),
    /// An operator's order has been followed: go on in this state.
    Resume(TaskState),
    /// The task ends.
    End(TaskEnd, Option<Reason>),
}

/// What to do next; nothing means wait: for a worker, an operator, or [`wake`].
#[must_use]
pub fn decide(view: View<'_>) -> Vec<Decision> {
    match view.task.state {
        TaskState::Running => forward(view),
        TaskState::Unwinding => backward(view),
        TaskState::Stuck => ordered(view),
        TaskState::Queued
        | TaskState::Waiting
        | TaskState::Done
        | TaskState::Failed
        | TaskState::Cancelled => Vec::new(),
    }
}

/// When to look again although nothing has changed: the end of a back-off of the engine's jobs, or the task's deadline.
#[must_use]
pub fn wake(view: View<'_>) -> Option<Timestamp> {
    let backoffs = view
        .jobs
        .values()
        .filter(|r| r.spec.place == Place::Engine)
        .filter_map(|r| r.not_before)
        .filter(|at| !is_over(*at, view.now));
    let deadline = view
        .task
        .deadline
        .filter(|_| view.task.state == TaskState::Running);
    backoffs.chain(deadline).filter(|at| *at > view.now).min()
}

/// Why the task is given up, if it is: asked for, or too late.
#[must_use]
pub(crate) fn given_up(task: &Task, now: Timestamp) -> Option<Reason> {
    if task.cancel {
        return Some(Reason::new("task.cancelled", "the task was cancelled"));
    }
    task.deadline.filter(|at| *at <= now).map(|at| {
        Reason::new("task.deadline", format!("the task was not done by {at}"))
            .hint("look at its steps for what it waited for, then ask anew")
    })
}

fn forward(view: View<'_>) -> Vec<Decision> {
    if let Some(reason) = given_up(view.task, view.now) {
        return vec![Decision::Unwind(reason)];
    }
    let mut decisions = Vec::new();
    let mut all_succeeded = true;
    for job in live(view.plan) {
        let record = view.jobs.get(&job.id);
        all_succeeded &= record.is_some_and(|r| r.state == JobState::Succeeded);
        match record {
            None if !kept(Rule::DependencyOrder) || may_have_begun(view, job) => {
                decisions.push(match job.place {
                    Place::Host(_) => Decision::Dispatch(job.id.clone()),
                    Place::Engine => Decision::RunHere(job.id.clone()),
                });
            }
            Some(record) => match record.state {
                JobState::Failed => {
                    let reason = failure(record);
                    if !reason.retryable || record.attempt >= job.retry.max_attempts || over_budget(view) {
                        return vec![Decision::Unwind(reason)];
                    }
                    decisions.push(Decision::Retry(job.id.clone(), again_at(view, job, record)));
                }
                JobState::Ready if job.place == Place::Engine && due(record, view.now) => {
                    decisions.push(Decision::RunHere(job.id.clone()));
                }
                // Format 1 had a record of the engine's jobs while they ran; its engine is gone.
                JobState::Started if job.place == Place::Engine => {
                    decisions.push(Decision::RunHere(job.id.clone()));
                }
                _ => {}
            },
            None => {}
        }
    }
    if all_succeeded {
        decisions.push(Decision::StageEnd(StageOutcome::Done));
    }
    decisions
}

fn backward(view: View<'_>) -> Vec<Decision> {
    // A failed stage goes back alone, then the flow may know another way. Given up, or asked already: all go back.
    let last = view.plan.last_stage().filter(|s| s.outcome.is_none());
    let alone = last.filter(|_| given_up(view.task, view.now).is_none());
    let scope: Vec<&JobSpec> = match alone {
        Some(stage) => live(view.plan).filter(|j| stage.jobs.contains(&j.id)).collect(),
        None => live(view.plan).collect(),
    };
    let mut decisions = Vec::new();
    let mut failed: Option<Reason> = None;
    let mut all_gone = true;
    let mut under_way = false;
    for job in scope {
        let record = view.jobs.get(&job.id);
        let may_run = record.is_none() && job.place == Place::Engine && may_have_begun(view, job);
        all_gone &= !may_run && gone(record);
        let here = job.place == Place::Engine;
        let id = || job.id.clone();
        let free = !kept(Rule::UndoOrder) || is_free(view, job);
        let Some(record) = record else {
            if may_run && free {
                decisions.push(Decision::UndoHere(id()));
            }
            continue;
        };
        match record.state {
            JobState::Ready if record.started_at.is_none() && !here => {
                decisions.push(Decision::Withdraw(id()))
            }
            JobState::Failed if !kept(Rule::UndoStarted) => decisions.push(Decision::Withdraw(id())),
            JobState::Ready
            | JobState::Succeeded
            | JobState::Failed
            | JobState::Started
            | JobState::UndoStarted
                if here && free =>
            {
                decisions.push(Decision::UndoHere(id()));
            }
            JobState::Ready | JobState::Succeeded | JobState::Failed if free => {
                decisions.push(Decision::Undo(id()));
            }
            JobState::UndoReady if here && due(record, view.now) => decisions.push(Decision::UndoHere(id())),
            JobState::UndoFailed if record.attempt % MAX_UNDO_ATTEMPTS == 0 || !failure(record).retryable => {
                let cause = failure(record);
                failed.get_or_insert(
                    Reason::new(
                        "task.undo_failed",
                        format!("cannot undo {}: {}", job.id, cause.message),
                    )
                    .hint("repair the cause, then: task retry; or task skip, task abandon"),
                );
            }
            JobState::UndoFailed => decisions.push(Decision::RetryUndo(id(), again_at(view, job, record))),
            JobState::Started | JobState::UndoStarted | JobState::UndoReady => under_way = true,
            JobState::Ready | JobState::Succeeded | JobState::Failed | JobState::Undone => {}
        }
    }
    if all_gone {
        decisions.push(match (alone, given_up(view.task, view.now)) {
            (Some(_), _) => Decision::StageEnd(StageOutcome::Undone(why(view.task))),
            (None, Some(reason)) => {
                let end = if view.task.cancel {
                    TaskEnd::Cancelled
                } else {
                    TaskEnd::Failed
                };
                Decision::End(end, Some(view.task.reason.clone().unwrap_or(reason)))
            }
            (None, None) => Decision::End(TaskEnd::Failed, Some(why(view.task))),
        });
    } else if let Some(reason) = failed.filter(|_| decisions.is_empty() && !under_way) {
        decisions.push(Decision::Stuck(reason));
    }
    decisions
}

/// What an operator has ordered for a stuck task.
fn ordered(view: View<'_>) -> Vec<Decision> {
    let Some(order) = open_order(view.task) else {
        return Vec::new();
    };
    if order.verb == OrderVerb::Abandon {
        return vec![Decision::End(TaskEnd::Abandoned, Some(abandoned(order)))];
    }
    let failed = view.jobs.values().filter(|r| r.state == JobState::UndoFailed);
    let mut decisions: Vec<Decision> = failed
        .map(|r| match order.verb {
            OrderVerb::Skip => Decision::Skip(r.spec.id.clone()),
            OrderVerb::Retry | OrderVerb::Abandon => Decision::RetryUndo(r.spec.id.clone(), view.now),
        })
        .collect();
    decisions.push(Decision::Resume(view.task.resume.unwrap_or(TaskState::Unwinding)));
    decisions
}

/// The order that no engine has carried out yet.
#[must_use]
pub(crate) fn open_order(task: &Task) -> Option<&Order> {
    task.orders.iter().find(|o| !o.carried_out)
}

/// Why an abandoned task ended.
#[must_use]
pub(crate) fn abandoned(order: &Order) -> Reason {
    Reason::new(
        "task.abandoned",
        format!("abandoned by {}: {}", order.by.name, order.why),
    )
}

/// The jobs of all stages that were not undone before.
fn live(plan: &Plan) -> impl Iterator<Item = &JobSpec> {
    let dead: BTreeSet<&JobId> = plan
        .stages
        .iter()
        .filter(|s| matches!(s.outcome, Some(StageOutcome::Undone(_))) && !is_last(plan, s))
        .flat_map(|s| &s.jobs)
        .collect();
    plan.jobs
        .iter()
        .filter(move |j| dead.is_empty() || !dead.contains(&j.id))
}

fn is_last(plan: &Plan, stage: &skyloom_model::Stage) -> bool {
    plan.stages.last().is_some_and(|last| std::ptr::eq(last, stage))
}

/// Whether all that the job builds on has succeeded: an engine may have begun it without leaving a record.
fn may_have_begun(view: View<'_>, job: &JobSpec) -> bool {
    job.after
        .iter()
        .all(|a| view.jobs.get(a).is_some_and(|r| r.state == JobState::Succeeded))
}

/// Whether everything built on the job is gone.
fn is_free(view: View<'_>, job: &JobSpec) -> bool {
    view.plan
        .jobs
        .iter()
        .filter(|d| d.after.contains(&job.id))
        .all(|d| match view.jobs.get(&d.id) {
            // An engine's job that may have begun without a record is not gone.
            None => d.place != Place::Engine || !may_have_begun(view, d) || is_dead(view.plan, &d.id),
            record => gone(record),
        })
}

fn is_dead(plan: &Plan, job: &JobId) -> bool {
    plan.stages
        .iter()
        .any(|s| matches!(s.outcome, Some(StageOutcome::Undone(_))) && s.jobs.contains(job))
}

fn gone(record: Option<&JobRecord>) -> bool {
    record.is_none_or(|r| r.state == JobState::Undone)
}

fn due(record: &JobRecord, now: Timestamp) -> bool {
    record.not_before.is_none_or(|at| is_over(at, now))
}

fn over_budget(view: View<'_>) -> bool {
    let again: u32 = view
        .jobs
        .values()
        .filter(|r| r.want == JobWant::Run)
        .map(|r| r.attempt.saturating_sub(1))
        .sum();
    again >= RETRY_BUDGET
}

fn why(task: &Task) -> Reason {
    task.reason
        .clone()
        .unwrap_or_else(|| Reason::new("task.failed", "the task failed without a reason"))
}

fn failure(record: &JobRecord) -> Reason {
    record.error.clone().unwrap_or_else(|| {
        Reason::new(
            "job.failed",
            format!("the job {} failed without a reason", record.spec.id),
        )
    })
}

/// Full-jitter back-off from the job's own policy.
fn again_at(view: View<'_>, job: &JobSpec, record: &JobRecord) -> Timestamp {
    let first = Duration::from_millis(job.retry.backoff_ms);
    let wait = full_jitter(
        first,
        record.attempt,
        &[view.task.id.uuid().as_bytes(), job.id.as_str().as_bytes()],
    );
    jiff::SignedDuration::try_from(wait)
        .ok()
        .and_then(|w| view.now.checked_add(w).ok())
        .unwrap_or(view.now)
}
