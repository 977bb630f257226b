//! One store on a database server that many processes share.
//!
//! ```text
//! commit ─> queue ─> committer ── one routine call per batch ──> database <── other processes
//! leases ─> queue ─> leaser ───── one routine call per batch ──>    │
//!                       │ own commits                               │ notification, or a look now and then
//!                       └────────────> feed <──────── log ──────────┘
//! get, list, replay <── pool            └─> hub ─> watchers (live)
//! ```
//!
//! Commits of all processes go one after the other: each takes the same lock inside the database and keeps it until it is
//! durable. So revisions are given in the order of commits, the log has no holes that fill up later, and following
//! it by revision is exact. What makes that fast is that each such commit is a whole batch.

mod batch;
mod committer;
mod config;
mod dialect;
mod feed;
mod leaser;
#[cfg(feature = "mysql")]
mod mysql;
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
mod queue;
mod reader;
mod stall;
mod trim;
mod uri;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use skyloom_store::feed::{self as log_feed, Hub};
use skyloom_store::{
    About, Capability, Class, Error, ErrorKind, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName,
    Leases, ListOptions, Outcome, Page, Prefix, Renewal, Result, Revision, Store, Txn, Watch, WatchEvent,
    WatchOptions, check_grant,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use self::config::{Engine, ServerConfig, TlsMode};
#[cfg(feature = "mysql")]
pub use self::mysql::MySql;
#[cfg(feature = "postgres")]
pub use self::postgres::Postgres;

use self::committer::{Committer, Session};
use self::dialect::Dialect;
use self::feed::Feed;
use self::leaser::{LeaseCall, Leaser, Wish};
use self::pool::Pool;
use self::queue::{Prepared, Queue};
use self::reader::Reader;
use self::trim::Trimmer;
use crate::Migrated;

/// What is being done when a store is opened.
const OPEN: &str = "open store";
/// Batches that may wait for the feed before it has to read the log instead.
const NEWS: usize = 256;

/// A [`skyloom_store::Backend`] on PostgreSQL.
#[cfg(feature = "postgres")]
pub type PostgresStore = ServerStore<Postgres>;
/// A [`skyloom_store::Backend`] on MySQL or MariaDB.
#[cfg(feature = "mysql")]
pub type MySqlStore = ServerStore<MySql>;

/// A [`skyloom_store::Backend`] on a database server: `PostgresStore` or `MySqlStore`.
///
/// Any number of processes may have the same store open. When one is dropped without [`ServerStore::close`], its calls under way end
/// as unknown, and nothing that was acknowledged is lost.
pub struct ServerStore<D: Dialect> {
    shown: String,
    about: About,
    capability: Capability,
    commits: Queue<Prepared>,
    leases: Queue<LeaseCall>,
    reader: Arc<Reader<D>>,
    hub: Arc<Hub>,
    counters: Arc<Counters>,
    limits: Limits,
    /// The committer, the leaser and the feed end by themselves when the queues have ended.
    workers: Mutex<Option<JoinSet<()>>>,
    /// These are ended.
    helpers: Mutex<JoinSet<()>>,
}

/// Counts since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// The newest revision that this process's watchers have been told of.
    pub revision: Revision,
    /// The oldest revision that can be listed at and watched from.
    pub floor: Revision,
    /// Commits of this process that wrote something.
    pub commits: u64,
    /// Database transactions, each for one or many commits.
    pub batches: u64,
    /// Commits that waited longer than `stall_ms`.
    pub stalls: u64,
    /// Batches whose answer was lost, so that their outcome had to be read back.
    pub lost: u64,
    /// Whether the log cannot be read at the moment, so that watches stand still.
    pub blind: bool,
}

#[derive(Debug, Default)]
struct Counters {
    commits: AtomicU64,
    batches: AtomicU64,
    stalls: AtomicU64,
    lost: AtomicU64,
    blind: AtomicBool,
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// For room, a connection, a lock.
    wait: Duration,
    /// For an answer.
    patience: Duration,
    /// Until a wait is a stall.
    stall: Duration,
}

/// Bounds a call of the database. Its connection must not be used again when the time is up.
async fn timed<T>(limit: Duration, call: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            "no answer from the database",
        ))),
    }
}

/// How far commits are known to be on disk.
///
/// With InnoDB and no binary log, a commit is visible a moment before it is durable. What was read in that moment is
/// handed out only after some later write has been made durable, because that includes it.
#[derive(Debug)]
struct Durable {
    /// Nothing is ever visible too early.
    always: bool,
    known: AtomicI64,
    /// One barrier at a time: who waits for it mostly finds it done.
    turn: tokio::sync::Mutex<()>,
}

impl Durable {
    fn reached(&self, revision: i64) {
        self.known.fetch_max(revision, Ordering::AcqRel);
    }

