//! What both ways to another host have in common: what a host must see and have, the claim on both hosts, and the end.
//!
//! ```text
//!  plan      claim and ledger of the destination, `status.migration`, newer generation        one commit, before anything happens
//!  settle    `placement` is the destination, claim of the source given back                   one commit; or the other way round
//! ```

use skyloom_flow::{PlanContext, Records, Refusal, SettleContext, Settled};
use skyloom_model::{
    HostFacts, HostId, NicKind, Placement, Pool, Port, Reason, Resource as _, Server, ServerMigration, Task,
    TaskEnd, Volume, disk_of,
};
use skyloom_scheduler::Request;
use skyloom_store::{Key, Txn};

use super::definition::own_disks;
use super::records::{
    claim_key, ledger_key, order, port_key, release_claim, seen_key, server_reads, subject_key, take_claim,
};
use super::server_power::settled;
use super::volume::pool_label;
use super::volume_records::volume_key;
use super::{NETWORKS, group_of, refused};
use crate::jobs::PortGone;

/// What a host's traits begin with that name the folder of its disks: hosts that tell of the same one share it.
pub const STORAGE: &str = "storage:";

/// What another host needs so that it sees all disks of a server: traits and labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sees {
    pub(crate) traits: Vec<String>,
    pub(crate) labels: Vec<String>,
}

impl Sees {
    /// All disks of `server`, whose host reports `facts`.
    ///
    /// # Errors
    /// Names the disks that no other host sees.
    pub(crate) fn all(
        server: &Server,
        volumes: &[Volume],
        facts: Option<&HostFacts>,
    ) -> Result<Self, Reason> {
        let mut sees = Self::default();
        let mut local = Vec::new();
        let own = own_disks(server);
        let shared = facts.and_then(|facts| facts.traits.iter().find(|name| name.starts_with(STORAGE)));
        match shared {
            Some(folder) if !own.is_empty() => sees.traits.push(folder.clone()),
            Some(_) => {}
            None => local.extend(own),
        }
        for volume in volumes {
            match &volume.spec.pool {
                Pool::Shared { name } => sees.labels.push(pool_label(name.as_str())),
                Pool::Local => local.push(format!("{} ({})", disk_of(volume.id()), volume.meta.name)),
            }
        }
        if local.is_empty() {
            return Ok(sees);
        }
        let message = format!("no other host sees these disks: {}", local.join(", "));
        Err(Reason::new("server.disk_local", message)
            .hint("only servers whose disks lie in a folder or pool that hosts share can go to another host"))
    }
}

/// What another host must have for a server whose host reports `facts`.
///
/// # Errors
/// `host.unknown`, `server.disk_local`.
pub(crate) fn elsewhere(
    server: &Server,
    volumes: &[Volume],
    ports: &[Port],
    facts: Option<&HostFacts>,
    live: bool,
) -> Result<Request, Reason> {
    let facts = facts.ok_or_else(|| Reason::new("host.unknown", "the server's host has never reported"))?;
    let sees = Sees::all(server, volumes, Some(facts))?;
    let flavor = &server.spec.flavor.spec;
    let mut request = Request::new(server.id(), server.reserved(), facts.architecture.clone());
    request.scope = Some(server.meta.scope);
    request.hypervisor = Some(facts.hypervisor.clone());
    request.traits = sees.traits;
    if live {
        request.traits.push("migration".to_owned());
    }
    if ports.iter().any(|port| port.spec.kind == NicKind::Tap) {
        request.traits.push(NETWORKS.to_owned());
    }
    request.labels = flavor.host_labels.clone();
    request.labels.extend(server.spec.host_labels.clone());
    let pools = sees.labels.into_iter();
    request
        .labels
        .extend(pools.map(|label| (label, "yes".to_owned())));
    let group = server.spec.anti_affinity_group.as_ref();
    request.anti_affinity_group = group.map(|group| group_of(server.meta.scope, group));
    Ok(request)
}

