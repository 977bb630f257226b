//! Makes the effects: runs the jobs of one place (a host's agent, or an engine).
//!
//! ```text
//!  jobs/{place}/ ──mirror──> ready? ── commit `started` ──> Job::run / Job::undo ── commit result + companion writes
//!                              │ one subject, one job at a time                      (guards: record revision, lease)
//!                              └ `started` by a former life, or by a worker whose lease is gone: taken over and run
//!                                again; jobs look before they act
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use serde_json::Value as Json;
use skyloom_model::{Clock, HostId, JobRecord, JobState, JobWant, Reason, Timestamp, WorkerMark, paths};
use skyloom_store::{
    Class, DynBackend, Error, ErrorKind, Key, Mirror, Outcome, Prefix, Result, Revision, Txn, Versioned,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::{Fence, Job, JobContext, JobError, JobRegistry, Undo};

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
    pub fence: watch::Receiver<Option<Fence>>,
    /// What it adds to results.
    pub companion: Option<Arc<dyn Companion>>,
    /// Jobs at the same time.
    pub concurrency: usize,
}

/// Runs the jobs of one place until shutdown.
#[derive(Debug)]
pub struct Worker {
    parts: WorkerParts,
    mirror: Mirror<JobRecord>,
    driver: skyloom_store::MirrorDriver<JobRecord>,
}

/// What came of one attempt.
struct Finished {
    key: Key,
    subject: Uuid,
    /// The revision that this worker wrote last; records up to it are old news.
    written: Revision,
    /// Another worker has it: look again then.
    look_again: Option<Timestamp>,
}

/// How often a job that another live worker has is looked at.
const LOOK_AGAIN: jiff::SignedDuration = jiff::SignedDuration::from_secs(2);

impl Worker {
    /// A worker of these parts.
    ///
    /// # Errors
    /// Never in practice: places make valid prefixes.
    pub fn new(parts: WorkerParts) -> Result<Self> {
        let prefix = Prefix::parse(&paths::jobs(parts.host))
            .map_err(|e| Error::new(ErrorKind::Internal, "worker").because(e))?;
        let (mirror, driver) = Mirror::new(parts.backend.clone(), prefix);
        Ok(Self {
            parts,
            mirror,
            driver,
        })
    }

    /// The worker's view of its jobs, to wait for readiness.
    #[must_use]
    pub fn mirror(&self) -> Mirror<JobRecord> {
        self.mirror.clone()
    }

    /// Works until `shutdown`. Jobs under way are dropped then: they are continued by the next life.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self {
            parts,
            mirror,
            driver,
        } = self;
        let mut changes = mirror.changes();
        let mut running: JoinSet<Finished> = JoinSet::new();
        let mut busy_keys: HashSet<Key> = HashSet::new();
        let mut busy_subjects: HashSet<Uuid> = HashSet::new();
        let mut written: HashMap<Key, Revision> = HashMap::new();
        let mut foreign: HashMap<Key, Timestamp> = HashMap::new();
        let mut fence = parts.fence.clone();
        let feed = driver.run(shutdown.clone());
        tokio::pin!(feed);
        loop {
            let now = parts.clock.now();
            let mut wake: Option<Timestamp> = None;
            if fence.borrow_and_update().is_some() {
                let records = mirror.snapshot();
                written.retain(|key, _| records.get(key).is_some());
                foreign.retain(|key, _| records.get(key).is_some());
                for record in by_age(records.iter()) {
                    let fresh = written.get(&record.key).is_none_or(|w| record.modified > *w);
                    if !record.value.state.for_worker() || !fresh || busy_keys.contains(&record.key) {
                        continue;
                    }
                    let earliest = foreign.get(&record.key).copied().max(record.value.not_before);
                    if let Some(at) = earliest.filter(|at| *at > now) {
                        wake = Some(wake.map_or(at, |w| w.min(at)));
                        continue;
                    }
                    if running.len() >= parts.concurrency || !busy_subjects.insert(record.value.subject.id) {
                        continue;
                    }
                    busy_keys.insert(record.key.clone());
                    let span = tracing::info_span!(
                        "job",
                        task = %record.value.task,
                        job = %record.value.spec.id,
                        kind = record.value.spec.kind,
                        want = ?record.value.want,
                        attempt = record.value.attempt,
                        request_id = record.value.request_id
                    );
                    running
                        .spawn(attempt(parts.clone(), (**record).clone(), shutdown.clone()).instrument(span));
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = &mut feed => return,
                _ = changes.next() => {}
                _ = fence.changed() => {}
                Some(done) = running.join_next(), if !running.is_empty() => {
                    match done {
                        Ok(done) => {
                            busy_keys.remove(&done.key);
                            busy_subjects.remove(&done.subject);
                            match done.look_again {
                                Some(at) => {
                                    foreign.insert(done.key, at);
                                }
                                None => {
                                    written.insert(done.key, done.written);
                                }
                            }
                        }
                        Err(error) => {
                            // A job panicked; which one is not told. Forget all that is not running and look again.
                            tracing::error!(%error, "a job panicked");
                            if running.is_empty() {
                                busy_keys.clear();
                                busy_subjects.clear();
                            }
                        }
                    }
                }
                () = sleep_until(wake, now), if wake.is_some() => {}
            }
        }
    }
}

