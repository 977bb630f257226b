//! `/v1/networks`: Ethernet segments of a project.

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use skyloom_cloud::{CreateNetwork, ListQuery, Listed, UpdateNetwork};
use skyloom_model::Network;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{Result, created, tagged};
use crate::auth::User;
use crate::extract::{Json, Query, RawId};
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, update, delete))
}

/// Create a network
///
/// Makes an Ethernet segment of the project's own. It takes a subnet before ports can be plugged into it.
#[utoipa::path(post, path = "/v1/networks", operation_id = "create_network", tag = "networks",
    request_body = CreateNetwork,
    responses((status = 201, description = "The network.", body = Network)))]
async fn create(
    State(state): State<AppState>,
    User(caller): User,
    Json(request): Json<CreateNetwork>,
) -> Result {
    let made = state.parts.cloud.create_network(&caller, request).await?;
    Ok(created(&format!("/v1/networks/{}", made.meta.id), made))
}

/// List networks
///
/// The project's networks, oldest first.
#[utoipa::path(get, path = "/v1/networks", operation_id = "list_networks", tag = "networks", params(ListQuery),
    responses((status = 200, description = "One page.", body = Listed<Network>)))]
async fn list(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Listed<Network>>> {
    Ok(Answer(state.parts.cloud.list_networks(&caller, &query).await?))
}

/// Show a network
///
/// One network of the project with the ids of its subnets, with its revision as `ETag`.
#[utoipa::path(get, path = "/v1/networks/{id}", operation_id = "get_network", tag = "networks",
    responses((status = 200, description = "The network.", body = Network)))]
async fn get(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    let found = state.parts.cloud.get_network(&caller, id.of("network")?).await?;
    Ok(tagged(found))
}

/// Change a network
///
/// Changes name, description and labels; what is absent stays.
#[utoipa::path(patch, path = "/v1/networks/{id}", operation_id = "update_network", tag = "networks",
    request_body = UpdateNetwork,
    responses((status = 200, description = "The network as it is now.", body = Network)))]
async fn update(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    Json(request): Json<UpdateNetwork>,
) -> Result<Answer<Network>> {
    let cloud = &state.parts.cloud;
    Ok(Answer(
        cloud.update_network(&caller, id.of("network")?, request).await?,
    ))
}

/// Delete a network
///
/// Removes a network. It may have no subnets any more.
#[utoipa::path(delete, path = "/v1/networks/{id}", operation_id = "delete_network", tag = "networks",
    responses((status = 204, description = "Gone.")))]
async fn delete(State(state): State<AppState>, User(caller): User, id: RawId) -> Result<StatusCode> {
    state
        .parts
        .cloud
        .delete_network(&caller, id.of("network")?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
