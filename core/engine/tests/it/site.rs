//! A store, an image repository and a host, and the processes that work on them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use skyloom_agent::{Agent, AgentConfig, AgentParts};
use skyloom_cloud::{
    DirImageRepo, EngineParts as EngineJobParts, HostParts, ImageFetch, ImageRepo, RepoContent, cloud_flows,
    engine_jobs, host_jobs,
};
use skyloom_engine::{Engine, EngineConfig, EngineParts};
use skyloom_flow::harness::TokioClock;
use skyloom_flow::journal::NoJournal;
use skyloom_hypervisor::{FakeOptions, FakeWorld};
use skyloom_image::Limits;
use skyloom_model::{Clock, HostId, Ids, Readiness, Reason, SeededIds, paths};
use skyloom_scheduler::FleetScheduler;
use skyloom_store::{DynBackend, Key, ListOptions, MemoryConfig, MemoryStore, Prefix, Txn, Value};
use tempfile::TempDir;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Content of all images.
pub(crate) const CONTENT: [u8; 512] = {
    let mut content = [0; 512];
    let mut at = 0;
    while at < 512 {
        content[at] = b"golden!\n"[at % 8];
        at += 1;
    }
    content
};

pub(crate) struct Site {
    pub(crate) store: DynBackend,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) repo: Arc<dyn ImageRepo>,
    pub(crate) folder: TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
        let folder = tempfile::tempdir().unwrap();
        Self {
            store: Arc::new(MemoryStore::new(clock.clone(), MemoryConfig::default())),
            ids: Arc::new(SeededIds::new(clock.clone(), 77)),
            repo: Arc::new(DirImageRepo::open(&folder.path().join("repo"), 1 << 20).unwrap()),
            clock,
            folder,
        }
    }

    /// Where the host is kept.
    pub(crate) fn host_folder(&self) -> std::path::PathBuf {
        self.folder.path().join("host")
    }

    /// The host in its folder, which must be there.
    pub(crate) fn open_host(&self) -> FakeWorld {
        FakeWorld::open(FakeOptions::directory(self.host_folder())).unwrap()
    }

    /// An engine at work, and an agent if there is a host. They die with the set.
    pub(crate) fn begin(&self, host: Option<(HostId, &FakeWorld)>) -> JoinSet<()> {
        let mut running = JoinSet::new();
        let engine = Engine::new(EngineParts {
            backend: self.store.clone(),
            flows: cloud_flows(),
            jobs: engine_jobs(&EngineJobParts {
                images: self.repo.clone(),
                fetch: Arc::new(Fetch),
                limits: Limits {
                    allow_any_raw: true,
                    ..Limits::default()
                },
            }),
            scheduler: Arc::new(FleetScheduler::default()),
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            readiness: Readiness::new(),
            config: EngineConfig::new("e1"),
        });
        running.spawn(async move { engine.run(CancellationToken::new()).await.unwrap() });
        if let Some((host, world)) = host {
            let jobs = host_jobs(&HostParts {
                host,
                hypervisor: Arc::new(world.hypervisor()),
                storage: Arc::new(world.storage()),
                network: None,
                content: Arc::new(RepoContent(self.repo.clone())),
                backend: self.store.clone(),
            });
            let agent = Agent::new(AgentParts {
                backend: self.store.clone(),
                hypervisor: Arc::new(world.hypervisor()),
                jobs,
                journal: Arc::new(NoJournal),
                clock: self.clock.clone(),
                readiness: Readiness::new(),
                config: AgentConfig::new(host, "h1"),
            });
            running.spawn(async move { agent.run(CancellationToken::new()).await.unwrap() });
        }
        running
    }

    pub(crate) async fn put<T: serde::Serialize>(&self, path: &str, document: &T) {
        let txn = Txn::new().put(Key::parse(path).unwrap(), Value::json(document).unwrap());
        assert!(self.store.commit(txn).await.unwrap().committed().is_some());
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        let found = self.store.get(&Key::parse(path).unwrap()).await.unwrap();
        found.map(|kv| kv.value.parse().unwrap())
    }

    pub(crate) async fn keys(&self, below: &str) -> Vec<String> {
        let prefix = Prefix::parse(below).unwrap();
        let page = self.store.list(&prefix, ListOptions::default()).await.unwrap();
        page.items.iter().map(|kv| kv.key.to_string()).collect()
    }

    /// Waits, as long as it takes in virtual time, until `holds`.
    pub(crate) async fn until<F: Future<Output = bool>>(&self, what: &str, holds: impl Fn() -> F) {
        for _ in 0..3600 {
            if holds().await {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("never: {what}, with tasks {:?}", self.keys(paths::ACTIVE).await);
    }
}

/// Writes a file with its folders.
pub(crate) fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

#[derive(Debug)]
struct Fetch;

#[async_trait]
impl ImageFetch for Fetch {
    async fn fetch(&self, _url: &str, out: &mut (dyn AsyncWrite + Unpin + Send)) -> Result<(), Reason> {
        out.write_all(&CONTENT).await.unwrap();
        Ok(())
    }
}
