//! Writes a job's record until the store says yes or somebody else has written it.

use std::time::Duration;

use skyloom_model::ablation::{Rule, kept};
use skyloom_model::{JobRecord, JobState, JobWant, Reason};
use skyloom_store::{ErrorKind, Guard, Outcome, Result, Txn, Value, Versioned, latest};
use tokio_util::sync::CancellationToken;

use super::WorkerParts;
use crate::{Fence, not_held};

/// What became of a `started`.
pub(super) enum Written {
    /// It is in the store.
    Yes,
    /// Somebody else has written the record, or nobody can.
    Never,
    /// The lease that it names is no more.
    LeaseLost,
    /// The fleet is held.
    Held,
}

/// What became of one commit.
enum Tried {
    Done,
    /// It did not happen, and can be tried again.
    NotYet,
    LeaseLost,
    /// Nothing is begun now.
    Held,
    /// Somebody else has written the record.
    Overtaken,
    /// The store will never take it.
    Refused(String),
}

/// Writes that the job is started under `held`. `job.modified` is then what the store has, as far as this worker knows.
pub(super) async fn write_started(
    parts: &WorkerParts,
    held: &Fence,
    job: &mut Versioned<JobRecord>,
    shutdown: &CancellationToken,
) -> Written {
    let mut fence = parts.fence.clone();
    let mut pause = FIRST_PAUSE;
    loop {
        let same = fence.borrow_and_update().as_ref() == Some(held);
        if !same {
            return Written::LeaseLost;
        }
        let begun = job
            .replace(&job.value)
            .and_then(|txn| Ok(guarded(txn, held).guard(not_held()?)));
        let txn = match begun {
            Ok(txn) => txn,
            Err(error) => {
                tracing::error!(%error, "a job's record cannot be written");
                return Written::Never;
            }
        };
        match commit(parts, job, txn).await {
            Tried::Done => return Written::Yes,
            Tried::LeaseLost => return Written::LeaseLost,
            Tried::Held => return Written::Held,
            Tried::Overtaken => return Written::Never,
            Tried::Refused(error) => {
                tracing::error!(error, "a job's record is refused");
                return Written::Never;
            }
            Tried::NotYet => {}
        }
        if !wait(&mut pause, &mut fence, shutdown).await {
            return Written::Never;
        }
    }
}

/// Writes the job's result, under whatever lease is held by then: the effect is made, and the record's revision says that
/// nobody has taken the job over. Whether the store has it.
pub(super) async fn write_result(
    parts: &WorkerParts,
    job: &mut Versioned<JobRecord>,
    extra: Txn,
    shutdown: &CancellationToken,
) -> bool {
    let mut fence = parts.fence.clone();
    let mut pause = FIRST_PAUSE;
    loop {
        let Some(held) = current(&mut fence, shutdown).await else {
            return false;
        };
        let replace = if kept(Rule::AttemptCompare) {
            job.replace(&job.value)
        } else {
            Value::json(&job.value).map(|value| Txn::new().put(job.key.clone(), value))
        };
        let tried = match replace {
            Ok(txn) => commit(parts, job, guarded(txn, &held).and(extra.clone())).await,
            Err(error) => Tried::Refused(error.to_string()),
        };
        match tried {
            Tried::Done => return true,
            Tried::Overtaken => return false,
            Tried::Refused(error) => {
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
            // The keeper will notice; then it is tried again under the new epoch.
            Tried::LeaseLost | Tried::Held | Tried::NotYet => {}
        }
        if !wait(&mut pause, &mut fence, shutdown).await {
            return false;
        }
    }
}

fn guarded(txn: Txn, held: &Fence) -> Txn {
    if kept(Rule::AgentEpoch) {
        txn.guard(held.guard())
    } else {
        txn
    }
}

async fn commit(parts: &WorkerParts, job: &mut Versioned<JobRecord>, txn: Txn) -> Tried {
    let lease = txn.guards.iter().position(|g| matches!(g, Guard::Lease(..)));
    let hold = txn.guards.iter().position(|g| matches!(g, Guard::Absent(_)));
    match parts.backend.commit(txn).await {
        Ok(Outcome::Committed { revision }) => {
            job.modified = revision;
            Tried::Done
        }
        Ok(Outcome::Conflict { guard, .. }) if Some(guard) == lease => Tried::LeaseLost,
        Ok(Outcome::Conflict { guard, .. }) if Some(guard) == hold => Tried::Held,
        Ok(Outcome::Conflict { .. }) => Tried::Overtaken,
        Err(error) if error.kind() == ErrorKind::Unknown => {
            if !kept(Rule::ReadBackUnknown) {
                return Tried::Done;
            }
            read_back(parts, job).await.unwrap_or_else(|error| {
                tracing::warn!(error = %skyloom_model::report(&error), "cannot read back a job's record");
                Tried::NotYet
            })
        }
        Err(error) if matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::Invalid) => {
            Tried::Refused(skyloom_model::report(&error))
        }
        // A store that is full or does not let this host in may do so later, and nothing is lost until then.
        Err(error) => {
            tracing::warn!(error = %skyloom_model::report(&error), "a job's record cannot be written now");
            Tried::NotYet
        }
    }
}

/// After an unknown outcome: what did happen.
async fn read_back(parts: &WorkerParts, job: &mut Versioned<JobRecord>) -> Result<Tried> {
    let Some(kv) = parts.backend.get(&job.key).await? else {
        return Ok(Tried::Overtaken);
    };
    if kv.modified == job.modified {
        return Ok(Tried::NotYet);
    }
    let there = Versioned::<JobRecord>::decode(&kv)?;
    if there.value != job.value {
        return Ok(Tried::Overtaken);
    }
    job.modified = there.modified;
    Ok(Tried::Done)
}

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Waits, longer each time, or for a change of the lease; `false` at shutdown.
async fn wait(
    pause: &mut Duration,
    fence: &mut latest::Receiver<Option<Fence>>,
    shutdown: &CancellationToken,
) -> bool {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => return false,
        changed = fence.changed() => return changed.is_ok(),
        () = tokio::time::sleep(*pause) => {}
    }
    *pause = (*pause * 2).min(LONGEST_PAUSE);
    true
}

/// The lease, once there is one.
pub(super) async fn current(
    fence: &mut latest::Receiver<Option<Fence>>,
    shutdown: &CancellationToken,
) -> Option<Fence> {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        held = fence.wait_for(Option::is_some) => held.ok().and_then(|f| f.clone()),
    }
}
