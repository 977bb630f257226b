//! Looks at every record of a store, changing nothing: can it be read, and does it fit to the others?

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::de::DeserializeOwned;
use skyloom_flow::Standing;
use skyloom_model::{
    ActiveTask, AgentStatus, Claim, Event, Flavor, GuestReport, Hold, Host, HostId, HostLedger, Image,
    Incarnation, JobRecord, Keypair, Plan, Port, Project, Resource as _, Resources, Run, Server,
    ServerSecrets, StepRecord, Task, TaskId, VmObservation, Volume, paths,
};
use skyloom_store::{KeyValue, Result, Store};
use uuid::Uuid;

use super::snapshot::Snapshot;
use crate::Query;

/// Findings that are named; of the others only the number is told.
const MOST: usize = 200;

/// Something that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where.
    pub key: String,
    /// What.
    pub what: String,
}

/// What is in a store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// As of which revision.
    pub revision: u64,
    /// Which cloud, in which incarnation; nothing when no cloud was made in it.
    pub incarnation: Option<Incarnation>,
    /// The hold on the fleet.
    pub hold: Option<Hold>,
    /// From where a copy into it has not ended.
    pub unfinished_copy_from: Option<String>,
    /// How many records, by the first part of their keys.
    pub records: BTreeMap<String, u64>,
    /// What cannot be read as what its key says.
    pub undecodable: Vec<Finding>,
    /// What does not fit to the rest.
    pub inconsistent: Vec<Finding>,
    /// How many more of both there are.
    pub more: u64,
}

impl CheckReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.undecodable.is_empty() && self.inconsistent.is_empty() && self.unfinished_copy_from.is_none()
    }
}

/// Looks at every record of `store` as of one revision.
///
/// # Errors
/// Those of the store.
pub async fn check(store: &dyn Store) -> Result<CheckReport> {
    let standing = Standing::read(store).await?;
    let mut snapshot = Snapshot::now(store).await?;
    let mut looking = Looking {
        report: CheckReport {
            revision: snapshot.revision().0,
            incarnation: standing.incarnation(),
            hold: standing.hold.map(|h| h.value),
            unfinished_copy_from: standing.copying.map(|c| c.value.source),
            ..CheckReport::default()
        },
        ..Looking::default()
    };
    while let Some(records) = snapshot.page().await? {
        for kv in &records {
            looking.look(kv);
        }
    }
    Ok(looking.end())
}

/// What was seen so far, as far as others refer to it.
#[derive(Default)]
struct Looking {
    report: CheckReport,
    marks: BTreeMap<TaskId, String>,
    unfinished: BTreeMap<TaskId, String>,
    planned: BTreeSet<TaskId>,
    plans: BTreeSet<TaskId>,
    tasks: BTreeSet<TaskId>,
    jobs: BTreeMap<TaskId, String>,
    servers: BTreeMap<Uuid, Option<HostId>>,
    moving: BTreeSet<Uuid>,
    resources: BTreeSet<Uuid>,
    names: Vec<(String, Uuid)>,
    claims: Vec<(String, HostId, Claim)>,
    ledgers: BTreeMap<HostId, HostLedger>,
    volumes: BTreeMap<HostId, u64>,
}

impl Looking {
    fn look(&mut self, kv: &KeyValue) {
        let segments: Vec<&str> = kv.key.segments().collect();
        let area = segments.first().copied().unwrap_or_default();
        *self.report.records.entry(area.to_owned()).or_default() += 1;
        let key = || kv.key.as_str().to_owned();
        match segments.as_slice() {
            ["r", kind, ..] => self.resource(kv, kind),
            ["tasks", ..] => {
                if let Some(task) = self.decoded::<Task>(kv) {
                    self.tasks.insert(task.id);
                    if !task.state.ended() {
                        self.unfinished.insert(task.id, key());
                    }
                    if !task.state.ended() && task.planned_at.is_some() {
                        self.planned.insert(task.id);
                    }
                }
            }
            ["active", ..] => {
                if let Some(mark) = self.decoded::<ActiveTask>(kv) {
                    self.marks.insert(mark.task, key());
                }
            }
            ["plans", ..] => {
                if let Some(plan) = self.decoded::<Plan>(kv) {
                    self.plans.insert(plan.task);
                }
            }
            ["jobs", ..] => {
                if let Some(job) = self.decoded::<JobRecord>(kv) {
                    self.jobs.insert(job.task, key());
                }
            }
            ["claims", host, _] => {
                if let (Some(claim), Ok(host)) = (self.decoded::<Claim>(kv), host.parse()) {
                    self.claims.push((key(), host, claim));
                }
            }
            ["ledgers", host] => {
                if let (Some(ledger), Ok(host)) = (self.decoded::<HostLedger>(kv), host.parse()) {
                    self.ledgers.insert(host, ledger);
                }
            }
            ["names", ..] => {
                if let Some(id) = self.decoded::<Uuid>(kv) {
                    self.names.push((key(), id));
                }
            }
            ["runs", ..] => self.readable::<Run>(kv),
            ["steps", ..] => self.readable::<StepRecord>(kv),
            ["agents", ..] => self.readable::<AgentStatus>(kv),
            ["vms", ..] => self.readable::<VmObservation>(kv),
            ["guests", ..] => self.readable::<GuestReport>(kv),
            ["events", ..] => self.readable::<Event>(kv),
            ["queries", ..] => self.readable::<Query>(kv),
            ["secrets" | "lent", ..] => self.readable::<ServerSecrets>(kv),
            _ => self.readable::<serde_json::Value>(kv),
        }
    }

