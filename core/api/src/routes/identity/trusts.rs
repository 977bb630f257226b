//! `/v1/trusts`: delegations of roles from one user to another.

use std::collections::BTreeSet;

use axum::Json as Answer;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use skyloom_cloud::Listed;
use skyloom_identity::{Deed, Doomed, NewTrust, Object, Place, RoleId, Trust, TrustId, UserId};
use skyloom_model::{Id, ProjectId, Timestamp};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{Asker, PageQuery, page, shown};
use crate::answer::{Result, created, tagged};
use crate::extract::{Json, Query, RawId};
use crate::parts::AppState;
use crate::problem::ApiError;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, delete))
}

/// A delegation.
#[derive(Debug, Serialize, ToSchema)]
struct TrustView {
    /// Which.
    id: Uuid,
    /// The id of the user whose roles they are.
    trustor: Uuid,
    /// The id of the user who may act with them.
    trustee: Uuid,
    /// The id of the project.
    project: Option<Uuid>,
    /// The ids of the roles, at most.
    roles: Vec<Uuid>,
    /// Whether the trustee acts as the trustor.
    impersonation: bool,
    /// How often it can still be used; `null`: any number of times.
    remaining_uses: Option<u32>,
    /// How often it can be handed on.
    redelegation_count: u32,
    /// When it ends.
    expires_at: Option<Timestamp>,
    /// When it was made.
    created_at: Timestamp,
}

fn view(trust: &Trust) -> TrustView {
    TrustView {
        id: trust.id.uuid(),
        trustor: trust.trustor.uuid(),
        trustee: trust.trustee.uuid(),
        project: trust.project.map(Id::uuid),
        roles: trust.roles.iter().map(|role| role.uuid()).collect(),
        impersonation: trust.impersonation,
        remaining_uses: trust.remaining_uses,
        redelegation_count: trust.redelegation_count,
        expires_at: trust.expires_at,
        created_at: trust.created_at,
    }
}

/// Makes a delegation of the caller.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateTrust {
    /// The id of the user who may act.
    trustee: Uuid,
    /// The id of the project; without, no roles are delegated.
    project: Option<Uuid>,
    /// The ids of the roles; without, all that count for the caller.
    roles: Option<BTreeSet<Uuid>>,
    /// Whether the trustee acts as the caller.
    #[serde(default)]
    impersonation: bool,
    /// How often it can be used; without, any number of times.
    #[schema(minimum = 1)]
    remaining_uses: Option<u32>,
    /// How often it can be handed on.
    #[serde(default)]
    #[schema(maximum = 7)]
    redelegation_count: u32,
    /// When it ends; by default never.
    expires_at: Option<Timestamp>,
}

/// Both sides own it: of one, the trustor's domain decides.
fn allowed(asker: &Asker, permission: &'static str, trust: &Trust) -> Result<()> {
    let at = asker.at();
    let place = at
        .user(trust.trustor)
        .map_or(Place::System, |user| Place::Domain(user.value.domain));
    let mine = asker.user() == trust.trustee;
    let owner = if mine { trust.trustee } else { trust.trustor };
    asker.may(permission, &Object::one("trust", place).owned_by(owner))
}

fn deed(action: &'static str, asker: &Asker, trust: &Trust) -> Deed {
    let deed = Deed::new(action).on(trust.id.uuid());
    match asker.at().user(trust.trustor) {
        Some(user) => deed.in_domain(user.value.domain),
        None => deed,
    }
}

/// Delegate roles
///
/// Lets another user act with some of the caller's roles in a project, for some time or some logins. It goes with either user. Only
/// users themselves delegate.
#[utoipa::path(post, path = "/v1/trusts", operation_id = "create_trust", tag = "trusts",
    request_body = CreateTrust,
    responses((status = 201, description = "The delegation.", body = TrustView)))]
async fn create(asker: Asker, Json(request): Json<CreateTrust>) -> Result {
    asker.may_of_user("trust:create", asker.user())?;
    let by = &asker.caller.rights.principal;
    let asked = NewTrust {
        trustee: UserId::from_uuid(request.trustee),
        project: request.project.map(ProjectId::from_uuid),
        roles: request
            .roles
            .map(|roles| roles.into_iter().map(RoleId::from_uuid).collect()),
        impersonation: request.impersonation,
        remaining_uses: request.remaining_uses,
        redelegation_count: request.redelegation_count,
        expires_at: request.expires_at,
    };
    let made = asker
        .identity
        .change(
            &asker.call(),
            |edit| edit.create_trust(by, asked.clone()),
            |trust| deed("trust:create", &asker, trust),
        )
        .await?;
    Ok(created(&format!("/v1/trusts/{}", made.id), view(&made)))
}

/// List delegations
///
/// The delegations that the caller has given or got, and those that it may see otherwise, in the order of their ids.
#[utoipa::path(get, path = "/v1/trusts", operation_id = "list_trusts", tag = "trusts", params(PageQuery),
    responses((status = 200, description = "One page.", body = Listed<TrustView>)))]
async fn list(asker: Asker, Query(query): Query<PageQuery>) -> Result<Answer<Listed<TrustView>>> {
    asker.may_list("trust:read")?;
    let at = asker.at();
    let all = at.trusts().map(|found| &found.value);
    let all = all
        .filter(|trust| allowed(&asker, "trust:read", trust).is_ok())
        .map(view);
    Ok(Answer(page(&query, all, |t| t.id.to_string(), |_| None)?))
}

/// Show a delegation
///
/// One delegation, with its revision as `ETag`.
#[utoipa::path(get, path = "/v1/trusts/{id}", operation_id = "get_trust", tag = "trusts",
    responses((status = 200, description = "The delegation.", body = TrustView)))]
async fn get(asker: Asker, id: RawId) -> Result {
    let at = asker.at();
    let found = at
        .trust(id.of("trust")?)
        .ok_or_else(|| ApiError::not_found("trust"))?;
    allowed(&asker, "trust:read", &found.value)?;
    Ok(tagged(shown(found, view)))
}

/// End a delegation
///
/// It works no more, nor do those that handed it on. Both sides may do so.
#[utoipa::path(delete, path = "/v1/trusts/{id}", operation_id = "delete_trust", tag = "trusts",
    responses((status = 204, description = "Gone.")))]
async fn delete(asker: Asker, id: RawId) -> Result<StatusCode> {
    let id: TrustId = id.of("trust")?;
    let at = asker.at();
    let found = at.trust(id).ok_or_else(|| ApiError::not_found("trust"))?;
    allowed(&asker, "trust:delete", &found.value)?;
    asker.fits(found.modified)?;
    let told = deed("trust:delete", &asker, &found.value);
    asker
        .identity
        .remove(&asker.call(), Doomed::Trust(id), told)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
