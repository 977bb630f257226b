//! Puts a whole cloud together: store, image folder, hosts, engine, agents and API in this process.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use skyloom::agent::FileJournal;
use skyloom::api::{ApiLimits, ApiParts, EdgeConfig, ServeLimits, router, serve};
use skyloom::cloud::{Caller, Cloud, DirImageRepo, ListQuery};
use skyloom::hypervisor::{FakeOptions, FakeWorld, Hypervisor, Inspection, StopMode};
use skyloom::identity::{AuthScope, Call, FIRST_ADMIN, Holder, Identity, NewApiToken, Rights};
use skyloom::image::Limits;
use skyloom::image::fetch::{FetchPolicy, Fetcher};
use skyloom::model::{Ids, OsIds, ProjectId, Readiness, SystemClock};
use skyloom::openstack::identity::OpenstackConfig;
use skyloom::pool::{DirPool, PoolConfig};
use skyloom::qmp::{QmpConfig, QmpHypervisor};
use skyloom::{LocalCloud, LocalHost, LocalParts, StoreOptions, open_store};
use skyloom_bin::archive::ArchiveSection;
use skyloom_bin::exit::MainError;
use skyloom_bin::identity::IdentitySection;
use skyloom_bin::openstack;
use skyloom_bin::store::{read_token, write_token};
use skyloom_bin::telemetry::RenderMetrics;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{DevArgs, DevHypervisor, DevStore};

/// How often it is looked whether everything is up.
const LOOK: Duration = Duration::from_millis(10);

/// Where everything is kept.
enum Folder {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Folder {
    fn open(wanted: Option<&Path>) -> std::io::Result<Self> {
        use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
        let Some(wanted) = wanted else {
            let private = std::fs::Permissions::from_mode(0o700);
            let mut builder = tempfile::Builder::new();
            return builder
                .prefix("skyloom-dev.")
                .permissions(private)
                .tempdir()
                .map(Self::Temporary);
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(wanted)?;
        std::fs::canonicalize(wanted).map(Self::Kept)
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(dir) => dir.path(),
        }
    }
}

/// Runs the cloud until `shutdown`.
pub(super) async fn run(
    args: DevArgs,
    metrics: RenderMetrics,
    shutdown: CancellationToken,
) -> Result<(), MainError> {
    let folder = Folder::open(args.data_dir.as_deref())
        .map_err(|e| MainError::failed("the data folder cannot be made", e))?;
    let clock = Arc::new(SystemClock::new());
    let ids: Arc<dyn Ids> = Arc::new(OsIds::new(clock.clone()));
    let uri = match &args.store {
        DevStore::Memory => "memory:".to_owned(),
        DevStore::Sqlite => format!("sqlite://{}", folder.path().join("skyloom.db").display()),
        DevStore::At(uri) => uri.clone(),
    };
    let mut options = StoreOptions::new(clock.clone(), ids.clone());
    options.migrate = true;
    let store = open_store(&uri, &options)
        .await
        .map_err(|e| MainError::failed(format!("the store {} does not open", skyloom::shown(&uri)), e))?;
    let limits = Limits::default();
    let images = DirImageRepo::open(&folder.path().join("images"), limits.max_file)
        .map_err(|e| MainError::failed("the image folder does not open", e))?;
    let mut policy = FetchPolicy::default();
    for block in &args.fetch_allow {
        let parsed = block
            .parse()
            .map_err(|e| MainError::usage(format!("{block} is no address block"), e))?;
        policy.allow.push(parsed);
    }
    let fetch = Fetcher::new(policy).map_err(|e| MainError::failed("images cannot be fetched", e))?;
    let mut hosts = Vec::new();
    for number in 1..=args.hosts {
        hosts.push(open_host(&args, folder.path(), number, &clock).await?);
    }
    let hypervisors: Vec<Arc<dyn Hypervisor>> = hosts.iter().map(|h| h.hypervisor.clone()).collect();

    let failed = |e| MainError::failed("the cloud cannot be made", e);
    let local = LocalCloud::open(LocalParts {
        backend: store.backend.clone(),
        images: Arc::new(images),
        hosts,
        fetch: Arc::new(fetch),
        limits,
        clock: clock.clone(),
        ids: ids.clone(),
    })
    .await
    .map_err(failed)?;
    let archive = ArchiveSection {
        uri: args.archive.clone().unwrap_or_default(),
        migrate: true,
        after: args.archive_after.clone(),
        ..ArchiveSection::default()
    };
    let archive = archive
        .open(&store.backend, clock.clone(), ids.clone(), &local.readiness())
        .await?;
    // The folder's journals and store are this process's alone.
    let local = local.with_archive(archive.archive.clone()).alone();
    let section = IdentitySection::default();
    let (identity, driver) =
        section.open(folder.path(), store.backend.clone(), clock.clone(), ids.clone())?;
    let mut drivers = JoinSet::new();
    drivers.spawn(driver.run(shutdown.clone()));
    let local = local.with_identity(&identity);
    let (cloud, admin, readiness) = (local.cloud(), local.admin(), local.readiness());
    let token = admin_token(
        &folder,
        &identity,
        ProjectId::from_uuid(local.bootstrapped().project.meta.id),
    )
    .await?;

    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|e| MainError::failed(format!("cannot listen on {}", args.listen), e))?;
    let address = listener
        .local_addr()
        .map_err(|e| MainError::failed("the listener has no address", e))?;
    let keystone = openstack::Parts {
        identity: identity.clone(),
        backend: store.backend.clone(),
        clock: clock.clone(),
        ids: ids.clone(),
        edge: EdgeConfig::default(),
    };
    let keystone = openstack::routes(keystone, OpenstackConfig::default()).await?;
    let routes = router(ApiParts {
        cloud: cloud.clone(),
        backend: store.backend.clone(),
        authenticator: Arc::new(identity.clone()),
        identity: Some(identity),
        providers: Vec::new(),
        clock,
        ids,
        readiness: readiness.clone(),
        metrics: metrics.into_fn(),
        open_metrics: true,
        limits: ApiLimits::default(),
        edge: EdgeConfig::default(),
        shutdown: shutdown.clone(),
    })
    .merge(keystone);

