//! The records that flows of volumes and snapshots read and write: volume, snapshot, and the server that has the disks.

use skyloom_flow::{PlanContext, Records, SettleContext};
use skyloom_hypervisor::VolumeAt;
use skyloom_model::{
    HostId, Pool, Reason, Resource as _, Server, ServerId, Snapshot, SnapshotId, SnapshotState, Task, Volume,
    VolumeId, VolumeState, paths,
};
use skyloom_store::{Key, Txn};

use super::records::{key, order, seen_key, take_seen};

pub(super) fn volume_key(task: &Task, volume: VolumeId) -> Result<Key, Reason> {
    key(&paths::resource(Volume::KIND, task.scope, volume.uuid()))
}
pub(super) fn snapshot_key(task: &Task, snapshot: SnapshotId) -> Result<Key, Reason> {
    key(&paths::resource(Snapshot::KIND, task.scope, snapshot.uuid()))
}
pub(super) fn server_key(task: &Task, server: ServerId) -> Result<Key, Reason> {
    key(&paths::resource(Server::KIND, task.scope, server.uuid()))
}

/// Where a volume is, for its host.
pub(super) fn at(volume: &Volume) -> VolumeAt {
    VolumeAt {
        volume: volume.id(),
        pool: volume.spec.pool.clone(),
    }
}

/// Bytes of so many GiB.
pub(super) fn bytes(gib: u64) -> u64 {
    gib.saturating_mul(1 << 30)
}

/// The host whose agent does a volume's jobs: of one in a shared pool the host of its server, where it has one.
pub(super) fn host_of(volume: &Volume, server: Option<&Server>) -> Result<HostId, Reason> {
    let of_server = server.and_then(|s| s.status.placement.as_ref()).map(|p| p.host);
    let own = volume.status.host;
    let host = match volume.spec.pool {
        Pool::Local => own.or(of_server),
        Pool::Shared { .. } => of_server.or(own),
    };
    host.ok_or_else(|| Reason::new("volume.not_placed", "the volume is on no host"))
}

/// A server, its volumes, and what its host's agent last saw of it.
pub(super) fn with_server(task: &Task, server: ServerId, have: &Records) -> Result<Vec<Key>, Reason> {
    let at = server_key(task, server)?;
    let mut keys = vec![at.clone()];
    if let Some(server) = have.get::<Server>(&at)? {
        for volume in &server.status.volumes {
            keys.push(volume_key(task, *volume)?);
        }
        if let Some(placement) = &server.status.placement {
            keys.push(seen_key(placement.host, server.id())?);
        }
    }
    Ok(keys)
}

/// A volume, and the server that has it with all of the above.
pub(super) fn with_volume(task: &Task, volume: VolumeId, have: &Records) -> Result<Vec<Key>, Reason> {
    let at = volume_key(task, volume)?;
    let mut keys = vec![at.clone()];
    if let Some(volume) = have.get::<Volume>(&at)?
        && let Some(attachment) = &volume.status.attachment
    {
        keys.extend(with_server(task, attachment.server, have)?);
    }
    Ok(keys)
}

/// The server that has a volume.
pub(super) fn server_of(task: &Task, volume: &Volume, records: &Records) -> Result<Option<Server>, Reason> {
    match &volume.status.attachment {
        Some(attachment) => records.get(&server_key(task, attachment.server)?),
        None => Ok(None),
    }
}

/// A new order for the server, if there is one; and the generation of the task's jobs.
pub(super) fn ordered(
    task: &Task,
    txn: Txn,
    server: Option<&mut Server>,
    cx: &PlanContext<'_>,
) -> Result<(Txn, u64), Reason> {
    match server {
        Some(server) => {
            order(server, cx);
            let at = server_key(task, server.id())?;
            Ok((cx.records.put(txn, &at, server)?, server.meta.generation))
        }
        None => Ok((txn, 0)),
    }
}

/// Adds: the server is free again, as it was last seen.
pub(super) fn free_server(
    task: &Task,
    txn: Txn,
    server: Option<Server>,
    cx: &SettleContext<'_>,
    change: impl FnOnce(&mut Server),
) -> Result<Txn, Reason> {
    let Some(mut server) = server else { return Ok(txn) };
    if server.status.activity.as_ref().is_some_and(|a| a.task == task.id) {
        server.status.activity = None;
    }
    change(&mut server);
    server.meta.updated_at = cx.now;
    let last_look = take_seen(&mut server, cx)?;
    cx.records
        .put(txn.and(last_look), &server_key(task, server.id())?, &server)
}

/// Adds: the volume is free again.
pub(super) fn free_volume(
    task: &Task,
    txn: Txn,
    volume: Option<Volume>,
    cx: &SettleContext<'_>,
    change: impl FnOnce(&mut Volume),
) -> Result<Txn, Reason> {
    let Some(mut volume) = volume else { return Ok(txn) };
    if volume.status.activity.as_ref().is_some_and(|a| a.task == task.id) {
        volume.status.activity = None;
    }
    change(&mut volume);
    volume.meta.updated_at = cx.now;
    cx.records.put(txn, &volume_key(task, volume.id())?, &volume)
}

/// Adds: the snapshot is free again.
pub(super) fn free_snapshot(
    task: &Task,
    txn: Txn,
    snapshot: Option<Snapshot>,
    cx: &SettleContext<'_>,
    change: impl FnOnce(&mut Snapshot),
) -> Result<Txn, Reason> {
    let Some(mut snapshot) = snapshot else {
        return Ok(txn);
    };
    if snapshot
        .status
        .activity
        .as_ref()
        .is_some_and(|a| a.task == task.id)
    {
        snapshot.status.activity = None;
    }
    change(&mut snapshot);
    snapshot.meta.updated_at = cx.now;
    cx.records
        .put(txn, &snapshot_key(task, snapshot.id())?, &snapshot)
}

/// What a volume is when nothing is done to it.
pub(super) fn at_rest(volume: &Volume) -> VolumeState {
    if volume.status.attachment.is_some() {
        VolumeState::InUse
    } else {
        VolumeState::Available
    }
}

pub(super) fn broken(snapshot: &mut Snapshot, fault: Option<&Reason>) {
    snapshot.status.state = SnapshotState::Error;
    snapshot.status.fault = fault.cloned();
}
