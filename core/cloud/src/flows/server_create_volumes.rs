//! Volumes of a server that is made: new ones are made on its host before its domain is, and take that host's disk with its claim.
//!
//! | end | those that were there | new ones |
//! | --- | --- | --- |
//! | done | the server has them | the server has them |
//! | failed, cancelled | free again | gone with the server that they were to end with, else in error |
//! | abandoned | the server has them | in error: nobody knows what is of them |

use skyloom_flow::{Records, SettleContext};
use skyloom_identity::Amounts;
use skyloom_model::{
    HostId, JobId, JobSpec, Place, Pool, Reason, Resource as _, Server, Snapshot, SnapshotId, Task, TaskEnd,
    Volume, VolumeState,
};
use skyloom_store::{Key, Txn};

use super::records::{give_back, quota_reads};
use super::volume::{VolumeFrom, making};
use super::volume_records::{free_snapshot, snapshot_key, volume_key};
use super::{CreateParams, output};
use crate::amounts;
use crate::jobs::Measured;

/// Snapshots that new volumes are copies of.
fn sources(params: &CreateParams) -> impl Iterator<Item = SnapshotId> {
    let mut all: Vec<SnapshotId> = Vec::new();
    for new in &params.volumes {
        if let VolumeFrom::Snapshot { snapshot, .. } = new.from
            && !all.contains(&snapshot)
        {
            all.push(snapshot);
        }
    }
    all.into_iter()
}

/// What is read beside the server's own volumes.
pub(super) fn volume_reads(task: &Task, params: &CreateParams, have: &Records) -> Result<Vec<Key>, Reason> {
    let mut keys = Vec::new();
    if params.volumes.is_empty() {
        return Ok(keys);
    }
    for snapshot in sources(params) {
        keys.push(snapshot_key(task, snapshot)?);
    }
    // One that fails and was to end with the server is given back.
    keys.extend(quota_reads(task, have)?);
    Ok(keys)
}

/// The volumes that are to be made.
pub(super) fn new_volumes(
    task: &Task,
    params: &CreateParams,
    records: &Records,
) -> Result<Vec<Volume>, Reason> {
    let need = |new: &super::NewVolume| records.need(&volume_key(task, new.volume)?);
    params.volumes.iter().map(need).collect()
}

/// GiB that they will take of their host.
pub(super) fn room(volumes: &[Volume]) -> u64 {
    let local = volumes.iter().filter(|volume| volume.spec.pool == Pool::Local);
    local.fold(0, |sum, volume| sum.saturating_add(volume.spec.size_gib))
}

/// GiB that a host's ledger counts for them now.
pub(super) fn reserved(volumes: &[Volume]) -> u64 {
    let all = volumes.iter().map(|volume| volume.status.reserved_gib);
    all.fold(0, u64::saturating_add)
}

/// Adds: they are to be made on that host.
pub(super) fn placed(
    mut txn: Txn,
    task: &Task,
    volumes: &mut [Volume],
    host: HostId,
    records: &Records,
) -> Result<Txn, Reason> {
    for volume in volumes {
        volume.status.host = Some(host);
        volume.status.reserved_gib = room(std::slice::from_ref(volume));
        txn = records.put(txn, &volume_key(task, volume.id())?, volume)?;
    }
    Ok(txn)
}

fn name_of(kind: &str, n: usize, attempt: usize) -> JobId {
    JobId::new(match attempt {
        1 => format!("{kind}.{n}"),
        attempt => format!("{kind}.{n}@{attempt}"),
    })
}

/// The jobs that make them, and the ids of those that the domain waits for.
pub(super) fn volume_jobs(
    task: &Task,
    params: &CreateParams,
    place: Place,
    records: &Records,
    attempt: usize,
) -> Result<(Vec<JobSpec>, Vec<JobId>), Reason> {
    let (mut jobs, mut made) = (Vec::new(), Vec::new());
    for (n, (new, volume)) in params
        .volumes
        .iter()
        .zip(new_volumes(task, params, records)?)
        .enumerate()
    {
        let name = |kind: &str| name_of(kind, n + 1, attempt);
        jobs.extend(making(task, &volume, &new.from, place, records, &name)?);
        made.push(name("volume.create"));
    }
    Ok((jobs, made))
}

/// Adds: the volumes are what the end of the task makes of them. Also how many GiB their host has back.
pub(super) fn settle_volumes(
    mut txn: Txn,
    task: &Task,
    params: &CreateParams,
    server: &mut Server,
    cx: &SettleContext<'_>,
) -> Result<(Txn, u64), Reason> {
    let (mut room, mut taken) = (0, Amounts::new());
    let failed = matches!(cx.end, TaskEnd::Failed | TaskEnd::Cancelled);
    for id in &server.status.volumes {
        let at = volume_key(task, *id)?;
        let Some(mut volume) = cx.records.get::<Volume>(&at)? else {
            continue;
        };
        let ends = volume
            .status
            .attachment
            .as_ref()
            .is_some_and(|a| a.delete_with_server);
        let new = params.volumes.iter().position(|new| new.volume == *id);
        if volume.status.activity.as_ref().is_some_and(|a| a.task == task.id) {
            volume.status.activity = None;
        }
        volume.meta.updated_at = cx.now;
        match (new, failed) {
            (None, false) => volume.status.state = VolumeState::InUse,
            (None, true) => {
                volume.status.state = VolumeState::Available;
                volume.status.attachment = None;
            }
            (Some(n), false) if cx.end == TaskEnd::Done => {
                volume.status.state = VolumeState::InUse;
                let ids = (1..=super::server_create::MAX_HOSTS).rev();
                let measured = ids.map(|attempt| name_of("volume.create", n + 1, attempt));
                let measured = measured
                    .into_iter()
                    .find_map(|id| output::<Measured>(cx.outputs, id.as_str()));
                volume.status.allocated_bytes = measured.map_or(0, |m| m.allocated_bytes);
            }
            (Some(_), false) => {
                volume.status.state = VolumeState::Error;
                volume.status.fault = cx.reason.cloned();
            }
            (Some(_), true) => {
                // Whatever was begun of it has been taken back.
                room += std::mem::take(&mut volume.status.reserved_gib);
                volume.status.host = None;
                volume.status.attachment = None;
                volume.status.state = VolumeState::Error;
                volume.status.fault = cx.reason.cloned();
                if ends {
                    taken = taken.plus(&amounts::of_volume(volume.spec.size_gib));
                    txn = cx.records.delete(txn, &at);
                    continue;
                }
            }
        }
        txn = cx.records.put(txn, &at, &volume)?;
    }
    if failed {
        server.status.volumes.clear();
    }
    for id in sources(params) {
        let source = cx.records.get::<Snapshot>(&snapshot_key(task, id)?)?;
        txn = free_snapshot(task, txn, source, cx, |_| {})?;
    }
    if taken != Amounts::new() {
        txn = give_back(txn, task, cx.records, &taken)?;
    }
    Ok((txn, room))
}
