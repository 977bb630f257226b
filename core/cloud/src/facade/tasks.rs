//! Tasks: what was asked for and how far it is.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt as _;
use serde_json::json;
use skyloom_flow::TaskFlow as _;
use skyloom_model::{
    ActiveTask, JobId, JobRecord, JobState, Place, Plan, Reason, Run, Scope, StepRecord, Task, TaskId,
    TaskState, Timestamp, paths,
};
use skyloom_store::{Prefix, Table, Value, Versioned};

use super::Cloud;
use super::list::PageOf;
use super::once::Change;
use super::records::{key, precondition, prefix};
use crate::archive::Archived;
use crate::flows::{ServerLiveMigrate, past_return};
use crate::{Caller, CloudError, Listed, Result, TaskAccepted, TaskDetail, TaskQuery, preview};

impl Cloud {
    /// A page of the project's tasks, oldest first; for who runs the cloud also the cloud's own. Those that are archived are
    /// listed on their own, by their ends.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`.
    pub async fn list_tasks(&self, caller: &Caller, query: &TaskQuery) -> Result<Listed<Task>> {
        let scopes = listed_scopes(caller, "task:read")?;
        if query.archived {
            return self.archive.list_tasks(&scopes, query).await;
        }
        let prefixes: Vec<Prefix> = scopes
            .into_iter()
            .map(|s| prefix(&paths::tasks(s)))
            .collect::<Result<_>>()?;
        let page = PageOf {
            cursor: query.cursor.as_deref(),
            limit: query.limit,
        };
        self.page(&prefixes, page, |t: &Task| wanted_task(query, t)).await
    }

    /// One task, also one that is archived.
    ///
    /// # Errors
    /// `task.not_found`.
    pub async fn get_task(&self, caller: &Caller, id: TaskId) -> Result<Versioned<Task>> {
        self.task_for(caller, "task:read", id).await
    }

    /// The task of that id, if the caller may do that to it.
    pub(super) async fn task_for(
        &self,
        caller: &Caller,
        permission: &'static str,
        id: TaskId,
    ) -> Result<Versioned<Task>> {
        let found = self.task_in(&[caller.scope(), Scope::System], id).await?;
        let found = found.ok_or_else(|| CloudError::not_found("task"))?;
        caller.may_in(permission, found.value.scope)?;
        Ok(found)
    }

    /// The task of that id in one of these scopes, wherever it is.
    pub(crate) async fn task_in(&self, scopes: &[Scope], id: TaskId) -> Result<Option<Versioned<Task>>> {
        for scope in scopes {
            if let Some(found) = self.read(&paths::task(*scope, id)).await? {
                return Ok(Some(found));
            }
        }
        // It was archived before it left: asked in this order, one of both has it.
        let found = self.archived_in(scopes, id).await?;
        Ok(found.map(|found| with(found, |archived| archived.task)))
    }

    /// The archived task of that id in one of these scopes, at the revision that it had before.
    async fn archived_in(&self, scopes: &[Scope], id: TaskId) -> Result<Option<Versioned<Archived>>> {
        let found = self.archive.find(id).await?;
        let Some((scope, archived)) = found.filter(|(scope, _)| scopes.contains(scope)) else {
            return Ok(None);
        };
        let revision = archived.revision;
        Ok(Some(Versioned {
            key: key(&paths::task(scope, id))?,
            value: archived,
            created: revision,
            modified: revision,
        }))
    }

