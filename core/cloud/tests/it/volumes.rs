//! Volumes and snapshots at the facade: what is refused, what both records say, what is charged and given back.

mod room;
mod servers;

use std::collections::BTreeMap;

use skyloom_cloud::{
    AttachVolume, Caller, CloudError, CreateServer, CreateSnapshot, CreateVolume, ErrorKind, GrowVolume,
};
use skyloom_hypervisor::{Fault, FaultPoint, HostVolumes as _};
use skyloom_identity::{Owner, Slot};
use skyloom_model::{
    ImageId, IoLimits, Resource as _, Server, ServerId, SnapshotId, SnapshotState, Task, TaskState, Volume,
    VolumeId, VolumeState, disk_of,
};

use crate::engine::{Engine, active_image};
use crate::world::{World, server};

/// A cloud with a host and a server that runs on it.
struct Shop {
    world: World,
    member: Caller,
    image: ImageId,
    server: ServerId,
}

impl Shop {
    async fn open() -> Self {
        let mut world = World::new();
        let admin = world.admin().await;
        let member = world.member(&admin, "shop").await;
        world.host(&admin, "h").await;
        let image = active_image(&world, &member).await;
        let request = CreateServer {
            config_drive: Some(false),
            ..server("web", image)
        };
        let made = world.cloud.create_server(&member, request).await.unwrap();
        let shop = Self {
            server: made.server.id(),
            world,
            member,
            image,
        };
        shop.done(&made.task).await;
        shop
    }

    async fn carry(&self, task: &Task) -> Task {
        Engine::new(&self.world).await.carry(task).await
    }

    async fn done(&self, task: &Task) {
        let ended = self.carry(task).await;
        assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    }

    async fn volume(&self, name: &str) -> VolumeId {
        let request = CreateVolume {
            name: name.to_owned(),
            size_gib: Some(2),
            server: Some(self.server),
            ..CreateVolume::default()
        };
        let made = self
            .world
            .cloud
            .create_volume(&self.member, request)
            .await
            .unwrap();
        assert_eq!(made.volume.status.state, VolumeState::Creating);
        self.done(&made.task).await;
        made.volume.id()
    }

    async fn attach(&self, volume: VolumeId, delete_with_server: bool) -> Task {
        let request = AttachVolume {
            server: self.server,
            delete_with_server,
        };
        let asked = self
            .world
            .cloud
            .attach_volume(&self.member, volume, request)
            .await;
        asked.unwrap().task
    }

    async fn snapshot(&self, request: CreateSnapshot) -> SnapshotId {
        let asked = self
            .world
            .cloud
            .create_snapshot(&self.member, request)
            .await
            .unwrap();
        assert_eq!(asked.snapshot.status.state, SnapshotState::Creating);
        self.done(&asked.task).await;
        asked.snapshot.id()
    }

    fn of_server(&self, memory: bool) -> CreateSnapshot {
        CreateSnapshot {
            name: "moment".to_owned(),
            server: Some(self.server),
            memory,
            ..CreateSnapshot::default()
        }
    }

    async fn stop(&self) {
        let options = skyloom_cloud::StopOptions {
            force: true,
            ..Default::default()
        };
        let asked = self
            .world
            .cloud
            .stop_server(&self.member, self.server, options)
            .await;
        self.done(&asked.unwrap().task).await;
    }

    async fn get(&self, volume: VolumeId) -> Volume {
        let found = self.world.cloud.get_volume(&self.member, volume).await;
        found.unwrap().value
    }

    async fn server(&self) -> Server {
        let found = self.world.cloud.get_server(&self.member, self.server).await;
        found.unwrap().value
    }

    /// What of storage the project is charged for.
    async fn used(&self) -> BTreeMap<String, u64> {
        let slot = Slot::load(&self.world.store, Owner::Project(self.member.project))
            .await
            .unwrap();
        let used = slot
            .ledger()
            .map(|ledger| ledger.used.clone())
            .unwrap_or_default();
        let storage = ["volumes", "volume_gib", "snapshots"];
        used.iter()
            .map(|(name, amount)| (name.to_string(), amount))
            .filter(|(name, amount)| storage.contains(&name.as_str()) && *amount > 0)
            .collect()
    }
}

fn amounts(list: &[(&str, u64)]) -> BTreeMap<String, u64> {
    list.iter()
        .map(|(name, amount)| ((*name).to_owned(), *amount))
        .collect()
}

fn refused<T: std::fmt::Debug>(done: Result<T, CloudError>, code: &str) {
    let error = done.unwrap_err();
    assert_eq!(error.code(), code, "{error:?}");
}

