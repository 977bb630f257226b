//! How old a directory is.

use std::time::Duration;

use skyloom_model::report;
use skyloom_store::{Error, ErrorKind, Key, Outcome, Result, Txn, Value};

use super::{Directory, QUIET, Shared};
use crate::paths;

/// How long a pulse may take before the next is tried.
const BEAT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait after a pulse that failed.
const BEAT_PAUSE: Duration = Duration::from_millis(250);

impl Directory {
    /// How long ago the directory certainly had all that was in the store. `None`: never yet.
    ///
    /// After a second of silence the question itself makes the directory ask the store, so the answer to the next one is young when all is well.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let heard = *self.0.heard.lock();
        let age = heard.map(|heard| self.0.clock.monotonic().saturating_sub(heard));
        if age.is_none_or(|age| age >= QUIET) {
            self.0.ask.notify_one();
        }
        age
    }

    /// Whether the directory is at most `most` old; when it is older, it asks the store and waits for the answer, at most for `patience`.
    pub async fn is_fresh(&self, most: Duration, patience: Duration) -> bool {
        let fresh = || self.age().is_some_and(|age| age <= most);
        let wait = async {
            loop {
                let heard = self.0.heard_again.notified();
                tokio::pin!(heard);
                // From here on it hears, so that nothing falls between the question and the wait.
                heard.as_mut().enable();
                if fresh() {
                    return;
                }
                heard.await;
            }
        };
        fresh() || tokio::time::timeout(patience, wait).await.is_ok()
    }
}

impl Shared {
    /// Asks the store for a sign of life whenever somebody wants to know.
    pub(super) async fn beat(&self) {
        loop {
            self.ask.notified().await;
            let begun = self.clock.monotonic();
            let beat = tokio::time::timeout(BEAT_TIMEOUT, self.pulse());
            match beat.await {
                Ok(Ok(())) => {
                    *self.heard.lock() = Some(begun);
                    self.heard_again.notify_waiters();
                }
                Ok(Err(error)) => {
                    tracing::warn!(
                        error = report(&error),
                        "the directory hears nothing from the store"
                    );
                    tokio::time::sleep(BEAT_PAUSE).await;
                }
                Err(_) => tracing::warn!("the directory hears nothing from the store"),
            }
        }
    }

    /// Writes, and waits until the own watch shows what was written. When somebody else was faster, theirs serves as well: it was written
    /// after this began.
    async fn pulse(&self) -> Result<()> {
        let key =
            Key::parse(paths::PULSE).map_err(|e| Error::new(ErrorKind::Invalid, "make key").because(e))?;
        let mirror = &self.mirrors[0];
        mirror.ready().await?;
        let value = Value::json(&self.clock.now())?;
        let txn = match mirror.get(&key) {
            Some(old) => Txn::new().replace(key, old.modified, value),
            None => Txn::new().create(key, value),
        };
        match self.backend.commit(txn).await? {
            Outcome::Committed { revision } => mirror.wait_for(revision).await,
            Outcome::Conflict {
                current: Some(revision),
                ..
            } => mirror.wait_for(revision).await,
            Outcome::Conflict { current: None, .. } => Err(Error::new(ErrorKind::Conflict, "write pulse")),
        }
    }
}
