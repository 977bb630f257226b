//! Tasks: what was asked for and how far it is.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt as _;
use serde_json::json;
use skyloom_model::{
    ActiveTask, JobId, JobRecord, JobState, Place, Plan, Reason, Run, Scope, StepRecord, Task, TaskId,
    TaskState, paths,
};
use skyloom_store::{Prefix, Table, Value, Versioned};

use super::Cloud;
use super::list::PageOf;
use super::once::Change;
use super::records::{key, precondition, prefix};
use crate::{Caller, CloudError, Listed, Result, TaskAccepted, TaskDetail, TaskQuery, preview};

impl Cloud {
    /// A page of the project's tasks, oldest first; for administrators also the cloud's own.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`.
    pub async fn list_tasks(&self, caller: &Caller, query: &TaskQuery) -> Result<Listed<Task>> {
        caller.may_read()?;
        let prefixes: Vec<Prefix> = scopes(caller)
            .into_iter()
            .map(|s| prefix(&paths::tasks(s)))
            .collect::<Result<_>>()?;
        let page = PageOf {
            cursor: query.cursor.as_deref(),
            limit: query.limit,
        };
        self.page(&prefixes, page, |t: &Task| {
            query.state.is_none_or(|s| t.state == s)
                && query.flow.as_ref().is_none_or(|f| t.flow == *f)
                && query.subject.is_none_or(|s| t.subject.id == s)
        })
        .await
    }

    /// One task.
    ///
    /// # Errors
    /// `task.not_found`.
    pub async fn get_task(&self, caller: &Caller, id: TaskId) -> Result<Versioned<Task>> {
        caller.may_read()?;
        for scope in scopes(caller) {
            if let Some(found) = self.read(&paths::task(scope, id)).await? {
                return Ok(found);
            }
        }
        Err(CloudError::not_found("task"))
    }

    /// One task with its plan and how far its jobs are. What a plan says about other hosts is only for administrators.
    ///
    /// # Errors
    /// `task.not_found`.
    pub async fn task_detail(&self, caller: &Caller, id: TaskId) -> Result<Versioned<TaskDetail>> {
        let task = self.get_task(caller, id).await?;
        let plan = self.read::<Plan>(&paths::plan(id)).await?.map(|p| p.value);
        let jobs = match &plan {
            Some(plan) => self.jobs_of(&task.value, plan).await?,
            None => Vec::new(),
        };
        let running = match &plan {
            Some(plan) => running(&task.value, plan, &jobs),
            None => Vec::new(),
        };
        let plan = plan.map(|p| Plan {
            placement: rendered(caller, p.placement),
            ..p
        });
        let Versioned {
            key,
            value: task,
            created,
            modified,
        } = task;
        Ok(Versioned {
            key,
            value: TaskDetail {
                task,
                plan,
                jobs,
                running,
            },
            created,
            modified,
        })
    }

    /// The records of a plan's jobs: those of its run when it has ended, else the live ones.
    async fn jobs_of(&self, task: &Task, plan: &Plan) -> Result<Vec<JobRecord>> {
        let places: BTreeSet<Place> = plan.jobs.iter().map(|j| j.place).collect();
        let mut live: BTreeMap<JobId, JobRecord> = BTreeMap::new();
        for place in places {
            let below = prefix(&paths::task_jobs(place, plan.task))?;
            // An engine's say nothing that the plan says. A host's are whole.
            let records: Vec<JobRecord> = match place {
                Place::Engine => {
                    let steps = Table::<StepRecord>::new(self.parts.backend.clone(), below);
                    let steps = steps.list_all().await?.items.into_iter();
                    steps.filter_map(|s| s.value.whole(task, plan)).collect()
                }
                Place::Host(_) => {
                    let jobs = Table::<JobRecord>::new(self.parts.backend.clone(), below);
                    jobs.list_all()
                        .await?
                        .items
                        .into_iter()
                        .map(|j| j.value)
                        .collect()
                }
            };
            live.extend(records.into_iter().map(|r| (r.spec.id.clone(), r)));
        }
        // The live records go and the run comes in one commit: asked in this order, one of them has the jobs.
        match self.read::<Run>(&paths::run(plan.task)).await? {
            Some(run) => {
                let steps = run.value.jobs.into_iter();
                Ok(steps.filter_map(|step| step.whole(task, plan)).collect())
            }
            None => Ok(plan.jobs.iter().filter_map(|j| live.remove(&j.id)).collect()),
        }
    }

    /// Asks for a task's end: what has not begun is dropped, the rest is undone. Asking again changes nothing.
    ///
    /// # Errors
    /// `task.not_found`, `task.ended`, `task.stuck`, `precondition.failed`, `role.denied`.
    pub async fn cancel_task(&self, caller: &Caller, id: TaskId) -> Result<TaskAccepted> {
        caller.may_write()?;
        let done = self
            .once(caller, "tasks.cancel", json!(id), || {
                async move {
                    let found = self.get_task(caller, id).await?;
                    precondition(caller, found.modified)?;
                    if found.value.scope == Scope::System {
                        caller.may_operate()?;
                    }
                    cancellable(&found.value)?;
                    let task = Task {
                        cancel: true,
                        ..found.value.clone()
                    };
                    // Engines follow the marks of open tasks: touching this one's makes its engine look at once.
                    let mark = ActiveTask::of(&task);
                    let txn = found
                        .replace(&task)?
                        .put(key(&paths::active(id))?, Value::json(&mark)?);
                    Ok(Change::new(txn, TaskAccepted { task }))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }
}

/// Whether the task can still be asked to end.
fn cancellable(task: &Task) -> Result<()> {
    let reason = match task.state {
        TaskState::Done | TaskState::Failed | TaskState::Cancelled => {
            Reason::new("task.ended", "the task has ended already")
        }
        TaskState::Stuck => Reason::new("task.stuck", "the task is stuck: what is left cannot be undone by itself")
            .hint(format!(
                "an operator can leave it as it is with `skyloom task abandon {} --why …`, or retry or skip the step",
                task.id
            )),
        TaskState::Queued | TaskState::Waiting | TaskState::Running | TaskState::Unwinding => return Ok(()),
    };
    Err(CloudError::conflict(reason))
}

/// The steps of an engine that run: they have no record before they end, so whatever may run counts as running.
fn running(task: &Task, plan: &Plan, jobs: &[JobRecord]) -> Vec<JobId> {
    if task.state != TaskState::Running {
        return Vec::new();
    }
    let record = |id: &JobId| jobs.iter().find(|job| job.spec.id == *id);
    let done = |id: &JobId| record(id).is_some_and(|job| job.state == JobState::Succeeded);
    let now = |id: &JobId| plan.last_stage().is_none_or(|stage| stage.jobs.contains(id));
    plan.jobs
        .iter()
        .filter(|job| job.place == Place::Engine && now(&job.id) && record(&job.id).is_none())
        .filter(|job| job.after.iter().all(done))
        .map(|job| job.id.clone())
        .collect()
}

/// Whose tasks a caller sees.
pub(super) fn scopes(caller: &Caller) -> Vec<Scope> {
    if caller.is_admin() {
        vec![caller.scope(), Scope::System]
    } else {
        vec![caller.scope()]
    }
}

/// A placement's explanation as the caller may see it. One that cannot be read is shown to administrators only.
pub(crate) fn rendered(caller: &Caller, placement: Option<serde_json::Value>) -> Option<serde_json::Value> {
    if caller.is_admin() {
        return placement;
    }
    preview::for_tenant(placement)
}
