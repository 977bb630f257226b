//! A host in little: a worker with a journal on a disk that can lose things, in virtual time, and an engine played by the test.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use skyloom_flow::journal::{Journal, MemoryDisk, MemoryJournal};
use skyloom_flow::{Companion, Fence, Job, JobContext, JobError, JobRegistry, Undo, Worker, WorkerParts};
use skyloom_model::{
    Clock, FORMAT, HostId, Id, JobId, JobRecord, JobSpec, JobState, JobWant, Name, Place, ProjectId,
    RetryPolicy, Scope, Subject, Timestamp, paths,
};
use skyloom_store::{
    DynBackend, Grant, Key, LeaseMode, LeaseName, MemoryConfig, MemoryStore, Outcome, Prefix, Revision, Txn,
    Value as Stored, Versioned, WatchOptions, latest,
};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Tokio's time, which stands still and jumps in these tests.
#[derive(Debug)]
pub(crate) struct VirtualClock(tokio::time::Instant);

impl VirtualClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(tokio::time::Instant::now()))
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + jiff::SignedDuration::try_from(self.monotonic()).unwrap()
    }
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// What really happened, outside the store.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Calls of the job's code, in order.
    pub(crate) calls: Vec<String>,
    /// Effects, in order; the job looks before it makes one.
    pub(crate) effects: Vec<String>,
}

/// A job whose input says what it does.
#[derive(Debug)]
pub(crate) struct Effector {
    pub(crate) facts: Arc<Mutex<Facts>>,
    pub(crate) reached: Arc<Notify>,
    pub(crate) go: Arc<Notify>,
}

#[async_trait]
impl Job for Effector {
    fn kind(&self) -> &'static str {
        "test.effect"
    }
    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let how: String = cx.input()?;
        let name = cx.record.spec.id.to_string();
        self.facts.lock().calls.push(name.clone());
        match how.as_str() {
            "fail" => return Err(JobError::transient("test.later", "not now")),
            "hang before" => std::future::pending().await,
            "wait before" => {
                self.reached.notify_one();
                self.go.notified().await;
                cx.may_act()?;
            }
            _ => {}
        }
        {
            let mut facts = self.facts.lock();
            if !facts.effects.contains(&name) {
                facts.effects.push(name.clone());
            }
        }
        if how == "wait after" {
            self.reached.notify_one();
            self.go.notified().await;
        }
        Ok(json!({ "made": name }))
    }
    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let name = cx.record.spec.id.to_string();
        self.facts.lock().calls.push(format!("-{name}"));
        self.facts.lock().effects.retain(|e| *e != name);
        Ok(Undo::Undone)
    }
}

pub(crate) struct Host {
    pub(crate) store: DynBackend,
    pub(crate) clock: Arc<VirtualClock>,
    pub(crate) disk: MemoryDisk,
    pub(crate) facts: Arc<Mutex<Facts>>,
    pub(crate) reached: Arc<Notify>,
    pub(crate) go: Arc<Notify>,
    pub(crate) fence: latest::Sender<Option<Fence>>,
    pub(crate) host: HostId,
    pub(crate) task: Uuid,
    pub(crate) slots: usize,
    pub(crate) companion: Option<Arc<dyn Companion>>,
}

