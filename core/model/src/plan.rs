//! A plan: the immutable DAG of jobs made for a task, with every choice already taken.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{HostId, Reason, TaskId, Timestamp};

/// The jobs of one task. What is committed is never changed, but for a stage's outcome; stages may be appended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Plan {
    /// Version of this record's format.
    pub format: u16,
    /// Whose plan it is.
    pub task: TaskId,
    /// The jobs of all stages; each comes after all that it names in `after`.
    pub jobs: Vec<JobSpec>,
    /// Why the host was chosen and the others were not, where a host was chosen: of the latest stage that chose one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<serde_json::Value>,
    /// When it was made.
    pub made_at: Timestamp,
    /// Its stages in order. A plan of format 1 has none: all of its jobs are one stage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
}

/// The name of a flow's only stage.
pub const MAIN_STAGE: &str = "main";

/// Jobs that were planned at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Stage {
    /// Its name in the flow, such as `main` or `publish`. A name may come again.
    pub name: String,
    /// Its jobs.
    pub jobs: Vec<JobId>,
    /// The subject's generation under which its host jobs work.
    pub generation: u64,
    /// When it was planned.
    pub made_at: Timestamp,
    /// What became of it; nothing while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<StageOutcome>,
}

/// What became of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum StageOutcome {
    /// All of its jobs succeeded.
    Done,
    /// One failed, and all that were started are undone.
    Undone(Reason),
}

impl Plan {
    /// The stage under way or ended last. Nothing for a plan of format 1.
    #[must_use]
    pub fn last_stage(&self) -> Option<&Stage> {
        self.stages.last()
    }

    /// The job of that name.
    #[must_use]
    pub fn job(&self, id: &JobId) -> Option<&JobSpec> {
        self.jobs.iter().find(|j| j.id == *id)
    }

    /// The generation under which that job works: its stage's.
    #[must_use]
    pub fn generation(&self, id: &JobId) -> u64 {
        let stage = self.stages.iter().rev().find(|s| s.jobs.contains(id));
        stage.map_or(0, |s| s.generation)
    }
}

/// A job's name inside its plan, such as `disk.root`. Letters, digits, `.`, `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, example = "disk.root"))]
pub struct JobId(String);

impl JobId {
    /// Wraps a name; flows write these as literals.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Place {
    /// In the engine that owns the task.
    Engine,
    /// In the agent of this host.
    Host(HostId),
}

/// One external effect, made by one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobSpec {
    /// Its name in the plan.
    pub id: JobId,
    /// The code that does it, by name, such as `vm.start`.
    pub kind: String,
    /// What it is for people, such as `start the virtual machine`.
    pub title: String,
    /// What that code needs. Never secrets.
    pub input: serde_json::Value,
    /// Jobs that must have succeeded before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<JobId>,
    /// Where it runs.
    pub place: Place,
    /// How often it is tried.
    #[serde(default, skip_serializing_if = "RetryPolicy::is_usual")]
    pub retry: RetryPolicy,
    /// Its share of the progress.
    pub weight: u32,
    /// How long one try may take in milliseconds; then it counts as failed for a passing reason. `None`: as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// How often a job is tried when it fails for a passing reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetryPolicy {
    /// Tries in all.
    pub max_attempts: u32,
    /// Longest wait before the second try in milliseconds; doubles each time up to 60 s. The wait itself is drawn from zero
    /// to that (full jitter).
    pub backoff_ms: u64,
}

impl RetryPolicy {
    /// Whether it is the one that jobs have which name none.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for RetryPolicy {
    /// Three tries, the second within half a second.
    fn default() -> Self {
        Self {
            max_attempts: 3,
            backoff_ms: 500,
        }
    }
}
