//! One authenticated request: who asks, what is known, and what they may.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::Response;
use serde_json::Value;
use skyloom_identity::{
    AuthScope, Call, ChangeResult, Covered, Decision, Deed, Doomed, Draft, Edit, Effect, Identity, Rights,
    Snapshot, Valid, Via, source_of,
};

use super::edge::{RequestId, Root};
use super::error::{Answer, Refusal};
use super::listing::{self, Query};
use super::thing::Thing;
use super::{OpenstackParts, is_admin};

/// A request of which nothing is proven.
#[derive(Debug, Clone)]
pub(crate) struct Open {
    pub(crate) parts: Arc<OpenstackParts>,
    pub(crate) root: String,
    pub(crate) request_id: String,
    pub(crate) source: Option<IpAddr>,
}

/// A request whose token counts.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) parts: Arc<OpenstackParts>,
    /// What the token says, and what it allows.
    pub(crate) valid: Valid,
    /// The token as it came.
    pub(crate) token: String,
    /// What counts for calls of this face: see [`acting`].
    pub(crate) rights: Rights,
    pub(crate) at: Arc<Snapshot>,
    pub(crate) query: Query,
    pub(crate) root: String,
    pub(crate) path: String,
    pub(crate) request_id: String,
    pub(crate) source: Option<IpAddr>,
}

impl FromRequestParts<Arc<OpenstackParts>> for Open {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &Arc<OpenstackParts>) -> Answer<Self> {
        let (RequestId(request_id), Root(root)) = (extension(parts)?, extension(parts)?);
        let connected = parts.extensions.get::<ConnectInfo<std::net::SocketAddr>>();
        Ok(Self {
            parts: state.clone(),
            root,
            request_id,
            source: connected.map(|ConnectInfo(address)| address.ip()),
        })
    }
}

impl Open {
    /// The source as the throttle counts it.
    pub(crate) fn throttled_as(&self) -> String {
        self.source.map_or_else(|| "unknown".to_owned(), source_of)
    }
}

impl FromRequestParts<Arc<OpenstackParts>> for Ask {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &Arc<OpenstackParts>) -> Answer<Self> {
        let token = parts
            .headers
            .get("x-auth-token")
            .and_then(|token| token.to_str().ok());
        let token = token.ok_or_else(Refusal::unauthorized)?.to_owned();
        let Open {
            root,
            request_id,
            source,
            ..
        } = Open::from_request_parts(parts, state).await?;
        let valid = state.identity.validate(&token).await?;
        let at = state.identity.directory().snapshot();
        let path = format!("/v3{}", parts.uri.path());
        let rights = acting(state, &at, &valid.rights, &parts.method, &path)?;
        Ok(Self {
            parts: state.clone(),
            valid,
            token,
            rights,
            at,
            query: Query::parse(parts.uri.query().unwrap_or_default()),
            root,
            path,
            request_id,
            source,
        })
    }
}

/// What the layer around all routes has put there.
fn extension<T: Clone + Send + Sync + 'static>(parts: &Parts) -> Answer<T> {
    let found = parts.extensions.get::<T>().cloned();
    found.ok_or_else(|| Refusal::unavailable("The request came past its edge."))
}

/// What a token's rights are in this face.
///
/// * Access rules of an application credential are about OpenStack's paths: a call that they do not name is refused, for one that
///   they name the rest of the credential's rights counts.
/// * Who has `admin` in the scope of a project or domain and on the system too acts for the system: the same user could take a token for that.
///   With `admin_everywhere` the first is enough.
fn acting(
    parts: &OpenstackParts,
    at: &Snapshot,
    rights: &Rights,
    method: &Method,
    path: &str,
) -> Answer<Rights> {
    let within = parts
        .identity
        .within_access_rules(rights, "identity", method.as_str(), path);
    let mut acting = within.ok_or_else(Refusal::unauthorized)?;
    let principal = &rights.principal;
    let scoped = matches!(principal.scope, AuthScope::Project(_) | AuthScope::Domain(_));
    if scoped && principal.roles.iter().any(|role| is_admin(*role)) {
        let system = at.effective_roles(principal.user, AuthScope::System);
        let own = principal.via == Via::User && system.iter().any(|role| is_admin(*role));
        if own || parts.config.admin_everywhere {
            let mut elevated = principal.as_ref().clone();
            elevated.scope = AuthScope::System;
            acting.principal = Arc::new(elevated);
        }
    }
    Ok(acting)
}

