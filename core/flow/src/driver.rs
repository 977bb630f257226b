//! Carries tasks forward: the only place of the engine's side that does IO.
//!
//! ```text
//!  step(task): read task ── not mine? ──> claim (owner, lease epoch)
//!                   │ queued/waiting           │ running/unwinding
//!                   v                          v
//!   flow.plan(records, inventory)      decide(task, plan, job records)
//!                   │                          │
//!                   └── one commit: task + plan + claims + jobs, or task + jobs, or the end ──> Store
//! ```
//!
//! Nothing is kept between steps but a cache of immutable plans. Every commit compares the task's revision and the
//! engine's lease, so however many engines step a task, one commit wins and the others look again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use skyloom_model::{
    ActiveTask, Clock, FORMAT, Ids, JobId, JobRecord, JobState, Owner, Place, Plan, Progress, Reason, Run,
    Task, TaskEnd, TaskId, TaskState, Timestamp, paths,
};
use skyloom_scheduler::{Inventory, Scheduler};
use skyloom_store::{DynBackend, Key, ListOptions, Outcome, Result, Txn, Value, Versioned};

use crate::changes::{apply, dispatch, key, lent_keys, prefix};
use crate::context::Lend;
use crate::{
    Decision, Fence, FlowRegistry, InventoryFeed, PlanContext, Planned, Records, Refusal, SettleContext,
    TaskFlow, View, decide,
};

/// Rounds of [`TaskFlow::reads`] before planning goes on with what was read.
const MAX_READ_ROUNDS: usize = 8;
/// Plans kept in memory.
const PLAN_CACHE: usize = 4096;

/// What a driver is made of.
#[derive(Debug)]
pub struct DriverParts {
    /// Where everything is.
    pub backend: DynBackend,
    /// The flows that this engine knows.
    pub flows: FlowRegistry,
    /// Chooses hosts.
    pub scheduler: Arc<dyn Scheduler>,
    /// The hosts to choose from.
    pub inventory: Arc<InventoryFeed>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn Ids>,
    /// This engine's name, as it stands in claims.
    pub engine: String,
}

/// What a step found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The task has ended.
    Ended,
    /// Something was done; look again.
    Advanced,
    /// There is nothing to do until something changes.
    Waiting,
    /// Somebody else changed something in between; look again.
    Conflict,
    /// Another engine's, or of a flow that this engine does not know.
    NotMine,
}

/// Carries tasks forward, one step at a time.
#[derive(Debug)]
pub struct Driver {
    parts: DriverParts,
    plans: Mutex<BTreeMap<TaskId, Arc<Plan>>>,
}

impl Driver {
    /// A driver of these parts.
    #[must_use]
    pub fn new(parts: DriverParts) -> Self {
        Self {
            parts,
            plans: Mutex::new(BTreeMap::new()),
        }
    }

    /// Looks at one task and does what is next.
    ///
    /// # Errors
    /// Those of the store; nothing is lost by calling again.
    pub async fn step(&self, active: &ActiveTask, fence: &Fence) -> Result<Step> {
        let Some(task) = self.read_task(active).await? else {
            return Ok(Step::NotMine);
        };
        if task.value.state.ended() {
            return Ok(Step::Ended);
        }
        let Some(flow) = self.parts.flows.get(&task.value.flow).cloned() else {
            tracing::warn!(task = %active.task, flow = task.value.flow, "unknown flow: left to engines that know it");
            return Ok(Step::NotMine);
        };
        let Some(task) = self.claim(task, fence).await? else {
            return Ok(Step::NotMine);
        };
        match task.value.state {
            TaskState::Queued | TaskState::Waiting => self.plan(&*flow, task, fence).await,
            _ => self.carry_on(&*flow, task, fence).await,
        }
    }

    async fn read_task(&self, active: &ActiveTask) -> Result<Option<Versioned<Task>>> {
        let key = key(&paths::task(active.scope, active.task))?;
        self.parts
            .backend
            .get(&key)
            .await?
            .map(|kv| Versioned::decode(&kv))
            .transpose()
    }

