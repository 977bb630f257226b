//! Hosts that are off: their servers come back to life elsewhere or go without them, and they come back empty.

use skyloom_cloud::{Caller, EvacuateServer, FenceHost};
use skyloom_model::{
    Host, HostId, HostLedger, PowerState, Resource as _, Scope, Server, ServerAction, ServerId, TaskState,
    paths,
};

use skyloom_hypervisor::HostStorage as _;

use crate::engine::active_image;
use crate::server_actions::Site;
use crate::world::World;

/// Two hosts, which see the same disks if they are `shared`.
async fn site(shared: bool) -> Site {
    let mut world = World::new();
    if shared {
        world.share_disks();
    }
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    let host = world.host(&admin, "a").await;
    let image = active_image(&world, &member).await;
    Site {
        world,
        admin,
        member,
        host,
        image,
    }
}

fn off() -> FenceHost {
    FenceHost {
        why: "its cord is pulled".to_owned(),
        is_off: true,
    }
}

async fn code<T: std::fmt::Debug>(asked: impl Future<Output = skyloom_cloud::Result<T>>) -> String {
    asked.await.unwrap_err().code().to_owned()
}

/// The host dies with its guests.
async fn dies(site: &Site, id: ServerId) {
    site.world.hosts[&site.host].fake.crash_guest(id).unwrap();
    site.world.lose(site.host).await;
    let at = paths::resource(Server::KIND, Scope::Project(site.member.project), id.uuid());
    let unreachable = |server: &mut Server| server.status.overlays.host_unreachable = true;
    site.world.edit(&at, unreachable).await;
}

/// Its agent reports again.
async fn back(site: &Site) {
    let at = paths::resource(Host::KIND, Scope::System, site.host.uuid());
    let reports = |host: &mut Host| host.status.reachable = true;
    site.world.edit(&at, reports).await;
}

async fn ledger(site: &Site, host: HostId) -> HostLedger {
    let documents = site.world.documents(paths::LEDGERS).await;
    serde_json::from_str(&documents[&paths::ledger(host)]).unwrap()
}

#[tokio::test]
async fn servers_of_a_host_that_is_off_run_elsewhere_and_it_comes_back_empty() {
    let mut site = site(true).await;
    let id = site.created("web").await;
    let b = site.world.host(&site.admin.clone(), "b").await;
    let (a, operator) = (site.host, site.operator());
    let cloud = site.world.cloud.clone();

    // Not before somebody has made sure that it is off.
    assert_eq!(
        code(cloud.fence_host(&site.admin, a, off())).await,
        "host.reports"
    );
    dies(&site, id).await;
    let unsure = FenceHost {
        is_off: false,
        ..off()
    };
    assert_eq!(
        code(cloud.fence_host(&site.admin, a, unsure)).await,
        "fence.not_confirmed"
    );
    let evacuate = || cloud.evacuate_server(&operator, id, EvacuateServer::default());
    assert_eq!(code(evacuate()).await, "host.not_fenced");
    assert_eq!(code(cloud.evacuate_host(&site.admin, a)).await, "host.not_fenced");
    assert_eq!(
        code(cloud.fence_host(&site.member, a, off())).await,
        "host.not_found"
    );

    let fenced = cloud.fence_host(&site.admin, a, off()).await.unwrap();
    assert_eq!(fenced.spec.fenced.unwrap().why, "its cord is pulled");
    let tenant = cloud.evacuate_server(&site.member, id, EvacuateServer::default());
    assert_eq!(code(tenant).await, "auth.forbidden");
    let asked = cloud.evacuate_host(&site.admin, a).await.unwrap();
    assert_eq!((asked.items.len(), asked.refused), (1, 0));
    let ended = site.carry(asked.items[0].task.as_ref().unwrap()).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    let server = site.server(id).await;
    assert_eq!(server.status.placement.as_ref().unwrap().host, b);
    assert_eq!(server.status.power, PowerState::Running);
    assert!(!server.status.overlays.host_unreachable && server.status.migration.is_none());
    assert_eq!(
        (ledger(&site, a).await.servers, ledger(&site, b).await.servers),
        (0, 1)
    );
    let there = site.world.hosts[&b].fake.domain(id).unwrap().unwrap();
    assert_eq!(
        (there.power, there.spec.generation),
        (PowerState::Running, server.meta.generation)
    );

    // It comes back with what it had, which is removed; the disks are those of the server that runs.
    let swept = cloud.unfence_host(&site.admin, a).await.unwrap().task;
    back(&site).await;
    assert!(site.world.hosts[&a].fake.domain(id).unwrap().is_some());
    let ended = site.carry(&swept).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    assert_eq!(ended.result.unwrap()["removed"], 1);
    assert!(site.world.hosts[&a].fake.domain(id).unwrap().is_none());
    let host = cloud.get_host(&site.admin, a).await.unwrap().value;
    assert!(host.spec.fenced.is_none() && !host.spec.enabled);
    let restarted = site.act(id, ServerAction::HardReboot).await;
    assert_eq!(restarted.status.power, PowerState::Running);
    assert_eq!(code(cloud.unfence_host(&site.admin, a)).await, "host.not_fenced");
}

