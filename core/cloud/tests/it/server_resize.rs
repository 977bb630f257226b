//! Another size of a server: what the host and the quota keep meanwhile, and both ways out.

use std::time::Duration;

use skyloom_cloud::{CreateFlavor, ResizeServer, StopOptions};
use skyloom_identity::{Limit, Limits, Owner, ResourceName, Slot};
use skyloom_model::{
    Claim, HostLedger, PowerState, Resources, Server, ServerAction, ServerId, TaskState, paths,
};

use crate::server_actions::Site;

const SMALL: Resources = Resources {
    vcpus: 1,
    memory_mib: 256,
    disk_gib: 1,
};
const LARGE: Resources = Resources {
    vcpus: 2,
    memory_mib: 128,
    disk_gib: 3,
};
/// Of both the larger.
const BOTH: Resources = Resources {
    vcpus: 2,
    memory_mib: 256,
    disk_gib: 3,
};

async fn flavor(site: &Site, name: &str, size: Resources) {
    let flavor = CreateFlavor {
        name: name.to_owned(),
        vcpus: size.vcpus,
        memory_mib: size.memory_mib,
        disk_gib: size.disk_gib,
        host_labels: Default::default(),
    };
    site.world.cloud.create_flavor(&site.admin, flavor).await.unwrap();
}

fn to(flavor: &str) -> ResizeServer {
    ResizeServer {
        flavor: flavor.to_owned(),
        ..ResizeServer::default()
    }
}

async fn resized(site: &Site, id: ServerId, request: ResizeServer) -> Server {
    let asked = site.world.cloud.resize_server(&site.member, id, request).await;
    let ended = site.carry(&asked.unwrap().task).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    site.server(id).await
}

/// What the host keeps for the server, and what all its claims are together.
async fn kept(site: &Site, id: ServerId) -> (Resources, HostLedger) {
    let claims = site.world.documents(&paths::claims(site.host)).await;
    let claim: Claim = serde_json::from_str(&claims[&paths::claim(site.host, id)]).unwrap();
    let ledgers = site.world.documents(paths::LEDGERS).await;
    let ledger = serde_json::from_str(&ledgers[&paths::ledger(site.host)]).unwrap();
    (claim.resources, ledger)
}

/// What the project is charged, in vCPUs and MiB.
async fn charged(site: &Site) -> (u64, u64) {
    let slot = Slot::load(&site.world.store, Owner::Project(site.member.project)).await;
    let slot = slot.unwrap();
    let used = &slot.ledger().unwrap().used;
    let of = |name| used.of(&ResourceName::new(name).unwrap());
    (of("vcpus"), of("memory_mib"))
}

fn size_of(site: &Site, id: ServerId) -> (u32, u64) {
    let spec = site.domain(id).unwrap().spec;
    (spec.vcpus, spec.memory_mib)
}

#[tokio::test]
async fn a_resize_keeps_the_larger_of_both_sizes_until_it_is_confirmed() {
    let site = Site::new().await;
    flavor(&site, "other", LARGE).await;
    let id = site.created("web").await;
    let boots = site.domain(id).unwrap().boots;
    let server = resized(&site, id, to("other")).await;
    assert_eq!(server.spec.flavor.name.as_str(), "other");
    assert!(server.status.overlays.resized && server.pending_restart().is_empty());
    assert_eq!(server.status.power, PowerState::Running);
    assert_eq!(size_of(&site, id), (2, 128));
    assert_eq!(site.domain(id).unwrap().boots, boots + 1);
    let (claim, ledger) = kept(&site, id).await;
    assert_eq!((claim, ledger.used, ledger.servers), (BOTH, BOTH, 1));
    assert_eq!(charged(&site).await, (2, 256));
    let resize = server.status.resize.unwrap();
    assert_eq!(resize.former.spec.resources, SMALL);
    assert!(resize.confirm_at.is_some());

    let cloud = &site.world.cloud;
    let again = cloud.resize_server(&site.member, id, to("m1.tiny")).await;
    assert_eq!(again.unwrap_err().code(), "server.resized");
    let server = site.act(id, ServerAction::ConfirmResize).await;
    assert!(!server.status.overlays.resized && server.status.resize.is_none());
    assert_eq!(
        site.domain(id).unwrap().boots,
        boots + 1,
        "the guest is left alone"
    );
    let (claim, ledger) = kept(&site, id).await;
    assert_eq!((claim, ledger.used, ledger.servers), (LARGE, LARGE, 1));
    assert_eq!(charged(&site).await, (2, 128));
    for action in [ServerAction::ConfirmResize, ServerAction::RevertResize] {
        let late = cloud
            .act_on_server(&site.member, id, action, serde_json::Value::Null)
            .await;
        assert_eq!(late.unwrap_err().code(), "server.not_resized");
    }
}

#[tokio::test]
async fn a_revert_gives_back_all_but_the_disk_that_has_grown() {
    let site = Site::new().await;
    flavor(&site, "other", LARGE).await;
    let id = site.created("web").await;
    let before = site.server(id).await;
    resized(&site, id, to("other")).await;
    site.act(id, ServerAction::Pause).await;
    let cloud = &site.world.cloud;
    let held = cloud
        .revert_resize(&site.member, id, StopOptions::default())
        .await;
    assert_eq!(held.unwrap_err().code(), "server.wrong_power_state");
    site.act(id, ServerAction::Unpause).await;
    let asked = cloud
        .revert_resize(&site.member, id, StopOptions::default())
        .await;
    assert_eq!(site.carry(&asked.unwrap().task).await.state, TaskState::Done);
    let server = site.server(id).await;
    assert_eq!(server.spec.flavor.id, before.spec.flavor.id);
    let size = Resources {
        disk_gib: LARGE.disk_gib,
        ..SMALL
    };
    assert_eq!(
        server.spec.flavor.spec.resources, size,
        "the disk does not shrink"
    );
    assert!(!server.status.overlays.resized && server.status.resize.is_none());
    assert_eq!(server.status.power, PowerState::Running);
    assert_eq!(size_of(&site, id), (1, 256));
    let (claim, ledger) = kept(&site, id).await;
    assert_eq!((claim, ledger.used), (size, size));
    assert_eq!(charged(&site).await, (1, 256));
}

