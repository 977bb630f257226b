//! Every flow, with every job run twice, failing before and after its effect, and taken back twice.

use skyloom_cloud::{Caller, CreateServer, StopOptions};
use skyloom_flow::Step;
use skyloom_model::{
    Clock as _, HostId, HostLedger, ImageId, JobWant, Lifecycle, PowerState, Resource as _, ServerId, Task,
    TaskState, VmObservation, paths,
};
use skyloom_store::{Txn, Value};

use crate::engine::{Engine, FATES, Fate, active_image, one};
use crate::world::{World, key, list, server};

struct Stage {
    world: World,
    caller: Caller,
    host: HostId,
    image: ImageId,
}

async fn stage() -> Stage {
    let mut world = World::new();
    let admin = world.admin().await;
    let caller = world.member(&admin, "shop").await;
    let host = world.host(&admin, "h1").await;
    let image = active_image(&world, &caller).await;
    Stage {
        world,
        caller,
        host,
        image,
    }
}

impl Stage {
    async fn server(&self, id: ServerId) -> skyloom_model::Server {
        self.world.cloud.get_server(&self.caller, id).await.unwrap().value
    }

    async fn ledger(&self) -> HostLedger {
        let at = key(&paths::ledger(self.host));
        self.world
            .store
            .get(&at)
            .await
            .unwrap()
            .unwrap()
            .value
            .parse()
            .unwrap()
    }

    /// Nothing of any server is on the host or reserved there, nothing is lent, nothing waits.
    async fn assert_clean(&self, case: &str) {
        let fake = &self.world.hosts[&self.host].fake;
        assert!(fake.domains().unwrap().is_empty(), "{case}: a domain is left");
        let disks = fake.storage().contents().unwrap();
        assert!(
            disks
                .iter()
                .all(|p| p.components().any(|c| c.as_os_str() == "images")),
            "{case}: {disks:?}"
        );
        assert_eq!(self.ledger().await, HostLedger::default(), "{case}");
        for below in ["claims", "lent", "jobs", "active"] {
            assert!(self.world.documents(below).await.is_empty(), "{case}: {below}");
        }
    }

    async fn create(&self) -> (ServerId, Task) {
        let request = CreateServer {
            anti_affinity_group: Some("g".to_owned()),
            ..server("s", self.image)
        };
        let made = self
            .world
            .cloud
            .create_server(&self.caller, request)
            .await
            .unwrap();
        (made.server.id(), made.task)
    }

    async fn created(&self, engine: &mut Engine<'_>) -> ServerId {
        let (id, task) = self.create().await;
        assert_eq!(engine.carry(&task).await.state, TaskState::Done);
        id
    }

    fn power(&self, id: ServerId) -> Option<PowerState> {
        self.world.hosts[&self.host]
            .fake
            .domain(id)
            .unwrap()
            .map(|d| d.power)
    }
}

#[tokio::test]
async fn a_create_with_every_job_done_twice_is_one_server() {
    let stage = stage().await;
    let mut engine = Engine::new(&stage.world).await;
    let (id, task) = stage.create().await;
    let ended = engine.carry_with(&task, |_| Fate::Twice).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    // Jobs that wait for nothing are taken in the order of their names.
    assert_eq!(
        engine.trace,
        [
            "disk.seed",
            "image.cache",
            "disk.overlay",
            "vm.define",
            "vm.start"
        ]
    );
    let server = stage.server(id).await;
    assert_eq!(
        (server.status.lifecycle, server.status.power),
        (Lifecycle::Active, PowerState::Running)
    );
    assert_eq!(server.status.addresses, ["10.0.2.15"]);
    assert_eq!(server.status.activity, None);
    assert!(server.status.accelerator.unwrap().starts_with("fake ("));
    assert_eq!(server.status.placement.as_ref().unwrap().host, stage.host);
    assert_eq!(ended.result.unwrap()["host"], "h1");
    let domain = stage.world.hosts[&stage.host].fake.domain(id).unwrap().unwrap();
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
    let ports = stage
        .world
        .cloud
        .list_ports(&stage.caller, &list())
        .await
        .unwrap()
        .items;
    assert!(ports.iter().all(|p| p.status.bound));
    assert_eq!(stage.ledger().await.servers, 1);
    assert!(
        stage.world.documents("lent").await.is_empty(),
        "secrets come back"
    );
}

