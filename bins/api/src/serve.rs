//! Opens the parts and serves.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use skyloom::api::{ApiParts, router, serve};
use skyloom::cloud::{Cloud, CloudParts, DirImageRepo};
use skyloom::image::Limits;
use skyloom::model::{OsIds, Phase, Readiness, Resource as _, SystemClock};
use skyloom::openstack::identity::OpenstackConfig;
use skyloom_bin::exit::MainError;
use skyloom_bin::openstack;
use skyloom_bin::store::write_token;
use skyloom_bin::telemetry::RenderMetrics;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{ApiConfig, ListenConfig};
use crate::pki::ApiTls;

/// Open files beside those of connections: the store's, images', logs.
const OTHER_FILES: u64 = 256;

pub(crate) async fn run(
    config: ApiConfig,
    metrics: RenderMetrics,
    shutdown: CancellationToken,
) -> Result<(), MainError> {
    let readiness = Readiness::new();
    readiness.expect("api");
    refuse_plain(&config.api, config.api.tls_cert.is_some() || config.pki.enabled)?;
    readiness.done(
        "api",
        Phase::Configuration,
        format!("store {}", skyloom::shown(&config.store.uri)),
    );

    let edge = config
        .edge
        .config()
        .map_err(|e| MainError::usage("edge.trusted_proxies is not understood", e))?;
    let clock = Arc::new(SystemClock::new());
    let ids = Arc::new(OsIds::new(clock.clone()));
    let store = config.store.open(clock.clone(), ids.clone()).await?;
    let archive = config
        .archive
        .open(&store.backend, clock.clone(), ids.clone(), &readiness)
        .await?;
    let images = DirImageRepo::open(&config.images.dir, Limits::default().max_file).map_err(|e| {
        MainError::failed(
            format!("the image folder {} does not open", config.images.dir.display()),
            e,
        )
    })?;
    config.servers.check()?;
    let cloud = Cloud::new(CloudParts {
        backend: store.backend.clone(),
        clock: clock.clone(),
        ids: ids.clone(),
        images: Arc::new(images),
    });
    let folder = &config.images.dir;
    (config.pki)
        .refuse_lost_key(&config.identity, folder, &store.backend)
        .await?;
    let (identity, driver) =
        config
            .identity
            .open(folder, store.backend.clone(), clock.clone(), ids.clone())?;
    let authority = config
        .pki
        .open(
            store.backend.clone(),
            clock.clone(),
            ids.clone(),
            identity.secrets().clone(),
        )
        .await?;
    let tls = ApiTls::open(&config.api, &config.pki, authority.as_ref(), clock.clone()).await?;
    let roots = authority
        .as_ref()
        .map(|authority| config.pki.publish(authority))
        .transpose()?;
    let mut drivers = JoinSet::new();
    drivers.spawn(driver.run(shutdown.clone()));
    let mut cloud = cloud
        .with_limits(config.tasks.into())
        .with_recycle_bin(config.servers.recycle_hours)
        .with_archive(archive.archive.clone())
        .with_directory(identity.directory().clone())
        .with_audit(identity.audit().clone());
    if let Some(authority) = &authority {
        cloud = cloud.with_authority(authority.clone());
    }
    let cloud = Arc::new(cloud);
    let made = cloud
        .bootstrap()
        .await
        .map_err(|e| MainError::failed("the cloud cannot be made", e))?;
    let first = identity
        .bootstrap(Some(made.project.id()))
        .await
        .map_err(|e| MainError::failed("the first administrator cannot be made", e))?;
    readiness.done(
        "api",
        Phase::Caches,
        "the API keeps no records, only counts of unfinished tasks: it reads the store",
    );

    enough_files(config.limits.connections);
    let listen = config.api.listen;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|e| MainError::failed(format!("cannot listen on {listen}"), e))?;
    let address = listener
        .local_addr()
        .map_err(|e| MainError::failed("the listener has no address", e))?;
    let keystone = openstack::Parts {
        identity: identity.clone(),
        backend: store.backend.clone(),
        clock: clock.clone(),
        ids: ids.clone(),
        edge: edge.clone(),
    };
    let said = OpenstackConfig {
        tls: config.openstack.tls || tls.is_some(),
        ..config.openstack
    };
    let keystone = openstack::routes(keystone, said).await?;
    let providers = config.oidc.iter().map(|one| one.open(clock.clone()));
    let providers = providers.collect::<Result<_, _>>()?;
    let routes = router(ApiParts {
        cloud: cloud.clone(),
        backend: store.backend.clone(),
        authenticator: Arc::new(identity.clone()),
        identity: Some(identity),
        providers,
        clock: clock.clone(),
        ids,
        readiness: readiness.clone(),
        metrics: metrics.into_fn(),
        open_metrics: false,
        limits: config.limits.api(),
        edge,
        shutdown: shutdown.clone(),
    })
    .merge(keystone);
    readiness.done("api", Phase::Health, format!("listening on {address}"));
    readiness.done("api", Phase::Watch, "streams are served from the store");
    if let Some(first) = first {
        let files = &config.bootstrap;
        announce("SKYLOOM_TOKEN", files.token_file.as_deref(), first.token.expose())?;
        announce(
            "SKYLOOM_ADMIN_PASSWORD",
            files.password_file.as_deref(),
            first.password.expose(),
        )?;
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    say(&format!("SKYLOOM_ENDPOINT={scheme}://{address}\n"));

    let config_of = |tls: &ApiTls| tls.config.clone();
    let served = serve(
        listener,
        routes,
        tls.as_ref().map(config_of),
        config.limits.serve(),
        shutdown.clone(),
    );
    let certificates = async {
        if let Some(tls) = tls {
            tls.keep(clock, shutdown.clone()).await;
        }
    };
    let trust = async {
        if let (Some(authority), Some(roots)) = (&authority, roots) {
            tokio::join!(
                authority.run(shutdown.clone()),
                roots.follow(authority, shutdown.clone())
            );
        }
    };
    let (served, (), (), (), ()) = tokio::join!(
        served,
        cloud.keep_tidy(shutdown.clone()),
        cloud.keep_reconciled(shutdown.clone()),
        certificates,
        trust,
    );
    while drivers.join_next().await.is_some() {}
    archive.close().await?;
    store
        .close()
        .await
        .map_err(|e| MainError::failed("the store did not close in order", e))?;
    served.map_err(|e| MainError::failed("the API cannot serve", e))
}

