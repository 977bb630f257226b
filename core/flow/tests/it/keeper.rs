//! The holder's own view of its lease: never longer than the store's.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use skyloom_flow::LeaseKeeper;
use skyloom_model::Clock as _;
use skyloom_store::{
    Capability, DynBackend, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases, ListOptions,
    MemoryConfig, MemoryStore, Outcome, Page, Prefix, Renewal, Result, Store, Txn, Watch, WatchEvent,
    WatchOptions, latest,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::host::VirtualClock;

const TTL: Duration = Duration::from_secs(10);

/// A store whose answers about leases are on their way for a while.
#[derive(Debug)]
struct Far {
    inner: DynBackend,
    grant: Duration,
    renew: latest::Receiver<Duration>,
}

#[async_trait]
impl Store for Far {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.inner.list(prefix, options).await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.inner.commit(txn).await
    }
    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

impl Watch for Far {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        self.inner.watch(prefix, options)
    }
}

#[async_trait]
impl Leases for Far {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        let granted = self.inner.grant(name, holder, ttl, mode).await;
        tokio::time::sleep(self.grant).await;
        granted
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        let renewed = self.inner.renew(name, epoch, ttl).await;
        let delay = *self.renew.borrow();
        tokio::time::sleep(delay).await;
        renewed
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.inner.revoke(name, epoch).await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.inner.leases(prefix).await
    }
}

struct Kept {
    clock: Arc<VirtualClock>,
    store: DynBackend,
    name: LeaseName,
    renew: latest::Sender<Duration>,
    fence: latest::Receiver<Option<skyloom_flow::Fence>>,
    shutdown: CancellationToken,
    running: JoinSet<()>,
}

fn keep(grant: Duration) -> Kept {
    let clock = VirtualClock::new();
    let store: DynBackend = Arc::new(MemoryStore::new(clock.clone(), MemoryConfig::default()));
    let (renew, delay) = latest::channel(Duration::ZERO);
    let far = Far {
        inner: store.clone(),
        grant,
        renew: delay,
    };
    let name = LeaseName::parse("hosts/h").unwrap();
    let (keeper, fence) = LeaseKeeper::new(Arc::new(far), clock.clone(), name.clone(), "h", TTL);
    let shutdown = CancellationToken::new();
    let mut running = JoinSet::new();
    running.spawn(keeper.run(shutdown.clone()));
    Kept {
        clock,
        store,
        name,
        renew,
        fence,
        shutdown,
        running,
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_lasts_as_long_as_it_is_renewed_and_is_given_back() {
    let mut kept = keep(Duration::ZERO);
    let fence = kept
        .fence
        .wait_for(Option::is_some)
        .await
        .unwrap()
        .clone()
        .unwrap();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(fence.may_act(&*kept.clock));
        assert_eq!(kept.fence.borrow().as_ref(), Some(&fence));
    }
    kept.shutdown.cancel();
    kept.running.join_next().await.unwrap().unwrap();
    assert!(!fence.may_act(&*kept.clock));
    assert!(kept.store.leases(&Prefix::all()).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_holder_s_deadline_comes_before_the_store_s() {
    // The grant's answer takes six seconds; then no renewal is answered.
    let mut kept = keep(Duration::from_secs(6));
    kept.renew.send_replace(Duration::from_secs(3600));
    let fence = kept
        .fence
        .wait_for(Option::is_some)
        .await
        .unwrap()
        .clone()
        .unwrap();
    assert_eq!(kept.clock.monotonic().as_secs(), 6);
    assert!(fence.may_act(&*kept.clock));
    while fence.may_act(&*kept.clock) {
        let leases = kept.store.leases(&Prefix::all()).await.unwrap();
        assert!(leases.iter().any(|l| l.epoch == fence.epoch && !l.expired));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        kept.clock.monotonic() < Duration::from_millis(9_720),
        "0.97 of ten seconds from the request"
    );
    // It is withdrawn though the renewal still hangs.
    kept.fence.wait_for(Option::is_none).await.unwrap();
    assert!(kept.clock.monotonic() < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_cannot_be_acted_under_by_any_copy() {
    let mut kept = keep(Duration::ZERO);
    let fence = kept
        .fence
        .wait_for(Option::is_some)
        .await
        .unwrap()
        .clone()
        .unwrap();
    let taken = kept
        .store
        .grant(&kept.name, "other", TTL, LeaseMode::TakeOver)
        .await;
    assert!(matches!(taken, Ok(Grant::Granted { epoch }) if epoch == fence.epoch + 1));
    let next = kept
        .fence
        .wait_for(|f| f.as_ref().is_some_and(|f| *f != fence))
        .await
        .unwrap();
    assert_eq!(next.as_ref().unwrap().epoch, fence.epoch + 2);
    assert!(!fence.may_act(&*kept.clock));
}

#[tokio::test(start_paused = true)]
async fn a_former_life_is_waited_for_unless_it_is_known_to_be_over() {
    let mut kept = keep(Duration::ZERO);
    let first = kept
        .fence
        .wait_for(Option::is_some)
        .await
        .unwrap()
        .clone()
        .unwrap();
    // It ends without a word: for all that anybody knows, it only stands still.
    kept.running.abort_all();
    let began = kept.clock.monotonic();
    let again = || {
        LeaseKeeper::new(
            kept.store.clone(),
            kept.clock.clone(),
            kept.name.clone(),
            "h",
            TTL,
        )
    };
    let (waiting, mut fence) = again();
    kept.running.spawn(waiting.run(kept.shutdown.clone()));
    let second = fence.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert_eq!(second.epoch, first.epoch + 1);
    assert!(!first.may_act(&*kept.clock), "nobody may act under both");
    assert!(kept.clock.monotonic() - began >= TTL);

    kept.running.abort_all();
    let began = kept.clock.monotonic();
    let (alone, mut fence) = again();
    kept.running.spawn(alone.alone().run(kept.shutdown.clone()));
    let third = fence.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert_eq!(third.epoch, second.epoch + 1);
    assert_eq!(kept.clock.monotonic(), began);
}
