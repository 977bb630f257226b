//! The layers, one by one, over stores that fail as told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::{join, join_all};
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use skyloom_model::{ManualClock, SeededIds};
use skyloom_store::layer::{
    Chaos, ChaosConfig, Limit, LimitConfig, Prefixed, Retry, RetryConfig, StandardConfig, Timeout,
    TimeoutConfig, standard,
};
use skyloom_store::{
    Capability, Class, DynBackend, Error, ErrorKind, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName,
    Leases, ListOptions, MemoryStore, Outcome, Page, Prefix, Renewal, Result, Revision, Store, Txn, Watch,
    WatchEvent, WatchOptions,
};
use tokio::sync::Notify;

use crate::{json, key, memory, prefix, put, shared};

/// Answers every call with an error as often as told, then lets the memory store answer; counts the calls.
#[derive(Debug)]
struct Failing {
    store: Arc<MemoryStore>,
    kind: ErrorKind,
    class: Class,
    left: AtomicU32,
    calls: AtomicU32,
}

impl Failing {
    fn new(kind: ErrorKind, times: u32) -> Arc<Self> {
        let class = kind.default_class();
        Arc::new(Self {
            store: memory(),
            kind,
            class,
            left: AtomicU32::new(times),
            calls: AtomicU32::new(0),
        })
    }
    fn fail(&self) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match left {
            Ok(_) => Err(Error::new(self.kind, "scripted").class_is(self.class)),
            Err(_) => Ok(()),
        }
    }
    fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }
}

#[async_trait::async_trait]
impl Store for Failing {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.fail()?;
        self.store.get(key).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.fail()?;
        self.store.list(prefix, options).await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.fail()?;
        self.store.commit(txn).await
    }
    fn capability(&self) -> Capability {
        self.store.capability()
    }
}
impl Watch for Failing {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        self.store.watch(prefix, options)
    }
}
#[async_trait::async_trait]
impl Leases for Failing {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        self.fail()?;
        self.store.grant(name, holder, ttl, mode).await
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.fail()?;
        self.store.renew(name, epoch, ttl).await
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.fail()?;
        self.store.revoke(name, epoch).await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.fail()?;
        self.store.leases(prefix).await
    }
}

