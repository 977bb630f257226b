//! What to do next, from what is. Pure: the whole state of a task is its record, its plan and its job records.

use std::collections::BTreeMap;
use std::time::Duration;

use skyloom_model::{JobId, JobRecord, JobSpec, JobState, Plan, Reason, Task, TaskEnd, TaskState, Timestamp};

/// After so many failed tries of one undo the task is stuck and operators decide.
pub const MAX_UNDO_ATTEMPTS: u32 = 8;

/// All that there is to know of a planned task.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Its record.
    pub task: &'a Task,
    /// Its plan.
    pub plan: &'a Plan,
    /// Its job records so far.
    pub jobs: &'a BTreeMap<JobId, JobRecord>,
    /// The time, for back-off.
    pub now: Timestamp,
}

/// One thing to do. All decisions of one call go into one commit.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Make the job's record, ready for its worker.
    Dispatch(JobId),
    /// Let it be tried again, not before this moment.
    Retry(JobId, Timestamp),
    /// Nobody has started it: take it back.
    Withdraw(JobId),
    /// It was started: have its effect taken back.
    Undo(JobId),
    /// Have its undo tried again, not before this moment.
    RetryUndo(JobId, Timestamp),
    /// Begin the way back.
    Unwind(Reason),
    /// The task ends.
    End(TaskEnd, Option<Reason>),
}

/// What to do next; nothing means wait for a worker.
#[must_use]
pub fn decide(view: View<'_>) -> Vec<Decision> {
    match view.task.state {
        TaskState::Running => forward(view),
        TaskState::Unwinding => backward(view),
        TaskState::Queued
        | TaskState::Waiting
        | TaskState::Done
        | TaskState::Failed
        | TaskState::Cancelled
        | TaskState::Stuck => Vec::new(),
    }
}

fn forward(view: View<'_>) -> Vec<Decision> {
    if view.task.cancel {
        return vec![Decision::Unwind(Reason::new(
            "task.cancelled",
            "the task was cancelled",
        ))];
    }
    let mut decisions = Vec::new();
    for job in &view.plan.jobs {
        match view.jobs.get(&job.id) {
            None if job
                .after
                .iter()
                .all(|a| state(view, a) == Some(JobState::Succeeded)) =>
            {
                decisions.push(Decision::Dispatch(job.id.clone()));
            }
            Some(record) if record.state == JobState::Failed => {
                let reason = failure(record);
                if !reason.retryable || record.attempt >= job.retry.max_attempts {
                    return vec![Decision::Unwind(reason)];
                }
                decisions.push(Decision::Retry(
                    job.id.clone(),
                    after_backoff(view.now, job, record.attempt),
                ));
            }
            _ => {}
        }
    }
    if view
        .plan
        .jobs
        .iter()
        .all(|job| state(view, &job.id) == Some(JobState::Succeeded))
    {
        decisions.push(Decision::End(TaskEnd::Done, None));
    }
    decisions
}

fn backward(view: View<'_>) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for job in &view.plan.jobs {
        let Some(record) = view.jobs.get(&job.id) else {
            continue;
        };
        // A job goes back only when everything built on it is gone.
        let free = view
            .plan
            .jobs
            .iter()
            .filter(|d| d.after.contains(&job.id))
            .all(|d| gone(state(view, &d.id)));
        match record.state {
            JobState::Ready => decisions.push(Decision::Withdraw(job.id.clone())),
            JobState::Succeeded | JobState::Failed if free => decisions.push(Decision::Undo(job.id.clone())),
            JobState::UndoFailed if record.attempt >= MAX_UNDO_ATTEMPTS || !failure(record).retryable => {
                let cause = failure(record);
                let reason = Reason::new(
                    "task.undo_failed",
                    format!("cannot undo {}: {}", job.id, cause.message),
                )
                .hint("repair the cause, then let an operator retry the task");
                return vec![Decision::End(TaskEnd::Stuck, Some(reason))];
            }
            JobState::UndoFailed => {
                decisions.push(Decision::RetryUndo(
                    job.id.clone(),
                    after_backoff(view.now, job, record.attempt),
                ));
            }
            JobState::Succeeded
            | JobState::Failed
            | JobState::Started
            | JobState::UndoReady
            | JobState::UndoStarted
            | JobState::Undone => {}
        }
    }
    if view.plan.jobs.iter().all(|job| gone(state(view, &job.id))) {
        let end = if view.task.cancel {
            TaskEnd::Cancelled
        } else {
            TaskEnd::Failed
        };
        decisions.push(Decision::End(end, view.task.reason.clone()));
    }
    decisions
}

fn state(view: View<'_>, job: &JobId) -> Option<JobState> {
    view.jobs.get(job).map(|r| r.state)
}

fn gone(state: Option<JobState>) -> bool {
    matches!(state, None | Some(JobState::Undone))
}

fn failure(record: &JobRecord) -> Reason {
    record.error.clone().unwrap_or_else(|| {
        Reason::new(
            "job.failed",
            format!("the job {} failed without a reason", record.spec.id),
        )
    })
}

/// Doubling back-off from the job's own policy, at most a minute.
fn after_backoff(now: Timestamp, job: &JobSpec, attempt: u32) -> Timestamp {
    let factor = 1_u64 << attempt.saturating_sub(1).min(16);
    let wait =
        Duration::from_millis(job.retry.backoff_ms.saturating_mul(factor)).min(Duration::from_secs(60));
    jiff::SignedDuration::try_from(wait)
        .ok()
        .and_then(|w| now.checked_add(w).ok())
        .unwrap_or(now)
}
