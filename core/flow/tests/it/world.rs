//! A small world: a memory store, a flow whose plan stands in the task's parameters, and a job that writes down its effects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skyloom_flow::{
    Driver, DriverParts, Fence, FlowRegistry, InventoryFeed, Job, JobContext, JobError, JobRegistry,
    LeaseKeeper, PlanContext, Planned, Records, Refusal, Rest, SettleContext, Settled, Slot, StageEnd,
    TaskFlow, Undo,
};
use skyloom_model::{
    ActiveTask, Actor, Clock, FORMAT, Id, Ids, JobId, JobSpec, Name, Place, Progress, Reason, RetryPolicy,
    Scope, SeededIds, StageOutcome, Subject, SystemClock, Task, TaskState, paths,
};
use skyloom_scheduler::FleetScheduler;
use skyloom_store::{
    DynBackend, Key, LeaseName, MemoryConfig, MemoryStore, Outcome, Revision, Txn, Value as Stored, latest,
};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What really happened, outside the store: effects per job name, and how often each verb was called.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) present: BTreeMap<String, u32>,
    pub(crate) runs: BTreeMap<String, u32>,
    pub(crate) undos: BTreeMap<String, u32>,
    pub(crate) order: Vec<String>,
    /// What is told to hang does not any more.
    pub(crate) healed: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Step1 {
    pub(crate) name: String,
    pub(crate) after: Vec<String>,
    /// Fail so many times for a passing reason.
    pub(crate) fail_times: u32,
    /// Fail for good, after the effect has happened.
    pub(crate) fail: bool,
    /// Panic after the effect has happened.
    pub(crate) panic: bool,
    /// Give a result that no store takes.
    pub(crate) big: bool,
    /// Never return.
    pub(crate) hang: bool,
    /// In which stage; the stage after `n` is `n + 1`, the one instead of `n` is `n + 100`.
    pub(crate) stage: u32,
    /// Its undo fails for good until the world is healed.
    pub(crate) undo_fails: bool,
}

impl Step1 {
    pub(crate) fn new(name: &str, after: &[&str]) -> Self {
        Self {
            name: name.into(),
            after: after.iter().map(|a| (*a).into()).collect(),
            ..Self::default()
        }
    }
}

#[derive(Debug)]
pub(crate) struct TestJob {
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) hanging: Arc<Notify>,
}

#[async_trait]
impl Job for TestJob {
    fn kind(&self) -> &'static str {
        "test.step"
    }
    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let step: Step1 = cx.input()?;
        {
            let mut ledger = self.ledger.lock();
            *ledger.runs.entry(step.name.clone()).or_default() += 1;
            if cx.record.attempt <= step.fail_times {
                return Err(JobError::transient("test.later", "not now"));
            }
            // Look before acting: the effect is there at most once.
            if ledger.present.insert(step.name.clone(), 1).is_none() {
                ledger.order.push(step.name.clone());
            }
        }
        if step.hang && !self.ledger.lock().healed {
            self.hanging.notify_one();
            std::future::pending::<()>().await;
        }
        if step.fail {
            return Err(JobError::permanent("test.broken", "half done"));
        }
        assert!(!step.panic, "as told");
        if step.big {
            return Ok(json!("x".repeat(2 << 20)));
        }
        Ok(json!({ "made": step.name }))
    }
    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let step: Step1 = cx.input()?;
        let mut ledger = self.ledger.lock();
        *ledger.undos.entry(step.name.clone()).or_default() += 1;
        if step.undo_fails && !ledger.healed {
            return Err(JobError::permanent("test.undo_broken", "cannot be undone"));
        }
        Ok(match ledger.present.remove(&step.name) {
            Some(_) => {
                ledger.order.push(format!("-{}", step.name));
                Undo::Undone
            }
            None => Undo::Moot("it never happened".into()),
        })
    }
}

#[derive(Debug)]
struct TestFlow;

impl TaskFlow for TestFlow {
    fn name(&self) -> &'static str {
        "test"
    }
    fn reads(&self, task: &Task, _: &Records, _: &BTreeMap<JobId, Value>) -> Vec<Key> {
        vec![subject_key(task)]
    }
    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let Some(planned) = stage(task, 0) else {
            return Err(Refusal::Fail(Reason::new("test.nothing", "no steps")));
        };
        let changes = cx
            .records
            .put(Txn::new(), &subject_key(task), &json!({ "planned": true }))?;
        Ok(Planned { changes, ..planned })
    }
    fn next(
        &self,
        task: &Task,
        end: &StageEnd<'_>,
        _cx: &mut PlanContext<'_>,
    ) -> Result<Option<Planned>, Refusal> {
        let number: u32 = end.stage.parse().unwrap();
        Ok(match end.outcome {
            StageOutcome::Done => stage(task, number + 1),
            StageOutcome::Undone(_) => stage(task, number + 100),
        })
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let end = format!("{:?}", cx.end);
        let changes = cx.records.put(
            Txn::new(),
            &subject_key(task),
            &json!({ "end": end, "outputs": cx.outputs }),
        )?;
        Ok(Settled {
            changes,
            result: Some(json!({ "end": end })),
        })
    }
}

