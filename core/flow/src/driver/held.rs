//! What a driver holds of a task between two readings: what the store has, and what is to be written next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value as Json;
use skyloom_model::ablation::{Rule, kept};
use skyloom_model::{
    ActiveTask, JobId, JobRecord, MAIN_STAGE, Place, Plan, Stage, StepRecord, Task, Timestamp, paths,
};
use skyloom_store::{Key, KeyValue, ListOptions, Result, Revision, Txn, Value, Versioned};

use super::{Driver, Life};
use crate::compose::{key, prefix};
use crate::{View, not_held};

/// Plans kept in memory.
const PLAN_CACHE: usize = 4096;

/// A task as it was read, with what is to be written next.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) task: Versioned<Task>,
    /// Its claim was counted: what is committed next says that this life survived it.
    pub(super) counted: bool,
    pub(super) plan: Option<Arc<Plan>>,
    /// What the scheduler said when it found no host for the first stage.
    pub(super) refused: Option<Json>,
    pub(super) jobs: BTreeMap<JobId, JobRecord>,
    /// Which of them the store has, where, and at which revision.
    pub(super) saved: BTreeMap<JobId, (Key, Revision)>,
    /// Which of them differ from what the store has; and where they go that are not there yet, once that is known.
    pub(super) dirty: BTreeMap<JobId, Option<Key>>,
    /// What the jobs gave.
    pub(super) outputs: Arc<BTreeMap<JobId, Json>>,
}

impl Held {
    pub(super) fn view<'a>(&'a self, task: &'a Task, plan: &'a Plan, now: Timestamp) -> View<'a> {
        View {
            task,
            plan,
            jobs: &self.jobs,
            now,
        }
    }

    /// Changes a job's record.
    pub(super) fn edit(&mut self, id: &JobId, edit: impl FnOnce(&mut JobRecord)) {
        if let Some(record) = self.jobs.get_mut(id) {
            edit(record);
            self.dirty.insert(id.clone(), None);
        }
    }

    /// Takes over a job's record that is to be written.
    pub(super) fn insert(&mut self, record: JobRecord) {
        let id = record.spec.id.clone();
        if let Some(output) = &record.output {
            Arc::make_mut(&mut self.outputs).insert(id.clone(), output.clone());
        }
        self.dirty.insert(id.clone(), None);
        self.jobs.insert(id, record);
    }

    /// The guards that every commit for the task carries.
    pub(super) fn guards(&self, life: &Life) -> Result<Txn> {
        let mut txn = Txn::new();
        if kept(Rule::TaskRevision) {
            txn = txn.guard(self.task.unchanged());
        }
        if kept(Rule::EngineEpoch) {
            txn = txn.guard(life.fence.guard());
        }
        // Nothing is carried forward while the fleet is held.
        Ok(txn.guard(not_held()?))
    }

    /// The writes of all jobs that differ from the store. An engine's jobs are written by the task's owner alone, so the
    /// task's guard is theirs.
    pub(super) fn job_writes(&mut self) -> Result<Txn> {
        let mut txn = Txn::new();
        for (id, at) in &mut self.dirty {
            let Some(record) = self.jobs.get(id) else { continue };
            let value = match record.spec.place {
                // What the plan says of it, whoever reads it has.
                Place::Engine if self.task.value.format > 1 => Value::json(&StepRecord::of(record))?,
                Place::Engine | Place::Host(_) => Value::json(record)?,
            };
            txn = match (record.spec.place, self.saved.get(id)) {
                (Place::Host(_), Some((key, revision))) => txn.replace(key.clone(), *revision, value),
                (Place::Engine, Some((key, _))) => txn.put(key.clone(), value),
                (place, None) => {
                    let at = match at {
                        Some(at) => at,
                        None => at.insert(key(&paths::job(place, self.task.value.id, id))?),
                    };
                    match place {
                        Place::Host(_) => txn.create(at.clone(), value),
                        Place::Engine => txn.put(at.clone(), value),
                    }
                }
            };
        }
        Ok(txn)
    }

    /// Everything that was to be written is.
    pub(super) fn written(&mut self, at: Revision) {
        for (id, key) in std::mem::take(&mut self.dirty) {
            if let Some((_, revision)) = self.saved.get_mut(&id) {
                *revision = at;
            } else if let Some(key) = key {
                self.saved.insert(id, (key, at));
            }
        }
    }
}

