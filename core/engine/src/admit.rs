//! Lets the engine's lease through once it is known what the store says of itself.
//!
//! ```text
//!  LeaseKeeper ── fence ──> Standing ──> fence ──> queue, observers
//!        ├ a copy that has not ended: nothing is done, readiness says why
//!        └ another history than before: this life ends, the next one begins with empty caches
//! ```

use std::time::Duration;

use skyloom_flow::{Fence, Standing, Witness};
use skyloom_model::{Phase, Readiness};
use skyloom_store::{DynBackend, Result, latest};
use tokio_util::sync::CancellationToken;

/// Wait before the store is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Stands between the keeper of the lease and those who act under it.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) backend: DynBackend,
    pub(crate) granted: latest::Receiver<Option<Fence>>,
    pub(crate) admitted: latest::Sender<Option<Fence>>,
    pub(crate) readiness: Readiness,
    pub(crate) witness: Witness,
    /// Makes the keeper give the lease back: the next life need not wait for its end then.
    pub(crate) give_back: CancellationToken,
    /// Ends this life of the engine, for another one.
    pub(crate) again: CancellationToken,
}

impl Admission {
    /// Works until the keeper ends.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut known: Option<Fence> = None;
        loop {
            let fence = self.granted.borrow_and_update().clone();
            if fence.is_some() && fence != known {
                match self.another().await {
                    Ok(false) => known.clone_from(&fence),
                    Ok(true) => {
                        tracing::warn!("the store has begun another history: everything is read anew");
                        self.give_back.cancel();
                        while self.granted.changed().await.is_ok() {}
                        self.again.cancel();
                        return;
                    }
                    Err(error) => {
                        let error = skyloom_model::report(&error);
                        tracing::error!(error, "this engine does nothing");
                        self.readiness.pending("engine", Phase::Health, error);
                        self.admitted.send_replace(None);
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

    /// Whether the store tells another history than this life has begun with.
    async fn another(&self) -> Result<bool> {
        let standing = Standing::read(&*self.backend).await?;
        standing.whole()?;
        Ok(self.witness.another(standing.incarnation()))
    }
}
