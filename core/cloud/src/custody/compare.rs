//! What runs on the hosts, against what the records say should.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use skyloom_model::{
    Guest, GuestReport, Hold, Host, HostId, Lifecycle, Resource as _, Scope, Server, ServerId, paths,
};
use skyloom_store::{Document, Guard, ListOptions, Prefix, Result, Store, Versioned};

/// Differences that are named; beyond them it is only said that there are more.
const MOST: usize = 1000;

/// A host whose agent has not reported its guests under the present hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SilentHost {
    /// Which.
    pub host: HostId,
    /// Its name.
    pub name: String,
}

/// How a guest is not as recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DifferenceKind {
    /// A guest of no known server: made after the backup, or left behind.
    Unknown,
    /// A server that should be on the host and is not.
    Missing,
    /// A guest of a server that is recorded to live on another host, or on none.
    Elsewhere,
    /// A guest that carries a newer generation than its server: it was changed after the backup.
    Newer,
    /// A guest that runs and is recorded to be off.
    Runs,
    /// A guest that is off and is recorded to run.
    Off,
    /// A guest of which its host cannot tell what it does.
    CannotTell,
}

/// A guest that is not as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Difference {
    /// How.
    pub kind: DifferenceKind,
    /// On which host.
    pub host: HostId,
    /// Its name.
    pub host_name: String,
    /// Which server.
    pub server: ServerId,
    /// Its name, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Compared {
    pub(crate) silent: Vec<SilentHost>,
    pub(crate) differences: Vec<Difference>,
    pub(crate) more: bool,
}

/// Compares what hosts reported under `hold` with the servers' records.
pub(crate) async fn compare(store: &dyn Store, hold: &Hold) -> Result<Compared> {
    let hosts: Vec<Versioned<Host>> = everything(store, &paths::scoped(Host::KIND, Scope::System)).await?;
    let servers: Vec<Versioned<Server>> = everything(store, &paths::kind(Server::KIND)).await?;
    let servers: BTreeMap<ServerId, Server> = servers.into_iter().map(|s| (s.value.id(), s.value)).collect();
    let reports: Vec<Versioned<GuestReport>> = everything(store, paths::GUESTS).await?;
    let reports: BTreeMap<HostId, GuestReport> = reports
        .into_iter()
        .filter_map(|r| Some((r.key.segments().nth(1)?.parse().ok()?, r.value)))
        .collect();
    let mut found = Compared::default();
    for host in &hosts {
        let (id, name) = (host.value.id(), host.value.meta.name.to_string());
        let Some(report) = reports.get(&id).filter(|r| r.hold == Some(hold.id)) else {
            found.silent.push(SilentHost { host: id, name });
            continue;
        };
        for (kind, server) in differences(id, report, &servers) {
            if found.differences.len() >= MOST {
                found.more = true;
                break;
            }
            found.differences.push(Difference {
                kind,
                host: id,
                host_name: name.clone(),
                server,
                server_name: servers.get(&server).map(|s| s.meta.name.to_string()),
            });
        }
        found.more |= report.more;
    }
    Ok(found)
}

/// A guest whose server's record can take over what it is.
#[derive(Debug)]
pub(crate) struct Adoptable {
    pub(crate) server: Versioned<Server>,
    pub(crate) guest: Guest,
    /// The guest's.
    pub(crate) generation: u64,
    /// That its host has not looked again since.
    pub(crate) last_look: Guard,
}

/// At most so many of them, in the order of hosts.
pub(crate) async fn adoptable(store: &dyn Store, hold: &Hold, most: usize) -> Result<Vec<Adoptable>> {
    let servers: Vec<Versioned<Server>> = everything(store, &paths::kind(Server::KIND)).await?;
    let servers: BTreeMap<ServerId, Versioned<Server>> =
        servers.into_iter().map(|s| (s.value.id(), s)).collect();
    let reports: Vec<Versioned<GuestReport>> = everything(store, paths::GUESTS).await?;
    let mut found = Vec::new();
    for report in reports.into_iter().filter(|r| r.value.hold == Some(hold.id)) {
        let Some(host) = report.key.segments().nth(1).and_then(|s| s.parse().ok()) else {
            continue;
        };
        let last_look = report.unchanged();
        for guest in report.value.guests {
            let Some(server) = servers.get(&guest.server) else {
                continue;
            };
            let kind = difference(host, &guest, &server.value);
            let settles = matches!(
                kind,
                Some(DifferenceKind::Newer | DifferenceKind::Runs | DifferenceKind::Off)
            );
            // One that a task works on is that task's.
            if let Some(generation) = guest.generation
                && settles
                && server.value.status.activity.is_none()
            {
                found.push(Adoptable {
                    server: server.clone(),
                    guest,
                    generation,
                    last_look: last_look.clone(),
                });
            }
            if found.len() >= most {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

/// What of one host is not as recorded.
fn differences(
    host: HostId,
    report: &GuestReport,
    servers: &BTreeMap<ServerId, Server>,
) -> Vec<(DifferenceKind, ServerId)> {
    let mut found = Vec::new();
    for guest in &report.guests {
        let kind = match servers.get(&guest.server) {
            None => Some(DifferenceKind::Unknown),
            Some(server) => difference(host, guest, server),
        };
        found.extend(kind.map(|kind| (kind, guest.server)));
    }
    let seen: BTreeSet<ServerId> = report.guests.iter().map(|g| g.server).collect();
    for (id, server) in servers {
        let here = server.status.placement.as_ref().is_some_and(|p| p.host == host);
        // One that a task is making or removing need not be there.
        let settled = server.status.lifecycle == Lifecycle::Active && server.status.activity.is_none();
        if here && settled && !report.more && !seen.contains(id) {
            found.push((DifferenceKind::Missing, *id));
        }
    }
    found
}

fn difference(host: HostId, guest: &Guest, server: &Server) -> Option<DifferenceKind> {
    let here = server.status.placement.as_ref().is_some_and(|p| p.host == host);
    let Some(generation) = guest.generation else {
        return Some(DifferenceKind::CannotTell);
    };
    if !here {
        return Some(DifferenceKind::Elsewhere);
    }
    if generation > server.meta.generation {
        return Some(DifferenceKind::Newer);
    }
    // While a task works on it, what is wanted and what is may differ.
    let runs = guest.power.may_execute();
    match server.status.activity {
        None if runs && !server.spec.running => Some(DifferenceKind::Runs),
        None if !runs && server.spec.running => Some(DifferenceKind::Off),
        _ => None,
    }
}

/// All documents below a path. What cannot be decoded is left out: [`super::check`] names it.
pub(super) async fn everything<T: Document>(store: &dyn Store, below: &str) -> Result<Vec<Versioned<T>>> {
    let below = Prefix::parse(below).map_err(|e| {
        skyloom_store::Error::new(skyloom_store::ErrorKind::Internal, "list records").because(e)
    })?;
    let mut all = Vec::new();
    let mut options = ListOptions::default();
    loop {
        let page = store.list(&below, options).await?;
        all.extend(page.items.iter().filter_map(|kv| Versioned::decode(kv).ok()));
        match page.items.last().filter(|_| page.more) {
            Some(last) => options = ListOptions::default().with_after(last.key.clone()),
            None => return Ok(all),
        }
    }
}