/// The jobs of a stage, if there are any.
fn stage(task: &Task, number: u32) -> Option<Planned> {
    let steps: Vec<Step1> = serde_json::from_value(task.params.clone()).unwrap();
    let spec = |s: &Step1| JobSpec {
        id: JobId::new(s.name.clone()),
        kind: "test.step".into(),
        title: s.name.clone(),
        input: serde_json::to_value(s).unwrap(),
        after: s.after.iter().map(JobId::new).collect(),
        place: Place::Engine,
        retry: RetryPolicy {
            max_attempts: 3,
            backoff_ms: 1,
        },
        weight: 1,
        timeout_ms: None,
    };
    let jobs: Vec<JobSpec> = steps.iter().filter(|s| s.stage == number).map(spec).collect();
    (!jobs.is_empty()).then(|| Planned {
        stage: number.to_string(),
        jobs,
        generation: 1,
        ..Planned::default()
    })
}

fn subject_key(task: &Task) -> Key {
    Key::parse(&format!("subjects/{}", task.subject.id)).unwrap()
}

pub(crate) struct World {
    pub(crate) store: DynBackend,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) hanging: Arc<Notify>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Self {
            store: Arc::new(MemoryStore::new(clock.clone(), MemoryConfig::default())),
            ledger: Arc::default(),
            hanging: Arc::default(),
            ids: Arc::new(SeededIds::new(clock.clone(), 5)),
            clock,
        }
    }

    pub(crate) async fn submit(&self, steps: &[Step1]) -> ActiveTask {
        self.submit_as(steps, |_| {}).await
    }

    /// Submits a task that differs from the usual.
    pub(crate) async fn submit_as(&self, steps: &[Step1], edit: impl FnOnce(&mut Task)) -> ActiveTask {
        let id = Id::fresh(&*self.ids);
        let mut task = Task {
            format: FORMAT,
            id,
            scope: Scope::System,
            flow: "test".into(),
            subject: Subject {
                kind: "things".into(),
                id: id.uuid(),
                name: Name::new("thing").unwrap(),
            },
            params: serde_json::to_value(steps).unwrap(),
            actor: Actor {
                id: "t".into(),
                name: "t".into(),
            },
            request_id: "req-1".into(),
            idempotency_key: None,
            state: TaskState::Queued,
            reason: None,
            progress: Progress::default(),
            owner: None,
            cancel: false,
            priority: skyloom_model::Priority::Normal,
            deadline: None,
            plan_version: 0,
            resume: None,
            orders: Vec::new(),
            result: None,
            created_at: self.clock.now(),
            planned_at: None,
            ended_at: None,
        };
        edit(&mut task);
        let mark = ActiveTask {
            scope: Scope::System,
            task: id,
            priority: skyloom_model::Priority::Normal,
        };
        let txn = Txn::new()
            .create(
                Key::parse(&paths::task(Scope::System, id)).unwrap(),
                Stored::json(&task).unwrap(),
            )
            .create(
                Key::parse(&paths::active(id)).unwrap(),
                Stored::json(&mark).unwrap(),
            );
        assert!(matches!(
            self.store.commit(txn).await.unwrap(),
            Outcome::Committed { .. }
        ));
        mark
    }

    /// Changes a task's record, as the facade does.
    pub(crate) async fn edit(&self, mark: &ActiveTask, edit: impl FnOnce(&mut Task)) {
        let key = Key::parse(&paths::task(mark.scope, mark.task)).unwrap();
        let found = self.store.get(&key).await.unwrap().unwrap();
        let mut task: Task = found.value.parse().unwrap();
        edit(&mut task);
        let txn = Txn::new().replace(key, found.modified, Stored::json(&task).unwrap());
        assert!(matches!(
            self.store.commit(txn).await.unwrap(),
            Outcome::Committed { .. }
        ));
    }

    /// The revision before the task's planning commit that last wrote the task: its claim's.
    pub(crate) async fn revision_of_claim(&self, mark: &ActiveTask) -> Revision {
        use futures::StreamExt as _;
        let prefix = skyloom_store::Prefix::parse("tasks").unwrap();
        let options = skyloom_store::WatchOptions::after(Revision(0));
        let mut history = skyloom_store::Watch::watch(&*self.store, &prefix, options);
        let mut claimed = Revision(0);
        while let Some(event) = history.next().await {
            if let skyloom_store::WatchEvent::Commit { revision, changes } = event.unwrap() {
                let put = changes.iter().any(|c| c.key().last() == mark.task.to_string());
                let task = self.task(mark).await;
                if put && revision < self.planned_at(&task).await {
                    claimed = revision;
                } else if put {
                    return claimed;
                }
            }
        }
        claimed
    }

    async fn planned_at(&self, task: &Task) -> Revision {
        let key = Key::parse(&paths::plan(task.id)).unwrap();
        self.store.get(&key).await.unwrap().unwrap().created
    }

    /// What hung hangs no longer.
    pub(crate) fn heal(&self) {
        self.ledger.lock().healed = true;
    }

    pub(crate) async fn task(&self, mark: &ActiveTask) -> Task {
        let key = Key::parse(&paths::task(mark.scope, mark.task)).unwrap();
        self.store
            .get(&key)
            .await
            .unwrap()
            .unwrap()
            .value
            .parse()
            .unwrap()
    }

    /// One life of an engine: its own lease, driver and worker. Dropping it is a crash.
    pub(crate) async fn life(&self, name: &str) -> Life {
        let job = TestJob {
            ledger: self.ledger.clone(),
            hanging: self.hanging.clone(),
        };
        self.life_with(name, JobRegistry::new().with(job)).await
    }

    /// The same with other jobs.
    pub(crate) async fn life_with(&self, name: &str, jobs: JobRegistry) -> Life {
        let shutdown = CancellationToken::new();
        let (keeper, mut fence) = LeaseKeeper::new(
            self.store.clone(),
            self.clock.clone(),
            LeaseName::parse(&paths::engine_lease(name)).unwrap(),
            name,
            Duration::from_secs(60),
        );
        let (inventory, feed) = InventoryFeed::new(&self.store).unwrap();
        let mut parts = JoinSet::new();
        parts.spawn(keeper.alone().run(shutdown.clone()));
        parts.spawn(feed.run(shutdown.clone()));
        let driver = Driver::new(DriverParts {
            backend: self.store.clone(),
            flows: FlowRegistry::new().with(TestFlow),
            jobs,
            scheduler: Arc::new(FleetScheduler::default()),
            inventory: inventory.clone(),
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            engine: name.into(),
            job_slots: 4,
        });
        inventory.ready().await.unwrap();
        fence.wait_for(Option::is_some).await.unwrap();
        Life {
            driver,
            fence,
            born: Revision(0),
            _parts: parts,
        }
    }
}

