//! Clouds in memory to torture flows in.

mod cases;
mod checks;
mod moving;
mod planting;
mod ports;
mod resizing;
mod shelving;
mod volumes;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use skyloom_cloud::{
    AddRule, Caller, CreateImage, CreateServer, DeleteServer, EngineParts, RebuildServer, SetServerKeys,
    SetServerPassword, StartRescue, StopOptions, Suspects, SweepHost, cloud_flows, engine_jobs,
};
use skyloom_flow::harness::{self, Arena, Case, Digest};
use skyloom_flow::{Companion, FlowRegistry, JobRegistry};
use skyloom_hypervisor::{EffectKind, FakeWorld};
use skyloom_image::Limits;
use skyloom_model::action::ACTIONS;
use skyloom_model::{
    Clock, Direction, DiskFormat, HostId, Ids, ImageId, ManualClock, OrderVerb, PortId, PowerState, Protocol,
    Resource as _, Server, ServerAction, ServerId, SnapshotId, Task, TaskId, TaskState, VolumeId,
};
use skyloom_scheduler::{FleetScheduler, Scheduler};
use skyloom_store::{DynBackend, MemoryConfig, MemoryStore};

use self::cases::CASES;
use self::moving::{fenced, unnumbered};
use self::witness::Witness;
use crate::engine::{Engine, FixedFetch, active_image};
use crate::networked::{in_network, networked, under_way};
use crate::networks::rule;
use crate::world::{DISK, World, bytes, image, jobs_of, server};

/// Clouds over memory stores with fake hosts.
#[derive(Debug)]
pub(crate) struct Clouds;

#[async_trait]
impl Arena for Clouds {
    fn cases(&self) -> Vec<Case> {
        CASES.to_vec()
    }

    async fn world(&self, case: &Case, clock: Arc<dyn Clock>) -> Arc<dyn harness::World> {
        let store: DynBackend = Arc::new(MemoryStore::new(clock, MemoryConfig::default()));
        let mut world = World::over(store, ManualClock::new());
        let admin = world.admin().await;
        let caller = world.member(&admin, "shop").await;
        let moves = case.flow.ends_with("migrate") || fenced(case);
        if moves {
            world.share_disks();
        }
        world.host(&admin, "h1").await;
        if moves || case.name.contains("two hosts") {
            world.host(&admin, "h2").await;
        }
        let mut cloud = CloudWorld {
            image: active_image(&world, &caller).await,
            case: *case,
            world,
            admin,
            caller,
            server: None,
            planted: None,
            volume: None,
            snapshot: None,
            port: None,
        };
        cloud.prepare().await;
        Arc::new(cloud)
    }
}

struct CloudWorld {
    world: World,
    case: Case,
    admin: Caller,
    caller: Caller,
    image: ImageId,
    server: Option<ServerId>,
    volume: Option<VolumeId>,
    snapshot: Option<SnapshotId>,
    port: Option<PortId>,
    /// What was put where it belongs to nobody.
    planted: Planted,
}

/// A host, and whose things or claims are on it although they live elsewhere or are gone.
type Planted = Option<(HostId, BTreeSet<ServerId>)>;

impl fmt::Debug for CloudWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a cloud for {}", self.case)
    }
}

