//! `server.delete`: off, domain gone, disks gone; then the records.
//!
//! On a fenced host nothing can be asked for: the records go at once. Its volumes stay, free; its disks go where another host sees them, and
//! otherwise with the sweep when the host comes back.

use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, TaskFlow};
use skyloom_identity::Amounts;
use skyloom_model::{
    Image, JobId, JobSpec, Lifecycle, Place, PowerState, Reason, Resource as _, Scope, Server, Task, TaskEnd,
    Volume, VolumeState, paths,
};
use skyloom_store::{Key, Txn};

use super::fence::{fenced, home_key, neighbour};
use super::ports::{delete_ports, member_reads};
use super::records::{
    bind_ports, doubt_own_image, give_back, image_key, key, order, own_image_reads, quota_reads,
    release_claim, seen, server_reads, subject_key, take_seen, without_own_image,
};
use super::volume_records::{at as at_of, volume_key};
use super::wiring::wirings;
use super::{Outputs, Step};
use crate::amounts;
use crate::jobs::{DeleteImageInput, PortGone, RemovePortsInput, ServerInput, UndefineInput};

/// Removes a server with everything that is its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerDelete;

impl TaskFlow for ServerDelete {
    fn name(&self) -> &'static str {
        "server.delete"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        let mut keys = server_reads(task, have).unwrap_or_default();
        keys.extend(quota_reads(task, have).unwrap_or_default());
        keys.extend(member_reads(task, have).unwrap_or_default());
        keys.extend(own_image_reads(task, have).unwrap_or_default());
        keys.extend(home_key(task, have));
        keys
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let at = subject_key(task)?;
        let mut server: Server = cx.records.need(&at)?;
        order(&mut server, cx);
        let mut planned = Planned {
            generation: server.meta.generation,
            changes: cx.records.put(Txn::new(), &at, &server)?,
            ..Planned::default()
        };
        if fenced(task, cx.records) {
            planned.jobs = from_elsewhere(&server, cx)?;
            if let Some(at) = home_key(task, cx.records) {
                // Whoever takes the fence away is asked first.
                planned.changes = cx.records.guard(planned.changes, &at);
            }
        } else if let Some(placement) = &server.status.placement {
            let place = Place::Host(placement.host);
            planned.jobs = forgotten(task, &server, place, cx.records)?;
            for (n, volume) in ending(task, &server, cx.records)?.iter().enumerate() {
                let delete = Step::new(
                    "volume.delete",
                    "delete a volume of its own",
                    place,
                    &at_of(volume),
                )?;
                let id = JobId::new(format!("volume.delete@{}", n + 1));
                let delete = delete.id(id).after([JobId::new("vm.undefine")]);
                planned.jobs.push(delete.attempts(10, 1000).within(600).done());
            }
        }
        planned.jobs.extend(own_image(task, &server, cx.records)?);
        Ok(planned)
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let at = subject_key(task)?;
        let Some(mut server) = cx.records.get::<Server>(&at)? else {
            return Ok(Settled::default());
        };
        let changes = match cx.end {
            TaskEnd::Done => {
                let txn = cx.records.delete(Txn::new(), &at);
                let (txn, ports) = delete_ports(txn, task, &server, cx)?;
                let (txn, of_volumes, room) = part(txn, task, &server, cx)?;
                let txn = release_claim(txn, &server, cx.records, room)?;
                let (txn, of_image) = without_own_image(txn, task, &server, cx.records)?;
                let taken = amounts::of_server(&server)
                    .plus(&of_volumes)
                    .plus(&of_image)
                    .plus(&amounts::of_ports(ports));
                let txn = give_back(txn, task, cx.records, &taken)?;
                match task.scope {
                    // Not read here: nobody but the lender needs to see it.
                    Scope::Project(project) => txn.delete(key(&paths::server_secrets(project, server.id()))?),
                    Scope::System => txn,
                }
            }
            TaskEnd::Failed | TaskEnd::Cancelled | TaskEnd::Abandoned => {
                // What is gone is gone: a server whose deletion did not end can only be deleted again.
                server.status.lifecycle = Lifecycle::Error;
                server.status.activity = None;
                server.status.fault = cx.reason.cloned();
                server.meta.updated_at = cx.now;
                take_seen(&mut server, cx)?;
                let txn = doubt(task, &server, cx)?;
                let mut txn = doubt_own_image(txn, task, &server, cx)?;
                if seen(&server, cx.records)?.is_none() {
                    server.status.power = PowerState::Stopped;
                    txn = bind_ports(txn, task, &server, cx.records, false)?;
                }
                cx.records.put(txn, &at, &server)?
            }
        };
        Ok(Settled {
            changes,
            result: None,
        })
    }
}

