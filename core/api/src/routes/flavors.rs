//! `/v1/flavors`: sizes of servers.

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use skyloom_cloud::{CreateFlavor, ListQuery, Listed};
use skyloom_model::Flavor;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{Result, created, tagged};
use crate::auth::User;
use crate::extract::{Json, Query, RawId};
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, delete))
}

/// Make a flavor
///
/// Stores a new size of servers, for all projects. Its name must be free.
#[utoipa::path(post, path = "/v1/flavors", operation_id = "create_flavor", tag = "flavors",
    request_body = CreateFlavor,
    responses((status = 201, description = "The flavor.", body = Flavor)))]
async fn create(
    State(state): State<AppState>,
    User(caller): User,
    Json(request): Json<CreateFlavor>,
) -> Result {
    let flavor = state.parts.cloud.create_flavor(&caller, request).await?;
    Ok(created(&format!("/v1/flavors/{}", flavor.meta.id), flavor))
}

/// List flavors
///
/// All sizes of servers, oldest first.
#[utoipa::path(get, path = "/v1/flavors", operation_id = "list_flavors", tag = "flavors", params(ListQuery),
    responses((status = 200, description = "One page.", body = Listed<Flavor>)))]
async fn list(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Listed<Flavor>>> {
    Ok(Answer(state.parts.cloud.list_flavors(&caller, &query).await?))
}

/// Show a flavor
///
/// One size of servers, with its revision as `ETag`.
#[utoipa::path(get, path = "/v1/flavors/{id}", operation_id = "get_flavor", tag = "flavors",
    responses((status = 200, description = "The flavor.", body = Flavor)))]
async fn get(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    Ok(tagged(
        state.parts.cloud.get_flavor(&caller, id.of("flavor")?).await?,
    ))
}

/// Delete a flavor
///
/// Removes a size. Servers that were made with it keep it.
#[utoipa::path(delete, path = "/v1/flavors/{id}", operation_id = "delete_flavor", tag = "flavors",
    responses((status = 204, description = "Gone.")))]
async fn delete(State(state): State<AppState>, User(caller): User, id: RawId) -> Result<StatusCode> {
    state.parts.cloud.delete_flavor(&caller, id.of("flavor")?).await?;
    Ok(StatusCode::NO_CONTENT)
}
