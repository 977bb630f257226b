//! `volume.create`, `volume.delete`, `volume.grow`, `volume.limit`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::json;
use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, StageEnd, TaskFlow};
use skyloom_hypervisor::{DiskAt, VolumeContent, VolumeOrder};
use skyloom_model::{
    HostId, IoLimits, JobId, JobSpec, Place, Pool, Reason, Resources, ServerId, Snapshot, SnapshotId, Task,
    TaskEnd, Volume, VolumeId, VolumeState,
};
use skyloom_scheduler::Request;
use skyloom_store::{Key, Txn};

use super::records::{give_back, quota_reads, subject_key};
use super::volume_records::{
    at, at_rest, bytes, free_server, free_snapshot, free_volume, host_of, ordered, server_of, snapshot_key,
    volume_key, with_volume,
};
use super::volume_room::{keep_room, reserve, room_reads};
use super::{BaseImage, Outputs, Step, output, params};
use crate::amounts;
use crate::jobs::{CacheInput, GrowInput, Measured, PlaceInput};

/// Time for a copy, in seconds.
pub(super) const COPY_SECONDS: u64 = 6 * 3600;

/// Makes a volume.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct VolumeCreate;
/// Removes a volume that no server has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct VolumeDelete;
/// Makes a volume larger, attached or not.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct VolumeGrow;
/// Sets what a volume may do, at most.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct VolumeLimit;

/// Parameters of `volume.create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeCreateParams {
    /// What it is made of.
    pub(crate) from: VolumeFrom,
    /// The only host that may make it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<HostId>,
}

/// What a new volume is made of, as it was when it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub(crate) enum VolumeFrom {
    /// Nothing.
    Zeroes,
    /// An image.
    Image {
        /// Its facts.
        image: BaseImage,
    },
    /// A volume that no server has; it is busy meanwhile.
    Volume {
        /// Which.
        volume: VolumeId,
    },
    /// A disk of a snapshot; that is busy meanwhile.
    Snapshot {
        /// Which.
        snapshot: SnapshotId,
        /// Where the disk is.
        disk: DiskAt,
    },
}

impl VolumeFrom {
    /// The disk that is copied; zeroes where there is none.
    pub(super) fn disk(&self, task: &Task, records: &Records) -> Result<VolumeContent, Reason> {
        Ok(match self {
            Self::Zeroes | Self::Image { .. } => VolumeContent::Zeroes,
            Self::Volume { volume } => {
                let source: Volume = records.need(&volume_key(task, *volume)?)?;
                VolumeContent::Disk {
                    disk: DiskAt::Volume(at(&source)),
                    snapshot: None,
                }
            }
            Self::Snapshot { snapshot, disk } => VolumeContent::Disk {
                disk: disk.clone(),
                snapshot: Some(*snapshot),
            },
        })
    }
}

/// Parameters of `volume.grow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GrowParams {
    /// What it was, in GiB.
    pub(crate) from_gib: u64,
}

/// Parameters of `volume.limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LimitParams {
    /// What it might do before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<IoLimits>,
}

/// What hosts that see a shared pool carry as a label, with the value `yes`.
pub(crate) fn pool_label(name: &str) -> String {
    format!("pool.{name}")
}

/// Chooses the host that makes a volume.
fn choose(volume: &Volume, wanted: &VolumeCreateParams, cx: &PlanContext<'_>) -> Result<HostId, Refusal> {
    let mut architectures: BTreeSet<&str> = BTreeSet::new();
    for host in cx.inventory.hosts() {
        architectures.extend(host.facts.as_ref().map(|f| f.architecture.as_str()));
    }
    let mut refused = Reason::new("volume.no_host", "no host reports");
    for architecture in architectures {
        let resources = Resources {
            vcpus: 0,
            memory_mib: 0,
            disk_gib: volume.spec.size_gib,
        };
        let as_if = ServerId::from_uuid(volume.meta.id);
        let mut request = Request::new(as_if, resources, architecture);
        request.only = wanted.host;
        if let Pool::Shared { name } = &volume.spec.pool {
            request.labels.insert(pool_label(name.as_str()), "yes".to_owned());
        }
        match cx.scheduler.place(&request, cx.inventory) {
            Ok(placed) => return Ok(placed.host),
            Err(no) => refused = no.reason(),
        }
    }
    Err(Refusal::Fail(refused))
}

