//! The store handle.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    CompactionOptions, Compare, CompareOp, Txn as NativeTxn, TxnOp, TxnOpResponse, TxnResponse,
};
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use serde::Deserialize;
use skyloom_model::Clock;
use skyloom_store::feed::{self, DynPast};
use skyloom_store::{
    About, Capability, Error, ErrorKind, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases,
    ListOptions, Outcome, Page, Prefix, Renewal, Result, Revision, Store, Txn, Watch, WatchEvent,
    WatchOptions,
};
use tokio::task::JoinSet;

use crate::commit::{self, HEAD, MAX_OPS, header, native, revision};
use crate::config::EtcdConfig;
use crate::error::{Fate, closed, corrupt};
use crate::feed::{Feed, Stand, stand};
use crate::keys::Keys;
use crate::leases::Leasing;
use crate::link::{Clients, Link};
use crate::read;

/// The format of the keys that this program understands.
const FORMAT: u64 = 1;

/// What stands under the head.
#[derive(Debug, Deserialize)]
struct Head {
    format: u64,
}

/// A store in an etcd cluster.
///
/// One handle has one watch of etcd, and one connection to one member at a time. Closing or dropping it ends both.
pub struct EtcdStore {
    link: Arc<Link>,
    keys: Arc<Keys>,
    feed: Arc<Feed>,
    leasing: Leasing,
    capability: Capability,
    /// The newest revision of the store that this handle has seen.
    newest: AtomicU64,
    closed: AtomicBool,
    tasks: Mutex<JoinSet<()>>,
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "etcd({}, {})",
            self.link.addresses(),
            self.link.config().prefix
        )
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.feed.close();
    }
}

impl EtcdStore {
    /// Connects to the cluster. The first to open a prefix makes the store there. `clock` only shows when leases run
    /// out; what counts is the server's time.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for settings that make no sense, [`ErrorKind::Unavailable`] when no member answers,
    /// [`ErrorKind::Denied`] for a wrong user or password, [`ErrorKind::Unsupported`] for servers that are too old, take
    /// fewer than 128 operations in a transaction, or may lose what they acknowledge ([`EtcdConfig::allow_unsafe`]),
    /// [`ErrorKind::TooNew`] when a newer program has written there.
    pub async fn open(config: EtcdConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        let keys = Arc::new(Keys::new(&config.prefix));
        let link = Arc::new(Link::new(config)?);
        let start = first_look(&link, &keys).await?;
        let feed = Arc::new(Feed::new(Arc::clone(&link), Arc::clone(&keys), start));
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&feed).run());
        Ok(Self {
            capability: Capability::PORTABLE
                .with_durable(link.durable())
                .with_max_txn_ops(MAX_OPS),
            leasing: Leasing::new(Arc::clone(&link), Arc::clone(&keys), clock),
            link,
            keys,
            feed,
            newest: AtomicU64::new(start.store.0),
            closed: AtomicBool::new(false),
            tasks: Mutex::new(tasks),
        })
    }

    /// What the member is that answered first.
    #[must_use]
    pub fn about(&self) -> About {
        self.link.about()
    }

    /// Ends all watches and the connection. Calls are refused from then on.
    ///
    /// # Errors
    /// None today.
    pub async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Relaxed);
        self.feed.close();
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
        self.link.close();
        Ok(())
    }

    /// Makes etcd forget its history up to `revision`, for everybody who uses the cluster. Mostly the server is told to
    /// do that by itself (`--auto-compaction-retention`).
    ///
    /// # Errors
    /// [`ErrorKind::Compacted`] when it has forgotten that already, [`ErrorKind::Invalid`] for a future revision.
    pub async fn compact(&self, revision: Revision) -> Result<()> {
        self.usable("compact")?;
        let call = |clients: Arc<Clients>| async move {
            let options = CompactionOptions::new().with_physical();
            clients
                .kv
                .clone()
                .compact(native(revision.0), Some(options))
                .await
        };
        self.link.call("compact", Fate::Nothing, call).await?;
        self.feed.forget(revision);
        Ok(())
    }

    fn usable(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(closed(operation));
        }
        Ok(())
    }

    fn has_seen(&self, revision: Revision) {
        self.newest.fetch_max(revision.0, Ordering::Relaxed);
    }

    /// etcd said that it is full. It says so before it begins, or after it has written what filled it: then somebody has
    /// moved the head, and nobody can tell whether it was this commit.
    async fn full(&self, newest: Revision, e: Error) -> Error {
        match stand(&self.link, &self.keys, "commit").await {
            Ok(now) if now.store <= newest => e,
            Ok(now) => {
                self.has_seen(now.store);
                Error::new(ErrorKind::Unknown, "commit").because(e)
            }
            Err(_) => Error::new(ErrorKind::Unknown, "commit").because(e),
        }
    }
}

