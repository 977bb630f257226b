//! The torture harness sees what it is there to see: a sound flow passes, and each way of being unsound is found.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use skyloom_flow::harness::{Arena, Back, Case, Digest, World, torture};
use skyloom_flow::{
    Companion, FlowRegistry, Job, JobContext, JobError, JobRegistry, PlanContext, Planned, Records, Refusal,
    SettleContext, Settled, TaskFlow, Undo,
};
use skyloom_model::{
    ActiveTask, Actor, Clock, FORMAT, HostId, Id, Ids, JobId, JobSpec, Name, OrderVerb, Place, Priority,
    Progress, Reason, RetryPolicy, Scope, SeededIds, Subject, Task, TaskEnd, TaskId, TaskState, paths,
};
use skyloom_scheduler::{FleetScheduler, Scheduler};
use skyloom_store::{DynBackend, Key, MemoryConfig, MemoryStore, Txn, Value as Stored};

/// What is wrong with a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// A job does not look before it acts.
    ActsTwice,
    /// An undo forgets a half-made effect.
    UndoesOnlyWhatSucceeded,
    /// An undo cannot be repeated.
    UndoesOnce,
    /// An undo says that it was done and does nothing.
    UndoesNothing,
    /// An undo says that there is nothing to do.
    SaysMoot,
    /// What settling should take back stays.
    SettlesOnlySuccess,
    /// The record of what was asked for cannot be asked for again.
    OnlyOnce,
}

/// Effects outside the store: how often each is there, and how often each was made.
#[derive(Debug, Default)]
struct Outside {
    there: BTreeMap<String, u32>,
    made: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Make {
    flaw: Flaw,
    outside: Arc<Mutex<Outside>>,
}

#[async_trait]
impl Job for Make {
    fn kind(&self) -> &'static str {
        "make"
    }
    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let name: String = cx.input()?;
        let mut outside = self.outside.lock();
        if self.flaw == Flaw::ActsTwice || !outside.there.contains_key(&name) {
            *outside.there.entry(name.clone()).or_default() += 1;
            *outside.made.entry(name).or_default() += 1;
        }
        Ok(json!({}))
    }
    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let name: String = cx.input()?;
        let mut outside = self.outside.lock();
        match self.flaw {
            Flaw::UndoesNothing => return Ok(Undo::Undone),
            Flaw::SaysMoot => return Ok(Undo::Moot("so it says".to_owned())),
            Flaw::UndoesOnlyWhatSucceeded if cx.record.output.is_none() => {
                return Ok(Undo::Moot("it failed".to_owned()));
            }
            Flaw::UndoesOnce if !outside.there.contains_key(&name) => {
                return Err(JobError::permanent("test.gone", "it is gone already"));
            }
            _ => {}
        }
        outside.there.remove(&name);
        Ok(Undo::Undone)
    }
}

#[derive(Debug)]
struct ThreeThings {
    flaw: Flaw,
    host: HostId,
}

fn mark() -> Key {
    Key::parse("marks/asked").unwrap()
}

impl TaskFlow for ThreeThings {
    fn name(&self) -> &'static str {
        "three.things"
    }
    fn reads(&self, _: &Task, _: &Records, _: &BTreeMap<JobId, Value>) -> Vec<Key> {
        vec![mark()]
    }
    fn plan(&self, _: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let job = |name: &str, after: &[&str], place| JobSpec {
            id: JobId::new(name),
            kind: "make".to_owned(),
            title: name.to_owned(),
            input: json!(name),
            after: after.iter().map(|a| JobId::new(*a)).collect(),
            place,
            retry: RetryPolicy::default(),
            weight: 1,
            timeout_ms: None,
        };
        if self.flaw == Flaw::OnlyOnce && cx.records.get::<Value>(&mark())?.is_some() {
            return Err(Reason::new("test.again", "it was asked for before").into());
        }
        Ok(Planned {
            jobs: vec![
                job("a", &[], Place::Host(self.host)),
                job("b", &["a"], Place::Engine),
                job("c", &["a"], Place::Host(self.host)),
            ],
            changes: cx.records.put(Txn::new(), &mark(), &json!("under way"))?,
            generation: 1,
            ..Planned::default()
        })
    }
    fn settle(&self, _: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let changes = match cx.end {
            TaskEnd::Done => cx.records.put(Txn::new(), &mark(), &json!("done"))?,
            _ if matches!(self.flaw, Flaw::SettlesOnlySuccess | Flaw::OnlyOnce) => Txn::new(),
            _ => cx.records.delete(Txn::new(), &mark()),
        };
        Ok(Settled {
            changes,
            result: None,
        })
    }
}

