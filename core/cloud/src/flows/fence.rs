//! Servers on a host of which an operator has said that it is off.

use skyloom_flow::Records;
use skyloom_model::{Host, Resource as _, Scope, Server, Task, paths};
use skyloom_scheduler::{HostView, Inventory};
use skyloom_store::Key;

use super::moving::STORAGE;
use super::records::{key, subject_key};

/// The record of the host that the subject, a server, lives on, once the server is read.
pub(super) fn home_key(task: &Task, have: &Records) -> Option<Key> {
    let server = have.get::<Server>(&subject_key(task).ok()?).ok()??;
    let host = server.status.placement?.host;
    key(&paths::resource(Host::KIND, Scope::System, host.uuid())).ok()
}

/// Whether that host is fenced.
pub(super) fn fenced(task: &Task, records: &Records) -> bool {
    let host = home_key(task, records).and_then(|at| records.get::<Host>(&at).ok()?);
    host.is_some_and(|host| host.spec.fenced.is_some())
}

/// A host that can be asked and sees the folder of a host's disks, if they lie in one that hosts share.
pub(super) fn neighbour<'a>(host: &HostView, inventory: &'a Inventory) -> Option<&'a HostView> {
    let folder = folder(host)?;
    let others = inventory.hosts().map(AsRef::as_ref);
    others
        .filter(|other| other.id != host.id && other.reachable && other.spec.fenced.is_none())
        .find(|other| self::folder(other) == Some(folder))
}

fn folder(host: &HostView) -> Option<&String> {
    let traits = host.facts.as_ref().map(|facts| &facts.traits)?;
    traits.iter().find(|name| name.starts_with(STORAGE))
}
