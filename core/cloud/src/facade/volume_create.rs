//! Making volumes: of nothing, or as copies of images, snapshots and other volumes.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_hypervisor::{DiskAt, VolumeAt};
use skyloom_identity::Object;
use skyloom_model::{
    DiskFormat, HostId, Image, ImageRef, Meta, Name, Pool, Resource as _, Scope, Server, Snapshot,
    SnapshotId, SnapshotOf, SnapshotState, SystemOf, Volume, VolumeSource, VolumeSpec, VolumeState,
    VolumeStatus,
};
use skyloom_store::Versioned;

use super::Cloud;
use super::once::Change;
use super::records::create_resource;
use super::servers::base_image;
use super::volumes::{activity, conflict, idle_volume};
use crate::flows::{VolumeCreateParams, VolumeFrom};
use crate::{Caller, CloudError, CreateVolume, FieldError, Result, VolumeTask, amounts, checks};

/// What a new volume is made of, as it was found.
pub(super) struct Made {
    pub(super) from: VolumeFrom,
    pub(super) source: VolumeSource,
    /// GiB that it takes at least.
    pub(super) least_gib: u64,
    pub(super) bootable: bool,
    /// Whose system it holds.
    pub(super) system: Option<SystemOf>,
    /// The only host that can make it.
    pub(super) host: Option<HostId>,
    /// Holds the source, or lets only what is unchanged through.
    pub(super) held: Held,
}

/// How a source is kept as it is meanwhile.
pub(super) enum Held {
    Nothing,
    Image(skyloom_store::Guard),
    Volume(Box<Versioned<Volume>>),
    Snapshot(Box<Versioned<Snapshot>>),
}

fn to_gib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 30)
}

impl Cloud {
    /// Makes a volume.
    ///
    /// # Errors
    /// `name.invalid`, `size.invalid`, `source.ambiguous`, `pool.invalid`, `format.invalid`, `image.not_found`, `snapshot.not_found`,
    /// `volume.not_found`, `volume.in_use`, `server.not_found`, `quota.exceeded`, `auth.forbidden`.
    pub async fn create_volume(&self, caller: &Caller, request: CreateVolume) -> Result<VolumeTask> {
        let place = caller.here()?;
        caller.may(
            "volume:create",
            &Object::all("volume", place).labelled(&request.labels),
        )?;
        let name = checks::text::name("name", &request.name).map_err(CloudError::field)?;
        if let Some(error) = CloudError::fields(checks::text::labels("labels", &request.labels)) {
            return Err(error);
        }
        checks::volume::description(&request.description)?;
        checks::volume::limits(request.limits)?;
        if let Some(gib) = request.size_gib {
            checks::volume::size(gib)?;
        }
        let sources = [
            request.image.is_some(),
            request.volume.is_some(),
            request.snapshot.is_some(),
        ];
        if sources.into_iter().filter(|given| *given).count() > 1 {
            let what = "give one of image, volume and snapshot";
            return Err(CloudError::field(FieldError::new(
                "image",
                "source.ambiguous",
                what,
            )));
        }
        if !matches!(request.format, None | Some(DiskFormat::Qcow2 | DiskFormat::Raw)) {
            let what = "a volume is qcow2 or raw";
            return Err(CloudError::field(FieldError::new(
                "format",
                "format.invalid",
                what,
            )));
        }
        let (request, name) = (&request, &name);
        let done = self
            .once(caller, "volumes.create", json!(request), || {
                async move { self.make_volume(caller, request, name).await }.boxed()
            })
            .await?;
        Ok(done.answer)
    }

    async fn make_volume(
        &self,
        caller: &Caller,
        request: &CreateVolume,
        name: &Name,
    ) -> Result<Change<VolumeTask>> {
        let made = self.volume_source(caller, request).await?;
        let pool = match &request.pool {
            Some(pool) => Pool::Shared {
                name: checks::volume::pool(pool)?,
            },
            None => Pool::Local,
        };
        let size_gib = request.size_gib.unwrap_or(made.least_gib.max(1));
        if size_gib < made.least_gib {
            let message = format!("its source takes {} GiB", made.least_gib);
            return Err(CloudError::field(FieldError::new(
                "size_gib",
                "size.too_small",
                message,
            )));
        }
        let beside = match request.server {
            Some(server) => {
                let server = self.own::<Server>(caller, "server:read", server.uuid()).await?;
                server.value.status.placement.map(|p| p.host)
            }
            None => None,
        };
        let host = match (made.host, beside) {
            (Some(source), Some(beside)) if source != beside && pool == Pool::Local => {
                return Err(conflict(
                    "volume.elsewhere",
                    "its source is on another host than the server",
                    "use a shared pool",
                ));
            }
            (source, beside) => source.or(beside),
        };
        let id = self.subject_id();
        let mut meta = Meta::new(id, name.clone(), caller.scope(), self.now());
        meta.labels = request.labels.clone();
        let mut volume = Volume {
            meta,
            spec: VolumeSpec {
                size_gib,
                format: request.format.unwrap_or(DiskFormat::Qcow2),
                source: made.source,
                pool,
                bootable: made.bootable,
                system: made.system,
                limits: checks::volume::limits(request.limits)?,
                description: request.description.clone(),
            },
            status: VolumeStatus::creating(),
        };
        let params = json!(VolumeCreateParams {
            from: made.from,
            host
        });
        let task = self.task(caller, "volume.create", &volume, params);
        volume.status.activity = activity(&task);
        let mut txn = create_resource(&volume)?;
        txn = match made.held {
            Held::Nothing => txn,
            Held::Image(guard) => txn.guard(guard),
            Held::Volume(found) => {
                let mut source = found.value.clone();
                source.status.activity = activity(&task);
                txn.and(found.replace(&source)?)
            }
            Held::Snapshot(found) => {
                let mut source = found.value.clone();
                source.status.activity = activity(&task);
                txn.and(found.replace(&source)?)
            }
        };
        let told = volume.meta.clone();
        let answer = VolumeTask {
            volume,
            task: task.clone(),
        };
        let change = Change::new(txn, answer)
            .task(task)
            .charge(amounts::of_volume(size_gib));
        Ok(change.told("volume:create", &told))
    }

