//! Lets the host's lease through to those who act once the journal has its epoch.
//!
//! ```text
//!  LeaseKeeper ── fence ──> journal: hold the epoch ──> fence ──> worker, reporter, answers
//!                               └ lower than one held before: nobody acts, the lease is given back, readiness says why
//! ```

use std::sync::Arc;
use std::time::Duration;

use skyloom_flow::Fence;
use skyloom_flow::journal::{Journal, JournalErrorKind};
use skyloom_model::{Phase, Readiness};
use skyloom_store::latest;
use tokio_util::sync::CancellationToken;

/// Wait before the journal is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Stands between the keeper of the lease and those who act under it.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) granted: latest::Receiver<Option<Fence>>,
    pub(crate) admitted: latest::Sender<Option<Fence>>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) readiness: Readiness,
    pub(crate) part: String,
    /// Makes the keeper give the lease back.
    pub(crate) give_back: CancellationToken,
}

impl Admission {
    /// Works until the keeper ends.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut known = None;
        loop {
            let fence = self.granted.borrow_and_update().clone();
            if let Some(fence) = fence.as_ref().filter(|f| known != Some(f.epoch)) {
                match self.journal.hold(&fence.lease, fence.epoch).await {
                    Ok(()) => known = Some(fence.epoch),
                    Err(error) => {
                        let behind = error.kind() == JournalErrorKind::Behind;
                        let error = skyloom_model::report(&error);
                        tracing::error!(error, "this host does not act");
                        self.readiness.pending(&self.part, Phase::Health, error);
                        self.admitted.send_replace(None);
                        if behind {
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
            }
            self.admitted.send_replace(fence);
            if self.granted.changed().await.is_err() {
                return;
            }
        }
    }
}
