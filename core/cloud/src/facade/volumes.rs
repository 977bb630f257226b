//! Volumes: making them, giving them to servers, growing, limiting and removing them.
//!
//! A record that a task works on carries it as its activity from the commit on that makes the task: volume, server and source alike.

use futures::FutureExt as _;
use serde_json::{Value as Json, json};
use skyloom_model::{
    Activity, Attachment, Host, Lifecycle, Overlays, Pool, PowerState, Reason, Resource as _, Scope, Server,
    ServerId, Snapshot, SnapshotOf, Task, Volume, VolumeId, VolumeState, disk_of, paths,
};
use skyloom_store::{Txn, Versioned};

use super::Cloud;
use super::once::Change;
use super::records::precondition;
use crate::flows::{GrowParams, LimitParams, pool_label};
use crate::{
    AttachVolume, Caller, CloudError, FieldError, GrowVolume, LimitVolume, ListQuery, Listed, Result,
    VolumeTask, amounts, checks,
};

pub(super) fn conflict(code: &str, message: impl Into<String>, hint: &str) -> CloudError {
    CloudError::conflict(Reason::new(code, message).hint(hint))
}

pub(super) fn activity(task: &Task) -> Option<Activity> {
    Some(Activity {
        task: task.id,
        flow: task.flow.clone(),
    })
}

/// `volume.busy`.
pub(super) fn idle_volume(volume: &Volume) -> Result<()> {
    match &volume.status.activity {
        Some(under_way) => Err(conflict(
            "volume.busy",
            format!("the volume is busy with {}", under_way.flow),
            "wait for its task",
        )),
        None => Ok(()),
    }
}

/// `server.busy`, `server.wrong_lifecycle`, `server.locked`, `server.rescued`, `server.wrong_power_state`: its disks cannot be changed now.
pub(super) fn ready_server(caller: &Caller, server: &Server) -> Result<()> {
    let status = &server.status;
    if let Some(under_way) = &status.activity {
        let message = format!("the server is busy with {}", under_way.flow);
        return Err(conflict("server.busy", message, "wait for its task"));
    }
    if status.lifecycle != Lifecycle::Active || status.placement.is_none() {
        let message = "the server is not active";
        return Err(conflict(
            "server.wrong_lifecycle",
            message,
            "only active servers' disks change",
        ));
    }
    let Overlays { rescued, locked, .. } = status.overlays;
    if locked && caller.may_to("server:unlock", &server.meta).is_err() {
        return Err(conflict(
            "server.locked",
            "the server is locked",
            "unlock it first",
        ));
    }
    if rescued {
        let message = "the server runs its rescue system";
        return Err(conflict("server.rescued", message, "leave rescue mode first"));
    }
    match status.power {
        PowerState::Running | PowerState::Paused | PowerState::Stopped | PowerState::Crashed => Ok(()),
        power => Err(conflict(
            "server.wrong_power_state",
            format!("the server is {power:?}"),
            "turn it on or off first",
        )),
    }
}

