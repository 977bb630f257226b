//! A cloud over a memory store and one simulated host, which lives, dies and lives again.

use std::sync::Arc;

use skyloom::cloud::{Caller, Cloud, CreateImage, DirImageRepo, NoFetch};
use skyloom::hypervisor::FakeWorld;
use skyloom::image::Limits;
use skyloom::model::{DiskFormat, OsIds, Resource as _, SystemClock};
use skyloom::store::{DynBackend, MemoryConfig, MemoryStore};
use skyloom::{LocalCloud, LocalHost, LocalParts};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What outlives every process: the store, the hosts, the images.
pub(crate) struct World {
    pub(crate) backend: DynBackend,
    pub(crate) host: FakeWorld,
    folder: tempfile::TempDir,
}

/// One life of a process. Dropping it is a crash.
pub(crate) struct Life {
    pub(crate) cloud: Arc<Cloud>,
    pub(crate) me: Caller,
    _work: JoinSet<skyloom::store::Result<()>>,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(SystemClock::new());
        Self {
            backend: Arc::new(MemoryStore::new(clock, MemoryConfig::default())),
            host: FakeWorld::in_memory(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) async fn live(&self) -> Life {
        let clock = Arc::new(SystemClock::new());
        let local = LocalCloud::open(LocalParts {
            backend: self.backend.clone(),
            images: Arc::new(DirImageRepo::open(self.folder.path(), 1 << 30).unwrap()),
            hosts: vec![LocalHost::new(
                "h1",
                Arc::new(self.host.hypervisor()),
                Arc::new(self.host.storage()),
            )],
            fetch: Arc::new(NoFetch),
            limits: Limits {
                allow_any_raw: true,
                ..Limits::default()
            },
            ids: Arc::new(OsIds::new(clock.clone())),
            clock,
        })
        .await
        .unwrap();
        let (cloud, me) = (local.cloud(), local.admin());
        let mut work = JoinSet::new();
        work.spawn(local.run(CancellationToken::new()));
        Life {
            cloud,
            me,
            _work: work,
        }
    }
}

impl Life {
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
