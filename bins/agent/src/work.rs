//! Opens the host's parts and runs the agent.

use std::sync::Arc;
use std::time::Duration;

use skyloom::agent::{
    Agent, AgentConfig as Settings, AgentParts, FileJournal, HttpContent, HttpContentConfig,
};
use skyloom::bridge::{BridgeConfig, BridgeNetwork};
use skyloom::cloud::{HostParts as HostJobParts, NETWORKS, STORAGE, host_jobs};
use skyloom::hypervisor::{FakeOptions, FakeWorld, HostNetwork, HostStorage, Hypervisor};
use skyloom::model::{HostId, Name, NetworkId, OsIds, Readiness, SystemClock};
use skyloom::pool::{CacheLimit, DirPool, Owner, PoolConfig, SharedDisks};
use skyloom::qmp::{MigrationConfig, QmpConfig, QmpHypervisor};
use skyloom_bin::exit::MainError;
use skyloom_bin::health;
use skyloom_bin::telemetry::RenderMetrics;
use tokio_util::sync::CancellationToken;

use crate::certificate::HostIdentity;
use crate::config::{AgentConfig, Driver, Kind};

/// For how long a cached image that was asked for stays: longer than from its fetch to the disk over it.
const CACHED_IMAGES_REST: Duration = Duration::from_secs(3600);

pub(crate) async fn run(
    config: AgentConfig,
    metrics: RenderMetrics,
    shutdown: CancellationToken,
) -> Result<(), MainError> {
    let clock = Arc::new(SystemClock::new());
    let identity = HostIdentity::open(&config, clock.clone(), &shutdown).await?;
    let host = host(&config, identity.as_ref())?;
    let token = config.store.token()?;
    if identity.is_none() && token.is_none() {
        return Err(MainError::usage(
            "this host can show nothing",
            "an agent needs its host's certificate or token",
        )
        .hint("set agent.join_token_file to a file with what `skyloom host join-token NAME` prints, or store.token_file"));
    }
    // Roots alone are followed in their file; with a certificate they come along with its successors.
    let followed = match &identity {
        Some(_) => None,
        None => config.store.tls(clock.clone()).await?,
    };
    let tls = match (&identity, &followed) {
        (Some(identity), _) => Some(identity.tls.clone()),
        (None, followed) => followed.as_ref().map(|f| f.live.clone()),
    };
    let content = HttpContent::new(
        HttpContentConfig::new(&config.store.uri, clock.clone())
            .with_token(token)
            .with_tls(tls.clone()),
    )
    .map_err(|e| MainError::usage("images cannot be read", e))?;
    let journal = FileJournal::open(&config.agent.data_dir.join("journal"))
        .map_err(|e| MainError::failed("the journal does not open", e))?;
    let (hypervisor, storage) = open_host(&config, clock.clone()).await?;
    let store = config
        .store
        .open_with(clock.clone(), Arc::new(OsIds::new(clock.clone())), tls)
        .await?;
    let network = open_network(&config).await?;
    let mut traits: Vec<String> = network.iter().map(|_| NETWORKS.to_owned()).collect();
    traits.extend(
        config
            .agent
            .disks
            .iter()
            .map(|disks| format!("{STORAGE}{}", disks.id)),
    );
    let readiness = Readiness::new();
    let jobs = host_jobs(&HostJobParts {
        host,
        hypervisor: hypervisor.clone(),
        storage,
        network: network.clone(),
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
        config: Settings::new(host, config.agent.name).with_traits(traits),
    });
    let certificates = async {
        match (identity, followed) {
            (Some(identity), _) => identity.keep(shutdown.clone()).await,
            (None, Some(followed)) => followed.follow(shutdown.clone()).await,
            (None, None) => {}
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        ended = agent.run(shutdown.clone()) => ended.map_err(|e| MainError::failed("the agent cannot work", e)),
        ended = health::serve_health(config.health.listen, readiness, metrics, shutdown.clone()) => ended,
        () = certificates => Ok(()),
    }
}

/// The host of the certificate; else the configured one. Both must be the same when both are there.
fn host(config: &AgentConfig, identity: Option<&HostIdentity>) -> Result<HostId, MainError> {
    let configured = Some(&config.agent.host).filter(|text| !text.is_empty());
    let configured: Option<HostId> = configured.map(|text| text.parse()).transpose().map_err(|e| {
        MainError::usage("agent.host is no id", e).hint("`skyloom host add NAME` prints the host's id")
    })?;
    match (configured, identity) {
        (Some(configured), Some(identity)) if configured != identity.host => Err(MainError::usage(
            format!("agent.host is {configured}"),
            format!("the certificate here is of the host {}", identity.host),
        )
        .hint("leave agent.host out, or give this host a data folder of its own")),
        (_, Some(identity)) => Ok(identity.host),
        (Some(configured), None) => Ok(configured),
        (None, None) => Err(MainError::usage("agent.host is not set", "this host has not joined")
            .hint("`skyloom host add NAME` prints the host's id; or join it with `skyloom host join-token NAME`")),
    }
}

/// The host's network, if it plugs guests into any but the user network; what is there already is adopted.
async fn open_network(config: &AgentConfig) -> Result<Option<Arc<dyn HostNetwork>>, MainError> {
    let wanted = &config.network;
    if wanted.driver == Driver::User {
        return Ok(None);
    }
    let mut settings =
        BridgeConfig::new(config.agent.data_dir.join("network")).with_tap_user(wanted.tap_user);
    for (network, device) in &wanted.uplinks {
        let network: NetworkId = network.parse().map_err(|e| {
            MainError::usage(format!("network.uplinks: {network:?} is no id of a network"), e)
        })?;
        settings = settings.with_uplink(network, device);
    }
    let failed = |e| {
        MainError::failed("the host's network does not open", e)
            .hint("network.driver = \"bridge\" takes root, iproute2, nftables and the kernel modules tun and br_netfilter")
    };
    let network = BridgeNetwork::open(settings).await.map_err(failed)?;
    network.recover().await.map_err(failed)?;
    Ok(Some(Arc::new(network)))
}

type Parts = (Arc<dyn Hypervisor>, Arc<dyn HostStorage>);

async fn open_host(config: &AgentConfig, clock: Arc<SystemClock>) -> Result<Parts, MainError> {
    let dir = &config.agent.data_dir;
    match config.hypervisor.kind {
        Kind::Fake if config.agent.disks.is_some() => Err(MainError::usage(
            "agent.disks is set",
            "simulated guests have no files that hosts could share",
        )
        .hint("set hypervisor.kind to qmp or libvirt")),
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
            let mut qmp = QmpConfig::new(dir.join("vms"), clock).with_qemu(&config.hypervisor.qemu);
            if let Some(listen) = config.hypervisor.migration {
                qmp = qmp.with_migration(MigrationConfig::new(listen));
            }
            let hypervisor = QmpHypervisor::open(qmp).await.map_err(|e| {
                MainError::failed("the hypervisor does not open", e)
                    .hint("is qemu-system-x86 installed, and the folder ours alone?")
            })?;
            Ok((Arc::new(hypervisor), open_pool(config, None).await?))
        }
        Kind::Libvirt => open_libvirt(config, clock).await,
    }
}

