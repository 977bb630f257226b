//! How far a job is: the record through which engine and worker talk.

use serde::{Deserialize, Serialize};

use crate::{FORMAT, JobId, JobSpec, Plan, Reason, Scope, Subject, Task, TaskId, Timestamp};

/// A job on its way. Written by the engine (`want`, `attempt`) and by its worker (`state`, `output`, `error`), never by
/// both at once: each write compares the revision that it read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobRecord {
    /// Version of this record's format.
    pub format: u16,
    /// Whose job it is.
    pub task: TaskId,
    /// Whose task it is.
    pub scope: Scope,
    /// What the task changes: jobs of one subject never run at the same time on a host.
    pub subject: Subject,
    /// The subject's generation under which it was planned.
    pub generation: u64,
    /// The request that asked for it all.
    pub request_id: String,
    /// What to do.
    pub spec: JobSpec,
    /// Which way.
    pub want: JobWant,
    /// Counts the tries, from 1. A result of an older attempt is refused.
    pub attempt: u32,
    /// Not to be started before this moment (back-off).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Where it stands.
    pub state: JobState,
    /// Who started it. Another worker of the same place goes on with it only when this one's lease is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerMark>,
    /// What it gave; later jobs of the task may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<serde_json::Value>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Reason>,
    /// When this attempt was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When this attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

impl JobRecord {
    /// The job's record when it is first made; nothing when `plan` has no such job.
    #[must_use]
    pub fn first(task: &Task, plan: &Plan, id: &JobId, state: JobState) -> Option<Self> {
        Some(Self {
            format: FORMAT,
            task: task.id,
            scope: task.scope,
            subject: task.subject.clone(),
            generation: plan.generation(id),
            request_id: task.request_id.clone(),
            spec: plan.job(id)?.clone(),
            want: JobWant::Run,
            attempt: 1,
            not_before: None,
            state,
            worker: None,
            output: None,
            error: None,
            started_at: None,
            ended_at: None,
        })
    }
}

/// How far a job is, without what its task and plan say of it: what is kept under `steps/` and in a [`crate::Run`], where
/// whoever reads it has the plan. It is read from a whole [`JobRecord`] too, which stood there in format 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "StepText")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StepRecord {
    /// Which job of the plan.
    pub id: JobId,
    /// Which way.
    #[serde(skip_serializing_if = "JobWant::is_run")]
    pub want: JobWant,
    /// Counts the tries, from 1.
    #[serde(skip_serializing_if = "is_first")]
    pub attempt: u32,
    /// Not to be started before this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Where it stands.
    pub state: JobState,
    /// Who started it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerMark>,
    /// What it gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<serde_json::Value>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Reason>,
    /// When this attempt was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When this attempt ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

impl StepRecord {
    /// What of `record` is not said elsewhere.
    #[must_use]
    pub fn of(record: &JobRecord) -> Self {
        Self {
            id: record.spec.id.clone(),
            want: record.want,
            attempt: record.attempt,
            not_before: record.not_before,
            state: record.state,
            worker: record.worker.clone(),
            output: record.output.clone(),
            error: record.error.clone(),
            started_at: record.started_at,
            ended_at: record.ended_at,
        }
    }

    /// The whole record, with what `task` and `plan` say; nothing when `plan` has no such job.
    #[must_use]
    pub fn whole(self, task: &Task, plan: &Plan) -> Option<JobRecord> {
        let first = JobRecord::first(task, plan, &self.id, self.state)?;
        Some(JobRecord {
            want: self.want,
            attempt: self.attempt,
            not_before: self.not_before,
            worker: self.worker,
            output: self.output,
            error: self.error,
            started_at: self.started_at,
            ended_at: self.ended_at,
            ..first
        })
    }
}

/// A [`StepRecord`] or [`JobRecord`] as it is written.
#[derive(Deserialize)]
struct StepText {
    id: Option<JobId>,
    spec: Option<Named>,
    #[serde(default = "run")]
    want: JobWant,
    #[serde(default = "first")]
    attempt: u32,
    not_before: Option<Timestamp>,
    state: JobState,
    worker: Option<WorkerMark>,
    output: Option<serde_json::Value>,
    error: Option<Reason>,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Named {
    id: JobId,
}

impl TryFrom<StepText> for StepRecord {
    type Error = &'static str;

