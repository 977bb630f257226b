//! What a durable ten-step workflow asks of its store, counted call by call: a gate on cost that no busy machine moves.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../benches/figures/ten.rs"]
mod ten;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde_json::json;
use skyloom::engine::{Engine, EngineConfig, EngineParts};
use skyloom::model::{Clock as _, OsIds, Readiness, Scope, SystemClock, Task, TaskId, TaskState, paths};
use skyloom::scheduler::FleetScheduler;
use skyloom::store::{
    Capability, Change, DynBackend, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases,
    ListOptions, MemoryConfig, MemoryStore, Outcome, Page, Prefix, Renewal, Result, Store, Txn, Watch,
    WatchEvent, WatchOptions, Write,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Calls so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Calls {
    commits: usize,
    /// Documents put and deleted by them.
    writes: usize,
    /// Bytes of the documents put.
    bytes: usize,
    gets: usize,
    lists: usize,
    leases: usize,
}

/// A store that counts what it is asked.
struct Counting {
    inner: MemoryStore,
    commits: AtomicUsize,
    writes: AtomicUsize,
    bytes: AtomicUsize,
    gets: AtomicUsize,
    lists: AtomicUsize,
    leases: AtomicUsize,
}

impl Counting {
    fn calls(&self) -> Calls {
        let read = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        Calls {
            commits: read(&self.commits),
            writes: read(&self.writes),
            bytes: read(&self.bytes),
            gets: read(&self.gets),
            lists: read(&self.lists),
            leases: read(&self.leases),
        }
    }
}

impl fmt::Debug for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counting({:?})", self.inner)
    }
}

#[async_trait]
impl Store for Counting {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        self.inner.list(prefix, options).await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.writes.fetch_add(txn.writes.len(), Ordering::SeqCst);
        let put = txn.writes.iter().map(|write| match write {
            Write::Put(_, value) => value.bytes().len(),
            Write::Delete(_) => 0,
        });
        self.bytes.fetch_add(put.sum(), Ordering::SeqCst);
        self.inner.commit(txn).await
    }
    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

impl Watch for Counting {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        self.inner.watch(prefix, options)
    }
}

#[async_trait]
impl Leases for Counting {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        self.inner.grant(name, holder, ttl, mode).await
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.inner.renew(name, epoch, ttl).await
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.inner.revoke(name, epoch).await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        // Those of hosts are looked at now and then, whatever the tasks do.
        if prefix.as_str().starts_with("engines") {
            self.leases.fetch_add(1, Ordering::SeqCst);
        }
        self.inner.leases(prefix).await
    }
}

/// An engine over a counting store, and one caller.
struct Bench {
    store: Arc<Counting>,
    clock: SystemClock,
    ids: OsIds<SystemClock>,
    marks: BoxStream<'static, Result<WatchEvent>>,
    _engine: JoinSet<Result<()>>,
}

impl Bench {
    async fn new() -> Self {
        let clock = SystemClock::new();
        let store = Arc::new(Counting {
            inner: MemoryStore::new(Arc::new(clock), MemoryConfig::default()),
            commits: AtomicUsize::new(0),
            writes: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            gets: AtomicUsize::new(0),
            lists: AtomicUsize::new(0),
            leases: AtomicUsize::new(0),
        });
        let backend: DynBackend = store.clone();
        let hour = Duration::from_secs(3600);
        let readiness = Readiness::new();
        let engine = Engine::new(EngineParts {
            backend,
            flows: ten::flows(),
            jobs: ten::jobs(),
            scheduler: Arc::new(FleetScheduler::default()),
            clock: Arc::new(clock),
            ids: Arc::new(OsIds::new(clock)),
            readiness: readiness.clone(),
            // What an engine does now and then by itself is not the cost of a workflow.
            config: EngineConfig::new("cost").with_lease_ttl(hour).with_resync(hour),
        });
        let mut running = JoinSet::new();
        running.spawn(engine.run(CancellationToken::new()));
        while !readiness.is_ready() {
            tokio::task::yield_now().await;
        }
        let active = Prefix::parse(paths::ACTIVE).unwrap();
        let now = store.inner.revision();
        Self {
            marks: store.watch(&active, WatchOptions::after(now)),
            store,
            clock,
            ids: OsIds::new(clock),
            _engine: running,
        }
    }

    /// One workflow from request to end: what was asked of the store meanwhile, the request included.
    async fn workflow(&mut self) -> Calls {
        let id = TaskId::fresh(&self.ids);
        let before = self.store.calls();
        let txn = ten::request(ten::FLOW, id, self.clock.now()).unwrap();
        self.store.commit(txn).await.unwrap().committed().unwrap();
        let mark = paths::active(id);
        loop {
            let WatchEvent::Commit { changes, .. } = self.marks.next().await.unwrap().unwrap() else {
                continue;
            };
            if changes
                .iter()
                .any(|c| matches!(c, Change::Delete(key) if key.as_str() == mark))
            {
                break;
            }
        }
        let after = self.store.calls();
        let key = Key::parse(&paths::task(Scope::System, id)).unwrap();
        let task: Task = self
            .store
            .inner
            .get(&key)
            .await
            .unwrap()
            .unwrap()
            .value
            .parse()
            .unwrap();
        assert_eq!(
            (task.state, task.result),
            (TaskState::Done, Some(json!(ten::STEPS)))
        );
        Calls {
            commits: after.commits - before.commits,
            writes: after.writes - before.writes,
            bytes: after.bytes - before.bytes,
            gets: after.gets - before.gets,
            lists: after.lists - before.lists,
            leases: after.leases - before.leases,
        }
    }
}

/// And the three-hundredth as few as the first.
#[tokio::test]
async fn ten_durable_steps_are_at_most_twelve_commits() {
    let mut bench = Bench::new().await;
    for number in 1..=300 {
        let calls = bench.workflow().await;
        // The request, the plan, and one for each result; the last one is also the end.
        assert!(calls.commits <= 12, "workflow {number}: {calls:?}");
        // Two, three, one for each of nine results, and at the end four beside the nine removed.
        assert!(calls.writes <= 27, "workflow {number}: {calls:?}");
        assert!(calls.bytes <= 6_500, "workflow {number}: {calls:?}");
        assert!(calls.gets <= 2, "workflow {number}: {calls:?}");
        assert_eq!((calls.lists, calls.leases), (0, 0), "workflow {number}");
    }
}
