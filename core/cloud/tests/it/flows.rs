//! What single flows promise beyond what torture asks of all.

use skyloom_cloud::{Caller, CreateServer, StopOptions};
use skyloom_flow::Rest;
use skyloom_model::{
    Clock as _, HostId, HostLedger, ImageId, ImageState, JobWant, Lifecycle, OrderVerb, Plan, PowerState,
    Resource as _, Server, ServerId, StageOutcome, Task, TaskState, VmObservation, paths,
};
use skyloom_store::{Txn, Value};

use crate::engine::{Engine, Fate, active_image, one};
use crate::world::{World, bytes, image, key, list, server};

struct Site {
    world: World,
    admin: Caller,
    caller: Caller,
    hosts: Vec<HostId>,
    image: ImageId,
}

async fn site(hosts: usize) -> Site {
    let mut world = World::new();
    let admin = world.admin().await;
    let caller = world.member(&admin, "shop").await;
    let mut ids = Vec::new();
    for n in 1..=hosts {
        ids.push(world.host(&admin, &format!("h{n}")).await);
    }
    let image = active_image(&world, &caller).await;
    Site {
        world,
        admin,
        caller,
        hosts: ids,
        image,
    }
}

impl Site {
    async fn server(&self, id: ServerId) -> Server {
        self.world.cloud.get_server(&self.caller, id).await.unwrap().value
    }

    async fn ledger(&self, host: HostId) -> HostLedger {
        let found = self.world.store.get(&key(&paths::ledger(host))).await.unwrap();
        found.unwrap().value.parse().unwrap()
    }

    async fn plan(&self, task: &Task) -> Plan {
        let found = self.world.store.get(&key(&paths::plan(task.id))).await.unwrap();
        found.unwrap().value.parse().unwrap()
    }

    async fn create(&self) -> (ServerId, Task) {
        let request = CreateServer {
            anti_affinity_group: Some("g".to_owned()),
            ..server("s", self.image)
        };
        let made = self.world.cloud.create_server(&self.caller, request).await;
        let made = made.unwrap();
        (made.server.id(), made.task)
    }

    async fn created(&self, engine: &mut Engine<'_>) -> ServerId {
        let (id, task) = self.create().await;
        assert_eq!(engine.carry(&task).await.state, TaskState::Done);
        id
    }

    fn power(&self, id: ServerId) -> Option<PowerState> {
        let domains = self.world.hosts.values().map(|h| h.fake.domain(id).unwrap());
        domains.flatten().map(|d| d.power).next()
    }
}

#[tokio::test]
async fn a_created_server_is_what_was_asked_for() {
    let site = site(1).await;
    let mut engine = Engine::new(&site.world).await;
    let (id, task) = site.create().await;
    let ended = engine.carry(&task).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    let server = site.server(id).await;
    assert_eq!(
        (server.status.lifecycle, server.status.power),
        (Lifecycle::Active, PowerState::Running)
    );
    assert_eq!(server.status.addresses, ["10.0.2.15"]);
    assert!(server.status.accelerator.unwrap().starts_with("fake ("));
    assert_eq!(server.status.placement.as_ref().unwrap().host, site.hosts[0]);
    assert_eq!(ended.result.unwrap()["host"], "h1");
    let domain = site.world.hosts[&site.hosts[0]].fake.domain(id).unwrap().unwrap();
    assert_eq!(
        (domain.boots, domain.spec.generation),
        (1, server.meta.generation)
    );
    let disks: Vec<(&str, bool)> = domain
        .spec
        .disks
        .iter()
        .map(|d| (d.name.as_str(), d.read_only))
        .collect();
    assert_eq!(disks, [("root", false), ("seed", true)]);
    let ports = site.world.cloud.list_ports(&site.caller, &list()).await;
    assert!(ports.unwrap().items.iter().all(|p| p.status.bound));
}