/// The jobs that make a volume; `name` gives each its id.
pub(super) fn making(
    task: &Task,
    volume: &Volume,
    from: &VolumeFrom,
    place: Place,
    records: &Records,
    name: &dyn Fn(&str) -> JobId,
) -> Result<Vec<JobSpec>, Reason> {
    let (mut jobs, mut before) = (Vec::new(), Vec::new());
    let content = match from {
        VolumeFrom::Zeroes => VolumeContent::Zeroes,
        VolumeFrom::Image { image } => {
            let image = image.spec();
            let input = CacheInput { image: image.clone() };
            let fetch = Step::new(
                "image.cache",
                "fetch the image into the host's cache",
                place,
                &input,
            )?;
            jobs.push(fetch.id(name("image.cache")).attempts(5, 1000).weight(10).done());
            before.push(name("image.cache"));
            VolumeContent::Image { image }
        }
        VolumeFrom::Volume { .. } | VolumeFrom::Snapshot { .. } => from.disk(task, records)?,
    };
    let order = VolumeOrder {
        at: at(volume),
        format: volume.spec.format,
        size_bytes: bytes(volume.spec.size_gib),
        content,
    };
    let make = Step::new("volume.create", "make the volume", place, &order)?;
    jobs.push(
        make.id(name("volume.create"))
            .after(before)
            .attempts(3, 2000)
            .weight(5)
            .within(COPY_SECONDS)
            .done(),
    );
    Ok(jobs)
}

fn no_next() -> Result<Option<Planned>, Refusal> {
    Ok(None)
}

impl TaskFlow for VolumeCreate {
    fn name(&self) -> &'static str {
        "volume.create"
    }

    fn reads(&self, task: &Task, _have: &Records, _outputs: &Outputs) -> Vec<Key> {
        let source = params::<VolumeCreateParams>(task)
            .ok()
            .and_then(|p| match p.from {
                VolumeFrom::Volume { volume } => volume_key(task, volume).ok(),
                VolumeFrom::Snapshot { snapshot, .. } => snapshot_key(task, snapshot).ok(),
                VolumeFrom::Zeroes | VolumeFrom::Image { .. } => None,
            });
        subject_key(task).into_iter().chain(source).collect()
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let key = subject_key(task)?;
        let mut volume: Volume = cx.records.need(&key)?;
        let wanted: VolumeCreateParams = params(task)?;
        let host = match wanted.host {
            // Its source is there, or the server that it is for: nobody else can.
            Some(host) => host,
            None => choose(&volume, &wanted, cx)?,
        };
        let jobs = making(
            task,
            &volume,
            &wanted.from,
            Place::Host(host),
            cx.records,
            &|name| JobId::new(name),
        )?;
        volume.status.host = Some(host);
        volume.meta.updated_at = cx.now;
        let changes = reserve(Txn::new(), &mut volume, cx)?;
        Ok(Planned {
            jobs,
            generation: volume.meta.generation,
            changes: cx.records.put(changes, &key, &volume)?,
            ..Planned::default()
        })
    }

    fn next(&self, _: &Task, _: &StageEnd<'_>, _: &mut PlanContext<'_>) -> Result<Option<Planned>, Refusal> {
        no_next()
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let volume = cx.records.get::<Volume>(&subject_key(task)?)?;
        let measured = output::<Measured>(cx.outputs, "volume.create");
        let mut txn = free_volume(task, Txn::new(), volume, cx, |volume| {
            volume.status.fault = cx.reason.cloned().filter(|_| cx.end != TaskEnd::Done);
            match (cx.end, measured) {
                (TaskEnd::Done, Some(measured)) => {
                    volume.status.state = VolumeState::Available;
                    volume.status.allocated_bytes = measured.allocated_bytes;
                }
                _ => volume.status.state = VolumeState::Error,
            }
        })?;
        match params::<VolumeCreateParams>(task)?.from {
            VolumeFrom::Volume { volume } => {
                let source = cx.records.get(&volume_key(task, volume)?)?;
                txn = free_volume(task, txn, source, cx, |_| {})?;
            }
            VolumeFrom::Snapshot { snapshot, .. } => {
                let source = cx.records.get::<Snapshot>(&snapshot_key(task, snapshot)?)?;
                txn = free_snapshot(task, txn, source, cx, |_| {})?;
            }
            VolumeFrom::Zeroes | VolumeFrom::Image { .. } => {}
        }
        Ok(Settled {
            changes: txn,
            result: Some(json!({ "volume": task.subject.id })),
        })
    }
}

impl TaskFlow for VolumeDelete {
    fn name(&self) -> &'static str {
        "volume.delete"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        let mut keys: Vec<Key> = subject_key(task).into_iter().collect();
        keys.extend(room_reads(task, have));
        keys.extend(quota_reads(task, have).unwrap_or_default());
        keys
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let volume: Volume = cx.records.need(&subject_key(task)?)?;
        let mut jobs = Vec::new();
        // One that no host was chosen for is nowhere.
        if let Some(host) = volume.status.host {
            let delete = Step::new(
                "volume.delete",
                "delete the volume",
                Place::Host(host),
                &at(&volume),
            )?;
            jobs.push(delete.attempts(10, 1000).within(600).done());
        }
        Ok(Planned {
            jobs,
            generation: volume.meta.generation,
            ..Planned::default()
        })
    }

    fn next(&self, _: &Task, _: &StageEnd<'_>, _: &mut PlanContext<'_>) -> Result<Option<Planned>, Refusal> {
        no_next()
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let key = subject_key(task)?;
        let Some(mut volume) = cx.records.get::<Volume>(&key)? else {
            return Ok(Settled::default());
        };
        let changes = if cx.end == TaskEnd::Done {
            let txn = cx.records.delete(Txn::new(), &key);
            let txn = keep_room(txn, &mut volume, 0, cx.records)?;
            give_back(txn, task, cx.records, &amounts::of_volume(volume.spec.size_gib))?
        } else {
            // What is gone is gone: it can only be deleted again.
            free_volume(task, Txn::new(), Some(volume), cx, |volume| {
                volume.status.state = VolumeState::Error;
                volume.status.fault = cx.reason.cloned();
            })?
        };
        Ok(Settled {
            changes,
            result: None,
        })
    }
}

