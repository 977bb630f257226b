//! Servers that go to another host: where they are afterwards, what both hosts keep, and what becomes of lost connections.

use serde_json::json;
use skyloom_cloud::{CreateServer, LiveMigrateServer, MigrateServer, ServerVolume, SweepHost};
use skyloom_hypervisor::{ErrorKind, Fault, FaultPoint, Half, Hypervisor as _, Migration as _};
use skyloom_model::{
    HostId, HostLedger, PowerState, Resource as _, Server, ServerAction, ServerId, Task, TaskState, paths,
};

use crate::engine::{Engine, Fate, active_image};
use crate::server_actions::Site;
use crate::world::{World, server};

/// Two hosts that see the same disks.
async fn site() -> Site {
    let mut world = World::new();
    world.share_disks();
    site_in(world).await
}

async fn site_in(mut world: World) -> Site {
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    let host = world.host(&admin, "a").await;
    world.host(&admin, "b").await;
    let image = active_image(&world, &member).await;
    Site {
        world,
        admin,
        member,
        host,
        image,
    }
}

fn home(server: &Server) -> HostId {
    server.status.placement.as_ref().unwrap().host
}

fn other(site: &Site, than: HostId) -> HostId {
    *site.world.hosts.keys().find(|host| **host != than).unwrap()
}

async fn asked(site: &Site, id: ServerId) -> Task {
    let (operator, request) = (site.operator(), LiveMigrateServer::default());
    let asked = site.world.cloud.live_migrate_server(&operator, id, request);
    asked.await.unwrap().task
}

/// It runs on `host` and nowhere else, and only that host keeps anything for it.
async fn is_on(site: &Site, id: ServerId, host: HostId) {
    let server = site.server(id).await;
    assert_eq!((home(&server), server.status.migration.clone()), (host, None));
    assert_eq!(server.status.power, PowerState::Running);
    let ledgers = site.world.documents(paths::LEDGERS).await;
    for (at, fake) in &site.world.hosts {
        let ledger: HostLedger = serde_json::from_str(&ledgers[&paths::ledger(*at)]).unwrap();
        let claims = site.world.documents(&paths::claims(*at)).await;
        let here = u32::from(*at == host);
        assert_eq!((ledger.servers, claims.len()), (here, here as usize));
        let domain = fake.fake.domain(id).unwrap();
        let power = domain.as_ref().map(|domain| domain.power);
        assert_eq!(power, (*at == host).then_some(PowerState::Running));
        if let Some(domain) = domain {
            assert_eq!(domain.spec.generation, server.meta.generation);
            assert_eq!(domain.migration.half, Half::Whole);
        }
    }
}

#[tokio::test]
async fn a_guest_goes_there_and_back_with_its_memory_and_off_to_a_named_host() {
    let site = site().await;
    let id = site.created("web").await;
    let (from, cloud) = (home(&site.server(id).await), &site.world.cloud);
    let to = other(&site, from);
    site.world.hosts[&from].fake.remember(id, 42).unwrap();
    let boots = site.world.hosts[&from].fake.domain(id).unwrap().unwrap().boots;
    for (host, back) in [(to, from), (from, to)] {
        let ended = site.carry(&asked(&site, id).await).await;
        assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
        assert_eq!(ended.result.unwrap()["memory_lost"], json!(false));
        is_on(&site, id, host).await;
        assert!(site.world.hosts[&back].fake.domain(id).unwrap().is_none());
    }
    let domain = site.world.hosts[&from].fake.domain(id).unwrap().unwrap();
    assert_eq!(domain.boots, boots, "it never boots on the way");

    let name = cloud.get_host(&site.admin, to).await.unwrap().value.meta.name;
    let request = MigrateServer {
        host: Some(name.to_string()),
        ..MigrateServer::default()
    };
    let ended = cloud.migrate_server(&site.operator(), id, request).await.unwrap();
    let ended = site.carry(&ended.task).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    is_on(&site, id, to).await;
    let tenant = cloud.live_migrate_server(&site.member, id, LiveMigrateServer::default());
    assert_eq!(tenant.await.unwrap_err().code(), "auth.forbidden");
}