impl Cloud {
    /// A page of the project's volumes.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`, `label.invalid`.
    pub async fn list_volumes(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Volume>> {
        self.list_resources(caller, "volume:read", &[caller.scope()], query)
            .await
    }

    /// One volume.
    ///
    /// # Errors
    /// `volume.not_found`.
    pub async fn get_volume(&self, caller: &Caller, id: VolumeId) -> Result<Versioned<Volume>> {
        self.own(caller, "volume:read", id.uuid()).await
    }

    /// Removes a volume that no server has and of which there are no snapshots.
    ///
    /// # Errors
    /// `volume.not_found`, `volume.busy`, `volume.in_use`, `volume.has_snapshots`, `precondition.failed`, `auth.forbidden`.
    pub async fn delete_volume(&self, caller: &Caller, id: VolumeId) -> Result<VolumeTask> {
        let change = |cx: &mut Asked| {
            if cx.volume.status.attachment.is_some() {
                let message = "a server has the volume";
                return Err(conflict("volume.in_use", message, "detach it first"));
            }
            cx.volume.status.state = VolumeState::Deleting;
            Ok(())
        };
        let snapshots = self.snapshots_with(caller, |s| covers_volume(s, id)).await?;
        let asking = Asking {
            permission: "volume:delete",
            flow: "volume.delete",
            request: json!(id),
        };
        self.ask_volume(caller, id, asking, None, move |cx| {
            if snapshots > 0 {
                let message = format!("there are {snapshots} snapshots of the volume");
                return Err(conflict("volume.has_snapshots", message, "delete them first"));
            }
            change(cx)
        })
        .await
    }

    /// Makes a volume larger, also while a guest uses it.
    ///
    /// # Errors
    /// As [`Cloud::attach_volume`]; `size.invalid`, `size.too_small`, `quota.exceeded`.
    pub async fn grow_volume(
        &self,
        caller: &Caller,
        id: VolumeId,
        request: GrowVolume,
    ) -> Result<VolumeTask> {
        let gib = checks::volume::size(request.size_gib)?;
        let asking = Asking {
            permission: "volume:grow",
            flow: "volume.grow",
            request: json!([id, request]),
        };
        self.ask_volume(caller, id, asking, None, move |cx| {
            usable(&cx.volume)?;
            let from_gib = cx.volume.spec.size_gib;
            if gib <= from_gib {
                let message = format!("it has {from_gib} GiB, and volumes only grow");
                return Err(CloudError::field(FieldError::new(
                    "size_gib",
                    "size.too_small",
                    message,
                )));
            }
            cx.volume.spec.size_gib = gib;
            cx.params = json!(GrowParams { from_gib });
            cx.charge_gib = gib - from_gib;
            Ok(())
        })
        .await
    }

    /// Sets what a volume may do, at most, also while a guest uses it.
    ///
    /// # Errors
    /// As [`Cloud::attach_volume`]; `limits.invalid`.
    pub async fn limit_volume(
        &self,
        caller: &Caller,
        id: VolumeId,
        request: LimitVolume,
    ) -> Result<VolumeTask> {
        let limits = checks::volume::limits(request.limits)?;
        let asking = Asking {
            permission: "volume:limit",
            flow: "volume.limit",
            request: json!([id, request]),
        };
        self.ask_volume(caller, id, asking, None, move |cx| {
            usable(&cx.volume)?;
            cx.params = json!(LimitParams {
                before: cx.volume.spec.limits
            });
            cx.volume.spec.limits = limits;
            Ok(())
        })
        .await
    }

    /// Gives a volume to a server, running or not.
    ///
    /// # Errors
    /// `volume.not_found`, `volume.busy`, `volume.in_use`, `volume.wrong_state`, `volume.elsewhere`, `server.not_found`,
    /// `server.busy`, `server.wrong_lifecycle`, `server.wrong_power_state`, `server.locked`, `server.rescued`, `server.too_many_volumes`,
    /// `precondition.failed`, `auth.forbidden`.
    pub async fn attach_volume(
        &self,
        caller: &Caller,
        id: VolumeId,
        request: AttachVolume,
    ) -> Result<VolumeTask> {
        let asking = Asking {
            permission: "volume:attach",
            flow: "volume.attach",
            request: json!([id, request]),
        };
        let now = self.now();
        let labels = self.labels_of_host_of(caller, request.server).await?;
        self.ask_volume(caller, id, asking, Some(request.server), move |cx| {
            usable(&cx.volume)?;
            let Some(server) = &mut cx.server else {
                return Err(CloudError::not_found("server"));
            };
            if cx.attached {
                let message = "a server has the volume";
                return Err(conflict("volume.in_use", message, "detach it first"));
            }
            if server.status.volumes.len() >= checks::volume::MAX_VOLUMES {
                let message = format!("a server has at most {} volumes", checks::volume::MAX_VOLUMES);
                return Err(conflict("server.too_many_volumes", message, "detach another one"));
            }
            let here = server.status.placement.as_ref().map(|p| p.host);
            let reachable = match &cx.volume.spec.pool {
                Pool::Local => cx.volume.status.host == here,
                Pool::Shared { name } => labels.contains(&pool_label(name.as_str())),
            };
            if !reachable {
                let message = "the server's host does not see the volume's pool";
                return Err(conflict(
                    "volume.elsewhere",
                    message,
                    "copy it to a volume beside the server, or use a shared pool",
                ));
            }
            server.status.volumes.push(id);
            cx.volume.status.state = VolumeState::InUse;
            cx.volume.status.attachment = Some(Attachment {
                server: server.id(),
                disk: disk_of(id),
                at: now,
                delete_with_server: request.delete_with_server,
            });
            Ok(())
        })
        .await
    }

    /// Takes a volume from its server, running or not.
    ///
    /// # Errors
    /// As [`Cloud::attach_volume`]; `volume.not_attached`, `volume.in_snapshot`, `volume.boots_server`.
    pub async fn detach_volume(&self, caller: &Caller, id: VolumeId) -> Result<VolumeTask> {
        let of_servers =
            |s: &Snapshot| matches!(s.spec.of, SnapshotOf::Server { .. }) && covers_volume(s, id);
        let snapshots = self.snapshots_with(caller, of_servers).await?;
        let asking = Asking {
            permission: "volume:detach",
            flow: "volume.detach",
            request: json!(id),
        };
        self.ask_volume(caller, id, asking, None, move |cx| {
            if !cx.attached {
                return Err(conflict(
                    "volume.not_attached",
                    "no server has the volume",
                    "look at the volume",
                ));
            }
            if cx.server.as_ref().is_some_and(|s| s.spec.boot_volume == Some(id)) {
                let message = "its server boots from the volume";
                return Err(conflict(
                    "volume.boots_server",
                    message,
                    "delete the server: the volume stays",
                ));
            }
            if snapshots > 0 {
                let message = format!("{snapshots} snapshots of its server hold the volume");
                return Err(conflict("volume.in_snapshot", message, "delete them first"));
            }
            Ok(())
        })
        .await
    }

    /// The labels with the value `yes` of the host that a server lives on.
    async fn labels_of_host_of(&self, caller: &Caller, server: ServerId) -> Result<Vec<String>> {
        let server = self
            .own::<Server>(caller, "server:read", server.uuid())
            .await?
            .value;
        let Some(placement) = server.status.placement else {
            return Ok(Vec::new());
        };
        let host = self
            .resource::<Host>(Scope::System, placement.host.uuid())
            .await?;
        let labels = host.map(|h| h.value.meta.labels).unwrap_or_default();
        Ok(labels
            .into_iter()
            .filter(|(_, v)| v == "yes")
            .map(|(k, _)| k)
            .collect())
    }

    /// How many of the project's snapshots are such.
    pub(super) async fn snapshots_with(
        &self,
        caller: &Caller,
        which: impl Fn(&Snapshot) -> bool,
    ) -> Result<usize> {
        let below = paths::scoped(Snapshot::KIND, caller.scope());
        let all = self.everything::<Snapshot>(&below).await?;
        Ok(all.iter().filter(|found| which(&found.value)).count())
    }

    /// The checks that all changes of volumes have in common; then volume, server and task in one commit.
    async fn ask_volume(
        &self,
        caller: &Caller,
        id: VolumeId,
        asking: Asking,
        server: Option<ServerId>,
        change: impl Fn(&mut Asked) -> Result<()> + Send + Sync,
    ) -> Result<VolumeTask> {
        let (asking, change) = (&asking, &change);
        let done = self
            .once(caller, asking.flow, asking.request.clone(), || {
                async move {
                    let found = self.own::<Volume>(caller, asking.permission, id.uuid()).await?;
                    precondition(caller, found.modified)?;
                    idle_volume(&found.value)?;
                    let attached = found.value.status.attachment.as_ref().map(|a| a.server);
                    let of_server = match server.or(attached) {
                        Some(server) => {
                            let found = self.own::<Server>(caller, "server:read", server.uuid()).await?;
                            ready_server(caller, &found.value)?;
                            Some(found)
                        }
                        None => None,
                    };
                    let mut asked = Asked {
                        volume: found.value.clone(),
                        server: of_server.as_ref().map(|found| found.value.clone()),
                        attached: attached.is_some(),
                        params: Json::Null,
                        charge_gib: 0,
                    };
                    change(&mut asked)?;
                    let task = self.task(caller, asking.flow, &found.value, asked.params);
                    asked.volume.status.activity = activity(&task);
                    asked.volume.meta.updated_at = self.now();
                    let mut txn: Txn = found.replace(&asked.volume)?;
                    if let (Some(found), Some(mut server)) = (of_server, asked.server) {
                        server.status.activity = activity(&task);
                        server.meta.updated_at = self.now();
                        txn = txn.and(found.replace(&server)?);
                    }
                    let answer = VolumeTask {
                        volume: asked.volume,
                        task: task.clone(),
                    };
                    let change = Change::new(txn, answer).task(task);
                    let change = match asked.charge_gib {
                        0 => change,
                        more => change.charge(amounts::of_growth(more)),
                    };
                    Ok(change.told(asking.permission, &found.value.meta))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }
}

/// What is asked of a volume.
struct Asking {
    permission: &'static str,
    flow: &'static str,
    request: Json,
}

/// A volume and its server as they will be.
struct Asked {
    volume: Volume,
    server: Option<Server>,
    /// Whether a server has the volume now.
    attached: bool,
    params: Json,
    charge_gib: u64,
}

/// `volume.wrong_state`.
fn usable(volume: &Volume) -> Result<()> {
    match volume.status.state {
        VolumeState::Available | VolumeState::InUse => Ok(()),
        VolumeState::Creating | VolumeState::Error | VolumeState::Deleting => Err(conflict(
            "volume.wrong_state",
            "the volume cannot be used",
            "look at its state and fault",
        )),
    }
}

/// Whether a snapshot holds something of a volume.
fn covers_volume(snapshot: &Snapshot, id: VolumeId) -> bool {
    matches!(snapshot.spec.of, SnapshotOf::Volume { volume } if volume == id)
        || snapshot.status.disks.iter().any(|disk| disk.volume == Some(id))
}
