//! A mutation put together whole and not committed: its writes, its task, and the plan that an engine would make.
//!
//! ```text
//!  Change { txn, task } ──> TaskFlow::plan over the records as they would be ──> Draft { txn, plan, seen }
//!                                                                                 ├─> Preview (dry run)
//!                                                                                 └─> commit (apply)
//! ```
//!
//! The same functions put it together that an engine uses, so what is shown is what would run.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;
use skyloom_flow::{FlowRegistry, InventoryFeed, PlanContext, Reading, Refusal, compose};
use skyloom_model::{HostId, HostLedger, JobSpec, Place, Plan, Reason, Resources, Task, paths};
use skyloom_scheduler::{HostView, Inventory, Scheduler};
use skyloom_store::{Guard, Key, Revision, Txn, Value, Write};

use super::Cloud;
use super::quotas::is_ledger;
use super::records::key;
use super::risks;
use crate::preview::{ChangeKind, ENGINE, HostRoom, MadeFrom, RecordChange, Reservation};
use crate::{CloudError, Preview, PreviewStep, Result, hash};

/// What makes plans of tasks.
#[derive(Debug, Clone)]
pub(crate) struct Planner {
    pub(crate) flows: FlowRegistry,
    pub(crate) scheduler: Arc<dyn Scheduler>,
}

/// The revisions of what something was made from.
pub(crate) type Seen = BTreeMap<Key, Revision>;

/// A task with its plan, ready to be committed.
pub(crate) struct Draft {
    /// Everything in one commit: the mutation's writes, the task under way, its plan, claims, first jobs, events.
    pub(crate) txn: Txn,
    /// What it was made from.
    pub(crate) seen: Seen,
    task: Task,
    plan: Plan,
    inventory: Inventory,
}

impl Cloud {
    /// Plans the task that goes with `txn`.
    ///
    /// # Errors
    /// The flow's refusal as a conflict.
    pub(crate) async fn draft(&self, txn: Txn, task: &Task) -> Result<Draft> {
        let Some(flow) = self.planner.flows.get(&task.flow) else {
            let message = format!("the flow {} cannot be planned in this process", task.flow);
            let reason = Reason::new("plan.unknown_flow", message);
            return Err(CloudError::conflict(
                reason.hint("ask without a dry run: engines may know it"),
            ));
        };
        let backend = &self.parts.backend;
        let asked = txn.and(self.submission(task)?);
        let reading = Reading::after(backend, &asked);
        let records = reading.records(&**flow, task, &BTreeMap::new()).await?;
        let (feed, _) = InventoryFeed::new(backend)?;
        let inventory = feed.read(backend).await?;
        let now = self.now();
        let mut cx = PlanContext {
            records: &records,
            inventory: &inventory,
            scheduler: &*self.planner.scheduler,
            ids: &*self.parts.ids,
            now,
        };
        let planned = flow.plan(task, &mut cx).map_err(|refusal| match refusal {
            Refusal::Fail(reason)
            | Refusal::NoHost(reason, _)
            | Refusal::Wait(reason)
            | Refusal::WaitForRoom(reason, _) => CloudError::conflict(reason),
        })?;
        let composed = compose::first_stage(task, planned, now, &*self.parts.ids)?;
        let lent = compose::lend(reading, &composed.lend).await?;
        let jobs = compose::first_jobs(&composed.task, &composed.plan, now)?;
        let under_way = Txn::new().put(
            key(&paths::task(task.scope, task.id))?,
            Value::json(&composed.task)?,
        );
        let txn = compose::onto(asked, under_way.and(composed.txn).and(lent).and(jobs));
        Ok(Draft {
            seen: seen(&txn),
            txn,
            task: composed.task,
            plan: composed.plan,
            inventory,
        })
    }
}

/// The revisions that a commit compares.
pub(crate) fn seen(txn: &Txn) -> Seen {
    let revision = |guard: &Guard| match guard {
        Guard::Revision(key, _) if is_ledger(key) => None,
        Guard::Revision(key, revision) => Some((key.clone(), *revision)),
        Guard::Absent(_) | Guard::Lease(..) => None,
    };
    txn.guards.iter().filter_map(revision).collect()
}

impl Draft {
    /// What tells this plan from another: hosts, kinds, titles and order of the steps; no ids.
    pub(crate) fn fingerprint(&self) -> String {
        let mut hash = Vec::new();
        for job in &self.plan.jobs {
            let step = serde_json::json!([job.id, job.kind, job.title, job.place, job.after]);
            hash.push(step.to_string());
        }
        let parts: Vec<&[u8]> = hash.iter().map(String::as_bytes).collect();
        hash::sha256_of(&parts)
    }

