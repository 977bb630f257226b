//! Trying again what certainly did not happen, and reads.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use skyloom_model::Ids;

use crate::backoff::Backoff;
use crate::{
    Capability, Class, DynBackend, Error, ErrorKind, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName,
    Leases, ListOptions, Outcome, Page, Prefix, Renewal, Result, Store, Txn, Watch, WatchEvent, WatchOptions,
};

/// Settings of [`Retry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryConfig {
    /// Tries in all; 1 is no retry.
    pub tries: u32,
    /// The bound of the first wait; it doubles with each try.
    pub first_wait: Duration,
    /// The bound of all waits.
    pub most_wait: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            tries: 4,
            first_wait: Duration::from_millis(50),
            most_wait: Duration::from_secs(2),
        }
    }
}

impl RetryConfig {
    /// With at most `tries` tries.
    #[must_use]
    pub fn with_tries(mut self, tries: u32) -> Self {
        self.tries = tries;
        self
    }
    /// With other bounds of the waits.
    #[must_use]
    pub fn with_waits(mut self, first: Duration, most: Duration) -> Self {
        self.first_wait = first;
        self.most_wait = most;
        self
    }
}

/// Repeats calls that failed with [`Class::Transient`], after a wait of random length (full jitter).
///
/// Reads, renewals and revocations are repeated after a timeout too; commits and grants only when they certainly did
/// not happen. A commit whose outcome is [`ErrorKind::Unknown`] is never repeated. What still fails in the end is marked
/// [`Class::Exhausted`], so that no layer above multiplies the tries. Watches pass through: their consumers resume.
pub struct Retry {
    inner: DynBackend,
    config: RetryConfig,
    backoff: Backoff,
}

/// What may be repeated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// The same call twice does the same as once.
    Always,
    /// Only when nothing happened.
    IfNothingHappened,
}

impl Retry {
    /// Retries over `inner`; the jitter comes from `ids`.
    #[must_use]
    pub fn new(inner: DynBackend, config: RetryConfig, ids: Arc<dyn Ids>) -> Self {
        let backoff = Backoff::new(config.first_wait, config.most_wait, Some(ids));
        Self {
            inner,
            config,
            backoff,
        }
    }

    fn label(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RetryConfig {
            tries,
            first_wait,
            most_wait,
        } = self.config;
        write!(f, "retry({tries} tries, {first_wait:?} to {most_wait:?})")
    }

    async fn run<T, F: Future<Output = Result<T>>>(
        &self,
        repeat: Repeat,
        mut call: impl FnMut() -> F,
    ) -> Result<T> {
        let mut tried = 0;
        loop {
            let error = match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            tried += 1;
            if !may_repeat(&error, repeat) {
                return Err(error);
            }
            if tried >= self.config.tries {
                return Err(error.with("tries", tried).class_is(Class::Exhausted));
            }
            tracing::debug!(error = %error, tried, "trying again");
            tokio::time::sleep(self.backoff.wait(tried - 1)).await;
        }
    }
}

fn may_repeat(error: &Error, repeat: Repeat) -> bool {
    let nothing_happened = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Overloaded);
    error.class() == Class::Transient
        && error.kind() != ErrorKind::Unknown
        && (repeat == Repeat::Always || nothing_happened)
}

super::show_layer!(Retry);

#[async_trait]
impl Store for Retry {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.run(Repeat::Always, || self.inner.get(key)).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.run(Repeat::Always, || self.inner.list(prefix, options.clone()))
            .await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.run(Repeat::IfNothingHappened, || self.inner.commit(txn.clone()))
            .await
    }
    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

impl Watch for Retry {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        self.inner.watch(prefix, options)
    }
}

#[async_trait]
impl Leases for Retry {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        self.run(Repeat::IfNothingHappened, || {
            self.inner.grant(name, holder, ttl, mode)
        })
        .await
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.run(Repeat::Always, || self.inner.renew(name, epoch, ttl))
            .await
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.run(Repeat::Always, || self.inner.revoke(name, epoch)).await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.run(Repeat::Always, || self.inner.leases(prefix)).await
    }
}
