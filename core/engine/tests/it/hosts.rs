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

    /// Whether the host is recorded as reachable, and its certificate as expired.
    async fn seen(&self) -> (bool, bool) {
        let host: Host = self.site.get(&self.path).await.unwrap();
        (host.status.reachable, host.status.certificate_expired)
    }

    /// Gives the host a certificate as the API does: it does not say expired, that is for the engine to find.
    async fn certificate(&self, until: Option<Timestamp>) {
        let mut host: Host = self.site.get(&self.path).await.unwrap();
        host.status.certificate_until = until;
        host.status.certificate_expired = false;
        self.site.put(&self.path, &host).await;
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

#[tokio::test(start_paused = true)]
async fn a_host_whose_certificate_expired_is_told_so_and_not_unreachable() {
    let fleet = Fleet::stopped().await;
    let until = fleet.site.clock.now() - Duration::from_secs(30);
    fleet.certificate(Some(until)).await;
    let _running = fleet.site.begin(None);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(
        fleet.seen().await,
        (true, true),
        "reachable as it was, and expired"
    );

    // It renews. Its agent has time to come for its lease; one that does not come then is gone.
    let until = fleet.site.clock.now() + Duration::from_secs(7 * 86_400);
    fleet.certificate(Some(until)).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(fleet.seen().await, (true, false));
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(fleet.seen().await, (false, false));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_was_gone_before_its_certificate_expired_stays_gone() {
    let fleet = Fleet::stopped().await;
    let running = fleet.site.begin(None);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(fleet.seen().await, (false, false));
    let until = fleet.site.clock.now() - Duration::from_secs(1);
    fleet.certificate(Some(until)).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(fleet.seen().await, (false, true));
    drop(running);
}