    fn try_from(text: StepText) -> Result<Self, Self::Error> {
        let id = text
            .id
            .or(text.spec.map(|spec| spec.id))
            .ok_or("a step without an id")?;
        Ok(Self {
            id,
            want: text.want,
            attempt: text.attempt,
            not_before: text.not_before,
            state: text.state,
            worker: text.worker,
            output: text.output,
            error: text.error,
            started_at: text.started_at,
            ended_at: text.ended_at,
        })
    }
}

const fn run() -> JobWant {
    JobWant::Run
}

const fn first() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands in references")]
const fn is_first(attempt: &u32) -> bool {
    *attempt == 1
}

/// Who works on a job: the name and epoch of the lease that it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerMark {
    /// Name of the lease.
    pub lease: String,
    /// Its epoch when the job was started.
    pub epoch: u64,
}

/// Which way a job is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum JobWant {
    /// Make the effect.
    Run,
    /// Take it back, whether it happened or not.
    Undo,
}

impl JobWant {
    /// Whether it is the way forward.
    #[must_use]
    pub const fn is_run(&self) -> bool {
        matches!(self, Self::Run)
    }
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum JobState {
    /// Its worker may start it.
    Ready,
    /// Its worker has started it: the effect may have happened.
    Started,
    /// The effect is there and was seen.
    Succeeded,
    /// It failed; the effect may be half there.
    Failed,
    /// Its worker may start the undo.
    UndoReady,
    /// Its worker has started the undo.
    UndoStarted,
    /// The effect is gone, or never was.
    Undone,
    /// The undo failed.
    UndoFailed,
}

impl JobState {
    /// All values.
    pub const ALL: [Self; 8] = [
        Self::Ready,
        Self::Started,
        Self::Succeeded,
        Self::Failed,
        Self::UndoReady,
        Self::UndoStarted,
        Self::Undone,
        Self::UndoFailed,
    ];

    /// Whether the worker has something to do.
    #[must_use]
    pub const fn for_worker(self) -> bool {
        match self {
            Self::Ready | Self::Started | Self::UndoReady | Self::UndoStarted => true,
            Self::Succeeded | Self::Failed | Self::Undone | Self::UndoFailed => false,
        }
    }

    /// Whether a job may go from `self` to `to` in one commit.
    #[must_use]
    pub const fn may_become(self, to: Self) -> bool {
        match (self, to) {
            (Self::Ready, Self::Started) => true,
            // The engine takes back what nobody has started.
            (Self::Ready, Self::Undone) => true,
            (Self::Started, Self::Succeeded | Self::Failed) => true,
            // A retry, or the way back.
            (Self::Failed, Self::Ready | Self::UndoReady) => true,
            // What waits for another try was started before.
            (Self::Ready, Self::UndoReady) => true,
            (Self::Succeeded, Self::UndoReady) => true,
            (Self::UndoReady, Self::UndoStarted) => true,
            (Self::UndoStarted, Self::Undone | Self::UndoFailed) => true,
            (Self::UndoFailed, Self::UndoReady) => true,
            // An operator says so.
            (Self::UndoFailed, Self::Undone) => true,
            _ => false,
        }
    }

    /// Whether a job of the engine may go from `self` (nothing: no record yet) to `to` in one commit. They pass `started`
    /// and `undo_started` without a record of it.
    #[must_use]
    pub const fn may_become_here(from: Option<Self>, to: Self) -> bool {
        let begun = match from {
            None => {
                return matches!(
                    to,
                    Self::Ready
                        | Self::Succeeded
                        | Self::Failed
                        | Self::Undone
                        | Self::UndoReady
                        | Self::UndoFailed
                );
            }
            Some(from) => from,
        };
        if begun.may_become(to) {
            return true;
        }
        match (begun, to) {
            (Self::Ready, Self::Succeeded | Self::Failed) => true,
            (
                Self::Ready | Self::Started | Self::Succeeded | Self::Failed | Self::UndoReady,
                Self::Undone | Self::UndoFailed | Self::UndoReady,
            ) => true,
            // A retry and its result in one commit.
            (Self::Failed, Self::Succeeded) => true,
            (Self::UndoFailed, Self::Undone) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::JobState;

    #[test]
    fn undone_is_the_only_dead_end() {
        for from in JobState::ALL {
            let stays = JobState::ALL.iter().all(|to| !from.may_become(*to));
            assert_eq!(stays, from == JobState::Undone, "{from:?}");
        }
    }

    #[test]
    fn a_started_job_is_never_forgotten() {
        // From `started` no path leads to `undone` without passing the worker's undo.
        assert!(!JobState::Started.may_become(JobState::Undone));
        assert!(!JobState::Succeeded.may_become(JobState::Undone));
        assert!(!JobState::Failed.may_become(JobState::Undone));
    }
}
