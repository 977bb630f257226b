//! `/v1/roles`: lists of what is allowed, and which of them imply others.

use axum::Json as Answer;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use skyloom_cloud::Listed;
use skyloom_identity::{
    BuiltIn, Deed, DomainId, Doomed, Object, Place, Role, RoleId, RoleSpec, RuleSpec, When,
};
use skyloom_model::Timestamp;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{Asker, PageQuery, TwoIds, field, page, shown};
use crate::answer::{Result, created, tagged};
use crate::extract::{Json, Query, RawId};
use crate::parts::AppState;
use crate::problem::ApiError;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, update, delete))
        .routes(routes!(imply, unimply))
}

/// A list of what is allowed to whom it is given.
#[derive(Debug, Serialize, ToSchema)]
struct RoleView {
    /// Which.
    id: Uuid,
    /// Its name, unique in its domain or among the global ones.
    #[schema(example = "restarter")]
    name: String,
    /// The id of the only domain where it can be given; `null`: everywhere.
    domain: Option<Uuid>,
    /// Free text.
    description: String,
    /// Patterns over the names of permissions.
    #[schema(example = json!(["server:read", "server:reboot"]))]
    permissions: Vec<String>,
    /// Whether it is always there.
    built_in: bool,
    /// The ids of the roles that come with it at once.
    implies: Vec<Uuid>,
    /// When it was made.
    created_at: Timestamp,
}

fn view(asker: &Asker, role: &Role) -> RoleView {
    let at = asker.at();
    let implied = at.implications().filter(|pair| pair.value.prior == role.id);
    let built_in = BuiltIn::of(role.id);
    RoleView {
        id: role.id.uuid(),
        name: role.name.clone(),
        domain: role.domain.map(DomainId::uuid),
        description: role.description.clone(),
        permissions: match built_in {
            Some(built_in) => built_in
                .spec()
                .rules
                .into_iter()
                .flat_map(|rule| rule.allow)
                .collect(),
            None => role.permissions.clone(),
        },
        built_in: built_in.is_some(),
        implies: implied.map(|pair| pair.value.implied.uuid()).collect(),
        created_at: role.created_at,
    }
}

/// Makes a role.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateRole {
    /// Its name, unique in its domain or among the global ones.
    #[schema(example = "restarter")]
    name: String,
    /// The id of the only domain where it can be given; without: everywhere.
    domain: Option<Uuid>,
    /// Free text.
    #[serde(default)]
    description: String,
    /// Patterns over the names of permissions: `*`, `kind:*`, `*:verb`, `kind:verb`; with `!` before what it shall not allow.
    #[serde(default)]
    #[schema(example = json!(["server:read", "server:reboot"]))]
    permissions: Vec<String>,
}

/// Changes a role: what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct UpdateRole {
    /// Another name.
    name: Option<String>,
    /// Another text.
    description: Option<String>,
    /// Other patterns.
    permissions: Option<Vec<String>>,
}

/// Whether a role that leads to `admin` is meant.
#[derive(Debug, Clone, Copy, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct ImplyQuery {
    /// Needed for what leads to `admin`.
    allow_admin: bool,
}

fn place(domain: Option<DomainId>) -> Place<'static> {
    domain.map_or(Place::Shared, Place::Domain)
}

/// Global roles are read by all, and changed by who runs the system.
fn object(permission: &'static str, role: &Role) -> Object<'static> {
    let here = match (role.domain, permission) {
        (None, "role:read") | (Some(_), _) => place(role.domain),
        (None, _) => Place::System,
    };
    Object::one("role", here)
}

fn deed(action: &'static str, role: &Role) -> Deed {
    let deed = Deed::new(action).on(role.id.uuid()).named(&role.name);
    match role.domain {
        Some(domain) => deed.in_domain(domain),
        None => deed,
    }
}

fn check(asker: &Asker, patterns: &[String]) -> Result<()> {
    if patterns.is_empty() {
        return Ok(());
    }
    let rule = RuleSpec {
        allow: patterns.to_vec(),
        when: When::default(),
    };
    let spec = RoleSpec { rules: vec![rule] };
    spec.check(asker.identity.registry())
        .map_err(|error| field("permissions", "role.permissions_invalid", error.to_string()))
}

fn found(asker: &Asker, permission: &'static str, id: RoleId) -> Result<(Role, skyloom_store::Revision)> {
    let at = asker.at();
    let found = at.role(id).ok_or_else(|| ApiError::not_found("role"))?;
    asker.may("role:read", &object("role:read", &found.value))?;
    if permission != "role:read" {
        // That a global role is there is no secret.
        let allowed = asker.caller.allows(permission, &object(permission, &found.value));
        if !allowed {
            let reason = format!("this takes the permission {permission}");
            return Err(ApiError::denied(skyloom_model::Reason::new(
                "auth.forbidden",
                reason,
            )));
        }
    }
    Ok((found.value.clone(), found.modified))
}

/// Make a role
///
/// Makes a role of patterns over permissions. What is reserved for built-in roles cannot be named.
#[utoipa::path(post, path = "/v1/roles", operation_id = "create_role", tag = "roles",
    request_body = CreateRole,
    responses((status = 201, description = "The role.", body = RoleView)))]
