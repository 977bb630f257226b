//! OpenStack's APIs beside the cloud's own, on the same port.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use skyloom::api::{EdgeConfig, Source, protect};
use skyloom::identity::Identity;
use skyloom::model::{Clock, Ids, Image, Keypair, Port, ProjectId, Resource as _, Scope, Server, paths};
use skyloom::openstack::identity::{Contents, OpenstackConfig, OpenstackParts, bootstrap, router};
use skyloom::store::{DynBackend, Error, ErrorKind, ListOptions, Prefix, Result};

use crate::exit::MainError;

/// Looks for what hangs on a project.
#[derive(Debug)]
struct Held(DynBackend);

/// The kinds of things that lie in projects.
const KINDS: [&str; 4] = [Server::KIND, Image::KIND, Keypair::KIND, Port::KIND];

#[async_trait]
impl Contents for Held {
    async fn held(&self, project: ProjectId) -> Result<Option<String>> {
        for kind in KINDS {
            let path = paths::scoped(kind, Scope::Project(project));
            let prefix = Prefix::parse(&path)
                .map_err(|e| Error::new(ErrorKind::Internal, "look into a project").because(e))?;
            let page = self.0.list(&prefix, ListOptions::default().with_limit(1)).await?;
            if !page.items.is_empty() {
                return Ok(Some(kind.to_owned()));
            }
        }
        Ok(None)
    }
}

/// What the routes stand on.
#[derive(Debug)]
pub struct Parts {
    /// Users and tokens.
    pub identity: Identity,
    /// The store.
    pub backend: DynBackend,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Ids.
    pub ids: Arc<dyn Ids>,
    /// What the edge lets through.
    pub edge: EdgeConfig,
}

/// The routes, with the edge around them. Makes the catalog of a new cloud.
///
/// # Errors
/// When the catalog cannot be made.
pub async fn routes(parts: Parts, config: OpenstackConfig) -> std::result::Result<axum::Router, MainError> {
    bootstrap(&parts.identity)
        .await
        .map_err(|e| MainError::failed("the service catalog cannot be made", e))?;
    let face = router(OpenstackParts {
        identity: parts.identity,
        contents: Arc::new(Held(parts.backend.clone())),
        backend: parts.backend,
        ids: parts.ids.clone(),
        config,
    });
    // The edge knows the source behind proxies; the face takes it as the connection's.
    let told = face.layer(axum::middleware::map_request(
        async |mut request: axum::extract::Request| {
            let source = request.extensions().get::<Source>().and_then(Source::address);
            if let Some(address) = source {
                let peer = axum::extract::ConnectInfo(SocketAddr::new(address, 0));
                request.extensions_mut().insert(peer);
            }
            request
        },
    ));
    Ok(protect(told, parts.edge, parts.clock, parts.ids))
}