#[tokio::test]
async fn a_server_that_boots_from_a_shared_pool_goes_where_that_is_seen() {
    let mut world = World::new();
    world.share_pool();
    let site = site_in(world).await;
    let boots = ServerVolume {
        image: Some(site.image.to_string()),
        pool: Some("nfs".to_owned()),
        size_gib: Some(1),
        boot: true,
        ..ServerVolume::default()
    };
    for drive in [true, false] {
        let request = CreateServer {
            image: String::new(),
            config_drive: Some(drive),
            volumes: vec![boots.clone()],
            ..server("web", site.image)
        };
        let made = site
            .world
            .cloud
            .create_server(&site.member, request)
            .await
            .unwrap();
        assert_eq!(site.carry(&made.task).await.state, TaskState::Done);
        let id = made.server.id();
        let from = home(&site.server(id).await);
        if drive {
            let (operator, request) = (site.operator(), LiveMigrateServer::default());
            let asked = site.world.cloud.live_migrate_server(&operator, id, request);
            let refused = asked.await.unwrap_err();
            assert_eq!(refused.code(), "server.disk_local");
            assert!(refused.to_string().contains("seed"), "{refused}");
            let gone = site.world.cloud.delete_server(&site.member, id).await.unwrap();
            assert_eq!(site.carry(&gone.task).await.state, TaskState::Done);
            continue;
        }
        let ended = site.carry(&asked(&site, id).await).await;
        assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
        is_on(&site, id, other(&site, from)).await;
    }
}

#[tokio::test]
async fn who_has_local_disks_or_nowhere_to_go_stays() {
    let plain = Site::new().await;
    let id = plain.created("web").await;
    let request = MigrateServer::default();
    let refused = plain
        .world
        .cloud
        .migrate_server(&plain.operator(), id, request)
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), "server.disk_local");
    assert!(refused.to_string().contains("root"), "{refused}");

    let site = site().await;
    let id = site.created("web").await;
    let from = home(&site.server(id).await);
    let disabled = skyloom_cloud::PatchHost {
        enabled: Some(false),
        ..Default::default()
    };
    let cloud = &site.world.cloud;
    cloud
        .patch_host(&site.admin, other(&site, from), disabled)
        .await
        .unwrap();
    let ended = site.carry(&asked(&site, id).await).await;
    assert_eq!(ended.state, TaskState::Failed);
    assert_eq!(ended.reason.unwrap().code, "placement.no_host");
    is_on(&site, id, from).await;
}

/// Carries a migration whose guest writes faster than its memory goes, until `then` was done at its source.
async fn busy(site: &Site, id: ServerId, then: impl AsyncFnOnce(&Site, &Task, HostId)) -> Task {
    let from = home(&site.server(id).await);
    let fake = &site.world.hosts[&from].fake;
    fake.busy_guest(id, true).unwrap();
    let task = asked(site, id).await;
    let mut engine = Engine::new(&site.world).await;
    let hypervisor = fake.hypervisor();
    let meanwhile = async {
        while hypervisor.migration(id).await.unwrap().half != Half::Sending {
            tokio::task::yield_now().await;
        }
        then(site, &task, from).await;
    };
    let (ended, ()) = tokio::join!(engine.carry(&task), meanwhile);
    fake.busy_guest(id, false).unwrap();
    ended
}

