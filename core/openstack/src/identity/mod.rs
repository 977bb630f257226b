//! Keystone's API, version 3, over [`skyloom_identity`].
//!
//! ```text
//! request ── trailing slash off ─> route ─> Ask: X-Auth-Token ──Identity::authenticate──> Rights, snapshot, query
//!                                             │
//!               may(permission, thing) ───────┤ 403 forbidden, 404 hidden
//!               Fields: body, field by field ─┤ 400
//!                                             └─> Identity::change(edit, deed) ─> shape of the record ─> JSON
//! every answer: X-Openstack-Request-Id, Vary: X-Auth-Token; 401: WWW-Authenticate: Keystone uri="…"
//! ```
//!
//! What Keystone keeps and identity does not (policies, OAuth consumers, endpoint groups, configurations of domains) lies as it came
//! below `openstack/` in the store, and has no effect.

mod ask;
mod assignments;
mod catalog;
mod configs;
mod ec2;
mod edge;
mod error;
mod fields;
mod grants;
mod ids;
mod kept;
mod limits;
mod listing;
mod people;
mod projects;
mod proofs;
mod roles;
mod secrets;
mod shape;
mod shelf;
mod thing;
mod tokens;
mod trusts;
mod versions;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use serde::{Deserialize, Serialize};
use skyloom_identity::{BuiltIn, Identity, Interface};
use skyloom_model::{Ids, ProjectId};
use skyloom_store::DynBackend;

/// Where it is mounted.
pub const MOUNT: &str = "/identity";
/// The region that a new cloud has.
const REGION: &str = "RegionOne";
/// What stands in the catalog for the address under which the caller came.
const PUBLIC: &str = "$(public_endpoint)s";

/// What the face is made of.
#[derive(Clone)]
pub struct OpenstackParts {
    /// Users, tokens, policy.
    pub identity: Identity,
    /// Where what Keystone alone keeps lies.
    pub backend: DynBackend,
    /// Ids of requests and secrets.
    pub ids: Arc<dyn Ids>,
    /// What projects hold: asked before one is deleted.
    pub contents: Arc<dyn Contents>,
    /// How it works.
    pub config: OpenstackConfig,
}

impl fmt::Debug for OpenstackParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenstackParts")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// How the face works.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenstackConfig {
    /// The address that links and the catalog name, such as `https://cloud.example`. Empty: the one under which the caller came.
    pub public_url: String,
    /// Whether callers come by TLS; it is `https` in links then.
    pub tls: bool,
    /// Whether the role `admin` on any project or domain is that of the whole cloud, in this face alone. Keystone without enforced scopes
    /// is so, and clients made for it ask for it. Off: only who has `admin` on the system is.
    pub admin_everywhere: bool,
}

/// Knows what else than identity's records hangs on a project.
#[async_trait]
pub trait Contents: Send + Sync + fmt::Debug + 'static {
    /// What it holds, in a few words; `None`: nothing, it can go.
    ///
    /// # Errors
    /// Those of the store.
    async fn held(&self, project: ProjectId) -> skyloom_store::Result<Option<String>>;
}

/// The face's routes below [`MOUNT`].
pub fn router(parts: OpenstackParts) -> Router {
    let state = Arc::new(parts);
    let v3 = tokens::routes()
        .merge(people::routes())
        .merge(projects::routes())
        .merge(roles::routes())
        .merge(grants::routes())
        .merge(assignments::routes())
        .merge(catalog::routes())
        .merge(secrets::routes())
        .merge(trusts::routes())
        .merge(kept::routes())
        .merge(limits::routes());
    let inner = versions::routes().nest("/v3", v3);
    Router::new().nest_service(MOUNT, edge::around(inner, state))
}

/// Makes the region and the catalog's entry of this service where a cloud has none. Any number of processes may call it, at each start.
///
/// # Errors
/// Those of the changes.
pub async fn bootstrap(identity: &Identity) -> skyloom_identity::ChangeResult<()> {
    let (editor, at) = (identity.editor(), identity.directory().snapshot());
    if at.services().any(|service| service.value.kind == "identity") {
        return Ok(());
    }
    if at.region(REGION).is_none() {
        match editor.change(|edit| edit.create_region(REGION, |_| {})).await {
            // Another process makes it all.
            Err(skyloom_identity::ChangeError::Conflict(_)) => return Ok(()),
            made => drop(made?),
        }
    }
    let name = |service: &mut skyloom_identity::Service| "keystone".clone_into(&mut service.name);
    let service = editor
        .change(|edit| edit.create_service("identity", name))
        .await?;
    let url = format!("{PUBLIC}{MOUNT}/v3");
    for interface in [Interface::Public, Interface::Internal, Interface::Admin] {
        let place = |endpoint: &mut skyloom_identity::Endpoint| endpoint.region = Some(REGION.to_owned());
        editor
            .change(|edit| edit.create_endpoint(service.id, interface, &url, place))
            .await?;
    }
    Ok(())
}

/// Whether a role is the administrator's.
fn is_admin(role: skyloom_identity::RoleId) -> bool {
    role == BuiltIn::Admin.id()
}
