//! Makes the effects: runs the jobs of one host (in its agent).
//!
//! ```text
//!  jobs/{host}/ ──mirror──> Queue ── commit `started` ── journal: intent ── lease's deadline ──> Job::run / Job::undo
//!                              │ one subject, one job at a time                                        │
//!                              │                     commit result + companion writes <── journal: outcome
//!                              │                     (guards: record revision, lease)
//!                              └ `started` by a former life, or by a worker whose lease is gone: what the journal has is
//!                                reported, the rest is run again; jobs look before they act
//! ```
//!
//! What this worker cannot read is left alone, neither run nor failed: kinds and formats of a newer version, records that are
//! none. It is told once, and looked at again when the record changes.

mod attempt;
mod queue;
mod report;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use skyloom_model::{Clock, FORMAT, HostId, JobRecord, Place, Timestamp, paths};
use skyloom_store::{
    Changed, DynBackend, Error, ErrorKind, Key, Mirror, Prefix, Result, Revision, Txn, Versioned, latest,
};
use tokio::task::{Id as RunId, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use self::attempt::{Finished, attempt};
use self::queue::Queue;
use crate::journal::{Effect, Journal};
use crate::{Fence, Held, JobRegistry};

/// Writes that go into the same commit as a job's result: what the worker saw of the world after it.
#[async_trait]
pub trait Companion: Send + Sync + Debug + 'static {
    /// Looks after `record`'s job has run, whatever came of it.
    async fn writes(&self, record: &JobRecord) -> Txn;
}

/// What a worker is made of.
#[derive(Debug, Clone)]
pub struct WorkerParts {
    /// Where everything is.
    pub backend: DynBackend,
    /// Whose jobs: a host's.
    pub host: HostId,
    /// The jobs that it can do.
    pub jobs: JobRegistry,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The lease under which it writes.
    pub fence: latest::Receiver<Option<Fence>>,
    /// What it is about to do and what came of it, across its own death.
    pub journal: Arc<dyn Journal>,
    /// What it adds to results.
    pub companion: Option<Arc<dyn Companion>>,
    /// Jobs at the same time.
    pub concurrency: usize,
}

/// Runs the jobs of one host until shutdown.
#[derive(Debug)]
pub struct Worker {
    parts: WorkerParts,
    mirror: Mirror<JobRecord>,
    driver: skyloom_store::MirrorDriver<JobRecord>,
    held: Option<latest::Receiver<Held>>,
}

/// When a job is looked at again that another live worker has, that the journal could not take, or that panicked outside
/// of its code.
const LOOK_AGAIN: jiff::SignedDuration = jiff::SignedDuration::from_secs(2);

impl Worker {
    /// A worker of these parts.
    ///
    /// # Errors
    /// Never in practice: host ids make valid prefixes.
    pub fn new(parts: WorkerParts) -> Result<Self> {
        let prefix = Prefix::parse(&paths::jobs(parts.host))
            .map_err(|e| Error::new(ErrorKind::Internal, "worker").because(e))?;
        let (mirror, driver) = Mirror::new(parts.backend.clone(), prefix);
        Ok(Self {
            parts,
            mirror,
            driver,
            held: None,
        })
    }

    /// The same, which begins nothing while the fleet is held. What is under way goes on and is reported.
    #[must_use]
    pub fn held_by(mut self, held: latest::Receiver<Held>) -> Self {
        self.held = Some(held);
        self
    }

    /// The worker's view of its jobs, to wait for readiness.
    #[must_use]
    pub fn mirror(&self) -> Mirror<JobRecord> {
        self.mirror.clone()
    }

    /// Works until `shutdown`. Jobs under way are dropped then: they are continued by the next life.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut changes = self.mirror.changes();
        let mut fence = self.parts.fence.clone();
        let mut held = self.held;
        let mut desk = Desk {
            parts: Arc::new(self.parts),
            mirror: self.mirror,
            queue: Queue::default(),
            left_alone: BTreeMap::new(),
            running: JoinSet::new(),
            keys: BTreeMap::new(),
        };
        let feed = self.driver.run(shutdown.clone());
        tokio::pin!(feed);
        loop {
            let now = desk.parts.clock.now();
            let mut wake = None;
            let free = held.as_mut().is_none_or(|held| held.borrow_and_update().free());
            if fence.borrow_and_update().is_some() && free {
                desk.start(now, &shutdown);
                wake = desk.queue.wake();
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                changed = fence.changed() => if changed.is_err() { return },
                changed = other(&mut held) => if changed.is_err() { return },
                Some(ended) = desk.running.join_next_with_id(), if !desk.running.is_empty() => desk.ended(ended),
                () = sleep_until(wake, now), if wake.is_some() => {}
                () = &mut feed => return,
                changed = changes.next() => match changed {
                    Some(changed) => desk.changed(changed),
                    None => return,
                },
            }
        }
    }
}

