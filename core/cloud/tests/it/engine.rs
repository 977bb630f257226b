//! An engine and workers that a test holds in its hand: the real driver and the real jobs, one step after the other,
//! without waiting for back-off, and with faults where the test wants them.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use skyloom_cloud::{EngineParts, ImageFetch, cloud_flows, engine_jobs};
use skyloom_flow::{
    Driver, DriverParts, Fence, InventoryFeed, Job, JobContext, JobError, JobRegistry, Life, Rest, Slot, Undo,
};
use skyloom_image::Limits;
use skyloom_model::{
    ActiveTask, Clock as _, HostId, JobRecord, JobState, JobWant, Place, Reason, Task, paths,
};
use skyloom_scheduler::{FleetScheduler, HostView};
use skyloom_store::{
    Grant, LeaseMode, LeaseName, ListOptions, Outcome, Prefix, Revision, Txn, Value, Versioned,
};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::world::{World, key};

/// What happens to one attempt of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It runs.
    Run,
    /// It runs, its worker dies before it can report, and the next worker runs it again.
    Twice,
    /// It fails for good before it did anything.
    FailBefore,
    /// It fails for good after its effect.
    FailAfter,
}

/// The job `kind` meets its fate on its way there; everything else is done twice, each undo too.
pub(crate) fn one(kind: &str, fate: Fate) -> impl Fn(&JobRecord) -> Fate {
    let kind = kind.to_owned();
    move |job| {
        if job.spec.kind == kind && job.want == JobWant::Run {
            fate
        } else {
            Fate::Twice
        }
    }
}

/// Gives every URL the same content, or fails in the middle of it.
#[derive(Debug)]
pub(crate) struct FixedFetch(pub(crate) Result<&'static [u8], Reason>);

#[async_trait]
impl ImageFetch for FixedFetch {
    async fn fetch(&self, _url: &str, out: &mut (dyn AsyncWrite + Unpin + Send)) -> Result<(), Reason> {
        let content = self.0.as_ref().copied().unwrap_or(b"half");
        out.write_all(content).await.unwrap();
        self.0.clone().map(|_| ())
    }
}

type FateOf = Box<dyn Fn(&JobRecord) -> Fate + Send>;

/// The fates of the engine's own jobs, and what was done.
struct Script {
    fate: FateOf,
    trace: Vec<String>,
}

/// A job of the engine that meets its fate.
struct Fated {
    job: Arc<dyn Job>,
    script: Arc<Mutex<Script>>,
}

impl std::fmt::Debug for Fated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.job.fmt(f)
    }
}

fn injected() -> JobError {
    JobError::permanent("test.injected", "the test wants it so")
}

impl Fated {
    fn fate(&self, cx: &JobContext<'_>, undo: bool) -> Fate {
        let mut script = self.script.lock();
        script
            .trace
            .push(format!("{}{}", if undo { "-" } else { "" }, self.job.kind()));
        (script.fate)(cx.record)
    }
}

#[async_trait]
impl Job for Fated {
    fn kind(&self) -> &'static str {
        self.job.kind()
    }
    async fn run(&self, cx: &JobContext<'_>) -> Result<serde_json::Value, JobError> {
        match self.fate(cx, false) {
            Fate::FailBefore => Err(injected()),
            Fate::FailAfter => self.job.run(cx).await.and(Err(injected())),
            Fate::Run => self.job.run(cx).await,
            Fate::Twice => {
                self.job.run(cx).await?;
                self.job.run(cx).await
            }
        }
    }
    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        match self.fate(cx, true) {
            Fate::FailBefore => Err(injected()),
            Fate::FailAfter => self.job.undo(cx).await.and(Err(injected())),
            Fate::Run => self.job.undo(cx).await,
            Fate::Twice => {
                self.job.undo(cx).await?;
                self.job.undo(cx).await
            }
        }
    }
}

pub(crate) struct Engine<'w> {
    world: &'w World,
    driver: Driver,
    fence: Fence,
    script: Arc<Mutex<Script>>,
    _feed: JoinSet<()>,
}

