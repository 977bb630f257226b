//! What goes on beside the calls.

use std::collections::BTreeSet;
use std::time::Duration;

use skyloom_model::report;
use skyloom_store::Txn;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Identity, Inner};
use crate::audit::{AuditWriter, Sealer};
use crate::change::MAX_USES;
use crate::{ChangeResult, DirectoryDriver, Doomed, Edit};

/// Seconds between two notes of the use of one API token.
pub(super) const USE_EVERY: i64 = 300;
/// Records that one look deletes in one commit.
const BATCH: usize = 64;
/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// The driving half of an [`Identity`]: nothing moves until [`IdentityDriver::run`] is awaited.
#[derive(Debug)]
#[must_use = "an identity knows nobody until its driver runs"]
pub struct IdentityDriver {
    identity: Identity,
    directory: DirectoryDriver,
    audit: Option<(AuditWriter, Sealer)>,
}

impl IdentityDriver {
    pub(super) fn new(
        identity: Identity,
        directory: DirectoryDriver,
        audit: Option<(AuditWriter, Sealer)>,
    ) -> Self {
        Self {
            identity,
            directory,
            audit,
        }
    }

    /// Feeds the identity until `shutdown`: the directory, the signing keys, the audit (where it is its own), removals in which somebody stopped,
    /// what has ended, and when API tokens were used.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self {
            identity,
            directory,
            audit,
        } = self;
        let inner = &*identity.0;
        let audit = async {
            if let Some((writer, sealer)) = audit {
                tokio::join!(writer.run(shutdown.clone()), sealer.run(shutdown.clone()));
            }
        };
        tokio::join!(
            directory.run(shutdown.clone()),
            audit,
            shutdown.run_until_cancelled(inner.follow_keys()),
            shutdown.run_until_cancelled(inner.tidy()),
        );
    }
}

impl Inner {
    /// Takes over signing keys as they come and go.
    async fn follow_keys(&self) {
        let mut moved = self.directory.moved();
        loop {
            match self.take_keys().await {
                Ok(()) => {
                    if moved.changed().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(
                        error = report(&error),
                        "the signing keys cannot be used; trying again"
                    );
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn tidy(&self) {
        if self.directory.ready().await.is_err() {
            return;
        }
        let mut ticks = tokio::time::interval(Duration::from_secs(self.config.tidy_seconds.max(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut left = BTreeSet::new();
        loop {
            ticks.tick().await;
            // A cloud cannot do without a key: this alone is tried again at once.
            while let Err(error) = self.rotate_keys().await {
                tracing::warn!(
                    error = report(&error),
                    "the signing keys cannot be written; trying again"
                );
                tokio::time::sleep(PAUSE).await;
            }
            if let Err(error) = self.tidy_once(&mut left).await {
                tracing::warn!(
                    error = report(&error),
                    "identity cannot be tidied up; trying again later"
                );
            }
        }
    }

    /// `left` is what was unfinished at the last look: what still is then has been given up by whoever began it.
    async fn tidy_once(&self, left: &mut BTreeSet<Doomed>) -> ChangeResult<()> {
        self.write_uses().await?;
        while self.editor.change(|edit| Ok(edit.prune_revoked(BATCH))).await? == BATCH {}
        while self.editor.change(|edit| Ok(edit.prune_tokens(BATCH))).await? == BATCH {}
        let unfinished: BTreeSet<Doomed> = {
            let at = self.directory.snapshot();
            let edit = Edit::new(&at, &*self.ids, self.clock.now());
            edit.unfinished().into_iter().collect()
        };
        for doomed in unfinished.intersection(left) {
            match self.editor.remove(*doomed, Txn::new()).await {
                Ok(()) | Err(crate::ChangeError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        *left = unfinished;
        Ok(())
    }

    /// Writes when API tokens were used, so many in a commit.
    async fn write_uses(&self) -> ChangeResult<()> {
        let uses: Vec<_> = std::mem::take(&mut *self.uses.lock()).into_iter().collect();
        for some in uses.chunks(MAX_USES) {
            self.editor.change(|edit| edit.note_uses(some)).await?;
        }
        Ok(())
    }
}