/// A server on its way.
pub(super) struct Moving {
    /// As the plan's commit leaves it.
    pub(super) server: Server,
    pub(super) from: HostId,
    pub(super) to: HostId,
    pub(super) changes: Txn,
    pub(super) explanation: serde_json::Value,
}

/// The server with its ports, volumes and claim; and what the destination has of it, once that is known.
pub(super) fn moving_reads(task: &Task, have: &Records) -> Result<Vec<Key>, Reason> {
    let mut keys = server_reads(task, have)?;
    if let Some(server) = have.get::<Server>(&subject_key(task)?)?
        && let Some(moving) = &server.status.migration
    {
        let (host, id) = (moving.to.host, server.id());
        keys.extend([claim_key(host, id)?, ledger_key(host)?, seen_key(host, id)?]);
    }
    Ok(keys)
}

fn unplaced() -> Reason {
    Reason::new("server.not_placed", "the server is on no host")
}

/// Chooses the destination and claims what the server takes there.
pub(super) fn begin(
    task: &Task,
    cx: &PlanContext<'_>,
    live: bool,
    only: Option<HostId>,
) -> Result<Moving, Refusal> {
    let at = subject_key(task)?;
    let mut server: Server = cx.records.need(&at)?;
    let from = server.status.placement.as_ref().ok_or_else(unplaced)?.host;
    let view = cx.inventory.get(from);
    let facts = view.and_then(|view| view.facts.as_ref());
    let mut volumes: Vec<Volume> = Vec::new();
    for id in &server.status.volumes {
        volumes.push(cx.records.need(&volume_key(task, *id)?)?);
    }
    let mut ports: Vec<Port> = Vec::new();
    for id in &server.spec.ports {
        ports.push(cx.records.need(&port_key(task, *id)?)?);
    }
    let mut request = elsewhere(&server, &volumes, &ports, facts, live)?;
    request.exclude.insert(from);
    request.only = only;
    let placed = cx
        .scheduler
        .place(&request, cx.inventory)
        .map_err(|no| refused(&no))?;
    order(&mut server, cx);
    server.status.migration = Some(ServerMigration {
        to: Placement {
            host: placed.host,
            host_name: placed.name.clone(),
            by: Some(task.id),
        },
        live,
        since: cx.now,
        forced: false,
    });
    let changes = take_claim(Txn::new(), server.id(), &placed)?;
    Ok(Moving {
        changes: cx.records.put(changes, &at, &server)?,
        explanation: serde_json::to_value(&placed.report)
            .map_err(|e| Reason::new("placement.unencodable", e.to_string()))?,
        server,
        from,
        to: placed.host,
    })
}

/// What the source's network has of the server.
pub(super) fn ports_of(wirings: &[skyloom_hypervisor::PortWiring]) -> Vec<PortGone> {
    wirings.iter().map(PortGone::of).collect()
}

/// The end: the server is where it `arrived` or where it was, and has no claim on the other host. Nobody knows where an abandoned one
/// is: it keeps both.
pub(super) fn end(
    task: &Task,
    cx: &SettleContext<'_>,
    arrived: bool,
    change: impl FnOnce(&mut Server),
) -> Result<Settled, Reason> {
    let Some(before) = cx.records.get::<Server>(&subject_key(task)?)? else {
        return Ok(Settled::default());
    };
    let moving = before.status.migration.clone();
    let known = moving.filter(|_| cx.end != TaskEnd::Abandoned);
    let mut settled = settled(task, cx, |server| {
        if let Some(moving) = &known {
            server.status.migration = None;
            if arrived {
                server.status.placement = Some(moving.to.clone());
            }
        }
        change(server);
    })?;
    if let Some(moving) = known {
        let mut left = before;
        if !arrived {
            left.status.placement = Some(moving.to);
        }
        settled.changes = release_claim(settled.changes, &left, cx.records, 0)?;
    }
    Ok(settled)
}