    pub(super) async fn volume_source(&self, caller: &Caller, request: &CreateVolume) -> Result<Made> {
        if let Some(asked) = &request.image {
            let found = self.image_by_id_or_name(caller, asked).await?;
            let image = checks::found("image", "image", asked, found)?;
            checks::image::copyable(&image.value)?;
            return Ok(Made {
                from: VolumeFrom::Image {
                    image: base_image(&image.value)?,
                },
                source: VolumeSource::Image {
                    image: ImageRef {
                        id: image.value.id(),
                        name: image.value.meta.name.clone(),
                    },
                },
                least_gib: to_gib(image.value.status.virtual_size_bytes),
                bootable: true,
                system: Some(SystemOf {
                    image: ImageRef {
                        id: image.value.id(),
                        name: image.value.meta.name.clone(),
                    },
                    architecture: image.value.spec.architecture.clone(),
                }),
                host: None,
                held: Held::Image(image.unchanged()),
            });
        }
        if let Some(id) = request.volume {
            let found = self.own::<Volume>(caller, "volume:read", id.uuid()).await?;
            idle_volume(&found.value)?;
            if found.value.status.state != VolumeState::Available {
                let message = "only a volume that no server has is copied";
                return Err(conflict(
                    "volume.in_use",
                    message,
                    "detach it, or copy a snapshot of it",
                ));
            }
            return Ok(Made {
                from: VolumeFrom::Volume { volume: id },
                source: VolumeSource::Volume { volume: id },
                least_gib: found.value.spec.size_gib,
                bootable: found.value.spec.bootable,
                system: found.value.spec.system.clone(),
                host: found.value.status.host,
                held: Held::Volume(Box::new(found)),
            });
        }
        if let Some(id) = request.snapshot {
            return self.snapshot_source(caller, id, request.disk.as_deref()).await;
        }
        if request.size_gib.is_none() {
            let what = "say how large it is to be, or what it is a copy of";
            return Err(CloudError::field(FieldError::new(
                "size_gib",
                "size.missing",
                what,
            )));
        }
        Ok(Made {
            from: VolumeFrom::Zeroes,
            source: VolumeSource::Blank,
            least_gib: 0,
            bootable: false,
            system: None,
            host: None,
            held: Held::Nothing,
        })
    }

    /// The image that a server was made from, if it is still there.
    pub(super) async fn image_of(&self, caller: &Caller, server: &Server) -> Result<Option<Image>> {
        let id = server.spec.image.id.uuid();
        let own = self.resource::<Image>(caller.scope(), id).await?;
        let found = match own {
            Some(own) => Some(own),
            None => self.resource(Scope::System, id).await?,
        };
        Ok(found.map(|found| found.value))
    }

    async fn snapshot_source(&self, caller: &Caller, id: SnapshotId, disk: Option<&str>) -> Result<Made> {
        let found = self.own::<Snapshot>(caller, "snapshot:read", id.uuid()).await?;
        let snapshot = &found.value;
        if snapshot.status.state != SnapshotState::Available || snapshot.status.activity.is_some() {
            let message = "the snapshot is not available";
            return Err(conflict("snapshot.not_available", message, "wait for its task"));
        }
        let disks = &snapshot.status.disks;
        let chosen = match disk {
            Some(name) => disks.iter().find(|d| d.name == name),
            None => disks.iter().find(|d| d.volume.is_none()).or(disks.first()),
        };
        let Some(chosen) = chosen else {
            let names: Vec<&str> = disks.iter().map(|d| d.name.as_str()).collect();
            let message = format!("the snapshot has the disks {}", names.join(", "));
            return Err(CloudError::field(FieldError::new(
                "disk",
                "disk.not_found",
                message,
            )));
        };
        let (at, host, bootable, system) = match (chosen.volume, &snapshot.spec.of) {
            (Some(volume), _) => {
                let volume = self
                    .own::<Volume>(caller, "volume:read", volume.uuid())
                    .await?
                    .value;
                let at = DiskAt::Volume(VolumeAt {
                    volume: volume.id(),
                    pool: volume.spec.pool.clone(),
                });
                (at, volume.status.host, volume.spec.bootable, volume.spec.system)
            }
            (None, SnapshotOf::Server { server, .. }) => {
                let owner = self
                    .own::<Server>(caller, "server:read", server.uuid())
                    .await?
                    .value;
                let disk = chosen.name.clone();
                let at = DiskAt::Server {
                    server: *server,
                    disk,
                };
                let image = self.image_of(caller, &owner).await?;
                let system = image.map(|image| SystemOf {
                    image: owner.spec.image.clone(),
                    architecture: image.spec.architecture,
                });
                (at, owner.status.placement.map(|p| p.host), true, system)
            }
            (None, SnapshotOf::Volume { .. }) => {
                return Err(CloudError::internal("a volume's snapshot without its volume"));
            }
        };
        Ok(Made {
            from: VolumeFrom::Snapshot {
                snapshot: id,
                disk: at,
            },
            source: VolumeSource::Snapshot {
                snapshot: id,
                disk: chosen.name.clone(),
            },
            least_gib: to_gib(chosen.virtual_size_bytes),
            bootable,
            system,
            host,
            held: Held::Snapshot(Box::new(found)),
        })
    }
}
