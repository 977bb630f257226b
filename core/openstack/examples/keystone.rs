//! A Keystone by itself: users and tokens in memory, no cloud behind it. For products that want only that, and for trying clients.
//!
//! ```text
//! cargo run -p skyloom-openstack --example keystone -- 127.0.0.1:5000
//! ```
//!
//! It prints the administrator's password, and what `openstack` wants to know.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use skyloom_identity::{
    Actor, BuiltIn, DEFAULT_DOMAIN, FileKeys, Identity, IdentityConfig, IdentityParts, Target, Vault,
};
use skyloom_model::{Ids, OsIds, ProjectId, SystemClock};
use skyloom_openstack::identity::{self, Contents, MOUNT, OpenstackConfig, OpenstackParts};
use skyloom_store::{DynBackend, MemoryConfig, MemoryStore};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// There is nothing in projects here.
#[derive(Debug)]
struct Empty;

#[async_trait]
impl Contents for Empty {
    async fn held(&self, _: ProjectId) -> skyloom_store::Result<Option<String>> {
        Ok(None)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let listen = args.iter().find(|arg| !arg.starts_with('-'));
    let listen = listen.map_or("127.0.0.1:0", String::as_str);
    let clock = Arc::new(SystemClock::new());
    let ids: Arc<dyn Ids> = Arc::new(OsIds::new(clock.clone()));
    let backend: DynBackend = Arc::new(MemoryStore::new(clock.clone(), MemoryConfig::default()));

    // What is sealed goes with the process, as all else here.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("keys");
    FileKeys::generate(&file, &*ids)?;
    let keys = FileKeys::read(&file, &[], ids.clone())?;
    let parts = IdentityParts {
        backend: backend.clone(),
        clock,
        ids: ids.clone(),
        secrets: Arc::new(Vault::new(Arc::new(keys), ids.clone())),
        audit: None,
        registry: None,
    };
    let (identity, driver) = Identity::open(parts, IdentityConfig::default())?;
    let shutdown = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(driver.run(shutdown.clone()));
    identity.ready().await?;

    let first = identity.bootstrap(None).await?.ok_or("the store is new")?;
    identity::bootstrap(&identity).await?;
    let editor = identity.editor();
    let project = editor
        .change(|edit| edit.create_project(DEFAULT_DOMAIN, None, "admin", |_| {}))
        .await?;
    let target = Target::Project(ProjectId::from_uuid(project.meta.id));
    editor
        .change(|edit| edit.grant(target, Actor::User(first.user), BuiltIn::Admin.id(), false))
        .await?;

    let config = OpenstackConfig {
        admin_everywhere: args.iter().any(|arg| arg == "--admin-everywhere"),
        ..OpenstackConfig::default()
    };
    let contents = Arc::new(Empty);
    let routes = identity::router(OpenstackParts {
        identity,
        backend,
        ids,
        contents,
        config,
    });
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    println!("OS_AUTH_URL=http://{address}{MOUNT}/v3");
    println!(
        "OS_USERNAME=admin OS_USER_DOMAIN_ID=default OS_PROJECT_NAME=admin OS_PROJECT_DOMAIN_ID=default"
    );
    println!("OS_PASSWORD={}", first.password.expose());
    let app = routes.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, app)
        .with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    shutdown.cancel();
    tasks.join_all().await;
    Ok(())
}
