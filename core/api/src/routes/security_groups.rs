//! `/v1/security-groups`: what may reach ports, and what they may reach.

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use skyloom_cloud::{AddRule, CreateSecurityGroup, ListQuery, Listed, UpdateSecurityGroup};
use skyloom_model::{SecurityGroup, SecurityRule};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::identity::TwoIds;
use crate::answer::{Result, created, tagged};
use crate::auth::User;
use crate::extract::{Json, Query, RawId};
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, update, delete))
        .routes(routes!(add_rule))
        .routes(routes!(remove_rule))
}

/// Create a security group
///
/// Makes a security group that lets everything out and nothing in. What no rule allows is dropped; answers to what was allowed pass.
#[utoipa::path(post, path = "/v1/security-groups", operation_id = "create_security_group", tag = "security-groups",
    request_body = CreateSecurityGroup,
    responses((status = 201, description = "The security group.", body = SecurityGroup)))]
async fn create(
    State(state): State<AppState>,
    User(caller): User,
    Json(request): Json<CreateSecurityGroup>,
) -> Result {
    let made = state.parts.cloud.create_security_group(&caller, request).await?;
    Ok(created(&format!("/v1/security-groups/{}", made.meta.id), made))
}

/// List security groups
///
/// The project's security groups with their rules, oldest first. `default` is there as soon as a port has needed it.
#[utoipa::path(get, path = "/v1/security-groups", operation_id = "list_security_groups", tag = "security-groups", params(ListQuery),
    responses((status = 200, description = "One page.", body = Listed<SecurityGroup>)))]
async fn list(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Listed<SecurityGroup>>> {
    Ok(Answer(
        state.parts.cloud.list_security_groups(&caller, &query).await?,
    ))
}

/// Show a security group
///
/// One security group of the project with its rules, with its revision as `ETag`.
#[utoipa::path(get, path = "/v1/security-groups/{id}", operation_id = "get_security_group", tag = "security-groups",
    responses((status = 200, description = "The security group.", body = SecurityGroup)))]
async fn get(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    let found = state
        .parts
        .cloud
        .get_security_group(&caller, id.of("security-group")?)
        .await?;
    Ok(tagged(found))
}

/// Change a security group
///
/// Changes name, description and labels; what is absent stays. `default` keeps its name.
#[utoipa::path(patch, path = "/v1/security-groups/{id}", operation_id = "update_security_group", tag = "security-groups",
    request_body = UpdateSecurityGroup,
    responses((status = 200, description = "The security group as it is now.", body = SecurityGroup)))]
async fn update(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    Json(request): Json<UpdateSecurityGroup>,
) -> Result<Answer<SecurityGroup>> {
    let cloud = &state.parts.cloud;
    Ok(Answer(
        cloud
            .update_security_group(&caller, id.of("security-group")?, request)
            .await?,
    ))
}

/// Delete a security group
///
/// Removes a security group that no port is in. Rules of other groups that name it allow nobody from then on.
#[utoipa::path(delete, path = "/v1/security-groups/{id}", operation_id = "delete_security_group", tag = "security-groups",
    responses((status = 204, description = "Gone.")))]
async fn delete(State(state): State<AppState>, User(caller): User, id: RawId) -> Result<StatusCode> {
    state
        .parts
        .cloud
        .delete_security_group(&caller, id.of("security-group")?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Add a rule
///
/// Allows one thing more. The other side is a prefix, all ports of a group, or everybody.
#[utoipa::path(post, path = "/v1/security-groups/{id}/rules", operation_id = "add_security_group_rule", tag = "security-groups",
    request_body = AddRule,
    responses((status = 200, description = "The security group as it is now.", body = SecurityGroup)))]
async fn add_rule(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    Json(request): Json<AddRule>,
) -> Result<Answer<SecurityGroup>> {
    let cloud = &state.parts.cloud;
    Ok(Answer(
        cloud.add_rule(&caller, id.of("security-group")?, request).await?,
    ))
}

/// Remove a rule
///
/// Takes one rule out. What it allowed is dropped, unless another rule allows it.
#[utoipa::path(delete, path = "/v1/security-groups/{id}/rules/{rule}", operation_id = "remove_security_group_rule",
    tag = "security-groups",
    responses((status = 200, description = "The security group as it is now.", body = SecurityGroup)))]
async fn remove_rule(
    State(state): State<AppState>,
    User(caller): User,
    TwoIds(id, rule): TwoIds<SecurityGroup, SecurityRule>,
) -> Result<Answer<SecurityGroup>> {
    let cloud = &state.parts.cloud;
    Ok(Answer(cloud.remove_rule(&caller, id, rule.uuid()).await?))
}
