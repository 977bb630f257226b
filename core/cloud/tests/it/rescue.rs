//! A server's rescue: which domain is made of it, what is refused meanwhile, and how it ends.

use std::time::Duration;

use skyloom_cloud::{Caller, StartRescue, StopOptions};
use skyloom_hypervisor::FakeDomain;
use skyloom_model::{
    HostId, ImageId, JobWant, Overlays, Plan, PowerState, RescueMedia, Resource as _, Server, ServerAction,
    ServerId, Task, TaskState, paths,
};

use crate::engine::{Engine, Fate, active_image};
use crate::world::{World, key, server};

struct Site {
    world: World,
    caller: Caller,
    host: HostId,
    image: ImageId,
    server: ServerId,
}

impl Site {
    async fn new() -> Self {
        let mut world = World::new();
        let admin = world.admin().await;
        let caller = world.member(&admin, "shop").await;
        let host = world.host(&admin, "h1").await;
        let image = active_image(&world, &caller).await;
        let made = world
            .cloud
            .create_server(&caller, server("s", image))
            .await
            .unwrap();
        let ended = Engine::new(&world).await.carry(&made.task).await;
        assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
        Self {
            server: made.server.id(),
            world,
            caller,
            host,
            image,
        }
    }

    fn request(&self) -> StartRescue {
        StartRescue {
            image: Some(self.image.to_string()),
            ..StartRescue::default()
        }
    }

    async fn rescue(&self, request: StartRescue) -> Task {
        let asked = self
            .world
            .cloud
            .start_rescue(&self.caller, self.server, request)
            .await;
        Engine::new(&self.world).await.carry(&asked.unwrap().task).await
    }

    async fn leave(&self) -> Task {
        let cloud = &self.world.cloud;
        let asked = cloud
            .stop_rescue(&self.caller, self.server, StopOptions::default())
            .await;
        Engine::new(&self.world).await.carry(&asked.unwrap().task).await
    }

    async fn server(&self) -> Server {
        let found = self.world.cloud.get_server(&self.caller, self.server).await;
        found.unwrap().value
    }

    fn domain(&self) -> FakeDomain {
        self.world.hosts[&self.host]
            .fake
            .domain(self.server)
            .unwrap()
            .unwrap()
    }

    fn disks(&self) -> Vec<String> {
        self.domain().spec.disks.into_iter().map(|d| d.name).collect()
    }

    async fn stages(&self, task: &Task) -> Vec<String> {
        let plan = self.world.store.get(&key(&paths::plan(task.id))).await.unwrap();
        let plan: Plan = plan.unwrap().value.parse().unwrap();
        plan.stages.into_iter().map(|stage| stage.name).collect()
    }
}

#[tokio::test]
async fn the_rescue_system_comes_first_and_the_servers_disks_behind_it() {
    let site = Site::new().await;
    let before = site.domain();
    let asked = site
        .world
        .cloud
        .start_rescue(&site.caller, site.server, site.request())
        .await
        .unwrap();
    assert!(asked.password.is_some(), "shown once");
    let ended = Engine::new(&site.world).await.carry(&asked.task).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    assert_eq!(site.stages(&ended).await, ["fetch", "stop", "prepare", "boot"]);
    assert_eq!(site.disks(), ["rescue", "root", "seed", "rescue-seed"]);
    let domain = site.domain();
    assert_eq!(
        (domain.power, &domain.spec.nics),
        (PowerState::Running, &before.spec.nics)
    );
    let now = site.server().await;
    assert!(now.status.overlays.rescued && now.status.power == PowerState::Running);
    let rescue = now.spec.rescue.unwrap();
    assert_eq!(rescue.former_power, PowerState::Running);
    assert!(matches!(rescue.media, RescueMedia::Image { image } if image.id == site.image));
    assert_eq!(domain.spec.generation, now.meta.generation);

    let ended = site.leave().await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    assert_eq!(site.stages(&ended).await, ["leave"]);
    assert_eq!(site.disks(), ["root", "seed"]);
    let now = site.server().await;
    assert_eq!(
        (now.status.overlays, now.spec.rescue),
        (Overlays::default(), None)
    );
    assert_eq!(now.status.power, PowerState::Running);
    assert_eq!(now.status.spare_disks, ["rescue", "rescue-seed"]);
    assert_eq!(site.world.cloud.see_to_timers().await.unwrap(), 1);
    let tidy = site.server().await.status.activity.unwrap().task;
    let tidy = site.world.cloud.get_task(&site.caller, tidy).await.unwrap().value;
    assert_eq!(
        Engine::new(&site.world).await.carry(&tidy).await.state,
        TaskState::Done
    );
    assert!(site.server().await.status.spare_disks.is_empty());
    let left = site.world.hosts[&site.host].fake.storage().contents().unwrap();
    let names: Vec<String> = left.iter().map(|p| p.display().to_string()).collect();
    assert!(names.iter().all(|n| !n.contains("rescue")), "{names:?}");
}

