//! Local volumes take disk from their host's ledger as long as they are there; those of shared pools do not.

use skyloom_cloud::{CreateVolume, ErrorKind, GrowVolume};
use skyloom_hypervisor::{Fault, FaultPoint};
use skyloom_model::{HostLedger, TaskState, VolumeState, paths};

use super::Shop;
use crate::world::key;

impl Shop {
    /// What the ledger of the only host says of volumes, and of all disk.
    pub(super) async fn counted(&self) -> (u64, u64) {
        let host = *self.world.hosts.keys().next().unwrap();
        let found = self.world.store.get(&key(&paths::ledger(host))).await.unwrap();
        let ledger: HostLedger = found.unwrap().value.parse().unwrap();
        (ledger.volume_gib, ledger.used.disk_gib)
    }
}

#[tokio::test]
async fn a_local_volume_takes_its_host_s_disk_from_its_plan_to_its_end() {
    let shop = Shop::open().await;
    let (none, of_server) = shop.counted().await;
    assert_eq!(none, 0);
    let volume = shop.volume("data").await;
    assert_eq!(shop.counted().await, (2, of_server + 2));
    assert_eq!(shop.get(volume).await.status.reserved_gib, 2);
    let grown = shop
        .world
        .cloud
        .grow_volume(&shop.member, volume, GrowVolume { size_gib: 5 });
    shop.done(&grown.await.unwrap().task).await;
    assert_eq!(shop.counted().await, (5, of_server + 5));
    let gone = shop.world.cloud.delete_volume(&shop.member, volume).await;
    shop.done(&gone.unwrap().task).await;
    assert_eq!(shop.counted().await, (0, of_server));
}

#[tokio::test]
async fn growth_that_fails_gives_the_disk_back() {
    let shop = Shop::open().await;
    let volume = shop.volume("data").await;
    let before = shop.counted().await;
    let fake = &shop.world.hosts.values().next().unwrap().fake;
    for _ in 0..8 {
        let fault = Fault::Fail(skyloom_hypervisor::ErrorKind::Refused);
        fake.fault_next(FaultPoint::GrowVolume, fault).unwrap();
    }
    let grown = shop
        .world
        .cloud
        .grow_volume(&shop.member, volume, GrowVolume { size_gib: 5 });
    assert_eq!(
        shop.carry(&grown.await.unwrap().task).await.state,
        TaskState::Failed
    );
    assert_eq!(shop.counted().await, before);
    assert_eq!(shop.get(volume).await.status.reserved_gib, 2);
}

#[tokio::test]
async fn what_ends_with_a_server_gives_its_disk_back_with_it() {
    let shop = Shop::open().await;
    let (kept, gone) = (shop.volume("kept").await, shop.volume("gone").await);
    for (volume, ends) in [(kept, false), (gone, true)] {
        let task = shop.attach(volume, ends).await;
        shop.done(&task).await;
    }
    let asked = shop
        .world
        .cloud
        .delete_server(&shop.member, shop.server)
        .await
        .unwrap();
    shop.done(&asked.task).await;
    assert_eq!(shop.counted().await, (2, 2), "only what was kept");
    let left = shop.world.cloud.get_volume(&shop.member, gone).await;
    assert_eq!(left.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_host_takes_no_more_volumes_than_it_has_room_for() {
    let shop = Shop::open().await;
    let (_, used) = shop.counted().await;
    let volume = shop.volume("fits").await;
    let request = CreateVolume {
        name: "too much".to_owned(),
        size_gib: Some(1000),
        server: Some(shop.server),
        ..CreateVolume::default()
    };
    let asked = shop
        .world
        .cloud
        .create_volume(&shop.member, request)
        .await
        .unwrap();
    let ended = shop.carry(&asked.task).await;
    assert_eq!(ended.reason.unwrap().code, "volume.no_room");
    let grown = shop
        .world
        .cloud
        .grow_volume(&shop.member, volume, GrowVolume { size_gib: 1001 });
    let ended = shop.carry(&grown.await.unwrap().task).await;
    assert_eq!(ended.reason.unwrap().code, "volume.no_room");
    let now = shop.get(volume).await;
    assert_eq!((now.spec.size_gib, now.status.state), (2, VolumeState::Available));
    assert_eq!(shop.counted().await, (2, used + 2));
}