#[tokio::test]
async fn a_create_that_fails_anywhere_leaves_nothing_and_can_be_deleted() {
    for kind in [
        "image.cache",
        "disk.overlay",
        "disk.seed",
        "vm.define",
        "vm.start",
    ] {
        for fate in FATES {
            let case = format!("{kind} {fate:?}");
            let stage = stage().await;
            let mut engine = Engine::new(&stage.world).await;
            let (id, task) = stage.create().await;
            let ended = engine.carry_with(&task, one(kind, fate)).await;
            assert_eq!(ended.state, TaskState::Failed, "{case}");
            assert_eq!(ended.reason.unwrap().code, "test.injected", "{case}");
            stage.assert_clean(&case).await;
            let failed = stage.server(id).await;
            assert_eq!(failed.status.lifecycle, Lifecycle::Error, "{case}");
            assert_eq!(failed.status.fault.unwrap().code, "test.injected", "{case}");
            assert_eq!(
                (failed.status.placement, failed.status.activity),
                (None, None),
                "{case}"
            );
            let delete = stage
                .world
                .cloud
                .delete_server(&stage.caller, id)
                .await
                .unwrap()
                .task;
            assert_eq!(engine.carry(&delete).await.state, TaskState::Done, "{case}");
            for below in ["r/servers", "r/ports", "secrets", "active"] {
                assert!(stage.world.documents(below).await.is_empty(), "{case}: {below}");
            }
        }
    }
}

#[tokio::test]
async fn a_create_cancelled_anywhere_leaves_nothing() {
    for steps in 0..7 {
        let stage = stage().await;
        let mut engine = Engine::new(&stage.world).await;
        let (id, task) = stage.create().await;
        // So many jobs are done before the cancellation comes.
        let mut done = 0;
        let cancelled = loop {
            if done == steps || engine.step(&task).await == Step::Ended {
                break stage.world.cloud.cancel_task(&stage.caller, task.id).await;
            }
            engine.work().await;
            done += 1;
        };
        if cancelled.is_err() {
            continue;
        }
        let ended = engine.carry_with(&task, |_| Fate::Twice).await;
        assert_eq!(ended.state, TaskState::Cancelled, "after {steps}");
        stage.assert_clean(&format!("cancelled after {steps}")).await;
        assert_eq!(stage.server(id).await.status.lifecycle, Lifecycle::Error);
    }
}

#[tokio::test]
async fn an_undo_that_fails_for_good_keeps_the_claim() {
    let stage = stage().await;
    let mut engine = Engine::new(&stage.world).await;
    let (id, task) = stage.create().await;
    let ended = engine
        .carry_with(&task, |job| match (job.spec.kind.as_str(), job.want) {
            ("vm.start", JobWant::Run) | ("vm.define", JobWant::Undo) => Fate::FailBefore,
            _ => Fate::Run,
        })
        .await;
    assert_eq!(ended.state, TaskState::Stuck);
    let stuck = stage.server(id).await;
    assert_eq!(
        (stuck.status.lifecycle, stuck.status.activity),
        (Lifecycle::Error, None)
    );
    assert!(stuck.status.placement.is_some());
    assert_eq!(
        stage.ledger().await.servers,
        1,
        "the domain may be there: its share stays reserved"
    );
    let delete = stage
        .world
        .cloud
        .delete_server(&stage.caller, id)
        .await
        .unwrap()
        .task;
    assert_eq!(engine.carry(&delete).await.state, TaskState::Done);
    stage.assert_clean("deleted").await;
}

