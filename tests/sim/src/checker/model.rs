//! What the checker knows of the store: the few fields of each record that the invariants speak of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use skyloom_model::{
    Claim, Host, HostId, HostLedger, JobId, JobState, JobWant, Lifecycle, Owner, Place, PowerState, ServerId,
    Stage, TaskId, TaskState, WorkerMark,
};
use skyloom_store::LeaseName;
use uuid::Uuid;

use crate::bed::Who;

/// A task.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct TaskDoc {
    pub(crate) flow: String,
    pub(crate) subject: SubjectDoc,
    pub(crate) actor: ActorDoc,
    #[serde(default)]
    pub(crate) idempotency_key: Option<String>,
    pub(crate) state: TaskState,
    #[serde(default)]
    pub(crate) owner: Option<Owner>,
    #[serde(default)]
    pub(crate) reason: Option<ReasonDoc>,
    #[serde(default)]
    pub(crate) cancel: bool,
    #[serde(default)]
    pub(crate) orders: Vec<OrderDoc>,
}

/// An operator's order.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct OrderDoc {
    #[serde(default)]
    pub(crate) carried_out: bool,
}

/// An event.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct EventDoc {
    #[serde(default)]
    pub(crate) task: Option<TaskId>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct SubjectDoc {
    pub(crate) id: Uuid,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ActorDoc {
    pub(crate) id: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ReasonDoc {
    pub(crate) code: String,
    pub(crate) message: String,
}

/// A job of a plan.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct SpecDoc {
    pub(crate) id: JobId,
    #[serde(default)]
    pub(crate) after: Vec<JobId>,
    pub(crate) place: Place,
}

/// A job's record.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct JobDoc {
    pub(crate) task: TaskId,
    pub(crate) spec: SpecDoc,
    pub(crate) want: JobWant,
    pub(crate) attempt: u32,
    pub(crate) state: JobState,
    #[serde(default)]
    pub(crate) worker: Option<WorkerMark>,
}

/// A step of the engine.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct StepDoc {
    #[serde(default)]
    pub(crate) id: Option<JobId>,
    #[serde(default = "forward")]
    pub(crate) want: JobWant,
    #[serde(default = "one")]
    pub(crate) attempt: u32,
    pub(crate) state: JobState,
}

const fn forward() -> JobWant {
    JobWant::Run
}

const fn one() -> u32 {
    1
}

/// A plan as it is written.
#[derive(Debug, Deserialize)]
pub(crate) struct PlanText<'a> {
    #[serde(borrow)]
    pub(crate) jobs: Vec<&'a RawValue>,
    #[serde(default)]
    pub(crate) stages: Vec<Stage>,
}

/// A plan.
#[derive(Debug, Clone, Default)]
pub(crate) struct PlanModel {
    /// What was written, to see that it is never changed.
    pub(crate) texts: Vec<Box<str>>,
    pub(crate) jobs: Vec<SpecDoc>,
    pub(crate) stages: Vec<Stage>,
}

