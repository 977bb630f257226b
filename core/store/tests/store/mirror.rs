//! Mirrors over scripted streams: gaps, errors, ends, compaction, restored stores.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use skyloom_store::{
    Capability, Change, Changed, Error, ErrorKind, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName,
    Leases, ListOptions, MemoryStore, Mirror, MirrorDriver, Outcome, Page, Prefix, Renewal, Result, Revision,
    Store, Txn, Versioned, Watch, WatchEvent, WatchOptions,
};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{commit, delete, json, key, memory, prefix, put, shared};

/// A driver that runs until the end of the test.
pub(crate) struct Running {
    task: JoinHandle<()>,
    stop: DropGuard,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the handle is awaited or ended with the runtime of the test"
)]
pub(crate) fn start<T: skyloom_store::Document>(driver: MirrorDriver<T>) -> Running {
    let stop = CancellationToken::new();
    Running {
        task: tokio::spawn(driver.run(stop.clone())),
        stop: stop.drop_guard(),
    }
}

pub(crate) fn names(documents: &[Arc<Versioned<u32>>]) -> Vec<&str> {
    documents.iter().map(|d| d.key.as_str()).collect()
}

#[tokio::test]
async fn it_starts_with_what_is_there_and_follows() {
    let store = memory();
    put(&*store, "n/1", 1).await;
    put(&*store, "m/1", 1).await;
    let (mirror, driver) = Mirror::<u32>::new(shared(&store), prefix("n"));
    assert!(!mirror.is_ready());
    assert!(mirror.get(&key("n/1")).is_none());
    let _running = start(driver);
    mirror.ready().await.unwrap();
    assert_eq!(mirror.get(&key("n/1")).unwrap().value, 1);
    assert_eq!(mirror.revision(), Revision(2));

    put(&*store, "n/2", 2).await;
    let txn = Txn::new()
        .put(key("n/1"), json(10))
        .delete(key("n/2"))
        .put(key("n/3"), json(3));
    let last = commit(&*store, txn).await;
    mirror.wait_for(last).await.unwrap();
    assert_eq!(names(&mirror.under(&prefix("n"))), ["n/1", "n/3"]);
    let first = mirror.get(&key("n/1")).unwrap();
    assert_eq!(
        (first.value, first.created, first.modified),
        (10, Revision(1), last)
    );
}

#[tokio::test]
async fn a_snapshot_does_not_move() {
    let store = memory();
    put(&*store, "n/a/1", 1).await;
    let (mirror, driver) = Mirror::<u32>::new(shared(&store), prefix("n"));
    let _running = start(driver);
    mirror.ready().await.unwrap();
    let before = mirror.snapshot();
    put(&*store, "n/a10/1", 2).await;
    let last = delete(&*store, "n/a/1").await;
    mirror.wait_for(last).await.unwrap();
    assert_eq!((before.len(), before.revision()), (1, Revision(1)));
    assert!(before.get(&key("n/a/1")).is_some());
    let after = mirror.snapshot();
    assert_eq!(
        after.iter().map(|d| d.key.to_string()).collect::<Vec<_>>(),
        ["n/a10/1"]
    );
    assert_eq!(after.under(&prefix("n/a")).count(), 0);
    assert!(!after.is_empty());
}

#[tokio::test]
async fn indexes_follow_the_documents() {
    let store = memory();
    put(&*store, "n/1", 10).await;
    put(&*store, "n/2", 11).await;
    let parity = |n: &u32| vec![if n.is_multiple_of(2) { "even" } else { "odd" }.to_owned()];
    let digits = |n: &u32| n.to_string().chars().map(String::from).collect();
    let (mirror, driver) = Mirror::<u32>::builder(shared(&store), prefix("n"))
        .with_index("parity", parity)
        .with_index("digit", digits)
        .build();
    let _running = start(driver);
    mirror.ready().await.unwrap();
    assert_eq!(names(&mirror.by_index("parity", "even")), ["n/1"]);
    assert_eq!(names(&mirror.by_index("digit", "1")), ["n/1", "n/2"]);

    put(&*store, "n/3", 20).await;
    put(&*store, "n/1", 31).await;
    let last = delete(&*store, "n/2").await;
    mirror.wait_for(last).await.unwrap();
    assert_eq!(names(&mirror.by_index("parity", "even")), ["n/3"]);
    assert_eq!(names(&mirror.by_index("parity", "odd")), ["n/1"]);
    assert_eq!(names(&mirror.by_index("digit", "1")), ["n/1"]);
    assert!(mirror.by_index("digit", "7").is_empty());
    assert!(mirror.by_index("no such index", "1").is_empty());
}