#[tokio::test]
async fn a_delete_with_every_job_done_twice_leaves_nothing() {
    let stage = stage().await;
    let mut engine = Engine::new(&stage.world).await;
    let id = stage.created(&mut engine).await;
    let delete = stage
        .world
        .cloud
        .delete_server(&stage.caller, id)
        .await
        .unwrap()
        .task;
    assert_eq!(
        engine.carry_with(&delete, |_| Fate::Twice).await.state,
        TaskState::Done
    );
    stage.assert_clean("deleted").await;
    for below in ["r/servers", "r/ports", "secrets"] {
        assert!(stage.world.documents(below).await.is_empty(), "{below}");
    }
}

#[tokio::test]
async fn a_delete_that_fails_keeps_the_claim_and_can_be_repeated() {
    for kind in ["vm.undefine", "disk.delete_all"] {
        for fate in FATES {
            let case = format!("{kind} {fate:?}");
            let stage = stage().await;
            let mut engine = Engine::new(&stage.world).await;
            let id = stage.created(&mut engine).await;
            let delete = stage
                .world
                .cloud
                .delete_server(&stage.caller, id)
                .await
                .unwrap()
                .task;
            assert_eq!(
                engine.carry_with(&delete, one(kind, fate)).await.state,
                TaskState::Failed,
                "{case}"
            );
            let left = stage.server(id).await;
            assert_eq!(
                (left.status.lifecycle, left.status.activity),
                (Lifecycle::Error, None),
                "{case}"
            );
            assert_eq!(stage.ledger().await.servers, 1, "{case}");
            let again = stage
                .world
                .cloud
                .delete_server(&stage.caller, id)
                .await
                .unwrap()
                .task;
            assert_eq!(engine.carry(&again).await.state, TaskState::Done, "{case}");
            stage.assert_clean(&case).await;
        }
    }
}

#[tokio::test]
async fn power_verbs_done_twice_do_what_they_say() {
    let stage = stage().await;
    let cloud = &stage.world.cloud;
    let mut engine = Engine::new(&stage.world).await;
    let id = stage.created(&mut engine).await;
    let options = StopOptions {
        force: true,
        timeout_seconds: None,
    };
    let stop = cloud.stop_server(&stage.caller, id, options).await.unwrap().task;
    assert_eq!(
        engine.carry_with(&stop, |_| Fate::Twice).await.state,
        TaskState::Done
    );
    let off = PowerState::Stopped;
    assert_eq!(
        (stage.power(id), stage.server(id).await.status.power),
        (Some(off), off)
    );
    assert!(!stage.server(id).await.spec.running);
    let start = cloud.start_server(&stage.caller, id).await.unwrap().task;
    assert_eq!(
        engine.carry_with(&start, |_| Fate::Twice).await.state,
        TaskState::Done
    );
    assert_eq!(stage.server(id).await.status.power, PowerState::Running);
    let reboot = cloud
        .reboot_server(&stage.caller, id, StopOptions::default())
        .await
        .unwrap()
        .task;
    assert_eq!(
        engine.carry_with(&reboot, |_| Fate::Twice).await.state,
        TaskState::Done
    );
    assert_eq!(stage.power(id), Some(PowerState::Running));
    let boots = stage.world.hosts[&stage.host]
        .fake
        .domain(id)
        .unwrap()
        .unwrap()
        .boots;
    assert_eq!(boots, 3, "created, started, rebooted: once each");
    assert!(stage.server(id).await.spec.running);
}

#[tokio::test]
async fn a_failed_start_leaves_a_usable_server_that_is_off() {
    for fate in FATES {
        let stage = stage().await;
        let mut engine = Engine::new(&stage.world).await;
        let id = stage.created(&mut engine).await;
        let stop = stage
            .world
            .cloud
            .stop_server(&stage.caller, id, StopOptions::default())
            .await
            .unwrap();
        engine.carry(&stop.task).await;
        let start = stage
            .world
            .cloud
            .start_server(&stage.caller, id)
            .await
            .unwrap()
            .task;
        assert_eq!(
            engine.carry_with(&start, one("vm.start", fate)).await.state,
            TaskState::Failed
        );
        let left = stage.server(id).await;
        assert_eq!(
            (left.status.lifecycle, left.status.power),
            (Lifecycle::Active, PowerState::Stopped)
        );
        assert_eq!(left.status.fault.unwrap().code, "test.injected");
        assert_eq!(stage.power(id), Some(PowerState::Stopped), "{fate:?}");
        let again = stage
            .world
            .cloud
            .start_server(&stage.caller, id)
            .await
            .unwrap()
            .task;
        assert_eq!(engine.carry(&again).await.state, TaskState::Done);
        assert_eq!(
            stage.server(id).await.status.fault,
            None,
            "a success clears the fault"
        );
    }
}

