//! Which task to look at next: every one whose mark, or one of whose jobs, has changed; and all of them now and then.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use skyloom_flow::{Driver, Fence, Step};
use skyloom_model::{ActiveTask, JobRecord, TaskId, paths};
use skyloom_store::{Changed, DynBackend, Key, Mirror, MirrorDriver, Result};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{EngineConfig, prefix};

/// Steps of one task in a row before others get their turn.
const STEPS_IN_A_ROW: usize = 32;

/// The engine's work list.
#[derive(Debug)]
pub(crate) struct Queue {
    driver: Arc<Driver>,
    fence: watch::Receiver<Option<Fence>>,
    concurrency: usize,
    resync: Duration,
    active: (Mirror<ActiveTask>, MirrorDriver<ActiveTask>),
    jobs: (Mirror<JobRecord>, MirrorDriver<JobRecord>),
}

/// A task whose turn is over, and whether it wants another.
struct Turn {
    task: TaskId,
    again: Option<Duration>,
}

impl Queue {
    pub(crate) fn new(
        backend: &DynBackend,
        driver: Driver,
        fence: watch::Receiver<Option<Fence>>,
        config: &EngineConfig,
    ) -> Result<Self> {
        Ok(Self {
            driver: Arc::new(driver),
            fence,
            concurrency: config.concurrency,
            resync: config.resync,
            active: Mirror::new(backend.clone(), prefix(paths::ACTIVE)?),
            jobs: Mirror::new(backend.clone(), prefix(paths::JOBS)?),
        })
    }

    /// The caches that must be filled before work begins.
    pub(crate) fn mirrors(&self) -> (Mirror<ActiveTask>, Mirror<JobRecord>) {
        (self.active.0.clone(), self.jobs.0.clone())
    }

    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let Self {
            driver,
            mut fence,
            concurrency,
            resync,
            active,
            jobs,
        } = self;
        let (marks, marks_driver) = active;
        let (job_records, jobs_driver) = jobs;
        let feeds = async {
            tokio::join!(
                marks_driver.run(shutdown.clone()),
                jobs_driver.run(shutdown.clone())
            )
        };
        tokio::pin!(feeds);
        let mut mark_changes = marks.changes();
        let mut job_changes = job_records.changes();
        let mut tick = tokio::time::interval(resync);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut pending: BTreeSet<TaskId> = BTreeSet::new(); // ids sort by age: oldest first
        let mut again: BTreeSet<TaskId> = BTreeSet::new();
        let mut running: JoinSet<Turn> = JoinSet::new();
        let mut busy: HashSet<TaskId> = HashSet::new();
        loop {
            let held = fence.borrow_and_update().clone();
            if let Some(held) = held {
                while running.len() < concurrency
                    && let Some(id) = pending.pop_first()
                {
                    let Some(mark) = mark(&marks, id) else { continue };
                    if busy.insert(id) {
                        running.spawn(turn(driver.clone(), mark, held.clone()));
                    } else {
                        again.insert(id);
                    }
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = &mut feeds => return,
                Some(changed) = mark_changes.next() => pending.extend(tasks_of(&changed, &marks)),
                Some(changed) = job_changes.next() => pending.extend(tasks_of(&changed, &marks)),
                _ = tick.tick() => pending.extend(marks.snapshot().iter().map(|m| m.value.task)),
                _ = fence.changed() => {}
                Some(turn) = running.join_next(), if !running.is_empty() => match turn {
                    Ok(Turn { task, again: wants }) => {
                        busy.remove(&task);
                        if wants.is_some() || again.remove(&task) {
                            pending.insert(task);
                        }
                    }
                    Err(error) => {
                        // Which task it was is not told: the tick finds it again once nothing runs.
                        tracing::error!(%error, "a task's step panicked");
                        if running.is_empty() {
                            busy.clear();
                        }
                    }
                },
            }
        }
    }
}

fn mark(marks: &Mirror<ActiveTask>, id: TaskId) -> Option<ActiveTask> {
    let key = Key::parse(&paths::active(id)).ok()?;
    marks.get(&key).map(|m| m.value.clone())
}

/// `active/{task}` and `jobs/{place}/{task}/{job}` both name the task.
fn tasks_of(changed: &Changed, marks: &Mirror<ActiveTask>) -> Vec<TaskId> {
    match changed {
        Changed::Everything => marks.snapshot().iter().map(|m| m.value.task).collect(),
        Changed::Keys(keys) => keys
            .iter()
            .filter_map(|key| {
                let mut segments = key.segments();
                match segments.next()? {
                    paths::ACTIVE => segments.next()?.parse().ok(),
                    _ => segments.nth(1)?.parse().ok(),
                }
            })
            .collect(),
    }
}

/// Steps one task until there is nothing to do.
async fn turn(driver: Arc<Driver>, mark: ActiveTask, fence: Fence) -> Turn {
    let task = mark.task;
    for _ in 0..STEPS_IN_A_ROW {
        match driver.step(&mark, &fence).await {
            Ok(Step::Advanced | Step::Conflict) => {}
            Ok(Step::Waiting | Step::Ended | Step::NotMine) => return Turn { task, again: None },
            Err(error) => {
                tracing::warn!(%task, error = %skyloom_model::report(&error), "a step failed; it is tried again");
                let pause = Duration::from_millis(200);
                tokio::time::sleep(pause).await;
                return Turn {
                    task,
                    again: Some(pause),
                };
            }
        }
    }
    Turn {
        task,
        again: Some(Duration::ZERO),
    }
}