impl Ask {
    pub(crate) fn identity(&self) -> &Identity {
        &self.parts.identity
    }

    /// The user who asks.
    pub(crate) fn user(&self) -> skyloom_identity::UserId {
        self.rights.principal.user
    }

    /// A link below `v3`.
    pub(crate) fn link(&self, path: &str) -> String {
        format!("{}/v3/{path}", self.root)
    }

    /// Who does it: for changes that look at that themselves, and for the audit.
    pub(crate) fn call(&self) -> Call<'_> {
        Call {
            by: &self.rights.principal,
            source: self.source,
            request_id: &self.request_id,
        }
    }

    pub(crate) fn decide(&self, permission: &str, thing: &Thing) -> Option<Decision> {
        let permission = self.rights.permission(permission)?;
        thing.with_object(&*self.rights.projects, |object| {
            self.rights.decide(permission, object)
        })
    }

    pub(crate) fn may(&self, permission: &str, thing: &Thing) -> bool {
        self.decide(permission, thing)
            .is_some_and(|decision| decision.effect == Effect::Allow)
    }

    /// Goes on only if it is allowed. What is hidden is not there, unless it is to be made.
    pub(crate) async fn require(&self, permission: &'static str, thing: &Thing) -> Answer<()> {
        let decision = self.decide(permission, thing);
        let effect = decision.map_or(Effect::Hidden, |decision| decision.effect);
        let refusal = match (effect, &thing.shown) {
            (Effect::Allow, _) => return Ok(()),
            (Effect::Hidden, Some(id)) => self.absent(permission, thing.called(), id),
            _ => Refusal::not_allowed(&action(permission)),
        };
        let deed = thing.deed(permission);
        self.identity().refused(&self.call(), deed, "policy.denied").await;
        Err(refusal)
    }

    /// The answer where nothing is found, or what is found is hidden. Keystone says that there is none only to those who see all of the kind; others
    /// are not allowed, whether there is one or not.
    pub(crate) fn absent(&self, permission: &str, what: &str, id: &str) -> Refusal {
        let known = self.rights.permission(permission);
        let coverage = known.map(|permission| self.rights.coverage(permission));
        // Global roles are no secret of anybody who may see roles at all.
        let open = permission == "role:read";
        if coverage.is_some_and(|c| c.scope == Covered::All || (open && c.shared)) {
            return Refusal::missing(what, id);
        }
        Refusal::not_allowed(&action(permission))
    }

    /// Goes on only if a list by this permission can have anything in it. What is in it is decided one by one.
    pub(crate) fn require_list(&self, permission: &'static str) -> Answer<()> {
        let known = self.rights.permission(permission);
        let coverage = known.map(|permission| self.rights.coverage(permission));
        // From a project nothing is listed but what is for all: Keystone's lists are of domains and of the system.
        let wide = |scope| matches!(scope, Covered::Domain(_) | Covered::All);
        // One's own credentials, grants and delegations everybody lists; that one is a user is no list of users.
        let owns = !permission.starts_with("user:");
        let any = coverage.is_some_and(|c| wide(c.scope) || (owns && c.own.is_some()));
        if any {
            return Ok(());
        }
        let action = action(permission).replace(":read_", ":list_");
        Err(Refusal::not_allowed(&format!("{action}s")))
    }

    pub(crate) async fn change<T>(
        &self,
        build: impl Fn(&Edit<'_>) -> ChangeResult<Draft<T>>,
        deed: impl Fn(&T) -> Deed,
    ) -> Answer<T> {
        Ok(self.identity().change(&self.call(), build, deed).await?)
    }

    pub(crate) async fn remove(&self, doomed: Doomed, deed: Deed) -> Answer<()> {
        Ok(self.identity().remove(&self.call(), doomed, deed).await?)
    }

    /// A list's answer.
    pub(crate) fn page(&self, name: &str, items: Vec<Value>, filters: &[&str]) -> Answer<Response> {
        let here = format!("{}{}", self.root, self.path);
        listing::page(name, items, &self.query, filters, &here)
    }
}

/// Keystone's name of what a permission allows: `user:create` is `identity:create_user`.
fn action(permission: &str) -> String {
    let (kind, verb) = permission.split_once(':').unwrap_or((permission, ""));
    format!("identity:{}_{kind}", verb.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_have_keystones_names() {
        assert_eq!(action("user:create"), "identity:create_user");
        assert_eq!(action("user:set-password"), "identity:set_password_user");
    }
}
