//! A cloud over a memory store and one simulated host, which lives, dies at a chosen commit, and lives again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use skyloom::cloud::{Caller, Cloud, CloudParts, CreateImage, DirImageRepo, NoFetch};
use skyloom::hypervisor::FakeWorld;
use skyloom::image::Limits;
use skyloom::model::{DiskFormat, OsIds, Resource as _, SystemClock};
use skyloom::store::{
    Capability, DynBackend, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases, ListOptions,
    MemoryConfig, MemoryStore, Outcome, Page, Prefix, Renewal, Result, Store, Txn, Watch, WatchEvent,
    WatchOptions,
};
use skyloom::{LocalCloud, LocalHost, LocalParts};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What outlives every process: the store, the hosts, the images.
pub(crate) struct World {
    pub(crate) backend: DynBackend,
    pub(crate) host: FakeWorld,
    /// The API: it does not die here.
    pub(crate) cloud: Cloud,
    pub(crate) me: Caller,
    folder: tempfile::TempDir,
}

/// One life of engine and agent. Dropping it is a crash.
pub(crate) struct Life {
    plug: Arc<Plug>,
    _work: JoinSet<Result<()>>,
}

/// The store as one life sees it: after so many commits none comes through any more, as if the process had died between
/// two of them.
pub(crate) struct Plug {
    inner: DynBackend,
    left: AtomicUsize,
    pulled: Notify,
}

impl World {
    pub(crate) async fn new() -> Self {
        let clock = Arc::new(SystemClock::new());
        let backend: DynBackend = Arc::new(MemoryStore::new(clock.clone(), MemoryConfig::default()));
        let (host, folder) = (FakeWorld::in_memory(), tempfile::tempdir().unwrap());
        let local = LocalCloud::open(parts(backend.clone(), &host, &folder))
            .await
            .unwrap();
        let cloud = Cloud::new(CloudParts {
            backend: backend.clone(),
            ids: Arc::new(OsIds::new(clock.clone())),
            clock,
            images: Arc::new(DirImageRepo::open(folder.path(), 1 << 30).unwrap()),
        });
        let me = local.admin();
        Self {
            backend,
            host,
            cloud,
            me,
            folder,
        }
    }

    /// A life that dies after `commits` commits.
    pub(crate) async fn live(&self, commits: usize) -> Life {
        let plug = Arc::new(Plug {
            inner: self.backend.clone(),
            left: AtomicUsize::new(usize::MAX),
            pulled: Notify::new(),
        });
        let local = LocalCloud::open(parts(plug.clone(), &self.host, &self.folder))
            .await
            .unwrap();
        let readiness = local.readiness();
        let mut work = JoinSet::new();
        work.spawn(local.alone().run(CancellationToken::new()));
        while !readiness.is_ready() {
            tokio::task::yield_now().await;
        }
        plug.left.store(commits, Ordering::SeqCst);
        Life { plug, _work: work }
    }

    /// A usable image.
    pub(crate) async fn image(&self) {
        let image = self
            .cloud
            .create_image(&self.me, CreateImage::new("blank", DiskFormat::Raw))
            .await
            .unwrap()
            .image;
        let content = futures::stream::iter([std::io::Result::Ok(vec![0; 1 << 16].into())]);
        let task = self
            .cloud
            .upload_image(&self.me, image.id(), Box::pin(content), None)
            .await
            .unwrap()
            .task
            .unwrap();
        self.cloud.wait_for_task(&self.me, task.id).await.unwrap();
    }
}

fn parts(backend: DynBackend, host: &FakeWorld, folder: &tempfile::TempDir) -> LocalParts {
    let clock = Arc::new(SystemClock::new());
    LocalParts {
        backend,
        images: Arc::new(DirImageRepo::open(folder.path(), 1 << 30).unwrap()),
        hosts: vec![LocalHost::new(
            "h1",
            Arc::new(host.hypervisor()),
            Arc::new(host.storage()),
        )],
        fetch: Arc::new(NoFetch),
        limits: Limits {
            allow_any_raw: true,
            ..Limits::default()
        },
        ids: Arc::new(OsIds::new(clock.clone())),
        clock,
    }
}

impl Life {
    /// Waits until a commit has been held back.
    pub(crate) async fn dead(&self) {
        self.plug.pulled.notified().await;
    }
}

impl fmt::Debug for Plug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plug({:?})", self.inner)
    }
}

#[async_trait]
impl Store for Plug {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.inner.list(prefix, options).await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        let less = |left: usize| left.checked_sub(1);
        if self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
            .is_err()
        {
            self.pulled.notify_one();
            std::future::pending::<()>().await;
        }
        self.inner.commit(txn).await
    }
    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

impl Watch for Plug {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        self.inner.watch(prefix, options)
    }
}

#[async_trait]
impl Leases for Plug {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        self.inner.grant(name, holder, ttl, mode).await
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.inner.renew(name, epoch, ttl).await
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.inner.revoke(name, epoch).await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.inner.leases(prefix).await
    }
}