#[tokio::test]
async fn a_create_that_a_host_cannot_do_goes_to_another() {
    let site = site(2).await;
    let mut engine = Engine::new(&site.world).await;
    let (id, task) = site.create().await;
    let ended = engine
        .carry_with(&task, |job| match (job.spec.id.as_str(), job.want) {
            ("vm.start", JobWant::Run) => Fate::FailBefore,
            _ => Fate::Twice,
        })
        .await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    let plan = site.plan(&task).await;
    let stages: Vec<(&str, u64)> = plan
        .stages
        .iter()
        .map(|s| (s.name.as_str(), s.generation))
        .collect();
    assert_eq!(stages, [("main", 2), ("host-2", 3)]);
    assert!(
        matches!(&plan.stages[0].outcome, Some(StageOutcome::Undone(why)) if why.code == "test.injected")
    );
    assert!(plan.stages[1].jobs.iter().all(|j| j.as_str().ends_with("@2")));
    let placed = site.server(id).await.status.placement.unwrap().host;
    let before = site.hosts.iter().find(|h| **h != placed).unwrap();
    assert_eq!(
        (
            site.ledger(*before).await.servers,
            site.ledger(placed).await.servers
        ),
        (0, 1)
    );
    assert_eq!(site.server(id).await.status.power, PowerState::Running);
    for below in ["lent", "jobs", "steps", "active"] {
        assert!(site.world.documents(below).await.is_empty(), "{below}");
    }
    let explained = plan.placement.unwrap();
    assert_eq!(explained["fallen"][0]["reason"], "excluded");
}

#[tokio::test]
async fn secrets_go_with_the_server_and_leave_the_host_that_could_not() {
    let site = site(2).await;
    let mut engine = Engine::new(&site.world).await;
    let (id, task) = site.create().await;
    engine.drive(&task).await;
    let first = site.world.documents("lent").await;
    assert_eq!(first.len(), 1);
    // As far as the second host's first jobs.
    while site.plan(&task).await.stages.len() < 2 {
        engine
            .work_with(|job| match (job.spec.id.as_str(), job.want) {
                ("disk.root", JobWant::Run) => Fate::FailBefore,
                _ => Fate::Run,
            })
            .await;
        engine.drive(&task).await;
    }
    let second = site.world.documents("lent").await;
    let placed = site.server(id).await.status.placement.unwrap().host;
    assert_eq!(
        second.keys().collect::<Vec<_>>(),
        [&paths::lent(placed, id)],
        "and no longer {first:?}"
    );
    assert_eq!(engine.carry(&task).await.state, TaskState::Done);
}

#[tokio::test]
async fn a_create_that_no_host_can_mend_fails_on_the_first() {
    let site = site(2).await;
    let mut engine = Engine::new(&site.world).await;
    let (_, task) = site.create().await;
    site.world.repo.delete(site.image).await.unwrap();
    let ended = engine.carry(&task).await;
    assert_eq!(ended.state, TaskState::Failed);
    assert_eq!(ended.reason.unwrap().code, "image.content_missing");
    assert_eq!(site.plan(&task).await.stages.len(), 1);
}

#[tokio::test]
async fn a_create_that_no_other_host_can_take_says_why_the_last_could_not() {
    for (hosts, names) in [(1, vec!["main"]), (2, vec!["main", "host-2"])] {
        let site = site(hosts).await;
        let mut engine = Engine::new(&site.world).await;
        let (_, task) = site.create().await;
        let ended = engine.carry_with(&task, one("vm.define", Fate::FailAfter)).await;
        assert_eq!(ended.state, TaskState::Failed);
        assert_eq!(ended.reason.unwrap().code, "test.injected");
        let stages = site.plan(&task).await.stages;
        assert_eq!(stages.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), names);
    }
}

