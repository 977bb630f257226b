//! Hosts that are emptied: asked for, shown, and carried on with.
//!
//! ```text
//!  drain ── one commit: host closed, drains/{host} ──> every few seconds: who is still there? ──> migrate, once for each server
//!  patch {enabled: …} ── the mark goes: nobody else is sent away ─┘                                 └─> noted in the mark
//! ```
//!
//! The mark holds nothing that cannot be found out again but what came of those that were asked, so that each server is asked once. The key
//! of an asking is made of the drain and the server: whoever dies between asking and noting, and however many processes do this, there is one
//! task. Where a server goes is chosen when its task is planned; what is shown before is what would be chosen now.

use std::collections::BTreeMap;

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value as Json, json};
use skyloom_model::{
    Activity, AskedToGo, Claim, Drain, DrainState, DrainStep, DrainWay, Host, HostClosed, HostId, HostLedger,
    Port, Reason, Resource as _, Scope, Server, ServerAction, ServerId, Snapshot, SnapshotOf, Task, Volume,
    paths,
};
use skyloom_scheduler::fleet::{Goal, Resident, advise};
use skyloom_store::{Txn, Versioned};

use super::Cloud;
use super::once::Change;
use super::records::{create, precondition};
use crate::flows::elsewhere;
use crate::{Caller, CloudError, DrainHost, DrainPlan, ErrorKind, FieldError, Result, checks};

/// Servers on their way at the same time: by default, and at most.
const AT_ONCE: (u32, u32) = (2, 32);
/// Records that are read at the same time.
const READS: usize = 16;

/// A server with what has to go along with it.
pub(super) struct Lodger {
    pub(super) server: Server,
    volumes: Vec<Volume>,
    ports: Vec<Port>,
}

/// How a server would go from a host, if it may.
fn way(server: &Server, host: &Host) -> std::result::Result<DrainWay, Reason> {
    let able = |facts: &skyloom_model::HostFacts| facts.traits.iter().any(|name| name == "migration");
    let live = ServerAction::LiveMigrate.allowed_to(&server.status, true).is_ok();
    if live && host.status.facts.as_ref().is_some_and(able) {
        return Ok(DrainWay::Live);
    }
    let cold = ServerAction::Migrate.allowed_to(&server.status, true);
    cold.map(|()| DrainWay::Cold)
}

fn lives_on(server: &Server, host: HostId) -> bool {
    let placement = server.status.placement.as_ref();
    placement.is_some_and(|placement| placement.host == host)
}

impl Lodger {
    /// Of `servers`, each with its own of all `volumes` and `ports`.
    pub(super) fn all(
        servers: impl Iterator<Item = Server>,
        volumes: Vec<Versioned<Volume>>,
        ports: Vec<Versioned<Port>>,
    ) -> Vec<Self> {
        let mut volumes: BTreeMap<_, _> = volumes.into_iter().map(|v| (v.value.id(), v.value)).collect();
        let mut ports: BTreeMap<_, _> = ports.into_iter().map(|p| (p.value.id(), p.value)).collect();
        let own = |server: Server| Self {
            volumes: server
                .status
                .volumes
                .iter()
                .filter_map(|id| volumes.remove(id))
                .collect(),
            ports: server
                .spec
                .ports
                .iter()
                .filter_map(|id| ports.remove(id))
                .collect(),
            server,
        };
        servers.map(own).collect()
    }

    /// What it needs elsewhere.
    pub(super) fn resident(&self, host: &Host, snapshots: &[Snapshot]) -> Resident {
        let server = &self.server;
        let asks = way(server, host).map_err(|why| why.to_string()).and_then(|way| {
            if self.has(snapshots) {
                return Err("there are snapshots of its disks".to_owned());
            }
            let facts = host.status.facts.as_ref();
            let live = way == DrainWay::Live;
            elsewhere(server, &self.volumes, &self.ports, facts, live).map_err(|why| why.to_string())
        });
        Resident {
            server: server.id(),
            name: server.meta.name.clone(),
            from: host.id(),
            asks,
            live: way(server, host) == Ok(DrainWay::Live),
        }
    }

