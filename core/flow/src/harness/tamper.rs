//! Jobs that meet their fate.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::script::{Fate, How, Script, When};
use crate::{Job, JobContext, JobError, JobRegistry, Undo};

/// All jobs of `registry`, each under the script's hand.
pub(super) fn tamper(registry: &JobRegistry, script: &Arc<Script>) -> JobRegistry {
    registry
        .kinds()
        .filter_map(|kind| registry.get(kind))
        .fold(JobRegistry::new(), |all, job| {
            all.with(Tampered {
                job: job.clone(),
                script: script.clone(),
            })
        })
}

#[derive(Debug)]
struct Tampered {
    job: Arc<dyn Job>,
    script: Arc<Script>,
}

impl Tampered {
    /// Does it as often as it is to be done; `once` runs or undoes the real job.
    async fn meet<T, F: Future<Output = Result<T, JobError>>>(
        &self,
        cx: &JobContext<'_>,
        once: impl Fn() -> F,
    ) -> Result<T, JobError> {
        let injected = |how| match how {
            How::ForGood => JobError::permanent("harness.broken", "broken, as told"),
            How::EachTime => JobError::transient("harness.busy", "busy, as told"),
        };
        match self.script.fate(cx.record) {
            Fate::Once => once().await,
            Fate::Twice => {
                once().await?;
                once().await
            }
            Fate::Fail(When::Before, how) => Err(injected(how)),
            Fate::Fail(When::After, how) => {
                once().await?;
                Err(injected(how))
            }
        }
    }
}

#[async_trait]
impl Job for Tampered {
    fn kind(&self) -> &'static str {
        self.job.kind()
    }
    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        self.meet(cx, || self.job.run(cx)).await
    }
    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        self.meet(cx, || self.job.undo(cx)).await
    }
}