#[tokio::test]
async fn what_cannot_be_decoded_is_set_aside_and_comes_back_when_mended() {
    let store = memory();
    put(&*store, "n/bad", "text").await;
    put(&*store, "n/good", 1).await;
    let (mirror, driver) = Mirror::<u32>::new(shared(&store), prefix("n"));
    let _running = start(driver);
    mirror.ready().await.unwrap();
    assert_eq!(names(&mirror.under(&prefix("n"))), ["n/good"]);
    let aside = mirror.quarantined();
    assert_eq!(aside.len(), 1);
    assert_eq!((aside[0].key.as_str(), aside[0].modified), ("n/bad", Revision(1)));
    assert!(aside[0].error.contains("expected u32"), "{}", aside[0].error);

    put(&*store, "n/bad", 2).await;
    let last = put(&*store, "n/good", "text").await;
    mirror.wait_for(last).await.unwrap();
    assert_eq!(names(&mirror.under(&prefix("n"))), ["n/bad"]);
    assert!(mirror.is_quarantined(&key("n/good")) && !mirror.is_quarantined(&key("n/bad")));

    let last = delete(&*store, "n/good").await;
    mirror.wait_for(last).await.unwrap();
    assert!(mirror.quarantined().is_empty());
}

#[tokio::test]
async fn changes_begin_with_everything_and_then_name_keys() {
    let store = memory();
    put(&*store, "n/1", 1).await;
    let (mirror, driver) = Mirror::<u32>::new(shared(&store), prefix("n"));
    let mut early = mirror.changes();
    let running = start(driver);
    assert_eq!(early.next().await, Some(Changed::Everything));
    assert!(
        mirror.is_ready(),
        "everything is told when there is something to see"
    );
    let mut late = mirror.changes();
    assert_eq!(late.next().await, Some(Changed::Everything));

    let txn = Txn::new()
        .put(key("n/3"), json(3))
        .delete(key("n/1"))
        .put(key("m/1"), json(1));
    let last = commit(&*store, txn).await;
    mirror.wait_for(last).await.unwrap();
    let last = put(&*store, "n/3", 4).await;
    mirror.wait_for(last).await.unwrap();
    // Two commits, merged: each key once.
    for changes in [&mut early, &mut late] {
        assert_eq!(
            changes.next().await,
            Some(Changed::Keys(vec![key("n/1"), key("n/3")]))
        );
    }
    drop(running.stop);
    running.task.await.unwrap();
    assert_eq!(early.next().await, None);
    assert_eq!(mirror.changes().next().await, Some(Changed::Everything));
    assert!(mirror.get(&key("n/3")).is_some(), "what is known stays readable");
}

#[tokio::test]
async fn a_consumer_far_behind_is_told_to_look_at_everything() {
    let store = memory();
    let (mirror, driver) = Mirror::<u32>::new(shared(&store), prefix("n"));
    let _running = start(driver);
    mirror.ready().await.unwrap();
    let mut changes = mirror.changes();
    assert_eq!(changes.next().await, Some(Changed::Everything));
    for chunk in 0..50 {
        let txn = (0..100).fold(Txn::new(), |t, n| t.put(key(&format!("n/{chunk}-{n}")), json(n)));
        let last = commit(&*store, txn).await;
        mirror.wait_for(last).await.unwrap();
    }
    assert_eq!(changes.next().await, Some(Changed::Everything));
    let last = put(&*store, "n/x", 1).await;
    mirror.wait_for(last).await.unwrap();
    assert_eq!(changes.next().await, Some(Changed::Keys(vec![key("n/x")])));
}