#[derive(Debug)]
struct Workshops(Flaw);

#[derive(Debug)]
struct Workshop {
    flaw: Flaw,
    store: DynBackend,
    ids: Arc<dyn Ids>,
    clock: Arc<dyn Clock>,
    host: HostId,
    outside: Arc<Mutex<Outside>>,
}

const CASE: Case = Case {
    flow: "three.things",
    name: "the only one",
    back: Back::Before,
};

#[async_trait]
impl Arena for Workshops {
    fn cases(&self) -> Vec<Case> {
        vec![CASE]
    }
    async fn world(&self, _: &Case, clock: Arc<dyn Clock>) -> Arc<dyn World> {
        let ids: Arc<dyn Ids> = Arc::new(SeededIds::new(clock.clone(), 3));
        Arc::new(Workshop {
            flaw: self.0,
            store: Arc::new(MemoryStore::new(clock.clone(), MemoryConfig::default())),
            host: Id::fresh(&*ids),
            ids,
            clock,
            outside: Arc::default(),
        })
    }
}

impl Workshop {
    async fn change(&self, id: TaskId, change: impl Fn(&mut Task) + Send) {
        let at = Key::parse(&paths::task(Scope::System, id)).unwrap();
        loop {
            let found = self.store.get(&at).await.unwrap().unwrap();
            let mut task: Task = found.value.parse().unwrap();
            if task.state.ended() {
                return;
            }
            change(&mut task);
            let active = Key::parse(&paths::active(id)).unwrap();
            let txn = Txn::new()
                .replace(at.clone(), found.modified, Stored::json(&task).unwrap())
                .put(active, Stored::json(&ActiveTask::of(&task)).unwrap());
            if self.store.commit(txn).await.unwrap().committed().is_some() {
                return;
            }
        }
    }
}

