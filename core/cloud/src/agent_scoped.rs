//! The store as one host's agent may touch it, for agents that share a process with the store.
//!
//! ```text
//! agent over HTTP:  remote ─> route ─> StoreScope ─┐
//!                                                  ├─> Store
//! agent in process: AgentScoped ────> StoreScope ──┘
//! ```
//!
//! Both ways meet the same checks, so an agent that works here works over HTTP, and one that does what it must not is
//! refused in tests and simulations as it is in production.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use skyloom_model::HostId;
use skyloom_store::{
    Capability, DynBackend, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases, ListOptions,
    Outcome, Page, Prefix, Renewal, Result, Store, Txn, Watch, WatchEvent, WatchOptions,
};

use crate::store_scope::StoreScope;

/// A backend that refuses whatever the agent of one host may not touch with [`skyloom_store::ErrorKind::Denied`].
#[derive(Debug)]
pub struct AgentScoped {
    inner: DynBackend,
    scope: StoreScope,
}

impl AgentScoped {
    /// `inner` as the agent of `host` has it.
    #[must_use]
    pub fn new(inner: DynBackend, host: HostId) -> Self {
        Self {
            inner,
            scope: StoreScope::Areas(host),
        }
    }
}

#[async_trait]
impl Store for AgentScoped {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.scope.read(key)?;
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.scope.below(prefix, "list")?;
        self.inner.list(prefix, options).await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.scope.commit_through(&self.inner, txn).await
    }
    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

impl Watch for AgentScoped {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        match self.scope.below(prefix, "watch") {
            Ok(()) => self.inner.watch(prefix, options),
            Err(denied) => futures::stream::iter([Err(denied)]).boxed(),
        }
    }
}

#[async_trait]
impl Leases for AgentScoped {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        self.scope.lease(name, "grant lease")?;
        self.inner.grant(name, holder, ttl, mode).await
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.scope.lease(name, "renew lease")?;
        self.inner.renew(name, epoch, ttl).await
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.scope.lease(name, "revoke lease")?;
        self.inner.revoke(name, epoch).await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.scope.leases()?;
        self.inner.leases(prefix).await
    }
}