fn by_age<'a>(
    records: impl Iterator<Item = &'a Arc<Versioned<JobRecord>>>,
) -> impl Iterator<Item = &'a Arc<Versioned<JobRecord>>> {
    let mut ordered: BTreeMap<Revision, Vec<&Arc<Versioned<JobRecord>>>> = BTreeMap::new();
    for record in records {
        ordered.entry(record.created).or_default().push(record);
    }
    ordered.into_values().flatten()
}

async fn sleep_until(at: Option<Timestamp>, now: Timestamp) {
    let wait = at
        .and_then(|at| Duration::try_from(at.duration_since(now)).ok())
        .unwrap_or_default();
    tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
}

/// One attempt of one job, from its `started` to its reported result.
async fn attempt(parts: WorkerParts, mut job: Versioned<JobRecord>, shutdown: CancellationToken) -> Finished {
    let finished = |job: &Versioned<JobRecord>| Finished {
        key: job.key.clone(),
        subject: job.value.subject.id,
        written: job.modified,
        look_again: None,
    };
    let (started, ok, failed) = match job.value.want {
        JobWant::Run => (JobState::Started, JobState::Succeeded, JobState::Failed),
        JobWant::Undo => (JobState::UndoStarted, JobState::Undone, JobState::UndoFailed),
    };
    let Some(held) = current(&mut parts.fence.clone(), &shutdown).await else {
        return finished(&job);
    };
    let me = WorkerMark {
        lease: held.lease.to_string(),
        epoch: held.epoch,
    };
    if job.value.state == started && !free(&parts, &job.value, &me).await {
        let look_again = parts.clock.now().checked_add(LOOK_AGAIN).ok();
        return Finished {
            look_again,
            ..finished(&job)
        };
    }
    if job.value.state != started || job.value.worker.as_ref() != Some(&me) {
        job.value.state = started;
        job.value.worker = Some(me);
        job.value.started_at = Some(parts.clock.now());
        job.value.error = None;
        if !write(&parts, &mut job, Txn::new(), &shutdown).await {
            return finished(&job);
        }
    }
    let outcome = match parts.jobs.get(&job.value.spec.kind) {
        None => Err(JobError::permanent(
            "job.unknown_kind",
            format!("this worker does not know the job {}", job.value.spec.kind),
        )),
        // A panic is the job's failure, not the worker's: the task goes back and says so.
        Some(code) => AssertUnwindSafe(call(&**code, &job.value, &shutdown))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| {
                Err(JobError::permanent(
                    "job.panicked",
                    format!("the job {} panicked", job.value.spec.kind),
                ))
            }),
    };
    if shutdown.is_cancelled() {
        return finished(&job); // the next life looks again and reports
    }
    match outcome {
        Ok(output) => {
            job.value.state = ok;
            job.value.output = output.or(job.value.output.take());
            tracing::info!("job done");
        }
        Err(JobError(reason)) => {
            tracing::warn!(%reason, "job failed");
            job.value.state = failed;
            job.value.error = Some(reason);
        }
    }
    job.value.ended_at = Some(parts.clock.now());
    let extra = match &parts.companion {
        Some(companion) => companion.writes(&job.value).await,
        None => Txn::new(),
    };
    write(&parts, &mut job, extra, &shutdown).await;
    finished(&job)
}