    async fn wait_for<D: Dialect>(&self, pool: &Pool<D>, revision: i64) -> Result<()> {
        if self.always || revision <= self.known.load(Ordering::Acquire) {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        if revision > self.known.load(Ordering::Acquire) {
            pool.run("flush", |d, link| d.barrier(link)).await?;
            self.reached(revision);
        }
        Ok(())
    }
}

impl<D: Dialect> ServerStore<D> {
    /// Creates the tables and routines of the store at `config.prefix`, or upgrades them to what this program needs. Safe
    /// to call from several processes at once, and when there is nothing to do.
    ///
    /// # Errors
    /// [`ErrorKind::TooNew`] when a newer program made them, [`ErrorKind::Denied`] when the user may not create tables
    /// and routines, [`ErrorKind::Unavailable`] when the server cannot be reached.
    pub async fn migrate(config: &ServerConfig) -> Result<Migrated> {
        config.check(D::ENGINE)?;
        let limits = limits(config);
        let pool = Pool::new(Arc::new(D::new(config)), 1, limits);
        let mut link = pool.connect().await?;
        let migrate = pool.dialect.migrate(&mut link);
        let migrated = match tokio::time::timeout(limits.patience * 4, migrate).await {
            Ok(migrated) => migrated?,
            Err(_) => {
                return Err(Error::new(ErrorKind::Unavailable, "migrate").with("state", "no answer in time"));
            }
        };
        pool.dialect.disconnect(link).await;
        Ok(migrated)
    }

    /// Opens the store at `config.prefix` and starts its workers on the current tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when there are no tables or older ones (run [`ServerStore::migrate`]), or when the server
    /// cannot be reached; [`ErrorKind::TooNew`] when a newer program made them; [`ErrorKind::Unsupported`] when the
    /// server is too old, or its settings may lose acknowledged commits and `allow_unsafe` is not set;
    /// [`ErrorKind::Denied`], [`ErrorKind::Invalid`].
    pub async fn open(config: ServerConfig) -> Result<Self> {
        config.check(D::ENGINE)?;
        let limits = limits(&config);
        let dialect = Arc::new(D::new(&config));
        let pool = Arc::new(Pool::new(Arc::clone(&dialect), config.connections, limits));
        let mut link = pool.connect().await?;
        let about = link.about.clone().with_schema(VERSION.unsigned_abs());
        let safe = about.risks.is_empty();
        let always = link.visible_is_durable;
        if !safe && !config.allow_unsafe {
            return Err(Error::new(ErrorKind::Unsupported, OPEN)
                .with("acknowledged commits may be lost", about.risks.join(", "))
                .with("hint", "change the server's settings, or set allow_unsafe"));
        }
        let version = timed(limits.patience, dialect.version(&mut link)).await;
        require_current(version.map_err(|e| dialect::failed(&*dialect, OPEN, e))?)?;
        dialect.disconnect(link).await;

        let session = Session::open(&pool, limits).await?;
        let durable = Arc::new(Durable {
            always,
            known: AtomicI64::new(0),
            turn: tokio::sync::Mutex::new(()),
        });
        let reader = Arc::new(Reader {
            pool: Arc::clone(&pool),
            durable: Arc::clone(&durable),
        });
        let (revision, floor) = reader.position(OPEN).await?;
        let hub = Arc::new(Hub::new(revision, floor));
        let counters = Arc::new(Counters::default());
        let (commits, commit_jobs) = Queue::new(config.max_queued_kib, limits.wait);
        let (leases, lease_jobs) = Queue::new(config.max_queued_kib, limits.wait);
        let (news, hears) = mpsc::channel(NEWS);
        let current = Arc::new(AtomicI64::new(session.writer));
        let bell = Arc::new(tokio::sync::Notify::new());
        let mut workers = JoinSet::new();
        workers.spawn(
            Committer {
                jobs: commit_jobs,
                pool: Arc::clone(&pool),
                session: Some(session),
                current: Arc::clone(&current),
                news,
                counters: Arc::clone(&counters),
                durable,
                limits,
                max_batch: config.max_batch,
            }
            .run(),
        );
        workers.spawn(
            Leaser {
                jobs: lease_jobs,
                pool: Arc::clone(&pool),
                limits,
            }
            .run(),
        );
        workers.spawn(
            Feed {
                news: hears,
                reader: Arc::clone(&reader),
                hub: Arc::clone(&hub),
                counters: Arc::clone(&counters),
                bell: Arc::clone(&bell),
                poll: poll(&config, D::RINGS),
            }
            .run(),
        );
        let mut helpers = JoinSet::new();
        helpers.spawn(feed::listen(Arc::clone(&pool), current, bell, limits.wait));
        helpers.spawn(
            Trimmer {
                pool,
                hub: Arc::clone(&hub),
                keep: config.max_history,
            }
            .run(),
        );
        Ok(Self {
            shown: format!("{}:{}/{}", D::ENGINE, config.database, config.prefix),
            about,
            capability: Capability::PORTABLE.with_durable(safe),
            commits,
            leases,
            reader,
            hub,
            counters,
            limits,
            workers: Mutex::new(Some(workers)),
            helpers: Mutex::new(helpers),
        })
    }

