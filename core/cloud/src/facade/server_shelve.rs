//! Servers that are put away as images, and made again.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_model::{
    Activity, DiskFormat, Image, ImageSource, ImageSpec, ImageState, ImageStatus, MAX_NAME_LEN, Meta, Name,
    Pool, Port, Reason, Resource as _, Server, ServerAction, ServerId, Volume,
};

use super::Cloud;
use super::once::Change;
use super::records::create_resource;
use super::servers::{base_image, plans};
use crate::flows::{CreateParams, KeepParams, SaveOf, SaveParams, ShelveParams, StopParams, pool_label};
use crate::{Caller, CloudError, Result, ServerTask, StopOptions, amounts, checks};

impl Cloud {
    /// Turns a server off and keeps its root disk as an image; its host is given back then.
    ///
    /// # Errors
    /// As [`Cloud::simple_action`]; `server.has_snapshots`, `server.tidying`, `quota.exceeded`, `timeout.invalid`.
    pub async fn shelve_server(
        &self,
        caller: &Caller,
        id: ServerId,
        options: StopOptions,
    ) -> Result<ServerTask> {
        let def = ServerAction::Shelve.def();
        let stop = StopParams {
            force: options.force,
            timeout_seconds: checks::server::stop_timeout(options.timeout_seconds)?,
        };
        let done = self
            .once(caller, def.name, json!([id, options]), || {
                async move {
                    let found = self.askable(caller, id, def.action).await?;
                    self.no_snapshots(caller, &found.value).await?;
                    if found.value.status.own_image.is_some() {
                        let message = "the image that it was shelved as before is not deleted yet";
                        let reason = Reason::new("server.tidying", message).retryable();
                        return Err(CloudError::conflict(reason.hint("ask again in a moment")));
                    }
                    let mut server = found.value.clone();
                    let image = match server.spec.boot_volume {
                        Some(_) => None,
                        None => Some(self.disk_image(caller, &server, "-shelved").await?),
                    };
                    let keep = image.as_ref().map(|image| self.keep(image, id));
                    let task = self.task(caller, def.name, &server, json!(ShelveParams { keep, stop }));
                    server.status.activity = Some(Activity {
                        task: task.id,
                        flow: task.flow.clone(),
                    });
                    server.spec.running = false;
                    server.meta.updated_at = self.now();
                    let mut txn = found.replace(&server)?;
                    if let Some(image) = &image {
                        txn = txn.and(create_resource(image)?);
                    }
                    let answer = ServerTask {
                        server,
                        task: task.clone(),
                    };
                    let change = Change::new(txn, answer)
                        .task(task)
                        .told(def.permission, &found.value.meta);
                    Ok(match image {
                        Some(_) => change.charge(amounts::of_image()),
                        None => change,
                    })
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// Makes a shelved server again, on the host that is best for it now, and turns it on.
    ///
    /// # Errors
    /// As [`Cloud::simple_action`]; `server.offloading`, `server.lost_image`, `volume.elsewhere`.
    pub async fn unshelve_server(&self, caller: &Caller, id: ServerId) -> Result<ServerTask> {
        let def = ServerAction::Unshelve.def();
        let done = self
            .once(caller, def.name, json!([id]), || {
                async move {
                    let found = self.askable(caller, id, def.action).await?;
                    let mut server = found.value.clone();
                    let params = self.made_again(&server).await?;
                    let task = self.task(caller, def.name, &server, json!(params));
                    server.status.activity = Some(Activity {
                        task: task.id,
                        flow: task.flow.clone(),
                    });
                    server.spec.running = true;
                    server.meta.updated_at = self.now();
                    let txn = found.replace(&server)?;
                    let answer = ServerTask {
                        server,
                        task: task.clone(),
                    };
                    Ok(Change::new(txn, answer)
                        .task(task)
                        .told(def.permission, &found.value.meta))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// How a server's root disk becomes an image.
    pub(super) fn keep(&self, image: &Image, of: ServerId) -> KeepParams {
        KeepParams {
            image: image.id(),
            save: SaveParams {
                upload: self.parts.ids.uuid(),
                format: image.spec.format,
                of: SaveOf::Server { server: of },
            },
        }
    }

    /// The record of the image that a server's root disk becomes, named after the server with `end` behind.
    pub(super) async fn disk_image(&self, caller: &Caller, server: &Server, end: &str) -> Result<Image> {
        let name = server.meta.name.as_str();
        let name = &name[..name.floor_char_boundary(MAX_NAME_LEN - end.len())];
        let name = Name::new(format!("{name}{end}"))
            .map_err(|e| CloudError::internal(format!("the name of an image: {e}")))?;
        Ok(Image {
            meta: Meta::new(self.parts.ids.uuid(), name, caller.scope(), self.now()),
            spec: ImageSpec {
                format: DiskFormat::Qcow2,
                source: ImageSource::Server { server: server.id() },
                sha256: None,
                architecture: self.architecture_of(server).await?,
                min_disk_gib: 0,
                min_memory_mib: 0,
                public: false,
            },
            status: ImageStatus {
                state: ImageState::Saving,
                size_bytes: 0,
                virtual_size_bytes: 0,
                sha256: None,
                fault: None,
            },
        })
    }

    /// What a server is made of that is made again: its image, ports and volumes. All are its own and stay as they are meanwhile.
    async fn made_again(&self, server: &Server) -> Result<CreateParams> {
        let (scope, lost) = (server.meta.scope, CloudError::conflict);
        let image = match server.status.own_image {
            Some(id) => {
                let image = self.resource::<Image>(scope, id.uuid()).await?;
                let image = image.ok_or_else(|| {
                    let message = "the image that it was shelved as is gone";
                    lost(Reason::new("server.lost_image", message).hint("delete it: nothing of it is left"))
                })?;
                Some(image.value)
            }
            None => None,
        };
        let mut params = CreateParams {
            image: image.as_ref().map(base_image).transpose()?,
            architecture: image.map(|image| image.spec.architecture).unwrap_or_default(),
            ports: Vec::new(),
            start: true,
            volumes: Vec::new(),
            host: None,
            pools: Vec::new(),
            room_until: None,
        };
        for id in &server.status.volumes {
            let Some(volume) = self.resource::<Volume>(scope, id.uuid()).await? else {
                continue;
            };
            let volume = volume.value;
            match &volume.spec.pool {
                Pool::Local => params.host = volume.status.host,
                Pool::Shared { name } => params.pools.push(pool_label(name.as_str())),
            }
            let system = volume
                .spec
                .system
                .filter(|_| server.spec.boot_volume == Some(*id));
            if let Some(system) = system {
                params.architecture = system.architecture;
            }
        }
        let mut ports: Vec<Port> = Vec::with_capacity(server.spec.ports.len());
        for id in &server.spec.ports {
            let port = self.resource::<Port>(scope, id.uuid()).await?;
            ports.extend(port.map(|port| port.value));
        }
        params.ports = plans(&ports);
        Ok(params)
    }
}