#[async_trait]
impl World for Workshop {
    fn backend(&self) -> DynBackend {
        self.store.clone()
    }
    fn flows(&self) -> FlowRegistry {
        FlowRegistry::new().with(ThreeThings {
            flaw: self.flaw,
            host: self.host,
        })
    }
    fn engine_jobs(&self) -> JobRegistry {
        JobRegistry::new().with(Make {
            flaw: self.flaw,
            outside: self.outside.clone(),
        })
    }
    fn hosts(&self) -> Vec<HostId> {
        vec![self.host]
    }
    fn host_jobs(&self, _: HostId, _: DynBackend) -> JobRegistry {
        self.engine_jobs()
    }
    fn companion(&self, _: HostId) -> Option<Arc<dyn Companion>> {
        None
    }
    fn scheduler(&self) -> Arc<dyn Scheduler> {
        Arc::new(FleetScheduler::default())
    }
    fn ids(&self) -> Arc<dyn Ids> {
        self.ids.clone()
    }
    async fn ask(&self) -> Task {
        let task = Task {
            format: FORMAT,
            id: Id::fresh(&*self.ids),
            scope: Scope::System,
            flow: CASE.flow.to_owned(),
            subject: Subject {
                kind: "things".to_owned(),
                id: self.ids.uuid(),
                name: Name::new("thing").unwrap(),
            },
            params: json!({}),
            actor: Actor {
                id: "test".to_owned(),
                name: "test".to_owned(),
            },
            request_id: "req-test".to_owned(),
            idempotency_key: None,
            state: TaskState::Queued,
            reason: None,
            progress: Progress::default(),
            owner: None,
            cancel: false,
            priority: Priority::Normal,
            deadline: None,
            plan_version: 0,
            resume: None,
            orders: Vec::new(),
            result: None,
            created_at: self.clock.now(),
            planned_at: None,
            ended_at: None,
        };
        let at = Key::parse(&paths::task(task.scope, task.id)).unwrap();
        let active = Key::parse(&paths::active(task.id)).unwrap();
        let txn = Txn::new()
            .create(at, Stored::json(&task).unwrap())
            .create(active, Stored::json(&ActiveTask::of(&task)).unwrap());
        self.store.commit(txn).await.unwrap();
        task
    }
    async fn ask_again(&self) -> Option<Task> {
        Some(self.ask().await)
    }
    async fn cancel(&self, task: TaskId) {
        self.change(task, |task| task.cancel = true).await;
    }
    async fn order(&self, task: TaskId, verb: OrderVerb) {
        let order = skyloom_model::Order {
            verb,
            by: Actor {
                id: "test".to_owned(),
                name: "test".to_owned(),
            },
            at: self.clock.now(),
            request_id: "req-test".to_owned(),
            why: "repaired".to_owned(),
            carried_out: false,
        };
        self.change(task, |task| task.orders.push(order.clone())).await;
    }
    async fn digest(&self) -> Digest {
        let outside = self.outside.lock();
        outside
            .there
            .iter()
            .map(|(name, n)| (name.clone(), n.to_string()))
            .collect()
    }
    async fn tally(&self) -> BTreeMap<String, u64> {
        self.outside.lock().made.clone()
    }
    async fn leftovers(&self, ended: &Task) -> Vec<String> {
        let found = self.store.get(&mark()).await.unwrap();
        let is: Option<String> = found.map(|kv| kv.value.parse().unwrap());
        let fits = match (ended.state, is.as_deref()) {
            (TaskState::Done, is) => is == Some("done"),
            (_, is) => is.is_none() || self.flaw == Flaw::OnlyOnce,
        };
        if fits {
            Vec::new()
        } else {
            vec![format!("a mark {is:?}")]
        }
    }
}

fn tortured(flaw: Flaw) -> Result<usize, Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(torture(&Workshops(flaw), &CASE))
}

/// The runs that went wrong, as text.
fn wrong(flaw: Flaw) -> Vec<String> {
    tortured(flaw).expect_err("the flaw is not seen")
}

#[test]
fn a_sound_flow_passes() {
    let runs = tortured(Flaw::None).unwrap();
    assert!(runs > 60, "{runs}");
}

#[test]
fn a_job_that_does_not_look_before_it_acts_is_seen() {
    let wrong = wrong(Flaw::ActsTwice);
    assert!(wrong.iter().any(|w| w.contains("Twice: ")), "{wrong:?}");
    assert!(wrong.iter().any(|w| w.contains("Crash")), "{wrong:?}");
}

#[test]
fn an_undo_that_forgets_what_was_half_made_is_seen() {
    let wrong = wrong(Flaw::UndoesOnlyWhatSucceeded);
    assert!(wrong.iter().all(|w| w.contains("not as before")), "{wrong:?}");
    assert!(wrong.iter().any(|w| w.contains("After, ForGood")), "{wrong:?}");
}

#[test]
fn an_undo_that_cannot_be_repeated_is_seen() {
    let wrong = wrong(Flaw::UndoesOnce);
    assert!(wrong.iter().any(|w| w.contains("stuck")), "{wrong:?}");
}

#[test]
fn an_undo_that_does_nothing_is_seen() {
    for flaw in [Flaw::UndoesNothing, Flaw::SaysMoot] {
        let wrong = wrong(flaw);
        assert!(wrong.iter().any(|w| w.contains("Cancel")), "{flaw:?}: {wrong:?}");
    }
}

#[test]
fn an_end_that_is_settled_only_when_all_went_well_is_seen() {
    let wrong = wrong(Flaw::SettlesOnlySuccess);
    assert!(wrong.iter().all(|w| w.contains("left over: a mark")), "{wrong:?}");
}

#[test]
fn a_failure_after_which_nobody_can_ask_again_is_seen() {
    let wrong = wrong(Flaw::OnlyOnce);
    assert!(
        wrong.iter().all(|w| w.contains("asked again, ended as Failed")),
        "{wrong:?}"
    );
}
