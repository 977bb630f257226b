//! Volumes of a new server: those that are there, and those that are made with it. All are its own from the commit on that makes the task.

use std::collections::{BTreeMap, BTreeSet};

use skyloom_identity::{Amounts, Object};
use skyloom_model::{
    Attachment, DiskFormat, HostId, Meta, Name, Pool, Resource as _, ServerId, Snapshot, SnapshotId,
    SystemOf, Task, Volume, VolumeId, VolumeSpec, VolumeState, VolumeStatus, disk_of,
};
use skyloom_store::{Guard, Txn, Versioned};

use super::Cloud;
use super::records::create_resource;
use super::volume_create::Held;
use super::volumes::{activity, conflict, idle_volume};
use crate::flows::{NewVolume, pool_label};
use crate::{Caller, CloudError, CreateVolume, FieldError, Result, ServerVolume, amounts, checks};

/// What was found of the volumes that a request names.
#[derive(Default)]
pub(super) struct ServerVolumes {
    /// As they will be, with what is there of them, in device order.
    volumes: Vec<(Volume, Option<Versioned<Volume>>)>,
    made: Vec<NewVolume>,
    /// Snapshots that are copied from; busy meanwhile.
    sources: BTreeMap<SnapshotId, Versioned<Snapshot>>,
    unchanged: Vec<Guard>,
    boot: Option<VolumeId>,
    host: Option<HostId>,
    pools: BTreeSet<String>,
}

impl ServerVolumes {
    pub(super) fn ids(&self) -> Vec<VolumeId> {
        self.volumes.iter().map(|(volume, _)| volume.id()).collect()
    }
    pub(super) fn new_ones(&self) -> Vec<NewVolume> {
        self.made.clone()
    }
    pub(super) fn boot(&self) -> Option<VolumeId> {
        self.boot
    }
    pub(super) fn host(&self) -> Option<HostId> {
        self.host
    }
    pub(super) fn pools(&self) -> Vec<String> {
        self.pools.iter().cloned().collect()
    }

    /// Whose system the volume holds that is booted from.
    pub(super) fn system(&self) -> Option<&SystemOf> {
        let boots = |volume: &&Volume| Some(volume.id()) == self.boot;
        let mut volumes = self.volumes.iter().map(|(volume, _)| volume);
        volumes.find(boots).and_then(|volume| volume.spec.system.as_ref())
    }

    /// What the new ones take.
    pub(super) fn amounts(&self) -> Amounts {
        let made = self.volumes.iter().filter(|(_, there)| there.is_none());
        made.fold(Amounts::new(), |sum, (volume, _)| {
            sum.plus(&amounts::of_volume(volume.spec.size_gib))
        })
    }

    /// What the commit that makes `task` says of them.
    pub(super) fn changes(&self, task: &Task) -> Result<Txn> {
        let mut txn = Txn::new();
        for (volume, there) in &self.volumes {
            let mut volume = volume.clone();
            volume.status.activity = activity(task);
            txn = txn.and(match there {
                Some(there) => there.replace(&volume)?,
                None => create_resource(&volume)?,
            });
        }
        for found in self.sources.values() {
            let mut source = found.value.clone();
            source.status.activity = activity(task);
            txn = txn.and(found.replace(&source)?);
        }
        Ok(self.unchanged.iter().cloned().fold(txn, Txn::guard))
    }

    /// Only one host can have it.
    fn bind(&mut self, host: Option<HostId>) -> Result<()> {
        match (self.host, host) {
            (Some(one), Some(other)) if one != other => Err(conflict(
                "volume.elsewhere",
                "its volumes are on different hosts",
                "copy one of them to a volume beside the other, or use a shared pool",
            )),
            (bound, host) => {
                self.host = bound.or(host);
                Ok(())
            }
        }
    }

    fn see(&mut self, pool: &Pool, host: Option<HostId>) -> Result<()> {
        match pool {
            Pool::Local => self.bind(host),
            Pool::Shared { name } => {
                self.pools.insert(pool_label(name.as_str()));
                Ok(())
            }
        }
    }
}

