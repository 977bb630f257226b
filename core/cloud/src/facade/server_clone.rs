//! Servers that are made after others: what is copied, and what is taken over.

use skyloom_model::{
    FlavorSpec, Image, ImageId, OnCrash, Port, Resource as _, Server, ServerId, SystemOf, Task, Volume,
};
use skyloom_store::{Txn, Versioned};

use super::Cloud;
use super::image_save::{Disk, Holder};
use super::records::create_resource;
use super::volumes::activity;
use crate::flows::{CloneParams, CreateParams, KeepParams};
use crate::{Caller, CloudError, CreateServer, FieldError, NetworkRequest, Result};

/// The server that another is made after, and the image that its root disk becomes on the way.
pub(super) struct Origin {
    found: Box<Versioned<Server>>,
    image: Image,
    keep: KeepParams,
    system: SystemOf,
}

impl Origin {
    pub(super) fn image(&self) -> ImageId {
        self.image.id()
    }
    pub(super) fn system(&self) -> &SystemOf {
        &self.system
    }
    pub(super) fn ssh_keys(&self) -> Vec<String> {
        self.found.value.spec.ssh_keys.clone()
    }
    pub(super) fn params(&self, create: CreateParams) -> CloneParams {
        CloneParams {
            create,
            keep: self.keep.clone(),
        }
    }

    /// What the commit that makes `task` says of it: it is busy meanwhile.
    pub(super) fn changes(&self, task: &Task) -> Result<Txn> {
        let mut server = self.found.value.clone();
        server.status.activity = activity(task);
        let busy: Txn = self.found.replace(&server)?;
        Ok(busy.and(create_resource(&self.image)?))
    }
}

impl Cloud {
    /// The request; of a clone, with all that it leaves open as the other server has it.
    pub(super) async fn like(&self, caller: &Caller, mut request: CreateServer) -> Result<CreateServer> {
        let Some(other) = request.clone_of else {
            return Ok(request);
        };
        let other = self
            .own::<Server>(caller, "server:read", other.uuid())
            .await?
            .value;
        let spec = &other.spec;
        if request.flavor.is_empty() {
            request.flavor = spec.flavor.id.to_string();
        }
        if request.networks.is_none() {
            request.networks = Some(self.nics_like(&other).await?);
        }
        if request.metadata.is_empty() {
            request.metadata = spec.metadata.clone();
        }
        if request.labels.is_empty() {
            request.labels = other.meta.labels.clone();
        }
        if request.host_labels.is_empty() {
            request.host_labels = spec.host_labels.clone();
        }
        if request.on_crash == OnCrash::default() {
            request.on_crash = spec.on_crash;
        }
        request.config_drive = request.config_drive.or(Some(spec.config_drive));
        let group = request.anti_affinity_group.take();
        request.anti_affinity_group = group.or_else(|| spec.anti_affinity_group.clone());
        Ok(request)
    }

    /// NICs in the networks of a server, with other addresses.
    async fn nics_like(&self, server: &Server) -> Result<Vec<NetworkRequest>> {
        let mut nics = Vec::with_capacity(server.spec.ports.len());
        for id in &server.spec.ports {
            let Some(port) = self.resource::<Port>(server.meta.scope, id.uuid()).await? else {
                continue;
            };
            let spec = port.value.spec;
            nics.push(NetworkRequest {
                security_groups: spec
                    .network
                    .map(|_| spec.security_groups.iter().map(ToString::to_string).collect()),
                subnet: spec.subnet.filter(|_| spec.network.is_some()),
                network: spec.network.map(|network| network.to_string()),
                ..NetworkRequest::default()
            });
        }
        Ok(nics)
    }

    /// Looks at the server that another of `flavor` is made after.
    pub(super) async fn origin(
        &self,
        caller: &Caller,
        other: ServerId,
        flavor: &FlavorSpec,
    ) -> Result<Origin> {
        let Disk {
            held, architecture, ..
        } = self.root_disk(caller, other).await?;
        let Holder::Server(found) = held else {
            return Err(CloudError::internal("a clone of what is no server"));
        };
        let server = &found.value;
        let has = match server.spec.boot_volume {
            Some(id) => self.resource::<Volume>(server.meta.scope, id.uuid()).await?,
            None => None,
        };
        let has = has.map_or(server.spec.flavor.spec.resources.disk_gib, |v| {
            v.value.spec.size_gib
        });
        let gets = flavor.resources.disk_gib;
        if gets < has {
            let message = format!("the disk that is copied has {has} GiB, the flavor {gets}");
            let error = FieldError::new("flavor", "flavor.disk_smaller", message);
            return Err(CloudError::field(error));
        }
        let image = self.disk_image(caller, server, "-cloned").await?;
        Ok(Origin {
            keep: self.keep(&image, other),
            system: SystemOf {
                image: server.spec.image.clone(),
                architecture: architecture.unwrap_or_else(|| image.spec.architecture.clone()),
            },
            image,
            found,
        })
    }
}
