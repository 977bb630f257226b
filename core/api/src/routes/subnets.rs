//! `/v1/subnets`: ranges of addresses of networks.

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use skyloom_cloud::{CreateSubnet, ListQuery, Listed, UpdateSubnet};
use skyloom_model::Subnet;
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

/// Create a subnet
///
/// Gives a network a range of addresses. It may not overlap another subnet of the network; gateway and pools lie inside.
#[utoipa::path(post, path = "/v1/subnets", operation_id = "create_subnet", tag = "subnets",
    request_body = CreateSubnet,
    responses((status = 201, description = "The subnet.", body = Subnet)))]
async fn create(
    State(state): State<AppState>,
    User(caller): User,
    Json(request): Json<CreateSubnet>,
) -> Result {
    let made = state.parts.cloud.create_subnet(&caller, request).await?;
    Ok(created(&format!("/v1/subnets/{}", made.meta.id), made))
}

/// List subnets
///
/// The project's subnets, oldest first.
#[utoipa::path(get, path = "/v1/subnets", operation_id = "list_subnets", tag = "subnets", params(ListQuery),
    responses((status = 200, description = "One page.", body = Listed<Subnet>)))]
async fn list(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Listed<Subnet>>> {
    Ok(Answer(state.parts.cloud.list_subnets(&caller, &query).await?))
}

/// Show a subnet
///
/// One subnet of the project, with its revision as `ETag`.
#[utoipa::path(get, path = "/v1/subnets/{id}", operation_id = "get_subnet", tag = "subnets",
    responses((status = 200, description = "The subnet.", body = Subnet)))]
async fn get(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    let found = state.parts.cloud.get_subnet(&caller, id.of("subnet")?).await?;
    Ok(tagged(found))
}

/// Change a subnet
///
/// Changes name, pools, name servers and labels; what is absent stays. Addresses that ports have stay with them.
#[utoipa::path(patch, path = "/v1/subnets/{id}", operation_id = "update_subnet", tag = "subnets",
    request_body = UpdateSubnet,
    responses((status = 200, description = "The subnet as it is now.", body = Subnet)))]
async fn update(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    Json(request): Json<UpdateSubnet>,
) -> Result<Answer<Subnet>> {
    let cloud = &state.parts.cloud;
    Ok(Answer(
        cloud.update_subnet(&caller, id.of("subnet")?, request).await?,
    ))
}

/// Delete a subnet
///
/// Removes a subnet. No port may have an address of it.
#[utoipa::path(delete, path = "/v1/subnets/{id}", operation_id = "delete_subnet", tag = "subnets",
    responses((status = 204, description = "Gone.")))]
async fn delete(State(state): State<AppState>, User(caller): User, id: RawId) -> Result<StatusCode> {
    state.parts.cloud.delete_subnet(&caller, id.of("subnet")?).await?;
    Ok(StatusCode::NO_CONTENT)
}