fn retry(inner: DynBackend, tries: u32) -> Retry {
    let ids = Arc::new(SeededIds::new(ManualClock::new(), 1));
    Retry::new(inner, RetryConfig::default().with_tries(tries), ids)
}
fn write() -> Txn {
    Txn::new().put(key("a"), json(1))
}
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn what_did_not_happen_is_tried_again() {
    for kind in [ErrorKind::Unavailable, ErrorKind::Overloaded] {
        let failing = Failing::new(kind, 3);
        let name = LeaseName::parse("l").unwrap();
        assert!(retry(failing.clone(), 4).commit(write()).await.is_ok());
        failing.left.store(3, Ordering::Relaxed);
        assert!(
            retry(failing.clone(), 4)
                .grant(&name, "h", SECOND, LeaseMode::Acquire)
                .await
                .is_ok()
        );
        assert_eq!(failing.calls(), 8);
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_may_have_happened_is_never_tried_again() {
    for kind in [ErrorKind::Unknown, ErrorKind::Timeout] {
        let failing = Failing::new(kind, 1);
        let refused = retry(failing.clone(), 4).commit(write()).await.unwrap_err();
        assert_eq!((refused.kind(), failing.calls()), (kind, 1));
        let failing = Failing::new(kind, 1);
        let name = LeaseName::parse("l").unwrap();
        assert!(
            retry(failing.clone(), 4)
                .grant(&name, "h", SECOND, LeaseMode::Acquire)
                .await
                .is_err()
        );
        assert_eq!(failing.calls(), 1);
    }
    // Also when somebody marks it wrongly.
    let mut failing = Failing::new(ErrorKind::Unknown, 1);
    Arc::get_mut(&mut failing).unwrap().class = Class::Transient;
    assert!(retry(failing.clone(), 4).commit(write()).await.is_err());
    assert!(retry(failing.clone(), 4).get(&key("a")).await.is_ok());
    assert_eq!(failing.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn reads_and_renewals_are_tried_again_after_timeouts() {
    let failing = Failing::new(ErrorKind::Timeout, 0);
    let (store, name, again) = (
        retry(failing.clone(), 2),
        LeaseName::parse("l").unwrap(),
        |f: &Failing| f.left.store(1, Ordering::Relaxed),
    );
    again(&failing);
    store.get(&key("a")).await.unwrap();
    again(&failing);
    store.list(&prefix(""), ListOptions::default()).await.unwrap();
    again(&failing);
    store.renew(&name, 1, SECOND).await.unwrap();
    again(&failing);
    store.revoke(&name, 1).await.unwrap();
    again(&failing);
    store.leases(&prefix("")).await.unwrap();
    assert_eq!(failing.calls(), 10);
}

#[tokio::test(start_paused = true)]
async fn tries_are_bounded_and_the_last_error_is_marked() {
    let failing = Failing::new(ErrorKind::Unavailable, 100);
    let refused = retry(failing.clone(), 4).get(&key("a")).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.class(), failing.calls()),
        (ErrorKind::Unavailable, Class::Exhausted, 4)
    );
    // A second layer of retries does not multiply them.
    let twice = retry(Arc::new(retry(failing.clone(), 4)), 4);
    assert!(twice.get(&key("a")).await.is_err());
    assert_eq!(failing.calls(), 8);
}

#[tokio::test(start_paused = true)]
async fn permanent_errors_are_not_tried_again() {
    for kind in [
        ErrorKind::Invalid,
        ErrorKind::Compacted,
        ErrorKind::Denied,
        ErrorKind::Corrupt,
        ErrorKind::Full,
    ] {
        let failing = Failing::new(kind, 1);
        let refused = retry(failing.clone(), 4).get(&key("a")).await.unwrap_err();
        assert_eq!(
            (refused.kind(), refused.class(), failing.calls()),
            (kind, Class::Permanent, 1)
        );
    }
}

/// A memory store behind a delay or a closed door.
fn slow(store: DynBackend) -> DynBackend {
    Arc::new(Chaos::new(
        store,
        ChaosConfig::default().with_delay(1000, Duration::from_secs(1000)),
        3,
    ))
}

#[tokio::test(start_paused = true)]
async fn late_reads_time_out_and_late_commits_are_unknown() {
    let store = Timeout::new(slow(memory()), TimeoutConfig::default());
    let name = LeaseName::parse("l").unwrap();
    assert_eq!(store.get(&key("a")).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(
        store
            .list(&prefix(""), ListOptions::default())
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Timeout
    );
    assert_eq!(
        store.commit(write()).await.unwrap_err().kind(),
        ErrorKind::Unknown
    );
    assert_eq!(
        store
            .grant(&name, "h", SECOND, LeaseMode::Acquire)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Unknown
    );
    assert_eq!(
        store.renew(&name, 1, SECOND).await.unwrap_err().kind(),
        ErrorKind::Timeout
    );
    assert_eq!(
        store.revoke(&name, 1).await.unwrap_err().kind(),
        ErrorKind::Timeout
    );
    assert_eq!(
        store.leases(&prefix("")).await.unwrap_err().kind(),
        ErrorKind::Timeout
    );
    let patient = TimeoutConfig::default()
        .with_read(5000 * SECOND)
        .with_commit(5000 * SECOND)
        .with_lease(5000 * SECOND);
    let store = Timeout::new(slow(memory()), patient);
    assert!(store.commit(write()).await.is_ok());
    assert!(store.get(&key("a")).await.unwrap().is_some());
}

/// Lets reads through only when told; counts those inside.
#[derive(Debug)]
struct Door {
    store: Arc<MemoryStore>,
    open: Notify,
    inside: AtomicU32,
    most: AtomicU32,
}

#[async_trait::async_trait]
impl Store for Door {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        self.open.notified().await;
        self.inside.fetch_sub(1, Ordering::SeqCst);
        self.store.get(key).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.store.list(prefix, options).await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.store.commit(txn).await
    }
    fn capability(&self) -> Capability {
        self.store.capability()
    }
}
impl Watch for Door {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        self.store.watch(prefix, options)
    }
}
#[async_trait::async_trait]
impl Leases for Door {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        self.store.grant(name, holder, ttl, mode).await
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.store.renew(name, epoch, ttl).await
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.store.revoke(name, epoch).await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.store.leases(prefix).await
    }
}

