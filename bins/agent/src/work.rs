//! Opens the host's parts and runs the agent.

use std::sync::Arc;

use skyloom::agent::{
    Agent, AgentConfig as Settings, AgentParts, FileJournal, HttpContent, HttpContentConfig,
};
use skyloom::cloud::{HostParts as HostJobParts, host_jobs};
use skyloom::hypervisor::{FakeOptions, FakeWorld, HostStorage, Hypervisor};
use skyloom::model::{HostId, OsIds, Readiness, SystemClock};
use skyloom::qmp::{QmpConfig, QmpHypervisor};
use skyloom_bin::exit::MainError;
use skyloom_bin::health;
use skyloom_bin::telemetry::RenderMetrics;
use tokio_util::sync::CancellationToken;

use crate::config::{AgentConfig, Kind};

pub(crate) async fn run(
    config: AgentConfig,
    metrics: RenderMetrics,
    shutdown: CancellationToken,
) -> Result<(), MainError> {
    let clock = Arc::new(SystemClock::new());
    let host: HostId = config.agent.host.parse().map_err(|e| {
        MainError::usage("agent.host is no id", e).hint("`skyloom host add NAME` prints the host's id")
    })?;
    let token = config.store.token()?.ok_or_else(|| {
        MainError::usage("store.token_file is not set", "an agent needs its host's token")
            .hint("`skyloom host add NAME` prints it once")
    })?;
    let content = HttpContent::new(
        HttpContentConfig::new(&config.store.uri, token).with_ca_pem(config.store.ca_pem()?),
    )
    .map_err(|e| MainError::usage("images cannot be read", e))?;
    let journal = FileJournal::open(&config.agent.data_dir.join("journal"))
        .map_err(|e| MainError::failed("the journal does not open", e))?;
    let (hypervisor, storage) = open_host(&config, clock.clone()).await?;
    let store = config
        .store
        .open(clock.clone(), Arc::new(OsIds::new(clock.clone())))
        .await?;
    let readiness = Readiness::new();
    let jobs = host_jobs(&HostJobParts {
        host,
        hypervisor: hypervisor.clone(),
        storage,
        content: Arc::new(content),
        backend: store.backend.clone(),
    });
    let agent = Agent::new(AgentParts {
        backend: store.backend,
        hypervisor,
        jobs,
        journal: Arc::new(journal),
        clock,
        readiness: readiness.clone(),
        config: Settings::new(host, config.agent.name),
    });
    tokio::select! {
        biased;
        ended = agent.run(shutdown.clone()) => ended.map_err(|e| MainError::failed("the agent cannot work", e)),
        ended = health::serve_health(config.health.listen, readiness, metrics, shutdown) => ended,
    }
}

type Parts = (Arc<dyn Hypervisor>, Arc<dyn HostStorage>);

async fn open_host(config: &AgentConfig, clock: Arc<SystemClock>) -> Result<Parts, MainError> {
    let dir = &config.agent.data_dir;
    match config.hypervisor.kind {
        Kind::Fake => {
            let world =
                FakeWorld::open(FakeOptions::directory(dir.join("fake")).naive_start()).map_err(|e| {
                    MainError::failed(
                        format!("the simulated host in {} does not open", dir.display()),
                        e,
                    )
                })?;
            Ok((Arc::new(world.hypervisor()), Arc::new(world.storage())))
        }
        Kind::Qmp => {
            let qmp = QmpConfig::new(dir.join("vms"), clock).with_qemu(&config.hypervisor.qemu);
            let hypervisor = QmpHypervisor::open(qmp).await.map_err(|e| {
                MainError::failed("the hypervisor does not open", e)
                    .hint("is qemu-system-x86 installed, and the folder ours alone?")
            })?;
            let pool = skyloom::pool::PoolConfig::new(dir.join("pool"));
            let storage = skyloom::pool::DirPool::open(pool).await.map_err(|e| {
                MainError::failed(format!("the storage pool in {} does not open", dir.display()), e)
            })?;
            Ok((Arc::new(hypervisor), Arc::new(storage)))
        }
    }
}