/// Runs or undoes, as the record wants it.
async fn call(
    code: &dyn Job,
    record: &JobRecord,
    shutdown: &CancellationToken,
) -> Result<Option<Json>, JobError> {
    let none = BTreeMap::new();
    let cx = JobContext {
        record,
        outputs: &none,
        shutdown,
    };
    match record.want {
        JobWant::Run => code.run(&cx).await.map(Some),
        JobWant::Undo => code.undo(&cx).await.map(|undo| {
            if let Undo::Moot(why) = undo {
                tracing::info!(why, "nothing to undo");
            }
            None
        }),
    }
}

/// Whether a started job may be gone on with: it is this worker's own, also from a former life, or its worker's lease
/// is gone. When that cannot be told, it is not free.
async fn free(parts: &WorkerParts, record: &JobRecord, me: &WorkerMark) -> bool {
    let Some(by) = record.worker.as_ref().filter(|by| by.lease != me.lease) else {
        return true;
    };
    match parts.backend.leases(&Prefix::all()).await {
        Ok(leases) => !leases
            .iter()
            .any(|l| l.name.as_key().as_str() == by.lease && l.epoch == by.epoch && !l.expired),
        Err(error) => {
            tracing::warn!(%error, "cannot tell whether a job's worker is alive");
            false
        }
    }
}

/// Writes the record until the store says yes or somebody else has written it. `job.modified` is then what the store
/// has, as far as this worker knows.
async fn write(
    parts: &WorkerParts,
    job: &mut Versioned<JobRecord>,
    extra: Txn,
    shutdown: &CancellationToken,
) -> bool {
    let mut fence = parts.fence.clone();
    let mut pause = Duration::from_millis(20);
    loop {
        let Some(held) = current(&mut fence, shutdown).await else {
            return false;
        };
        let txn = match job.replace(&job.value) {
            Ok(txn) => txn.guard(held.guard()).and(extra.clone()),
            Err(error) => {
                tracing::error!(%error, "a job's record cannot be written");
                return false;
            }
        };
        match parts.backend.commit(txn).await {
            Ok(Outcome::Committed { revision }) => {
                job.modified = revision;
                return true;
            }
            // The lease moved on: wait for the keeper to notice, and try again under the new epoch.
            Ok(Outcome::Conflict { guard: 1, .. }) => {
                tokio::select! {
                    () = shutdown.cancelled() => return false,
                    _ = fence.changed() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
            Ok(Outcome::Conflict { .. }) => return false,
            Err(error) if error.kind() == ErrorKind::Unknown => match read_back(parts, job).await {
                Ok(Some(done)) => return done,
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "cannot read back a job's record"),
            },
            Err(error) if error.class() == Class::Permanent => {
                let error = skyloom_model::report(&error);
                tracing::error!(error, "a job's record is refused");
                // A result that the store does not take is a failure of the job, not silence for ever.
                if job.value.output.take().is_none() {
                    return false;
                }
                let reason = format!("the job's result cannot be kept: {error}");
                job.value.error = Some(Reason::new("job.result_refused", reason));
                job.value.state = match job.value.want {
                    JobWant::Run => JobState::Failed,
                    JobWant::Undo => JobState::UndoFailed,
                };
            }
            Err(error) => {
                tracing::warn!(error = %skyloom_model::report(&error), "a job's record cannot be written now")
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return false,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// After an unknown outcome: `Some(true)` it happened, `Some(false)` another wrote, `None` it did not happen.
async fn read_back(parts: &WorkerParts, job: &mut Versioned<JobRecord>) -> Result<Option<bool>> {
    let Some(kv) = parts.backend.get(&job.key).await? else {
        return Ok(Some(false));
    };
    if kv.modified == job.modified {
        return Ok(None);
    }
    let there = Versioned::<JobRecord>::decode(&kv)?;
    let ours = there.value == job.value;
    job.modified = there.modified;
    Ok(Some(ours))
}

async fn current(fence: &mut watch::Receiver<Option<Fence>>, shutdown: &CancellationToken) -> Option<Fence> {
    tokio::select! {
        () = shutdown.cancelled() => None,
        held = fence.wait_for(Option::is_some) => held.ok().and_then(|f| f.clone()),
    }
}