impl CloudWorld {
    /// What the case is about, if it is there before.
    async fn prepare(&mut self) {
        let mut request = CreateServer {
            config_drive: Some(self.case.flow.starts_with("server.set-")),
            start: Some(!self.case.name.contains("that is off")),
            ..server("old", self.image)
        };
        if self.case.name.contains("boots from a volume") {
            self.with_volumes(&mut request);
        }
        if self.case.name == "that boots from one of its volumes" {
            self.volume = Some(self.volume_for("old", None).await);
        }
        let wanted = match (self.case.flow, self.case.name) {
            ("server.create" | "image.import", _) | ("image.delete", "of an active one") => return,
            ("server.delete", "of one that was never placed") => {
                request.host_labels = [("rack".to_owned(), "none has it".to_owned())].into();
                TaskState::Failed
            }
            _ => TaskState::Done,
        };
        if self.case.flow.contains("port") {
            networked(&mut self.world, &self.admin).await;
            self.prepare_network().await;
            request.networks = Some(vec![in_network()]);
        }
        let made = self
            .world
            .cloud
            .create_server(&self.caller, request)
            .await
            .unwrap();
        let ended = Engine::new(&self.world).await.carry(&made.task).await;
        assert_eq!(ended.state, wanted, "{:?}", ended.reason);
        self.server = Some(made.server.id());
        if self.case.name == "of one that was rebuilt" {
            let asked = self.rebuild(made.server.id()).await;
            let ended = Engine::new(&self.world).await.carry(&asked).await;
            assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
        }
        let before = match self.case.name {
            "of one that is paused" => Some(ServerAction::Pause),
            "of one that is suspended" => Some(ServerAction::Suspend),
            _ => None,
        };
        if let Some(action) = before {
            let cloud = &self.world.cloud;
            let asked = cloud.simple_action(&self.caller, made.server.id(), action).await;
            let ended = Engine::new(&self.world).await.carry(&asked.unwrap().task).await;
            assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
        }
        if self.case.flow == "server.stop-rescue" {
            let rescue = self.rescue();
            let asked = self
                .world
                .cloud
                .start_rescue(&self.caller, made.server.id(), rescue)
                .await;
            let ended = Engine::new(&self.world).await.carry(&asked.unwrap().task).await;
            assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
        }
        self.prepare_resize(made.server.id()).await;
        self.prepare_shelf(made.server.id()).await;
        self.prepare_fence(made.server.id()).await;
        self.prepare_volumes(made.server.id()).await;
        self.prepare_ports(made.server.id()).await;
        // As the agents have reported by now.
        for host in self.world.hosts.keys() {
            let seen = self.witness(*host).look(made.server.id()).await;
            self.world.store.commit(seen).await.unwrap();
        }
        match self.case.flow {
            "host.sweep" => self.plant_things(made.server.id()).await,
            "claim.release" => self.plant_claim(made.server.id()).await,
            _ => {}
        }
    }

    /// Over the image that is there, with a guest that is asked first.
    fn rescue(&self) -> StartRescue {
        StartRescue {
            image: Some(self.image.to_string()),
            timeout_seconds: Some(5),
            ..StartRescue::default()
        }
    }

    async fn rebuild(&self, id: ServerId) -> Task {
        let quick = RebuildServer {
            timeout_seconds: Some(5),
            ..RebuildServer::default()
        };
        let asked = self.world.cloud.rebuild_server(&self.caller, id, quick).await;
        asked.unwrap().task
    }

    /// Whoever may see to the cloud's own tasks and to those of the project.
    fn operator(&self) -> Caller {
        Caller {
            project: self.caller.project,
            ..self.admin.clone()
        }
    }

    fn witness(&self, host: HostId) -> Witness {
        Witness {
            host,
            fake: self.world.hosts[&host].fake.clone(),
            project: self.caller.project,
        }
    }

    fn hosts(&self) -> impl Iterator<Item = (HostId, &FakeWorld)> {
        self.world.hosts.iter().map(|(id, host)| (*id, &host.fake))
    }

    async fn all<T: DeserializeOwned>(&self, below: &str) -> BTreeMap<String, T> {
        let documents = self.world.documents(below).await;
        documents
            .into_iter()
            .map(|(key, text)| (key, serde_json::from_str(&text).unwrap()))
            .collect()
    }

    async fn servers(&self) -> BTreeMap<ServerId, Server> {
        self.all::<Server>("r/servers")
            .await
            .into_values()
            .map(|s| (s.id(), s))
            .collect()
    }

    /// The servers that a host's pool holds anything of, with the names of their disks.
    fn disks(fake: &FakeWorld) -> BTreeMap<ServerId, BTreeSet<String>> {
        let mut all: BTreeMap<ServerId, BTreeSet<String>> = BTreeMap::new();
        for path in fake.storage().contents().unwrap() {
            let parts: Vec<&str> = path.iter().map(|p| p.to_str().unwrap()).collect();
            if let [.., "disks", server, disk] = parts[..] {
                all.entry(server.parse().unwrap())
                    .or_default()
                    .insert(disk.to_owned());
            }
        }
        all
    }
}

#[async_trait]
impl harness::World for CloudWorld {
    fn backend(&self) -> DynBackend {
        self.world.store.clone()
    }
    fn flows(&self) -> FlowRegistry {
        cloud_flows()
    }
    fn engine_jobs(&self) -> JobRegistry {
        engine_jobs(&EngineParts {
            images: self.world.repo.clone(),
            fetch: Arc::new(FixedFetch(Ok(DISK))),
            limits: Limits {
                allow_any_raw: true,
                ..Limits::default()
            },
        })
    }
    fn hosts(&self) -> Vec<HostId> {
        self.world.hosts.keys().copied().collect()
    }
    fn host_jobs(&self, host: HostId, backend: DynBackend) -> JobRegistry {
        let fake = &self.world.hosts[&host].fake;
        jobs_of(host, fake, self.world.pool(fake), &self.world.repo, backend)
    }
    fn companion(&self, host: HostId) -> Option<Arc<dyn Companion>> {
        Some(Arc::new(self.witness(host)))
    }
    fn scheduler(&self) -> Arc<dyn Scheduler> {
        Arc::new(FleetScheduler::default())
    }
    fn ids(&self) -> Arc<dyn Ids> {
        self.world.ids.clone()
    }