/// Asks for as many open files as are allowed, and says so when they are too few for the connections.
fn enough_files(connections: usize) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    // What cannot be had is told below.
    let _ = setrlimit(Resource::Nofile, files);
    let have = getrlimit(Resource::Nofile).current;
    let wanted = connections as u64 + OTHER_FILES;
    if have.is_some_and(|have| have < wanted) {
        tracing::warn!(
            have,
            wanted,
            "fewer open files are allowed than limits.connections needs: raise LimitNOFILE, or lower the limit"
        );
    }
}

/// Tokens go over the wire: without TLS only on this machine.
fn refuse_plain(api: &ListenConfig, tls: bool) -> Result<(), MainError> {
    if tls || api.listen.ip().is_loopback() {
        return Ok(());
    }
    Err(MainError::usage(
        format!("api.listen is {} without TLS", api.listen),
        "tokens would be readable on the network",
    )
    .hint("set pki.enabled, or api.tls_cert and api.tls_key, or listen on 127.0.0.1"))
}

fn announce(name: &str, file: Option<&Path>, secret: &str) -> Result<(), MainError> {
    match file {
        Some(path) => write_token(path, secret)
            .map_err(|e| MainError::failed(format!("cannot write {}", path.display()), e)),
        None => {
            say(&format!("{name}={secret}\n"));
            Ok(())
        }
    }
}

/// Standard output may be gone; the API goes on.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