#[tokio::test]
async fn no_more_than_three_hosts_are_tried() {
    let site = site(4).await;
    let mut engine = Engine::new(&site.world).await;
    let (id, task) = site.create().await;
    let ended = engine.carry_with(&task, one("vm.define", Fate::FailAfter)).await;
    assert_eq!(ended.state, TaskState::Failed);
    assert_eq!(ended.reason.unwrap().code, "test.injected");
    let stages = site.plan(&task).await.stages;
    let names: Vec<&str> = stages.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["main", "host-2", "host-3"]);
    let left = site.server(id).await;
    assert_eq!(
        (left.status.lifecycle, left.status.placement),
        (Lifecycle::Error, None)
    );
    for host in &site.hosts {
        assert_eq!(site.ledger(*host).await, HostLedger::default());
    }
}

#[tokio::test]
async fn each_power_verb_is_an_order_of_a_new_generation() {
    let site = site(1).await;
    let cloud = &site.world.cloud;
    let mut engine = Engine::new(&site.world).await;
    let id = site.created(&mut engine).await;
    let options = StopOptions::default();
    let stop = cloud.stop_server(&site.caller, id, options).await.unwrap().task;
    engine.carry(&stop).await;
    assert_eq!(site.power(id), Some(PowerState::Stopped));
    let start = cloud.start_server(&site.caller, id).await.unwrap().task;
    engine.carry(&start).await;
    let reboot = cloud.reboot_server(&site.caller, id, options).await.unwrap().task;
    engine.carry(&reboot).await;
    assert_eq!(site.power(id), Some(PowerState::Running));
    let domain = site.world.hosts[&site.hosts[0]].fake.domain(id).unwrap().unwrap();
    assert_eq!(domain.boots, 3, "created, started, rebooted: once each");
    assert_eq!(domain.spec.generation, site.server(id).await.meta.generation);
    let mut generations = Vec::new();
    for task in [&stop, &start, &reboot] {
        generations.push(site.plan(task).await.stages[0].generation);
    }
    assert_eq!(generations, [3, 4, 5]);
}

#[tokio::test]
async fn a_failure_is_told_as_a_fault_until_the_next_success() {
    let site = site(1).await;
    let mut engine = Engine::new(&site.world).await;
    let id = site.created(&mut engine).await;
    let reboot = site
        .world
        .cloud
        .reboot_server(&site.caller, id, StopOptions::default());
    let reboot = reboot.await.unwrap().task;
    let ended = engine.carry_with(&reboot, one("vm.start", Fate::FailAfter)).await;
    assert_eq!(ended.state, TaskState::Failed);
    let left = site.server(id).await;
    assert_eq!(
        (left.status.lifecycle, left.status.power, left.spec.running),
        (Lifecycle::Active, PowerState::Stopped, false)
    );
    assert_eq!(left.status.fault.unwrap().code, "test.injected");
    let start = site.world.cloud.start_server(&site.caller, id).await.unwrap();
    assert_eq!(engine.carry(&start.task).await.state, TaskState::Done);
    assert_eq!(site.server(id).await.status.fault, None);
}

#[tokio::test]
async fn what_an_abandoned_create_left_stays_claimed_until_the_server_is_deleted() {
    let site = site(1).await;
    let mut engine = Engine::new(&site.world).await;
    let (id, task) = site.create().await;
    let stuck = engine
        .carry_with(&task, |job| match (job.spec.kind.as_str(), job.want) {
            ("vm.start", JobWant::Run) | ("vm.define", JobWant::Undo) => Fate::FailBefore,
            _ => Fate::Run,
        })
        .await;
    assert_eq!(stuck.state, TaskState::Stuck);
    let operator = Caller {
        project: site.caller.project,
        ..site.admin.clone()
    };
    let order = site
        .world
        .cloud
        .order_task(&operator, task.id, OrderVerb::Abandon, "gone");
    order.await.unwrap();
    assert_eq!(engine.carry(&task).await.state, TaskState::Failed);
    let left = site.server(id).await;
    assert_eq!(
        (left.status.lifecycle, left.status.activity),
        (Lifecycle::Error, None)
    );
    assert_eq!(
        site.ledger(site.hosts[0]).await.servers,
        1,
        "the domain may be there: its share stays reserved"
    );
    let delete = site.world.cloud.delete_server(&site.caller, id).await.unwrap();
    assert_eq!(engine.carry(&delete.task).await.state, TaskState::Done);
    assert_eq!(site.ledger(site.hosts[0]).await, HostLedger::default());
    assert_eq!(site.power(id), None);
}

