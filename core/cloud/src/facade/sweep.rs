//! Answers that nobody will ask for again.

use std::time::Duration;

use skyloom_store::{ListOptions, Versioned};
use tokio_util::sync::CancellationToken;

use super::Cloud;
use super::once::Remembered;
use super::records::prefix;
use crate::Result;

/// How long the answers to idempotency keys are kept.
const KEEP_ANSWERS: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);
/// How often it is looked for what can be forgotten.
const SWEEP: Duration = Duration::from_secs(3600);

impl Cloud {
    /// Forgets now and then what need not be kept, until `shutdown`. Any number of processes may do it.
    pub async fn keep_tidy(&self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(SWEEP) => {}
            }
            match self.forget_answers(KEEP_ANSWERS).await {
                Ok(forgotten) => tracing::debug!(forgotten, "old answers forgotten"),
                Err(error) => tracing::warn!(%error, "old answers are not forgotten yet"),
            }
        }
    }

    /// Forgets the answers to idempotency keys that were given more than `keep` ago, and says how many. A key that comes
    /// back later makes its request happen anew. Any number of processes may call it, now and then.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn forget_answers(&self, keep: jiff::SignedDuration) -> Result<usize> {
        let (below, now) = (prefix("idempotency")?, self.now());
        let (mut forgotten, mut options) = (0, ListOptions::default());
        loop {
            let page = self.parts.backend.list(&below, options).await?;
            for kv in &page.items {
                let answer = Versioned::<Remembered>::decode(kv)?;
                if now.duration_since(answer.value.at) > keep && self.commit(answer.delete()).await? {
                    forgotten += 1;
                }
            }
            match page.items.last().filter(|_| page.more) {
                Some(last) => options = ListOptions::default().with_after(last.key.clone()),
                None => return Ok(forgotten),
            }
        }
    }
}
