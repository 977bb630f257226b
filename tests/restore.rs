//! A cloud that is put back to an older state while its guests run on: nothing runs twice, nothing is ended, nothing is begun
//! while the fleet is held, and after the release tasks go on.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use skyloom::cloud::custody::{self, DifferenceKind};
use skyloom::cloud::{
    Caller, Cloud, CloudError, CreateImage, CreateServer, DirImageRepo, HoldStatus, NoFetch, StopOptions,
};
use skyloom::flow::journal::{Journal, MemoryDisk, MemoryJournal};
use skyloom::hypervisor::FakeWorld;
use skyloom::image::Limits;
use skyloom::model::{
    DiskFormat, Ids, Incarnation, OsIds, PowerState, Resource as _, ServerId, SystemClock, Task, TaskState,
};
use skyloom::store::{
    Capability, DynBackend, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases, ListOptions,
    MemoryConfig, MemoryStore, Outcome, Page, Prefix, Renewal, Result, Store, Txn, Watch, WatchEvent,
    WatchOptions,
};
use skyloom::{LocalCloud, LocalHost, LocalParts};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What outlives every process: the store behind its address, the host, the journal.
struct Site {
    address: Arc<Address>,
    host: FakeWorld,
    journal: MemoryDisk,
    folder: tempfile::TempDir,
    clock: Arc<SystemClock>,
    ids: Arc<dyn Ids>,
}

/// A store's address: behind it there may be another store from one moment on, as after a restore in place.
struct Address(watch::Sender<DynBackend>);

/// One life of engine and agent. Dropping it is a crash.
struct Life {
    cloud: Arc<Cloud>,
    me: Caller,
    work: JoinSet<Result<()>>,
    stop: CancellationToken,
    journal: MemoryDisk,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.journal.crash();
    }
}

fn empty(clock: &Arc<SystemClock>) -> DynBackend {
    Arc::new(MemoryStore::new(clock.clone(), MemoryConfig::default()))
}

impl Site {
    fn new() -> Self {
        let clock = Arc::new(SystemClock::new());
        Self {
            address: Arc::new(Address(watch::Sender::new(empty(&clock)))),
            host: FakeWorld::in_memory(),
            journal: MemoryDisk::new(),
            folder: tempfile::tempdir().unwrap(),
            ids: Arc::new(OsIds::new(clock.clone())),
            clock,
        }
    }

    async fn opened(&self, journal: Arc<dyn Journal>) -> LocalCloud {
        let host = LocalHost::new(
            "h1",
            Arc::new(self.host.hypervisor()),
            Arc::new(self.host.storage()),
        );
        LocalCloud::open(LocalParts {
            backend: self.address.clone(),
            images: Arc::new(DirImageRepo::open(self.folder.path(), 1 << 30).unwrap()),
            hosts: vec![host.with_journal(journal)],
            fetch: Arc::new(NoFetch),
            limits: Limits {
                allow_any_raw: true,
                ..Limits::default()
            },
            clock: self.clock.clone(),
            ids: self.ids.clone(),
        })
        .await
        .unwrap()
    }

    async fn live(&self) -> Life {
        let local = self
            .opened(Arc::new(MemoryJournal::open(&self.journal).unwrap()))
            .await;
        let (cloud, me, readiness) = (local.cloud(), local.admin(), local.readiness());
        let mut work = JoinSet::new();
        let stop = CancellationToken::new();
        work.spawn(local.run(stop.clone()));
        while !readiness.is_ready() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Life {
            cloud,
            me,
            work,
            stop,
            journal: self.journal.clone(),
        }
    }

    /// Puts the backup into a store of its own, and that behind the address.
    async fn restore(&self, file: &std::path::Path) -> Incarnation {
        let to = empty(&self.clock);
        let done = custody::restore(file, &*to, "ann", &*self.clock, &*self.ids)
            .await
            .unwrap();
        self.address.0.send_replace(to);
        done.incarnation
    }

    async fn backup(&self, name: &str) -> std::path::PathBuf {
        let file = self.folder.path().join(name);
        let store = self.address.0.borrow().clone();
        custody::backup(&*store, "memory:", &file, &*self.clock)
            .await
            .unwrap();
        file
    }

    async fn keys(&self, below: &str) -> BTreeSet<String> {
        let store = self.address.0.borrow().clone();
        let below = Prefix::parse(below).unwrap();
        let page = store.list(&below, ListOptions::default()).await.unwrap();
        page.items.iter().map(|kv| kv.key.to_string()).collect()
    }

    fn power(&self, server: ServerId) -> Option<PowerState> {
        self.host.domain(server).unwrap().map(|d| d.power)
    }
}

impl Life {
    /// Ends in order: leases are given back.
    async fn end(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.work.join_next().await {
            ended.unwrap().unwrap();
        }
    }