impl<'w> Engine<'w> {
    pub(crate) async fn new(world: &'w World) -> Self {
        Self::with_fetch(world, FixedFetch(Ok(crate::world::DISK))).await
    }

    pub(crate) async fn with_fetch(world: &'w World, fetch: FixedFetch) -> Self {
        let name = LeaseName::parse(&paths::engine_lease("e1")).unwrap();
        let ttl = std::time::Duration::from_secs(3600);
        let granted = world
            .store
            .grant(&name, "e1", ttl, LeaseMode::TakeOver)
            .await
            .unwrap();
        let Grant::Granted { epoch } = granted else {
            panic!("{granted:?}")
        };
        let (inventory, feed) = InventoryFeed::new(&world.store).unwrap();
        let mut running = JoinSet::new();
        running.spawn(feed.run(CancellationToken::new()));
        inventory.ready().await.unwrap();
        let all: BTreeSet<HostId> = world.hosts.keys().copied().collect();
        let known = |v: &HostView| v.reachable || v.spec.fenced.is_some();
        while inventory.with(|i| !all.iter().all(|h| i.get(*h).is_some_and(|v| known(v)))) {
            tokio::task::yield_now().await;
        }
        let script = Arc::new(Mutex::new(Script {
            fate: Box::new(|_| Fate::Run),
            trace: Vec::new(),
        }));
        let real = engine_jobs(&EngineParts {
            images: world.repo.clone(),
            fetch: Arc::new(fetch),
            limits: Limits {
                allow_any_raw: true,
                ..Limits::default()
            },
        });
        let jobs = real
            .kinds()
            .filter_map(|k| real.get(k))
            .fold(JobRegistry::new(), |jobs, job| {
                jobs.with(Fated {
                    job: job.clone(),
                    script: script.clone(),
                })
            });
        let driver = Driver::new(DriverParts {
            backend: world.store.clone(),
            flows: cloud_flows(),
            jobs,
            scheduler: Arc::new(FleetScheduler::default()),
            inventory,
            clock: Arc::new(world.clock.clone()),
            ids: world.ids.clone(),
            engine: "e1".to_owned(),
            job_slots: 1,
        });
        Self {
            world,
            driver,
            fence: Fence::new(name, epoch, std::time::Duration::MAX),
            script,
            _feed: running,
        }
    }

    /// Carries a task to its end; every job just runs.
    pub(crate) async fn carry(&mut self, task: &Task) -> Task {
        self.carry_with(task, |_| Fate::Run).await
    }

    /// Kinds of the jobs that were run or undone, in order; an undo has a `-` before it.
    pub(crate) fn trace(&self) -> Vec<String> {
        self.script.lock().trace.clone()
    }

    /// Carries a task until it ends or is stuck.
    pub(crate) async fn carry_with(
        &mut self,
        task: &Task,
        fate: impl Fn(&JobRecord) -> Fate + Send + 'static,
    ) -> Task {
        self.script.lock().fate = Box::new(fate);
        for _ in 0..1000 {
            let rest = self.drive(task).await;
            let at = key(&paths::task(task.scope, task.id));
            let now: Task = self
                .world
                .store
                .get(&at)
                .await
                .unwrap()
                .unwrap()
                .value
                .parse()
                .unwrap();
            if rest == Rest::Ended || now.state.rests() {
                return now;
            }
            // One job at a time, so that every order of ends is that of the plan.
            if let Some(job) = self.due().await {
                self.attempt(job).await;
            } else if let Rest::Until(Some(at)) | Rest::Room(at) = rest {
                let wait = at.duration_since(self.world.clock.now());
                self.world
                    .clock
                    .advance(std::time::Duration::try_from(wait).unwrap_or_default());
            }
        }
        panic!("the task {} does not end", task.flow);
    }

    /// One turn of the driver.
    pub(crate) async fn drive(&mut self, task: &Task) -> Rest {
        let mark = ActiveTask::of(task);
        let life = Life {
            fence: self.fence.clone(),
            born: Revision(0),
        };
        let slots = Arc::new(Semaphore::new(1));
        let permit = slots.clone().acquire_owned().await.unwrap();
        let mut slot = Slot::taken(slots, permit);
        let (nudge, shutdown) = (Notify::new(), CancellationToken::new());
        self.driver
            .drive(&mark, &life, &mut slot, &nudge, &shutdown)
            .await
            .unwrap()
    }

