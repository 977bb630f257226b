//! Servers that are put away as images and made again: what stays theirs, what their hosts have back, and what is refused meanwhile.

use std::time::Duration;

use skyloom_cloud::{AttachVolume, CreateServer, CreateVolume, PatchHost, StopOptions};
use skyloom_hypervisor::{ErrorKind as HostError, FaultPoint};
use skyloom_identity::{Owner, ResourceName, Slot};
use skyloom_model::{
    HostLedger, ImageSource, ImageState, Lifecycle, PowerState, Resource as _, Server, ServerAction,
    ServerId, Task, TaskState, VolumeId, paths,
};

use crate::server_actions::Site;
use crate::world::{list, server};

const QUICK: StopOptions = StopOptions {
    force: true,
    timeout_seconds: None,
};

async fn shelve(site: &Site, id: ServerId) -> Task {
    let asked = site.world.cloud.shelve_server(&site.member, id, QUICK).await;
    site.carry(&asked.unwrap().task).await
}

/// What the cloud asks for by itself now, carried to its end.
async fn by_itself(site: &Site, id: ServerId) -> Server {
    assert_eq!(site.world.cloud.see_to_timers().await.unwrap(), 1);
    let task = site.server(id).await.status.activity.unwrap().task;
    let task = site.world.cloud.get_task(&site.member, task).await.unwrap().value;
    let ended = site.carry(&task).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    site.server(id).await
}

/// Put away, and gone from its host.
async fn put_away(site: &Site, id: ServerId) -> Server {
    let ended = shelve(site, id).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    by_itself(site, id).await
}

async fn refused(site: &Site, id: ServerId, action: ServerAction) -> String {
    let asked = site.world.cloud.simple_action(&site.member, id, action).await;
    asked.unwrap_err().code().to_owned()
}

/// What the project is charged for images.
async fn images(site: &Site) -> u64 {
    let slot = Slot::load(&site.world.store, Owner::Project(site.member.project)).await;
    let slot = slot.unwrap();
    let used = &slot.ledger().unwrap().used;
    used.of(&ResourceName::new("images").unwrap())
}

async fn ledger(site: &Site) -> HostLedger {
    let ledgers = site.world.documents(paths::LEDGERS).await;
    serde_json::from_str(&ledgers[&paths::ledger(site.host)]).unwrap()
}

async fn volume(site: &Site, server: ServerId) -> VolumeId {
    let request = CreateVolume {
        name: "data".to_owned(),
        size_gib: Some(1),
        server: Some(server),
        ..CreateVolume::default()
    };
    let made = site.world.cloud.create_volume(&site.member, request).await;
    let made = made.unwrap();
    assert_eq!(site.carry(&made.task).await.state, TaskState::Done);
    let attach = AttachVolume {
        server,
        delete_with_server: false,
    };
    let id = made.volume.id();
    let asked = site.world.cloud.attach_volume(&site.member, id, attach).await;
    assert_eq!(site.carry(&asked.unwrap().task).await.state, TaskState::Done);
    id
}

#[tokio::test]
async fn a_server_is_put_away_and_made_again_elsewhere() {
    let mut site = Site::new().await;
    let id = site.created("web").await;
    let before = site.server(id).await;
    let (charged, free) = (images(&site).await, HostLedger::default());

    let ended = shelve(&site, id).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    let shelved = site.server(id).await;
    assert_eq!(
        (shelved.status.lifecycle, shelved.status.power),
        (Lifecycle::Shelved, PowerState::Stopped)
    );
    assert_eq!(images(&site).await, charged + 1);
    let kept = shelved.status.own_image.unwrap();
    let image = site
        .world
        .cloud
        .get_image(&site.member, kept)
        .await
        .unwrap()
        .value;
    assert_eq!(image.meta.name.as_str(), "web-shelved");
    assert_eq!(image.spec.source, ImageSource::Server { server: id });
    assert_eq!(image.status.state, ImageState::Active);
    assert_eq!(
        refused(&site, id, ServerAction::Unshelve).await,
        "server.offloading"
    );
    assert_eq!(refused(&site, id, ServerAction::Start).await, "server.shelved");

    let away = by_itself(&site, id).await;
    assert_eq!(away.status.placement, None);
    assert_eq!(site.world.hosts[&site.host].fake.holdings().unwrap().len(), 0);
    assert_eq!(ledger(&site).await, free);
    assert_eq!(
        (&away.spec.ports, &away.status.addresses),
        (&before.spec.ports, &before.status.addresses)
    );
    let port = site.world.cloud.get_port(&site.member, away.spec.ports[0]).await;
    assert!(!port.unwrap().value.status.bound);
    let code = site
        .world
        .cloud
        .delete_image(&site.member, kept)
        .await
        .unwrap_err();
    assert_eq!(code.code(), "image.in_use");
    assert_eq!(
        refused(&site, id, ServerAction::Offload).await,
        "server.not_placed"
    );

    let full = PatchHost {
        enabled: Some(false),
        ..PatchHost::default()
    };
    let host = site.host;
    site.world
        .cloud
        .patch_host(&site.admin, host, full)
        .await
        .unwrap();
    let admin = site.admin.clone();
    let other = site.world.host(&admin, "h2").await;
    let back = site.act(id, ServerAction::Unshelve).await;
    assert_eq!(
        (back.status.lifecycle, back.status.power, back.spec.running),
        (Lifecycle::Active, PowerState::Running, true)
    );
    assert_eq!(back.status.placement.as_ref().unwrap().host, other);
    let why = site
        .world
        .cloud
        .server_placement(&site.operator(), id)
        .await
        .unwrap();
    let chosen = why.placement.unwrap();
    let unshelve = site.world.cloud.get_task(&site.member, why.task.unwrap()).await;
    assert_eq!(unshelve.unwrap().value.flow, "server.unshelve");
    assert!(chosen.to_string().contains("h2"), "{chosen:#}");
    assert_eq!(
        back.spec.image, before.spec.image,
        "what it was made of stays said"
    );
    assert_eq!(back.status.addresses, before.status.addresses);
    let again = site.world.cloud.shelve_server(&site.member, id, QUICK).await;
    assert_eq!(again.unwrap_err().code(), "server.tidying");

    let tidy = by_itself(&site, id).await;
    assert_eq!(tidy.status.own_image, None);
    assert_eq!(images(&site).await, charged);
    let left = site.world.cloud.list_images(&site.member, &list()).await.unwrap();
    assert!(left.items.iter().all(|image| image.id() != kept));
    site.world.clock.advance(Duration::from_secs(60));
    assert_eq!(put_away(&site, id).await.status.placement, None, "and again");
}