#[tokio::test]
async fn nothing_is_placed_on_a_fenced_host_and_a_fence_that_is_gone_stops_an_evacuation() {
    let mut site = site(true).await;
    let id = site.created("web").await;
    let cloud = site.world.cloud.clone();
    dies(&site, id).await;
    cloud.fence_host(&site.admin, site.host, off()).await.unwrap();
    back(&site).await;
    let refused = cloud
        .create_server(&site.member, crate::world::server("db", site.image))
        .await;
    let ended = site.carry(&refused.unwrap().task).await;
    assert_eq!(
        (ended.state, ended.reason.unwrap().code.as_str()),
        (TaskState::Failed, "placement.no_host")
    );

    site.world.host(&site.admin.clone(), "b").await;
    let asked = cloud
        .evacuate_server(&site.operator(), id, EvacuateServer::default())
        .await;
    cloud.unfence_host(&site.admin, site.host).await.unwrap();
    let ended = site.carry(&asked.unwrap().task).await;
    assert_eq!(
        (ended.state, ended.reason.unwrap().code.as_str()),
        (TaskState::Failed, "host.not_fenced")
    );
    let server = site.server(id).await;
    assert_eq!(server.status.placement.unwrap().host, site.host);
    assert!(server.spec.running, "it is wanted on as before");
}

#[tokio::test]
async fn a_server_goes_without_its_host_and_what_was_there_goes_when_it_is_back() {
    for shared in [false, true] {
        let mut site = site(shared).await;
        let id = site.created("web").await;
        site.world.host(&site.admin.clone(), "b").await;
        let (cloud, a) = (site.world.cloud.clone(), site.host);
        dies(&site, id).await;
        cloud.fence_host(&site.admin, a, off()).await.unwrap();
        if !shared {
            let operator = site.operator();
            let refused = cloud.evacuate_server(&operator, id, EvacuateServer::default());
            assert_eq!(code(refused).await, "server.disk_local");
        }
        let member: &Caller = &site.member;
        let gone = cloud
            .simple_action(member, id, ServerAction::Purge)
            .await
            .unwrap();
        let ended = site.carry(&gone.task).await;
        assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
        assert_eq!(code(cloud.get_server(member, id)).await, "server.not_found");
        assert_eq!(ledger(&site, a).await, HostLedger::default());
        let disks = async || {
            let fake = &site.world.hosts[&a].fake;
            site.world.pool(fake).storage().disks(id).await.unwrap().len()
        };
        assert_eq!(
            disks().await == 0,
            shared,
            "another host that sees them removes them"
        );
        assert!(site.domain(id).is_some());

        let swept = cloud.unfence_host(&site.admin, a).await.unwrap().task;
        back(&site).await;
        let ended = site.carry(&swept).await;
        assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
        assert!(site.domain(id).is_none());
        assert_eq!(disks().await, 0);
    }
}
