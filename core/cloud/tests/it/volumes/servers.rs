//! Servers that are made with volumes: those that are there, those that are made with them, and those that they boot from.

use skyloom_cloud::{CreateServer, ErrorKind, RebuildServer, ServerVolume};
use skyloom_hypervisor::{Fault, FaultPoint, HostStorage as _};
use skyloom_model::{Lifecycle, Resource as _, TaskState, VolumeId, VolumeState, disk_of};

use super::{Shop, amounts, refused};
use crate::world::server;

fn there(volume: VolumeId) -> ServerVolume {
    ServerVolume {
        volume: Some(volume),
        ..ServerVolume::default()
    }
}

fn blank(gib: u64, delete_with_server: bool) -> ServerVolume {
    ServerVolume {
        size_gib: Some(gib),
        delete_with_server,
        ..ServerVolume::default()
    }
}

impl Shop {
    fn with(&self, volumes: Vec<ServerVolume>) -> CreateServer {
        CreateServer {
            config_drive: Some(false),
            volumes,
            ..server("more", self.image)
        }
    }

    fn booting_from(&self, volumes: Vec<ServerVolume>) -> CreateServer {
        CreateServer {
            image: String::new(),
            ..self.with(volumes)
        }
    }

    fn boot(&self, ends: bool) -> ServerVolume {
        ServerVolume {
            image: Some(self.image.to_string()),
            boot: true,
            delete_with_server: ends,
            ..ServerVolume::default()
        }
    }
}

#[tokio::test]
async fn a_server_is_made_with_volumes_that_are_there_and_with_new_ones() {
    let mut shop = Shop::open().await;
    let old = shop.volume("data").await;
    let admin = shop.world.admin().await;
    // Empty, so it would be chosen.
    shop.world.host(&admin, "emptier").await;
    let asked = shop.with(vec![there(old), blank(3, false)]);
    let made = shop.world.cloud.create_server(&shop.member, asked).await.unwrap();
    // Before anything is done.
    let [first, second] = made.server.status.volumes[..] else {
        panic!("two volumes");
    };
    assert_eq!(first, old);
    let new = shop.get(second).await;
    assert_eq!(
        (new.status.state, new.meta.name.as_str()),
        (VolumeState::Creating, "more-2")
    );
    assert_eq!(shop.get(old).await.status.activity.unwrap().task, made.task.id);
    shop.done(&made.task).await;
    let made = shop
        .world
        .cloud
        .get_server(&shop.member, made.server.id())
        .await
        .unwrap()
        .value;
    let home = made.status.placement.as_ref().unwrap().host;
    assert_eq!(Some(home), shop.get(old).await.status.host, "where its volume is");
    for id in [old, second] {
        let volume = shop.get(id).await;
        assert_eq!(
            (volume.status.state, volume.status.activity),
            (VolumeState::InUse, None)
        );
        assert_eq!(volume.status.host, Some(home));
        assert_eq!(volume.status.reserved_gib, volume.spec.size_gib);
        assert_eq!(volume.status.attachment.unwrap().server, made.id());
    }
    let domain = shop.world.hosts[&home].fake.domain(made.id()).unwrap().unwrap();
    let disks: Vec<&str> = domain.spec.disks.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(disks, ["root", &disk_of(old), &disk_of(second)]);
    assert_eq!(shop.used().await, amounts(&[("volumes", 2), ("volume_gib", 5)]));
}

#[tokio::test]
async fn a_server_boots_from_a_volume_and_has_no_root_disk() {
    let shop = Shop::open().await;
    let before = shop.counted().await;
    let asked = shop.booting_from(vec![blank(1, false), shop.boot(true)]);
    let made = shop.world.cloud.create_server(&shop.member, asked).await.unwrap();
    let id = made.server.id();
    let boots = made.server.spec.boot_volume.unwrap();
    assert_eq!(made.server.status.volumes[0], boots, "first, wherever it stood");
    assert_eq!(made.server.spec.image.id, shop.image);
    shop.done(&made.task).await;
    let size = shop.get(boots).await.spec.size_gib;
    assert_eq!(
        shop.counted().await,
        (1 + size, before.1 + 1 + size),
        "no root disk is counted"
    );
    let fake = &shop.world.hosts.values().next().unwrap().fake;
    let domain = fake.domain(id).unwrap().unwrap();
    assert_eq!(domain.spec.disks[0].name, disk_of(boots));
    assert_eq!(domain.spec.disks.len(), 2);
    assert!(fake.storage().disks(id).await.unwrap().is_empty());

    let detached = shop.world.cloud.detach_volume(&shop.member, boots).await;
    refused(detached, "volume.boots_server");
    let rebuilt = shop
        .world
        .cloud
        .rebuild_server(&shop.member, id, RebuildServer::default())
        .await;
    refused(rebuilt, "server.boots_from_volume");

    let gone = shop.world.cloud.delete_server(&shop.member, id).await.unwrap();
    shop.done(&gone.task).await;
    let looked = shop.world.cloud.get_volume(&shop.member, boots).await;
    assert_eq!(
        looked.unwrap_err().kind(),
        ErrorKind::NotFound,
        "it ended with the server"
    );
    assert_eq!(shop.used().await, amounts(&[("volumes", 1), ("volume_gib", 1)]));
    assert_eq!(shop.counted().await, (1, before.1 + 1));
}