    async fn ask(&self) -> Task {
        let (cloud, caller) = (&self.world.cloud, &self.caller);
        let stop = StopOptions {
            force: self.case.name == "by force",
            timeout_seconds: Some(5),
        };
        let old = || self.server.unwrap();
        match (self.case.flow, self.case.name) {
            ("server.create", name) => {
                let drive = name.contains("config drive");
                let mut request = CreateServer {
                    config_drive: Some(drive),
                    start: Some(drive),
                    anti_affinity_group: Some("g".to_owned()),
                    ..server("new", self.image)
                };
                self.with_volumes(&mut request);
                cloud.create_server(caller, request).await.unwrap().task
            }
            ("server.start", _) => cloud.start_server(caller, old()).await.unwrap().task,
            ("server.stop", _) => cloud.stop_server(caller, old(), stop).await.unwrap().task,
            ("server.reboot", "by force") => {
                let asked = cloud.simple_action(caller, old(), ServerAction::HardReboot).await;
                asked.unwrap().task
            }
            (
                "server.pause" | "server.unpause" | "server.suspend" | "server.resume" | "server.reset-state",
                _,
            ) => {
                let def = ACTIONS.iter().find(|def| def.name == self.case.flow).unwrap();
                let by = if self.case.flow == "server.reset-state" {
                    &self.operator()
                } else {
                    caller
                };
                let asked = cloud.simple_action(by, old(), def.action).await;
                asked.unwrap().task
            }
            ("server.set-password", _) => {
                let asked = cloud
                    .set_server_password(caller, old(), SetServerPassword::default())
                    .await;
                asked.unwrap().task
            }
            ("server.set-keys", _) => {
                let asked = cloud
                    .set_server_keys(caller, old(), SetServerKeys::default())
                    .await;
                asked.unwrap().task
            }
            ("server.rebuild", _) => self.rebuild(old()).await,
            ("server.tidy", _) => {
                let mut suspects = Suspects::default();
                assert_eq!(cloud.reconcile(&mut suspects).await.unwrap().spare, 1);
                let activity = self.servers().await[&old()].status.activity.clone().unwrap();
                cloud.get_task(caller, activity.task).await.unwrap().value
            }
            ("server.recycle", _) => {
                let keep = DeleteServer { keep_hours: Some(1) };
                cloud.remove_server(caller, old(), keep).await.unwrap().task
            }
            ("server.start-rescue", _) => {
                let asked = cloud.start_rescue(caller, old(), self.rescue()).await;
                asked.unwrap().task
            }
            ("server.resize" | "server.confirm-resize" | "server.revert-resize", _) => {
                self.ask_of_resize(old()).await
            }
            ("server.attach-port" | "server.detach-port", _) => self.ask_of_ports(old()).await,
            ("server.migrate" | "server.live-migrate" | "server.evacuate", _) => {
                self.ask_to_move(old()).await
            }
            ("server.clone" | "server.shelve" | "server.offload" | "server.unshelve", _) => {
                self.ask_of_shelves(old()).await
            }
            ("server.stop-rescue", _) => cloud.stop_rescue(caller, old(), stop).await.unwrap().task,
            ("server.reboot", _) => cloud.reboot_server(caller, old(), stop).await.unwrap().task,
            ("server.delete", _) => cloud.delete_server(caller, old()).await.unwrap().task,
            ("image.import", "of what is fetched") => {
                let mut request = image("new");
                request.url = Some("https://example.org/i".to_owned());
                cloud.create_image(caller, request).await.unwrap().task.unwrap()
            }
            ("image.import", _) => {
                let made = cloud.create_image(caller, image("new")).await.unwrap();
                let sent = cloud
                    .upload_image(caller, made.image.id(), bytes(DISK), None)
                    .await;
                sent.unwrap().task.unwrap()
            }
            ("image.save", name) => {
                let request = CreateImage {
                    server: self.server.filter(|_| name.contains("a server")),
                    volume: self.volume.filter(|_| name == "of a volume"),
                    snapshot: self.snapshot,
                    ..CreateImage::new("saved", DiskFormat::Raw)
                };
                cloud.create_image(caller, request).await.unwrap().task.unwrap()
            }
            ("image.delete", _) => cloud
                .delete_image(caller, self.image)
                .await
                .unwrap()
                .task
                .unwrap(),
            ("host.sweep", name) => {
                let host = self.planted.as_ref().unwrap().0;
                let remove = name.contains("removes");
                let sweep = cloud.sweep_host(&self.admin, host, SweepHost { remove });
                sweep.await.unwrap().task
            }
            ("claim.release", _) => self.release().await,
            ("port.rewire", _) => {
                let port = self.servers().await[&old()].spec.ports[0];
                let port = cloud.get_port(caller, port).await.unwrap().value;
                let at = 1000 + self.world.documents("tasks").await.len() as u16;
                let asked = AddRule {
                    protocol: Some(Protocol::Tcp),
                    port_min: Some(at),
                    port_max: Some(at),
                    ..rule(Direction::Ingress)
                };
                cloud
                    .add_rule(caller, port.spec.security_groups[0], asked)
                    .await
                    .unwrap();
                under_way(&self.world, "port.rewire").await.remove(0)
            }
            (flow, name) if flow.starts_with("volume.") || flow.starts_with("snapshot.") => {
                self.ask_of_volumes(flow, name).await
            }
            (flow, _) => panic!("nobody asks for {flow}"),
        }
    }

