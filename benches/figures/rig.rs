//! A real engine over a store, and callers that ask it for workflows.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::json;
use skyloom::engine::{Engine, EngineConfig, EngineParts};
use skyloom::flow::{FlowRegistry, JobRegistry};
use skyloom::model::{Clock as _, Ids, OsIds, Readiness, Scope, SystemClock, Task, TaskId, TaskState, paths};
use skyloom::scheduler::FleetScheduler;
use skyloom::store::{Change, DynBackend, Key, ListOptions, Prefix, Txn, WatchEvent, WatchOptions};
use std::sync::{Mutex, PoisonError};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::meter::{Anyhow, Meter};
use crate::table::Samples;
use crate::ten;

/// Changes that may wait for a watcher of ours.
const BUFFER: usize = 1 << 19;

/// When a closed loop ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// No workflow is begun after this time.
    Time(Duration),
    /// So many workflows.
    Count(usize),
}

/// An engine that works until it is dropped. Dropping it is a crash: its lease stays until it runs out.
pub(crate) struct Running {
    shutdown: CancellationToken,
    work: JoinSet<skyloom::store::Result<()>>,
}

impl Running {
    /// Starts an engine.
    pub(crate) fn start(
        store: &DynBackend,
        clock: SystemClock,
        config: EngineConfig,
        flows: FlowRegistry,
        jobs: JobRegistry,
    ) -> Self {
        let engine = Engine::new(EngineParts {
            backend: store.clone(),
            flows,
            jobs,
            scheduler: Arc::new(FleetScheduler::default()),
            clock: Arc::new(clock),
            ids: Arc::new(OsIds::new(clock)),
            readiness: Readiness::new(),
            config,
        });
        let (shutdown, mut work) = (CancellationToken::new(), JoinSet::new());
        work.spawn(engine.run(shutdown.clone()));
        Self { shutdown, work }
    }

    /// Ends it in order.
    pub(crate) async fn stop(mut self) -> Result<(), Anyhow> {
        self.shutdown.cancel();
        while let Some(ended) = self.work.join_next().await {
            ended??;
        }
        Ok(())
    }
}

type Waiting = Mutex<Option<HashMap<TaskId, oneshot::Sender<Duration>>>>;

/// Tells callers when their task has ended: when its mark is deleted, which is the commit of its end.
pub(crate) struct Ends {
    waiting: Arc<Waiting>,
    _watch: JoinSet<()>,
}

impl Ends {
    pub(crate) async fn watch(store: &DynBackend, clock: SystemClock) -> Result<Self, Anyhow> {
        let prefix = Prefix::parse(paths::ACTIVE)?;
        let page = store.list(&prefix, ListOptions::default().with_limit(1)).await?;
        let mut events = store.watch(&prefix, WatchOptions::after(page.revision).with_buffer(BUFFER));
        let waiting: Arc<Waiting> = Arc::new(Mutex::new(Some(HashMap::new())));
        let told = Arc::clone(&waiting);
        let mut watch = JoinSet::new();
        watch.spawn(async move {
            while let Some(Ok(event)) = events.next().await {
                let changes = match event {
                    WatchEvent::Commit { changes, .. } => changes,
                    WatchEvent::Progress(_) => continue,
                    WatchEvent::Gap { .. } => break,
                };
                let now = clock.monotonic();
                let ended = changes.iter().filter_map(|change| match change {
                    Change::Delete(key) => key.last().parse::<TaskId>().ok(),
                    Change::Put(_) => None,
                });
                for id in ended {
                    let mut waiting = told.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(caller) = waiting.as_mut().and_then(|w| w.remove(&id)) {
                        // A caller that is gone does not hear it.
                        let _ = caller.send(now);
                    }
                }
            }
            // All who wait, and all who come, are told that nobody will tell them.
            told.lock().unwrap_or_else(PoisonError::into_inner).take();
        });
        Ok(Self {
            waiting,
            _watch: watch,
        })
    }

