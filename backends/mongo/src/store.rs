//! The open store: its handle, its tasks, and the traits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use skyloom_store::feed::{self, DynPast, Hub};
use skyloom_store::{
    About, Capability, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases, ListOptions, Outcome,
    Page, Prefix, Renewal, Result, Revision, Store, Txn, Watch, WatchEvent, WatchOptions,
};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::MongoConfig;
use crate::error::closed;
use crate::follow::{self, Follower};
use crate::jitter::Jitter;
use crate::leases::LeaseBook;
use crate::migrate;
use crate::plan::Prepared;
use crate::queue::Queue;
use crate::read::Reader;
use crate::retain::{self, Retention};
use crate::space::{Head, Space};
use crate::writer::{Counters, Lane, Writer};

/// Batches that may wait for the follower; beyond that it reads the log.
const FOLLOWER_QUEUE: usize = 64;

/// A [`skyloom_store::Backend`] in one MongoDB database, which any number of processes may open.
///
/// When the store is dropped without [`MongoStore::close`], commits under way end as unknown, and nothing that was
/// acknowledged is lost.
pub struct MongoStore {
    space: Arc<Space>,
    capability: Capability,
    queue: Queue,
    reader: Arc<Reader>,
    leases: LeaseBook,
    hub: Arc<Hub>,
    counters: Arc<Counters>,
    stop: CancellationToken,
    /// The writer.
    writer: Mutex<JoinSet<()>>,
    /// The follower; aborted with the store.
    follower: Mutex<JoinSet<()>>,
}

/// Counts since the store was opened, of this process alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MongoStats {
    /// The newest revision that watchers have been told of.
    pub revision: Revision,
    /// The oldest revision that can be listed at and watched from.
    pub floor: Revision,
    /// Commits that wrote something.
    pub commits: u64,
    /// Database transactions, each for one or many commits.
    pub batches: u64,
    /// Times that another process was faster.
    pub conflicts: u64,
    /// Commits without an answer whose fate was looked up.
    pub resolved: u64,
}

impl MongoStore {
    /// Opens an existing store of the current schema, and starts its tasks on the current tokio runtime.
    ///
    /// # Errors
    /// [`skyloom_store::ErrorKind::Unavailable`] when the servers cannot be reached, or there is no store (run
    /// [`crate::migrate`]); [`skyloom_store::ErrorKind::TooNew`] when a newer program wrote it;
    /// [`skyloom_store::ErrorKind::Unsupported`] for servers and settings that cannot keep the promises.
    pub async fn open(config: MongoConfig) -> Result<Self> {
        let space = Arc::new(Space::connect(&config).await?);
        migrate::require(&space).await?;
        let lane = Lane::open(&space).await?;
        let id = lane.id();
        let instance: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        lane.register(&space, &instance).await?;
        let reader = Arc::new(Reader {
            space: Arc::clone(&space),
        });
        let hub = Arc::new(follow::hub(&reader).await?);
        let counters = Arc::new(Counters::default());
        let busy = Arc::new(AtomicBool::new(false));
        let stop = CancellationToken::new();
        let (queue, jobs) = Queue::new(config.max_queued_kib, config.call_time());
        let (published, own) = mpsc::channel(FOLLOWER_QUEUE);
        let writer = Writer {
            space: Arc::clone(&space),
            jobs,
            instance: instance.clone(),
            lane,
            jitter: Jitter::new(&id),
            max_batch: config.max_batch.max(1),
            call_time: config.call_time(),
            retention: Retention {
                commits: config.max_history,
                bytes: config.max_history_bytes,
            },
            follower: published,
            counters: Arc::clone(&counters),
            busy: Arc::clone(&busy),
            number: 0,
            turn: 0,
            head: Head::NONE,
            unretained: 0,
        };
        let follower = Follower {
            reader: Arc::clone(&reader),
            hub: Arc::clone(&hub),
            own,
            busy,
            poll: config.poll_time(),
            stop: stop.clone(),
        };
        let (mut writing, mut following) = (JoinSet::new(), JoinSet::new());
        writing.spawn(writer.run(stop.clone()));
        following.spawn(follower.run());
        Ok(Self {
            capability: Capability::PORTABLE.with_durable(space.about.risks.is_empty()),
            queue,
            reader,
            leases: LeaseBook::new(Arc::clone(&space), &instance),
            hub,
            counters,
            stop,
            writer: Mutex::new(writing),
            follower: Mutex::new(following),
            space,
        })
    }

    /// [`crate::migrate`], then [`MongoStore::open`].
    ///
    /// # Errors
    /// As these two.
    pub async fn open_or_create(config: MongoConfig) -> Result<Self> {
        crate::migrate(&config).await?;
        Self::open(config).await
    }

    /// Ends in order: refuses new calls, answers those in the queue, ends all watches, and lets go of the connections.
    /// Closing twice is no error.
    pub async fn close(&self) {
        self.queue.close();
        self.stop.cancel();
        while self.writer.lock().await.join_next().await.is_some() {}
        while self.follower.lock().await.join_next().await.is_some() {}
        self.hub.close();
        self.space.client.clone().shutdown().immediate(true).await;
    }

    /// Forgets the history up to and including `revision`: older positions can no longer be listed or watched from. The
    /// current documents stay.
    ///
    /// # Errors
    /// As for a read; what was forgotten by then stays so.
    pub async fn compact(&self, revision: Revision) -> Result<()> {
        retain::forget(&self.space, revision).await
    }

    /// What the server is, and what its settings are.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.space.about
    }

    /// What this process has done so far.
    #[must_use]
    pub fn stats(&self) -> MongoStats {
        let head = self.hub.head();
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        MongoStats {
            revision: head.revision,
            floor: head.floor,
            commits: count(&self.counters.commits),
            batches: count(&self.counters.batches),
            conflicts: count(&self.counters.conflicts),
            resolved: count(&self.counters.resolved),
        }
    }

    /// Refuses calls after the end.
    fn open_for(&self, operation: &'static str) -> Result<()> {
        if self.stop.is_cancelled() {
            return Err(closed(operation));
        }
        Ok(())
    }
}

impl Drop for MongoStore {
    fn drop(&mut self) {
        self.hub.close();
    }
}

impl fmt::Debug for MongoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.space, f)
    }
}

#[async_trait]
impl Store for MongoStore {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.open_for("get")?;
        self.reader.get(key).await
    }

    /// As the contract says; a damaged document below `prefix` makes it [`skyloom_store::ErrorKind::Corrupt`], naming the key.
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.open_for("list")?;
        let most = self.capability.max_page;
        let limit = if options.limit == 0 {
            most
        } else {
            options.limit.min(most)
        };
        self.reader.list(prefix, &options, limit).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.queue.commit(Prepared::new(txn, &self.capability)?).await
    }

    fn capability(&self) -> Capability {
        self.capability
    }
}

impl Watch for MongoStore {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        let past: DynPast = self.reader.clone();
        feed::watch(past, Arc::clone(&self.hub), prefix, &options)
    }
}

#[async_trait]
impl Leases for MongoStore {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        self.open_for("grant lease")?;
        self.leases.grant(name, holder, ttl, mode).await
    }

    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.open_for("renew lease")?;
        self.leases.renew(name, epoch, ttl).await
    }

    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.open_for("revoke lease")?;
        self.leases.revoke(name, epoch).await
    }

    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.open_for("list leases")?;
        self.leases.leases(prefix).await
    }
}