#[tokio::test]
async fn waiting_ends_with_the_driver() {
    let (mirror, driver) = Mirror::<u32>::new(shared(&memory()), prefix("n"));
    drop(driver);
    assert_eq!(mirror.ready().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(
        mirror.wait_for(Revision(1)).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(mirror.changes().next().await, None);
}

pub(crate) type Events = BoxStream<'static, Result<WatchEvent>>;

/// A memory store whose first lists fail and whose first watches are played as written.
pub(crate) struct Scripted {
    store: Arc<MemoryStore>,
    lists: Mutex<VecDeque<Option<ErrorKind>>>,
    watches: Mutex<VecDeque<Events>>,
    /// What was asked, in order.
    asked: Mutex<Vec<String>>,
}

impl Scripted {
    pub(crate) fn new(
        store: &Arc<MemoryStore>,
        lists: Vec<Option<ErrorKind>>,
        watches: Vec<Events>,
    ) -> Arc<Self> {
        let (lists, watches) = (Mutex::new(lists.into()), Mutex::new(watches.into()));
        Arc::new(Self {
            store: store.clone(),
            lists,
            watches,
            asked: Mutex::default(),
        })
    }
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("scripted")
    }
}

#[async_trait::async_trait]
impl Store for Scripted {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.store.get(key).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.asked
            .lock()
            .push(options.at.map_or("list".to_owned(), |at| format!("list at {at}")));
        let scripted = self.lists.lock().pop_front().flatten();
        match scripted {
            Some(kind) => Err(Error::new(kind, "scripted list")),
            None => self.store.list(prefix, options).await,
        }
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.store.commit(txn).await
    }
    fn capability(&self) -> Capability {
        self.store.capability()
    }
}
impl Watch for Scripted {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> Events {
        self.asked.lock().push(format!("watch after {}", options.after));
        let scripted = self.watches.lock().pop_front();
        scripted.unwrap_or_else(|| self.store.watch(prefix, options))
    }
}
#[async_trait::async_trait]
impl Leases for Scripted {
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

pub(crate) fn events(events: Vec<Result<WatchEvent>>) -> Events {
    futures::stream::iter(events).boxed()
}
fn broken() -> Result<WatchEvent> {
    Err(Error::new(ErrorKind::Unavailable, "scripted watch"))
}
fn gap() -> Result<WatchEvent> {
    Ok(WatchEvent::Gap { floor: Revision(1) })
}

#[tokio::test(start_paused = true)]
async fn errors_and_ends_are_resumed_from_the_last_revision() {
    let store = memory();
    put(&*store, "n/1", 1).await;
    let kv = KeyValue {
        key: key("n/2"),
        value: json(2),
        created: Revision(2),
        modified: Revision(2),
    };
    let two = WatchEvent::Commit {
        revision: Revision(2),
        changes: vec![Change::Put(kv)],
    };
    let watches = vec![
        events(vec![broken()]),
        events(vec![Ok(two), broken()]),
        events(vec![]),
        events(vec![Ok(WatchEvent::Progress(Revision(3)))]),
    ];
    let scripted = Scripted::new(
        &store,
        vec![Some(ErrorKind::Unavailable), Some(ErrorKind::Denied)],
        watches,
    );
    let (mirror, driver) = Mirror::<u32>::new(scripted.clone(), prefix("n"));
    let _running = start(driver);
    mirror.wait_for(Revision(2)).await.unwrap();
    assert_eq!(mirror.get(&key("n/2")).unwrap().value, 2);
    put(&*store, "n/2", 2).await;
    put(&*store, "m/3", 2).await;
    mirror.wait_for(Revision(3)).await.unwrap();
    let last = put(&*store, "n/4", 4).await;
    mirror.wait_for(last).await.unwrap();
    let watched = [
        "watch after 1",
        "watch after 1",
        "watch after 2",
        "watch after 2",
        "watch after 3",
    ];
    assert_eq!(scripted.asked(), [&["list"; 3][..], &watched[..]].concat());
    assert_eq!(mirror.last_error(), None);
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_and_the_waits_grow_to_their_bound() {
    let scripted = Scripted::new(&memory(), vec![Some(ErrorKind::Unavailable); 20], vec![]);
    let (mirror, driver) = Mirror::<u32>::builder(scripted.clone(), prefix("n"))
        .with_backoff(Duration::from_millis(100), Duration::from_secs(1))
        .build();
    let _running = start(driver);
    // Lists at 0, 100, 300, 700, 1500, 2500, 3500, 4500 and 5500 milliseconds.
    tokio::time::sleep(Duration::from_millis(5600)).await;
    assert_eq!(scripted.asked().len(), 9);
    assert!(mirror.last_error().unwrap().contains("unavailable"));
    assert!(!mirror.is_ready());
    mirror.ready().await.unwrap();
    assert_eq!(mirror.last_error(), None);
}

#[tokio::test(start_paused = true)]
async fn a_gap_lists_again_and_tells_what_is_different() {
    let store = memory();
    for path in ["n/kept", "n/changed", "n/deleted"] {
        put(&*store, path, 1).await;
    }
    put(&*store, "n/mended", "text").await;
    // The first watch says nothing but, in the end, that it lost its position.
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let watch = futures::stream::once(ended).map(|_| gap()).boxed();
    let scripted = Scripted::new(&store, vec![], vec![watch]);
    let (mirror, driver) = Mirror::<u32>::builder(scripted.clone(), prefix("n"))
        .with_index("value", |n| vec![n.to_string()])
        .with_page(2)
        .build();
    let mut changes = mirror.changes();
    let _running = start(driver);
    assert_eq!(changes.next().await, Some(Changed::Everything));
    let before = mirror.snapshot();

    put(&*store, "n/changed", 2).await;
    delete(&*store, "n/deleted").await;
    put(&*store, "n/mended", 3).await;
    put(&*store, "n/new", 4).await;
    end.send(()).unwrap();
    let different = ["n/changed", "n/deleted", "n/mended", "n/new"].map(key).to_vec();
    assert_eq!(changes.next().await, Some(Changed::Keys(different)));
    assert_eq!(
        names(&mirror.under(&prefix("n"))),
        ["n/changed", "n/kept", "n/mended", "n/new"]
    );
    assert_eq!(names(&mirror.by_index("value", "1")), ["n/kept"]);
    assert!(mirror.quarantined().is_empty());
    assert_eq!(before.len(), 3, "the old snapshot is as it was");
    let wanted = [
        "list",
        "list at 4",
        "watch after 4",
        "list",
        "list at 8",
        "watch after 8",
    ];
    assert_eq!(scripted.asked(), wanted);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_only_gives_gaps_does_not_list_in_circles() {
    let store = memory();
    let watches = (0..100).map(|_| events(vec![gap()])).collect();
    let scripted = Scripted::new(&store, vec![], watches);
    let (mirror, driver) = Mirror::<u32>::builder(scripted.clone(), prefix("n"))
        .with_backoff(Duration::from_secs(1), Duration::from_secs(1))
        .build();
    let _running = start(driver);
    mirror.ready().await.unwrap();
    tokio::time::sleep(Duration::from_millis(4500)).await;
    let lists = scripted.asked().iter().filter(|a| *a == "list").count();
    assert_eq!(
        lists,
        6,
        "at once twice, then each second: {:?}",
        scripted.asked()
    );
}

#[tokio::test(start_paused = true)]
async fn a_listing_whose_revision_is_compacted_on_the_way_starts_again() {
    let store = memory();
    for n in 0..6 {
        put(&*store, &format!("n/{n}"), n).await;
    }
    let lists = vec![None, None, Some(ErrorKind::Compacted)];
    let scripted = Scripted::new(&store, lists, vec![]);
    let (mirror, driver) = Mirror::<u32>::builder(scripted.clone(), prefix("n"))
        .with_page(2)
        .build();
    let _running = start(driver);
    mirror.ready().await.unwrap();
    assert_eq!(mirror.snapshot().len(), 6);
    let wanted = [
        "list",
        "list at 6",
        "list at 6",
        "list",
        "list at 6",
        "list at 6",
        "watch after 6",
    ];
    assert_eq!(scripted.asked(), wanted);
    assert_eq!(mirror.last_error(), None);
}

#[tokio::test(start_paused = true)]
async fn a_resync_finds_what_the_watch_missed() {
    let store = memory();
    put(&*store, "n/1", 1).await;
    let scripted = Scripted::new(&store, vec![], vec![futures::stream::pending().boxed()]);
    let (mirror, driver) = Mirror::<u32>::builder(scripted, prefix("n"))
        .with_resync(Duration::from_secs(60))
        .build();
    let mut changes = mirror.changes();
    let _running = start(driver);
    assert_eq!(changes.next().await, Some(Changed::Everything));
    let missed = put(&*store, "n/2", 2).await;
    assert_eq!(changes.next().await, Some(Changed::Keys(vec![key("n/2")])));
    assert_eq!(mirror.revision(), missed);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_went_back_is_listed_from_nothing() {
    let store = memory();
    put(&*store, "n/1", 1).await;
    // The mirror has seen revision 100 of a store that was then restored from a backup.
    let seen = KeyValue {
        key: key("n/1"),
        value: json(7),
        created: Revision(1),
        modified: Revision(1),
    };
    let commit = WatchEvent::Commit {
        revision: Revision(100),
        changes: vec![Change::Put(seen)],
    };
    let scripted = Scripted::new(&store, vec![], vec![events(vec![Ok(commit)])]);
    let (mirror, driver) = Mirror::<u32>::new(scripted, prefix("n"));
    let mut changes = mirror.changes();
    let _running = start(driver);
    assert_eq!(changes.next().await, Some(Changed::Everything));
    mirror.wait_for(Revision(100)).await.unwrap();
    // Watching after 100 is a gap now.
    while mirror.revision() != Revision(1) {
        assert!(changes.next().await.is_some());
    }
    assert_eq!(mirror.get(&key("n/1")).unwrap().value, 1);
}