#[tokio::test]
async fn a_reboot_that_cannot_start_again_says_that_it_is_off() {
    let stage = stage().await;
    let mut engine = Engine::new(&stage.world).await;
    let id = stage.created(&mut engine).await;
    let reboot = stage
        .world
        .cloud
        .reboot_server(&stage.caller, id, StopOptions::default())
        .await
        .unwrap();
    let ended = engine
        .carry_with(&reboot.task, one("vm.start", Fate::FailAfter))
        .await;
    assert_eq!(ended.state, TaskState::Failed);
    let left = stage.server(id).await;
    assert_eq!(
        (left.status.lifecycle, left.status.power),
        (Lifecycle::Active, PowerState::Stopped)
    );
    assert_eq!(stage.power(id), Some(PowerState::Stopped));
}

#[tokio::test]
async fn a_failed_stop_changes_nothing() {
    let stage = stage().await;
    let mut engine = Engine::new(&stage.world).await;
    let id = stage.created(&mut engine).await;
    let stop = stage
        .world
        .cloud
        .stop_server(&stage.caller, id, StopOptions::default())
        .await
        .unwrap();
    let ended = engine
        .carry_with(&stop.task, one("vm.stop", Fate::FailBefore))
        .await;
    assert_eq!(ended.state, TaskState::Failed);
    let left = stage.server(id).await;
    assert_eq!(
        (left.status.lifecycle, left.status.power),
        (Lifecycle::Active, PowerState::Running)
    );
    assert_eq!(stage.power(id), Some(PowerState::Running));
    assert!(left.spec.running, "what is wanted is as before, too");
}

#[tokio::test]
async fn servers_of_one_group_do_not_share_a_host() {
    let stage = stage().await;
    let mut engine = Engine::new(&stage.world).await;
    let first = stage.created(&mut engine).await;
    let (_, second) = stage.create().await;
    let ended = engine.carry(&second).await;
    assert_eq!(ended.reason.unwrap().code, "placement.no_host");
    let gone = stage
        .world
        .cloud
        .delete_server(&stage.caller, first)
        .await
        .unwrap()
        .task;
    engine.carry(&gone).await;
    stage.created(&mut engine).await;
}

#[tokio::test]
async fn a_guest_that_ended_meanwhile_is_not_called_running() {
    let stage = stage().await;
    let mut engine = Engine::new(&stage.world).await;
    let (id, task) = stage.create().await;
    engine.step(&task).await;
    let server = stage.server(id).await;
    for (generation, power) in [
        (server.meta.generation, PowerState::Crashed),
        (1, PowerState::Paused),
    ] {
        // What the agent says of the domain; of another generation it says nothing about this one.
        let seen = VmObservation {
            server: id,
            project: stage.caller.project,
            generation,
            power,
            cause: None,
            accelerator: None,
            observed_at: stage.world.clock.now(),
        };
        let at = key(&paths::host_vm(stage.host, id));
        let txn = Txn::new().put(at, Value::json(&seen).unwrap());
        stage.world.store.commit(txn).await.unwrap();
        if power == PowerState::Crashed {
            assert_eq!(engine.carry(&task).await.state, TaskState::Done);
            assert_eq!(stage.server(id).await.status.power, PowerState::Crashed);
        } else {
            let start = stage.world.cloud.start_server(&stage.caller, id).await.unwrap();
            engine.carry(&start.task).await;
            assert_eq!(stage.server(id).await.status.power, PowerState::Running);
        }
    }
}
