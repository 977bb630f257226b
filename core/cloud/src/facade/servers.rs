//! Servers: making them, looking at them.

use std::net::{IpAddr, Ipv4Addr};

use futures::FutureExt as _;
use serde_json::{Value as Json, json};
use skyloom_identity::{Amounts, Object};
use skyloom_model::{
    Activity, Flavor, FlavorRef, Image, ImageRef, Keypair, Lifecycle, MacAddr, Meta, NicKind, Port, PortSpec,
    PortStatus, PowerState, Resource as _, Scope, Secret, Server, ServerId, ServerSecrets, ServerSpec,
    ServerStatus, SystemOf, paths,
};
use skyloom_store::{Guard, Versioned};

use super::Cloud;
use super::once::Change;
use super::plugging::Plugging;
use super::records::{create, create_resource};
use super::server_clone::Origin;
use crate::checks::networks::Nic;
use crate::flows::{BaseImage, CreateParams, PortPlan};
use crate::{
    Caller, CloudError, CreateServer, ListQuery, Listed, Result, ServerAccepted, ShownOnce, amounts, checks,
    hash,
};

/// Most keypairs of one server.
const MAX_KEYPAIRS: usize = 16;

/// What was found of what a request names.
struct Chosen {
    /// None: it boots from a volume.
    image: Option<Versioned<Image>>,
    flavor: Flavor,
    ssh_keys: Vec<String>,
    /// The flavor and the keypairs as they were read.
    made_from: Vec<Guard>,
}

impl Cloud {
    /// Makes a server: the checks in their order, then server, ports, secrets and task in one commit.
    ///
    /// # Errors
    /// The codes of the checks; `auth.forbidden`.
    pub async fn create_server(&self, caller: &Caller, request: CreateServer) -> Result<ServerAccepted> {
        let place = caller.here()?;
        caller.may(
            "server:create",
            &Object::all("server", place).labelled(&request.labels),
        )?;
        let digest = digest(&request);
        let request = self.like(caller, request).await?;
        let config_drive = checks::server::config_drive(request.config_drive);
        if let Some(password) = &request.password {
            checks::password::given(password.expose())?;
        }
        check_format(&request, config_drive)?;
        checks::metadata::check(&request.metadata)?;
        checks::names::server(request.name.as_deref(), request.hostname.as_deref(), "server")?;
        let nics = checks::networks::check(request.networks.as_deref())?;
        let generated = match &request.password {
            None if config_drive => Some(checks::password::generate(&*self.parts.ids)),
            _ => None,
        };
        let password = request
            .password
            .clone()
            .or_else(|| generated.clone().map(Secret::new));
        let maker = match generated {
            Some(_) => hash::Maker::Chance,
            None => hash::Maker::Person,
        };
        let secrets = match password {
            Some(password) => Some(ServerSecrets {
                rescue_password_hash: None,
                password_hash: hash::crypt(password, maker, &*self.parts.ids).await?,
                user_data: request.user_data.clone(),
            }),
            None => None,
        };
        let (request, nics, secrets) = (&request, &nics, &secrets);
        let done = self
            .once(caller, "servers.create", digest, || {
                let (request, nics, secrets) = (request.clone(), nics.clone(), secrets.clone());
                async move {
                    self.make_server(caller, &request, &nics, secrets, config_drive)
                        .await
                }
                .boxed()
            })
            .await?;
        let shown = generated.filter(|_| done.fresh).map(ShownOnce::new);
        Ok(ServerAccepted {
            password: shown,
            ..done.answer
        })
    }

