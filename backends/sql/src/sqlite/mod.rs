//! SQLite: the embedded default.

mod batch;
mod crc;
mod durable;
mod filter;
mod history;
mod leases;
mod load;
mod owner;
mod present;
mod queue;
mod reader;
mod schema;
mod state;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use skyloom_model::Clock;
use skyloom_store::feed::{self, Hub};
use skyloom_store::{
    About, Capability, Error, ErrorKind, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases,
    ListOptions, Outcome, Page, Prefix, Renewal, Result, Revision, Store, Txn, Watch, WatchEvent,
    WatchOptions, check_grant,
};
use sqlx::Connection as _;
use tokio::sync::Notify;
use tokio::task::JoinSet;

pub use self::schema::migrate;

use self::batch::Batch;
use self::leases::Now;
use self::owner::Owner;
use self::present::Present;
use self::queue::{Answer, Op, Prepared, Queue};
use self::reader::{Reader, SharedReader};
use self::state::Retention;
use self::writer::{Counters, Settings, Writer};
use crate::SqliteConfig;

/// A [`skyloom_store::Backend`] in one SQLite file that one process owns.
///
/// Calls that change something wait for a common `fdatasync` with all other calls that came in meanwhile. When the
/// store is dropped without [`SqliteStore::close`], calls under way end as unknown, and nothing that was acknowledged is
/// lost; but the file may stay locked for the moment that the last transaction takes.
pub struct SqliteStore {
    path: PathBuf,
    about: About,
    capability: Capability,
    queue: Queue,
    reader: SharedReader,
    present: Arc<Mutex<Present>>,
    hub: Arc<Hub>,
    counters: Arc<Counters>,
    /// Ends the writer with the store.
    _writer: JoinSet<()>,
}

/// Counts since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqliteStats {
    /// The newest revision.
    pub revision: Revision,
    /// The oldest revision that can be listed at and watched from.
    pub floor: Revision,
    /// Documents stored.
    pub documents: u64,
    /// Commits that wrote something.
    pub commits: u64,
    /// Durable writes, each for one or many commits and lease calls.
    pub batches: u64,
}

