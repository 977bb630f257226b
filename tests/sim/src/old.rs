//! What an engine of the first format would have left behind: the records of unfinished tasks as it wrote them.
//!
//! ```text
//! every document ── of_format_1 ──> one commit per task: its task, its plan, its engine's jobs ──> Bed::rewrite
//! ```
//!
//! Format 1 knew plans of one stage, no priorities, deadlines and orders; the engine's jobs stood whole below `jobs/engine/`.
//! A task that has more than that is left as it is: no engine of that time could have had it.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};
use skyloom_model::{ActiveTask, MAIN_STAGE, Plan, StepRecord, Task, paths};
use skyloom_store::{Guard, Key, KeyValue, Result, Txn, Value};

/// What came with format 2, in tasks and in plans.
const NEW: [&str; 6] = [
    "plan_version",
    "priority",
    "deadline",
    "resume",
    "orders",
    "stages",
];

/// One commit for each unfinished task that can be told in format 1.
pub(crate) fn of_format_1(documents: &[KeyValue]) -> Vec<Txn> {
    let all: BTreeMap<&str, &KeyValue> = documents.iter().map(|kv| (kv.key.as_str(), kv)).collect();
    let marks = below(&all, paths::ACTIVE).filter_map(|kv| kv.value.parse::<ActiveTask>().ok());
    marks
        .filter_map(|mark| retold(&all, &mark).ok().flatten())
        .collect()
}

fn below<'a>(
    all: &'a BTreeMap<&str, &'a KeyValue>,
    path: &str,
) -> impl Iterator<Item = &'a KeyValue> + use<'a> {
    let path = format!("{path}/");
    let start = all.range(path.as_str()..).map(|(_, kv)| *kv).collect::<Vec<_>>();
    start
        .into_iter()
        .take_while(move |kv| kv.key.as_str().starts_with(&path))
}

/// The task of that mark, if it is one that format 1 could tell.
fn retold(all: &BTreeMap<&str, &KeyValue>, mark: &ActiveTask) -> Result<Option<Txn>> {
    let Some(at) = all.get(paths::task(mark.scope, mark.task).as_str()) else {
        return Ok(None);
    };
    let task: Task = at.value.parse()?;
    let plan = all.get(paths::plan(task.id).as_str());
    let known = task.format == 2
        && task.priority.is_normal()
        && task.deadline.is_none()
        && task.resume.is_none()
        && task.orders.is_empty();
    if !known {
        return Ok(None);
    }
    let mut txn = Txn::new().replace(at.key.clone(), at.modified, without_the_new(at)?);
    if let Some(at) = plan {
        let plan: Plan = at.value.parse()?;
        match plan.stages.as_slice() {
            [stage] if stage.name == MAIN_STAGE && stage.outcome.is_none() => {}
            _ => return Ok(None),
        }
        txn = txn.replace(at.key.clone(), at.modified, without_the_new(at)?);
        for step in below(all, &format!("{}/{}", paths::STEPS, task.id)) {
            let Some(mut record) = step.value.parse::<StepRecord>()?.whole(&task, &plan) else {
                return Ok(None);
            };
            record.format = 1;
            let key = format!("{}/{}", paths::task_jobs_of_format_1(task.id), record.spec.id);
            let Ok(key) = Key::parse(&key) else {
                return Ok(None);
            };
            txn = txn
                .guard(Guard::Revision(step.key.clone(), step.modified))
                .delete(step.key.clone())
                .create(key, Value::json(&record)?);
        }
    }
    Ok(Some(txn))
}

fn without_the_new(at: &KeyValue) -> Result<Value> {
    let mut fields: Map<String, Json> = at.value.parse()?;
    fields.retain(|name, _| !NEW.contains(&name.as_str()));
    fields.insert("format".into(), 1.into());
    Value::json(&fields)
}