#[tokio::test]
async fn servers_of_one_group_do_not_share_a_host() {
    let site = site(1).await;
    let mut engine = Engine::new(&site.world).await;
    let first = site.created(&mut engine).await;
    let (_, second) = site.create().await;
    let ended = engine.carry(&second).await;
    assert_eq!(ended.reason.unwrap().code, "placement.no_host");
    let gone = site.world.cloud.delete_server(&site.caller, first).await.unwrap();
    engine.carry(&gone.task).await;
    site.created(&mut engine).await;
}

#[tokio::test]
async fn a_guest_that_ended_meanwhile_is_not_called_running() {
    let site = site(1).await;
    let mut engine = Engine::new(&site.world).await;
    let (id, task) = site.create().await;
    assert!(matches!(engine.drive(&task).await, Rest::Until(_)));
    let server = site.server(id).await;
    for (generation, power) in [
        (server.meta.generation, PowerState::Crashed),
        (1, PowerState::Paused),
    ] {
        // What the agent says of the domain; under an older order it says nothing about one that is done.
        let seen = VmObservation {
            server: id,
            project: site.caller.project,
            generation,
            power,
            cause: None,
            accelerator: None,
            observed_at: site.world.clock.now(),
        };
        let at = key(&paths::host_vm(site.hosts[0], id));
        let txn = Txn::new().put(at, Value::json(&seen).unwrap());
        site.world.store.commit(txn).await.unwrap();
        if power == PowerState::Crashed {
            assert_eq!(engine.carry(&task).await.state, TaskState::Done);
            assert_eq!(site.server(id).await.status.power, PowerState::Crashed);
        } else {
            let start = site.world.cloud.start_server(&site.caller, id).await.unwrap();
            engine.carry(&start.task).await;
            assert_eq!(site.server(id).await.status.power, PowerState::Running);
        }
    }
}

#[tokio::test]
async fn an_image_is_published_only_when_it_is_what_was_claimed() {
    let site = site(1).await;
    let mut engine = Engine::new(&site.world).await;
    let mut wrong_sum = image("sum");
    wrong_sum.sha256 = Some("0".repeat(64));
    let mut fits = image("fits");
    fits.min_disk_gib = 1;
    for (request, code) in [(wrong_sum, Some("image.checksum_mismatch")), (fits, None)] {
        let made = site
            .world
            .cloud
            .create_image(&site.caller, request)
            .await
            .unwrap();
        let id = made.image.id();
        let before = site.world.files();
        let sent = site
            .world
            .cloud
            .upload_image(&site.caller, id, bytes(crate::world::DISK), None);
        let ended = engine.carry(&sent.await.unwrap().task.unwrap()).await;
        let image = site.world.cloud.get_image(&site.caller, id).await.unwrap().value;
        assert_eq!(ended.reason.as_ref().map(|r| r.code.as_str()), code);
        if code.is_none() {
            assert_eq!(image.status.state, ImageState::Active);
            assert_eq!(image.status.size_bytes, crate::world::DISK.len() as u64);
            let plan = site.plan(&ended).await;
            let stages: Vec<&str> = plan.stages.iter().map(|s| s.name.as_str()).collect();
            assert_eq!(stages, ["inspect", "publish"]);
        } else {
            assert_eq!(image.status.state, ImageState::Error);
            assert_eq!((image.status.size_bytes, image.status.sha256), (0, None));
            assert_eq!(site.world.files(), before, "nothing of it is kept");
        }
    }
}