    async fn make_server(
        &self,
        caller: &Caller,
        request: &CreateServer,
        nics: &[Nic],
        secrets: Option<ServerSecrets>,
        config_drive: bool,
    ) -> Result<Change<ServerAccepted>> {
        let chosen = self.choose(caller, request).await?;
        if let Some(image) = &chosen.image {
            checks::image::usable(&image.value, &chosen.flavor.spec)?;
        }
        let id = ServerId::from_uuid(self.subject_id());
        let fallback = format!("server-{}", &id.uuid().simple().to_string()[24..]);
        let (name, hostname) =
            checks::names::server(request.name.as_deref(), request.hostname.as_deref(), &fallback)?;
        let mut plugging = Plugging::new(self, caller);
        let ports = self.make_ports(&mut plugging, caller.scope(), id, nics).await?;
        let start = request.start.unwrap_or(true);
        let volumes = self.server_volumes(caller, &request.volumes, id, &name).await?;
        let origin = match request.clone_of {
            Some(other) => Some(self.origin(caller, other, &chosen.flavor.spec).await?),
            None => None,
        };
        let ssh_keys = match &origin {
            Some(origin) if request.keypairs.is_empty() => origin.ssh_keys(),
            _ => chosen.ssh_keys,
        };
        let system = match (
            &chosen.image,
            volumes.system().or(origin.as_ref().map(Origin::system)),
        ) {
            (Some(image), _) => SystemOf {
                image: ImageRef {
                    id: image.value.id(),
                    name: image.value.meta.name.clone(),
                },
                architecture: image.value.spec.architecture.clone(),
            },
            (None, Some(system)) => system.clone(),
            (None, None) => return Err(CloudError::internal("a server of nothing")),
        };
        let mut meta = Meta::new(id.uuid(), name, caller.scope(), self.now());
        meta.labels = request.labels.clone();
        let mut server = Server {
            meta,
            spec: ServerSpec {
                flavor: FlavorRef {
                    id: chosen.flavor.id(),
                    name: chosen.flavor.meta.name.clone(),
                    spec: chosen.flavor.spec,
                },
                image: system.image,
                hostname,
                config_drive,
                ssh_keys,
                metadata: request.metadata.clone(),
                ports: ports.iter().map(|p| p.id()).collect(),
                host_labels: request.host_labels.clone(),
                anti_affinity_group: request.anti_affinity_group.clone(),
                boot_volume: volumes.boot(),
                running: start,
                on_crash: request.on_crash,
                rescue: None,
            },
            status: ServerStatus::new(Lifecycle::Building, PowerState::Unknown),
        };
        server.status.volumes = volumes.ids();
        let image = chosen
            .image
            .as_ref()
            .map(|image| base_image(&image.value))
            .transpose()?;
        let room = request
            .wait_for_room_seconds
            .map(|s| jiff::SignedDuration::from_secs(s.into()));
        let room_until = room.and_then(|room| self.now().checked_add(room).ok());
        let params = CreateParams {
            image,
            architecture: system.architecture,
            ports: plans(&ports),
            start,
            volumes: volumes.new_ones(),
            host: volumes.host(),
            pools: volumes.pools(),
            room_until,
        };
        let (flow, params) = match &origin {
            Some(origin) => ("server.clone", json!(origin.params(params))),
            None => ("server.create", json!(params)),
        };
        server.status.own_image = origin.as_ref().map(Origin::image);
        let task = self.task(caller, flow, &server, params);
        server.status.activity = Some(Activity {
            task: task.id,
            flow: task.flow.clone(),
        });
        let told = server.meta.clone();
        let mut txn = create_resource(&server)?.and(volumes.changes(&task)?);
        for port in ports.iter().filter(|port| port.spec.network.is_none()) {
            txn = txn.and(create_resource(port)?);
        }
        let mut of_origin = Amounts::new();
        if let Some(origin) = &origin {
            txn = txn.and(origin.changes(&task)?);
            of_origin = amounts::of_image();
        }
        let own = ports.iter().filter(|port| port.spec.network.is_none()).count();
        let (plugged, of_plugged) = plugging.finish()?;
        txn = txn.and(plugged);
        if let Some(secrets) = secrets {
            txn = txn.and(create(&paths::server_secrets(caller.project, id), &secrets)?);
        }
        let joined: Vec<_> = ports
            .iter()
            .flat_map(|port| port.spec.security_groups.iter().copied())
            .collect();
        if !joined.is_empty()
            && let Some(others) = self.rewire(caller, &server, &[], &joined, None).await?
        {
            txn = txn.and(self.submission(&others)?);
        }
        // The image must not be deleted between the check and the commit.
        let txn = match &chosen.image {
            Some(image) => txn.guard(image.unchanged()),
            None => txn,
        };
        let answer = ServerAccepted {
            server,
            task: task.clone(),
            password: None,
        };
        let amounts = amounts::of_server(&answer.server)
            .plus(&amounts::of_ports(own))
            .plus(&of_plugged)
            .plus(&of_origin)
            .plus(&volumes.amounts());
        let change = Change::new(txn, answer)
            .task(task)
            .made_from(chosen.made_from)
            .charge(amounts);
        Ok(change.told("server:create", &told))
    }