    /// Makes the task this engine's own, if it is free or its owner's lease is gone.
    async fn claim(&self, mut task: Versioned<Task>, fence: &Fence) -> Result<Option<Versioned<Task>>> {
        let claims = match &task.value.owner {
            Some(owner) if owner.engine == self.parts.engine && owner.lease_epoch == fence.epoch => {
                return Ok(Some(task));
            }
            Some(owner) if owner.engine != self.parts.engine && self.alive(owner).await? => return Ok(None),
            Some(owner) => owner.claims,
            None => 0,
        };
        task.value.owner = Some(Owner {
            engine: self.parts.engine.clone(),
            lease_epoch: fence.epoch,
            claims: claims.saturating_add(1),
        });
        let txn = task.replace(&task.value)?.guard(fence.guard());
        match self.parts.backend.commit(txn).await? {
            Outcome::Committed { revision } => {
                task.modified = revision;
                Ok(Some(task))
            }
            Outcome::Conflict { .. } => Ok(None),
        }
    }

    async fn alive(&self, owner: &Owner) -> Result<bool> {
        let name = paths::engine_lease(&owner.engine);
        let leases = self.parts.backend.leases(&prefix("engines")?).await?;
        Ok(leases
            .iter()
            .any(|l| l.name.as_key().as_str() == name && l.epoch == owner.lease_epoch && !l.expired))
    }

    async fn plan(&self, flow: &dyn TaskFlow, mut task: Versioned<Task>, fence: &Fence) -> Result<Step> {
        if task.value.cancel {
            let reason = Reason::new("task.cancelled", "the task was cancelled before it began");
            return self
                .finish(
                    flow,
                    task,
                    None,
                    BTreeMap::new(),
                    TaskEnd::Cancelled,
                    Some(reason),
                    fence,
                )
                .await;
        }
        let records = self.read_records(flow, &task.value).await?;
        let now = self.parts.clock.now();
        let attempt = |inventory: &Inventory| {
            flow.plan(
                &task.value,
                &mut PlanContext {
                    records: &records,
                    inventory,
                    scheduler: &*self.parts.scheduler,
                    ids: &*self.parts.ids,
                    now,
                },
            )
        };
        let mut planned = self.parts.inventory.with(attempt);
        if matches!(planned, Err(Refusal::Fail(_))) && !self.parts.inventory.has_seen(task.created) {
            // The inventory may be behind what the caller has seen, such as room that a deletion gave back: a refusal
            // has to hold against the store itself.
            planned = attempt(&self.parts.inventory.read(&self.parts.backend).await?);
        }
        match planned {
            Ok(planned) => self.commit_plan(task, planned, now, fence).await,
            Err(Refusal::Fail(reason)) => {
                self.finish(
                    flow,
                    task,
                    None,
                    BTreeMap::new(),
                    TaskEnd::Failed,
                    Some(reason),
                    fence,
                )
                .await
            }
            Err(Refusal::Wait(reason)) => {
                if task.value.state == TaskState::Waiting && task.value.reason.as_ref() == Some(&reason) {
                    return Ok(Step::Waiting);
                }
                task.value.state = TaskState::Waiting;
                task.value.reason = Some(reason);
                let txn = task.replace(&task.value)?.guard(fence.guard());
                self.commit(txn)
                    .await
                    .map(|s| if s == Step::Advanced { Step::Waiting } else { s })
            }
        }
    }

    async fn commit_plan(
        &self,
        task: Versioned<Task>,
        planned: Planned,
        now: Timestamp,
        fence: &Fence,
    ) -> Result<Step> {
        let Planned {
            jobs,
            placement,
            changes,
            generation,
            lend,
            stage: _,
        } = planned;
        let plan = Plan {
            format: FORMAT,
            task: task.value.id,
            jobs,
            placement,
            made_at: now,
            stages: Vec::new(),
        };
        let mut next = task.value.clone();
        next.state = TaskState::Running;
        next.reason = None;
        next.planned_at = Some(now);
        next.progress = Progress {
            done: 0,
            total: plan.jobs.iter().map(|j| j.weight).sum(),
        };
        let mut txn = task.replace(&next)?.guard(fence.guard());
        txn = txn.create(key(&paths::plan(next.id))?, Value::json(&plan)?);
        txn = txn.and(changes).and(self.lend(&lend).await?);
        // The first jobs go out with the plan itself. Their generation is kept for all others.
        let none = BTreeMap::new();
        for decision in decide(View {
            task: &next,
            plan: &plan,
            jobs: &none,
            now,
        }) {
            if let Decision::Dispatch(id) = decision {
                txn = txn.and(dispatch(&next, &plan, &id, generation)?);
            }
        }
        let first_guard_of_changes = 3;
        match self.parts.backend.commit(txn).await? {
            Outcome::Committed { .. } => {
                tracing::info!(task = %next.id, flow = next.flow, request_id = next.request_id, jobs = plan.jobs.len(), "planned");
                Ok(if plan.jobs.is_empty() {
                    Step::Advanced
                } else {
                    Step::Waiting
                })
            }
            Outcome::Conflict { guard, current } => {
                // A host's ledger moved: wait until the inventory has seen it, or planning would only lose again.
                if guard >= first_guard_of_changes
                    && let Some(revision) = current
                {
                    self.parts.inventory.wait_for(revision).await;
                }
                Ok(Step::Conflict)
            }
        }
    }

