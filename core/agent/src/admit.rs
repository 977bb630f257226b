//! Lets the host's lease through to those who act, once the store is known to be the one that the host obeys and the journal has
//! the lease's epoch.
//!
//! ```text
//!  LeaseKeeper ── fence ──> what does the store say of itself? ──> journal: obey, hold the epoch ──> fence ──> worker, reporter
//!        ├ another cloud, an older incarnation, a copy that has not ended, an epoch from before: nobody acts, readiness says why
//!        └ a newer incarnation: the journal has forgotten all it knew; this life ends, the next one lists and reports anew
//! ```

use std::sync::Arc;
use std::time::Duration;

use skyloom_flow::journal::{Journal, JournalError, JournalErrorKind};
use skyloom_flow::{Fence, Standing, Witness};
use skyloom_model::{Phase, Readiness};
use skyloom_store::{DynBackend, latest};
use tokio_util::sync::CancellationToken;

/// Wait before the journal or the store is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Stands between the keeper of the lease and those who act under it.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) backend: DynBackend,
    pub(crate) granted: latest::Receiver<Option<Fence>>,
    pub(crate) admitted: latest::Sender<Option<Fence>>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) readiness: Readiness,
    pub(crate) part: String,
    /// What this process has heard of the store.
    pub(crate) witness: Witness,
    /// Makes the keeper give the lease back.
    pub(crate) give_back: CancellationToken,
    /// Ends this life of the agent, for another one.
    pub(crate) again: CancellationToken,
}

/// What a lease leads to.
enum Leads {
    /// It can be acted under.
    On,
    /// The store tells another history than this life has begun with.
    Again,
    /// Not before somebody has done something about the store.
    Not(String),
    /// Never in this process: the lease is given back.
    Never(String),
}

impl Admission {
    /// Works until the keeper ends.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut known: Option<Fence> = None;
        loop {
            let fence = self.granted.borrow_and_update().clone();
            if let Some(fence) = fence.as_ref().filter(|f| known.as_ref() != Some(*f)) {
                let why = match self.look(fence).await {
                    Leads::On => {
                        known = Some(fence.clone());
                        None
                    }
                    Leads::Again => {
                        tracing::warn!(
                            "the store has begun another history: everything is read and reported anew"
                        );
                        self.again.cancel();
                        return;
                    }
                    Leads::Not(why) => Some((why, false)),
                    Leads::Never(why) => Some((why, true)),
                };
                if let Some((error, never)) = why {
                    tracing::error!(error, "this host does not act");
                    self.readiness.pending(&self.part, Phase::Health, error);
                    self.admitted.send_replace(None);
                    if never {
                        self.give_back.cancel();
                        shutdown.cancelled().await;
                        return;
                    }
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                    continue;
                }
            }
            self.admitted.send_replace(fence);
            if self.granted.changed().await.is_err() {
                return;
            }
        }
    }

    async fn look(&self, fence: &Fence) -> Leads {
        let standing = Standing::read(&*self.backend).await;
        let standing = match standing.and_then(|s| s.whole().map(|()| s)) {
            Ok(standing) => standing,
            Err(error) => return Leads::Not(skyloom_model::report(&error)),
        };
        match self.heard(&standing).await {
            Ok(true) => return Leads::Again,
            Ok(false) => {}
            Err(error) => return refused(&error),
        }
        match self.journal.hold(&fence.lease, fence.epoch).await {
            Ok(()) => Leads::On,
            Err(error) => refused(&error),
        }
    }

    /// Whether the store tells another history than this life has begun with.
    async fn heard(&self, standing: &Standing) -> Result<bool, JournalError> {
        let says = standing.incarnation();
        let followed = match (&says, self.journal.obeys()) {
            (Some(says), _) => self.journal.obey(says).await?,
            (None, None) => false,
            (None, Some(known)) => {
                return Err(JournalError::new(
                    JournalErrorKind::Foreign,
                    format!(
                        "the store names no cloud, but this host belongs to cloud {}; connect it to the store in use",
                        known.cluster
                    ),
                ));
            }
        };
        Ok(self.witness.another(says) || followed)
    }
}

fn refused(error: &JournalError) -> Leads {
    let why = skyloom_model::report(error);
    match error.kind() {
        JournalErrorKind::Behind | JournalErrorKind::Foreign => Leads::Never(why),
        _ => Leads::Not(why),
    }
}