    /// Looks up what the request names.
    async fn choose(&self, caller: &Caller, request: &CreateServer) -> Result<Chosen> {
        let (ssh_keys, mut made_from) = self.keys(caller, &request.keypairs).await?;
        let found = self
            .by_id_or_name::<Flavor>(Scope::System, &request.flavor)
            .await?
            .filter(|f| caller.may_to("flavor:read", &f.value.meta).is_ok());
        let flavor = checks::found("flavor", "flavor", &request.flavor, found)?;
        made_from.push(flavor.unchanged());
        let image = match request.image.as_str() {
            "" => None,
            asked => {
                let found = self.image_by_id_or_name(caller, asked).await?;
                Some(checks::found("image", "image", asked, found)?)
            }
        };
        Ok(Chosen {
            image,
            flavor: flavor.value,
            ssh_keys,
            made_from,
        })
    }

    /// The public keys of keypairs, and what they were made from.
    pub(super) async fn keys(
        &self,
        caller: &Caller,
        keypairs: &[String],
    ) -> Result<(Vec<String>, Vec<Guard>)> {
        let (mut ssh_keys, mut made_from) = (Vec::new(), Vec::new());
        for (i, asked) in keypairs.iter().enumerate() {
            let found = self.by_id_or_name::<Keypair>(caller.scope(), asked).await?;
            let found = found.filter(|k| caller.may_to("keypair:read", &k.value.meta).is_ok());
            let keypair = checks::found(&format!("keypairs[{i}]"), "keypair", asked, found)?;
            made_from.push(keypair.unchanged());
            ssh_keys.push(keypair.value.spec.public_key);
        }
        Ok((ssh_keys, made_from))
    }

    /// The ports of a new server. On QEMU's user network each NIC has a network of its own, all alike; different
    /// addresses keep them apart inside the guest, and only the first has a gateway.
    async fn make_ports(
        &self,
        plugging: &mut Plugging<'_>,
        scope: Scope,
        server: ServerId,
        nics: &[Nic],
    ) -> Result<Vec<Port>> {
        let mut ports: Vec<Port> = Vec::with_capacity(nics.len());
        for (i, nic) in nics.iter().enumerate() {
            let name = format!("eth{i}")
                .try_into()
                .map_err(|e| CloudError::internal(format!("port name {e}")))?;
            let at = format!("networks[{i}].");
            match nic {
                Nic::User => {}
                Nic::New(asked) => {
                    ports.push(plugging.port(&at, asked, Some(name), Some(server)).await?);
                    continue;
                }
                Nic::Port(port) => {
                    ports.push(plugging.adopt(&at, *port, server).await?);
                    continue;
                }
            }
            let host = u8::try_from(i)
                .ok()
                .and_then(|i| i.checked_add(15))
                .unwrap_or(u8::MAX);
            let mut tail = [0; 3];
            self.parts.ids.random(&mut tail);
            while ports.iter().any(|p| p.spec.mac == MacAddr::qemu(tail)) {
                self.parts.ids.random(&mut tail);
            }
            let ip = |last| IpAddr::V4(Ipv4Addr::new(10, 0, 2, last));
            ports.push(Port {
                meta: Meta::new(self.parts.ids.uuid(), name, scope, self.now()),
                spec: PortSpec {
                    server: Some(server),
                    goes_with_server: true,
                    network: None,
                    subnet: None,
                    security_groups: Vec::new(),
                    kind: NicKind::User,
                    mac: MacAddr::qemu(tail),
                    address: ip(host),
                    prefix_len: 24,
                    gateway: (i == 0).then(|| ip(2)),
                    dns: if i == 0 { vec![ip(3)] } else { Vec::new() },
                },
                status: PortStatus { bound: false },
            });
        }
        Ok(ports)
    }