#[tokio::test]
async fn a_volume_lives_from_its_request_to_its_end_and_is_paid_for_as_long() {
    let shop = Shop::open().await;
    let volume = shop.volume("data").await;
    assert_eq!(shop.used().await, amounts(&[("volumes", 1), ("volume_gib", 2)]));
    let made = shop.get(volume).await;
    assert_eq!(
        (made.status.state, made.status.activity),
        (VolumeState::Available, None)
    );
    assert_eq!(
        made.status.host,
        shop.server().await.status.placement.map(|p| p.host)
    );

    let grown = shop
        .world
        .cloud
        .grow_volume(&shop.member, volume, GrowVolume { size_gib: 5 })
        .await;
    shop.done(&grown.unwrap().task).await;
    assert_eq!(shop.get(volume).await.spec.size_gib, 5);
    assert_eq!(shop.used().await, amounts(&[("volumes", 1), ("volume_gib", 5)]));
    let smaller = shop
        .world
        .cloud
        .grow_volume(&shop.member, volume, GrowVolume { size_gib: 4 })
        .await;
    refused(smaller, "size.too_small");

    let gone = shop.world.cloud.delete_volume(&shop.member, volume).await;
    shop.done(&gone.unwrap().task).await;
    let looked = shop.world.cloud.get_volume(&shop.member, volume).await;
    assert_eq!(looked.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(shop.used().await, amounts(&[]));
}

#[tokio::test]
async fn growth_that_fails_is_given_back_and_the_size_is_what_is() {
    let shop = Shop::open().await;
    let volume = shop.volume("data").await;
    let fake = &shop.world.hosts.values().next().unwrap().fake;
    for _ in 0..8 {
        let fault = Fault::Fail(skyloom_hypervisor::ErrorKind::Refused);
        fake.fault_next(FaultPoint::GrowVolume, fault).unwrap();
    }
    let grown = shop
        .world
        .cloud
        .grow_volume(&shop.member, volume, GrowVolume { size_gib: 5 })
        .await;
    let ended = shop.carry(&grown.unwrap().task).await;
    assert_eq!(ended.state, TaskState::Failed);
    let now = shop.get(volume).await;
    assert_eq!((now.spec.size_gib, now.status.state), (2, VolumeState::Available));
    assert_eq!(now.status.fault.unwrap().code, "host.refused");
    assert_eq!(shop.used().await, amounts(&[("volumes", 1), ("volume_gib", 2)]));
}

#[tokio::test]
async fn a_volume_belongs_to_one_server_and_both_say_so_at_once() {
    let shop = Shop::open().await;
    let volume = shop.volume("data").await;
    let task = shop.attach(volume, false).await;
    // Before anything is done: the commit that made the task said it.
    let now = shop.get(volume).await;
    assert_eq!(now.status.state, VolumeState::InUse);
    assert_eq!(now.status.attachment.unwrap().disk, disk_of(volume));
    let server = shop.server().await;
    assert_eq!(server.status.volumes, [volume]);
    assert_eq!(server.status.activity.unwrap().task, task.id);
    let request = AttachVolume {
        server: shop.server,
        delete_with_server: false,
    };
    refused(
        shop.world
            .cloud
            .attach_volume(&shop.member, volume, request)
            .await,
        "volume.busy",
    );
    shop.done(&task).await;
    refused(
        shop.world
            .cloud
            .attach_volume(&shop.member, volume, request)
            .await,
        "volume.in_use",
    );
    refused(
        shop.world.cloud.delete_volume(&shop.member, volume).await,
        "volume.in_use",
    );
    let fake = &shop.world.hosts.values().next().unwrap().fake;
    let guest = fake.domain(shop.server).unwrap().unwrap().guest.unwrap();
    assert_eq!(
        guest.disks.last().unwrap().name,
        disk_of(volume),
        "the running guest has it"
    );

    let detached = shop
        .world
        .cloud
        .detach_volume(&shop.member, volume)
        .await
        .unwrap();
    shop.done(&detached.task).await;
    let now = shop.get(volume).await;
    assert_eq!(
        (now.status.state, now.status.attachment),
        (VolumeState::Available, None)
    );
    assert!(shop.server().await.status.volumes.is_empty());
    refused(
        shop.world.cloud.detach_volume(&shop.member, volume).await,
        "volume.not_attached",
    );
}

#[tokio::test]
async fn an_attach_that_fails_leaves_both_as_they_were() {
    let shop = Shop::open().await;
    let volume = shop.volume("data").await;
    let fake = &shop.world.hosts.values().next().unwrap().fake;
    for _ in 0..4 {
        let fault = Fault::Fail(skyloom_hypervisor::ErrorKind::Refused);
        fake.fault_next(FaultPoint::AttachDisk, fault).unwrap();
    }
    let task = shop.attach(volume, false).await;
    assert_eq!(shop.carry(&task).await.state, TaskState::Failed);
    let now = shop.get(volume).await;
    assert_eq!(
        (now.status.state, now.status.attachment),
        (VolumeState::Available, None)
    );
    assert!(now.status.fault.is_some());
    assert!(shop.server().await.status.volumes.is_empty());
}

#[tokio::test]
async fn a_server_is_defined_with_its_volumes_in_order() {
    let shop = Shop::open().await;
    shop.stop().await;
    let (first, second) = (shop.volume("first").await, shop.volume("second").await);
    for volume in [first, second] {
        let task = shop.attach(volume, false).await;
        shop.done(&task).await;
    }
    let limits = Some(IoLimits {
        operations: Some(7),
        bytes: None,
    });
    let request = skyloom_cloud::LimitVolume { limits };
    let limited = shop.world.cloud.limit_volume(&shop.member, second, request).await;
    shop.done(&limited.unwrap().task).await;
    let started = shop.world.cloud.start_server(&shop.member, shop.server).await;
    shop.done(&started.unwrap().task).await;
    let fake = &shop.world.hosts.values().next().unwrap().fake;
    let guest = fake.domain(shop.server).unwrap().unwrap().guest.unwrap();
    let disks: Vec<_> = guest.disks.iter().map(|d| (d.name.clone(), d.limits)).collect();
    let wanted = [
        ("root".to_owned(), None),
        (disk_of(first), None),
        (disk_of(second), limits),
    ];
    assert_eq!(disks, wanted);
}

#[tokio::test]
async fn a_deleted_server_gives_its_volumes_back_but_those_that_end_with_it() {
    let shop = Shop::open().await;
    let (kept, ends) = (shop.volume("kept").await, shop.volume("ends").await);
    for (volume, with_server) in [(kept, false), (ends, true)] {
        let task = shop.attach(volume, with_server).await;
        shop.done(&task).await;
    }
    let gone = shop.world.cloud.delete_server(&shop.member, shop.server).await;
    shop.done(&gone.unwrap().task).await;
    let now = shop.get(kept).await;
    assert_eq!(
        (now.status.state, now.status.attachment),
        (VolumeState::Available, None)
    );
    assert!(shop.world.cloud.get_volume(&shop.member, ends).await.is_err());
    assert_eq!(shop.used().await, amounts(&[("volumes", 1), ("volume_gib", 2)]));
    let storage = shop.world.hosts.values().next().unwrap().fake.storage();
    let files: Vec<VolumeId> = storage
        .volumes()
        .await
        .unwrap()
        .into_iter()
        .map(|v| v.at.volume)
        .collect();
    assert_eq!(files, [kept]);
}

#[tokio::test]
async fn a_snapshot_says_what_the_host_confirmed_and_protects_what_it_is_in() {
    let shop = Shop::open().await;
    let volume = shop.volume("data").await;
    let task = shop.attach(volume, false).await;
    shop.done(&task).await;
    let snapshot = shop.snapshot(shop.of_server(true)).await;
    let found = shop
        .world
        .cloud
        .get_snapshot(&shop.member, snapshot)
        .await
        .unwrap()
        .value;
    assert_eq!(found.status.state, SnapshotState::Available);
    assert!(found.status.memory_bytes > 0 && found.status.taken_at.is_some());
    let disks: Vec<_> = found
        .status
        .disks
        .iter()
        .map(|d| (d.name.as_str(), d.volume))
        .collect();
    assert_eq!(disks, [("root", None), (disk_of(volume).as_str(), Some(volume))]);
    assert_eq!(shop.used().await["snapshots"], 1);

    let cloud = &shop.world.cloud;
    refused(
        cloud.delete_server(&shop.member, shop.server).await,
        "server.has_snapshots",
    );
    refused(
        cloud.detach_volume(&shop.member, volume).await,
        "volume.in_snapshot",
    );
    // It has memory: it may run.
    let reverted = cloud.revert_snapshot(&shop.member, snapshot).await.unwrap();
    shop.done(&reverted.task).await;
    let gone = cloud.delete_snapshot(&shop.member, snapshot).await.unwrap();
    shop.done(&gone.task).await;
    assert!(cloud.get_snapshot(&shop.member, snapshot).await.is_err());
    assert!(!shop.used().await.contains_key("snapshots"));
    let detached = cloud.detach_volume(&shop.member, volume).await.unwrap();
    shop.done(&detached.task).await;
}

#[tokio::test]
async fn disks_of_a_running_guest_are_not_changed_under_it() {
    let shop = Shop::open().await;
    let snapshot = shop.snapshot(shop.of_server(false)).await;
    let cloud = &shop.world.cloud;
    refused(
        cloud.revert_snapshot(&shop.member, snapshot).await,
        "server.running",
    );
    shop.stop().await;
    let reverted = cloud.revert_snapshot(&shop.member, snapshot).await.unwrap();
    shop.done(&reverted.task).await;
    refused(
        cloud.create_snapshot(&shop.member, shop.of_server(true)).await,
        "memory.not_running",
    );
    // Another volume now than then.
    let volume = shop.volume("late").await;
    let task = shop.attach(volume, false).await;
    shop.done(&task).await;
    refused(
        cloud.revert_snapshot(&shop.member, snapshot).await,
        "snapshot.disks_differ",
    );
}

#[tokio::test]
async fn copies_are_of_images_volumes_and_snapshots() {
    let shop = Shop::open().await;
    let volume = shop.volume("data").await;
    let request = CreateSnapshot {
        name: "nightly".to_owned(),
        volume: Some(volume),
        ..CreateSnapshot::default()
    };
    let snapshot = shop.snapshot(request).await;
    refused(
        shop.world.cloud.delete_volume(&shop.member, volume).await,
        "volume.has_snapshots",
    );
    let plain = |name: &str| CreateVolume {
        name: name.to_owned(),
        ..CreateVolume::default()
    };
    let copies = [
        CreateVolume {
            image: Some(shop.image.to_string()),
            ..plain("of an image")
        },
        CreateVolume {
            volume: Some(volume),
            ..plain("of a volume")
        },
        CreateVolume {
            snapshot: Some(snapshot),
            ..plain("of a snapshot")
        },
    ];
    for request in copies {
        let name = request.name.clone();
        let made = shop
            .world
            .cloud
            .create_volume(&shop.member, request)
            .await
            .unwrap();
        shop.done(&made.task).await;
        let made = shop.get(made.volume.id()).await;
        assert_eq!(made.status.state, VolumeState::Available, "{name}");
        assert!(made.spec.size_gib >= 1, "as large as its source");
    }
    assert_eq!(
        shop.get(volume).await.status.activity,
        None,
        "the source is free again"
    );
    let both = CreateVolume {
        image: Some(shop.image.to_string()),
        volume: Some(volume),
        ..plain("of both")
    };
    refused(
        shop.world.cloud.create_volume(&shop.member, both).await,
        "source.ambiguous",
    );
    refused(
        shop.world
            .cloud
            .create_volume(&shop.member, plain("of nothing"))
            .await,
        "size.missing",
    );
    let small = CreateVolume {
        volume: Some(volume),
        size_gib: Some(1),
        ..plain("too small")
    };
    refused(
        shop.world.cloud.create_volume(&shop.member, small).await,
        "size.too_small",
    );
}

#[tokio::test]
async fn raw_volumes_keep_no_snapshots_and_others_see_nothing() {
    let shop = Shop::open().await;
    let request = CreateVolume {
        name: "raw".to_owned(),
        size_gib: Some(1),
        format: Some(skyloom_model::DiskFormat::Raw),
        server: Some(shop.server),
        ..CreateVolume::default()
    };
    let made = shop
        .world
        .cloud
        .create_volume(&shop.member, request)
        .await
        .unwrap();
    shop.done(&made.task).await;
    let volume = made.volume.id();
    let snapshot = CreateSnapshot {
        name: "none".to_owned(),
        volume: Some(volume),
        ..CreateSnapshot::default()
    };
    refused(
        shop.world.cloud.create_snapshot(&shop.member, snapshot).await,
        "snapshot.raw_volume",
    );
    let admin = shop.world.admin().await;
    let stranger = shop.world.member(&admin, "other").await;
    refused(
        shop.world.cloud.get_volume(&stranger, volume).await,
        "volume.not_found",
    );
    refused(
        shop.world.cloud.delete_volume(&stranger, volume).await,
        "volume.not_found",
    );
    let theirs = CreateVolume {
        name: "theirs".to_owned(),
        volume: Some(volume),
        ..CreateVolume::default()
    };
    refused(
        shop.world.cloud.create_volume(&stranger, theirs).await,
        "volume.not_found",
    );
}

#[tokio::test]
async fn a_shared_pool_is_seen_by_the_hosts_that_are_labelled() {
    let shop = Shop::open().await;
    let request = CreateVolume {
        name: "far".to_owned(),
        size_gib: Some(1),
        pool: Some("fast".to_owned()),
        ..CreateVolume::default()
    };
    let made = shop
        .world
        .cloud
        .create_volume(&shop.member, request)
        .await
        .unwrap();
    let ended = shop.carry(&made.task).await;
    assert_eq!(ended.state, TaskState::Failed, "no host carries the label");
    let far = shop.get(made.volume.id()).await;
    assert_eq!((far.status.state, far.status.host), (VolumeState::Error, None));
    let gone = shop
        .world
        .cloud
        .delete_volume(&shop.member, far.id())
        .await
        .unwrap();
    shop.done(&gone.task).await;
    assert_eq!(shop.used().await, amounts(&[]));
}