#[tokio::test]
async fn what_fails_leaves_the_server_as_it_was() {
    let site = Site::new().await;
    let id = site.created("web").await;
    let charged = images(&site).await;
    let fake = &site.world.hosts[&site.host].fake;
    for _ in 0..3 {
        fake.fail_next(FaultPoint::CreateVolume, HostError::Invalid)
            .unwrap();
    }
    let ended = shelve(&site, id).await;
    assert_eq!(ended.state, TaskState::Failed);
    let now = site.server(id).await;
    assert_eq!(
        (now.status.lifecycle, now.status.power),
        (Lifecycle::Active, PowerState::Running)
    );
    assert_eq!(now.status.own_image, None);
    assert!(now.status.fault.is_some() && now.spec.running);
    assert_eq!(images(&site).await, charged);
    assert!(site.domain(id).unwrap().snapshots.is_empty());
    assert_eq!(site.world.cloud.see_to_timers().await.unwrap(), 0);
}

#[tokio::test]
async fn a_local_volume_binds_a_shelved_server_to_its_host() {
    let mut site = Site::new().await;
    let id = site.created("web").await;
    let volume = volume(&site, id).await;
    let away = put_away(&site, id).await;
    assert_eq!(away.status.volumes, [volume]);
    assert_eq!(ledger(&site).await.volume_gib, 1, "the volume keeps its room");

    let admin = site.admin.clone();
    site.world.host(&admin, "h2").await;
    let closed = |enabled| PatchHost {
        enabled: Some(enabled),
        ..PatchHost::default()
    };
    let host = site.host;
    let cloud = &site.world.cloud;
    cloud.patch_host(&admin, host, closed(false)).await.unwrap();
    let asked = cloud
        .simple_action(&site.member, id, ServerAction::Unshelve)
        .await
        .unwrap();
    let ended = site.carry(&asked.task).await;
    assert_eq!(ended.reason.unwrap().code, "placement.no_host");
    let still = site.server(id).await;
    assert_eq!(still.status.lifecycle, Lifecycle::Shelved);
    assert!(still.status.own_image.is_some() && still.status.placement.is_none() && !still.spec.running);

    cloud.patch_host(&admin, host, closed(true)).await.unwrap();
    let back = site.act(id, ServerAction::Unshelve).await;
    assert_eq!(back.status.placement.unwrap().host, host);
    assert_eq!(back.status.volumes, [volume]);
    assert_eq!(
        site.domain(id).unwrap().spec.disks.len(),
        3,
        "root, config drive and volume"
    );
}

#[tokio::test]
async fn a_shelved_server_is_deleted_with_its_image() {
    let site = Site::new().await;
    let charged = images(&site).await;
    let id = site.created("web").await;
    put_away(&site, id).await;
    let gone = site.world.cloud.delete_server(&site.member, id).await.unwrap();
    assert_eq!(site.carry(&gone.task).await.state, TaskState::Done);
    assert_eq!(images(&site).await, charged);
    let servers = site.world.cloud.list_servers(&site.member, &list()).await;
    assert!(servers.unwrap().items.is_empty());
    assert_eq!(site.world.cloud.recount_quotas(&site.admin).await.unwrap(), []);
}