    let mut parts: JoinSet<Result<(), MainError>> = JoinSet::new();
    let stop = shutdown.clone();
    parts.spawn(async move {
        local
            .run(stop)
            .await
            .map_err(|e| MainError::failed("the cloud cannot work", e))
    });
    let stop = shutdown.clone();
    parts.spawn(async move {
        serve(listener, routes, None, ServeLimits::default(), stop)
            .await
            .map_err(|e| MainError::failed("the API cannot serve", e))
    });
    let announce = async {
        up(&cloud, &admin, &readiness).await;
        say(&format!(
            "SKYLOOM_ENDPOINT=http://{address}\nSKYLOOM_TOKEN={token}\n"
        ));
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        biased;
        ended = all(&mut parts) => ended,
        () = announce => Ok(()),
    };
    if matches!(folder, Folder::Temporary(_)) {
        // Their disks go with the folder, so they cannot run on.
        for hypervisor in &hypervisors {
            stop_guests(&**hypervisor).await;
        }
    }
    while drivers.join_next().await.is_some() {}
    archive.close().await?;
    store
        .close()
        .await
        .map_err(|e| MainError::failed("the store did not close in order", e))?;
    ended
}

/// Waits for all parts; the first failure ends the wait.
async fn all(parts: &mut JoinSet<Result<(), MainError>>) -> Result<(), MainError> {
    while let Some(ended) = parts.join_next().await {
        ended.map_err(|e| MainError::failed("a part of the cloud panicked", e))??;
    }
    Ok(())
}