#[tokio::test]
async fn a_host_without_room_leaves_the_server_as_it_was() {
    let site = Site::new().await;
    let huge = Resources {
        memory_mib: 1 << 23,
        ..LARGE
    };
    flavor(&site, "huge", huge).await;
    // The project may have as much: it is the host that has no room.
    let owner = Owner::Project(site.member.project);
    let slot = Slot::load(&site.world.store, owner).await.unwrap();
    let memory = ResourceName::new("memory_mib").unwrap();
    let limits = Limits::new().with(memory.clone(), Limit::Most(1 << 24));
    let txn = slot.set_limits(limits, Limits::new()).unwrap();
    assert!(site.world.store.commit(txn).await.unwrap().committed().is_some());
    let id = site.created("web").await;
    let (before, boots) = (site.server(id).await, site.domain(id).unwrap().boots);
    let asked = site.world.cloud.resize_server(&site.member, id, to("huge")).await;
    assert_eq!(charged(&site).await, (2, 1 << 23), "charged with the request");
    let ended = site.carry(&asked.unwrap().task).await;
    assert_eq!(ended.state, TaskState::Failed);
    let after = site.server(id).await;
    assert_eq!(after.spec.flavor, before.spec.flavor);
    assert!(after.status.resize.is_none() && !after.status.overlays.resized);
    assert_eq!(after.status.fault.unwrap().code, ended.reason.unwrap().code);
    assert_eq!(
        site.domain(id).unwrap().boots,
        boots,
        "the guest was not stopped for it"
    );
    assert_eq!(kept(&site, id).await.0, SMALL);
    assert_eq!(charged(&site).await, (1, 256));

    let slot = Slot::load(&site.world.store, owner).await.unwrap();
    let limits = Limits::new().with(memory, Limit::Most(300));
    let txn = slot.set_limits(limits, Limits::new()).unwrap();
    assert!(site.world.store.commit(txn).await.unwrap().committed().is_some());
    let refused = site.world.cloud.resize_server(&site.member, id, to("huge")).await;
    assert_eq!(refused.unwrap_err().code(), "quota.exceeded");
}

#[tokio::test]
async fn what_nobody_answers_is_confirmed_by_itself_once() {
    let site = Site::new().await;
    flavor(&site, "other", LARGE).await;
    let (timed, never) = (site.created("timed").await, site.created("never").await);
    let soon = ResizeServer {
        confirm_after_seconds: Some(120),
        ..to("other")
    };
    resized(&site, timed, soon).await;
    let waits = ResizeServer {
        confirm_after_seconds: Some(0),
        ..to("other")
    };
    let server = resized(&site, never, waits).await;
    assert_eq!(server.status.resize.unwrap().confirm_at, None);
    let cloud = &site.world.cloud;
    assert_eq!(cloud.see_to_timers().await.unwrap(), 0);
    site.world.clock.advance(Duration::from_secs(121));
    assert_eq!(cloud.see_to_timers().await.unwrap(), 1);
    assert_eq!(cloud.see_to_timers().await.unwrap(), 0);
    let task = site.server(timed).await.status.activity.unwrap().task;
    let task = cloud.get_task(&site.member, task).await.unwrap().value;
    assert_eq!(
        (task.flow.as_str(), site.carry(&task).await.state),
        ("server.confirm-resize", TaskState::Done)
    );
    assert!(!site.server(timed).await.status.overlays.resized);
    assert!(site.server(never).await.status.overlays.resized);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_before_there_is_a_task() {
    let site = Site::new().await;
    flavor(&site, "other", LARGE).await;
    flavor(&site, "alike", SMALL).await;
    let id = site.created("web").await;
    let cloud = &site.world.cloud;
    let quick = ResizeServer {
        confirm_after_seconds: Some(5),
        ..to("other")
    };
    for (request, code) in [
        (to("none"), "flavor.not_found"),
        (to("alike"), "flavor.same"),
        (quick, "confirm_after_seconds.invalid"),
    ] {
        let refused = cloud.resize_server(&site.member, id, request).await.unwrap_err();
        assert_eq!(refused.code(), code);
    }
    resized(&site, id, to("other")).await;
    site.act(id, ServerAction::ConfirmResize).await;
    let refused = cloud.resize_server(&site.member, id, to("alike")).await;
    assert_eq!(refused.unwrap_err().code(), "flavor.disk_smaller");
}

#[tokio::test]
async fn a_server_that_is_deleted_while_it_waits_gives_back_all() {
    let site = Site::new().await;
    flavor(&site, "other", LARGE).await;
    let id = site.created("web").await;
    resized(&site, id, to("other")).await;
    let asked = site.world.cloud.delete_server(&site.member, id).await.unwrap();
    assert_eq!(site.carry(&asked.task).await.state, TaskState::Done);
    assert_eq!(charged(&site).await, (0, 0));
    let ledgers = site.world.documents(paths::LEDGERS).await;
    let ledger: HostLedger = serde_json::from_str(&ledgers[&paths::ledger(site.host)]).unwrap();
    assert_eq!(ledger, HostLedger::default());
}
