//! Two stores whose calls can be counted and made to fail, and finished tasks in one of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use skyloom_cloud::{Archive, ArchiveConfig, ArchiveParts};
use skyloom_model::{
    Clock as _, Event, EventId, EventKind, FORMAT, Ids, JobId, JobSpec, JobState, ManualClock, Place, Plan,
    ProjectId, RetryPolicy, Run, Scope, SeededIds, StepRecord, Task, TaskId, TaskState, paths,
};
use skyloom_store::{
    Capability, DynBackend, Error, ErrorKind, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases,
    ListOptions, MemoryConfig, MemoryStore, Outcome, Page, Prefix, Renewal, Result, Store, Txn, Value, Watch,
    WatchEvent, WatchOptions,
};

use crate::world::key;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does not reach the store.
    Refused,
    /// It is lost on its way, and nobody can tell.
    Lost,
    /// It is done, and its answer is lost.
    AnswerLost,
    /// It does not reach the store, and nor does any later call: the caller has died.
    DeadBefore,
    /// It is done, and the caller has died.
    DeadAfter,
}

impl Fault {
    pub(crate) const ALL: [Self; 5] = [
        Self::Refused,
        Self::Lost,
        Self::AnswerLost,
        Self::DeadBefore,
        Self::DeadAfter,
    ];
}

type Look = Box<dyn Fn() + Send + Sync>;

/// What the calls of one life meet, over both stores.
#[derive(Default)]
pub(crate) struct Fates {
    calls: Mutex<usize>,
    at: Option<(usize, Fault)>,
    dead: Mutex<bool>,
    /// Other callers go on at each call, so many times as the next number says.
    pauses: Mutex<Vec<u8>>,
    /// Called after each call.
    look: Option<Look>,
}

impl std::fmt::Debug for Fates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.at)
    }
}

impl Fates {
    pub(crate) fn one(call: usize, fault: Fault) -> Self {
        Self {
            at: Some((call, fault)),
            ..Self::default()
        }
    }

    pub(crate) fn pauses(numbers: Vec<u8>) -> Self {
        Self {
            pauses: Mutex::new(numbers),
            ..Self::default()
        }
    }

    pub(crate) fn looked_at(mut self, look: impl Fn() + Send + Sync + 'static) -> Self {
        self.look = Some(Box::new(look));
        self
    }

    /// How many calls there were.
    pub(crate) fn count(&self) -> usize {
        *self.calls.lock()
    }

    /// The stores are there again.
    pub(crate) fn revive(&self) {
        *self.dead.lock() = false;
    }

    /// Whether the fault came.
    pub(crate) fn met(&self) -> bool {
        self.at.is_some_and(|(at, _)| *self.calls.lock() > at)
    }

    async fn call<T>(&self, lost: ErrorKind, call: impl Future<Output = Result<T>>) -> Result<T> {
        let pauses = self.pauses.lock().pop().unwrap_or(0);
        for _ in 0..pauses {
            tokio::task::yield_now().await;
        }
        let number = {
            let mut calls = self.calls.lock();
            *calls += 1;
            *calls - 1
        };
        let refused = || Error::new(ErrorKind::Unavailable, "call").with("cause", "the test");
        if *self.dead.lock() {
            return Err(refused());
        }
        let fault = self.at.and_then(|(at, fault)| (at == number).then_some(fault));
        match fault {
            Some(Fault::Refused) => return Err(refused()),
            Some(Fault::Lost) => return Err(Error::new(lost, "call")),
            Some(Fault::DeadBefore) => {
                *self.dead.lock() = true;
                return Err(refused());
            }
            _ => {}
        }
        let answer = call.await;
        if let Some(look) = &self.look {
            look();
        }
        match fault {
            Some(Fault::AnswerLost) => Err(Error::new(lost, "call")),
            Some(Fault::DeadAfter) => {
                *self.dead.lock() = true;
                Err(Error::new(lost, "call"))
            }
            _ => answer,
        }
    }
}

/// A store that is reached through fates, and takes only documents of a length.
#[derive(Debug)]
pub(crate) struct Fated {
    pub(crate) inner: DynBackend,
    pub(crate) fates: Arc<Fates>,
    pub(crate) capability: Capability,
}

impl Fated {
    pub(crate) fn new(inner: &DynBackend, fates: &Arc<Fates>) -> Self {
        Self {
            inner: inner.clone(),
            fates: fates.clone(),
            capability: inner.capability(),
        }
    }
}

#[async_trait]
impl Store for Fated {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.fates.call(ErrorKind::Timeout, self.inner.get(key)).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        let list = self.inner.list(prefix, options);
        self.fates.call(ErrorKind::Timeout, list).await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        txn.check(&self.capability)?;
        self.fates.call(ErrorKind::Unknown, self.inner.commit(txn)).await
    }
    fn capability(&self) -> Capability {
        self.capability
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
        self.inner.grant(name, holder, ttl, mode).await
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.inner.renew(name, epoch, ttl).await
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.inner.revoke(name, epoch).await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.inner.leases(prefix).await
    }
}

/// A hot store, an archive, and what was put into the first.
pub(crate) struct Stores {
    pub(crate) clock: ManualClock,
    pub(crate) ids: SeededIds<ManualClock>,
    pub(crate) hot: DynBackend,
    pub(crate) cold: DynBackend,
}

pub(crate) fn memory(clock: &ManualClock) -> DynBackend {
    Arc::new(MemoryStore::new(Arc::new(clock.clone()), MemoryConfig::default()))
}

