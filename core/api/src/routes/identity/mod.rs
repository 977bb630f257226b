//! The routes of identity: who there is, what they may do, and what is kept of it.
//!
//! Each handler asks the rules about the record itself, as the directory has it, and then makes the change with its entry of the audit in
//! one commit. Changes happen at once: there is no task to follow, and nothing to preview.

mod audit;
mod auth;
mod catalog;
mod credentials;
mod domains;
mod factors;
mod grants;
mod groups;
mod policy;
mod projects;
mod quotas;
mod roles;
pub(crate) mod tokens;
mod trusts;
mod users;

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use http::StatusCode;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use skyloom_cloud::{Caller, CloudError, Listed};
use skyloom_identity::{
    AuthError, Call, ChangeError, Covered, DomainId, Identity, Lineages as _, Object, Place, SecretError,
    Snapshot, UserId,
};
use skyloom_model::{Id, ProjectId, Reason};
use skyloom_store::{Revision, Versioned};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;

use crate::answer::Result;
use crate::auth::User;
use crate::parts::AppState;
use crate::problem::ApiError;

/// Routes without a bearer.
pub(super) fn public() -> OpenApiRouter<AppState> {
    auth::public()
}

/// Routes with one.
pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(auth::router())
        .merge(domains::router())
        .merge(projects::router())
        .merge(users::router())
        .merge(credentials::router())
        .merge(factors::router())
        .merge(groups::router())
        .merge(roles::router())
        .merge(grants::router())
        .merge(trusts::router())
        .merge(catalog::router())
        .merge(quotas::router())
        .merge(audit::router())
        .merge(policy::router())
        .merge(tokens::router())
}

/// The identity of a server that has one.
pub(crate) fn service(state: &AppState) -> Result<Identity> {
    state.parts.identity.clone().ok_or_else(|| {
        let message = "this server keeps no users of its own";
        ApiError::new(StatusCode::NOT_FOUND, Reason::new("identity.elsewhere", message))
    })
}

/// Who asks, and whom to ask.
pub(crate) struct Asker {
    pub(crate) identity: Identity,
    pub(crate) caller: Caller,
}

impl FromRequestParts<AppState> for Asker {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        let User(caller) = User::from_request_parts(parts, state).await?;
        if caller.dry_run {
            // Nobody who asks for a dry run wants the change to be made.
            let message = "changes of identity happen at once; there is no plan of them to show";
            return Err(ApiError::bad_request("dry_run.unsupported", message));
        }
        Ok(Self {
            identity: service(state)?,
            caller,
        })
    }
}

impl Asker {
    /// All records, as they are now.
    fn at(&self) -> Arc<Snapshot> {
        self.identity.directory().snapshot()
    }

    /// For the audit.
    fn call(&self) -> Call<'_> {
        Call {
            by: &self.caller.rights.principal,
            source: self.caller.source,
            request_id: &self.caller.request_id,
        }
    }

    /// Who it is.
    fn user(&self) -> UserId {
        self.caller.rights.principal.user
    }

    /// Lets through whom the rules allow that: 403, or 404 for what the caller may not know of.
    fn may(&self, permission: &'static str, object: &Object<'_>) -> Result<()> {
        Ok(self.caller.may(permission, object)?)
    }

    /// The same in a domain as such: to create in it.
    fn may_in_domain(&self, permission: &'static str, domain: DomainId) -> Result<()> {
        self.may(
            permission,
            &Object::all(kind_of(permission), Place::Domain(domain)),
        )
    }

    /// The same on something of a user.
    fn may_of_user(&self, permission: &'static str, user: UserId) -> Result<()> {
        let at = self.at();
        let kind = kind_of(permission);
        let found = at.user(user).ok_or_else(|| ApiError::not_found(kind))?;
        self.may(
            permission,
            &Object::one(kind, Place::Domain(found.value.domain)).owned_by(user),
        )
    }

    /// The same on something of a project.
    fn may_of_project(&self, permission: &'static str, project: ProjectId) -> Result<()> {
        let kind = kind_of(permission);
        let lineage = self
            .identity
            .lineage(project)
            .ok_or_else(|| ApiError::not_found(kind))?;
        self.may(permission, &Object::one(kind, lineage.place(project)))
    }

    /// Lets through who may list anything by that permission.
    fn may_list(&self, permission: &'static str) -> Result<()> {
        let known = self.caller.rights.permission(permission);
        let coverage = known.map(|known| self.caller.rights.coverage(known));
        let any = coverage.is_some_and(|c| c.scope != Covered::Nothing || c.shared || c.own.is_some());
        if any {
            return Ok(());
        }
        let reason = Reason::new(
            "auth.forbidden",
            format!("this takes the permission {permission}"),
        );
        Err(ApiError::denied(reason))
    }

    /// Whether an item of a list is shown.
    fn shows(&self, permission: &'static str, object: &Object<'_>) -> bool {
        self.caller.allows(permission, object)
    }

    /// "Only if it still is at this revision."
    fn fits(&self, modified: Revision) -> Result<()> {
        match self.caller.if_match {
            Some(wanted) if wanted != modified => {
                let reason = Reason::new("precondition.failed", "it has changed since it was read")
                    .hint("read it again, and decide anew");
                Err(ApiError::new(StatusCode::PRECONDITION_FAILED, reason))
            }
            _ => Ok(()),
        }
    }
}

