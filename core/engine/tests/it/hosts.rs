//! Whether hosts report, told by an engine that was itself away.

use std::time::Duration;

use skyloom_hypervisor::{FakeOptions, FakeWorld};
use skyloom_model::{
    Host, HostId, HostSpec, HostStatus, Id, Meta, Name, Resource as _, Scope, Timestamp, paths,
};

use crate::site::Site;

struct Fleet {
    site: Site,
    world: FakeWorld,
    host: HostId,
    path: String,
}

impl Fleet {
    /// A host that reported, and then everything stopped for longer than its lease lasts.
    async fn stopped() -> Self {
        let site = Site::new();
        let host: HostId = Id::fresh(&*site.ids);
        let path = paths::resource(Host::KIND, Scope::System, host.uuid());
        let meta = Meta::new(
            host.uuid(),
            Name::new("h1").unwrap(),
            Scope::System,
            site.clock.now(),
        );
        let record = Host {
            meta,
            spec: HostSpec::default(),
            status: HostStatus::default(),
        };
        site.put(&path, &record).await;
        let world = FakeWorld::open(FakeOptions::directory(site.host_folder())).unwrap();
        let running = site.begin(Some((host, &world)));
        let fleet = Self {
            site,
            world,
            host,
            path,
        };
        fleet.site.until("the host reports", || fleet.reachable()).await;
        drop(running);
        tokio::time::sleep(Duration::from_secs(60)).await;
        fleet
    }

    async fn reachable(&self) -> bool {
        let host: Host = self.site.get(&self.path).await.unwrap();
        host.status.reachable
    }

    /// When the host's record was last written.
    async fn written(&self) -> Timestamp {
        let host: Host = self.site.get(&self.path).await.unwrap();
        host.meta.updated_at
    }
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_comes_back_as_a_whole_does_not_call_its_hosts_lost() {
    let fleet = Fleet::stopped().await;
    let before = fleet.written().await;
    let _running = fleet.site.begin(Some((fleet.host, &fleet.world)));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(fleet.reachable().await);
    assert_eq!(fleet.written().await, before, "nothing was told of it meanwhile");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_come_back_is_told_unreachable_after_the_grace() {
    let fleet = Fleet::stopped().await;
    let _running = fleet.site.begin(None);
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(fleet.reachable().await, "its agent may still come");
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(!fleet.reachable().await);
}
