//! The hold: who may set it, what it stops, and what must be so before it is released.

use skyloom_cloud::custody::DifferenceKind;
use skyloom_cloud::{CreateFlavor, CreateHost, ErrorKind, ListQuery, PatchHost};
use skyloom_model::{
    EventKind, Guest, GuestReport, HostId, PowerState, Resource as _, ServerId, Timestamp, paths,
};
use skyloom_store::{Txn, Value};
use uuid::Uuid;

use crate::stage::cloud;
use crate::world::{World, key};

fn flavor(name: &str) -> CreateFlavor {
    serde_json::from_value(serde_json::json!({ "name": name, "vcpus": 1, "memory_mib": 64, "disk_gib": 1 }))
        .unwrap()
}

async fn report(world: &World, host: HostId, hold: Option<Uuid>, guests: Vec<Guest>) {
    let report = GuestReport {
        incarnation: None,
        hold,
        at: Timestamp::UNIX_EPOCH,
        guests,
        more: false,
    };
    let put = Txn::new().put(key(&paths::guests(host)), Value::json(&report).unwrap());
    world.store.commit(put).await.unwrap();
}

#[tokio::test]
async fn while_held_changes_are_refused_and_reading_and_operating_work() {
    let world = cloud(0).await;
    let admin = world.admin().await;
    let member = world.member(&admin, "p").await;
    let request = CreateHost {
        name: "h".into(),
        ..CreateHost::default()
    };
    let host = world.cloud.create_host(&admin, request).await.unwrap().host.id();
    assert_eq!(
        world.cloud.set_hold(&member, "x").await.unwrap_err().kind(),
        ErrorKind::Denied
    );
    assert_eq!(
        world.cloud.set_hold(&admin, " ").await.unwrap_err().code(),
        "reason.invalid"
    );
    let status = world.cloud.set_hold(&admin, "maintenance").await.unwrap();
    assert_eq!(status.hold.unwrap().reason, "maintenance");
    assert_eq!(
        world.cloud.set_hold(&admin, "again").await.unwrap_err().code(),
        "hold.already"
    );

    let refused = world.cloud.create_flavor(&admin, flavor("f")).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.code()),
        (ErrorKind::Unavailable, "fleet.held")
    );
    assert!(refused.wait().is_some() && refused.reason().retryable);
    assert!(refused.reason().message.contains("maintenance"));
    world
        .cloud
        .list_hosts(&admin, &ListQuery::default())
        .await
        .unwrap();
    let patch = PatchHost {
        enabled: Some(false),
        ..PatchHost::default()
    };
    world.cloud.patch_host(&admin, host, patch).await.unwrap();

    let refused = world.cloud.release_hold(&member, true).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied);
    world.cloud.release_hold(&admin, true).await.unwrap();
    assert_eq!(
        world.cloud.release_hold(&admin, true).await.unwrap_err().code(),
        "hold.none"
    );
    world.cloud.create_flavor(&admin, flavor("f")).await.unwrap();
    let events = world.documents("events").await;
    let kinds: Vec<EventKind> = events
        .values()
        .map(|e| serde_json::from_str::<skyloom_model::Event>(e).unwrap().kind)
        .filter(|k| matches!(k, EventKind::FleetHeld | EventKind::FleetReleased))
        .collect();
    assert_eq!(kinds, [EventKind::FleetHeld, EventKind::FleetReleased]);
}

#[tokio::test]
async fn a_release_wants_every_host_to_have_reported_under_this_hold_and_no_difference() {
    let world = cloud(0).await;
    let admin = world.admin().await;
    let request = CreateHost {
        name: "h".into(),
        ..CreateHost::default()
    };
    let host = world.cloud.create_host(&admin, request).await.unwrap().host.id();
    report(&world, host, None, Vec::new()).await;
    world.cloud.set_hold(&admin, "a").await.unwrap();
    let status = world.cloud.hold_status(&admin).await.unwrap();
    assert_eq!(
        status.silent_hosts.iter().map(|h| h.host).collect::<Vec<_>>(),
        [host]
    );
    let refused = world.cloud.release_hold(&admin, false).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.code()),
        (ErrorKind::Conflict, "hold.differences")
    );

    let hold = status.hold.unwrap().id;
    let stranger = Guest {
        server: ServerId::from_uuid(Uuid::from_u128(5)),
        generation: Some(1),
        power: PowerState::Running,
    };
    report(&world, host, Some(hold), vec![stranger.clone()]).await;
    let status = world.cloud.hold_status(&admin).await.unwrap();
    assert!(status.silent_hosts.is_empty());
    let found: Vec<_> = status.differences.iter().map(|d| (d.kind, d.server)).collect();
    assert_eq!(found, [(DifferenceKind::Unknown, stranger.server)]);
    assert!(world.cloud.release_hold(&admin, false).await.is_err());

    report(&world, host, Some(hold), Vec::new()).await;
    world.cloud.release_hold(&admin, false).await.unwrap();
    assert!(world.cloud.hold_status(&admin).await.unwrap().hold.is_none());
}

#[tokio::test]
async fn only_administrators_adopt_and_only_under_a_hold() {
    let world = cloud(0).await;
    let admin = world.admin().await;
    let member = world.member(&admin, "p").await;
    let refused = world.cloud.adopt_guests(&member).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied);
    let refused = world.cloud.adopt_guests(&admin).await.unwrap_err();
    assert_eq!(refused.code(), "hold.none");
    world.cloud.set_hold(&admin, "a").await.unwrap();
    let adopted = world.cloud.adopt_guests(&admin).await.unwrap();
    assert!(adopted.servers.is_empty() && !adopted.more);
}
