//! Entries on their way into the store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use skyloom_model::{Clock, Ids};
use skyloom_store::{DynBackend, Error, ErrorKind, Outcome, Result, Txn};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::entry::Entry;
use super::flood::Floods;

/// Where it is written what happened. [`StoreAudit`] does; a product may write it elsewhere too.
#[async_trait]
pub trait AuditSink: Send + Sync + std::fmt::Debug + 'static {
    /// The part of a commit that writes `entry` together with what it tells of.
    ///
    /// # Errors
    /// Those of encoding.
    fn part(&self, entry: &Entry) -> Result<Txn>;

    /// Writes an entry of what made no commit, such as a denied login. When it answers, the entry is written or counted;
    /// a call that is given up loses nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when nobody writes any more: the process ends.
    async fn record(&self, entry: Entry) -> Result<Recorded>;
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is in the store.
    Written,
    /// It is one of many and will be in the store as a part of their number, within seconds.
    Counted,
}

/// Entries that wait to be written. Beyond it they are counted by source.
const QUEUE: usize = 1024;
/// Entries in one commit.
const BATCH: usize = 32;
/// How often counts are looked at, and the first pause after a failure; that doubles up to the longest.
const TICK: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// Tries to write the rest when the process ends.
const LAST_TRIES: u32 = 5;

#[derive(Debug)]
struct Waiting {
    entry: Entry,
    written: Option<oneshot::Sender<()>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    floods: Floods,
    closed: bool,
}

#[derive(Debug)]
struct Inner {
    backend: DynBackend,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    queue: Mutex<Queue>,
    wake: Notify,
}

/// The audit in the store, at `audit/{day}/{entry}`. Cheap to clone.
///
/// **Under load.** Of the same action and outcome from one source (IPv6: one /64) 16 in ten seconds are written one by one; more of them are
/// counted and written as one entry. When the store is slow or away, up to 1,024 entries wait in memory and their
/// callers with them; what comes then is counted at once. So nothing is dropped, memory is bounded, and a flood costs the store
/// next to nothing. What waits is lost if the process is killed; its callers have not been answered then, but for those counted.
#[derive(Debug, Clone)]
pub struct StoreAudit(Arc<Inner>);

/// The half of a [`StoreAudit`] that writes. It must be run.
#[derive(Debug)]
pub struct AuditWriter(Arc<Inner>);

impl StoreAudit {
    /// The audit in `backend`, and the half to run.
    #[must_use]
    pub fn new(backend: DynBackend, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> (Self, AuditWriter) {
        let inner = Arc::new(Inner {
            backend,
            clock,
            ids,
            queue: Mutex::default(),
            wake: Notify::new(),
        });
        (Self(inner.clone()), AuditWriter(inner))
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Unavailable, "write to the audit").with("cause", "the process ends")
}

#[async_trait]
impl AuditSink for StoreAudit {
    fn part(&self, entry: &Entry) -> Result<Txn> {
        entry.create()
    }

    async fn record(&self, entry: Entry) -> Result<Recorded> {
        let written = {
            let mut queue = self.0.queue.lock();
            if queue.closed {
                return Err(ended());
            }
            let full = queue.waiting.len() >= QUEUE;
            let Some(entry) = queue.floods.admit(self.0.clock.monotonic(), entry, full) else {
                return Ok(Recorded::Counted);
            };
            let (sender, written) = oneshot::channel();
            queue.waiting.push_back(Waiting {
                entry,
                written: Some(sender),
            });
            written
        };
        self.0.wake.notify_one();
        written.await.map(|()| Recorded::Written).map_err(|_| ended())
    }
}

impl AuditWriter {
    /// Writes until `shutdown`, then the rest.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut failures = 0_u32;
        loop {
            let pause = TICK.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                // What comes while the store is away waits with the rest.
                () = self.0.wake.notified(), if failures == 0 => {}
                () = tokio::time::sleep(pause) => {}
            }
            let written = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                written = self.flush(false) => written,
            };
            match written {
                Ok(()) => failures = 0,
                Err(error) => {
                    tracing::warn!(error = %skyloom_model::report(&error), "the audit cannot be written; it waits");
                    failures = failures.saturating_add(1);
                }
            }
        }
        self.0.queue.lock().closed = true;
        for _ in 0..LAST_TRIES {
            match self.flush(true).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(error = %skyloom_model::report(&error), "the rest of the audit cannot be written");
                    tokio::time::sleep(TICK).await;
                }
            }
        }
        let lost = std::mem::take(&mut self.0.queue.lock().waiting);
        for waiting in lost {
            let entry = serde_json::to_string(&waiting.entry).unwrap_or_default();
            tracing::error!(
                entry,
                "an entry of the audit is here alone: the store did not take it"
            );
        }
    }

    /// Writes all that waits, and the counts that are due.
    async fn flush(&self, all: bool) -> Result<()> {
        {
            let mut queue = self.0.queue.lock();
            let due = queue.floods.due(self.0.clock.monotonic(), all, &*self.0.ids);
            queue
                .waiting
                .extend(due.into_iter().map(|entry| Waiting { entry, written: None }));
        }
        loop {
            let mut txn = Txn::new();
            // A batch stays in the queue until it is written: only this takes from the front.
            for waiting in self.0.queue.lock().waiting.iter().take(BATCH) {
                txn = txn.and(waiting.entry.create()?);
            }
            let count = txn.writes.len();
            if count == 0 {
                return Ok(());
            }
            let written = match self.0.backend.commit(txn).await? {
                Outcome::Committed { .. } => 0..count,
                // One with this id is there: it was written by a commit whose answer was lost.
                Outcome::Conflict { guard, .. } => guard..guard + 1,
            };
            let mut queue = self.0.queue.lock();
            for waiting in queue.waiting.drain(written) {
                if let Some(written) = waiting.written {
                    // Who gave up waiting has its entry all the same.
                    let _gone = written.send(());
                }
            }
        }
    }
}