impl Cloud {
    /// Looks up the volumes of a new server that are there, and prepares those that are not.
    pub(super) async fn server_volumes(
        &self,
        caller: &Caller,
        asked: &[ServerVolume],
        server: ServerId,
        name: &Name,
    ) -> Result<ServerVolumes> {
        let mut all = ServerVolumes::default();
        let first = asked.iter().enumerate().filter(|(_, volume)| volume.boot);
        let others = asked.iter().enumerate().filter(|(_, volume)| !volume.boot);
        for (i, asked) in first.chain(others) {
            let at = format!("volumes[{i}]");
            let (mut volume, there) = match asked.volume {
                Some(id) => self.free_one(caller, id, &mut all).await?,
                None => {
                    let name = asked.name.clone().unwrap_or_else(|| format!("{name}-{}", i + 1));
                    (self.new_one(caller, asked, &at, &name, &mut all).await?, None)
                }
            };
            let id = volume.id();
            if asked.boot {
                if !volume.spec.bootable || volume.spec.system.is_none() {
                    let what = "nobody knows of a system on the volume";
                    let field = format!("{at}.boot");
                    return Err(CloudError::field(FieldError::new(
                        field,
                        "volume.not_bootable",
                        what,
                    )));
                }
                all.boot = Some(id);
            }
            volume.meta.updated_at = self.now();
            volume.status.attachment = Some(Attachment {
                server,
                disk: disk_of(id),
                at: self.now(),
                delete_with_server: asked.delete_with_server,
            });
            all.volumes.push((volume, there));
        }
        Ok(all)
    }

    /// A volume that no server has.
    async fn free_one(
        &self,
        caller: &Caller,
        id: VolumeId,
        all: &mut ServerVolumes,
    ) -> Result<(Volume, Option<Versioned<Volume>>)> {
        let found = self.own::<Volume>(caller, "volume:attach", id.uuid()).await?;
        idle_volume(&found.value)?;
        let mut volume = found.value.clone();
        match volume.status.state {
            VolumeState::Available => {}
            VolumeState::InUse => {
                let message = "a server has the volume";
                return Err(conflict("volume.in_use", message, "detach it first"));
            }
            VolumeState::Creating | VolumeState::Error | VolumeState::Deleting => {
                let message = "the volume cannot be used";
                return Err(conflict(
                    "volume.wrong_state",
                    message,
                    "look at its state and fault",
                ));
            }
        }
        all.see(&volume.spec.pool, volume.status.host)?;
        volume.status.state = VolumeState::InUse;
        Ok((volume, Some(found)))
    }

    /// A volume that is to be made.
    async fn new_one(
        &self,
        caller: &Caller,
        asked: &ServerVolume,
        at: &str,
        name: &str,
        all: &mut ServerVolumes,
    ) -> Result<Volume> {
        caller.may("volume:create", &Object::all("volume", caller.here()?))?;
        let wrong = |field: &str, error: FieldError| {
            CloudError::field(FieldError::new(
                format!("{at}.{field}"),
                &error.code,
                error.message,
            ))
        };
        let name = checks::text::name("name", name).map_err(|error| wrong("name", error))?;
        let pool = match &asked.pool {
            Some(pool) => Pool::Shared {
                name: checks::volume::pool(pool)?,
            },
            None => Pool::Local,
        };
        let source = CreateVolume {
            size_gib: asked.size_gib,
            image: asked.image.clone(),
            snapshot: asked.snapshot,
            disk: asked.disk.clone(),
            ..CreateVolume::default()
        };
        let made = self.volume_source(caller, &source).await?;
        let size_gib = checks::volume::size(asked.size_gib.unwrap_or(made.least_gib.max(1)))?;
        if size_gib < made.least_gib {
            let message = format!("its source takes {} GiB", made.least_gib);
            return Err(wrong("size_gib", FieldError::new("", "size.too_small", message)));
        }
        all.see(&pool, None)?;
        // A snapshot is read where it is.
        all.bind(made.host)?;
        match made.held {
            Held::Nothing | Held::Volume(_) => {}
            Held::Image(guard) => all.unchanged.push(guard),
            Held::Snapshot(found) => {
                all.sources.insert(found.value.id(), *found);
            }
        }
        let mut meta = Meta::new(self.parts.ids.uuid(), name, caller.scope(), self.now());
        meta.updated_at = self.now();
        let volume = Volume {
            meta,
            spec: VolumeSpec {
                size_gib,
                format: asked.format.unwrap_or(DiskFormat::Qcow2),
                source: made.source,
                pool,
                bootable: made.bootable,
                system: made.system,
                limits: None,
                description: String::new(),
            },
            status: VolumeStatus::creating(),
        };
        all.made.push(NewVolume {
            volume: volume.id(),
            from: made.from,
        });
        Ok(volume)
    }
}