    /// What operators see of it.
    pub(crate) fn preview(&self, operation: &str) -> Preview {
        let reservation = self.reservation();
        Preview {
            operation: operation.to_owned(),
            plan: None,
            flow: Some(self.task.flow.clone()),
            subject: Some(self.task.subject.clone()),
            steps: self.plan.jobs.iter().map(|job| self.step(job)).collect(),
            placement: self.plan.placement.clone(),
            reservation,
            changes: changes(&self.txn),
            later: risks::later(&self.task.flow),
            risks: risks::of(&self.task, &self.plan.jobs),
            made_from: made_from(&self.seen),
            quota: Vec::new(),
        }
    }

    fn host(&self, id: HostId) -> Option<&HostView> {
        self.inventory.get(id).map(|host| &**host)
    }

    fn step(&self, job: &JobSpec) -> PreviewStep {
        let place = match job.place {
            Place::Engine => ENGINE.to_owned(),
            Place::Host(id) => self
                .host(id)
                .map_or_else(|| id.to_string(), |host| host.name.to_string()),
        };
        PreviewStep {
            id: job.id.clone(),
            title: job.title.clone(),
            kind: job.kind.clone(),
            place,
            after: job.after.clone(),
            weight: job.weight,
            retry: job.retry,
            timeout_ms: job.timeout_ms,
        }
    }

    /// What the claim of this commit takes.
    fn reservation(&self) -> Option<Reservation> {
        let (id, after) = self.txn.writes.iter().find_map(|write| match write {
            Write::Put(key, value) if key.segments().next() == Some(paths::LEDGERS) => {
                Some((key.last().parse().ok()?, value.parse::<HostLedger>().ok()?))
            }
            _ => None,
        })?;
        let host = self.host(id)?;
        let room = HostRoom {
            name: host.name.clone(),
            capacity: host.effective(),
            used_before: host.ledger.used,
            used_after: after.used,
            nearly_full: Vec::new(),
        };
        Some(Reservation {
            resources: after.used.minus(host.ledger.used),
            host: Some(HostRoom {
                nearly_full: nearly_full(room.used_after, room.capacity),
                ..room
            }),
        })
    }
}

/// In what more than nine tenths are taken.
fn nearly_full(used: Resources, capacity: Resources) -> Vec<String> {
    let full = |what: &str, used: u64, capacity: u64| {
        let percent = used.saturating_mul(100) / capacity.max(1);
        (percent > 90).then(|| format!("{percent} % of its {what} would be taken"))
    };
    [
        full("virtual CPUs", u64::from(used.vcpus), u64::from(capacity.vcpus)),
        full("memory", used.memory_mib, capacity.memory_mib),
        full("disk", used.disk_gib, capacity.disk_gib),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What a commit makes of records that people know; marks, secrets' contents and other inner things are not named.
pub(crate) fn changes(txn: &Txn) -> Vec<RecordChange> {
    let replaced = seen(txn);
    let of = |write: &Write| {
        let (kind, id) = address(write.key())?;
        let (change, value) = match write {
            Write::Delete(_) => (ChangeKind::Deleted, Json::Null),
            Write::Put(key, value) => {
                let change = if replaced.contains_key(key) {
                    ChangeKind::Changed
                } else {
                    ChangeKind::Created
                };
                (change, value.parse().unwrap_or_default())
            }
        };
        let text = |pointer: &str| value.pointer(pointer).and_then(Json::as_str).map(str::to_owned);
        Some(RecordChange {
            change,
            name: text("/meta/name").or_else(|| text("/flow")),
            kind,
            id: id.filter(|_| change != ChangeKind::Created),
        })
    };
    let mut changes: Vec<RecordChange> = txn.writes.iter().filter_map(of).collect();
    changes.sort_by(|a, b| (a.change, &a.kind).cmp(&(b.change, &b.kind)));
    changes
}

/// What a preview tells of the revisions that it was made from.
pub(crate) fn made_from(seen: &Seen) -> Vec<MadeFrom> {
    let of = |(key, revision): (&Key, &Revision)| {
        let (kind, id) = address(key)?;
        Some(MadeFrom {
            kind,
            id: id?,
            revision: revision.0,
        })
    };
    seen.iter().filter_map(of).collect()
}

/// The kind and id of a record that people know.
pub(crate) fn address(key: &Key) -> Option<(String, Option<uuid::Uuid>)> {
    let mut segments = key.segments();
    let area = segments.next()?;
    let kind = match area {
        "r" => segments.next()?,
        "tasks" | "plans" | "secrets" | "claims" | "ledgers" => area,
        "identity" => segments.next().filter(|kind| *kind == "tokens")?,
        _ => return None,
    };
    Some((kind.to_owned(), key.last().parse().ok()))
}