    /// [`ServerStore::migrate`], then [`ServerStore::open`].
    ///
    /// # Errors
    /// As these two.
    pub async fn open_or_create(config: ServerConfig) -> Result<Self> {
        Self::migrate(&config).await?;
        Self::open(config).await
    }

    /// [`ServerStore::open`] with [`ServerConfig::from_uri`].
    ///
    /// # Errors
    /// As these two.
    pub async fn from_uri(uri: &str) -> Result<Self> {
        Self::open(ServerConfig::from_uri(uri)?).await
    }

    /// Ends in order: refuses new calls, answers those in the queue, ends all watches, and closes all connections.
    /// Closing twice is no error.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the database did not let the last calls end in time; what was acknowledged stands.
    pub async fn close(&self) -> Result<()> {
        self.commits.close();
        self.leases.close();
        self.helpers.lock().abort_all();
        let workers = self.workers.lock().take();
        let mut late = false;
        if let Some(mut workers) = workers {
            let ended = async { while workers.join_next().await.is_some() {} };
            late = tokio::time::timeout(self.limits.patience, ended).await.is_err();
        }
        self.hub.close();
        self.reader.pool.close().await;
        if late {
            return Err(Error::new(ErrorKind::Unavailable, "close")
                .with("waited ms", self.limits.patience.as_millis()));
        }
        Ok(())
    }

    /// Forgets the history up to and including `revision`: older positions can no longer be listed or watched from. The
    /// current documents stay.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn compact(&self, revision: Revision) -> Result<()> {
        trim::raise(&self.reader.pool, i64::try_from(revision.0).unwrap_or(i64::MAX)).await
    }

    /// What the server is, and what its settings are.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// What this process's handle of the store has done so far.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        let head = self.hub.head();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ServerStats {
            revision: head.revision,
            floor: head.floor,
            commits: count(&self.counters.commits),
            batches: count(&self.counters.batches),
            stalls: count(&self.counters.stalls),
            lost: count(&self.counters.lost),
            blind: self.counters.blind.load(Ordering::Relaxed),
        }
    }

    async fn lease(&self, name: &LeaseName, wish: Wish) -> Result<leaser::LeaseAnswer> {
        let call = LeaseCall {
            name: name.clone(),
            wish,
        };
        self.leases.ask(call).await
    }
}

fn limits(config: &ServerConfig) -> Limits {
    Limits {
        wait: config.max_wait(),
        patience: config.patience(),
        stall: Duration::from_millis(config.stall_ms),
    }
}

/// Shortest and longest time between two looks for others' commits.
fn poll(config: &ServerConfig, rings: bool) -> (Duration, Duration) {
    let (shortest, longest) = config.poll_ms;
    let shortest = if rings { longest } else { shortest };
    (Duration::from_millis(shortest), Duration::from_millis(longest))
}

/// The version of the tables that this program works with.
const VERSION: i64 = 1;

/// A schema that this program cannot work with is refused before anything is touched.
fn too_new(operation: &'static str, found: i64) -> Error {
    Error::new(ErrorKind::TooNew, operation)
        .with("schema version", found)
        .with("newest known", VERSION)
        .with(
            "hint",
            "run the newer program again, or restore a backup made before its upgrade",
        )
}

fn require_current(found: Option<i64>) -> Result<()> {
    match found {
        Some(VERSION) => Ok(()),
        Some(found) if found > VERSION => Err(too_new(OPEN, found)),
        other => Err(Error::new(ErrorKind::Unavailable, OPEN)
            .class_is(Class::Permanent)
            .with(
                "state",
                match other {
                    Some(_) => "the tables are older than this program",
                    None => "there are no tables",
                },
            )
            .with("hint", "run migrate")),
    }
}

impl<D: Dialect> Drop for ServerStore<D> {
    fn drop(&mut self) {
        self.hub.close();
    }
}

impl<D: Dialect> fmt::Debug for ServerStore<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[async_trait]
impl<D: Dialect> Store for ServerStore<D> {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.reader.get(key).await
    }

    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        let most = self.capability.max_page;
        let limit = if options.limit == 0 {
            most
        } else {
            options.limit.min(most)
        };
        self.reader.list(prefix, &options, limit).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.commits.ask(Prepared::new(txn, &self.capability)?).await
    }

    fn capability(&self) -> Capability {
        self.capability
    }
}

impl<D: Dialect> Watch for ServerStore<D> {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        let past = Arc::clone(&self.reader);
        log_feed::watch(past, Arc::clone(&self.hub), prefix, &options)
    }
}

#[async_trait]
impl<D: Dialect> Leases for ServerStore<D> {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        check_grant(holder, ttl)?;
        let holder = holder.to_owned();
        self.lease(name, Wish::Grant { holder, ttl, mode })
            .await?
            .grant(name)
    }

    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.lease(name, Wish::Renew { epoch, ttl }).await?.renewal()
    }

    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.lease(name, Wish::Revoke { epoch }).await.map(drop)
    }

    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.reader.leases(prefix).await
    }
}