impl Stores {
    pub(crate) fn new() -> Self {
        let clock = ManualClock::new();
        let (hot, cold) = (memory(&clock), memory(&clock));
        Self::over(hot, cold, clock)
    }

    pub(crate) fn over(hot: DynBackend, cold: DynBackend, clock: ManualClock) -> Self {
        Self {
            ids: SeededIds::new(clock.clone(), 5),
            clock,
            hot,
            cold,
        }
    }

    /// The archive of one life.
    pub(crate) fn archive(&self, fates: Fates) -> (Archive, Arc<Fates>) {
        let fates = Arc::new(fates);
        let archive = self.archive_with(
            Arc::new(Fated::new(&self.hot, &fates)),
            Arc::new(Fated::new(&self.cold, &fates)),
            ArchiveConfig::default(),
        );
        (archive, fates)
    }

    pub(crate) fn archive_with(
        &self,
        hot: DynBackend,
        store: Arc<dyn Store>,
        config: ArchiveConfig,
    ) -> Archive {
        Archive::new(ArchiveParts {
            hot,
            store,
            clock: Arc::new(self.clock.clone()),
            readiness: None,
            config,
        })
        .unwrap()
    }

    /// An archive without faults.
    pub(crate) fn calm(&self) -> Archive {
        self.archive(Fates::default()).0
    }

    /// A task of a project that ends now, with a plan of `jobs` jobs, and an event.
    pub(crate) async fn finished(&self, project: ProjectId, state: TaskState, jobs: usize) -> Task {
        let now = self.clock.now();
        let mut task = unfinished(project, TaskId::fresh(&self.ids), now);
        task.state = state;
        task.ended_at = state.ended().then_some(now);
        let plan = Plan {
            format: FORMAT,
            task: task.id,
            jobs: (0..jobs).map(job).collect(),
            placement: Some(json!({"score": 0.1 + 0.2})),
            made_at: now,
            stages: Vec::new(),
        };
        let run = Run {
            format: FORMAT,
            jobs: plan.jobs.iter().map(step).collect(),
        };
        let event = Event {
            format: FORMAT,
            id: EventId::fresh(&self.ids),
            at: now,
            scope: task.scope,
            kind: EventKind::TaskEnded,
            subject: task.subject.clone(),
            task: Some(task.id),
            request_id: None,
            message: "it ended".to_owned(),
            reason: None,
        };
        let mut txn = put(Txn::new(), &paths::task(task.scope, task.id), &task);
        txn = put(txn, &paths::event(task.scope, event.id), &event);
        if jobs > 0 {
            txn = put(txn, &paths::plan(task.id), &plan);
            txn = put(txn, &paths::run(task.id), &run);
        }
        assert!(self.hot.commit(txn).await.unwrap().committed().is_some());
        task
    }

    /// Puts any document into the hot store.
    pub(crate) async fn put<T: serde::Serialize>(&self, path: &str, document: &T) {
        self.hot.commit(put(Txn::new(), path, document)).await.unwrap();
    }
}

pub(crate) fn put<T: serde::Serialize>(txn: Txn, path: &str, document: &T) -> Txn {
    txn.put(key(path), Value::json(document).unwrap())
}

fn unfinished(project: ProjectId, id: TaskId, now: skyloom_model::Timestamp) -> Task {
    serde_json::from_value(json!({
        "format": FORMAT, "id": id, "scope": Scope::Project(project), "flow": "server.create",
        "subject": {"kind": "servers", "id": uuid::Uuid::from_u128(id.uuid().as_u128() ^ 1), "name": "web"},
        "params": {"size": 1.5}, "actor": {"id": "u1", "name": "ann"}, "request_id": "r", "state": "running",
        "created_at": now, "planned_at": now,
    }))
    .unwrap()
}

fn job(number: usize) -> JobSpec {
    JobSpec {
        id: JobId::new(format!("j{number}")),
        kind: "nothing".to_owned(),
        title: "does nothing".to_owned(),
        input: json!({"text": "\"\\ü\n".repeat(20)}),
        after: Vec::new(),
        place: Place::Engine,
        retry: RetryPolicy::default(),
        weight: 1,
        timeout_ms: None,
    }
}

fn step(job: &JobSpec) -> StepRecord {
    StepRecord {
        id: job.id.clone(),
        want: skyloom_model::JobWant::Run,
        attempt: 1,
        not_before: None,
        state: JobState::Succeeded,
        worker: None,
        output: Some(json!({"took": 1.1})),
        error: None,
        started_at: None,
        ended_at: None,
    }
}

/// Everything in a store.
pub(crate) async fn everything(store: &DynBackend) -> BTreeMap<String, Json> {
    below(store, &Prefix::all()).await
}

pub(crate) async fn below(store: &DynBackend, prefix: &Prefix) -> BTreeMap<String, Json> {
    let mut all = BTreeMap::new();
    let mut options = ListOptions::default();
    loop {
        let page = store.list(prefix, options).await.unwrap();
        for kv in &page.items {
            all.insert(kv.key.to_string(), kv.value.parse().unwrap());
        }
        match page.items.last().filter(|_| page.more) {
            Some(last) => options = ListOptions::default().with_after(last.key.clone()),
            None => return all,
        }
    }
}

pub(crate) fn project(ids: &dyn Ids) -> ProjectId {
    ProjectId::fresh(ids)
}