/// Where the store stands; made if it is not there.
async fn first_look(link: &Link, keys: &Keys) -> Result<Stand> {
    const OPERATION: &str = "open etcd store";
    let here = |e: Error| e.with("prefix", &link.config().prefix);
    // As many operations as one commit may have, so that a server that takes fewer is found out now.
    let look = |clients: Arc<Clients>| {
        let request = NativeTxn::new().and_then(vec![TxnOp::get(keys.head(), None); MAX_OPS]);
        async move { clients.kv.clone().txn(request).await }
    };
    let answer = link
        .call(OPERATION, Fate::Nothing, look)
        .await
        .map_err(|e| match e.kind() {
            ErrorKind::TooLarge => Error::new(ErrorKind::Unsupported, OPERATION)
                .with("hint", "start etcd with --max-txn-ops=128 or more")
                .because(e),
            _ => here(e),
        })?;
    if let Some(stand) = standing(&answer).map_err(here)? {
        return Ok(stand);
    }
    let make = |clients: Arc<Clients>| {
        let request = NativeTxn::new()
            .when([Compare::create_revision(keys.head(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(keys.head(), HEAD, None)])
            .or_else([TxnOp::get(keys.head(), None)]);
        async move { clients.kv.clone().txn(request).await }
    };
    let answer = link.call(OPERATION, Fate::Nothing, make).await.map_err(here)?;
    if answer.succeeded() {
        tracing::info!(prefix = link.config().prefix, "a new store in etcd");
        let etcd = header(&answer);
        return Ok(Stand { store: etcd, etcd });
    }
    // Somebody else was faster.
    standing(&answer)
        .map_err(here)?
        .ok_or_else(|| Error::new(ErrorKind::Internal, OPERATION))
}

/// Where the store stands by its head, which must be of a format that is known.
fn standing(answer: &TxnResponse) -> Result<Option<Stand>> {
    const OPERATION: &str = "open etcd store";
    let responses = answer.op_responses();
    let Some(TxnOpResponse::Get(get)) = responses.first() else {
        return Err(Error::new(ErrorKind::Internal, OPERATION));
    };
    let Some(kv) = get.kvs().first() else {
        return Ok(None);
    };
    let head: Head =
        serde_json::from_slice(kv.value()).map_err(|e| corrupt(OPERATION, kv.key()).because(e))?;
    if head.format > FORMAT {
        return Err(Error::new(ErrorKind::TooNew, OPERATION)
            .with("format", head.format)
            .with("known", FORMAT));
    }
    Ok(Some(Stand {
        store: revision(kv.mod_revision()),
        etcd: header(answer),
    }))
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.usable("get")?;
        read::get(&self.link, &self.keys, key).await
    }

    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.usable("list")?;
        read::list(&self.link, &self.keys, prefix, options, self.capability.max_page).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.usable("commit")?;
        txn.check(&self.capability)?;
        commit::fits(&txn, self.link.config().max_request_bytes)?;
        // Without writes nothing can have happened.
        let fate = if txn.writes.is_empty() {
            Fate::Nothing
        } else {
            Fate::Unknown
        };
        let newest = Revision(self.newest.load(Ordering::Relaxed)).max(self.feed.hub.head().revision);
        let call = |clients: Arc<Clients>| {
            let request = commit::request(&txn, &self.keys);
            async move { clients.kv.clone().txn(request).await }
        };
        let answer = match self.link.call("commit", fate, call).await {
            Err(e) if e.kind() == ErrorKind::Full => return Err(self.full(newest, e).await),
            other => other?,
        };
        let outcome = commit::outcome(&txn, &answer)?;
        if let Outcome::Committed { revision } = outcome {
            self.has_seen(revision);
        }
        Ok(outcome)
    }

    fn capability(&self) -> Capability {
        self.capability
    }
}

impl Watch for EtcdStore {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        let (feed, prefix) = (Arc::clone(&self.feed), prefix.clone());
        let begin = async move {
            feed.ready().await;
            let past: DynPast = feed.clone();
            feed::watch(past, Arc::clone(&feed.hub), &prefix, &options)
        };
        begin.flatten_stream().boxed()
    }
}

#[async_trait]
impl Leases for EtcdStore {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        self.usable("grant lease")?;
        self.leasing.grant(name, holder, ttl, mode).await
    }

    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.usable("renew lease")?;
        self.leasing.renew(name, epoch, ttl).await
    }

    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.usable("revoke lease")?;
        self.leasing.revoke(name, epoch).await
    }

    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.usable("list leases")?;
        self.leasing.below(prefix).await
    }
}