/// The kind that a permission is for.
fn kind_of(permission: &'static str) -> &'static str {
    permission.split_once(':').map_or(permission, |(kind, _)| kind)
}

/// Which part of a list.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// Most items in the answer: 1 to 1000, by default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// Only what has exactly this name.
    name: Option<String>,
}

/// A page of what is shown of `all`, which come in the order of their ids.
fn page<T>(
    query: &PageQuery,
    all: impl Iterator<Item = T>,
    id: impl Fn(&T) -> String,
    name: impl Fn(&T) -> Option<String>,
) -> Result<Listed<T>> {
    let limit = match query.limit.unwrap_or(100) {
        limit @ 1..=1000 => limit as usize,
        _ => {
            let field = skyloom_cloud::FieldError::new("limit", "limit.invalid", "is 1 to 1000");
            return Err(ApiError::field(field));
        }
    };
    if query.cursor.as_ref().is_some_and(|cursor| cursor.len() > 256) {
        let field = skyloom_cloud::FieldError::new("cursor", "cursor.invalid", "is none that was given here");
        return Err(ApiError::field(field));
    }
    let wanted = |item: &T| match &query.name {
        None => true,
        Some(wanted) => name(item).is_some_and(|name| &name == wanted),
    };
    let after = |item: &T| query.cursor.as_ref().is_none_or(|cursor| id(item) > *cursor);
    let mut items: Vec<T> = all.filter(|item| after(item) && wanted(item)).collect();
    items.sort_by_cached_key(|item| id(item));
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(id);
    Ok(Listed { items, next })
}

/// A record as it is shown, with its revision.
fn shown<T, U: Serialize>(found: &Versioned<T>, view: impl Fn(&T) -> U) -> Versioned<U> {
    Versioned {
        key: found.key.clone(),
        value: view(&found.value),
        created: found.created,
        modified: found.modified,
    }
}

/// The ids of a path with two.
pub(crate) struct TwoIds<A: ?Sized, B: ?Sized>(pub(crate) Id<A>, pub(crate) Id<B>);

impl<A: ?Sized, B: ?Sized> FromRequestParts<AppState> for TwoIds<A, B> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        let nothing = || ApiError::not_found("record");
        let Path((a, b)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|_| nothing())?;
        Ok(Self(
            id_of(&a).ok_or_else(nothing)?,
            id_of(&b).ok_or_else(nothing)?,
        ))
    }
}

/// The id of a text in the one form in which ids are written.
fn id_of<K: ?Sized>(text: &str) -> Option<Id<K>> {
    let id: uuid::Uuid = text.parse().ok()?;
    (id.to_string() == text).then(|| Id::from_uuid(id))
}

fn field(field: impl Into<String>, code: &'static str, why: impl Into<String>) -> ApiError {
    ApiError::field(skyloom_cloud::FieldError::new(field, code, why))
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        let text = error.to_string();
        match error {
            ChangeError::NotFound { what, .. } => Self::not_found(what),
            ChangeError::NameTaken { kind, .. } => Self::new(
                StatusCode::CONFLICT,
                Reason::new(format!("{kind}.name_taken"), text),
            ),
            ChangeError::Conflict(_) => Self::new(StatusCode::CONFLICT, Reason::new("conflict", text)),
            ChangeError::InUse { what, .. } => Self::new(
                StatusCode::CONFLICT,
                Reason::new(format!("{}.in_use", what.replace(' ', "_")), text),
            ),
            ChangeError::Invalid { field: name, why } => field(name, "field.invalid", why),
            ChangeError::Forbidden(_) => Self::denied(Reason::new("auth.forbidden", text)),
            ChangeError::Store(error) => CloudError::from(error).into(),
            // A sort that is not known here.
            _ => Self::internal(),
        }
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Denied(denied) => Self::new(StatusCode::UNAUTHORIZED, denied.reason()),
            AuthError::Throttled(throttled) => Self::throttled(throttled.retry_after),
            AuthError::Unavailable(why) => Self::auth_unavailable(&why),
        }
    }
}

impl From<SecretError> for ApiError {
    fn from(error: SecretError) -> Self {
        let reason = error.reason();
        match (error, reason) {
            (SecretError::Auth(error), _) => error.into(),
            (SecretError::Change(error), _) => error.into(),
            (SecretError::Password(_), Some(reason)) if reason.retryable => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, reason)
            }
            (SecretError::Password(_), Some(reason)) => {
                let field = skyloom_cloud::FieldError::new("password", &reason.code, reason.message);
                Self::field(field)
            }
            (SecretError::Totp(_), Some(reason)) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, reason),
            (error, _) => {
                tracing::error!(%error, "a secret was not kept");
                Self::auth_unavailable("a secret cannot be sealed")
            }
        }
    }
}
