//! Answers that nobody will ask for again.

use skyloom_store::{ListOptions, Versioned};

use super::Cloud;
use super::once::Remembered;
use super::records::prefix;
use crate::Result;

impl Cloud {
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
