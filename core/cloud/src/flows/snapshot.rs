//! `snapshot.create`, `snapshot.revert`, `snapshot.delete`: of a server's disks, or of one volume.
//!
//! The record is there from the commit on that makes the task; what it says of sizes is what the host confirmed.

use serde_json::json;
use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, TaskFlow};
use skyloom_model::{
    Place, Reason, Resource as _, Server, Snapshot, SnapshotDisk, SnapshotId, SnapshotOf, SnapshotState,
    Task, TaskEnd, Volume, VolumeId, disk_of,
};
use skyloom_store::{Key, Txn};

use super::definition::root;
use super::records::{give_back, quota_reads, subject_key};
use super::volume_records::{
    at, broken, bytes, free_server, free_snapshot, free_volume, host_of, ordered, server_key, server_of,
    snapshot_key, volume_key, with_server, with_volume,
};
use super::{Outputs, Step, output};
use crate::amounts;
use crate::jobs::{SnapshotInput, Taken, Target};

/// Takes a snapshot.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SnapshotCreate;
/// Makes disks what they were.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SnapshotRevert;
/// Removes a snapshot.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SnapshotDelete;

/// A snapshot with what it is of.
struct Whole {
    snapshot: Snapshot,
    /// The volume, of one volume's snapshot.
    volume: Option<Volume>,
    /// The server whose disks these are.
    server: Option<Server>,
}

fn reads(task: &Task, have: &Records) -> Result<Vec<Key>, Reason> {
    let key = snapshot_key(task, SnapshotId::from_uuid(task.subject.id))?;
    let mut keys = vec![key.clone()];
    if let Some(snapshot) = have.get::<Snapshot>(&key)? {
        keys.extend(match snapshot.spec.of {
            SnapshotOf::Server { server, .. } => with_server(task, server, have)?,
            SnapshotOf::Volume { volume } => with_volume(task, volume, have)?,
        });
    }
    keys.extend(quota_reads(task, have)?);
    Ok(keys)
}

fn whole(task: &Task, records: &Records) -> Result<Option<Whole>, Reason> {
    let Some(snapshot) = records.get::<Snapshot>(&subject_key(task)?)? else {
        return Ok(None);
    };
    let (volume, server) = match snapshot.spec.of {
        SnapshotOf::Server { server, .. } => (None, records.get(&server_key(task, server)?)?),
        SnapshotOf::Volume { volume } => {
            let volume: Option<Volume> = records.get(&volume_key(task, volume)?)?;
            let server = match &volume {
                Some(volume) => server_of(task, volume, records)?,
                None => None,
            };
            (volume, server)
        }
    };
    Ok(Some(Whole {
        snapshot,
        volume,
        server,
    }))
}

impl Whole {
    /// Where the disks are, and whose agent goes there; nothing when they are gone.
    fn target(&self) -> Result<Option<(Target, Place)>, Reason> {
        let in_domain = |server: &Server, disks: Vec<String>, memory: bool| {
            let server = server.id();
            Target::Domain {
                server,
                disks,
                memory,
            }
        };
        match (&self.snapshot.spec.of, &self.volume, &self.server) {
            (SnapshotOf::Server { memory, .. }, _, Some(server)) => {
                let Some(placement) = &server.status.placement else {
                    return Ok(None);
                };
                let volumes = server.status.volumes.iter().map(|volume| disk_of(*volume));
                let root = root(server);
                let others = volumes.filter(|disk| *disk != root);
                let disks = std::iter::once(root.clone()).chain(others).collect();
                Ok(Some((
                    in_domain(server, disks, *memory),
                    Place::Host(placement.host),
                )))
            }
            (SnapshotOf::Volume { .. }, Some(volume), server) => {
                let place = Place::Host(host_of(volume, server.as_ref())?);
                // Of a server that is off the file is at rest.
                let running = server.as_ref().filter(|s| s.status.power.may_execute());
                let target = match running {
                    Some(server) => in_domain(server, vec![disk_of(volume.id())], false),
                    None => Target::File { at: at(volume) },
                };
                Ok(Some((target, place)))
            }
            _ => Ok(None),
        }
    }

