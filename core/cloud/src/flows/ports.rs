//! The end of a server's ports: those that were made with it go, with their addresses; the others are free again.

use std::collections::BTreeMap;

use skyloom_flow::{Records, SettleContext};
use skyloom_model::{
    GroupMembers, Port, Reason, Resource as _, SecurityGroupId, Server, Task, TaskId, paths,
};
use skyloom_store::{Key, Txn};
use uuid::Uuid;

use super::port_rewire::{RewireParams, submit};
use super::records::{key, port_key, subject_key};
use super::wiring::members_key;

/// The ports of the server that is a task's subject, as far as they are read.
fn ports(task: &Task, server: &Server, records: &Records) -> Result<Vec<Port>, Reason> {
    let mut ports = Vec::with_capacity(server.spec.ports.len());
    for id in &server.spec.ports {
        ports.extend(records.get::<Port>(&port_key(task, *id)?)?);
    }
    Ok(ports)
}

/// Once the ports are read, the members of their security groups.
pub(super) fn member_reads(task: &Task, have: &Records) -> Result<Vec<Key>, Reason> {
    let Some(server) = have.get::<Server>(&subject_key(task)?)? else {
        return Ok(Vec::new());
    };
    let ports = ports(task, &server, have)?;
    let leaving = ports.iter().filter(|port| port.spec.goes_with_server);
    let groups = leaving.flat_map(|port| &port.spec.security_groups);
    groups.map(|group| members_key(*group)).collect()
}

/// What is to follow when ports have left groups, if anybody may still let their addresses in: that the others forget them.
/// Before the next owner of an address can be anybody, this task is there; a crash does not lose it.
fn others(left: &BTreeMap<SecurityGroupId, GroupMembers>) -> Option<RewireParams> {
    let mut namers = left.values().flat_map(|members| &members.named_by);
    // Who becomes a member of a group that this commit does not write is not seen here.
    let concerned = namers.any(|namer| left.get(namer).is_none_or(|members| !members.ports.is_empty()));
    concerned.then(|| RewireParams {
        joined: left.keys().copied().collect(),
        ..RewireParams::default()
    })
}

/// Adds: the server has no ports any more, and the task that tells others. Also how many are gone.
pub(super) fn delete_ports(
    mut txn: Txn,
    task: &Task,
    server: &Server,
    cx: &SettleContext<'_>,
) -> Result<(Txn, usize), Reason> {
    let mut gone = 0;
    let mut members: BTreeMap<SecurityGroupId, GroupMembers> = BTreeMap::new();
    for mut port in ports(task, server, cx.records)? {
        let (at, id) = (port_key(task, port.id())?, port.id());
        if !port.spec.goes_with_server {
            port.spec.server = None;
            port.status.bound = false;
            port.meta.updated_at = cx.now;
            txn = cx.records.put(txn, &at, &port)?;
            continue;
        }
        gone += 1;
        txn = cx.records.delete(txn, &at);
        // These are not read: they are the port's own as long as its record is there.
        if let Some(subnet) = port.spec.subnet {
            txn = txn.delete(key(&paths::address(subnet, port.spec.address))?);
        }
        if let Some(network) = port.spec.network {
            txn = txn.delete(key(&paths::mac(network, port.spec.mac))?);
        }
        for group in &port.spec.security_groups {
            if !members.contains_key(group)
                && let Some(found) = cx.records.get::<GroupMembers>(&members_key(*group)?)?
            {
                members.insert(*group, found);
            }
            members.entry(*group).and_modify(|members| {
                members.ports.remove(&id);
            });
        }
    }
    if let Some(params) = others(&members) {
        // One deletion, one such task: its id follows from the deletion's, whoever settles that.
        let id = TaskId::from_uuid(Uuid::from_u128(task.id.uuid().as_u128() ^ 1));
        txn = txn.and(submit(task, id, &params, cx.now)?);
    }
    for (group, members) in members {
        txn = cx.records.put(txn, &members_key(group)?, &members)?;
    }
    Ok((txn, gone))
}
