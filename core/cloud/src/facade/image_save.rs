//! Images of disks: the record first, in the commit that makes the task; the host copies and sends.

use serde_json::json;
use skyloom_model::{
    Image, ImageSource, ImageSpec, ImageState, ImageStatus, Meta, Name, Server, ServerId, Volume,
};
use skyloom_store::{Txn, Versioned};

use super::Cloud;
use super::once::Change;
use super::records::create_resource;
use super::volume_create::Held;
use super::volumes::{activity, conflict, idle_volume, ready_server};
use crate::flows::{SaveOf, SaveParams, VolumeFrom};
use crate::jobs::keeps_snapshots;
use crate::{Caller, CloudError, CreateImage, CreateVolume, ImageAccepted, Result, amounts};

/// A disk that becomes an image, as it was found.
pub(super) struct Disk {
    of: SaveOf,
    source: ImageSource,
    pub(super) architecture: Option<String>,
    pub(super) held: Holder,
}

/// What is busy until the disk is copied.
pub(super) enum Holder {
    Server(Box<Versioned<Server>>),
    Source(Held),
}

impl Cloud {
    /// An image of a disk, and the task that copies it.
    pub(super) async fn save_image(
        &self,
        caller: &Caller,
        request: &CreateImage,
        name: &Name,
    ) -> Result<Change<ImageAccepted>> {
        let disk = match request.server {
            Some(server) => self.root_disk(caller, server).await?,
            None => self.copied_disk(caller, request).await?,
        };
        let mut meta = Meta::new(self.subject_id(), name.clone(), caller.scope(), self.now());
        meta.labels = request.labels.clone();
        let architecture = request.architecture.clone().or(disk.architecture);
        let image = Image {
            meta,
            spec: ImageSpec {
                format: request.format,
                source: disk.source,
                sha256: None,
                architecture: architecture.unwrap_or_else(|| "x86_64".to_owned()),
                min_disk_gib: request.min_disk_gib,
                min_memory_mib: request.min_memory_mib,
                public: false,
            },
            status: ImageStatus {
                state: ImageState::Saving,
                size_bytes: 0,
                virtual_size_bytes: 0,
                sha256: None,
                fault: None,
            },
        };
        let params = json!(SaveParams {
            upload: self.parts.ids.uuid(),
            format: request.format,
            of: disk.of,
        });
        let task = self.task(caller, "image.save", &image, params);
        let busy = match disk.held {
            Holder::Server(found) => {
                let mut server = found.value.clone();
                server.status.activity = activity(&task);
                found.replace(&server)?
            }
            Holder::Source(Held::Volume(found)) => {
                let mut volume = found.value.clone();
                volume.status.activity = activity(&task);
                found.replace(&volume)?
            }
            Holder::Source(Held::Snapshot(found)) => {
                let mut snapshot = found.value.clone();
                snapshot.status.activity = activity(&task);
                found.replace(&snapshot)?
            }
            Holder::Source(Held::Nothing | Held::Image(_)) => Txn::new(),
        };
        let txn = create_resource(&image)?.and(busy);
        let told = image.meta.clone();
        let answer = ImageAccepted {
            image,
            task: Some(task.clone()),
        };
        let change = Change::new(txn, answer).task(task).charge(amounts::of_image());
        Ok(change.told("image:create", &told))
    }

    /// The disk that a server's system is on.
    pub(super) async fn root_disk(&self, caller: &Caller, id: ServerId) -> Result<Disk> {
        let found = self.own::<Server>(caller, "server:read", id.uuid()).await?;
        ready_server(caller, &found.value)?;
        let mut architecture = None;
        if let Some(volume) = found.value.spec.boot_volume {
            let volume = self
                .own::<Volume>(caller, "volume:read", volume.uuid())
                .await?
                .value;
            idle_volume(&volume)?;
            if !keeps_snapshots(volume.spec.format) {
                let message = format!("the volume {} is raw and cannot be held still", volume.meta.name);
                let hint = "turn the server off, detach the volume and save that";
                return Err(conflict("snapshot.raw_volume", message, hint));
            }
            architecture = volume.spec.system.map(|system| system.architecture);
        } else if let Some(image) = self.image_of(caller, &found.value).await? {
            architecture = Some(image.spec.architecture);
        }
        Ok(Disk {
            of: SaveOf::Server { server: id },
            source: ImageSource::Server { server: id },
            architecture,
            held: Holder::Server(Box::new(found)),
        })
    }

    /// A volume that no server has, or a disk of a snapshot.
    async fn copied_disk(&self, caller: &Caller, request: &CreateImage) -> Result<Disk> {
        let wanted = CreateVolume {
            volume: request.volume,
            snapshot: request.snapshot,
            disk: request.disk.clone(),
            ..CreateVolume::default()
        };
        let made = self.volume_source(caller, &wanted).await?;
        let host = made.host.ok_or_else(|| {
            let hint = "look at its state and fault";
            conflict("volume.not_placed", "the disk is on no host", hint)
        })?;
        let source = match (&made.from, made.source) {
            (VolumeFrom::Volume { volume }, _) => ImageSource::Volume { volume: *volume },
            (_, skyloom_model::VolumeSource::Snapshot { snapshot, disk }) => {
                ImageSource::Snapshot { snapshot, disk }
            }
            _ => return Err(CloudError::internal("an image of what is no disk")),
        };
        Ok(Disk {
            of: SaveOf::Copy {
                from: made.from,
                host,
                size_gib: made.least_gib,
            },
            source,
            architecture: made.system.map(|system| system.architecture),
            held: Holder::Source(made.held),
        })
    }
}
