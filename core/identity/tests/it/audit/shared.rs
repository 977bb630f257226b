//! Entries, stores that fail at a call, and waiting for seals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use skyloom_identity::Method;
use skyloom_identity::audit::{
    AuditActor, AuditObject, AuditOutcome, AuditScope, Entry, EntryId, SEALS, Seal, SealHead, Sealer,
    SealerConfig, Text, Word,
};
use skyloom_model::{Clock as _, Id, ManualClock, SeededIds};
use skyloom_store::{
    Capability, DynBackend, Error, ErrorKind, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases,
    ListOptions, MemoryConfig, MemoryStore, Outcome, Page, Prefix, Renewal, Result, Revision, Store, Table,
    Txn, Value, Watch, WatchEvent, WatchOptions,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn id<K: ?Sized>(n: u128) -> Id<K> {
    Id::from_uuid(Uuid::from_u128(n))
}

pub(super) struct World {
    pub(super) clock: ManualClock,
    pub(super) ids: Arc<SeededIds<ManualClock>>,
    pub(super) store: DynBackend,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with_history(10_000)
    }

    pub(super) fn with_history(commits: usize) -> Self {
        let clock = ManualClock::new();
        let config = MemoryConfig::default().with_history(commits);
        Self {
            ids: Arc::new(SeededIds::new(clock.clone(), 5)),
            store: Arc::new(MemoryStore::new(Arc::new(clock.clone()), config)),
            clock,
        }
    }

    pub(super) fn entry(&self) -> Entry {
        Entry {
            id: EntryId::fresh(&*self.ids),
            at: self.clock.now(),
            request_id: Text::new("req-1"),
            actor: AuditActor {
                user: Some(id(1)),
                domain: Some(id(10)),
                ..AuditActor::unknown(vec![Method::Password])
            },
            source: Some("192.0.2.7".parse().unwrap()),
            action: Word::new("server:start"),
            object: AuditObject {
                kind: Word::new("server"),
                id: Some(Uuid::from_u128(7)),
                name: Some(Text::new("web-1")),
                scope: AuditScope::Project {
                    id: id(20),
                    domain: id(10),
                },
            },
            outcome: AuditOutcome::Done,
            task: None,
            changes: vec![Word::new("power")],
            token_audit_ids: Vec::new(),
            repeated: None,
        }
    }

    /// `count` entries in commits of `each`.
    pub(super) async fn write(&self, count: usize, each: usize) {
        let mut left = count;
        while left > 0 {
            let mut txn = Txn::new();
            for _ in 0..each.min(left) {
                let entry = self.entry();
                txn = txn.create(key_of(&entry), Value::json(&entry).unwrap());
            }
            left -= each.min(left);
            assert!(self.store.commit(txn).await.unwrap().committed().is_some());
        }
    }

    pub(super) fn sealer(&self, store: DynBackend, config: SealerConfig) -> Sealer {
        Sealer::new(store, Arc::new(self.clock.clone()), config)
    }

    /// Runs a sealer until `done` holds of the head.
    pub(super) async fn seal_until(&self, config: SealerConfig, done: impl Fn(&SealHead) -> bool) {
        let stop = CancellationToken::new();
        let run = self.sealer(self.store.clone(), config).run(stop.clone());
        let ended = async {
            self.until(done).await;
            stop.cancel();
        };
        tokio::join!(run, ended);
    }

    /// Waits until `done` holds of the head.
    pub(super) async fn until(&self, done: impl Fn(&SealHead) -> bool) {
        let below = Prefix::parse(SEALS).unwrap();
        let mut changes = self
            .store
            .watch(&below, WatchOptions::after(self.revision().await));
        while !self.head().await.is_some_and(|head| done(&head)) {
            if matches!(changes.next().await, Some(Ok(WatchEvent::Gap { .. })) | None) {
                changes = self
                    .store
                    .watch(&below, WatchOptions::after(self.revision().await));
            }
        }
    }

    async fn revision(&self) -> Revision {
        self.store
            .list(&Prefix::all(), ListOptions::default().with_limit(1))
            .await
            .unwrap()
            .revision
    }

    pub(super) async fn head(&self) -> Option<SealHead> {
        let found = self
            .store
            .get(&Key::parse("audit-seals/head").unwrap())
            .await
            .unwrap();
        found.map(|kv| kv.value.parse().unwrap())
    }

    pub(super) async fn seals(&self) -> Vec<Seal> {
        let all = self.all(SEALS).await;
        let seals = all.iter().filter(|kv| kv.key.last() != "head");
        seals.map(|kv| kv.value.parse().unwrap()).collect()
    }

    pub(super) async fn all(&self, below: &str) -> Vec<KeyValue> {
        let table = Table::<serde_json::Value>::new(self.store.clone(), Prefix::parse(below).unwrap());
        let mut all = Vec::new();
        for item in table.list_all().await.unwrap().items {
            all.push(self.store.get(&item.key).await.unwrap().unwrap());
        }
        all
    }
}

pub(super) fn key_of(entry: &Entry) -> Key {
    let day = entry.at.strftime("%Y-%m-%d");
    Key::parse(&format!("audit/{day}/{}", entry.id)).unwrap()
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not made.
    Refused,
    /// It is made, its answer is lost.
    AnswerLost,
}

/// A store that fails at one call: once, or for ever, as it is for a process that is killed there.
#[derive(Debug)]
pub(super) struct Fated {
    inner: DynBackend,
    calls: AtomicUsize,
    at: usize,
    fault: Fault,
    forever: bool,
    /// Nobody answers.
    pub(super) away: AtomicBool,
    died: Notify,
}

impl Fated {
    pub(super) fn new(inner: &DynBackend, at: usize, fault: Fault, forever: bool) -> Arc<Self> {
        Arc::new(Self {
            inner: inner.clone(),
            calls: AtomicUsize::new(0),
            at,
            fault,
            forever,
            away: AtomicBool::new(false),
            died: Notify::new(),
        })
    }

    pub(super) fn met(&self) -> bool {
        self.calls.load(Ordering::SeqCst) > self.at
    }

    pub(super) async fn died(&self) {
        self.died.notified().await;
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::task::yield_now().await;
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let lost = |kind| Err(Error::new(kind, "fated call"));
        if self.away.load(Ordering::SeqCst) || (self.forever && number > self.at) {
            return lost(ErrorKind::Unavailable);
        }
        if number != self.at {
            return call.await;
        }
        if self.forever {
            self.died.notify_one();
        }
        match self.fault {
            Fault::Refused => lost(ErrorKind::Unavailable),
            Fault::AnswerLost => {
                call.await?;
                lost(ErrorKind::Unknown)
            }
        }
    }
}

#[async_trait]
impl Store for Fated {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.call(self.inner.get(key)).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.call(self.inner.list(prefix, options)).await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.call(self.inner.commit(txn)).await
    }
    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

impl Watch for Fated {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        self.inner.watch(prefix, options)
    }
}

#[async_trait]
impl Leases for Fated {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        self.call(self.inner.grant(name, holder, ttl, mode)).await
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.call(self.inner.renew(name, epoch, ttl)).await
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.call(self.inner.revoke(name, epoch)).await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.call(self.inner.leases(prefix)).await
    }
}