    /// To be called before the task is asked for: waits for its end and says when that was.
    pub(crate) fn of(&self, id: TaskId) -> impl Future<Output = Result<Duration, Anyhow>> + Send + use<> {
        let (caller, told) = oneshot::channel();
        if let Some(waiting) = self
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
        {
            waiting.insert(id, caller);
        }
        async move { told.await.map_err(|_| "the watch of open tasks was lost".into()) }
    }
}

/// An engine for `bench.ten`, and its callers.
pub(crate) struct Rig {
    store: DynBackend,
    clock: SystemClock,
    ids: Arc<dyn Ids>,
    ends: Arc<Ends>,
    engine: Running,
}

impl Rig {
    pub(crate) async fn open(store: DynBackend, clock: SystemClock) -> Result<Self, Anyhow> {
        let ends = Arc::new(Ends::watch(&store, clock).await?);
        let config = EngineConfig::new("bench");
        let engine = Running::start(&store, clock, config, ten::flows(), ten::jobs());
        Ok(Self {
            store,
            clock,
            ids: Arc::new(OsIds::new(clock)),
            ends,
            engine,
        })
    }

    /// Callers of which each asks for its next workflow when the one before has ended. A latency is from the call of the
    /// commit that asks to the end in the caller's hands. What was asked for, for [`Rig::check`], is the second answer.
    pub(crate) async fn closed_loop(
        &self,
        in_flight: usize,
        until: Until,
    ) -> Result<(Samples, Vec<TaskId>), Anyhow> {
        let (limit, count) = match until {
            Until::Time(limit) => (limit, usize::MAX),
            Until::Count(count) => (Duration::MAX, count),
        };
        let left = Arc::new(AtomicUsize::new(count));
        let meter = Meter::start(self.clock)?;
        let start = self.clock.monotonic();
        let mut callers = JoinSet::new();
        for _ in 0..in_flight {
            let (store, clock, ids) = (self.store.clone(), self.clock, self.ids.clone());
            let (ends, left) = (Arc::clone(&self.ends), Arc::clone(&left));
            callers.spawn(async move {
                let mut done = Vec::new();
                let more = |left: usize| left.checked_sub(1);
                loop {
                    let begin = clock.monotonic();
                    if begin.saturating_sub(start) >= limit
                        || left
                            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
                            .is_err()
                    {
                        return Ok::<_, Anyhow>(done);
                    }
                    let id = TaskId::fresh(&*ids);
                    let end = ends.of(id);
                    let txn: Txn = ten::request(ten::FLOW, id, clock.now())?;
                    store
                        .commit(txn)
                        .await?
                        .committed()
                        .ok_or("a request met a conflict")?;
                    end.await?;
                    done.push((id, clock.monotonic().saturating_sub(begin)));
                }
            });
        }
        let (mut asked, mut took) = (Vec::new(), Vec::new());
        while let Some(caller) = callers.join_next().await {
            for (id, time) in caller?? {
                asked.push(id);
                took.push(time);
            }
        }
        Ok((Samples::new(took, meter.stop()?), asked))
    }

    /// Each of `tasks` is done, with the right result.
    pub(crate) async fn check(&self, tasks: impl IntoIterator<Item = &TaskId>) -> Result<(), Anyhow> {
        for id in tasks {
            let key = Key::parse(&paths::task(Scope::System, *id))?;
            let task: Task = self
                .store
                .get(&key)
                .await?
                .ok_or("a task is gone")?
                .value
                .parse()?;
            if task.state != TaskState::Done || task.result != Some(json!(ten::STEPS)) {
                return Err(
                    format!("task {id}: {:?} {:?} {:?}", task.state, task.result, task.reason).into(),
                );
            }
        }
        Ok(())
    }

    pub(crate) async fn close(self) -> Result<(), Anyhow> {
        self.engine.stop().await
    }
}
