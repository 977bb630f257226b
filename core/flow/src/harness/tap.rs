//! The store as one life of one process reaches it: commits are counted, and at the chosen one the process dies.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use skyloom_store::{
    Capability, DynBackend, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases, ListOptions,
    Outcome, Page, Prefix, Renewal, Result, Store, Txn, Watch, WatchEvent, WatchOptions,
};
use tokio_util::sync::CancellationToken;

use super::script::{Process, Script};

/// What one life reaches. The dead get no answers.
#[derive(Debug)]
pub(super) struct Tap {
    pub(super) inner: DynBackend,
    pub(super) process: Process,
    pub(super) script: Arc<Script>,
    pub(super) dead: CancellationToken,
}

impl Tap {
    async fn alive(&self) {
        if self.dead.is_cancelled() {
            pending::<()>().await;
        }
    }

    async fn die<T>(&self) -> T {
        self.dead.cancel();
        self.script.die(self.process);
        pending().await
    }
}

#[async_trait]
impl Store for Tap {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.alive().await;
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.alive().await;
        self.inner.list(prefix, options).await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.alive().await;
        let cut = self.script.cut();
        if cut == Some(false) {
            return self.die().await;
        }
        let outcome = self.inner.commit(txn).await?;
        if matches!(outcome, Outcome::Committed { .. }) {
            self.script.committed().await;
            if cut == Some(true) {
                return self.die().await;
            }
        }
        Ok(outcome)
    }
    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

impl Watch for Tap {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        self.inner.watch(prefix, options)
    }
}

#[async_trait]
impl Leases for Tap {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        self.alive().await;
        self.inner.grant(name, holder, ttl, mode).await
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.alive().await;
        self.inner.renew(name, epoch, ttl).await
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.alive().await;
        self.inner.revoke(name, epoch).await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.alive().await;
        self.inner.leases(prefix).await
    }
}