#[tokio::test]
async fn a_server_that_boots_from_a_volume_needs_no_image() {
    let site = Site::new().await;
    let charged = images(&site).await;
    let request = CreateServer {
        volumes: vec![skyloom_cloud::ServerVolume {
            image: Some(site.image.to_string()),
            boot: true,
            ..Default::default()
        }],
        image: String::new(),
        ..server("web", site.image)
    };
    let made = site.world.cloud.create_server(&site.member, request).await;
    let made = made.unwrap();
    assert_eq!(site.carry(&made.task).await.state, TaskState::Done);
    let id = made.server.id();
    let away = put_away(&site, id).await;
    assert_eq!(
        (away.status.own_image, images(&site).await),
        (None, charged),
        "its volume is all there is"
    );
    let back = site.act(id, ServerAction::Unshelve).await;
    assert_eq!(back.status.power, PowerState::Running);
    assert_eq!(back.spec.boot_volume, Some(back.status.volumes[0]));
}

fn cloned(of: ServerId) -> CreateServer {
    CreateServer {
        name: Some("twin".to_owned()),
        clone_of: Some(of),
        ..CreateServer::default()
    }
}

#[tokio::test]
async fn a_clone_is_like_the_other_and_shares_nothing_with_it() {
    let site = Site::new().await;
    let request = CreateServer {
        labels: [("env".to_owned(), "test".to_owned())].into(),
        metadata: [("role".to_owned(), "web".to_owned())].into(),
        ..server("web", site.image)
    };
    let cloud = &site.world.cloud;
    let made = cloud.create_server(&site.member, request).await.unwrap();
    assert_eq!(site.carry(&made.task).await.state, TaskState::Done);
    let (id, charged) = (made.server.id(), images(&site).await);
    let boots = site.domain(id).unwrap().boots;

    let asked = cloud.create_server(&site.member, cloned(id)).await.unwrap();
    assert!(asked.password.is_some(), "one of its own");
    assert_eq!(refused(&site, id, ServerAction::Pause).await, "server.busy");
    let ended = site.carry(&asked.task).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    let (other, twin) = (site.server(id).await, site.server(asked.server.id()).await);
    assert_eq!(other.status.activity, None);
    assert_eq!(site.domain(id).unwrap().boots, boots, "the other went on");
    assert_eq!(
        (twin.status.lifecycle, twin.status.power),
        (Lifecycle::Active, PowerState::Running)
    );
    assert_eq!(
        (
            &twin.meta.labels,
            &twin.spec.metadata,
            &twin.spec.flavor,
            &twin.spec.image
        ),
        (
            &other.meta.labels,
            &other.spec.metadata,
            &other.spec.flavor,
            &other.spec.image
        )
    );
    assert_ne!(twin.spec.ports, other.spec.ports);
    assert_eq!(twin.spec.hostname.as_str(), "twin");
    let why = cloud.server_placement(&site.member, twin.id()).await.unwrap();
    assert_eq!(why.task, Some(asked.task.id));
    assert!(why.placement.is_some());
    let tidy = by_itself(&site, twin.id()).await;
    assert_eq!((tidy.status.own_image, images(&site).await), (None, charged));
    let gone = cloud.delete_server(&site.member, id).await.unwrap();
    assert_eq!(site.carry(&gone.task).await.state, TaskState::Done);
    assert_eq!(
        site.act(twin.id(), ServerAction::HardReboot).await.status.power,
        PowerState::Running
    );
    assert_eq!(cloud.recount_quotas(&site.admin).await.unwrap(), []);
}

#[tokio::test]
async fn what_a_clone_cannot_be_is_refused_and_changes_nothing() {
    let site = Site::new().await;
    let id = site.created("web").await;
    let cloud = &site.world.cloud;
    let small = skyloom_cloud::CreateFlavor {
        name: "m1.nothing".to_owned(),
        vcpus: 1,
        memory_mib: 64,
        disk_gib: 0,
        host_labels: Default::default(),
    };
    let small = cloud.create_flavor(&site.admin, small).await;
    let before = site.world.documents("").await.len();
    let mut wrong = vec![
        (
            "clone.ambiguous",
            CreateServer {
                image: site.image.to_string(),
                ..cloned(id)
            },
        ),
        (
            "clone.cannot_wait",
            CreateServer {
                wait_for_room_seconds: Some(60),
                ..cloned(id)
            },
        ),
    ];
    if let Ok(small) = small {
        let flavor = small.id().to_string();
        wrong.push(("flavor.disk_smaller", CreateServer { flavor, ..cloned(id) }));
    }
    for (code, request) in wrong {
        let error = cloud.create_server(&site.member, request).await.unwrap_err();
        assert_eq!(error.wrong_fields()[0].code, code);
    }
    let nobodys = ServerId::from_uuid(site.image.uuid());
    let error = cloud.create_server(&site.member, cloned(nobodys)).await;
    assert_eq!(error.unwrap_err().code(), "server.not_found");
    assert_eq!(site.world.documents("").await.len(), before);
}
