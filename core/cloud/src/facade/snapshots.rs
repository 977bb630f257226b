//! Snapshots: of all disks of a server at one moment, or of one volume.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_identity::Object;
use skyloom_model::{
    Meta, PowerState, Reason, Resource as _, Server, Snapshot, SnapshotId, SnapshotOf, SnapshotSpec,
    SnapshotState, SnapshotStatus, Task, Volume, VolumeState,
};
use skyloom_store::{Txn, Versioned};

use super::Cloud;
use super::once::Change;
use super::records::{create_resource, precondition};
use super::volumes::{activity, conflict, idle_volume, ready_server};
use crate::jobs::keeps_snapshots;
use crate::{
    Caller, CloudError, CreateSnapshot, FieldError, ListQuery, Listed, Result, SnapshotTask, amounts, checks,
};

/// Most snapshots of one server or volume.
const MAX_SNAPSHOTS: usize = 64;

/// What a snapshot is of, as it was found: busy from the task's commit on.
struct Subject {
    volume: Option<Versioned<Volume>>,
    server: Option<Versioned<Server>>,
}

impl Subject {
    fn busy(&self, task: &Task) -> Result<Txn> {
        let mut txn = Txn::new();
        if let Some(found) = &self.volume {
            let mut volume = found.value.clone();
            volume.status.activity = activity(task);
            txn = txn.and(found.replace(&volume)?);
        }
        if let Some(found) = &self.server {
            let mut server = found.value.clone();
            server.status.activity = activity(task);
            txn = txn.and(found.replace(&server)?);
        }
        Ok(txn)
    }

    fn executes(&self) -> bool {
        let server = self.server.as_ref();
        server.is_some_and(|found| found.value.status.power.may_execute())
    }
}