    /// One task with its plan and how far its jobs are, also one that is archived. What a plan says about other hosts is
    /// only for who may see hosts.
    ///
    /// # Errors
    /// `task.not_found`.
    pub async fn task_detail(&self, caller: &Caller, id: TaskId) -> Result<Versioned<TaskDetail>> {
        let scopes = scopes(caller, "task:read");
        for scope in &scopes {
            let at = paths::task(*scope, id);
            let Some(task) = self.read::<Task>(&at).await? else {
                continue;
            };
            let plan = self.read::<Plan>(&paths::plan(id)).await?.map(|p| p.value);
            let jobs = match &plan {
                Some(plan) => self.jobs_of(&task.value, plan).await?,
                None => Vec::new(),
            };
            // What has ended leaves in one commit: still there, it was whole.
            if task.value.state.ended() && self.read::<Task>(&at).await?.is_none() {
                break;
            }
            return Ok(with(task, |task| detail(caller, task, plan, jobs)));
        }
        let Some(found) = self.archived_in(&scopes, id).await? else {
            return Err(CloudError::not_found("task"));
        };
        Ok(with(found, |archived| {
            let Archived { task, plan, run, .. } = archived;
            let steps = run.into_iter().flat_map(|run| run.jobs);
            let jobs = match &plan {
                Some(plan) => steps.filter_map(|step| step.whole(&task, plan)).collect(),
                None => Vec::new(),
            };
            TaskDetail {
                archived: true,
                ..detail(caller, task, plan, jobs)
            }
        }))
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
    /// `task.not_found`, `task.ended`, `task.stuck`, `precondition.failed`, `auth.forbidden`.
    pub async fn cancel_task(&self, caller: &Caller, id: TaskId) -> Result<TaskAccepted> {
        let done = self
            .once(caller, "tasks.cancel", json!(id), || {
                async move {
                    let found = self.task_for(caller, "task:cancel", id).await?;
                    precondition(caller, found.modified)?;
                    cancellable(&found.value)?;
                    let plan = self.read::<Plan>(&paths::plan(id)).await?;
                    not_past_return(&found.value, plan.as_ref().map(|plan| &plan.value))?;
                    let task = Task {
                        cancel: true,
                        ..found.value.clone()
                    };
                    // Engines follow the marks of open tasks: touching this one's makes its engine look at once.
                    let mark = ActiveTask::of(&task);
                    let txn = found
                        .replace(&task)?
                        .put(key(&paths::active(id))?, Value::json(&mark)?);
                    // A stage that is planned meanwhile may be the one with no way back.
                    let txn = plan.iter().fold(txn, |txn, plan| txn.guard(plan.unchanged()));
                    let (id, scope) = (task.id.uuid(), task.scope);
                    Ok(Change::new(txn, TaskAccepted { task }).told_of("task:cancel", Some(id), scope))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }
}

/// What else is made of a document at the same versions.
fn with<A, B>(from: Versioned<A>, make: impl FnOnce(A) -> B) -> Versioned<B> {
    Versioned {
        key: from.key,
        value: make(from.value),
        created: from.created,
        modified: from.modified,
    }
}

fn detail(caller: &Caller, task: Task, plan: Option<Plan>, jobs: Vec<JobRecord>) -> TaskDetail {
    let running = match &plan {
        Some(plan) => running(&task, plan, &jobs),
        None => Vec::new(),
    };
    let plan = plan.map(|p| Plan {
        placement: rendered(caller, p.placement),
        ..p
    });
    TaskDetail {
        task,
        plan,
        jobs,
        running,
        archived: false,
    }
}

/// Whether a task is asked for.
pub(crate) fn wanted_task(query: &TaskQuery, task: &Task) -> bool {
    let coded = |wanted: &String| {
        let code = task
            .reason
            .as_ref()
            .and_then(|r| r.code.strip_prefix(wanted.as_str()));
        code.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let within = |at: Option<Timestamp>, from: Option<Timestamp>, until: Option<Timestamp>| {
        from.is_none_or(|from| at.is_some_and(|at| at >= from))
            && until.is_none_or(|until| at.is_some_and(|at| at < until))
    };
    query.state.is_none_or(|s| task.state == s)
        && query.flow.as_ref().is_none_or(|f| task.flow == *f)
        && query.subject.is_none_or(|s| task.subject.id == s)
        && query.kind.as_ref().is_none_or(|k| task.subject.kind == *k)
        && query
            .name
            .as_ref()
            .is_none_or(|n| task.subject.name.as_str() == n)
        && query
            .actor
            .as_ref()
            .is_none_or(|a| task.actor.id == *a || task.actor.name == *a)
        && query.code.as_ref().is_none_or(coded)
        && within(Some(task.created_at), query.started_after, query.started_before)
        && within(task.ended_at, query.ended_after, query.ended_before)
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

/// Whether a task can still go back.
fn not_past_return(task: &Task, plan: Option<&Plan>) -> Result<()> {
    if task.flow == ServerLiveMigrate.name() && plan.is_some_and(past_return) {
        let message = "the guest is switching over: it may be on the other host already";
        return Err(CloudError::conflict(
            Reason::new("task.past_return", message).hint("wait for its end"),
        ));
    }
    Ok(())
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

/// In which of the scopes that a caller can reach it may do that.
pub(super) fn scopes(caller: &Caller, permission: &'static str) -> Vec<Scope> {
    let all = [caller.scope(), Scope::System];
    all.into_iter()
        .filter(|scope| caller.may_in(permission, *scope).is_ok())
        .collect()
}

/// The same for a list, which is refused when there are none.
pub(super) fn listed_scopes(caller: &Caller, permission: &'static str) -> Result<Vec<Scope>> {
    let scopes = scopes(caller, permission);
    if scopes.is_empty() {
        caller.may_here(permission)?;
    }
    Ok(scopes)
}

/// A placement's explanation as the caller may see it. One that cannot be read is shown only to who may see hosts.
pub(crate) fn rendered(caller: &Caller, placement: Option<serde_json::Value>) -> Option<serde_json::Value> {
    if caller.sees_hosts() {
        return placement;
    }
    preview::for_tenant(placement)
}
