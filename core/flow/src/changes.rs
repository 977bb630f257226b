//! Decisions as record changes: the parts of a driver's commit.

use std::collections::{BTreeMap, BTreeSet};

use skyloom_model::{FORMAT, JobId, JobRecord, JobState, JobWant, Place, Plan, Task, Timestamp, paths};
use skyloom_store::{Error, ErrorKind, Key, Prefix, Result, Txn, Value, Versioned};

use crate::Decision;

/// The record changes of one decision.
pub(crate) fn apply(
    task: &Task,
    plan: &Plan,
    jobs: &BTreeMap<JobId, Versioned<JobRecord>>,
    decision: &Decision,
    generation: u64,
    now: Timestamp,
) -> Result<Txn> {
    let change = |id: &JobId, edit: &dyn Fn(&mut JobRecord)| -> Result<Txn> {
        let Some(job) = jobs.get(id) else {
            return Ok(Txn::new());
        };
        let mut record = job.value.clone();
        edit(&mut record);
        job.replace(&record)
    };
    match decision {
        Decision::Dispatch(id) => dispatch(task, plan, id, generation),
        Decision::Retry(id, not_before) => change(id, &|r| {
            r.state = JobState::Ready;
            r.attempt += 1;
            r.not_before = Some(*not_before);
            r.ended_at = None;
        }),
        Decision::Withdraw(id) => change(id, &|r| {
            r.state = JobState::Undone;
            r.ended_at = Some(now);
        }),
        Decision::Undo(id) => change(id, &|r| {
            r.want = JobWant::Undo;
            r.state = JobState::UndoReady;
            r.attempt = 1;
            r.not_before = None;
            r.ended_at = None;
        }),
        Decision::RetryUndo(id, not_before) => change(id, &|r| {
            r.state = JobState::UndoReady;
            r.attempt += 1;
            r.not_before = Some(*not_before);
            r.ended_at = None;
        }),
        Decision::Unwind(_) | Decision::End(..) => Ok(Txn::new()),
    }
}

pub(crate) fn dispatch(task: &Task, plan: &Plan, id: &JobId, generation: u64) -> Result<Txn> {
    let spec = plan
        .jobs
        .iter()
        .find(|j| j.id == *id)
        .cloned()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "dispatch").with("job", id))?;
    let at = key(&paths::job(spec.place, task.id, id))?;
    let record = JobRecord {
        format: FORMAT,
        task: task.id,
        scope: task.scope,
        subject: task.subject.clone(),
        generation,
        request_id: task.request_id.clone(),
        spec,
        want: JobWant::Run,
        attempt: 1,
        not_before: None,
        state: JobState::Ready,
        worker: None,
        output: None,
        error: None,
        started_at: None,
        ended_at: None,
    };
    Ok(Txn::new().create(at, Value::json(&record)?))
}

/// Secrets are lent to the hosts of a plan's jobs under the subject's id.
pub(crate) fn lent_keys(plan: &Plan, task: &Task) -> Result<BTreeSet<Key>> {
    let hosts = plan.jobs.iter().filter_map(|j| match j.place {
        Place::Host(host) => Some(host),
        Place::Engine => None,
    });
    hosts
        .map(|h| key(&paths::lent(h, skyloom_model::Id::from_uuid(task.subject.id))))
        .collect()
}

pub(crate) fn key(path: &str) -> Result<Key> {
    Key::parse(path).map_err(|e| Error::new(ErrorKind::Internal, "address record").because(e))
}

pub(crate) fn prefix(path: &str) -> Result<Prefix> {
    Prefix::parse(path).map_err(|e| Error::new(ErrorKind::Internal, "address records").because(e))
}