#[tokio::test]
async fn calls_and_those_that_wait_are_bounded() {
    let door = Arc::new(Door {
        store: memory(),
        open: Notify::new(),
        inside: AtomicU32::new(0),
        most: AtomicU32::new(0),
    });
    let limit = Limit::new(door.clone(), LimitConfig::default().with_calls(2).with_waiting(3));
    let a = key("a");
    let mut calls: Vec<_> = (0..6).map(|_| Box::pin(limit.get(&a))).collect();
    let polled: Vec<_> = calls.iter_mut().map(|call| call.now_or_never()).collect();
    assert!(
        polled[..5].iter().all(Option::is_none),
        "two inside, three waiting"
    );
    let refused = polled[5].as_ref().unwrap().as_ref().unwrap_err();
    assert_eq!(
        (refused.kind(), refused.class()),
        (ErrorKind::Overloaded, Class::Transient)
    );
    calls.truncate(5);
    // One that waits gives up; its place is free again.
    drop(calls.pop());
    let late = limit.get(&a);
    tokio::pin!(late);
    assert!(late.as_mut().now_or_never().is_none());
    // Leases do not stand in the queue.
    let name = LeaseName::parse("l").unwrap();
    assert!(
        limit
            .grant(&name, "h", SECOND, LeaseMode::Acquire)
            .now_or_never()
            .unwrap()
            .is_ok()
    );

    let opening = async {
        for _ in 0..5 {
            while door.inside.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            door.open.notify_one();
            tokio::task::yield_now().await;
        }
    };
    let ((answers, late), ()) = join(join(join_all(calls), late), opening).await;
    assert!(answers.iter().all(Result::is_ok) && late.is_ok());
    assert_eq!(door.most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn two_clouds_in_one_store_do_not_see_each_other() {
    let store = memory();
    let cloud = |name: &str| Prefixed::new(shared(&store), prefix(name));
    let (one, ten) = (cloud("clouds/1"), cloud("clouds/10"));
    let mut events = one.watch(&prefix(""), WatchOptions::after(Revision(0)));
    put(&ten, "hosts/h", 10).await;
    let first = put(&one, "hosts/h", 1).await;
    assert_eq!(
        store.get(&key("clouds/1/hosts/h")).await.unwrap().unwrap().value,
        json(1)
    );
    assert_eq!(one.get(&key("hosts/h")).await.unwrap().unwrap().value, json(1));
    let listed = one.list(&prefix(""), ListOptions::default()).await.unwrap().items;
    assert_eq!(
        listed.iter().map(|kv| kv.key.as_str()).collect::<Vec<_>>(),
        ["hosts/h"]
    );
    let Some(Ok(WatchEvent::Commit { revision, changes })) = events.next().await else {
        panic!("no commit")
    };
    assert_eq!((revision, changes[0].key().as_str()), (first, "hosts/h"));

    let name = LeaseName::parse("hosts/h").unwrap();
    assert!(matches!(
        one.grant(&name, "a", SECOND, LeaseMode::Acquire).await.unwrap(),
        Grant::Granted { .. }
    ));
    assert!(matches!(
        ten.grant(&name, "b", SECOND, LeaseMode::Acquire).await.unwrap(),
        Grant::Granted { .. }
    ));
    let Grant::Held(info) = one.grant(&name, "c", SECOND, LeaseMode::Acquire).await.unwrap() else {
        panic!("granted twice")
    };
    assert_eq!((info.name, &*info.holder), (name, "a"));

    let long = key(&"k".repeat(510));
    assert_eq!(one.get(&long).await.unwrap_err().kind(), ErrorKind::Invalid);
    let long = Prefix::parse(long.as_str()).unwrap();
    let refused = one.watch(&long, WatchOptions::after(Revision(0))).next().await;
    assert_eq!(refused.unwrap().unwrap_err().kind(), ErrorKind::Invalid);
}

/// What becomes of a fixed row of calls and of a watch over them.
async fn chaotic(seed: u64) -> Vec<String> {
    let config = ChaosConfig::allowed(200)
        .with_delay(200, Duration::from_millis(50))
        .with_watch_repeat(100);
    let memory = memory();
    let store = Chaos::new(shared(&memory), config, seed);
    let mut said = Vec::new();
    for n in 0..40 {
        let answer = store
            .commit(Txn::new().put(key(&format!("a/{}", n % 3)), json(n)))
            .await;
        said.push(format!("{:?}", answer.map_err(|e| e.to_string())));
        said.push(format!(
            "{:?}",
            store.get(&key("a/1")).await.map_err(|e| e.kind())
        ));
    }
    for _ in 0..5 {
        let events = store.watch(&prefix("a"), WatchOptions::after(Revision(0)));
        let some: Vec<_> = events
            .take(12)
            .map(|e| format!("{:?}", e.map_err(|e| e.kind())))
            .collect()
            .await;
        said.extend(some);
    }
    said
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_chaos() {
    let first = chaotic(7).await;
    assert_eq!(first, chaotic(7).await);
    assert_ne!(first, chaotic(8).await);
    let all = first.join("\n");
    for fault in [
        "Unavailable",
        "Timeout",
        "in place of the call",
        "after the call",
        "before the call",
        "Gap",
    ] {
        assert!(all.contains(fault), "no {fault} in\n{all}");
    }
}

#[tokio::test]
async fn the_standard_stack_is_in_the_right_order() {
    let ids = Arc::new(SeededIds::new(ManualClock::new(), 1));
    let store = standard(
        memory(),
        StandardConfig::default(),
        Arc::new(ManualClock::new()),
        ids,
    );
    let stack = "observe > retry(4 tries, 50ms to 2s) > timeout(read 5s, commit 10s, lease 3s) > \
                 limit(256 calls, 512 waiting) > memory";
    assert_eq!(format!("{store:?}"), stack);
    let config = StandardConfig::default()
        .with_retry(RetryConfig::default().with_tries(2))
        .with_limit(LimitConfig::default().with_calls(1))
        .with_timeout(TimeoutConfig::default().with_read(SECOND));
    let ids = Arc::new(SeededIds::new(ManualClock::new(), 1));
    let store = standard(memory(), config, Arc::new(ManualClock::new()), ids);
    assert!(format!("{store:?}").contains("retry(2 tries, 50ms to 2s) > timeout(read 1s,"));
    assert_eq!(store.capability(), Capability::PORTABLE);
    assert_eq!(Prefixed::new(memory(), prefix("a/b")).to_string(), "prefix(a/b/)");
}