#[tokio::test]
async fn a_volume_that_outlives_its_server_boots_the_next() {
    let shop = Shop::open().await;
    let asked = shop.booting_from(vec![shop.boot(false)]);
    let made = shop.world.cloud.create_server(&shop.member, asked).await.unwrap();
    shop.done(&made.task).await;
    let boots = made.server.spec.boot_volume.unwrap();
    let gone = shop
        .world
        .cloud
        .delete_server(&shop.member, made.server.id())
        .await
        .unwrap();
    shop.done(&gone.task).await;
    let again = ServerVolume {
        boot: true,
        ..there(boots)
    };
    let made = shop
        .world
        .cloud
        .create_server(&shop.member, shop.booting_from(vec![again]))
        .await
        .unwrap();
    shop.done(&made.task).await;
    assert_eq!(
        shop.get(boots).await.status.attachment.unwrap().server,
        made.server.id()
    );
}

#[tokio::test]
async fn a_server_that_cannot_be_made_leaves_no_volume_taken() {
    let shop = Shop::open().await;
    let old = shop.volume("data").await;
    let before = shop.counted().await;
    let fake = &shop.world.hosts.values().next().unwrap().fake;
    for _ in 0..8 {
        let fault = Fault::Fail(skyloom_hypervisor::ErrorKind::Refused);
        fake.fault_next(FaultPoint::Define, fault).unwrap();
    }
    let asked = shop.with(vec![there(old), blank(1, true), blank(1, false)]);
    let made = shop.world.cloud.create_server(&shop.member, asked).await.unwrap();
    assert_eq!(shop.carry(&made.task).await.state, TaskState::Failed);
    let server = shop
        .world
        .cloud
        .get_server(&shop.member, made.server.id())
        .await
        .unwrap()
        .value;
    assert_eq!(
        (server.status.lifecycle, server.status.volumes.len()),
        (Lifecycle::Error, 0)
    );
    let free = shop.get(old).await;
    assert_eq!(
        (free.status.state, free.status.attachment),
        (VolumeState::Available, None)
    );
    let [_, ended, kept] = made.server.status.volumes[..] else {
        panic!("three volumes");
    };
    let looked = shop.world.cloud.get_volume(&shop.member, ended).await;
    assert_eq!(looked.unwrap_err().kind(), ErrorKind::NotFound);
    let kept = shop.get(kept).await;
    assert_eq!((kept.status.state, kept.status.host), (VolumeState::Error, None));
    assert_eq!(shop.counted().await, before);
    assert_eq!(shop.used().await, amounts(&[("volumes", 2), ("volume_gib", 3)]));
    let gone = shop
        .world
        .cloud
        .delete_volume(&shop.member, kept.id())
        .await
        .unwrap();
    shop.done(&gone.task).await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_anything_is_made() {
    let shop = Shop::open().await;
    let old = shop.volume("data").await;
    let cases = [
        (shop.with(vec![there(old), there(old)]), "volume.in_use"),
        (shop.with(vec![blank(1, false); 17]), "server.too_many_volumes"),
        (shop.with(vec![ServerVolume::default()]), "size.missing"),
        (
            shop.with(vec![ServerVolume {
                size_gib: Some(9),
                ..there(old)
            }]),
            "source.ambiguous",
        ),
        (shop.with(vec![shop.boot(false)]), "boot.ambiguous"),
        (
            shop.booting_from(vec![shop.boot(false), shop.boot(true)]),
            "boot.ambiguous",
        ),
        (shop.booting_from(vec![blank(1, false)]), "image.invalid"),
        (
            shop.booting_from(vec![ServerVolume {
                boot: true,
                ..there(old)
            }]),
            "volume.not_bootable",
        ),
    ];
    for (request, code) in cases {
        let asked = shop.world.cloud.create_server(&shop.member, request).await;
        let error = asked.unwrap_err();
        let told = format!("{error:?}");
        assert!(told.contains(code), "{code}: {told}");
    }
    assert_eq!(shop.used().await, amounts(&[("volumes", 1), ("volume_gib", 2)]));
    let task = shop.attach(old, false).await;
    shop.done(&task).await;
    let taken = shop
        .world
        .cloud
        .create_server(&shop.member, shop.with(vec![there(old)]))
        .await;
    refused(taken, "volume.in_use");
}
