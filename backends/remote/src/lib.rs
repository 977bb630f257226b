//! A [`Store`] that another process has: the client half of the store protocol, over the Skyloom API.
//!
//! ```text
//! engine, agent ── RemoteStore ══ one HTTP/2 connection: a stream per call ──> core/api /v1/store/* ──> the real store
//!                                                          a stream per watch <── NDJSON ──
//! ```
//!
//! What the bearer of the token may see and change is decided by the API, never here. This side keeps three promises:
//! * a commit whose answer was lost is [`ErrorKind::Unknown`], and nothing else is; nothing is sent twice;
//! * every answer and every watch line is bounded, every wait has an end;
//! * plain HTTP is spoken to loopback addresses only, unless the configuration allows it by name.
//!
//! A broken watch ends with one error item. Coming back at the last revision is the business of [`skyloom_store::Mirror`];
//! here it is made sure that not all clients of a server come back in the same instant
//! ([`RemoteConfig::reconnect_spread`]). A server that says farewell finishes what it has begun; what it has not is sent
//! on the next connection.
//!
//! [`ErrorKind::Unknown`]: skyloom_store::ErrorKind::Unknown

mod client;
mod config;
mod http;
mod join;
mod link;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use skyloom_store::wire::{
    CapabilityRequest, CommitRequest, Done, GetAnswer, GetRequest, GrantRequest, LeasesAnswer, LeasesRequest,
    ListAnswer, ListRequest, RenewRequest, RevokeRequest, WatchRequest, WireCapability, ttl_ms,
};
use skyloom_store::{
    Capability, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases, ListOptions, Outcome, Page,
    Prefix, Renewal, Result, Store, Txn, Watch, WatchEvent, WatchOptions, check_grant,
};

use crate::client::{Client, Fate};
pub use crate::config::{LiveTls, RemoteConfig};
pub use crate::join::{JoinClient, JoinFailed};

/// The store behind an API server. Clones share the connections.
#[derive(Clone)]
pub struct RemoteStore {
    client: Arc<Client>,
    capability: Capability,
}

impl RemoteStore {
    /// A store that will talk to the API at `config.url`. Nothing is sent yet: the API may still be starting. Nothing is
    /// claimed for the store behind either: its capability is [`Capability::PORTABLE`].
    ///
    /// # Errors
    /// [`skyloom_store::ErrorKind::Invalid`] when the address, the token or the certificates cannot be used.
    pub fn open(config: RemoteConfig) -> Result<Self> {
        Ok(Self {
            client: Arc::new(Client::new(config)?),
            capability: Capability::PORTABLE,
        })
    }

    /// As [`RemoteStore::open`], and asks the API what the store behind can do.
    ///
    /// # Errors
    /// Those of `open`, and when the API cannot be asked or refuses the token.
    pub async fn connect(config: RemoteConfig) -> Result<Self> {
        let mut store = Self::open(config)?;
        let request = CapabilityRequest {};
        let answer: WireCapability = store
            .client
            .call("capability", "connect to remote store", &request, Fate::Nothing)
            .await?;
        store.capability = answer.into();
        Ok(store)
    }
}

impl fmt::Debug for RemoteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "remote({})", self.client.address())
    }
}

#[async_trait]
impl Store for RemoteStore {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        let request = GetRequest { key: key.clone() };
        let answer: GetAnswer = self.client.call("get", "get", &request, Fate::Nothing).await?;
        Ok(answer.item.map(KeyValue::from))
    }

    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        let request = ListRequest::new(prefix, options);
        let answer: ListAnswer = self.client.call("list", "list", &request, Fate::Nothing).await?;
        Ok(answer.into())
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        txn.check(&self.capability())?;
        // Without writes nothing can have happened.
        let fate = if txn.writes.is_empty() {
            Fate::Nothing
        } else {
            Fate::Unknown
        };
        let request = CommitRequest::try_from(&txn)?;
        self.client.call("commit", "commit", &request, fate).await
    }

    fn capability(&self) -> Capability {
        self.capability
    }
}

impl Watch for RemoteStore {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        watch::stream(Arc::clone(&self.client), WatchRequest::new(prefix, &options))
    }
}

#[async_trait]
impl Leases for RemoteStore {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        check_grant(holder, ttl)?;
        let request = GrantRequest {
            name: name.clone(),
            holder: holder.to_owned(),
            ttl_ms: ttl_ms(ttl),
            mode,
        };
        self.client
            .call("lease-grant", "grant lease", &request, Fate::Unknown)
            .await
    }

    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        let request = RenewRequest {
            name: name.clone(),
            epoch,
            ttl_ms: ttl_ms(ttl),
        };
        // Renewing again does no harm, so a lost answer is an ordinary failure.
        self.client
            .call("lease-renew", "renew lease", &request, Fate::Nothing)
            .await
    }

    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        let request = RevokeRequest {
            name: name.clone(),
            epoch,
        };
        let _: Done = self
            .client
            .call("lease-revoke", "revoke lease", &request, Fate::Nothing)
            .await?;
        Ok(())
    }

    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        let request = LeasesRequest {
            prefix: prefix.clone(),
        };
        let answer: LeasesAnswer = self
            .client
            .call("leases", "list leases", &request, Fate::Nothing)
            .await?;
        Ok(answer.leases)
    }
}
