//! `/v1/hosts`: the machines that run servers. Administrators only.

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use skyloom_cloud::{CreateHost, HostAccepted, ListQuery, Listed, PatchHost};
use skyloom_model::Host;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{Result, created, tagged};
use crate::auth::User;
use crate::extract::{Json, Query, RawId};
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, patch, delete))
}

/// Register a host
///
/// Makes a host's record and its agent's token, which is shown this once. Give the token to the agent on that machine.
/// Administrators only.
#[utoipa::path(post, path = "/v1/hosts", operation_id = "create_host", tag = "hosts",
    request_body = CreateHost,
    responses((status = 201, description = "The host, and its agent's token.", body = HostAccepted)))]
async fn create(
    State(state): State<AppState>,
    User(caller): User,
    Json(request): Json<CreateHost>,
) -> Result {
    let accepted = state.parts.cloud.create_host(&caller, request).await?;
    Ok(created(&format!("/v1/hosts/{}", accepted.host.meta.id), accepted))
}

/// List hosts
///
/// All machines that run servers, oldest first. Administrators only.
#[utoipa::path(get, path = "/v1/hosts", operation_id = "list_hosts", tag = "hosts", params(ListQuery),
    responses((status = 200, description = "One page.", body = Listed<Host>)))]
async fn list(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Listed<Host>>> {
    Ok(Answer(state.parts.cloud.list_hosts(&caller, &query).await?))
}

/// Show a host
///
/// One machine with what its agent reports, and its revision as `ETag`. Administrators only.
#[utoipa::path(get, path = "/v1/hosts/{id}", operation_id = "get_host", tag = "hosts",
    responses((status = 200, description = "The host.", body = Host)))]
async fn get(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    Ok(tagged(state.parts.cloud.get_host(&caller, id.of("host")?).await?))
}

/// Change a host
///
/// Changes what the operator wants of a host: whether new servers may be placed there, its labels, its ratios. What is
/// absent stays. Servers that run there stay too. Administrators only.
#[utoipa::path(patch, path = "/v1/hosts/{id}", operation_id = "patch_host", tag = "hosts",
    request_body = PatchHost,
    responses((status = 200, description = "The host as it is now.", body = Host)))]
async fn patch(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    Json(request): Json<PatchHost>,
) -> Result<Answer<Host>> {
    Ok(Answer(
        state
            .parts
            .cloud
            .patch_host(&caller, id.of("host")?, request)
            .await?,
    ))
}

/// Delete a host
///
/// Removes a host that holds no server, with its agent's token. Administrators only.
#[utoipa::path(delete, path = "/v1/hosts/{id}", operation_id = "delete_host", tag = "hosts",
    responses((status = 204, description = "Gone.")))]
async fn delete(State(state): State<AppState>, User(caller): User, id: RawId) -> Result<StatusCode> {
    state.parts.cloud.delete_host(&caller, id.of("host")?).await?;
    Ok(StatusCode::NO_CONTENT)
}