impl Cloud {
    /// Takes a snapshot. Its record is there at once, and available when the host has confirmed it.
    ///
    /// # Errors
    /// `name.invalid`, `subject.missing`, `memory.not_running`, `snapshot.raw_volume`, `snapshot.too_many`, `server.not_found`, `volume.not_found`, those of
    /// [`Cloud::attach_volume`] about states; `quota.exceeded`, `auth.forbidden`.
    pub async fn create_snapshot(&self, caller: &Caller, request: CreateSnapshot) -> Result<SnapshotTask> {
        let place = caller.here()?;
        caller.may(
            "snapshot:create",
            &Object::all("snapshot", place).labelled(&request.labels),
        )?;
        let name = checks::text::name("name", &request.name).map_err(CloudError::field)?;
        if let Some(error) = CloudError::fields(checks::text::labels("labels", &request.labels)) {
            return Err(error);
        }
        checks::volume::description(&request.description)?;
        let of = match (request.server, request.volume) {
            (Some(server), None) => SnapshotOf::Server {
                server,
                memory: request.memory,
            },
            (None, Some(volume)) if !request.memory => SnapshotOf::Volume { volume },
            _ => {
                let what = "give a server, or a volume without memory";
                return Err(CloudError::field(FieldError::new(
                    "server",
                    "subject.missing",
                    what,
                )));
            }
        };
        let (request, name, of) = (&request, &name, &of);
        let done = self
            .once(caller, "snapshots.create", json!(request), || {
                async move {
                    let subject = self.subject_of(caller, of).await?;
                    if request.memory && !subject.executes() {
                        let message = "a server that is off has no memory";
                        return Err(conflict("memory.not_running", message, "leave memory out"));
                    }
                    let others = self
                        .snapshots_with(caller, |s| same_subject(&s.spec.of, of))
                        .await?;
                    if others >= MAX_SNAPSHOTS {
                        let message = format!("there are {others} snapshots of it");
                        return Err(conflict("snapshot.too_many", message, "delete some first"));
                    }
                    let mut meta = Meta::new(self.subject_id(), name.clone(), caller.scope(), self.now());
                    meta.labels = request.labels.clone();
                    let mut snapshot = Snapshot {
                        meta,
                        spec: SnapshotSpec {
                            of: of.clone(),
                            description: request.description.clone(),
                        },
                        status: SnapshotStatus {
                            state: SnapshotState::Creating,
                            activity: None,
                            disks: Vec::new(),
                            memory_bytes: 0,
                            taken_at: None,
                            fault: None,
                        },
                    };
                    let task = self.task(caller, "snapshot.create", &snapshot, json!({}));
                    snapshot.status.activity = activity(&task);
                    let told = snapshot.meta.clone();
                    let txn = create_resource(&snapshot)?.and(subject.busy(&task)?);
                    let answer = SnapshotTask {
                        snapshot,
                        task: task.clone(),
                    };
                    let change = Change::new(txn, answer).task(task).charge(amounts::of_snapshot());
                    Ok(change.told("snapshot:create", &told))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// A page of the project's snapshots.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`, `label.invalid`.
    pub async fn list_snapshots(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Snapshot>> {
        self.list_resources(caller, "snapshot:read", &[caller.scope()], query)
            .await
    }

    /// One snapshot.
    ///
    /// # Errors
    /// `snapshot.not_found`.
    pub async fn get_snapshot(&self, caller: &Caller, id: SnapshotId) -> Result<Versioned<Snapshot>> {
        self.own(caller, "snapshot:read", id.uuid()).await
    }

    /// Makes the disks what they were then. What was written since is lost. A server must be off, unless the snapshot has its
    /// memory; a volume's server must be off.
    ///
    /// # Errors
    /// `snapshot.not_found`, `snapshot.busy`, `snapshot.not_available`, `snapshot.disks_differ`, `server.running`, those of [`Cloud::attach_volume`] about
    /// states; `precondition.failed`, `auth.forbidden`.
    pub async fn revert_snapshot(&self, caller: &Caller, id: SnapshotId) -> Result<SnapshotTask> {
        self.ask_snapshot(caller, id, "snapshot:revert", "snapshot.revert")
            .await
    }

    /// Removes a snapshot.
    ///
    /// # Errors
    /// `snapshot.not_found`, `snapshot.busy`, those of [`Cloud::attach_volume`] about states; `precondition.failed`, `auth.forbidden`.
    pub async fn delete_snapshot(&self, caller: &Caller, id: SnapshotId) -> Result<SnapshotTask> {
        self.ask_snapshot(caller, id, "snapshot:delete", "snapshot.delete")
            .await
    }

    async fn ask_snapshot(
        &self,
        caller: &Caller,
        id: SnapshotId,
        permission: &'static str,
        flow: &'static str,
    ) -> Result<SnapshotTask> {
        let done = self
            .once(caller, flow, json!(id), || {
                async move {
                    let found = self.own::<Snapshot>(caller, permission, id.uuid()).await?;
                    precondition(caller, found.modified)?;
                    let mut snapshot = found.value.clone();
                    if let Some(under_way) = &snapshot.status.activity {
                        let message = format!("the snapshot is busy with {}", under_way.flow);
                        return Err(conflict("snapshot.busy", message, "wait for its task"));
                    }
                    let subject = self.subject_of(caller, &snapshot.spec.of).await?;
                    if flow == "snapshot.revert" {
                        revertible(&snapshot, &subject)?;
                    } else {
                        snapshot.status.state = SnapshotState::Deleting;
                    }
                    let task = self.task(caller, flow, &snapshot, json!({}));
                    snapshot.status.activity = activity(&task);
                    snapshot.meta.updated_at = self.now();
                    let txn = found.replace(&snapshot)?.and(subject.busy(&task)?);
                    let answer = SnapshotTask {
                        snapshot,
                        task: task.clone(),
                    };
                    Ok(Change::new(txn, answer)
                        .task(task)
                        .told(permission, &found.value.meta))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// `server.has_snapshots`: a server takes its disks with it, and those volumes that end with it.
    pub(super) async fn no_snapshots(&self, caller: &Caller, server: &Server) -> Result<()> {
        let mut ending = Vec::new();
        for id in &server.status.volumes {
            let volume = self.resource::<Volume>(caller.scope(), id.uuid()).await?;
            let attachment = volume.and_then(|found| found.value.status.attachment);
            ending.extend(attachment.filter(|a| a.delete_with_server).map(|_| *id));
        }
        let of_it = |s: &Snapshot| match &s.spec.of {
            SnapshotOf::Server { server: of, .. } => *of == server.id(),
            SnapshotOf::Volume { volume } => ending.contains(volume),
        };
        let snapshots = self.snapshots_with(caller, of_it).await?;
        if snapshots == 0 {
            return Ok(());
        }
        let message = format!("there are {snapshots} snapshots of its disks");
        Err(conflict("server.has_snapshots", message, "delete them first"))
    }

    /// What a snapshot is of, when nothing else is done to it now and its disks keep snapshots.
    async fn subject_of(&self, caller: &Caller, of: &SnapshotOf) -> Result<Subject> {
        let (volume, server) = match of {
            SnapshotOf::Server { server, .. } => (None, Some(*server)),
            SnapshotOf::Volume { volume } => {
                let found = self.own::<Volume>(caller, "volume:read", volume.uuid()).await?;
                idle_volume(&found.value)?;
                checked(&found.value)?;
                let server = found.value.status.attachment.as_ref().map(|a| a.server);
                (Some(found), server)
            }
        };
        let server = match server {
            Some(id) => {
                let found = self.own::<Server>(caller, "server:read", id.uuid()).await?;
                ready_server(caller, &found.value)?;
                if volume.is_none() {
                    for id in &found.value.status.volumes {
                        checked(&self.own::<Volume>(caller, "volume:read", id.uuid()).await?.value)?;
                    }
                }
                Some(found)
            }
            None => None,
        };
        Ok(Subject { volume, server })
    }
}

/// `volume.wrong_state`, `snapshot.raw_volume`.
fn checked(volume: &Volume) -> Result<()> {
    if !matches!(volume.status.state, VolumeState::Available | VolumeState::InUse) {
        let message = "the volume cannot be used";
        return Err(conflict(
            "volume.wrong_state",
            message,
            "look at its state and fault",
        ));
    }
    if keeps_snapshots(volume.spec.format) {
        return Ok(());
    }
    let message = format!("the volume {} is raw and keeps no snapshots", volume.meta.name);
    Err(CloudError::conflict(
        Reason::new("snapshot.raw_volume", message).hint("copy it to a qcow2 volume"),
    ))
}

/// Whether the disks can be made what they were, now.
fn revertible(snapshot: &Snapshot, subject: &Subject) -> Result<()> {
    if snapshot.status.state != SnapshotState::Available {
        let message = "the snapshot is not available";
        return Err(conflict("snapshot.not_available", message, "look at its fault"));
    }
    let with_memory = snapshot.status.memory_bytes > 0;
    let power = subject.server.as_ref().map(|found| found.value.status.power);
    if subject.executes() && !with_memory || with_memory && power == Some(PowerState::Paused) {
        let message = "the disks of a running guest cannot be changed under it";
        return Err(conflict("server.running", message, "turn the server off first"));
    }
    if let (None, Some(server)) = (&subject.volume, &subject.server) {
        let now = &server.value.status.volumes;
        let then: Vec<_> = snapshot.status.disks.iter().filter_map(|d| d.volume).collect();
        if now.len() != then.len() || !now.iter().all(|volume| then.contains(volume)) {
            let message = "the server has other volumes now than in the snapshot";
            return Err(conflict(
                "snapshot.disks_differ",
                message,
                "attach and detach them as they were",
            ));
        }
    }
    Ok(())
}

fn same_subject(one: &SnapshotOf, other: &SnapshotOf) -> bool {
    match (one, other) {
        (SnapshotOf::Server { server: a, .. }, SnapshotOf::Server { server: b, .. }) => a == b,
        (SnapshotOf::Volume { volume: a }, SnapshotOf::Volume { volume: b }) => a == b,
        _ => false,
    }
}
