//! Carries tasks forward: the only place of the engine's side that does IO.
//!
//! ```text
//!  drive(mark): load ──> claim ──> look ──────────────────────────────────────────────┐
//!                 ^                  │ queued/waiting: flow.plan      running …: decide │
//!                 │ conflict, nudge  │ one commit: results so far + what follows        │
//!                 └──────────────────┴──> engine jobs run here ──result──> look … ──> rest
//! ```
//!
//! Between looks nothing is kept but what the store has too; after a conflict everything is read again. Every commit
//! compares the task's revision and the engine's lease, so however many engines drive a task, one commit wins.

mod claim;
mod finish;
mod held;
mod here;
mod look;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skyloom_model::{ActiveTask, Clock, FORMAT, Ids, Plan, TaskId, Timestamp, crash_point};
use skyloom_scheduler::Scheduler;
use skyloom_store::{DynBackend, ErrorKind, Result, Revision};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use self::claim::{Claim, Liveness};
use self::held::Held;
use self::here::Here;
use crate::{Fence, FlowRegistry, InventoryFeed, JobRegistry};

pub use claim::MAX_CLAIMS;

/// Pause after a passing error of the store while jobs run here.
const PAUSE: Duration = Duration::from_millis(200);
/// Conflicts in a row before others get their turn.
const CONFLICTS_IN_A_ROW: usize = 32;

/// What a driver is made of.
#[derive(Debug)]
pub struct DriverParts {
    /// Where everything is.
    pub backend: DynBackend,
    /// The flows that this engine knows.
    pub flows: FlowRegistry,
    /// The jobs that it runs itself.
    pub jobs: JobRegistry,
    /// Chooses hosts.
    pub scheduler: Arc<dyn Scheduler>,
    /// The hosts to choose from.
    pub inventory: Arc<InventoryFeed>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn Ids>,
    /// This engine's name, as it stands in claims.
    pub engine: String,
    /// How many of its own jobs an engine runs at the same time.
    pub job_slots: usize,
}

/// One life of an engine.
#[derive(Debug, Clone)]
pub struct Life {
    /// Under which it commits.
    pub fence: Fence,
    /// The store's revision when it began: tasks that are older may have killed a former life.
    pub born: Revision,
}

/// Why a drive has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// The task has ended.
    Ended,
    /// There is nothing to do until something changes, or until that moment.
    Until(Option<Timestamp>),
    /// There is nothing to do until a host has more room ([`InventoryFeed::grown`]), or until that moment.
    Room(Timestamp),
    /// Others were faster again and again: another turn, after others had theirs.
    Again,
    /// Another engine's, of a flow that this engine does not know, or of a newer format.
    NotMine,
}

/// The right to think: held while a task is looked at, given back while it only waits for its jobs.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Slot {
    /// A slot of `slots`, already taken.
    #[must_use]
    pub fn taken(slots: Arc<Semaphore>, permit: OwnedSemaphorePermit) -> Self {
        Self {
            slots,
            permit: Some(permit),
        }
    }

    fn park(&mut self) {
        self.permit = None;
    }

    async fn resume(&mut self) {
        // The semaphore is never closed; without a permit the task would merely not be counted.
        self.permit = self.slots.clone().acquire_owned().await.ok();
    }
}

/// Carries tasks forward.
#[derive(Debug)]
pub struct Driver {
    parts: DriverParts,
    plans: Mutex<BTreeMap<TaskId, (u32, Arc<Plan>)>>,
    liveness: Liveness,
    job_slots: Arc<Semaphore>,
}

/// What a look at a task led to.
#[derive(Debug)]
enum Look {
    /// The task has ended.
    Ended,
    /// Look again at once, at what is held.
    Go,
    /// Somebody else changed something: read it all again.
    Conflict,
    /// Nothing to do before a job of this engine is done, something changes, or that moment.
    Rest(Option<Timestamp>),
    /// Nothing to do before a host has more room, or that moment.
    Room(Timestamp),
}

impl Driver {
    /// The hosts that it chooses from.
    #[must_use]
    pub fn inventory(&self) -> &InventoryFeed {
        &self.parts.inventory
    }

    /// A driver of these parts.
    #[must_use]
    pub fn new(parts: DriverParts) -> Self {
        Self {
            job_slots: Arc::new(Semaphore::new(parts.job_slots.max(1))),
            parts,
            plans: Mutex::new(BTreeMap::new()),
            liveness: Liveness::default(),
        }
    }

    /// Carries one task as far as it goes now, running the engine's jobs in between. `nudged` says that something about
    /// the task may have changed. Dropping the future is a crash: nothing is lost but the time of jobs under way.
    ///
    /// # Errors
    /// Those of the store; nothing is lost by calling again.
    pub async fn drive(
        &self,
        mark: &ActiveTask,
        life: &Life,
        slot: &mut Slot,
        nudged: &Notify,
        shutdown: &CancellationToken,
    ) -> Result<Rest> {
        let mut here = Here::new(self.job_slots.clone());
        for _ in 0..CONFLICTS_IN_A_ROW {
            match self
                .drive_once(mark, life, &mut here, slot, nudged, shutdown)
                .await
            {
                Ok(Some(rest)) => return Ok(rest),
                Ok(None) => {}
                // Nobody can tell whether the commit happened: what is read next does.
                Err(error) if error.kind() == ErrorKind::Unknown => {}
                Err(error) if error.may_pass() && !here.is_idle() => {
                    tracing::warn!(task = %mark.task, error = %skyloom_model::report(&error), "store not reached");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Rest::Again)
    }

    /// From one reading of the records to the next; `None`: read again.
    async fn drive_once(
        &self,
        mark: &ActiveTask,
        life: &Life,
        here: &mut Here,
        slot: &mut Slot,
        nudged: &Notify,
        shutdown: &CancellationToken,
    ) -> Result<Option<Rest>> {
        let Some(mut held) = self.load(mark).await? else {
            return Ok(Some(Rest::NotMine));
        };
        let task = &held.task.value;
        if task.state.ended() {
            return Ok(Some(Rest::Ended));
        }
        let Some(flow) = self
            .parts
            .flows
            .get(&task.flow)
            .filter(|_| task.format <= FORMAT)
            .cloned()
        else {
            tracing::debug!(task = %mark.task, flow = task.flow, "left to engines that know it");
            return Ok(Some(Rest::NotMine));
        };
        match self.claim(&mut held, life).await? {
            Claim::Mine => {}
            Claim::Theirs => return Ok(Some(Rest::NotMine)),
            Claim::Lost => return Ok(None),
        }
        crash_point("engine.after_claim");
        loop {
            let wake = match self.look(&*flow, &mut held, here, life).await? {
                Look::Ended => return Ok(Some(Rest::Ended)),
                Look::Go => continue,
                Look::Conflict => return Ok(None),
                Look::Room(until) => return Ok(Some(Rest::Room(until))),
                Look::Rest(wake) if here.is_idle() => return Ok(Some(Rest::Until(wake))),
                Look::Rest(wake) => wake,
            };
            slot.park();
            let read_again = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(Some(Rest::Until(None))),
                () = nudged.notified() => true,
                () = here.next() => false,
                () = sleep_until(wake, self.parts.clock.now()), if wake.is_some() => false,
            };
            slot.resume().await;
            if read_again {
                return Ok(None);
            }
        }
    }
}

async fn sleep_until(at: Option<Timestamp>, now: Timestamp) {
    let wait = at
        .and_then(|at| Duration::try_from(at.duration_since(now)).ok())
        .unwrap_or_default();
    tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
}