async fn open_pool(config: &AgentConfig, owner: Option<Owner>) -> Result<Arc<dyn HostStorage>, MainError> {
    let dir = &config.agent.data_dir;
    let cache = config.agent.image_cache_gib.map(|gib| CacheLimit {
        bytes: gib.saturating_mul(1 << 30),
        rest: CACHED_IMAGES_REST,
    });
    let mut pool = PoolConfig::new(dir.join("pool"))
        .with_owner(owner)
        .with_cache(cache);
    if let Some(disks) = &config.agent.disks {
        let id = Name::new(disks.id.as_str())
            .map_err(|e| MainError::usage(format!("agent.disks.id: {:?} is no name", disks.id), e))?;
        pool = pool.with_disks(&config.agent.name, Some(SharedDisks::new(id, &disks.path)));
    }
    for (name, path) in &config.agent.pools {
        let name = Name::new(name.as_str())
            .map_err(|e| MainError::usage(format!("{name:?} is no name of a pool"), e))?;
        pool = pool.with_shared(&config.agent.name, name, path);
    }
    let storage = DirPool::open(pool).await;
    let storage = storage
        .map_err(|e| MainError::failed(format!("the storage pool in {} does not open", dir.display()), e))?;
    Ok(Arc::new(storage))
}

#[cfg(feature = "libvirt")]
async fn open_libvirt(config: &AgentConfig, clock: Arc<SystemClock>) -> Result<Parts, MainError> {
    use skyloom::libvirt::{DaemonUser, LibvirtConfig, LibvirtHypervisor, Moving};
    let (dir, wanted) = (&config.agent.data_dir, &config.hypervisor.libvirt);
    let owner = match (wanted.uid, wanted.gid) {
        (Some(uid), Some(gid)) => Some(Owner { uid, gid }),
        (None, None) => None,
        _ => {
            return Err(MainError::usage(
                "libvirt's user is half known",
                "hypervisor.libvirt.uid and .gid come together",
            ));
        }
    };
    let mut settings = LibvirtConfig::new(&wanted.uri, dir.join("consoles"), clock)
        .with_daemon_user(owner.map(|Owner { uid, gid }| DaemonUser { uid, gid }));
    if let Some(listen) = config.hypervisor.migration {
        settings = settings.with_migration(Moving::new(listen.ip()));
    }
    let hypervisor = LibvirtHypervisor::open(settings).await.map_err(|e| {
        MainError::failed("the hypervisor does not open", e)
            .hint("is libvirt's daemon running at hypervisor.libvirt.uri, and the folder ours alone?")
    })?;
    Ok((Arc::new(hypervisor), open_pool(config, owner).await?))
}

#[cfg(not(feature = "libvirt"))]
async fn open_libvirt(config: &AgentConfig, _: Arc<SystemClock>) -> Result<Parts, MainError> {
    Err(MainError::usage(
        format!("no guests by libvirt at {}", config.hypervisor.libvirt.uri),
        "this program was built without it",
    )
    .hint("build skyloom-agent with the feature libvirt, or set hypervisor.kind to qmp"))
}