async fn open_host(
    args: &DevArgs,
    folder: &Path,
    number: u32,
    clock: &Arc<SystemClock>,
) -> Result<LocalHost, MainError> {
    let name = format!("host-{number}");
    let dir = folder.join("hosts").join(&name);
    let journal = FileJournal::open(&dir.join("journal"))
        .map_err(|e| MainError::failed(format!("the journal of {name} does not open"), e))?;
    let host = match args.hypervisor {
        DevHypervisor::Fake => {
            let options = match &args.store {
                DevStore::Memory => FakeOptions::in_memory(),
                DevStore::Sqlite | DevStore::At(_) => FakeOptions::directory(dir),
            };
            let world = FakeWorld::open(options.naive_start())
                .map_err(|e| MainError::failed(format!("{name} does not open"), e))?;
            LocalHost::new(name, Arc::new(world.hypervisor()), Arc::new(world.storage()))
        }
        DevHypervisor::Qmp => {
            let mut config = QmpConfig::new(dir.join("vms"), clock.clone());
            if let Some(qemu) = &args.qemu {
                config = config.with_qemu(qemu);
            }
            let hypervisor = QmpHypervisor::open(config).await.map_err(|e| {
                MainError::failed(format!("{name} does not open"), e)
                    .hint("install qemu-system-x86, or try --hypervisor fake")
            })?;
            let pool = DirPool::open(PoolConfig::new(dir.join("pool")))
                .await
                .map_err(|e| MainError::failed(format!("the pool of {name} does not open"), e))?;
            LocalHost::new(name, Arc::new(hypervisor), Arc::new(pool))
        }
    };
    Ok(host.with_journal(Arc::new(journal)))
}

/// The administrator's token: made by the first start, kept in the folder beside its password, made anew when the file is gone.
async fn admin_token(folder: &Folder, identity: &Identity, project: ProjectId) -> Result<String, MainError> {
    let path = folder.path().join("admin-token");
    let failed = |what: &str| format!("no administrator's {what} can be made");
    let first = identity.bootstrap(Some(project)).await;
    let first = first.map_err(|e| MainError::failed(failed("user"), e))?;
    let secret = match first {
        Some(first) => {
            write(&folder.path().join("admin-password"), first.password.expose())?;
            first.token.expose().clone()
        }
        None if path.exists() => return Ok(read_token(&path)?.expose().clone()),
        None => {
            let rights = Rights::of_the_cloud().map_err(|e| MainError::failed(failed("token"), e))?;
            let call = Call {
                by: &rights.principal,
                source: None,
                request_id: "dev",
            };
            let asked = NewApiToken {
                name: "dev".to_owned(),
                holder: Holder::User {
                    user: FIRST_ADMIN,
                    scope: AuthScope::System,
                    permissions: Vec::new(),
                },
                expires_at: None,
            };
            let made = identity.create_token(&call, asked).await;
            let made = made.map_err(|e| MainError::failed(failed("token"), e))?;
            made.secret.expose().clone()
        }
    };
    write(&path, &secret)?;
    Ok(secret)
}

fn write(path: &Path, secret: &str) -> Result<(), MainError> {
    write_token(path, secret).map_err(|e| MainError::failed(format!("cannot write {}", path.display()), e))
}

/// Waits until all phases are done and all hosts can take servers.
async fn up(cloud: &Cloud, admin: &Caller, readiness: &Readiness) {
    loop {
        if readiness.is_ready() {
            let query = ListQuery {
                limit: Some(1000),
                ..ListQuery::default()
            };
            let hosts = cloud
                .list_hosts(admin, &query)
                .await
                .map(|l| l.items)
                .unwrap_or_default();
            if !hosts.is_empty() && hosts.iter().all(|h| h.status.reachable) {
                return;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn stop_guests(hypervisor: &dyn Hypervisor) {
    let Ok(found) = hypervisor.recover().await else {
        return;
    };
    for guest in found {
        if let Inspection::Found { generation, .. } = guest.inspection
            && let Err(error) = hypervisor.stop(guest.id, generation, StopMode::Force).await
        {
            tracing::warn!(server = %guest.id, %error, "a guest could not be stopped");
        }
    }
}

/// Standard output may be gone; the cloud goes on.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
