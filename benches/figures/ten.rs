//! The durable ten-step workflow as a flow of Skyloom: ten jobs of the engine in a chain, each the output of the one before
//! plus one. Nothing but the engine and its store has anything to do.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::{Value as Json, json};
use skyloom::flow::{
    FlowRegistry, Job, JobContext, JobError, JobRegistry, PlanContext, Planned, Records, Refusal,
    SettleContext, Settled, TaskFlow, Undo,
};
use skyloom::model::{
    ActiveTask, Actor, FORMAT, JobId, JobSpec, Name, Place, Priority, Progress, Reason, RetryPolicy, Scope,
    Subject, Task, TaskId, TaskState, Timestamp, paths,
};
use skyloom::store::{Error, ErrorKind, Key, Result, Txn, Value};

/// Steps of a workflow.
pub(crate) const STEPS: usize = 10;

/// The flow.
#[derive(Debug)]
pub(crate) struct Ten;

/// Its name.
pub(crate) const FLOW: &str = "bench.ten";

/// The step: the output of the job before, plus one.
#[derive(Debug)]
struct Add;

/// The name of step `n`.
pub(crate) fn step(n: usize) -> JobId {
    JobId::new(format!("s{n}"))
}

/// A job of the engine that adds one to the output of `before`.
pub(crate) fn add(id: JobId, before: Option<JobId>) -> JobSpec {
    JobSpec {
        id,
        kind: "bench.add".to_owned(),
        title: "add one".to_owned(),
        input: json!(before),
        after: before.into_iter().collect(),
        place: Place::Engine,
        retry: RetryPolicy::default(),
        weight: 1,
        timeout_ms: None,
    }
}

#[async_trait]
impl Job for Add {
    fn kind(&self) -> &'static str {
        "bench.add"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Json, JobError> {
        let before: Option<JobId> = cx.input()?;
        let x = match before {
            None => 0,
            Some(before) => cx.outputs.get(&before).and_then(Json::as_u64).ok_or_else(|| {
                JobError::permanent("bench.no_output", format!("the output of {before} is not there"))
            })?,
        };
        Ok(json!(x + 1))
    }

    async fn undo(&self, _: &JobContext<'_>) -> Result<Undo, JobError> {
        Ok(Undo::Undone)
    }
}

impl TaskFlow for Ten {
    fn name(&self) -> &'static str {
        FLOW
    }

    fn reads(&self, _: &Task, _: &Records, _: &BTreeMap<JobId, Json>) -> Vec<Key> {
        Vec::new()
    }

    fn plan(&self, _: &Task, _: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        Ok(Planned {
            jobs: (0..STEPS)
                .map(|n| add(step(n), n.checked_sub(1).map(step)))
                .collect(),
            ..Planned::default()
        })
    }

    fn settle(&self, _: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        Ok(last(cx.outputs, &step(STEPS - 1)))
    }
}

/// The end of a task whose result is what `job` gave.
pub(crate) fn last(outputs: &BTreeMap<JobId, Json>, job: &JobId) -> Settled {
    Settled {
        result: outputs.get(job).cloned(),
        ..Settled::default()
    }
}

/// The flow.
pub(crate) fn flows() -> FlowRegistry {
    FlowRegistry::new().with(Ten)
}

/// Its job.
pub(crate) fn jobs() -> JobRegistry {
    JobRegistry::new().with(Add)
}

/// A task of `flow` as it is asked for.
pub(crate) fn task(flow: &str, id: TaskId, now: Timestamp) -> Result<Task> {
    Ok(Task {
        format: FORMAT,
        id,
        scope: Scope::System,
        flow: flow.to_owned(),
        subject: Subject {
            kind: "numbers".to_owned(),
            id: id.uuid(),
            name: Name::new("ten").map_err(|e| invalid(&e))?,
        },
        params: json!({}),
        actor: Actor {
            id: "bench".to_owned(),
            name: "bench".to_owned(),
        },
        request_id: "bench".to_owned(),
        idempotency_key: None,
        state: TaskState::Queued,
        reason: None,
        progress: Progress::default(),
        owner: None,
        cancel: false,
        priority: Priority::Normal,
        deadline: None,
        plan_version: 0,
        resume: None,
        orders: Vec::new(),
        result: None,
        created_at: now,
        planned_at: None,
        ended_at: None,
    })
}

/// The commit that asks for a task of `flow`: the task and its mark.
pub(crate) fn request(flow: &str, id: TaskId, now: Timestamp) -> Result<Txn> {
    let task = task(flow, id, now)?;
    let mark = ActiveTask::of(&task);
    let key = |path: String| Key::parse(&path).map_err(|e| invalid(&e));
    Ok(Txn::new()
        .create(key(paths::task(task.scope, id))?, Value::json(&task)?)
        .create(key(paths::active(id))?, Value::json(&mark)?))
}

fn invalid(cause: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, "submit").with("cause", cause)
}