impl SqliteStore {
    /// Opens an existing database of the current schema, and starts its writer on the current tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when there is no schema or an older one (run [`migrate`]), or when another process has
    /// the file open; [`ErrorKind::TooNew`] when a newer program wrote it; [`ErrorKind::Corrupt`] when it is damaged.
    pub async fn open(config: SqliteConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        let path = owner::resolve(&config.path)?;
        if !path.is_file() {
            return Err(schema::missing("there is no database file").with("path", path.display()));
        }
        let owner = Arc::new(Owner::take(&path)?);
        owner::make_private(&path)?;
        let settings = Settings {
            path: path.clone(),
            max_batch: config.max_batch.max(1),
            max_wait: config.max_wait(),
            max_file_bytes: config.max_file_bytes,
            allow_unsafe: config.allow_unsafe,
            retention: Retention {
                commits: config.max_history,
                bytes: config.max_history_bytes,
            },
        };
        let mut conn = settings.connect(&owner).await?;
        let checked = async {
            if config.check_on_open {
                schema::quick_check(&mut conn).await?;
            }
            let now = Now::read(&*clock);
            let check = config.check_on_open;
            let (state, present) = load::everything(&mut conn, now, settings.retention, check).await?;
            let present = Arc::new(Mutex::new(present));
            let moved = Arc::new(Notify::new());
            let shared = (Arc::clone(&present), Arc::clone(&moved));
            let reader = Reader::connect(&path, config.readers, config.max_wait(), shared).await?;
            let about = schema::about(&mut conn, config.allow_unsafe).await?;
            Ok((state, present, moved, reader, about))
        };
        let (state, present, moved, reader, about) = match checked.await {
            Ok(opened) => opened,
            Err(e) => {
                let _ = conn.close().await;
                return Err(e);
            }
        };
        let (hub, dirty) = {
            let present = present.lock();
            let hub = Hub::new(Revision(present.revision), Revision(present.floor));
            (Arc::new(hub), !present.dirty.is_empty())
        };
        let counters = Arc::new(Counters::default());
        let (queue, jobs) = Queue::new(config.max_queued_kib, config.max_wait());
        let writer = Writer {
            jobs,
            conn: Some(conn),
            owner,
            state,
            present: Arc::clone(&present),
            dirty_since: dirty.then(|| clock.monotonic()),
            full: false,
            logged: 0,
            moved,
            spare: Batch::default(),
            hub: Arc::clone(&hub),
            clock,
            counters: Arc::clone(&counters),
            settings,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(writer.run());
        let capability = Capability::PORTABLE.with_durable(!config.allow_unsafe);
        Ok(Self {
            path,
            about,
            capability,
            queue,
            reader: Arc::new(reader),
            present,
            hub,
            counters,
            _writer: tasks,
        })
    }

    /// [`migrate`], then [`SqliteStore::open`].
    ///
    /// # Errors
    /// As these two.
    pub async fn open_or_create(config: SqliteConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        migrate(&config).await?;
        Self::open(config, clock).await
    }

    /// Ends in order: refuses new calls, answers those in the queue, ends all watches, writes the log into the database
    /// file, and lets go of it. Closing twice is no error.
    ///
    /// # Errors
    /// When the file could not be closed cleanly; nothing acknowledged is lost by that.
    pub async fn close(&self) -> Result<()> {
        self.reader.close().await;
        self.queue.close().await.unwrap_or(Ok(()))
    }

    /// Forgets the history up to and including `revision`: older positions can no longer be listed or watched from. The
    /// current documents stay.
    ///
    /// # Errors
    /// As for a commit.
    pub async fn compact(&self, revision: Revision) -> Result<()> {
        self.queue.ask(Op::Compact(revision)).await.map(drop)
    }

    /// What writes the file, and how.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// What the store has done so far.
    #[must_use]
    pub fn stats(&self) -> SqliteStats {
        let head = self.hub.head();
        SqliteStats {
            revision: head.revision,
            floor: head.floor,
            documents: self.present.lock().documents,
            commits: self.counters.commits.load(Ordering::Relaxed),
            batches: self.counters.batches.load(Ordering::Relaxed),
        }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.hub.close();
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sqlite:{}", self.path.display())
    }
}

/// The writer answered something else than it was asked.
fn mismatch(operation: &'static str, answer: &Answer) -> Error {
    Error::new(ErrorKind::Internal, operation).with("answer", format!("{answer:?}"))
}

#[async_trait]
impl Store for SqliteStore {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.reader.get(key).await
    }

    /// As the contract says; a damaged document below `prefix` makes it [`ErrorKind::Corrupt`], naming the key.
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
        let txn = Prepared::new(txn, &self.capability)?;
        match self.queue.ask(Op::Commit(txn)).await? {
            Answer::Outcome(outcome) => Ok(outcome),
            other => Err(mismatch("commit", &other)),
        }
    }

    fn capability(&self) -> Capability {
        self.capability
    }
}

impl Watch for SqliteStore {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        feed::watch(self.reader.clone(), Arc::clone(&self.hub), prefix, &options)
    }
}

#[async_trait]
impl Leases for SqliteStore {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        check_grant(holder, ttl)?;
        match self
            .queue
            .ask(Op::Grant {
                name: name.clone(),
                holder: holder.to_owned(),
                ttl,
                mode,
            })
            .await?
        {
            Answer::Grant(grant) => Ok(grant),
            other => Err(mismatch("grant lease", &other)),
        }
    }

    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        match self
            .queue
            .ask(Op::Renew {
                name: name.clone(),
                epoch,
                ttl,
            })
            .await?
        {
            Answer::Renewal(renewal) => Ok(renewal),
            other => Err(mismatch("renew lease", &other)),
        }
    }

    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.queue
            .ask(Op::Revoke {
                name: name.clone(),
                epoch,
            })
            .await
            .map(drop)
    }

    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        match self.queue.ask(Op::Leases(prefix.clone())).await? {
            Answer::Leases(leases) => Ok(leases),
            other => Err(mismatch("list leases", &other)),
        }
    }
}
