//! A time limit for each call.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::{
    Capability, DynBackend, Error, ErrorKind, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases,
    ListOptions, Outcome, Page, Prefix, Renewal, Result, Store, Txn, Watch, WatchEvent, WatchOptions,
};

/// Settings of [`Timeout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimeoutConfig {
    /// For `get` and `list`.
    pub read: Duration,
    /// For `commit`.
    pub commit: Duration,
    /// For everything about leases.
    pub lease: Duration,
}

impl Default for TimeoutConfig {
    fn default() -> Self {
        Self {
            read: Duration::from_secs(5),
            commit: Duration::from_secs(10),
            lease: Duration::from_secs(3),
        }
    }
}

impl TimeoutConfig {
    /// With another limit for reads.
    #[must_use]
    pub fn with_read(mut self, limit: Duration) -> Self {
        self.read = limit;
        self
    }
    /// With another limit for commits.
    #[must_use]
    pub fn with_commit(mut self, limit: Duration) -> Self {
        self.commit = limit;
        self
    }
    /// With another limit for leases.
    #[must_use]
    pub fn with_lease(mut self, limit: Duration) -> Self {
        self.lease = limit;
        self
    }
}

/// Ends calls that take too long. What may be repeated without harm (reads, renewals, revocations) ends in
/// [`ErrorKind::Timeout`]; a commit or a grant ends in [`ErrorKind::Unknown`], for it may have happened.
pub struct Timeout {
    inner: DynBackend,
    config: TimeoutConfig,
}

impl Timeout {
    /// Time limits over `inner`.
    #[must_use]
    pub fn new(inner: DynBackend, config: TimeoutConfig) -> Self {
        Self { inner, config }
    }

    fn label(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TimeoutConfig { read, commit, lease } = self.config;
        write!(f, "timeout(read {read:?}, commit {commit:?}, lease {lease:?})")
    }
}

async fn within<T>(
    limit: Duration,
    late: ErrorKind,
    operation: &'static str,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::new(late, operation).with("no answer within", format_args!("{limit:?}"))),
    }
}

super::show_layer!(Timeout);

#[async_trait]
impl Store for Timeout {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        within(self.config.read, ErrorKind::Timeout, "get", self.inner.get(key)).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        within(
            self.config.read,
            ErrorKind::Timeout,
            "list",
            self.inner.list(prefix, options),
        )
        .await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        within(
            self.config.commit,
            ErrorKind::Unknown,
            "commit",
            self.inner.commit(txn),
        )
        .await
    }
    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

impl Watch for Timeout {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        self.inner.watch(prefix, options)
    }
}

#[async_trait]
impl Leases for Timeout {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        let call = self.inner.grant(name, holder, ttl, mode);
        within(self.config.lease, ErrorKind::Unknown, "grant lease", call).await
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        within(
            self.config.lease,
            ErrorKind::Timeout,
            "renew lease",
            self.inner.renew(name, epoch, ttl),
        )
        .await
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        within(
            self.config.lease,
            ErrorKind::Timeout,
            "revoke lease",
            self.inner.revoke(name, epoch),
        )
        .await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        within(
            self.config.lease,
            ErrorKind::Timeout,
            "list leases",
            self.inner.leases(prefix),
        )
        .await
    }
}
