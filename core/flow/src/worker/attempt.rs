//! One attempt of one job, from its `started` to its reported result.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use skyloom_model::ablation::{Rule, kept};
use skyloom_model::{JobRecord, JobState, JobWant, WorkerMark, crash_point};
use skyloom_store::{Prefix, Revision, Txn, Versioned};
use tokio_util::sync::CancellationToken;

use super::WorkerParts;
use super::report::{Written, current, write_result, write_started};
use crate::journal::{Effect, Entry, Intent, JobOutcome};
use crate::registry::LEASE_LOST;
use crate::{Fence, Job, JobContext, JobError, Undo};

/// Wait before a lease that has run out is looked at again, when nobody says that there is a new one.
const PAUSE: Duration = Duration::from_millis(50);

/// What came of an attempt.
pub(super) enum Finished {
    /// Records up to this revision are old news.
    Seen(Revision),
    /// Nothing came of it now: another worker has the job, the fleet is held, or the journal does not work.
    LookAgain,
}

/// What the journal says to an order.
enum Recalled {
    /// It is to be carried out.
    Run,
    /// It was carried out.
    Did(Intent, JobOutcome),
    /// A later one was begun.
    Stale(u32),
}

/// Attempts until there is a result, however often the lease changes meanwhile.
pub(super) async fn attempt(
    parts: Arc<WorkerParts>,
    mut job: Versioned<JobRecord>,
    shutdown: CancellationToken,
) -> Finished {
    loop {
        let Some(held) = lasting(&parts, &shutdown).await else {
            return Finished::Seen(job.modified);
        };
        if let Some(finished) = under(&parts, &held, &mut job, &shutdown).await {
            return finished;
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Attempts under the lease that is held now; `None` when it was lost before anything came of it.
async fn under(
    parts: &WorkerParts,
    held: &Fence,
    job: &mut Versioned<JobRecord>,
    shutdown: &CancellationToken,
) -> Option<Finished> {
    let me = WorkerMark {
        lease: held.lease.to_string(),
        epoch: held.epoch,
    };
    let started = started(job.value.want);
    if job.value.state == started && !free(parts, &job.value, &me).await {
        return Some(Finished::LookAgain);
    }
    crash_point("agent.job_seen");
    let recalled = recall(parts, job);
    if let Recalled::Stale(begun) = recalled {
        tracing::error!(begun, "an order older than the journal is refused");
        return Some(Finished::Seen(job.modified));
    }
    let mine = job.value.state == started && job.value.worker.as_ref() == Some(&me);
    if !mine && kept(Rule::IntentBeforeEffect) {
        let before = job.value.clone();
        job.value.state = started;
        job.value.worker = Some(me);
        job.value.started_at = Some(parts.clock.now());
        job.value.error = None;
        match write_started(parts, held, job, shutdown).await {
            Written::Yes => crash_point("agent.after_started"),
            Written::Never => return Some(Finished::Seen(job.modified)),
            Written::Held => {
                tracing::info!("not begun: the fleet is held");
                return Some(Finished::LookAgain);
            }
            Written::LeaseLost => {
                job.value = before;
                return None;
            }
        }
    }
    let (intent, outcome) = match recalled {
        Recalled::Did(intent, outcome) => {
            tracing::info!("done in a former life");
            (intent, outcome)
        }
        _ => {
            let intent = Intent {
                effect: Effect::of(&job.value),
                attempt: job.value.attempt,
                generation: job.value.generation,
                order: job.modified,
            };
            if let Err(error) = parts.journal.intend(intent.clone()).await {
                tracing::error!(error = %skyloom_model::report(&error), "not begun: the journal cannot be written");
                return Some(Finished::LookAgain);
            }
            crash_point("agent.after_intent");
            if !held.may_act(&*parts.clock) {
                tracing::warn!("not begun: the lease has run out");
                return None;
            }
            let outcome = call(parts, held, &job.value, shutdown).await;
            crash_point("agent.after_effect");
            if shutdown.is_cancelled() {
                return Some(Finished::Seen(job.modified)); // the next life looks again and reports
            }
            if outcome.as_ref().is_err_and(|reason| reason.code == LEASE_LOST) {
                tracing::warn!("broken off: the lease has run out");
                return None;
            }
            if let Err(error) = parts.journal.outcome(&intent, outcome.clone()).await {
                tracing::error!(error = %skyloom_model::report(&error), "not reported: the journal cannot be written");
                return Some(Finished::LookAgain);
            }
            (intent, outcome)
        }
    };
    crash_point("agent.after_outcome");
    settle(&mut job.value, outcome);
    job.value.ended_at = Some(parts.clock.now());
    let extra = match &parts.companion {
        Some(companion) => companion.writes(&job.value).await,
        None => Txn::new(),
    };
    if write_result(parts, job, extra, shutdown).await {
        crash_point("agent.after_report");
        parts.journal.forget(&intent.effect);
    }
    Some(Finished::Seen(job.modified))
}

/// What is in the journal about this order. An order that was given after what the journal has was begun, and is not begun
/// itself, says that the store had the result of that: then tries may count anew.
fn recall(parts: &WorkerParts, job: &Versioned<JobRecord>) -> Recalled {
    let known = if kept(Rule::AgentJournal) {
        parts.journal.known(&Effect::of(&job.value))
    } else {
        None
    };
    let record = &job.value;
    match known {
        Some(Entry { intent, .. }) if record.state != started(record.want) && job.modified > intent.order => {
            Recalled::Run
        }
        Some(Entry { intent, .. }) if intent.attempt > record.attempt => Recalled::Stale(intent.attempt),
        Some(Entry {
            intent,
            outcome: Some(outcome),
        }) if intent.attempt == record.attempt => Recalled::Did(intent, outcome),
        _ => Recalled::Run,
    }
}

fn started(want: JobWant) -> JobState {
    match want {
        JobWant::Run => JobState::Started,
        JobWant::Undo => JobState::UndoStarted,
    }
}

/// Takes the outcome into the record.
fn settle(record: &mut JobRecord, outcome: JobOutcome) {
    match outcome {
        Ok(output) => {
            tracing::info!("job done");
            record.state = match record.want {
                JobWant::Run => JobState::Succeeded,
                JobWant::Undo => JobState::Undone,
            };
            record.output = output.or(record.output.take());
        }
        Err(reason) => {
            tracing::warn!(%reason, "job failed");
            record.state = match record.want {
                JobWant::Run => JobState::Failed,
                JobWant::Undo => JobState::UndoFailed,
            };
            record.error = Some(reason);
        }
    }
}

/// Calls the job's code, within its time. A panic is the job's failure, not the worker's: the task goes back and says so.
async fn call(
    parts: &WorkerParts,
    held: &Fence,
    record: &JobRecord,
    shutdown: &CancellationToken,
) -> JobOutcome {
    let kind = &record.spec.kind;
    let Some(code) = parts.jobs.get(kind) else {
        let message = format!("this worker does not know the job {kind}");
        return Err(JobError::permanent("job.unknown_kind", message).0);
    };
    let cx = JobContext {
        record,
        outputs: &Default::default(),
        shutdown,
        lease: Some((held, &*parts.clock)),
    };
    let panicked = |_| {
        Err(JobError::permanent(
            "job.panicked",
            format!("the job {kind} panicked"),
        ))
    };
    let work = AssertUnwindSafe(run(&**code, &cx))
        .catch_unwind()
        .map(|done| done.unwrap_or_else(panicked));
    let done = match record.spec.timeout_ms {
        None => work.await,
        Some(ms) => tokio::time::timeout(Duration::from_millis(ms), work)
            .await
            .unwrap_or_else(|_| {
                let message = format!("the job {kind} took longer than {ms} ms");
                Err(JobError::transient("job.deadline", message))
            }),
    };
    done.map_err(|JobError(reason)| reason)
}

/// Runs or undoes, as the record wants it.
async fn run(code: &dyn Job, cx: &JobContext<'_>) -> Result<Option<serde_json::Value>, JobError> {
    match cx.record.want {
        JobWant::Run => code.run(cx).await.map(Some),
        JobWant::Undo => code.undo(cx).await.map(|undo| {
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
    if !kept(Rule::AdoptOnlyOrphans) {
        return true;
    }
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

/// The lease, once there is one that has not run out.
async fn lasting(parts: &WorkerParts, shutdown: &CancellationToken) -> Option<Fence> {
    let mut fence = parts.fence.clone();
    loop {
        let held = current(&mut fence, shutdown).await?;
        if held.may_act(&*parts.clock) {
            return Some(held);
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return None,
            changed = fence.changed() => changed.ok()?,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}