    /// Does one job that is due, if there is one.
    pub(crate) async fn work_with(&mut self, fate: impl Fn(&JobRecord) -> Fate + Send + 'static) {
        if let Some(job) = self.due().await {
            self.script.lock().fate = Box::new(fate);
            self.attempt(job).await;
        }
    }

    async fn due(&self) -> Option<Versioned<JobRecord>> {
        let prefix = Prefix::parse(paths::JOBS).unwrap();
        let page = self
            .world
            .store
            .list(&prefix, ListOptions::default())
            .await
            .unwrap();
        let jobs = page
            .items
            .iter()
            .map(|kv| Versioned::<JobRecord>::decode(kv).unwrap());
        jobs.into_iter().find(|j| j.value.state.for_worker())
    }

    async fn attempt(&mut self, mut job: Versioned<JobRecord>) {
        let kind = job.value.spec.kind.clone();
        let undo = job.value.want == JobWant::Undo;
        self.script
            .lock()
            .trace
            .push(if undo { format!("-{kind}") } else { kind });
        let (started, ok, failed) = if undo {
            (JobState::UndoStarted, JobState::Undone, JobState::UndoFailed)
        } else {
            (JobState::Started, JobState::Succeeded, JobState::Failed)
        };
        self.write(&mut job, started).await;
        let fate = (self.script.lock().fate)(&job.value);
        let result = match fate {
            Fate::FailBefore => Err(injected()),
            Fate::FailAfter => self.once(&job.value).await.and(Err(injected())),
            Fate::Run => self.once(&job.value).await,
            Fate::Twice => match self.once(&job.value).await {
                Ok(_) => self.once(&job.value).await,
                failed => failed,
            },
        };
        match result {
            Ok(output) => {
                job.value.output = output.or(job.value.output.take());
                self.write(&mut job, ok).await;
            }
            Err(JobError(reason)) => {
                job.value.error = Some(reason);
                self.write(&mut job, failed).await;
            }
        }
    }

    /// Runs or undoes the real job.
    async fn once(&self, record: &JobRecord) -> Result<Option<serde_json::Value>, JobError> {
        let Place::Host(host) = record.spec.place else {
            panic!("an engine's job among those of hosts");
        };
        let job = self.world.hosts[&host].jobs.get(&record.spec.kind).unwrap();
        let cx = JobContext {
            outputs: &std::collections::BTreeMap::new(),
            record,
            shutdown: &CancellationToken::new(),
            lease: None,
        };
        match record.want {
            JobWant::Run => job.run(&cx).await.map(Some),
            JobWant::Undo => job.undo(&cx).await.map(|_| None),
        }
    }

    async fn write(&self, job: &mut Versioned<JobRecord>, state: JobState) {
        assert!(
            job.value.state.may_become(state),
            "{:?} -> {state:?}",
            job.value.state
        );
        job.value.state = state;
        job.value.started_at = Some(self.world.clock.now());
        let txn = Txn::new().replace(job.key.clone(), job.modified, Value::json(&job.value).unwrap());
        let Outcome::Committed { revision } = self.world.store.commit(txn).await.unwrap() else {
            panic!("somebody else wrote the job");
        };
        job.modified = revision;
    }
}

/// An image that servers can be made from.
pub(crate) async fn active_image(world: &World, caller: &skyloom_cloud::Caller) -> skyloom_model::ImageId {
    use skyloom_model::Resource as _;
    let image = world
        .cloud
        .create_image(caller, crate::world::image("debian"))
        .await
        .unwrap()
        .image;
    let content = crate::world::bytes(crate::world::DISK);
    let sent = world
        .cloud
        .upload_image(caller, image.id(), content, None)
        .await
        .unwrap();
    let task = Engine::new(world).await.carry(&sent.task.unwrap()).await;
    assert_eq!(task.state, skyloom_model::TaskState::Done);
    image.id()
}
