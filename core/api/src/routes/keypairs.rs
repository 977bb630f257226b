//! `/v1/keypairs`: public SSH keys.

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use skyloom_cloud::{CreateKeypair, ListQuery, Listed};
use skyloom_model::Keypair;
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

/// Store a keypair
///
/// Stores a public SSH key in the project, to put into new servers. Its name must be free there.
#[utoipa::path(post, path = "/v1/keypairs", operation_id = "create_keypair", tag = "keypairs",
    request_body = CreateKeypair,
    responses((status = 201, description = "The keypair.", body = Keypair)))]
async fn create(
    State(state): State<AppState>,
    User(caller): User,
    Json(request): Json<CreateKeypair>,
) -> Result {
    let keypair = state.parts.cloud.create_keypair(&caller, request).await?;
    Ok(created(&format!("/v1/keypairs/{}", keypair.meta.id), keypair))
}

/// List keypairs
///
/// The project's public SSH keys, oldest first.
#[utoipa::path(get, path = "/v1/keypairs", operation_id = "list_keypairs", tag = "keypairs", params(ListQuery),
    responses((status = 200, description = "One page.", body = Listed<Keypair>)))]
async fn list(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Listed<Keypair>>> {
    Ok(Answer(state.parts.cloud.list_keypairs(&caller, &query).await?))
}

/// Show a keypair
///
/// One public SSH key of the project, with its revision as `ETag`.
#[utoipa::path(get, path = "/v1/keypairs/{id}", operation_id = "get_keypair", tag = "keypairs",
    responses((status = 200, description = "The keypair.", body = Keypair)))]
async fn get(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    Ok(tagged(
        state.parts.cloud.get_keypair(&caller, id.of("keypair")?).await?,
    ))
}

/// Delete a keypair
///
/// Removes a public SSH key from the project. Servers that got it keep it.
#[utoipa::path(delete, path = "/v1/keypairs/{id}", operation_id = "delete_keypair", tag = "keypairs",
    responses((status = 204, description = "Gone.")))]
async fn delete(State(state): State<AppState>, User(caller): User, id: RawId) -> Result<StatusCode> {
    state
        .parts
        .cloud
        .delete_keypair(&caller, id.of("keypair")?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
