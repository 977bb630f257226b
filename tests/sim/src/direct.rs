//! The store as one process has it, without the way there: what lies at the far end of a link, and what founds the cloud.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use skyloom_store::{
    Capability, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases, ListOptions, Outcome, Page,
    Prefix, Renewal, Result, Store, Txn, Watch, WatchEvent, WatchOptions,
};

use crate::bed::{Bed, Who};

/// Calls that happen at once.
#[derive(Debug, Clone)]
pub(crate) struct Direct {
    pub(crate) bed: Arc<Bed>,
    pub(crate) who: Who,
}

impl Direct {
    /// All documents below a path.
    pub(crate) async fn everything(&self, below: &str) -> Vec<KeyValue> {
        let mut all: Vec<KeyValue> = Vec::new();
        let mut options = ListOptions::default();
        let below = Prefix::parse(below).unwrap_or_else(|_| Prefix::all());
        while let Ok(page) = self.list(&below, options).await {
            all.extend(page.items);
            match all.last().filter(|_| page.more) {
                Some(last) => options = ListOptions::default().with_after(last.key.clone()),
                None => break,
            }
        }
        all
    }
}

#[async_trait]
impl Store for Direct {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.bed.get(&self.who, key)
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.bed.list(&self.who, prefix, options)
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.bed.commit(&self.who, txn)
    }
    fn capability(&self) -> Capability {
        Capability::PORTABLE
    }
}

impl Watch for Direct {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        self.bed.watch(&self.who, prefix, options)
    }
}

#[async_trait]
impl Leases for Direct {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        self.bed.grant(&self.who, name, holder, ttl, mode)
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.bed.renew(&self.who, name, epoch, ttl)
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.bed.revoke(&self.who, name, epoch)
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.bed.leases(&self.who, prefix)
    }
}
