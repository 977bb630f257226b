//! Keeps a lease for the life of a process and tells everybody the epoch to write under.
//!
//! ```text
//!  grant ──> Fence { lease, epoch, deadline } ──watch channel──> workers, drivers: every commit carries fence.guard()
//!    ^            │ renew every ttl/3; the deadline counts from before each call and moves in all copies of the fence
//!    └── lost ────┘ (taken over, run out, or no answer by the deadline: the fence is withdrawn first)
//! ```
//!
//! The store compares the epoch inside each commit. Effects outside the store have no such compare: who makes one asks
//! [`Fence::may_act`] right before it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skyloom_model::Clock;
use skyloom_model::ablation::{Rule, kept};
use skyloom_store::{DynBackend, Grant, Guard, LeaseMode, LeaseName, Renewal, latest};
use tokio_util::sync::CancellationToken;

/// The part of a lease's time that its holder uses: three percent are for clocks that run at different speeds.
const SAFE: f64 = 0.97;

/// The proof of ownership that commits carry. Copies share the deadline and are equal; two grants never are: a store that was
/// put back grants the same epochs again.
#[derive(Debug, Clone)]
pub struct Fence {
    /// Which lease.
    pub lease: LeaseName,
    /// At which epoch.
    pub epoch: u64,
    deadline: Arc<Mutex<Duration>>,
}

impl PartialEq for Fence {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.deadline, &other.deadline)
    }
}

impl Eq for Fence {}

impl Fence {
    /// Proof of a lease that the holder may act under until `deadline` on its [`Clock::monotonic`].
    #[must_use]
    pub fn new(lease: LeaseName, epoch: u64, deadline: Duration) -> Self {
        Self {
            lease,
            epoch,
            deadline: Arc::new(Mutex::new(deadline)),
        }
    }

    /// The guard for a commit made under it.
    #[must_use]
    pub fn guard(&self) -> Guard {
        Guard::Lease(self.lease.clone(), self.epoch)
    }

    /// Whether an effect may be made now: the lease is the holder's for certain, by the holder's own clock.
    #[must_use]
    pub fn may_act(&self, clock: &dyn Clock) -> bool {
        !kept(Rule::DeadlineBeforeAct) || clock.monotonic() < *self.deadline.lock()
    }

    /// Moves the deadline, in all copies.
    pub fn extend(&self, deadline: Duration) {
        *self.deadline.lock() = deadline;
    }

    /// How long it can be acted under from `now`.
    fn left(&self, now: Duration) -> Duration {
        self.deadline.lock().saturating_sub(now)
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
    mode: LeaseMode,
    fence: latest::Sender<Option<Fence>>,
}

impl LeaseKeeper {
    /// A keeper of `name`, which must be the caller's own. Where a former life of the caller has not given it back, its end is
    /// waited for: that life may only be standing still, and act again.
    pub fn new(
        backend: DynBackend,
        clock: Arc<dyn Clock>,
        name: LeaseName,
        holder: impl Into<String>,
        ttl: Duration,
    ) -> (Self, latest::Receiver<Option<Fence>>) {
        let (fence, receiver) = latest::channel(None);
        (
            Self {
                backend,
                clock,
                name,
                holder: holder.into(),
                ttl,
                mode: LeaseMode::Acquire,
                fence,
            },
            receiver,
        )
    }

    /// The same for a caller who knows that no former life of it goes on, for it holds a lock that ends with the process: the
    /// lease is taken over at once.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.mode = LeaseMode::TakeOver;
        self
    }

    /// Keeps the lease until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let pause = (self.ttl / 3).max(Duration::from_millis(10));
        while !shutdown.is_cancelled() {
            let asked_at = self.clock.monotonic();
            match self
                .backend
                .grant(&self.name, &self.holder, self.ttl, self.mode)
                .await
            {
                Ok(Grant::Granted { epoch }) => {
                    tracing::info!(lease = %self.name, epoch, "lease granted");
                    let fence = Fence::new(self.name.clone(), epoch, self.deadline(asked_at));
                    self.fence.send_replace(Some(fence.clone()));
                    self.hold(&fence, pause, &shutdown).await;
                    fence.extend(Duration::ZERO);
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
                biased;
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pause.min(Duration::from_secs(1))) => {}
            }
        }
    }

    /// Until when the lease is held for certain after an answer to what was asked at `asked_at`: the store may have counted
    /// from any moment between.
    fn deadline(&self, asked_at: Duration) -> Duration {
        if kept(Rule::LeaseFromRequest) {
            asked_at + self.ttl.mul_f64(SAFE)
        } else {
            self.clock.monotonic() + self.ttl
        }
    }

    /// Renews until the lease is lost, cannot be renewed by its deadline, or shutdown.
    async fn hold(&self, fence: &Fence, pause: Duration, shutdown: &CancellationToken) {
        let epoch = fence.epoch;
        loop {
            let left = fence.left(self.clock.monotonic());
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause.min(left)) => {}
            }
            let asked_at = self.clock.monotonic();
            let left = fence.left(asked_at);
            if left.is_zero() {
                tracing::warn!(lease = %self.name, epoch, "lease not renewed in time");
                return;
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                answer = self.backend.renew(&self.name, epoch, self.ttl) => match answer {
                    Ok(Renewal::Held) => fence.extend(self.deadline(asked_at)),
                    Ok(Renewal::Lost) => {
                        tracing::warn!(lease = %self.name, epoch, "lease lost");
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(lease = %self.name, error = %skyloom_model::report(&error), "lease not renewed")
                    }
                },
                // No answer by the deadline: what is under the lease must not be touched any more.
                () = tokio::time::sleep(left) => {}
            }
        }
    }
}