    async fn ask_again(&self) -> Option<Task> {
        let off = match self.server {
            Some(id) => self.servers().await[&id].status.power == PowerState::Stopped,
            None => false,
        };
        match self.case.flow {
            "volume.grow" if self.has_grown().await => None,
            "server.stop" if off => None,
            "server.reboot" if off && self.case.name != "by force" => {
                let started = self
                    .world
                    .cloud
                    .start_server(&self.caller, self.server.unwrap())
                    .await;
                Some(started.unwrap().task)
            }
            _ => Some(self.ask().await),
        }
    }

    async fn cancel(&self, task: TaskId) {
        // It is no fault to come too late.
        let _ = self.world.cloud.cancel_task(&self.operator(), task).await;
    }

    async fn order(&self, task: TaskId, verb: OrderVerb) {
        let operator = self.operator();
        let order = self.world.cloud.order_task(&operator, task, verb, "repaired");
        order.await.unwrap();
    }

    async fn digest(&self) -> Digest {
        let servers = self.servers().await;
        let named = |id: ServerId| servers.get(&id).map_or("nobody", |s| s.meta.name.as_str());
        let mut things: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (_, fake) in self.hosts() {
            for domain in fake.domains().unwrap() {
                let disks: Vec<&str> = domain.spec.disks.iter().map(|d| unnumbered(&d.name)).collect();
                let size = (domain.spec.vcpus, domain.spec.memory_mib);
                let what = format!(
                    "{} {:?} of {size:?} with {disks:?}",
                    domain.spec.name, domain.power
                );
                let of = format!("domains of {}", named(domain.spec.id));
                things.entry(of).or_default().push(what);
            }
        }
        let shared = self.world.shared.iter().map(|shared| &shared.pool);
        for fake in self.hosts().map(|(_, fake)| fake).chain(shared) {
            for (server, disks) in Self::disks(fake) {
                let of = format!("disks of {}", named(server));
                let disks: Vec<&str> = disks.iter().map(|name| unnumbered(name)).collect();
                things.entry(of).or_default().push(format!("{disks:?}"));
            }
        }
        self.tell_volumes(&mut things);
        self.tell_ports(&mut things);
        let mut digest = Digest::new();
        for (of, mut what) in things {
            what.sort();
            digest.insert(of, what.join(", "));
        }
        let files = self.world.files();
        let staged = files.iter().filter(|f| f.starts_with("staged")).count();
        digest.insert("staged".to_owned(), staged.to_string());
        digest.insert("images".to_owned(), (files.len() - staged).to_string());
        digest
    }

    async fn tally(&self) -> BTreeMap<String, u64> {
        let mut tally = BTreeMap::new();
        for (_, fake) in self.hosts() {
            for effect in fake.history().unwrap() {
                let times: &mut u64 = tally.entry(format!("{:?}", effect.kind)).or_default();
                // Twice back to the same moment is once: nothing ran in between. So is twice the same password.
                let once = matches!(
                    effect.kind,
                    EffectKind::SnapshotReverted { .. } | EffectKind::PasswordSet { .. }
                );
                let again = once && *times > 0;
                *times += u64::from(!again);
            }
        }
        tally
    }

    async fn leftovers(&self, ended: &Task) -> Vec<String> {
        let mut left = Vec::new();
        let servers = self.servers().await;
        self.check_servers(&servers, ended, &mut left).await;
        self.check_hosts(&servers, ended, &mut left).await;
        self.check_images(&mut left).await;
        self.check_volumes(&servers, &mut left).await;
        self.check_ports(&servers, &mut left).await;
        left
    }
}