    /// Copies secrets to where the host's agent may read them. Their content passes through here and nowhere else.
    async fn lend(&self, lend: &[Lend]) -> Result<Txn> {
        let mut txn = Txn::new();
        for (project, server, host) in lend {
            if let Some(secret) = self
                .parts
                .backend
                .get(&key(&paths::server_secrets(*project, *server))?)
                .await?
            {
                txn = txn.put(key(&paths::lent(*host, *server))?, secret.value);
            }
        }
        Ok(txn)
    }

    async fn carry_on(&self, flow: &dyn TaskFlow, task: Versioned<Task>, fence: &Fence) -> Result<Step> {
        let Some(plan) = self.read_plan(task.value.id).await? else {
            let reason = Reason::new("task.plan_missing", "the task is running and its plan is gone");
            return self
                .finish(
                    flow,
                    task,
                    None,
                    BTreeMap::new(),
                    TaskEnd::Stuck,
                    Some(reason),
                    fence,
                )
                .await;
        };
        let jobs = self.read_jobs(&plan).await?;
        let records: BTreeMap<JobId, JobRecord> =
            jobs.iter().map(|(id, v)| (id.clone(), v.value.clone())).collect();
        let now = self.parts.clock.now();
        let mut next = task.value.clone();
        let mut decisions = decide(View {
            task: &next,
            plan: &plan,
            jobs: &records,
            now,
        });
        if let [Decision::Unwind(reason)] = decisions.as_slice() {
            tracing::warn!(task = %next.id, flow = next.flow, request_id = next.request_id, %reason, "unwinding");
            next.state = TaskState::Unwinding;
            next.reason = Some(reason.clone());
            decisions = decide(View {
                task: &next,
                plan: &plan,
                jobs: &records,
                now,
            });
        }
        if let Some(Decision::End(end, reason)) = decisions.iter().find(|d| matches!(d, Decision::End(..))) {
            let task = Versioned { value: next, ..task };
            return self
                .finish(flow, task, Some(&plan), jobs, *end, reason.clone(), fence)
                .await;
        }
        next.progress.done = plan
            .jobs
            .iter()
            .filter(|j| records.get(&j.id).is_some_and(|r| r.state == JobState::Succeeded))
            .map(|j| j.weight)
            .sum();
        if decisions.is_empty() && next == task.value {
            return Ok(Step::Waiting);
        }
        let mut txn = task.replace(&next)?.guard(fence.guard());
        // All jobs of a plan work under the generation that it was made for.
        let generation = records.values().map(|r| r.generation).max().unwrap_or_default();
        for decision in &decisions {
            txn = txn.and(apply(&next, &plan, &jobs, decision, generation, now)?);
        }
        self.commit(txn)
            .await
            .map(|s| if s == Step::Advanced { Step::Waiting } else { s })
    }