async fn forced(site: &Site, id: ServerId) {
    let action = ServerAction::ForceCompleteMigration;
    let cloud = &site.world.cloud;
    cloud.edit_server(&site.operator(), id, action).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_busy_guest_is_forced_over_or_its_migration_is_cancelled() {
    let site = site().await;
    let id = site.created("web").await;
    let from = home(&site.server(id).await);
    let cancelled = busy(&site, id, async |site, task, _| {
        site.world
            .cloud
            .cancel_task(&site.operator(), task.id)
            .await
            .unwrap();
    });
    assert_eq!(cancelled.await.state, TaskState::Cancelled);
    is_on(&site, id, from).await;
    let (operator, force) = (site.operator(), ServerAction::ForceCompleteMigration);
    let early = site.world.cloud.edit_server(&operator, id, force);
    assert_eq!(early.await.unwrap_err().code(), "server.not_migrating");
    let done = busy(&site, id, async |site, _, _| forced(site, id).await).await;
    assert_eq!(done.state, TaskState::Done, "{:?}", done.reason);
    is_on(&site, id, other(&site, from)).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_lost_in_the_passes_leaves_the_guest_where_it_was() {
    let site = site().await;
    let id = site.created("web").await;
    let from = home(&site.server(id).await);
    let ended = busy(&site, id, async |site, _, from| {
        site.world.hosts[&from].fake.lose_stream(id).unwrap();
    });
    let ended = ended.await;
    assert_eq!(ended.state, TaskState::Failed);
    assert_eq!(ended.reason.unwrap().code, "migration.broken");
    is_on(&site, id, from).await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_loses_its_memory_at_the_switch_over_boots_once_and_elsewhere() {
    let site = site().await;
    let id = site.created("web").await;
    let from = home(&site.server(id).await);
    let lost = busy(&site, id, async |site, _, from| {
        let fake = &site.world.hosts[&from].fake;
        fake.fault_for(id, FaultPoint::Stream, Fault::Fail(ErrorKind::Unavailable))
            .unwrap();
        forced(site, id).await;
    });
    let ended = lost.await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    assert_eq!(ended.result.unwrap()["memory_lost"], json!(true));
    is_on(&site, id, other(&site, from)).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_does_not_know_what_arrived_is_believed_only_with_its_destination() {
    let site = site().await;
    let id = site.created("web").await;
    let from = home(&site.server(id).await);
    let unsure = busy(&site, id, async |site, _, from| {
        let fake = &site.world.hosts[&from].fake;
        fake.fault_for(id, FaultPoint::Stream, Fault::Lose).unwrap();
        forced(site, id).await;
    });
    let ended = unsure.await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    assert_eq!(ended.result.unwrap()["memory_lost"], json!(false));
    is_on(&site, id, other(&site, from)).await;
}

#[tokio::test(start_paused = true)]
async fn a_switch_over_that_is_interrupted_goes_on() {
    let site = site().await;
    let id = site.created("web").await;
    let from = home(&site.server(id).await);
    let fake = &site.world.hosts[&from].fake;
    let halfway = Fault::Halfway(ErrorKind::Unavailable);
    fake.fault_for(id, FaultPoint::HandOver, halfway).unwrap();
    let ended = site.carry(&asked(&site, id).await).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    is_on(&site, id, other(&site, from)).await;
}

#[tokio::test]
async fn a_sweep_removes_nothing_of_a_server_that_has_come_back_meanwhile() {
    let site = site().await;
    let id = site.created("web").await;
    let (from, cloud) = (home(&site.server(id).await), &site.world.cloud);
    let to = other(&site, from);
    assert_eq!(site.carry(&asked(&site, id).await).await.state, TaskState::Done);
    let fake = &site.world.hosts[&from].fake;
    let pool = site.world.shared.as_ref().unwrap().pool.storage();
    let disks = pool.contents().unwrap();
    for planned in [false, true] {
        // Something was left behind, a sweep looks at it, and plans to remove it or does not get to that.
        let spec = site.world.hosts[&to].fake.domain(id).unwrap().unwrap().spec;
        fake.hypervisor().define(&spec).await.unwrap();
        let sweep = cloud.sweep_host(&site.admin, from, SweepHost { remove: true });
        let sweep = sweep.await.unwrap().task;
        let mut sweeping = Engine::new(&site.world).await;
        sweeping.drive(&sweep).await;
        sweeping.work_with(|_| Fate::Run).await;
        if planned {
            sweeping.drive(&sweep).await;
        }
        fake.hypervisor().undefine(id, spec.generation).await.unwrap();
        if planned {
            let newer = skyloom_hypervisor::VmSpec {
                generation: spec.generation + 1,
                ..spec.clone()
            };
            fake.hypervisor().define(&newer).await.unwrap();
            assert_eq!(sweeping.carry(&sweep).await.state, TaskState::Failed);
            fake.hypervisor().undefine(id, newer.generation).await.unwrap();
        } else {
            assert_eq!(site.carry(&asked(&site, id).await).await.state, TaskState::Done);
            let ended = Engine::new(&site.world).await.carry(&sweep).await;
            assert_eq!(ended.result.unwrap()["of_nobody"], json!(0));
            is_on(&site, id, from).await;
            assert_eq!(site.carry(&asked(&site, id).await).await.state, TaskState::Done);
        }
        is_on(&site, id, to).await;
        assert_eq!(pool.contents().unwrap(), disks);
    }
}