    fn resource(&mut self, kv: &KeyValue, kind: &str) {
        match kind {
            Server::KIND => {
                if let Some(server) = self.decoded::<Server>(kv) {
                    let (id, status) = (server.meta.id, server.status);
                    self.resources.insert(id);
                    self.servers.insert(id, status.placement.map(|p| p.host));
                    if status.activity.is_some() {
                        self.moving.insert(id);
                    }
                }
            }
            Volume::KIND => {
                if let Some(volume) = self.decoded::<Volume>(kv) {
                    self.resources.insert(volume.meta.id);
                    if let Some(host) = volume.status.host {
                        *self.volumes.entry(host).or_default() += volume.status.reserved_gib;
                    }
                }
            }
            Flavor::KIND => self.kept::<Flavor>(kv),
            Image::KIND => self.kept::<Image>(kv),
            Keypair::KIND => self.kept::<Keypair>(kv),
            Port::KIND => self.kept::<Port>(kv),
            Host::KIND => self.kept::<Host>(kv),
            Project::KIND => self.kept::<Project>(kv),
            _ => self.readable::<serde_json::Value>(kv),
        }
    }

    fn kept<R: skyloom_model::Resource>(&mut self, kv: &KeyValue) {
        if let Some(resource) = self.decoded::<R>(kv) {
            self.resources.insert(resource.meta().id);
        }
    }

    fn readable<T: DeserializeOwned>(&mut self, kv: &KeyValue) {
        self.decoded::<T>(kv);
    }

    fn decoded<T: DeserializeOwned>(&mut self, kv: &KeyValue) -> Option<T> {
        match kv.value.parse() {
            Ok(record) => Some(record),
            Err(error) => {
                let what = skyloom_model::report(&error);
                if self.report.undecodable.len() < MOST {
                    self.report.undecodable.push(Finding {
                        key: kv.key.as_str().to_owned(),
                        what,
                    });
                } else {
                    self.report.more += 1;
                }
                None
            }
        }
    }

    fn odd(&mut self, key: String, what: impl Into<String>) {
        if self.report.inconsistent.len() < MOST {
            self.report.inconsistent.push(Finding {
                key,
                what: what.into(),
            });
        } else {
            self.report.more += 1;
        }
    }

    fn end(mut self) -> CheckReport {
        // What cannot be read may be what another record refers to.
        let blind = |report: &CheckReport, area: &str| {
            report.more > 0 || report.undecodable.iter().any(|f| f.key.starts_with(area))
        };
        let (no_tasks, no_servers) = (blind(&self.report, "tasks/"), blind(&self.report, "r/servers/"));
        for (task, key) in std::mem::take(&mut self.marks) {
            if self.unfinished.remove(&task).is_none() && !no_tasks {
                self.odd(key, "marks a task that is not there or has ended");
            }
        }
        for (_, key) in std::mem::take(&mut self.unfinished) {
            self.odd(
                key,
                "is not finished, but there is no mark of it: no engine will take it up",
            );
        }
        for task in std::mem::take(&mut self.planned) {
            if !self.plans.contains(&task) {
                self.odd(
                    paths::plan(task),
                    "is missing: its task has been planned and is not finished",
                );
            }
        }
        for (task, key) in std::mem::take(&mut self.jobs) {
            if !self.tasks.contains(&task) && !no_tasks {
                self.odd(key, "is a job of a task that is not there");
            }
        }
        for (key, id) in std::mem::take(&mut self.names) {
            if !self.resources.contains(&id) && self.report.undecodable.is_empty() {
                self.odd(key, format!("is the name of {id}, which is not there"));
            }
        }
        self.claims(no_servers);
        self.report
    }

    /// Claims are of servers that live there, and a host's ledger is their sum.
    fn claims(&mut self, no_servers: bool) {
        let mut sums: BTreeMap<HostId, (Resources, u32)> = BTreeMap::new();
        for (key, host, claim) in std::mem::take(&mut self.claims) {
            let (used, servers) = sums.entry(host).or_default();
            *used = used.plus(claim.resources);
            *servers = servers.saturating_add(1);
            let id = claim.server.uuid();
            let home = self.servers.get(&id);
            if !no_servers && !self.moving.contains(&id) && home != Some(&Some(host)) {
                self.odd(key, "is claimed for a server that does not live there");
            }
        }
        for (host, ledger) in std::mem::take(&mut self.ledgers) {
            let (mut used, servers) = sums.remove(&host).unwrap_or_default();
            let volumes = self.volumes.remove(&host).unwrap_or_default();
            used.disk_gib = used.disk_gib.saturating_add(volumes);
            if ledger.volume_gib != volumes {
                let what = format!(
                    "says {} GiB of volumes; those there have {volumes}",
                    ledger.volume_gib
                );
                self.odd(paths::ledger(host), what);
            }
            if (ledger.used, ledger.servers) != (used, servers) {
                let what = format!(
                    "says {} servers, {:?}; its claims are {servers}, {used:?}",
                    ledger.servers, ledger.used
                );
                self.odd(paths::ledger(host), what);
            }
        }
        for host in sums.into_keys() {
            self.odd(
                paths::ledger(host),
                "is missing, and there are claims on the host",
            );
        }
    }
}
