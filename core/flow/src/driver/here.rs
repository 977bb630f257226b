//! The engine's own jobs, run beside the task that they belong to.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{AbortHandle, Abortable, BoxFuture};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use serde_json::Value as Json;
use skyloom_model::{Clock, JobId, JobRecord, JobState, JobWant, Timestamp};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Held;
use crate::registry::LEASE_LOST;
use crate::{Fence, Job, JobContext, JobError, Undo};

/// What came of a job.
#[derive(Debug)]
pub(super) struct Done {
    /// As it was begun.
    record: JobRecord,
    started_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
    outcome: Result<Option<Json>, JobError>,
}

/// Jobs under way, and results that are not in the store yet.
pub(super) struct Here {
    slots: Arc<Semaphore>,
    running: FuturesUnordered<Abortable<BoxFuture<'static, Done>>>,
    under_way: BTreeMap<JobId, (JobWant, AbortHandle)>,
    results: Vec<Done>,
}

/// A job to be run.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) code: Arc<dyn Job>,
    pub(super) record: JobRecord,
    pub(super) outputs: Arc<BTreeMap<JobId, Json>>,
    pub(super) started_at: Timestamp,
    pub(super) fence: Fence,
    pub(super) clock: Arc<dyn Clock>,
}

impl Done {
    fn lost_its_lease(&self) -> bool {
        matches!(&self.outcome, Err(JobError(reason)) if reason.code == LEASE_LOST)
    }
}

impl Here {
    pub(super) fn new(slots: Arc<Semaphore>) -> Self {
        Self {
            slots,
            running: FuturesUnordered::new(),
            under_way: BTreeMap::new(),
            results: Vec::new(),
        }
    }

    /// Whether nothing runs and nothing waits to be written.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty() && self.results.is_empty()
    }

    /// Waits for the next result.
    pub(super) async fn next(&mut self) {
        while let Some(done) = self.running.next().await {
            if let Ok(done) = done {
                self.under_way.remove(&done.record.spec.id);
                self.results.push(done);
                // What else is done goes into the same commit.
                while let Some(Some(Ok(done))) = self.running.next().now_or_never() {
                    self.under_way.remove(&done.record.spec.id);
                    self.results.push(done);
                }
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Begins a job, unless it is under way.
    pub(super) fn start(&mut self, order: Order) {
        let (id, want) = (order.record.spec.id.clone(), order.record.want);
        if self.under_way.contains_key(&id) {
            return;
        }
        let (abort, registration) = AbortHandle::new_pair();
        let run = attempt(self.slots.clone(), order).boxed();
        self.running.push(Abortable::new(run, registration));
        self.under_way.insert(id, (want, abort));
    }

    /// Drops the jobs under way that are on the way forward: their undo copes with a half.
    pub(super) fn turn_back(&mut self) {
        self.under_way.retain(|_, (want, abort)| {
            if *want == JobWant::Run {
                abort.abort();
            }
            *want != JobWant::Run
        });
    }

    /// Puts the results into the records. Those that the store has already, or that are of an older attempt, are dropped, and so
    /// are tries that ended because the lease had: they count for nothing.
    pub(super) fn hand_over(&self, held: &mut Held) {
        for done in self.results.iter().filter(|done| !done.lost_its_lease()) {
            let id = &done.record.spec.id;
            let (want, attempt) = (done.record.want, done.record.attempt);
            // Without a record in the store, it is the one that the job was begun with.
            let begun = || JobRecord {
                want: JobWant::Run,
                attempt: 1,
                state: JobState::Ready,
                ..done.record.clone()
            };
            let mut record = held.jobs.get(id).cloned().unwrap_or_else(begun);
            // An undo of a job without a record, or of one that stands as run, is its first.
            if want == JobWant::Undo && record.want == JobWant::Run {
                record.want = JobWant::Undo;
                record.attempt = 1;
                record.state = JobState::UndoReady;
            }
            let open = matches!(
                record.state,
                JobState::Ready | JobState::Started | JobState::UndoReady | JobState::UndoStarted
            );
            if record.want != want || record.attempt != attempt || !open {
                continue;
            }
            match &done.outcome {
                Ok(output) => {
                    record.state = match want {
                        JobWant::Run => JobState::Succeeded,
                        JobWant::Undo => JobState::Undone,
                    };
                    record.output = output.clone().or(record.output.take());
                    record.error = None;
                }
                Err(JobError(reason)) => {
                    record.state = match want {
                        JobWant::Run => JobState::Failed,
                        JobWant::Undo => JobState::UndoFailed,
                    };
                    record.error = Some(reason.clone());
                }
            }
            record.not_before = None;
            record.worker = None;
            record.started_at = Some(done.started_at);
            record.ended_at = done.ended_at;
            held.insert(record);
        }
    }

    /// When the results came about.
    pub(super) fn stamp(&mut self, now: Timestamp) {
        for done in &mut self.results {
            done.ended_at.get_or_insert(now);
        }
    }

    /// The results are in the store.
    pub(super) fn saved(&mut self) {
        self.results.clear();
    }

    /// A result that the store does not take is a failure of the job, not silence for ever. Says whether there was one.
    pub(super) fn refuse_results(&mut self, why: &str) -> bool {
        let mut refused = false;
        for done in &mut self.results {
            if matches!(done.outcome, Ok(Some(_))) {
                let message = format!("the job's result cannot be kept: {why}");
                done.outcome = Err(JobError::permanent("job.result_refused", message));
                refused = true;
            }
        }
        refused
    }

    /// The jobs under way.
    pub(super) fn under_way(&self) -> BTreeSet<JobId> {
        self.under_way.keys().cloned().collect()
    }
}

async fn attempt(slots: Arc<Semaphore>, order: Order) -> Done {
    let Order {
        code,
        record,
        outputs,
        started_at,
        fence,
        clock,
    } = order;
    // The semaphore is never closed.
    let _slot = slots.acquire_owned().await;
    let call = AssertUnwindSafe(call(&*code, &record, &outputs, (&fence, &*clock))).catch_unwind();
    let in_time = async {
        match record.spec.timeout_ms {
            None => Ok(call.await),
            Some(ms) => tokio::time::timeout(Duration::from_millis(ms), call).await,
        }
    };
    let kind = &record.spec.kind;
    let outcome = match in_time.await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(JobError::permanent(
            "job.panicked",
            format!("the job {kind} panicked"),
        )),
        Err(_) => Err(JobError::transient(
            "job.deadline",
            format!("the job {kind} was not done in its time"),
        )),
    };
    Done {
        record,
        started_at,
        ended_at: None,
        outcome,
    }
}

/// Runs or undoes, as the record wants it.
async fn call(
    code: &dyn Job,
    record: &JobRecord,
    outputs: &BTreeMap<JobId, Json>,
    lease: (&Fence, &dyn Clock),
) -> Result<Option<Json>, JobError> {
    let shutdown = CancellationToken::new(); // an engine that stops drops its jobs
    let cx = JobContext {
        record,
        outputs,
        shutdown: &shutdown,
        lease: Some(lease),
    };
    match record.want {
        JobWant::Run => code.run(&cx).await.map(Some),
        JobWant::Undo => code.undo(&cx).await.map(|undo| {
            if let Undo::Moot(why) = undo {
                tracing::info!(task = %record.task, job = %record.spec.id, why, "nothing to undo");
            }
            None
        }),
    }
}