/// One life of the worker. Dropping it is its death.
pub(crate) struct Life(#[expect(dead_code, reason = "holds the worker")] JoinSet<()>);

impl Host {
    pub(crate) async fn new() -> Self {
        let clock = VirtualClock::new();
        let host = Self {
            store: Arc::new(MemoryStore::new(clock.clone(), MemoryConfig::default())),
            clock,
            disk: MemoryDisk::new(),
            facts: Arc::default(),
            reached: Arc::default(),
            go: Arc::default(),
            fence: latest::channel(None).0,
            host: HostId::from_uuid(Uuid::from_u128(7)),
            task: Uuid::from_u128(1),
            slots: 4,
            companion: None,
        };
        host.grant().await;
        host
    }

    pub(crate) fn lease(&self) -> LeaseName {
        LeaseName::parse("hosts/7").unwrap()
    }

    /// A new epoch of the host's lease, for an hour, known to the worker.
    pub(crate) async fn grant(&self) -> Fence {
        let fence = self.grant_elsewhere().await;
        self.fence.send_replace(Some(fence.clone()));
        fence
    }

    /// The same, unknown to the worker.
    pub(crate) async fn grant_elsewhere(&self) -> Fence {
        let hour = Duration::from_secs(3600);
        let granted = self
            .store
            .grant(&self.lease(), "h", hour, LeaseMode::TakeOver)
            .await;
        let Ok(Grant::Granted { epoch }) = granted else {
            panic!("{granted:?}")
        };
        Fence::new(self.lease(), epoch, self.clock.monotonic() + hour)
    }

    pub(crate) fn journal(&self) -> MemoryJournal {
        MemoryJournal::open(&self.disk).unwrap()
    }

    /// A life with the journal on this host's disk.
    pub(crate) fn live(&self) -> Life {
        self.live_with(Arc::new(self.journal()))
    }

    pub(crate) fn live_with(&self, journal: Arc<dyn Journal>) -> Life {
        let job = Effector {
            facts: self.facts.clone(),
            reached: self.reached.clone(),
            go: self.go.clone(),
        };
        let worker = Worker::new(WorkerParts {
            backend: self.store.clone(),
            host: self.host,
            jobs: JobRegistry::new().with(job),
            clock: self.clock.clone(),
            fence: self.fence.subscribe(),
            journal,
            companion: self.companion.clone(),
            concurrency: self.slots,
        })
        .unwrap();
        let mut parts = JoinSet::new();
        parts.spawn(worker.run(CancellationToken::new()));
        Life(parts)
    }

    /// What an engine orders: a first try of a job of its own subject that does `how`.
    pub(crate) fn order(&self, name: &str, how: &str) -> JobRecord {
        let subject = name.bytes().fold(0_u128, |sum, b| sum * 256 + u128::from(b));
        JobRecord {
            format: FORMAT,
            task: Id::from_uuid(self.task),
            scope: Scope::System,
            subject: Subject {
                kind: "things".into(),
                id: Uuid::from_u128(subject),
                name: Name::new("thing").unwrap(),
            },
            generation: 1,
            request_id: "req-1".into(),
            spec: JobSpec {
                id: JobId::new(name),
                kind: "test.effect".into(),
                title: name.into(),
                input: json!(how),
                after: Vec::new(),
                place: Place::Host(self.host),
                retry: RetryPolicy::default(),
                weight: 1,
                timeout_ms: None,
            },
            want: JobWant::Run,
            attempt: 1,
            not_before: None,
            state: JobState::Ready,
            worker: None,
            output: None,
            error: None,
            started_at: None,
            ended_at: None,
        }
    }

    pub(crate) fn key(&self, record: &JobRecord) -> Key {
        Key::parse(&paths::job(Place::Host(self.host), record.task, &record.spec.id)).unwrap()
    }

    /// Writes a record, whatever is there.
    pub(crate) async fn put(&self, record: &JobRecord) -> Revision {
        let txn = Txn::new().put(self.key(record), Stored::json(record).unwrap());
        let Ok(Outcome::Committed { revision }) = self.store.commit(txn).await else {
            panic!("not written")
        };
        revision
    }

    pub(crate) async fn record(&self, name: &str) -> JobRecord {
        let key = self.key(&self.order(name, ""));
        let kv = self.store.get(&key).await.unwrap().unwrap();
        Versioned::decode(&kv).unwrap().value
    }

    /// Waits until the record of `name` is as asked.
    pub(crate) async fn until(&self, name: &str, is: impl Fn(&JobRecord) -> bool) -> JobRecord {
        let mut changes = self.store.watch(&Prefix::all(), WatchOptions::after(Revision(0)));
        loop {
            let record = self.record(name).await;
            if is(&record) {
                return record;
            }
            let change = tokio::time::timeout(Duration::from_secs(3600), changes.next()).await;
            assert!(
                matches!(change, Ok(Some(Ok(_)))),
                "{change:?}: nothing happens any more: {record:?}"
            );
        }
    }

    pub(crate) async fn until_state(&self, name: &str, state: JobState) -> JobRecord {
        self.until(name, |r| r.state == state).await
    }

    /// Lets a minute pass, in no time: whatever can happen by itself does.
    pub(crate) async fn minute(&self) {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.facts.lock().calls.clone()
    }

    pub(crate) fn effects(&self) -> Vec<String> {
        self.facts.lock().effects.clone()
    }
}

pub(crate) fn project(number: u128) -> Scope {
    Scope::Project(ProjectId::from_uuid(Uuid::from_u128(number)))
}