/// Waits until the hold is another.
async fn other(held: &mut Option<latest::Receiver<Held>>) -> Result<(), latest::Closed> {
    match held {
        Some(held) => held.changed().await,
        None => std::future::pending().await,
    }
}

/// What lies before a worker.
struct Desk {
    parts: Arc<WorkerParts>,
    mirror: Mirror<JobRecord>,
    queue: Queue,
    /// What was told to be left alone, by the revision at which it was told.
    left_alone: BTreeMap<Key, Revision>,
    running: JoinSet<Finished>,
    keys: BTreeMap<RunId, Key>,
}

impl Desk {
    /// Begins what can be begun.
    fn start(&mut self, now: Timestamp, shutdown: &CancellationToken) {
        while self.running.len() < self.parts.concurrency {
            let Some(key) = self.queue.next(now) else { return };
            let Some(record) = self.mirror.get(&key) else {
                self.queue.done(&key, Revision(0));
                continue;
            };
            let span = tracing::info_span!(
                "job",
                task = %record.value.task,
                job = %record.value.spec.id,
                kind = record.value.spec.kind,
                want = ?record.value.want,
                attempt = record.value.attempt,
                request_id = record.value.request_id
            );
            let run = attempt(self.parts.clone(), (*record).clone(), shutdown.clone());
            let handle = self.running.spawn(run.instrument(span));
            self.keys.insert(handle.id(), key);
        }
    }

    fn ended(&mut self, ended: Result<(RunId, Finished), tokio::task::JoinError>) {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Some(key) = self.keys.remove(&id) else {
            return;
        };
        match ended {
            Ok((_, Finished::Seen(revision))) => self.queue.done(&key, revision),
            Ok((_, Finished::LookAgain)) => self.put_off(&key),
            Err(error) => {
                tracing::error!(%error, %key, "a job's attempt panicked");
                self.put_off(&key);
            }
        }
        self.look(&key);
        self.sweep();
    }

    fn put_off(&mut self, key: &Key) {
        let now = self.parts.clock.now();
        self.queue
            .put_off(key, now.saturating_add(LOOK_AGAIN).unwrap_or(now));
    }

    fn changed(&mut self, changed: Changed) {
        match changed {
            Changed::Keys(keys) => keys.iter().for_each(|key| self.look(key)),
            Changed::Everything => {
                let mut keys = self.queue.keys();
                keys.extend(self.left_alone.keys().cloned());
                keys.extend(self.mirror.snapshot().iter().map(|r| r.key.clone()));
                keys.extend(self.mirror.quarantined().into_iter().map(|q| q.key));
                keys.iter().for_each(|key| self.look(key));
            }
        }
        self.sweep();
    }

    /// Looks at what is under `key` now.
    fn look(&mut self, key: &Key) {
        let record = self.mirror.get(key);
        let unreadable = match &record {
            Some(r) if r.value.format > FORMAT => Some((r.modified, format!("format {}", r.value.format))),
            Some(r) if r.value.state.for_worker() && self.parts.jobs.get(&r.value.spec.kind).is_none() => {
                Some((r.modified, format!("kind {}", r.value.spec.kind)))
            }
            Some(_) => None,
            None => {
                let mut quarantined = self.mirror.quarantined().into_iter();
                quarantined.find(|q| q.key == *key).map(|q| (q.modified, q.error))
            }
        };
        if let Some((modified, why)) = unreadable {
            if self.left_alone.insert(key.clone(), modified) != Some(modified) {
                tracing::warn!(%key, why, "a job that this version does not know is left alone");
            }
            self.queue.put(key, None);
            return;
        }
        self.left_alone.remove(key);
        let open = record.filter(|r| r.value.state.for_worker());
        self.queue.put(key, open.as_deref());
    }

    /// Drops from the journal what the store has, and what nobody wants any more.
    fn sweep(&self) {
        for effect in self.parts.journal.effects() {
            let Ok(key) = Key::parse(&paths::job(
                Place::Host(self.parts.host),
                effect.task,
                &effect.job,
            )) else {
                continue;
            };
            let wanted = |r: Arc<Versioned<JobRecord>>| {
                r.value.format > FORMAT || r.value.state.for_worker() && Effect::of(&r.value) == effect
            };
            let open = self
                .mirror
                .get(&key)
                .map_or(self.mirror.is_quarantined(&key), wanted);
            if !open && !self.queue.runs(&key) {
                self.parts.journal.forget(&effect);
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
