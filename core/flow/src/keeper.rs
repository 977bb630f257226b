//! Keeps a lease for the life of a process and tells everybody the epoch to write under.
//!
//! ```text
//!  grant ──> Fence { lease, epoch } ──watch channel──> workers, drivers: every commit carries fence.guard()
//!    ^            │ renew every ttl/3; own deadline counted from before each call
//!    └── lost ────┘ (taken over, run out, or no answer for a whole ttl: the fence is withdrawn first)
//! ```

use std::sync::Arc;
use std::time::Duration;

use skyloom_model::Clock;
use skyloom_store::{DynBackend, Grant, Guard, LeaseMode, LeaseName, Renewal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The proof of ownership that commits carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Which lease.
    pub lease: LeaseName,
    /// At which epoch.
    pub epoch: u64,
}

impl Fence {
    /// The guard for a commit made under it.
    #[must_use]
    pub fn guard(&self) -> Guard {
        Guard::Lease(self.lease.clone(), self.epoch)
    }
}

/// Acquires and renews one lease until shutdown, then gives it back.
#[derive(Debug)]
pub struct LeaseKeeper {
    backend: DynBackend,
    clock: Arc<dyn Clock>,
    name: LeaseName,
    holder: String,
    ttl: Duration,
    fence: watch::Sender<Option<Fence>>,
}

impl LeaseKeeper {
    /// A keeper of `name`, which must be the caller's own: it is taken over from a former life at once.
    pub fn new(
        backend: DynBackend,
        clock: Arc<dyn Clock>,
        name: LeaseName,
        holder: impl Into<String>,
        ttl: Duration,
    ) -> (Self, watch::Receiver<Option<Fence>>) {
        let (fence, receiver) = watch::channel(None);
        (
            Self {
                backend,
                clock,
                name,
                holder: holder.into(),
                ttl,
                fence,
            },
            receiver,
        )
    }

    /// Keeps the lease until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let pause = (self.ttl / 3).max(Duration::from_millis(10));
        while !shutdown.is_cancelled() {
            match self
                .backend
                .grant(&self.name, &self.holder, self.ttl, LeaseMode::TakeOver)
                .await
            {
                Ok(Grant::Granted { epoch }) => {
                    tracing::info!(lease = %self.name, epoch, "lease granted");
                    self.fence.send_replace(Some(Fence {
                        lease: self.name.clone(),
                        epoch,
                    }));
                    self.hold(epoch, pause, &shutdown).await;
                    self.fence.send_replace(None);
                    if shutdown.is_cancelled() {
                        // Best effort: without it the lease runs out by itself.
                        if let Err(error) = self.backend.revoke(&self.name, epoch).await {
                            tracing::debug!(lease = %self.name, %error, "lease not revoked");
                        }
                        return;
                    }
                }
                Ok(Grant::Held(by)) => {
                    tracing::warn!(lease = %self.name, holder = by.holder, "lease held by another")
                }
                Err(error) => {
                    tracing::warn!(lease = %self.name, error = %skyloom_model::report(&error), "lease not granted")
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pause.min(Duration::from_secs(1))) => {}
            }
        }
    }

    /// Renews until the lease is lost, cannot be renewed in time, or shutdown.
    async fn hold(&self, epoch: u64, pause: Duration, shutdown: &CancellationToken) {
        // Three percent for clocks that run at different speeds.
        let safe = self.ttl.mul_f64(0.97);
        let mut held_until = self.clock.monotonic() + safe;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let asked_at = self.clock.monotonic();
            match self.backend.renew(&self.name, epoch, self.ttl).await {
                Ok(Renewal::Held) => held_until = asked_at + safe,
                Ok(Renewal::Lost) => {
                    tracing::warn!(lease = %self.name, epoch, "lease lost");
                    return;
                }
                Err(error) => {
                    tracing::warn!(lease = %self.name, error = %skyloom_model::report(&error), "lease not renewed")
                }
            }
            if self.clock.monotonic() >= held_until {
                tracing::warn!(lease = %self.name, epoch, "lease not renewed in time");
                return;
            }
        }
    }
}
