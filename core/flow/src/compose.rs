//! Plans as record changes, for whoever commits them: an engine, or the facade when it applies a plan that was shown.
//!
//! Pure. What comes out goes into one commit together with the task's own record.

use std::collections::{BTreeMap, BTreeSet};

use skyloom_model::{
    Event, EventId, EventKind, FORMAT, Ids, JobId, JobRecord, JobState, MAIN_STAGE, Place, Plan, Progress,
    Reason, Stage, StageOutcome, Task, TaskState, Timestamp, paths,
};
use skyloom_store::{Error, ErrorKind, Key, Prefix, Result, Txn, Value, Write};

use crate::{Lend, Planned, Reading};

/// A plan with a new stage, ready to be committed.
#[derive(Debug, Clone)]
pub struct Composed {
    /// The task as it is then.
    pub task: Task,
    /// The plan as it is then.
    pub plan: Plan,
    /// The plan's record, the stage's record changes and the event; neither the task nor jobs.
    pub txn: Txn,
    /// Secrets to be lent.
    pub lend: Vec<Lend>,
}

/// The first stage of a task.
///
/// # Errors
/// [`ErrorKind::Invalid`] when the jobs are no plan; see [`check_stage`].
pub fn first_stage(task: &Task, planned: Planned, now: Timestamp, ids: &dyn Ids) -> Result<Composed> {
    let empty = Plan {
        format: FORMAT,
        task: task.id,
        jobs: Vec::new(),
        placement: None,
        made_at: now,
        stages: Vec::new(),
    };
    append_stage(task, empty, planned, now, ids)
}

/// Another stage; the outcome of the one before stands in `plan`.
///
/// # Errors
/// As [`first_stage`].
pub fn append_stage(
    task: &Task,
    mut plan: Plan,
    planned: Planned,
    now: Timestamp,
    ids: &dyn Ids,
) -> Result<Composed> {
    let Planned {
        stage,
        jobs,
        placement,
        changes,
        generation,
        lend,
    } = planned;
    let name = if stage.is_empty() {
        MAIN_STAGE.to_owned()
    } else {
        stage
    };
    plan.stages.push(Stage {
        name: name.clone(),
        jobs: jobs.iter().map(|j| j.id.clone()).collect(),
        generation,
        made_at: now,
        outcome: None,
    });
    plan.jobs.extend(jobs);
    plan.placement = placement.or(plan.placement);
    check_stage(&plan).map_err(|reason| {
        Error::new(ErrorKind::Invalid, "plan")
            .with("flow", &task.flow)
            .with("stage", &name)
            .because(reason.to_string())
    })?;
    let mut task = task.clone();
    task.state = TaskState::Running;
    task.reason = None;
    task.planned_at = Some(task.planned_at.unwrap_or(now));
    task.plan_version += 1;
    task.progress = Progress {
        done: task.progress.done,
        total: plan.jobs.iter().map(|j| j.weight).sum(),
    };
    let message = match plan.stages.len() {
        1 => format!("{}: {} steps planned", task.flow, plan.jobs.len()),
        n => format!("{}: stage {n} ({name}) planned", task.flow),
    };
    let txn = Txn::new()
        .put(key(&paths::plan(task.id))?, Value::json(&plan)?)
        .and(changes)
        .and(event(&task, EventKind::TaskPlanned, message, None, now, ids)?);
    Ok(Composed {
        task,
        plan,
        txn,
        lend,
    })
}

/// Whether a plan's last stage makes sense: names unique over all stages, every `after` known and before.
///
/// # Errors
/// What is wrong with it.
pub fn check_stage(plan: &Plan) -> std::result::Result<(), Reason> {
    let mut seen: BTreeSet<&JobId> = BTreeSet::new();
    for job in &plan.jobs {
        if let Some(missing) = job.after.iter().find(|a| !seen.contains(a)) {
            let message = format!("the job {} comes after {missing}, which is not before it", job.id);
            return Err(Reason::new("plan.bad_order", message));
        }
        if !seen.insert(&job.id) {
            return Err(Reason::new(
                "plan.job_twice",
                format!("the job {} is there twice", job.id),
            ));
        }
    }
    Ok(())
}

/// The host jobs that go out with a new plan.
///
/// # Errors
/// Never in practice: ids make valid keys.
pub fn first_jobs(task: &Task, plan: &Plan, now: Timestamp) -> Result<Txn> {
    let none = BTreeMap::new();
    let view = crate::View {
        task,
        plan,
        jobs: &none,
        now,
    };
    let mut txn = Txn::new();
    for decision in crate::decide(view) {
        if let crate::Decision::Dispatch(id) = decision
            && let Some(record) = JobRecord::first(task, plan, &id, JobState::Ready)
        {
            txn = txn.create(
                key(&paths::job(record.spec.place, task.id, &id))?,
                Value::json(&record)?,
            );
        }
    }
    Ok(txn)
}

/// Copies secrets to where the hosts' agents may read them. Their content passes through here and nowhere else.
///
/// # Errors
/// Those of the store.
pub async fn lend(reading: Reading<'_>, lend: &[Lend]) -> Result<Txn> {
    let mut txn = Txn::new();
    for (project, server, host) in lend {
        if let Some(secret) = reading
            .value(&key(&paths::server_secrets(*project, *server))?)
            .await?
        {
            txn = txn.put(key(&paths::lent(*host, *server))?, secret);
        }
    }
    Ok(txn)
}

/// `first`, then `second`, as one commit: what `second` writes replaces what `first` writes under the same key.
#[must_use]
pub fn onto(mut first: Txn, second: Txn) -> Txn {
    let again: BTreeSet<&Key> = second.writes.iter().map(Write::key).collect();
    first.writes.retain(|w| !again.contains(w.key()));
    first.and(second)
}

/// The part of a commit that tells what happened to a task.
///
/// # Errors
/// Never in practice: events are JSON.
pub fn event(
    task: &Task,
    kind: EventKind,
    message: String,
    reason: Option<Reason>,
    at: Timestamp,
    ids: &dyn Ids,
) -> Result<Txn> {
    let event = Event {
        format: FORMAT,
        id: EventId::fresh(ids),
        at,
        scope: task.scope,
        kind,
        subject: task.subject.clone(),
        task: Some(task.id),
        request_id: Some(task.request_id.clone()),
        message,
        reason,
    };
    Ok(Txn::new().put(key(&paths::event(task.scope, event.id))?, Value::json(&event)?))
}

/// Marks how the last stage ended.
#[must_use]
pub(crate) fn with_outcome(plan: &Plan, outcome: StageOutcome) -> Plan {
    let mut plan = plan.clone();
    if let Some(last) = plan.stages.last_mut() {
        last.outcome = Some(outcome);
    }
    plan
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

/// The key of a path made of ids and fixed words.
///
/// # Errors
/// Never in practice.
pub fn key(path: &str) -> Result<Key> {
    Key::parse(path).map_err(|e| Error::new(ErrorKind::Internal, "address record").because(e))
}

pub(crate) fn prefix(path: &str) -> Result<Prefix> {
    Prefix::parse(path).map_err(|e| Error::new(ErrorKind::Internal, "address records").because(e))
}