    async fn done(&self, task: Task) -> Task {
        self.cloud.wait_for_task(&self.me, task.id).await.unwrap()
    }

    async fn make(&self, name: &str) -> ServerId {
        let request = CreateServer::new(name, "blank", "m1.tiny");
        let made = self.cloud.create_server(&self.me, request).await.unwrap();
        assert_eq!(self.done(made.task).await.state, TaskState::Done);
        made.server.id()
    }

    async fn image(&self) {
        let request = CreateImage::new("blank", DiskFormat::Raw);
        let image = self.cloud.create_image(&self.me, request).await.unwrap().image;
        let content = futures::stream::iter([std::io::Result::Ok(vec![0; 1 << 16].into())]);
        let upload = self
            .cloud
            .upload_image(&self.me, image.id(), Box::pin(content), None)
            .await
            .unwrap();
        self.done(upload.task.unwrap()).await;
    }

    async fn stop(&self, server: ServerId) -> Task {
        let asked = self
            .cloud
            .stop_server(&self.me, server, StopOptions::default())
            .await;
        asked.unwrap().task
    }

    /// The hold, once all hosts have reported under it.
    async fn reported(&self) -> HoldStatus {
        loop {
            let status = self.cloud.hold_status(&self.me).await.unwrap();
            if status.hold.is_some() && status.silent_hosts.is_empty() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What happened before the backup, and after.
struct Story {
    file: std::path::PathBuf,
    deleted: ServerId,
    made: ServerId,
    started: ServerId,
    changed: ServerId,
    /// A server whose stop was asked for before the backup, and in the history that followed never happened.
    asked: ServerId,
    stop: Task,
}

/// Two lives with a backup between: servers are deleted, made, started, changed after it.
async fn told(site: &Site) -> Story {
    let life = site.live().await;
    life.image().await;
    let deleted = life.make("deleted").await;
    let started = life.make("started").await;
    let changed = life.make("changed").await;
    let asked = life.make("asked").await;
    let off = life.stop(started).await;
    life.done(off).await;
    let (cloud, me) = (life.cloud.clone(), life.me.clone());
    life.end().await;
    // Nobody works: the task waits, in the backup too.
    let stop = cloud
        .stop_server(&me, asked, StopOptions::default())
        .await
        .unwrap()
        .task;
    let file = site.backup("cloud.backup").await;
    cloud.cancel_task(&me, stop.id).await.unwrap();

    let life = site.live().await;
    assert_eq!(life.done(stop.clone()).await.state, TaskState::Cancelled);
    let gone = life.cloud.delete_server(&life.me, deleted).await.unwrap().task;
    assert_eq!(life.done(gone).await.state, TaskState::Done);
    let made = life.make("made").await;
    let on = life.cloud.start_server(&life.me, started).await.unwrap().task;
    assert_eq!(life.done(on).await.state, TaskState::Done);
    let off = life.stop(changed).await;
    life.done(off).await;
    let on = life.cloud.start_server(&life.me, changed).await.unwrap().task;
    assert_eq!(life.done(on).await.state, TaskState::Done);
    life.end().await;
    Story {
        file,
        deleted,
        made,
        started,
        changed,
        asked,
        stop,
    }
}

fn assert_differences(story: &Story, status: &HoldStatus) {
    let found: BTreeSet<String> = status
        .differences
        .iter()
        .map(|d| format!("{:?} {}", d.kind, d.server))
        .collect();
    let wanted: BTreeSet<String> = [
        (DifferenceKind::Missing, story.deleted),
        (DifferenceKind::Unknown, story.made),
        (DifferenceKind::Newer, story.started),
        (DifferenceKind::Newer, story.changed),
    ]
    .iter()
    .map(|(kind, server)| format!("{kind:?} {server}"))
    .collect();
    assert_eq!(found, wanted);
}

/// While held: nothing is begun, and changes are refused. After the release the waiting task is done, and nothing else.
async fn held_and_released(site: &Site, story: &Story, life: &Life, adopt: bool) {
    let before = site.host.position().unwrap();
    let status = life.reported().await;
    assert_differences(story, &status);
    let refused = |e: CloudError| e.code().to_owned();
    let request = CreateServer::new("more", "blank", "m1.tiny");
    let error = life.cloud.create_server(&life.me, request).await.unwrap_err();
    assert_eq!(refused(error), "fleet.held");
    let error = life.cloud.release_hold(&life.me, false).await.unwrap_err();
    assert_eq!(refused(error), "hold.differences");
    let waits = life.cloud.get_task(&life.me, story.stop.id).await.unwrap().value;
    assert_eq!(waits.state, TaskState::Queued);
    assert!(site.keys("jobs").await.is_empty());
    assert!(site.host.history_since(before).unwrap().is_empty());
    assert_eq!(site.power(story.asked), Some(PowerState::Running));

    if adopt {
        let taken = life.cloud.adopt_guests(&life.me).await.unwrap();
        let taken_over: BTreeSet<ServerId> = taken.servers.iter().map(|s| s.server).collect();
        assert_eq!(taken_over, BTreeSet::from([story.started, story.changed]));
        assert!(
            !taken.more
                && life
                    .cloud
                    .adopt_guests(&life.me)
                    .await
                    .unwrap()
                    .servers
                    .is_empty()
        );
        let left = life.cloud.hold_status(&life.me).await.unwrap().differences;
        let left: BTreeSet<DifferenceKind> = left.iter().map(|d| d.kind).collect();
        assert_eq!(
            left,
            BTreeSet::from([DifferenceKind::Missing, DifferenceKind::Unknown])
        );
        assert!(site.host.history_since(before).unwrap().is_empty());
    }
    life.cloud.release_hold(&life.me, true).await.unwrap();
    assert_eq!(life.done(story.stop.clone()).await.state, TaskState::Done);
    assert_eq!(site.power(story.asked), Some(PowerState::Stopped));
    let touched: BTreeSet<ServerId> = site
        .host
        .history_since(before)
        .unwrap()
        .iter()
        .filter_map(|e| e.server)
        .collect();
    assert_eq!(
        touched,
        BTreeSet::from([story.asked]),
        "no other guest was touched"
    );
    for runs in [story.made, story.started, story.changed] {
        assert_eq!(site.power(runs), Some(PowerState::Running));
    }
    life.make("after").await;
    // The guest carries a newer generation than its record: each order raises the record's, until it is obeyed.
    let mut refused = 0;
    loop {
        let order = life.stop(story.changed).await;
        match life.done(order).await.state {
            TaskState::Done => break,
            TaskState::Failed if refused < 4 => refused += 1,
            other => panic!("{other:?} after {refused} refusals"),
        }
    }
    assert_eq!(site.power(story.changed), Some(PowerState::Stopped));
    assert_eq!(
        refused > 0,
        !adopt,
        "hosts believe no record that is older than the guest"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_and_a_restart_guests_run_on_and_nothing_is_begun_before_the_release() {
    let site = Site::new();
    let story = told(&site).await;
    let obeyed = site.journal.durable().obeys().unwrap();
    let incarnation = site.restore(&story.file).await;
    let life = site.live().await;
    held_and_released(&site, &story, &life, false).await;
    assert_eq!(site.journal.durable().obeys(), Some(incarnation));
    assert!(incarnation.number > obeyed.number);
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_live_through_a_restore_notice_and_begin_anew() {
    let site = Site::new();
    let story = told(&site).await;
    let life = site.live().await;
    let incarnation = site.restore(&story.file).await;
    held_and_released(&site, &story, &life, true).await;
    assert_eq!(site.journal.durable().obeys(), Some(incarnation));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_obeys_neither_an_older_incarnation_nor_another_cloud() {
    let site = Site::new();
    let first = site.address.0.borrow().clone();
    site.live().await.end().await;
    let file = site.backup("a").await;
    let obeyed = site.restore(&file).await;
    site.live().await.end().await;
    assert_eq!(site.journal.durable().obeys(), Some(obeyed));
    for (other, says) in [(first, "incarnation"), (empty(&site.clock), "belongs to cloud")] {
        site.address.0.send_replace(other);
        let local = site
            .opened(Arc::new(MemoryJournal::open(&site.journal).unwrap()))
            .await;
        let readiness = local.readiness();
        let mut work = JoinSet::new();
        work.spawn(local.run(CancellationToken::new()));
        let said = loop {
            let told: Vec<String> = readiness.report().into_iter().map(|r| r.detail).collect();
            if let Some(said) = told.into_iter().find(|d| d.contains("but this host")) {
                break said;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert!(said.contains(says), "{said}");
        assert!(site.keys("agents").await.is_empty() || says == "incarnation");
        drop(work);
        site.journal.crash();
        assert_eq!(
            site.journal.durable().obeys(),
            Some(obeyed),
            "what it obeys stays"
        );
    }
}

impl Address {
    fn now(&self) -> DynBackend {
        self.0.borrow().clone()
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({:?})", self.now())
    }
}

#[async_trait]
impl Store for Address {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.now().get(key).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.now().list(prefix, options).await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.now().commit(txn).await
    }
    fn capability(&self) -> Capability {
        self.now().capability()
    }
}

impl Watch for Address {
    /// Ends when another store is behind the address.
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        let mut other = self.0.subscribe();
        let stream = other.borrow_and_update().watch(prefix, options);
        let ended = async move {
            let _ = other.changed().await;
        };
        stream.take_until(Box::pin(ended)).boxed()
    }
}

#[async_trait]
impl Leases for Address {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        self.now().grant(name, holder, ttl, mode).await
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.now().renew(name, epoch, ttl).await
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.now().revoke(name, epoch).await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.now().leases(prefix).await
    }
}