/// The jobs that leave nothing of a server on its host but its volumes. Nothing is given up lightly here: what is not deleted stays as
/// an orphan.
pub(super) fn forgotten(
    task: &Task,
    server: &Server,
    place: Place,
    records: &Records,
) -> Result<Vec<JobSpec>, Reason> {
    let input = ServerInput { server: server.id() };
    let domain = UndefineInput {
        server: server.id(),
        generation: None,
    };
    let undefine = Step::new("vm.undefine", "remove the virtual machine", place, &domain)?;
    let disks = Step::new("disk.delete_all", "delete its disks", place, &input)?;
    let mut jobs = vec![
        undefine.attempts(10, 1000).weight(2).within(300).done(),
        disks
            .after([JobId::new("vm.undefine")])
            .attempts(10, 1000)
            .within(600)
            .done(),
    ];
    let wirings = wirings(task, server, records)?;
    if !wirings.is_empty() {
        let input = RemovePortsInput {
            ports: wirings.iter().map(PortGone::of).collect(),
        };
        let remove = Step::new(
            "port.remove",
            "take its ports from the host's network",
            place,
            &input,
        )?;
        let remove = remove.after([JobId::new("vm.undefine")]);
        jobs.push(remove.attempts(10, 1000).within(300).done());
    }
    Ok(jobs)
}

/// The job that deletes the content of the image that is a server's alone.
pub(super) fn own_image(task: &Task, server: &Server, records: &Records) -> Result<Option<JobSpec>, Reason> {
    let Some(image) = server.status.own_image else {
        return Ok(None);
    };
    if records.get::<Image>(&image_key(task, image)?)?.is_none() {
        return Ok(None);
    }
    let input = DeleteImageInput { image };
    let delete = Step::new(
        "image.delete",
        "delete the image that was the server's alone",
        Place::Engine,
        &input,
    )?;
    Ok(Some(delete.attempts(10, 1000).within(600).done()))
}

/// What can be removed of a server whose host is fenced: disks that another host sees.
pub(super) fn from_elsewhere(server: &Server, cx: &PlanContext<'_>) -> Result<Vec<JobSpec>, Reason> {
    let placement = server.status.placement.as_ref();
    let host = placement.and_then(|placed| cx.inventory.get(placed.host));
    let Some(other) = host.and_then(|host| neighbour(host, cx.inventory)) else {
        return Ok(Vec::new());
    };
    let (place, input) = (Place::Host(other.id), ServerInput { server: server.id() });
    let disks = Step::new("disk.delete_all", "delete its disks", place, &input)?;
    Ok(vec![disks.attempts(10, 1000).within(600).done()])
}

/// The server's volumes.
fn volumes(task: &Task, server: &Server, records: &Records) -> Result<Vec<Volume>, Reason> {
    let mut all = Vec::with_capacity(server.status.volumes.len());
    for id in &server.status.volumes {
        all.extend(records.get::<Volume>(&volume_key(task, *id)?)?);
    }
    Ok(all)
}

fn ends(volume: &Volume) -> bool {
    let attachment = volume.status.attachment.as_ref();
    attachment.is_some_and(|attachment| attachment.delete_with_server)
}

/// Those that end with it.
fn ending(task: &Task, server: &Server, records: &Records) -> Result<Vec<Volume>, Reason> {
    let mut all = volumes(task, server, records)?;
    all.retain(ends);
    Ok(all)
}

/// Volumes that were to end with the server: whether they are still there nobody knows. They go with its next deletion.
fn doubt(task: &Task, server: &Server, cx: &SettleContext<'_>) -> Result<Txn, Reason> {
    let mut txn = Txn::new();
    if cx.plan.is_none() || fenced(task, cx.records) {
        return Ok(txn);
    }
    for mut volume in ending(task, server, cx.records)? {
        volume.status.state = VolumeState::Error;
        volume.status.fault = cx.reason.cloned();
        volume.meta.updated_at = cx.now;
        txn = cx.records.put(txn, &volume_key(task, volume.id())?, &volume)?;
    }
    Ok(txn)
}

/// Adds: the volumes that end with the server are gone, the others are free. Also what the former took, and how many GiB of the host.
fn part(
    mut txn: Txn,
    task: &Task,
    server: &Server,
    cx: &SettleContext<'_>,
) -> Result<(Txn, Amounts, u64), Reason> {
    let (mut taken, mut room) = (Amounts::new(), 0_u64);
    let asked = server.status.placement.is_none() || cx.outputs.contains_key(&JobId::new("vm.undefine"));
    for mut volume in volumes(task, server, cx.records)? {
        let at = volume_key(task, volume.id())?;
        if asked && ends(&volume) {
            taken = taken.plus(&amounts::of_volume(volume.spec.size_gib));
            room = room.saturating_add(volume.status.reserved_gib);
            txn = cx.records.delete(txn, &at);
        } else {
            volume.status.attachment = None;
            // One that was never made whole stays what it is.
            if volume.status.state != VolumeState::Error {
                volume.status.state = VolumeState::Available;
            }
            volume.meta.updated_at = cx.now;
            txn = cx.records.put(txn, &at, &volume)?;
        }
    }
    Ok((txn, taken, room))
}