    /// A page of the project's servers.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`, `label.invalid`.
    pub async fn list_servers(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Server>> {
        self.list_resources(caller, "server:read", &[caller.scope()], query)
            .await
    }

    /// One server.
    ///
    /// # Errors
    /// `server.not_found`.
    pub async fn get_server(&self, caller: &Caller, id: ServerId) -> Result<Versioned<Server>> {
        self.own(caller, "server:read", id.uuid()).await
    }
}

/// The ports as the guest is told of them. Only the first is its way out.
pub(super) fn plans(ports: &[Port]) -> Vec<PortPlan> {
    let mut plans: Vec<PortPlan> = ports.iter().map(PortPlan::of).collect();
    plans.iter_mut().skip(1).for_each(|plan| plan.gateway = None);
    plans
}

/// Fields that are wrong by themselves, all at once.
fn check_format(request: &CreateServer, config_drive: bool) -> Result<()> {
    let mut errors = checks::text::labels("labels", &request.labels);
    errors.extend(checks::text::labels("host_labels", &request.host_labels));
    errors.extend(checks::server::group(request.anti_affinity_group.as_deref()));
    errors.extend(checks::server::wait_for_room(request.wait_for_room_seconds));
    errors.extend(checks::server::user_data(request.user_data.as_deref()));
    let (user_data, keys) = (request.user_data.is_some(), !request.keypairs.is_empty());
    errors.extend(checks::server::disk_needs_seed(
        config_drive,
        user_data,
        keys,
        request.password.is_some(),
    ));
    errors.extend(checks::volume::of_server(&request.volumes));
    let cloned = request.clone_of.is_some();
    if cloned && request.wait_for_room_seconds.is_some() {
        let what = "a clone does not wait for room";
        errors.push(crate::FieldError::new(
            "wait_for_room_seconds",
            "clone.cannot_wait",
            what,
        ));
    }
    let boots = request.volumes.iter().any(|volume| volume.boot);
    if cloned && (boots || !request.image.is_empty()) {
        let what = "it is made of another server's disk: of no image, and it boots from no volume";
        errors.push(crate::FieldError::new("clone_of", "clone.ambiguous", what));
    }
    let boots = boots || cloned;
    if boots && !cloned && !request.image.is_empty() {
        let what = "it boots from a volume: it has no root disk of an image";
        errors.push(crate::FieldError::new("image", "boot.ambiguous", what));
    }
    for (field, text) in [("image", &request.image), ("flavor", &request.flavor)] {
        if boots && field == "image" {
            continue;
        }
        if text.is_empty() || text.len() > 255 {
            let code = format!("{field}.invalid");
            errors.push(crate::FieldError::new(
                field,
                &code,
                "give an id or a name of 1 to 255 bytes",
            ));
        }
    }
    if request.keypairs.len() > MAX_KEYPAIRS {
        let message = format!("at most {MAX_KEYPAIRS} keypairs");
        errors.push(crate::FieldError::new("keypairs", "keypair.too_many", message));
    }
    CloudError::fields(errors).map_or(Ok(()), Err)
}

/// What tells this request from others. Of the password only whether there is one: no hash of it is kept but the
/// slow, salted one.
fn digest(request: &CreateServer) -> Json {
    let CreateServer {
        name,
        hostname,
        image,
        clone_of,
        flavor,
        keypairs,
        config_drive,
        password,
        user_data,
        metadata,
        networks,
        volumes,
        labels,
        host_labels,
        anti_affinity_group,
        start,
        on_crash,
        wait_for_room_seconds,
    } = request;
    json!({
        "name": name, "hostname": hostname, "image": image, "flavor": flavor, "keypairs": keypairs,
        "config_drive": config_drive, "password": password.is_some(), "user_data": user_data, "metadata": metadata,
        "networks": networks, "volumes": volumes, "labels": labels, "host_labels": host_labels,
        "anti_affinity_group": anti_affinity_group, "start": start, "on_crash": on_crash,
        "wait_for_room_seconds": wait_for_room_seconds, "clone_of": clone_of,
    })
}

pub(super) fn base_image(image: &Image) -> Result<BaseImage> {
    BaseImage::of(image).ok_or_else(|| CloudError::internal("an active image without a measured SHA-256"))
}