    fn planned(
        mut self,
        task: &Task,
        cx: &PlanContext<'_>,
        kind: &str,
        title: &str,
    ) -> Result<Planned, Refusal> {
        let Some((target, place)) = self.target()? else {
            if kind == "snapshot.forget" {
                return Ok(Planned::default());
            }
            return Err(Reason::new("snapshot.nothing_left", "its disks are gone").into());
        };
        let mut sizes = Vec::new();
        if kind == "snapshot.revert" {
            let of_server = self.server.as_ref().filter(|_| self.volume.is_none());
            let mut volumes: Vec<Volume> = self.volume.clone().into_iter().collect();
            for id in of_server.map_or(&[][..], |s| s.status.volumes.as_slice()) {
                volumes.extend(cx.records.get::<Volume>(&volume_key(task, *id)?)?);
            }
            sizes.extend(volumes.iter().map(|v| (at(v), bytes(v.spec.size_gib))));
        }
        let snapshot = self.snapshot.id();
        let input = SnapshotInput {
            snapshot,
            target,
            sizes,
        };
        // Memory is written while the guest stands still; that takes as long as it takes.
        let step = Step::new(kind, title, place, &input)?.within(3600).weight(3);
        let (changes, generation) = ordered(task, Txn::new(), self.server.as_mut(), cx)?;
        Ok(Planned {
            jobs: vec![step.attempts(3, 2000).done()],
            generation,
            changes,
            ..Planned::default()
        })
    }

    /// Adds: what the snapshot is of is free again.
    fn free(self, task: &Task, txn: Txn, cx: &SettleContext<'_>) -> Result<(Snapshot, Txn), Reason> {
        let txn = free_volume(task, txn, self.volume, cx, |_| {})?;
        let txn = free_server(task, txn, self.server, cx, |_| {})?;
        Ok((self.snapshot, txn))
    }
}

fn volume_in(name: &str, whole: &[VolumeId]) -> Option<VolumeId> {
    whole.iter().copied().find(|volume| disk_of(*volume) == name)
}

fn planned(task: &Task, cx: &PlanContext<'_>, kind: &str, title: &str) -> Result<Planned, Refusal> {
    let whole = whole(task, cx.records)?;
    let whole = whole.ok_or_else(|| Reason::new("record.gone", "the snapshot is gone"))?;
    whole.planned(task, cx, kind, title)
}

impl TaskFlow for SnapshotCreate {
    fn name(&self) -> &'static str {
        "snapshot.create"
    }
    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        reads(task, have).unwrap_or_default()
    }
    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        planned(task, cx, "snapshot.take", "take the snapshot")
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let Some(whole) = whole(task, cx.records)? else {
            return Ok(Settled::default());
        };
        let volumes: Vec<VolumeId> = match (&whole.volume, &whole.server) {
            (Some(volume), _) => vec![volume.id()],
            (None, Some(server)) => server.status.volumes.clone(),
            (None, None) => Vec::new(),
        };
        let (snapshot, txn) = whole.free(task, Txn::new(), cx)?;
        let taken = output::<Taken>(cx.outputs, "snapshot.take");
        let changes = free_snapshot(task, txn, Some(snapshot), cx, |snapshot| match (cx.end, taken) {
            (TaskEnd::Done, Some(taken)) => {
                let status = &mut snapshot.status;
                status.state = SnapshotState::Available;
                status.fault = None;
                status.memory_bytes = taken.memory_bytes;
                status.taken_at = Some(taken.taken_at.unwrap_or(cx.now));
                let disks = taken.disks.into_iter();
                status.disks = disks
                    .map(|(name, virtual_size_bytes)| SnapshotDisk {
                        volume: volume_in(&name, &volumes),
                        name,
                        virtual_size_bytes,
                    })
                    .collect();
            }
            _ => broken(snapshot, cx.reason),
        })?;
        Ok(Settled {
            changes,
            result: Some(json!({ "snapshot": task.subject.id })),
        })
    }
}

impl TaskFlow for SnapshotRevert {
    fn name(&self) -> &'static str {
        "snapshot.revert"
    }
    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        reads(task, have).unwrap_or_default()
    }
    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        planned(task, cx, "snapshot.revert", "make the disks what they were")
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let Some(whole) = whole(task, cx.records)? else {
            return Ok(Settled::default());
        };
        let (snapshot, txn) = whole.free(task, Txn::new(), cx)?;
        let changes = free_snapshot(task, txn, Some(snapshot), cx, |snapshot| {
            snapshot.status.fault = cx.reason.cloned().filter(|_| cx.end != TaskEnd::Done);
        })?;
        Ok(Settled {
            changes,
            result: None,
        })
    }
}

impl TaskFlow for SnapshotDelete {
    fn name(&self) -> &'static str {
        "snapshot.delete"
    }
    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        reads(task, have).unwrap_or_default()
    }
    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        planned(task, cx, "snapshot.forget", "remove the snapshot")
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let Some(whole) = whole(task, cx.records)? else {
            return Ok(Settled::default());
        };
        let (snapshot, txn) = whole.free(task, Txn::new(), cx)?;
        let changes = if cx.end == TaskEnd::Done {
            let txn = cx.records.delete(txn, &subject_key(task)?);
            give_back(txn, task, cx.records, &amounts::of_snapshot())?
        } else {
            free_snapshot(task, txn, Some(snapshot), cx, |snapshot| {
                broken(snapshot, cx.reason)
            })?
        };
        Ok(Settled {
            changes,
            result: None,
        })
    }
}