/// One life of an engine. Dropping it is a crash.
pub(crate) struct Life {
    pub(crate) driver: Driver,
    pub(crate) fence: latest::Receiver<Option<Fence>>,
    /// Its first revision: 0 takes every task for younger.
    pub(crate) born: Revision,
    _parts: JoinSet<()>,
}

impl Life {
    pub(crate) fn held(&self) -> Fence {
        self.fence.borrow().clone().unwrap()
    }

    /// Drives the task once.
    pub(crate) async fn drive(&self, mark: &ActiveTask) -> Rest {
        let life = skyloom_flow::Life {
            fence: self.held(),
            born: self.born,
        };
        self.drive_as(mark, life).await
    }

    /// Drives the task once as a certain life.
    pub(crate) async fn drive_as(&self, mark: &ActiveTask, life: skyloom_flow::Life) -> Rest {
        let slots = Arc::new(Semaphore::new(1));
        let permit = slots.clone().acquire_owned().await.unwrap();
        let mut slot = Slot::taken(slots, permit);
        let (nudge, shutdown) = (Notify::new(), CancellationToken::new());
        self.driver
            .drive(mark, &life, &mut slot, &nudge, &shutdown)
            .await
            .unwrap()
    }

    /// Drives the task until it rests for good.
    pub(crate) async fn carry(&self, world: &World, mark: &ActiveTask) -> Task {
        loop {
            match self.drive(mark).await {
                Rest::Ended => return world.task(mark).await,
                Rest::Again => {}
                Rest::Until(Some(at)) | Rest::Room(at) => {
                    let wait = at.duration_since(world.clock.now());
                    tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
                }
                Rest::Until(None) => {
                    let task = world.task(mark).await;
                    assert!(task.state.rests(), "it waits for nothing: {task:?}");
                    return task;
                }
                Rest::NotMine => panic!("not mine"),
            }
        }
    }
}