async fn create(asker: Asker, Json(request): Json<CreateRole>) -> Result {
    let domain = request.domain.map(DomainId::from_uuid);
    asker.may(
        "role:create",
        &Object::all("role", domain.map_or(Place::System, Place::Domain)),
    )?;
    check(&asker, &request.permissions)?;
    let made = asker
        .identity
        .change(
            &asker.call(),
            |edit| {
                edit.create_role(domain, &request.name, |role| {
                    role.description.clone_from(&request.description);
                    role.permissions.clone_from(&request.permissions);
                })
            },
            |role| deed("role:create", role),
        )
        .await?;
    Ok(created(&format!("/v1/roles/{}", made.id), view(&asker, &made)))
}

/// List roles
///
/// The global roles and those of domains that the caller may see, in the order of their ids.
#[utoipa::path(get, path = "/v1/roles", operation_id = "list_roles", tag = "roles", params(PageQuery),
    responses((status = 200, description = "One page.", body = Listed<RoleView>)))]
async fn list(asker: Asker, Query(query): Query<PageQuery>) -> Result<Answer<Listed<RoleView>>> {
    asker.may_list("role:read")?;
    let at = asker.at();
    let all = at.roles().map(|found| &found.value);
    let all = all.filter(|role| asker.shows("role:read", &object("role:read", role)));
    let all = all.map(|role| view(&asker, role));
    Ok(Answer(page(
        &query,
        all,
        |r| r.id.to_string(),
        |r| Some(r.name.clone()),
    )?))
}

/// Show a role
///
/// One role with what it allows and implies, and its revision as `ETag`.
#[utoipa::path(get, path = "/v1/roles/{id}", operation_id = "get_role", tag = "roles",
    responses((status = 200, description = "The role.", body = RoleView)))]
async fn get(asker: Asker, id: RawId) -> Result {
    let id: RoleId = id.of("role")?;
    found(&asker, "role:read", id)?;
    let at = asker.at();
    let found = at.role(id).ok_or_else(|| ApiError::not_found("role"))?;
    Ok(tagged(shown(found, |role| view(&asker, role))))
}

/// Change a role
///
/// Changes its name, text or patterns; of a built-in one only the text. It counts with the next call of whoever has it.
#[utoipa::path(patch, path = "/v1/roles/{id}", operation_id = "update_role", tag = "roles",
    request_body = UpdateRole,
    responses((status = 200, description = "The role as it is now.", body = RoleView)))]
async fn update(asker: Asker, id: RawId, Json(request): Json<UpdateRole>) -> Result<Answer<RoleView>> {
    let id: RoleId = id.of("role")?;
    let (_, modified) = found(&asker, "role:update", id)?;
    asker.fits(modified)?;
    check(&asker, request.permissions.as_deref().unwrap_or_default())?;
    let changed = asker
        .identity
        .change(
            &asker.call(),
            |edit| {
                edit.update_role(id, |role| {
                    if let Some(name) = &request.name {
                        role.name.clone_from(name);
                    }
                    if let Some(description) = &request.description {
                        role.description.clone_from(description);
                    }
                    if let Some(permissions) = &request.permissions {
                        role.permissions.clone_from(permissions);
                    }
                })
            },
            |role| deed("role:update", role),
        )
        .await?;
    Ok(Answer(view(&asker, &changed)))
}

/// Delete a role
///
/// Removes a role that is not built in, from everybody who has it.
#[utoipa::path(delete, path = "/v1/roles/{id}", operation_id = "delete_role", tag = "roles",
    responses((status = 204, description = "Gone.")))]
async fn delete(asker: Asker, id: RawId) -> Result<StatusCode> {
    let id: RoleId = id.of("role")?;
    let (role, modified) = found(&asker, "role:delete", id)?;
    asker.fits(modified)?;
    asker
        .identity
        .remove(&asker.call(), Doomed::Role(id), deed("role:delete", &role))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Let a role imply another
///
/// Who has the first has the second too, with the next call. No circle may arise.
#[utoipa::path(put, path = "/v1/roles/{id}/implies/{role}", operation_id = "imply_role", tag = "roles", params(ImplyQuery),
    responses((status = 204, description = "It does.")))]
async fn imply(
    asker: Asker,
    TwoIds(prior, implied): TwoIds<Role, Role>,
    Query(query): Query<ImplyQuery>,
) -> Result<StatusCode> {
    let (role, _) = found(&asker, "role:update", prior)?;
    found(&asker, "role:read", implied)?;
    asker
        .identity
        .change(
            &asker.call(),
            |edit| edit.imply(prior, implied, query.allow_admin),
            |_| deed("role:update", &role).changed(&["implies"]),
        )
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End an implication
///
/// The second role does not come with the first any more.
#[utoipa::path(delete, path = "/v1/roles/{id}/implies/{role}", operation_id = "unimply_role", tag = "roles",
    responses((status = 204, description = "It does not.")))]
async fn unimply(asker: Asker, TwoIds(prior, implied): TwoIds<Role, Role>) -> Result<StatusCode> {
    let (role, _) = found(&asker, "role:update", prior)?;
    asker
        .identity
        .change(
            &asker.call(),
            |edit| edit.unimply(prior, implied),
            |_| deed("role:update", &role).changed(&["implies"]),
        )
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
