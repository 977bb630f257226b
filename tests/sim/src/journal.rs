//! An agent's journal under the checker's eyes: what it has kept may not be done again.

use std::sync::Arc;

use async_trait::async_trait;
use skyloom_flow::journal::{Effect, Entry, Intent, JobOutcome, Journal, JournalError, MemoryJournal};
use skyloom_model::Incarnation;
use skyloom_store::LeaseName;

use crate::bed::Bed;

/// See above.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) inner: MemoryJournal,
    pub(crate) bed: Arc<Bed>,
}

#[async_trait]
impl Journal for Kept {
    async fn intend(&self, intent: Intent) -> Result<(), JournalError> {
        self.inner.intend(intent).await
    }

    async fn outcome(&self, intent: &Intent, outcome: JobOutcome) -> Result<(), JournalError> {
        self.inner.outcome(intent, outcome).await?;
        self.bed.checker(|c| c.journaled(&intent.effect, intent.attempt));
        Ok(())
    }

    fn forget(&self, effect: &Effect) {
        self.inner.forget(effect);
    }

    fn known(&self, effect: &Effect) -> Option<Entry> {
        self.inner.known(effect)
    }

    fn effects(&self) -> Vec<Effect> {
        self.inner.effects()
    }

    async fn hold(&self, lease: &LeaseName, epoch: u64) -> Result<(), JournalError> {
        self.inner.hold(lease, epoch).await
    }

    async fn obey(&self, incarnation: &Incarnation) -> Result<bool, JournalError> {
        self.inner.obey(incarnation).await
    }

    fn obeys(&self) -> Option<Incarnation> {
        self.inner.obeys()
    }
}