    /// Whether a snapshot keeps it from going: as a migration is refused.
    fn has(&self, snapshots: &[Snapshot]) -> bool {
        let goes_along = |id| {
            let volume = self.volumes.iter().find(|volume| volume.id() == id);
            let attached = volume.and_then(|volume| volume.status.attachment.as_ref());
            attached.is_some_and(|attached| attached.delete_with_server)
        };
        snapshots.iter().any(|snapshot| match &snapshot.spec.of {
            SnapshotOf::Server { server, .. } => *server == self.server.id(),
            SnapshotOf::Volume { volume } => goes_along(*volume),
        })
    }
}

impl Cloud {
    /// Closes a host and sends its servers to others: those that run keep running where that can be, the others are off meanwhile. Who
    /// cannot go stays. Asked again, those that could not go are asked anew.
    ///
    /// # Errors
    /// `host.not_found`, `why.invalid`, `at_once.out_of_range`, `precondition.failed`, `auth.forbidden`.
    pub async fn drain_host(&self, caller: &Caller, id: HostId, request: DrainHost) -> Result<Host> {
        let why = checks::host::why(&request.why, 0)?;
        let at_once = request.at_once.unwrap_or(AT_ONCE.0);
        if !(1..=AT_ONCE.1).contains(&at_once) {
            let message = format!("{at_once} is not within 1 to {}", AT_ONCE.1);
            let error = FieldError::new("at_once", "at_once.out_of_range", message);
            return Err(CloudError::field(error));
        }
        let why = &why;
        let done = self
            .once(caller, "hosts.drain", json!([id, request]), || {
                async move {
                    let found = self
                        .allowed::<Host>(caller, "host:drain", Scope::System, id.uuid())
                        .await?;
                    precondition(caller, found.modified)?;
                    let mut host = found.value.clone();
                    host.spec.enabled = false;
                    host.spec.closed = Some(HostClosed {
                        why: why.clone(),
                        by: caller.actor.name.clone(),
                        since: self.now(),
                        drain: true,
                    });
                    host.meta.generation += 1;
                    host.meta.updated_at = self.now();
                    let drain = Drain {
                        id: self.parts.ids.uuid(),
                        host: id,
                        at_once,
                        asked: BTreeMap::new(),
                        ended_at: None,
                    };
                    let mark = match self.read::<Drain>(&paths::drain(id)).await? {
                        Some(before) => before.replace(&drain)?,
                        None => create(&paths::drain(id), &drain)?,
                    };
                    let txn = found.replace(&host)?.and(mark).and(self.noticed(id).await?);
                    Ok(Change::new(txn, host).told("host:drain", &found.value.meta))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// Writes the ledger as it is: who has chosen this host and has not committed it chooses anew.
    async fn noticed(&self, host: HostId) -> Result<Txn> {
        let ledger = self.read::<HostLedger>(&paths::ledger(host)).await?;
        Ok(match ledger {
            Some(ledger) => ledger.replace(&ledger.value)?,
            None => Txn::new(),
        })
    }

    /// The part of a commit by which a drain ends, if there is one.
    pub(super) async fn no_drain(&self, host: HostId) -> Result<Txn> {
        let mark = self.read::<Drain>(&paths::drain(host)).await?;
        Ok(mark.map_or_else(Txn::new, |mark| mark.delete()))
    }

    /// What becomes of the servers on a host that is emptied, or what would.
    ///
    /// # Errors
    /// `host.not_found`, `auth.forbidden`.
    pub async fn drain_plan(&self, caller: &Caller, id: HostId) -> Result<DrainPlan> {
        let host = self
            .allowed::<Host>(caller, "host:read", Scope::System, id.uuid())
            .await?
            .value;
        let drain = self
            .read::<Drain>(&paths::drain(id))
            .await?
            .map(|mark| mark.value);
        let asked = drain.as_ref().map(|drain| &drain.asked);
        let asked = |server| asked.and_then(|asked| asked.get(&server));
        let lodgers = self.lodgers(id).await?;
        let snapshots = self.all_snapshots().await?;
        let waiting = lodgers.iter().filter(|lodger| {
            let server = &lodger.server;
            lives_on(server, id) && server.status.activity.is_none() && asked(server.id()).is_none()
        });
        let residents: Vec<Resident> = waiting.map(|l| l.resident(&host, &snapshots)).collect();
        let inventory = self.inventory().await?;
        let policy = self.planner.scheduler.policy();
        let advice = advise(Goal::Drain(id), &residents, &inventory, policy, 0);
        let mut servers = Vec::new();
        for lodger in &lodgers {
            let server = &lodger.server;
            let Some(mut step) = under_way(server, id, asked(server.id())) else {
                continue;
            };
            if let (DrainState::Failed, Some(task)) = (step.state, step.task) {
                let ended = self.read::<Task>(&paths::task(server.meta.scope, task)).await?;
                let reason = ended.and_then(|task| task.value.reason);
                step.why = reason.map(|reason| reason.to_string()).or(step.why);
            }
            servers.push(step);
        }
        servers.extend(advice.moves.iter().map(|go| DrainStep {
            way: Some(if go.live { DrainWay::Live } else { DrainWay::Cold }),
            to: Some(go.to.clone()),
            memory_mib: go.memory_mib,
            why: Some(go.report.summary()),
            ..step(go.server, &go.name, DrainState::Waits)
        }));
        servers.extend(advice.stays.iter().map(|stay| DrainStep {
            why: Some(stay.why.clone()),
            ..step(stay.server, &stay.name, DrainState::Stays)
        }));
        Ok(DrainPlan {
            host: host.meta.name,
            closed: host.spec.closed,
            under_way: drain.is_some_and(|drain| drain.ended_at.is_none()),
            memory_mib: servers.iter().map(|step| step.memory_mib).sum(),
            servers,
        })
    }

    /// The servers with a claim on a host, each with its own.
    pub(super) async fn lodgers(&self, host: HostId) -> Result<Vec<Lodger>> {
        let servers = self.servers_on(host).await?;
        let whole = servers.into_iter().map(|found| async move {
            let server = found.value;
            let scope = server.meta.scope;
            let (mut volumes, mut ports) = (Vec::new(), Vec::new());
            for id in &server.status.volumes {
                volumes.extend(self.resource::<Volume>(scope, id.uuid()).await?);
            }
            for id in &server.spec.ports {
                ports.extend(self.resource::<Port>(scope, id.uuid()).await?);
            }
            Ok::<_, CloudError>(Lodger {
                volumes: volumes.into_iter().map(|found| found.value).collect(),
                ports: ports.into_iter().map(|found| found.value).collect(),
                server,
            })
        });
        stream::iter(whole).buffered(READS).try_collect().await
    }

    /// The servers with a claim on a host: those that live there, and those that are about to.
    async fn servers_on(&self, host: HostId) -> Result<Vec<Versioned<Server>>> {
        let claims: Vec<Versioned<Claim>> = self.everything(&paths::claims(host)).await?;
        let read = claims.into_iter().filter_map(|claim| {
            let (scope, server) = (claim.value.scope?, claim.value.server);
            Some(async move { self.resource::<Server>(scope, server.uuid()).await })
        });
        let found: Vec<Option<Versioned<Server>>> = stream::iter(read).buffered(READS).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    pub(super) async fn all_snapshots(&self) -> Result<Vec<Snapshot>> {
        let all: Vec<Versioned<Snapshot>> = self.everything(&paths::kind(Snapshot::KIND)).await?;
        Ok(all.into_iter().map(|found| found.value).collect())
    }

    /// Goes on with all hosts that are emptied, unless the fleet is held: how many servers were asked to go.
    ///
    /// # Errors
    /// Those of the store; who was asked before stays asked.
    pub async fn see_to_drains(&self) -> Result<usize> {
        if self.refuse_held().await.is_err() {
            return Ok(0);
        }
        let marks: Vec<Versioned<Drain>> = self.everything(paths::DRAINS).await?;
        let mut asked = 0;
        for mark in marks.iter().filter(|mark| mark.value.ended_at.is_none()) {
            match self.see_to_drain(mark).await {
                Ok(now) => asked += now,
                // It stays for the next look, and holds up none behind it.
                Err(error) => {
                    tracing::warn!(host = %mark.value.host, %error, "a host cannot be emptied now");
                }
            }
        }
        Ok(asked)
    }

    async fn see_to_drain(&self, mark: &Versioned<Drain>) -> Result<usize> {
        let mut drain = mark.value.clone();
        let Some(host) = self.resource::<Host>(Scope::System, drain.host.uuid()).await? else {
            return self.commit(mark.delete()).await.map(|_| 0);
        };
        let (mut moving, mut busy, mut waiting) = (0, 0, Vec::new());
        for found in self.servers_on(drain.host).await? {
            let server = found.value;
            match (&server.status.activity, drain.asked.get(&server.id())) {
                (Some(activity), asked) if is_of(activity, asked) => moving += 1,
                (Some(_), _) => busy += 1,
                (None, None) if lives_on(&server, drain.host) => waiting.push(server),
                (None, _) => {}
            }
        }
        let memory = |server: &Server| std::cmp::Reverse(server.reserved().memory_mib);
        waiting.sort_by_key(|server| (memory(server), server.id()));
        let mut now = 0;
        for server in &waiting {
            if moving >= drain.at_once {
                break;
            }
            match self.ask_to_go(&drain, server, &host.value).await? {
                // Something else has begun meanwhile.
                None => busy += 1,
                Some(answer) => {
                    moving += u32::from(matches!(answer, AskedToGo::Task(_)));
                    drain.asked.insert(server.id(), answer);
                    now += 1;
                }
            }
        }
        let left = waiting
            .iter()
            .any(|server| !drain.asked.contains_key(&server.id()));
        if moving == 0 && busy == 0 && !left {
            drain.ended_at = Some(self.now());
        }
        if drain != mark.value {
            // Whoever was faster has asked the same under the same keys.
            self.commit(mark.replace(&drain)?).await?;
        }
        Ok(now)
    }

    /// Asks a server to leave its host, once for each drain. Nothing while something else is done to it.
    async fn ask_to_go(&self, drain: &Drain, server: &Server, host: &Host) -> Result<Option<AskedToGo>> {
        let (id, Scope::Project(project)) = (server.id(), server.meta.scope) else {
            return Ok(None);
        };
        let action = match way(server, host) {
            Ok(DrainWay::Live) => ServerAction::LiveMigrate,
            Ok(DrainWay::Cold) => ServerAction::Migrate,
            Err(why) => return Ok(Some(AskedToGo::Refused(why))),
        };
        let key = format!("host.drain/{}/{id}/{}", drain.id, action.def().verb);
        let caller = self.asks(project, key).await?;
        match self.act_on_server(&caller, id, action, Json::Null).await {
            Ok(accepted) => Ok(accepted.task.map(|task| AskedToGo::Task(task.id))),
            Err(error) if error.code() == "server.busy" => Ok(None),
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
                Ok(Some(AskedToGo::Refused(error.reason().clone())))
            }
            Err(error) => Err(error),
        }
    }
}

fn is_of(activity: &Activity, asked: Option<&AskedToGo>) -> bool {
    asked == Some(&AskedToGo::Task(activity.task))
}

fn step(server: ServerId, name: &skyloom_model::Name, state: DrainState) -> DrainStep {
    DrainStep {
        server,
        name: name.clone(),
        state,
        way: None,
        to: None,
        memory_mib: 0,
        task: None,
        why: None,
    }
}

/// How it stands with a server that waits for nothing: it is on its way, busy, or was asked already.
fn under_way(server: &Server, host: HostId, asked: Option<&AskedToGo>) -> Option<DrainStep> {
    let of = |state| step(server.id(), &server.meta.name, state);
    match (&server.status.activity, asked) {
        (Some(activity), asked) if is_of(activity, asked) => Some(DrainStep {
            task: Some(activity.task),
            memory_mib: match server.status.migration.as_ref() {
                Some(moving) if moving.live => server.reserved().memory_mib,
                _ => 0,
            },
            to: server
                .status
                .migration
                .as_ref()
                .map(|moving| moving.to.host_name.clone()),
            way: server.status.migration.as_ref().map(|moving| match moving.live {
                true => DrainWay::Live,
                false => DrainWay::Cold,
            }),
            ..of(DrainState::Moves)
        }),
        (Some(activity), _) => Some(DrainStep {
            task: Some(activity.task),
            why: Some(match lives_on(server, host) {
                true => format!("{} is under way", activity.flow),
                false => format!("{} brings it here", activity.flow),
            }),
            ..of(DrainState::Busy)
        }),
        (None, _) if !lives_on(server, host) => None,
        (None, Some(AskedToGo::Task(task))) => Some(DrainStep {
            task: Some(*task),
            why: Some("its move was not done".to_owned()),
            ..of(DrainState::Failed)
        }),
        (None, Some(AskedToGo::Refused(why))) => Some(DrainStep {
            why: Some(why.to_string()),
            ..of(DrainState::Stays)
        }),
        (None, None) => None,
    }
}