impl Driver {
    /// Reads a task with its plan and jobs.
    pub(super) async fn load(&self, mark: &ActiveTask) -> Result<Option<Held>> {
        let at = key(&paths::task(mark.scope, mark.task))?;
        let Some(kv) = self.parts.backend.get(&at).await? else {
            return Ok(None);
        };
        let task = Versioned::<Task>::decode(&kv)?;
        let mut held = Held {
            task,
            counted: false,
            plan: None,
            refused: None,
            jobs: BTreeMap::new(),
            saved: BTreeMap::new(),
            dirty: BTreeMap::new(),
            outputs: Arc::default(),
        };
        if held.task.value.planned_at.is_none() || held.task.value.state.ended() {
            return Ok(Some(held));
        }
        held.plan = self.read_plan(&held.task.value).await?;
        if let Some(plan) = held.plan.clone() {
            for kv in self.read_jobs(&held.task.value, &plan).await? {
                let Some(record) = job(&kv, &held.task.value, &plan)? else {
                    continue;
                };
                if let Some(output) = &record.output {
                    Arc::make_mut(&mut held.outputs).insert(record.spec.id.clone(), output.clone());
                }
                held.saved.insert(record.spec.id.clone(), (kv.key, kv.modified));
                held.jobs.insert(record.spec.id.clone(), record);
            }
            if plan.stages.is_empty() {
                held.plan = Some(Arc::new(of_format_1(&plan, &held.jobs)));
            }
        }
        Ok(Some(held))
    }

    async fn read_plan(&self, task: &Task) -> Result<Option<Arc<Plan>>> {
        if let Some((version, plan)) = self.plans.lock().get(&task.id)
            && *version == task.plan_version
        {
            return Ok(Some(plan.clone()));
        }
        let Some(kv) = self.parts.backend.get(&key(&paths::plan(task.id))?).await? else {
            return Ok(None);
        };
        let plan: Arc<Plan> = Arc::new(kv.value.parse()?);
        self.remember(task, plan.clone());
        Ok(Some(plan))
    }

    pub(super) fn remember(&self, task: &Task, plan: Arc<Plan>) {
        let mut plans = self.plans.lock();
        if plans.len() >= PLAN_CACHE {
            plans.pop_first(); // version 7 ids: the oldest
        }
        plans.insert(task.id, (task.plan_version, plan));
    }

    pub(super) fn forget(&self, task: &Task) {
        self.plans.lock().remove(&task.id);
    }

    async fn read_jobs(&self, task: &Task, plan: &Plan) -> Result<Vec<KeyValue>> {
        let places: BTreeSet<Place> = plan.jobs.iter().map(|j| j.place).collect();
        let mut below: Vec<String> = places.iter().map(|p| paths::task_jobs(*p, task.id)).collect();
        if task.format == 1 && places.contains(&Place::Engine) {
            below.push(paths::task_jobs_of_format_1(task.id));
        }
        let mut found = Vec::new();
        for below in below {
            let below = prefix(&below)?;
            let mut options = ListOptions::default();
            loop {
                let page = self.parts.backend.list(&below, options).await?;
                let last = page.items.last().filter(|_| page.more).map(|kv| kv.key.clone());
                found.extend(page.items);
                match last {
                    Some(last) => options = ListOptions::default().with_after(last).with_at(page.revision),
                    None => break,
                }
            }
        }
        Ok(found)
    }
}

/// The record of a job: a host's is whole, an engine's is put together with its task and plan, except in format 1. Nothing when
/// the plan has no such job.
fn job(kv: &KeyValue, task: &Task, plan: &Plan) -> Result<Option<JobRecord>> {
    if task.format > 1 && kv.key.segments().next() == Some(paths::STEPS) {
        return Ok(kv.value.parse::<StepRecord>()?.whole(task, plan));
    }
    kv.value.parse().map(Some)
}

/// A plan of format 1 with its one stage.
fn of_format_1(plan: &Plan, jobs: &BTreeMap<JobId, JobRecord>) -> Plan {
    let mut plan = plan.clone();
    plan.stages.push(Stage {
        name: MAIN_STAGE.to_owned(),
        jobs: plan.jobs.iter().map(|j| j.id.clone()).collect(),
        // All jobs of a plan work under the generation that it was made for.
        generation: jobs.values().map(|r| r.generation).max().unwrap_or_default(),
        made_at: plan.made_at,
        outcome: None,
    });
    plan
}
