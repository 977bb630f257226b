//! A bound on calls at once, and on those that wait.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    Capability, DynBackend, Error, ErrorKind, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases,
    ListOptions, Outcome, Page, Prefix, Renewal, Result, Store, Txn, Watch, WatchEvent, WatchOptions,
};

/// Settings of [`Limit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitConfig {
    /// Most reads and commits at once.
    pub calls: usize,
    /// Most that wait for their turn.
    pub waiting: usize,
}

impl Default for LimitConfig {
    fn default() -> Self {
        Self {
            calls: 256,
            waiting: 512,
        }
    }
}

impl LimitConfig {
    /// With at most `calls` at once.
    #[must_use]
    pub fn with_calls(mut self, calls: usize) -> Self {
        self.calls = calls;
        self
    }
    /// With at most `waiting` waiting.
    #[must_use]
    pub fn with_waiting(mut self, waiting: usize) -> Self {
        self.waiting = waiting;
        self
    }
}

/// Lets a bounded number of reads and commits through at once. A bounded number waits, in order; the others are
/// [`ErrorKind::Overloaded`] at once. Leases and watches pass: a renewal must never stand in a queue behind bulk reads.
pub struct Limit {
    inner: DynBackend,
    config: LimitConfig,
    turns: Semaphore,
    waiting: AtomicUsize,
}

/// One that waits; leaves the queue also when its call is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Limit {
    /// Limits over `inner`.
    #[must_use]
    pub fn new(inner: DynBackend, config: LimitConfig) -> Self {
        let turns = Semaphore::new(config.calls.clamp(1, Semaphore::MAX_PERMITS));
        Self {
            inner,
            config,
            turns,
            waiting: AtomicUsize::new(0),
        }
    }

    fn label(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "limit({} calls, {} waiting)",
            self.config.calls, self.config.waiting
        )
    }

    async fn turn(&self, operation: &'static str) -> Result<SemaphorePermit<'_>> {
        if let Ok(turn) = self.turns.try_acquire() {
            return Ok(turn);
        }
        let before = self.waiting.fetch_add(1, Ordering::AcqRel);
        let _place = Waiting(&self.waiting);
        if before >= self.config.waiting {
            return Err(Error::new(ErrorKind::Overloaded, operation)
                .with("calls", self.config.calls)
                .with("waiting", self.config.waiting));
        }
        self.turns
            .acquire()
            .await
            .map_err(|closed| Error::new(ErrorKind::Internal, operation).because(closed))
    }
}

super::show_layer!(Limit);

#[async_trait]
impl Store for Limit {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        let _turn = self.turn("get").await?;
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        let _turn = self.turn("list").await?;
        self.inner.list(prefix, options).await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        let _turn = self.turn("commit").await?;
        self.inner.commit(txn).await
    }
    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

impl Watch for Limit {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        self.inner.watch(prefix, options)
    }
}

#[async_trait]
impl Leases for Limit {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        self.inner.grant(name, holder, ttl, mode).await
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.inner.renew(name, epoch, ttl).await
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.inner.revoke(name, epoch).await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.inner.leases(prefix).await
    }
}
