//! Which task to look at next: every one whose mark, or one of whose jobs, has changed; those whose time has come; and
//! all of them now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use skyloom_flow::{Driver, Fence, Held, Life, Rest, Slot};
use skyloom_model::{ActiveTask, Clock, TaskId, Timestamp, paths};
use skyloom_store::{Changed, DynBackend, Key, Mirror, MirrorDriver, Result, Revision, latest};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fair::Fair;
use crate::rooms::Rooms;
use crate::{EngineConfig, prefix};

/// Pause before a task whose turn failed for a passing reason has another.
const PAUSE: jiff::SignedDuration = jiff::SignedDuration::from_millis(200);

/// How often it is looked whether another engine has died.
const PULSE: Duration = Duration::from_secs(1);

/// The engine's work list.
#[derive(Debug)]
pub(crate) struct Queue {
    driver: Arc<Driver>,
    clock: Arc<dyn Clock>,
    fence: latest::Receiver<Option<Fence>>,
    held: latest::Receiver<Held>,
    concurrency: usize,
    resync: Duration,
    active: (Mirror<ActiveTask>, MirrorDriver<ActiveTask>),
    jobs: (Mirror<Touched>, MirrorDriver<Touched>),
}

/// A job's record, of which only the key matters here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Touched;

impl serde::Serialize for Touched {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> serde::Deserialize<'de> for Touched {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// A task whose turn is over, and when it wants another.
struct Turn {
    task: TaskId,
    again: Option<Timestamp>,
    /// Whether it waits for room on some host, and what there was of that when its turn began.
    room: Option<u64>,
}

/// The turns under way and to come.
struct Turns {
    fair: Fair,
    busy: BTreeMap<TaskId, Arc<Notify>>,
    /// Changed while busy.
    again: BTreeSet<TaskId>,
    /// Wanted at a moment.
    timers: BTreeSet<(Timestamp, TaskId)>,
    rooms: Rooms,
    marks: Mirror<ActiveTask>,
}

impl Turns {
    fn want(&mut self, task: TaskId) {
        if let Some(nudge) = self.busy.get(&task) {
            nudge.notify_one();
            self.again.insert(task);
        } else if let Some(mark) = mark(&self.marks, task) {
            self.fair.insert(task, mark.scope, mark.priority);
        }
    }

    fn want_due(&mut self, now: Timestamp) {
        while let Some((at, task)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, task));
            self.want(task);
        }
    }

    /// Those who wait for room and have not looked since there is as much as now.
    fn want_room(&mut self, grown: u64) {
        while let Some(task) = self.rooms.next(grown) {
            // Ended elsewhere meanwhile: no turn will be over that gives its place back.
            match mark(&self.marks, task) {
                Some(_) => self.want(task),
                None => self.rooms.leave(task),
            }
        }
    }

    fn over(&mut self, turn: Turn, now: Timestamp) {
        self.busy.remove(&turn.task);
        match turn.room {
            Some(seen) => self.rooms.enter(turn.task, seen),
            None => self.rooms.leave(turn.task),
        }
        if self.again.remove(&turn.task) {
            self.want(turn.task);
        }
        match turn.again {
            Some(at) if at <= now => self.want(turn.task),
            Some(at) => {
                self.timers.insert((at, turn.task));
            }
            None => {}
        }
    }
}

impl Queue {
    pub(crate) fn new(
        backend: &DynBackend,
        driver: Driver,
        clock: Arc<dyn Clock>,
        (fence, held): (latest::Receiver<Option<Fence>>, latest::Receiver<Held>),
        config: &EngineConfig,
    ) -> Result<Self> {
        Ok(Self {
            driver: Arc::new(driver),
            clock,
            fence,
            held,
            concurrency: config.concurrency,
            resync: config.resync,
            active: Mirror::new(backend.clone(), prefix(paths::ACTIVE)?),
            jobs: Mirror::new(backend.clone(), prefix(paths::JOBS)?),
        })
    }