/// A server.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ServerDoc {
    pub(crate) meta: MetaDoc,
    pub(crate) status: ServerStatusDoc,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct MetaDoc {
    pub(crate) generation: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ServerStatusDoc {
    pub(crate) lifecycle: Lifecycle,
    pub(crate) power: PowerState,
    #[serde(default)]
    pub(crate) activity: Option<ActivityDoc>,
    #[serde(default)]
    pub(crate) placement: Option<PlacementDoc>,
    #[serde(default)]
    pub(crate) migration: Option<MigrationDoc>,
}

impl ServerStatusDoc {
    /// Where it has a claim: where it lives, and where it goes.
    pub(crate) fn hosts(&self) -> BTreeSet<HostId> {
        let lives = self.placement.as_ref().map(|placed| placed.host);
        let goes = self.migration.as_ref().map(|moving| moving.to.host);
        lives.into_iter().chain(goes).collect()
    }
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct MigrationDoc {
    pub(crate) to: PlacementDoc,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ActivityDoc {
    pub(crate) task: TaskId,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct PlacementDoc {
    pub(crate) host: HostId,
}

/// What an agent saw of a server.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct SeenDoc {
    pub(crate) generation: u64,
    pub(crate) power: PowerState,
}

/// A port.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct PortDoc {
    pub(crate) spec: PortSpecDoc,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct PortSpecDoc {
    pub(crate) server: ServerId,
}

/// A document of which only its being JSON matters.
pub(crate) type AnyDoc = IgnoredAny;

/// Everything about one task.
#[derive(Debug, Default)]
pub(crate) struct TaskModel {
    pub(crate) doc: Option<TaskDoc>,
    pub(crate) text: Bytes,
    pub(crate) mark: bool,
    pub(crate) plan: Option<PlanModel>,
    pub(crate) jobs: BTreeMap<JobId, JobDoc>,
    pub(crate) run: bool,
    /// Whether the archive has it.
    pub(crate) archived: bool,
}

impl TaskModel {
    pub(crate) fn state(&self) -> Option<TaskState> {
        self.doc.as_ref().map(|d| d.state)
    }
    /// Whether nothing will change by itself.
    pub(crate) fn rests(&self) -> bool {
        let ordered = self
            .doc
            .as_ref()
            .is_some_and(|d| d.orders.iter().any(|o| !o.carried_out));
        self.state()
            .is_none_or(|s| s.ended() || s == TaskState::Stuck && !ordered)
    }
    /// Whether an operator has given it up, with whatever is left of it.
    pub(crate) fn abandoned(&self) -> bool {
        let reason = self.doc.as_ref().and_then(|d| d.reason.as_ref());
        reason.is_some_and(|r| r.code == "task.abandoned")
    }
    pub(crate) fn job(&self, id: &JobId) -> Option<JobState> {
        self.jobs.get(id).map(|j| j.state)
    }
}

/// Everything about one host.
#[derive(Debug, Default)]
pub(crate) struct HostModel {
    pub(crate) doc: Option<Host>,
    pub(crate) ledger: Option<HostLedger>,
    pub(crate) claims: BTreeMap<ServerId, Claim>,
    pub(crate) placed: BTreeSet<ServerId>,
    /// Servers whose secrets are lent to it.
    pub(crate) lent: BTreeSet<ServerId>,
    /// Servers that its agent reports.
    pub(crate) reported: BTreeMap<ServerId, SeenDoc>,
}

/// The leases as the store has them.
#[derive(Debug, Default)]
pub(crate) struct LeaseBook {
    held: BTreeMap<LeaseName, (u64, Duration)>,
    /// Until when each epoch was promised to its holder, who cannot know that it ended before.
    promised: BTreeMap<(LeaseName, u64), Duration>,
}

impl LeaseBook {
    pub(crate) fn granted(&mut self, name: &LeaseName, epoch: u64, end: Duration) {
        self.held.insert(name.clone(), (epoch, end));
        self.promised.insert((name.clone(), epoch), end);
    }
    pub(crate) fn revoked(&mut self, name: &LeaseName, epoch: u64) {
        if self.held.get(name).is_some_and(|held| held.0 == epoch) {
            self.held.remove(name);
        }
    }
    /// The epoch at which the lease is held now.
    pub(crate) fn held(&self, name: &str, now: Duration) -> Option<u64> {
        let name = LeaseName::parse(name).ok()?;
        self.held
            .get(&name)
            .filter(|held| now < held.1)
            .map(|held| held.0)
    }
    /// Whether the holder of that epoch was promised that it lasts.
    pub(crate) fn promised(&self, name: &str, epoch: u64, now: Duration) -> bool {
        LeaseName::parse(name)
            .ok()
            .and_then(|name| self.promised.get(&(name, epoch)))
            .is_some_and(|end| now < *end)
    }
}

/// The lease under which a process writes.
pub(crate) fn lease_of(who: &Who) -> Option<String> {
    match who.part {
        crate::bed::Part::Engine => Some(skyloom_model::paths::engine_lease(&who.name)),
        crate::bed::Part::Agent(host) => Some(skyloom_model::paths::host_lease(host)),
        crate::bed::Part::Api | crate::bed::Part::Watcher | crate::bed::Part::Rogue(_) => None,
    }
}