    /// Ends the task: its last state, the flow's record changes, and the job records put away, in one commit.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call per way of ending; a struct would only rename them"
    )]
    async fn finish(
        &self,
        flow: &dyn TaskFlow,
        task: Versioned<Task>,
        plan: Option<&Plan>,
        jobs: BTreeMap<JobId, Versioned<JobRecord>>,
        end: TaskEnd,
        reason: Option<Reason>,
        fence: &Fence,
    ) -> Result<Step> {
        let records = self.read_records(flow, &task.value).await?;
        let outputs = jobs
            .iter()
            .filter_map(|(id, v)| v.value.output.clone().map(|o| (id.clone(), o)))
            .collect();
        let now = self.parts.clock.now();
        let context = SettleContext {
            end,
            reason: reason.as_ref(),
            plan,
            outputs: &outputs,
            records: &records,
            now,
        };
        let (end, reason, settled) = match flow.settle(&task.value, &context) {
            Ok(settled) => (end, reason, settled),
            Err(why) => (TaskEnd::Stuck, Some(why), crate::Settled::default()),
        };
        let mut next = task.value.clone();
        next.state = match end {
            TaskEnd::Done => TaskState::Done,
            TaskEnd::Failed => TaskState::Failed,
            TaskEnd::Cancelled => TaskState::Cancelled,
            TaskEnd::Stuck => TaskState::Stuck,
        };
        next.reason = reason;
        next.result = settled.result;
        next.ended_at = Some(now);
        if end == TaskEnd::Done {
            next.progress.done = next.progress.total;
        }
        let mut txn = task.replace(&next)?.guard(fence.guard()).and(settled.changes);
        txn = txn.delete(key(&paths::active(next.id))?);
        if let Some(plan) = plan {
            let in_order = plan
                .jobs
                .iter()
                .filter_map(|j| jobs.get(&j.id))
                .map(|v| v.value.clone())
                .collect();
            txn = txn.put(
                key(&paths::run(next.id))?,
                Value::json(&Run {
                    format: FORMAT,
                    jobs: in_order,
                })?,
            );
            for job in jobs.values() {
                txn = txn.and(job.delete());
            }
            for lent in lent_keys(plan, &next)? {
                txn = txn.delete(lent);
            }
        }
        let step = self.commit(txn).await?;
        if step == Step::Advanced {
            self.plans.lock().remove(&next.id);
            tracing::info!(task = %next.id, flow = next.flow, request_id = next.request_id, state = ?next.state, reason = ?next.reason, "ended");
            return Ok(Step::Ended);
        }
        Ok(step)
    }

    async fn commit(&self, txn: Txn) -> Result<Step> {
        match self.parts.backend.commit(txn).await? {
            Outcome::Committed { .. } => Ok(Step::Advanced),
            Outcome::Conflict { .. } => Ok(Step::Conflict),
        }
    }

    async fn read_records(&self, flow: &dyn TaskFlow, task: &Task) -> Result<Records> {
        let mut records = Records::new();
        for _ in 0..MAX_READ_ROUNDS {
            let wanted: Vec<Key> = flow
                .reads(task, &records)
                .into_iter()
                .filter(|k| !records.has_read(k))
                .collect();
            if wanted.is_empty() {
                break;
            }
            let found =
                futures::future::try_join_all(wanted.iter().map(|k| self.parts.backend.get(k))).await?;
            for (key, found) in wanted.into_iter().zip(found) {
                let found = found
                    .map(|kv| kv.value.parse().map(|v| (v, kv.modified)))
                    .transpose()?;
                records.insert(key, found);
            }
        }
        Ok(records)
    }

    async fn read_plan(&self, task: TaskId) -> Result<Option<Arc<Plan>>> {
        if let Some(plan) = self.plans.lock().get(&task) {
            return Ok(Some(plan.clone()));
        }
        let Some(kv) = self.parts.backend.get(&key(&paths::plan(task))?).await? else {
            return Ok(None);
        };
        let plan: Arc<Plan> = Arc::new(kv.value.parse()?);
        let mut plans = self.plans.lock();
        if plans.len() >= PLAN_CACHE {
            plans.pop_first(); // version 7 ids: the oldest
        }
        plans.insert(task, plan.clone());
        Ok(Some(plan))
    }

    async fn read_jobs(&self, plan: &Plan) -> Result<BTreeMap<JobId, Versioned<JobRecord>>> {
        let places: BTreeSet<Place> = plan.jobs.iter().map(|j| j.place).collect();
        let mut jobs = BTreeMap::new();
        for place in places {
            let page = self
                .parts
                .backend
                .list(
                    &prefix(&paths::task_jobs(place, plan.task))?,
                    ListOptions::default(),
                )
                .await?;
            for kv in &page.items {
                let job = Versioned::<JobRecord>::decode(kv)?;
                jobs.insert(job.value.spec.id.clone(), job);
            }
        }
        Ok(jobs)
    }
}