impl TaskFlow for VolumeGrow {
    fn name(&self) -> &'static str {
        "volume.grow"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        let mut keys = with_volume(task, VolumeId::from_uuid(task.subject.id), have).unwrap_or_default();
        keys.extend(room_reads(task, have));
        keys.extend(quota_reads(task, have).unwrap_or_default());
        keys
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let key = subject_key(task)?;
        let mut volume: Volume = cx.records.need(&key)?;
        let mut server = server_of(task, &volume, cx.records)?;
        let host = host_of(&volume, server.as_ref())?;
        let input = GrowInput {
            at: at(&volume),
            bytes: bytes(volume.spec.size_gib),
            place: volume
                .status
                .attachment
                .as_ref()
                .map(|a| (a.server, a.disk.clone())),
        };
        let grow = Step::new("volume.grow", "make the volume larger", Place::Host(host), &input)?;
        // The room is taken before a byte is: what fails gives it back.
        let changes = reserve(Txn::new(), &mut volume, cx)?;
        let changes = cx.records.put(changes, &key, &volume)?;
        let (changes, generation) = ordered(task, changes, server.as_mut(), cx)?;
        Ok(Planned {
            jobs: vec![grow.attempts(5, 1000).within(600).done()],
            generation,
            changes,
            ..Planned::default()
        })
    }

    fn next(&self, _: &Task, _: &StageEnd<'_>, _: &mut PlanContext<'_>) -> Result<Option<Planned>, Refusal> {
        no_next()
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let Some(mut volume) = cx.records.get::<Volume>(&subject_key(task)?)? else {
            return Ok(Settled::default());
        };
        let GrowParams { from_gib } = params(task)?;
        let measured = output::<Measured>(cx.outputs, "volume.grow");
        let (server, more) = (
            server_of(task, &volume, cx.records)?,
            volume.spec.size_gib.saturating_sub(from_gib),
        );
        let txn = match measured {
            Some(_) => Txn::new(),
            None => keep_room(Txn::new(), &mut volume, from_gib, cx.records)?,
        };
        let mut txn = free_volume(task, txn, Some(volume), cx, |volume| {
            volume.status.fault = cx.reason.cloned().filter(|_| cx.end != TaskEnd::Done);
            match measured {
                Some(measured) => volume.status.allocated_bytes = measured.allocated_bytes,
                None => volume.spec.size_gib = from_gib,
            }
        })?;
        if measured.is_none() {
            txn = give_back(txn, task, cx.records, &amounts::of_growth(more))?;
        }
        Ok(Settled {
            changes: free_server(task, txn, server, cx, |_| {})?,
            result: None,
        })
    }
}

impl TaskFlow for VolumeLimit {
    fn name(&self) -> &'static str {
        "volume.limit"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        with_volume(task, VolumeId::from_uuid(task.subject.id), have).unwrap_or_default()
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let volume: Volume = cx.records.need(&subject_key(task)?)?;
        let LimitParams { before } = params(task)?;
        let mut server = server_of(task, &volume, cx.records)?;
        let mut jobs = Vec::new();
        if let Some(attachment) = &volume.status.attachment {
            let input = PlaceInput {
                server: attachment.server,
                disk: attachment.disk.clone(),
                at: at(&volume),
                limits: volume.spec.limits,
                before,
            };
            let place = Place::Host(host_of(&volume, server.as_ref())?);
            let limit = Step::new("volume.limit", "limit what the disk may do", place, &input)?;
            jobs.push(limit.within(120).done());
        }
        let (changes, generation) = ordered(task, Txn::new(), server.as_mut(), cx)?;
        Ok(Planned {
            jobs,
            generation,
            changes,
            ..Planned::default()
        })
    }

    fn next(&self, _: &Task, _: &StageEnd<'_>, _: &mut PlanContext<'_>) -> Result<Option<Planned>, Refusal> {
        no_next()
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let Some(volume) = cx.records.get::<Volume>(&subject_key(task)?)? else {
            return Ok(Settled::default());
        };
        let LimitParams { before } = params(task)?;
        let server = server_of(task, &volume, cx.records)?;
        let txn = free_volume(task, Txn::new(), Some(volume), cx, |volume| {
            volume.status.state = at_rest(volume);
            volume.status.fault = cx.reason.cloned().filter(|_| cx.end != TaskEnd::Done);
            if cx.end != TaskEnd::Done {
                volume.spec.limits = before;
            }
        })?;
        Ok(Settled {
            changes: free_server(task, txn, server, cx, |_| {})?,
            result: None,
        })
    }
}