#[tokio::test]
async fn a_rescued_server_that_is_stopped_and_started_boots_its_rescue_system() {
    let site = Site::new().await;
    assert_eq!(site.rescue(site.request()).await.state, TaskState::Done);
    let cloud = &site.world.cloud;
    let off = cloud
        .stop_server(&site.caller, site.server, StopOptions::default())
        .await;
    let ended = Engine::new(&site.world).await.carry(&off.unwrap().task).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    let on = cloud.start_server(&site.caller, site.server).await.unwrap();
    let ended = Engine::new(&site.world).await.carry(&on.task).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    assert_eq!(site.disks()[0], "rescue");
    assert!(site.server().await.status.overlays.rescued);
}

#[tokio::test]
async fn a_server_that_was_off_is_off_again_after_its_rescue() {
    let site = Site::new().await;
    let cloud = &site.world.cloud;
    let off = cloud
        .stop_server(&site.caller, site.server, StopOptions::default())
        .await;
    Engine::new(&site.world).await.carry(&off.unwrap().task).await;
    assert_eq!(site.rescue(site.request()).await.state, TaskState::Done);
    assert_eq!(site.domain().power, PowerState::Running);
    assert_eq!(site.leave().await.state, TaskState::Done);
    let now = site.server().await;
    assert_eq!((now.status.power, now.spec.running), (PowerState::Stopped, false));
    assert_eq!(site.disks(), ["root", "seed"]);
}

#[tokio::test]
async fn a_rescue_that_does_not_boot_leaves_the_server_running_as_before() {
    let site = Site::new().await;
    let asked = site
        .world
        .cloud
        .start_rescue(&site.caller, site.server, site.request())
        .await
        .unwrap();
    let mut engine = Engine::new(&site.world).await;
    let ended = engine
        .carry_with(&asked.task, |job| match (job.spec.id.as_str(), job.want) {
            ("vm.start", JobWant::Run) => Fate::FailBefore,
            _ => Fate::Twice,
        })
        .await;
    assert_eq!(ended.state, TaskState::Failed);
    assert_eq!(site.disks(), ["root", "seed"]);
    let (now, domain) = (site.server().await, site.domain());
    assert_eq!(
        (domain.power, now.status.power),
        (PowerState::Running, PowerState::Running)
    );
    assert!(now.spec.rescue.is_none() && !now.status.overlays.rescued && now.spec.running);
    assert_eq!(domain.spec.generation, now.meta.generation);
    assert_eq!(now.status.fault.unwrap().code, "test.injected");
}

#[tokio::test]
async fn what_would_harm_a_rescue_is_refused_and_so_is_a_second_one() {
    let site = Site::new().await;
    let cloud = &site.world.cloud;
    let refused = cloud
        .stop_rescue(&site.caller, site.server, StopOptions::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "server.not_rescued");
    assert_eq!(site.rescue(site.request()).await.state, TaskState::Done);
    let again = cloud
        .start_rescue(&site.caller, site.server, site.request())
        .await
        .unwrap_err();
    assert_eq!(again.code(), "server.rescued");
    for action in [ServerAction::Pause, ServerAction::Suspend] {
        let refused = cloud
            .simple_action(&site.caller, site.server, action)
            .await
            .unwrap_err();
        assert_eq!(refused.code(), "server.rescued", "{action:?}");
    }
}

#[tokio::test]
async fn requests_that_make_no_sense_change_nothing() {
    let site = Site::new().await;
    let cloud = &site.world.cloud;
    let before = site.server().await;
    let both = StartRescue {
        kernel: Some("k".to_owned()),
        ..site.request()
    };
    let alone = StartRescue {
        initrd: Some("i".to_owned()),
        ..StartRescue::default()
    };
    let disk = StartRescue {
        kernel: Some(site.image.to_string()),
        ..StartRescue::default()
    };
    let never = StartRescue {
        leave_after_seconds: Some(1),
        ..site.request()
    };
    let line = StartRescue {
        kernel: Some("k".to_owned()),
        command_line: Some("a\nb".to_owned()),
        ..StartRescue::default()
    };
    for (request, code) in [
        (both, "rescue.media_unclear"),
        (alone, "rescue.media_unclear"),
        (disk, "rescue.wrong_format"),
        (never, "leave_after_seconds.invalid"),
        (line, "command_line.invalid"),
        (StartRescue::default(), "rescue.no_image"),
    ] {
        let refused = cloud
            .start_rescue(&site.caller, site.server, request)
            .await
            .unwrap_err();
        assert_eq!(refused.code(), code);
    }
    assert_eq!(site.server().await, before);
}

#[tokio::test]
async fn a_rescue_ends_by_itself_when_its_time_is_over() {
    let site = Site::new().await;
    let request = StartRescue {
        leave_after_seconds: Some(3600),
        ..site.request()
    };
    assert_eq!(site.rescue(request).await.state, TaskState::Done);
    let cloud = &site.world.cloud;
    assert_eq!(cloud.see_to_timers().await.unwrap(), 0);
    site.world.clock.advance(Duration::from_secs(3601));
    assert_eq!(cloud.see_to_timers().await.unwrap(), 1);
    assert_eq!(cloud.see_to_timers().await.unwrap(), 0);
    assert!(site.world.documents("timers").await.is_empty());
    let tasks = site.world.documents("active").await;
    assert_eq!(tasks.len(), 1);
}
