//! The two traits that a product implements to teach the cloud a new verb, and the registries that find them by name.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use skyloom_model::{Clock, JobId, JobRecord, Reason, Task};
use skyloom_store::Key;
use tokio_util::sync::CancellationToken;

use crate::{Fence, PlanContext, Planned, Records, Refusal, SettleContext, Settled, StageEnd};

/// Turns tasks of one name into plans. Pure and synchronous.
pub trait TaskFlow: Send + Sync + Debug + 'static {
    /// Its name, such as `server.create`.
    fn name(&self) -> &'static str;

    /// The records that [`TaskFlow::plan`], [`TaskFlow::next`] and [`TaskFlow::settle`] need, given those already read and
    /// what the jobs gave so far. Asked again until it names nothing new.
    fn reads(&self, task: &Task, have: &Records, outputs: &BTreeMap<JobId, Value>) -> Vec<Key>;

    /// Makes the plan with every choice taken, and the record changes that go with it in one commit.
    ///
    /// # Errors
    /// A [`Refusal`]: the task ends as failed (nothing was begun), or waits.
    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal>;

    /// What comes after a stage: asked when all of its jobs have succeeded, or when one failed and all that were started
    /// are undone. `None`: nothing, the task ends (done; or failed, with the stages before undone as well). Job names are
    /// unique over all stages. As it stands here: a flow of one stage.
    ///
    /// # Errors
    /// [`Refusal::Fail`]: the way back begins, or goes on, for that reason. [`Refusal::Wait`]: asked again later.
    fn next(
        &self,
        _task: &Task,
        _end: &StageEnd<'_>,
        _cx: &mut PlanContext<'_>,
    ) -> Result<Option<Planned>, Refusal> {
        Ok(None)
    }

    /// The record changes that go into the commit in which the task ends.
    ///
    /// # Errors
    /// Only for records that cannot be decoded: the task then becomes stuck.
    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason>;
}

/// Makes one kind of external effect, and takes it back.
#[async_trait]
pub trait Job: Send + Sync + Debug + 'static {
    /// Its name, such as `vm.start`.
    fn kind(&self) -> &'static str;

    /// Ensures the effect; what it returns is kept and can be read when the task settles. Never secrets.
    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError>;

    /// Ensures that the effect is gone, whether or not it ever happened.
    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError>;
}

/// What an undo found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undo {
    /// The effect is gone now.
    Undone,
    /// There can be nothing to undo, because …
    Moot(String),
}

/// Why a job did not succeed: a reason, and whether the same try may work later (`reason.retryable`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JobError(pub Reason);

impl JobError {
    /// The same try may work later.
    #[must_use]
    pub fn transient(code: &str, message: impl Into<String>) -> Self {
        Self(Reason::new(code, message).retryable())
    }
    /// Trying again is no use.
    #[must_use]
    pub fn permanent(code: &str, message: impl Into<String>) -> Self {
        Self(Reason::new(code, message))
    }
}

impl From<Reason> for JobError {
    fn from(reason: Reason) -> Self {
        Self(reason)
    }
}

impl From<skyloom_store::Error> for JobError {
    fn from(error: skyloom_store::Error) -> Self {
        // A job may be repeated at will, so an unknown outcome is a reason to try again too.
        let reason = Reason::new("store.failed", skyloom_model::report(&error));
        Self(if error.may_pass() {
            reason.retryable()
        } else {
            reason
        })
    }
}

/// What a running job knows.
#[derive(Debug)]
pub struct JobContext<'a> {
    /// Its record at the start of this attempt.
    pub record: &'a JobRecord,
    /// What earlier jobs of the task gave: for jobs of the engine. A host's jobs have what they need in their input.
    pub outputs: &'a BTreeMap<JobId, Value>,
    /// Ends when the worker is told to stop: leave at the next safe point, the job is continued later.
    pub shutdown: &'a CancellationToken,
    /// The lease that it runs under and the clock to measure it by; nothing where there is no lease, as in tests.
    pub lease: Option<(&'a Fence, &'a dyn Clock)>,
}

/// The code of [`JobContext::may_act`]'s refusal. A worker does not count it as a try.
pub(crate) const LEASE_LOST: &str = "lease.lost";

impl JobContext<'_> {
    /// To be asked right before an effect that follows an await: whether the host's lease still lasts.
    ///
    /// # Errors
    /// `lease.lost`: another may act on this host's part by now. The worker runs the job again under its next lease.
    pub fn may_act(&self) -> Result<(), JobError> {
        match self.lease {
            Some((fence, clock)) if !fence.may_act(clock) => Err(JobError::transient(
                LEASE_LOST,
                format!("lease {} has run out since the job began", fence.lease),
            )),
            _ => Ok(()),
        }
    }

    /// The job's input as a `T`.
    ///
    /// # Errors
    /// A permanent error: the plan was made by code that does not match.
    pub fn input<T: DeserializeOwned>(&self) -> Result<T, JobError> {
        serde_json::from_value(self.record.spec.input.clone()).map_err(|e| {
            JobError::permanent(
                "job.bad_input",
                format!("job {} cannot read its input: {e}", self.record.spec.kind),
            )
        })
    }

    /// An output as JSON.
    ///
    /// # Errors
    /// A permanent error when serde refuses it.
    pub fn output<T: Serialize>(&self, output: &T) -> Result<Value, JobError> {
        serde_json::to_value(output)
            .map_err(|e| JobError::permanent("job.bad_output", format!("job {}: {e}", self.record.spec.kind)))
    }
}

/// Flows by name.
#[derive(Debug, Clone, Default)]
pub struct FlowRegistry(BTreeMap<&'static str, Arc<dyn TaskFlow>>);

impl FlowRegistry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds a flow; a later one of the same name replaces the earlier.
    #[must_use]
    pub fn with(mut self, flow: impl TaskFlow) -> Self {
        self.0.insert(flow.name(), Arc::new(flow));
        self
    }
    /// The flow of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn TaskFlow>> {
        self.0.get(name)
    }
    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }
}

/// Jobs by kind.
#[derive(Debug, Clone, Default)]
pub struct JobRegistry(BTreeMap<&'static str, Arc<dyn Job>>);

impl JobRegistry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds a job; a later one of the same kind replaces the earlier.
    #[must_use]
    pub fn with(mut self, job: impl Job) -> Self {
        self.0.insert(job.kind(), Arc::new(job));
        self
    }
    /// The job of that kind.
    #[must_use]
    pub fn get(&self, kind: &str) -> Option<&Arc<dyn Job>> {
        self.0.get(kind)
    }
    /// All kinds.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use skyloom_store::{Class, Error, ErrorKind};

    use super::JobError;

    #[test]
    fn a_store_that_is_away_or_full_is_a_passing_reason_and_a_refusal_is_not() {
        let reason = |error: Error| JobError::from(error).0;
        for kind in [
            ErrorKind::Unavailable,
            ErrorKind::Timeout,
            ErrorKind::Unknown,
            ErrorKind::Full,
        ] {
            // A layer below has given up.
            let exhausted = Error::new(kind, "get").class_is(Class::Exhausted);
            assert!(reason(exhausted).retryable, "{kind:?}");
        }
        for kind in [ErrorKind::Denied, ErrorKind::Invalid, ErrorKind::TooLarge] {
            assert!(!reason(Error::new(kind, "get")).retryable, "{kind:?}");
        }
    }
}