    /// Waits until the caches are filled.
    pub(crate) fn ready(&self) -> impl Future<Output = Result<usize>> + use<> {
        let (marks, jobs) = (self.active.0.clone(), self.jobs.0.clone());
        async move {
            jobs.ready().await?;
            marks.ready().await?;
            Ok(marks.snapshot().len())
        }
    }

    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let Self {
            driver,
            clock,
            mut fence,
            held: mut on_hold,
            concurrency,
            resync,
            active,
            jobs,
        } = self;
        let (marks, marks_driver) = active;
        let (job_keys, jobs_driver) = jobs;
        let feeds = async {
            tokio::join!(
                marks_driver.run(shutdown.clone()),
                jobs_driver.run(shutdown.clone())
            )
        };
        tokio::pin!(feeds);
        let mut mark_changes = marks.changes();
        let mut job_changes = job_keys.changes();
        let mut grown = driver.inventory().grown();
        let mut tick = tokio::time::interval(resync);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let deaths = deaths(&driver);
        tokio::pin!(deaths);
        let slots = Arc::new(Semaphore::new(concurrency));
        let mut running: JoinSet<Turn> = JoinSet::new();
        let mut turns = Turns {
            fair: Fair::new(),
            busy: BTreeMap::new(),
            again: BTreeSet::new(),
            timers: BTreeSet::new(),
            rooms: Rooms::default(),
            marks: marks.clone(),
        };
        // What is older than the first complete listing may have ended a former life of this engine.
        let mut born: Option<Revision> = None;
        loop {
            let now = clock.now();
            turns.want_due(now);
            turns.want_room(*grown.borrow_and_update());
            let held = fence.borrow_and_update().clone();
            let next_timer = turns.timers.first().map(|(at, _)| *at);
            let free = on_hold.borrow_and_update().free();
            let may_begin = free && held.is_some() && born.is_some() && !turns.fair.is_empty();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = &mut feeds => return,
                changed = fence.changed() => if changed.is_err() { return },
                changed = on_hold.changed() => if changed.is_err() { return },
                ready = marks.ready(), if born.is_none() => match ready {
                    Ok(()) => born = Some(marks.revision()),
                    Err(_) => return,
                },
                Some(turn) = running.join_next(), if !running.is_empty() => match turn {
                    Ok(turn) => turns.over(turn, now),
                    Err(error) => tracing::error!(%error, "a turn was cut off"),
                },
                () = &mut deaths => {
                    deaths.set(self::deaths(&driver));
                    let all: Vec<TaskId> = marks.snapshot().iter().map(|m| m.value.task).collect();
                    all.into_iter().for_each(|task| turns.want(task));
                }
                _ = tick.tick() => {
                    let all: Vec<TaskId> = marks.snapshot().iter().map(|m| m.value.task).collect();
                    all.into_iter().for_each(|task| turns.want(task));
                }
                () = until(next_timer, now), if next_timer.is_some() => {}
                changed = grown.changed() => if changed.is_err() { return },
                Some(changed) = mark_changes.next() => {
                    tasks_of(&changed, &marks).into_iter().for_each(|task| turns.want(task));
                }
                Some(changed) = job_changes.next() => {
                    tasks_of(&changed, &marks).into_iter().for_each(|task| turns.want(task));
                }
                permit = slots.clone().acquire_owned(), if may_begin => {
                    if let (Some(fence), Some(born), Some(task), Ok(permit)) = (held, born, turns.fair.pop(), permit) {
                        let Some(mark) = mark(&marks, task) else {
                            turns.rooms.leave(task);
                            continue;
                        };
                        let nudge = Arc::new(Notify::new());
                        turns.busy.insert(task, nudge.clone());
                        let slot = Slot::taken(slots.clone(), permit);
                        let life = Life { fence, born };
                        let grown = *grown.borrow();
                        let stop = (nudge, shutdown.clone());
                        running.spawn(turn(driver.clone(), clock.clone(), mark, life, slot, grown, stop));
                    }
                }
            }
        }
    }
}

/// Waits until an engine that was seen alive has died.
async fn deaths(driver: &Driver) {
    loop {
        tokio::time::sleep(PULSE).await;
        match driver.deaths().await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "cannot tell which engines live"),
        }
    }
}

fn mark(marks: &Mirror<ActiveTask>, id: TaskId) -> Option<ActiveTask> {
    let key = Key::parse(&paths::active(id)).ok()?;
    marks.get(&key).map(|m| m.value.clone())
}

/// `active/{task}` and `jobs/{host}/{task}/{job}` both name the task.
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

async fn until(at: Option<Timestamp>, now: Timestamp) {
    let wait = at
        .and_then(|at| Duration::try_from(at.duration_since(now)).ok())
        .unwrap_or_default();
    tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
}

/// Carries one task as far as it goes now.
async fn turn(
    driver: Arc<Driver>,
    clock: Arc<dyn Clock>,
    mark: ActiveTask,
    life: Life,
    mut slot: Slot,
    grown: u64,
    (nudge, shutdown): (Arc<Notify>, CancellationToken),
) -> Turn {
    let task = mark.task;
    let driven = driver.drive(&mark, &life, &mut slot, &nudge, &shutdown);
    let mut room = None;
    let again = match AssertUnwindSafe(driven).catch_unwind().await {
        Ok(Ok(Rest::Until(at))) => at,
        Ok(Ok(Rest::Room(at))) => {
            room = Some(grown);
            Some(at)
        }
        Ok(Ok(Rest::Again)) => Some(clock.now()),
        Ok(Ok(Rest::Ended | Rest::NotMine)) => None,
        Ok(Err(error)) => {
            let text = skyloom_model::report(&error);
            // What cannot be decoded stays so until somebody writes it: the resync looks again, and so does its change.
            if !error.may_pass() {
                tracing::error!(%task, error = text, "a task's records cannot be used: left alone");
                None
            } else {
                tracing::warn!(%task, error = text, "a turn failed; there will be another");
                clock.now().checked_add(PAUSE).ok()
            }
        }
        Err(_) => {
            tracing::error!(%task, "a turn panicked: the task is left alone until it changes");
            None
        }
    };
    Turn { task, again, room }
}
