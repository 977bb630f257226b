//! The API process: SQLite in a temporary folder, whose life standard input commands.
//!
//! `down`, `up`: the store fails, and works again. `restart MS`: the server ends, and is back after that time. `arrivals`:
//! prints how many requests came in each tenth of a second since the last time.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::Request;
use axum::middleware::Next;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use skyloom_api::{ApiLimits, ApiParts, EdgeConfig, RateLimits, ServeLimits, router, serve};
use skyloom_cloud::{Caller, Cloud, CloudParts, DirImageRepo};
use skyloom_identity::{
    Call, FileKeys, Holder, Identity, IdentityConfig, IdentityParts, NewApiToken, Rights, Vault,
};
use skyloom_model::{Id, Ids, OsIds, Readiness, SystemClock};
use skyloom_store::{
    Capability, DynBackend, Error, ErrorKind, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases,
    ListOptions, Outcome, Page, Prefix, Renewal, Result, Store, Txn, Watch, WatchEvent, WatchOptions,
};
use skyloom_store_sql::{SqliteConfig, SqliteStore};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{AnyError, say};

/// Who may do what, and the first administrator's token.
async fn identity(
    backend: &DynBackend,
    ids: &Arc<dyn Ids>,
    clock: Arc<SystemClock>,
    dir: &Path,
    helpers: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> std::result::Result<(Identity, String), AnyError> {
    let key = dir.join("key");
    FileKeys::generate(&key, &**ids)?;
    let keys = FileKeys::read(&key, &[], ids.clone())?;
    let parts = IdentityParts {
        backend: backend.clone(),
        clock,
        ids: ids.clone(),
        secrets: Arc::new(Vault::new(Arc::new(keys), ids.clone())),
        audit: None,
        registry: None,
    };
    let (identity, driver) = Identity::open(parts, IdentityConfig::default())?;
    helpers.spawn(driver.run(shutdown.clone()));
    let first = identity.bootstrap(None).await?.ok_or("a new cloud")?;
    Ok((identity, first.token.expose().clone()))
}

/// The token that all watchers of the fan-out have.
async fn engine(identity: &Identity, ids: &dyn Ids) -> std::result::Result<String, AnyError> {
    let root = Caller::internal("fleet", Rights::of_the_cloud()?, Id::fresh(ids));
    let call = Call {
        by: &root.rights.principal,
        source: None,
        request_id: "req-fleet",
    };
    let asked = NewApiToken {
        name: "fleet".to_owned(),
        holder: Holder::Engine,
        expires_at: None,
    };
    let made = identity.create_token(&call, asked).await?;
    Ok(made.secret.expose().clone())
}

pub(crate) async fn serve_until_stdin_ends() -> std::result::Result<(), AnyError> {
    let dir = tempfile::tempdir()?;
    let clock = Arc::new(SystemClock::new());
    let ids: Arc<dyn Ids> = Arc::new(OsIds::new(clock.clone()));
    let sqlite = SqliteStore::open_or_create(SqliteConfig::new(dir.path().join("store.db")), clock.clone());
    let sqlite = Arc::new(sqlite.await?);
    let switch = Arc::new(Switch {
        inner: sqlite.clone(),
        down: tokio::sync::watch::Sender::new(false),
    });
    let backend: DynBackend = switch.clone();
    let cloud = Arc::new(Cloud::new(CloudParts {
        backend: backend.clone(),
        clock: clock.clone(),
        ids: ids.clone(),
        images: Arc::new(DirImageRepo::open(dir.path(), 1 << 20)?),
    }));
    cloud.bootstrap().await?;
    let shutdown = CancellationToken::new();
    let mut helpers = JoinSet::new();
    let (identity, admin) =
        identity(&backend, &ids, clock.clone(), dir.path(), &mut helpers, &shutdown).await?;
    let engine = engine(&identity, &*ids).await?;
    let arrivals = Arc::new(AtomicU64::new(0));
    let mut listener = Some(TcpListener::bind("127.0.0.1:0").await?);
    let address = listener.as_ref().ok_or("a listener")?.local_addr()?;
    say(&format!("{address} {engine} {admin}"));

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let tenths = Arc::new(parking_lot::Mutex::new(Vec::<u64>::new()));
    helpers.spawn(sample(arrivals.clone(), tenths.clone()));
    loop {
        let shutdown = CancellationToken::new();
        let parts = ApiParts {
            cloud: cloud.clone(),
            backend: backend.clone(),
            authenticator: Arc::new(identity.clone()),
            identity: Some(identity.clone()),
            providers: Vec::new(),
            clock: clock.clone(),
            ids: ids.clone(),
            readiness: Readiness::new(),
            metrics: Arc::new(String::new),
            open_metrics: true,
            // All watchers of the fan-out have one token.
            limits: ApiLimits::default()
                .with_max_streams(8192, 8192)
                .with_max_requests(8192, 8192)
                .with_max_bytes(2 << 30, 2 << 30),
            edge: EdgeConfig::default().with_rates(RateLimits::unlimited()),
            shutdown: shutdown.clone(),
        };
        let arrived = arrivals.clone();
        let count = move |request: Request, next: Next| {
            arrived.fetch_add(1, Ordering::Relaxed);
            next.run(request)
        };
        let routes = router(parts).layer(axum::middleware::from_fn(count));
        let socket = match listener.take() {
            Some(first) => first,
            None => TcpListener::bind(address).await?,
        };
        let mut server = JoinSet::new();
        server.spawn(serve(
            socket,
            routes,
            None,
            ServeLimits::default(),
            shutdown.clone(),
        ));
        let pause = loop {
            let Some(line) = lines.next_line().await? else {
                shutdown.cancel();
                sqlite.close().await?;
                return Ok(());
            };
            match line.split_once(' ').unwrap_or((&line, "")) {
                ("down", _) => drop(switch.down.send_replace(true)),
                ("up", _) => drop(switch.down.send_replace(false)),
                ("arrivals", _) => {
                    let seen = std::mem::take(&mut *tenths.lock());
                    let seen: Vec<_> = seen.iter().map(u64::to_string).collect();
                    say(&seen.join(" "));
                }
                ("restart", ms) => break Duration::from_millis(ms.parse()?),
                other => return Err(format!("what is {other:?}?").into()),
            }
        };
        shutdown.cancel();
        while server.join_next().await.is_some() {}
        tokio::time::sleep(pause).await;
    }
}

async fn sample(arrivals: Arc<AtomicU64>, tenths: Arc<parking_lot::Mutex<Vec<u64>>>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        tenths.lock().push(arrivals.swap(0, Ordering::Relaxed));
    }
}

/// A store that can be switched off.
#[derive(Debug)]
struct Switch {
    inner: DynBackend,
    down: tokio::sync::watch::Sender<bool>,
}

impl Switch {
    fn on(&self, operation: &'static str) -> Result<&DynBackend> {
        if *self.down.borrow() {
            return Err(Error::new(ErrorKind::Unavailable, operation));
        }
        Ok(&self.inner)
    }
}

#[async_trait]
impl Store for Switch {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.on("get")?.get(key).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.on("list")?.list(prefix, options).await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.on("commit")?.commit(txn).await
    }
    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

impl Watch for Switch {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        let mut down = self.down.subscribe();
        let off = async move {
            // The sender lives as long as the store.
            let _ = down.wait_for(|down| *down).await;
            Err(Error::new(ErrorKind::Unavailable, "watch"))
        };
        let events = self.inner.watch(prefix, options);
        futures::stream::select(events, futures::stream::once(off)).boxed()
    }
}

#[async_trait]
impl Leases for Switch {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        self.on("grant")?.grant(name, holder, ttl, mode).await
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.on("renew")?.renew(name, epoch, ttl).await
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.on("revoke")?.revoke(name, epoch).await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.on("leases")?.leases(prefix).await
    }
}
