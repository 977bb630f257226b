//! `/v1/tokens`: who may call.

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use skyloom_cloud::{CreateToken, ListQuery, Listed, TokenAccepted};
use skyloom_model::Token;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{Result, created};
use crate::auth::User;
use crate::extract::{Json, Query, RawId};
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(delete))
}

/// Make a token
///
/// Makes the bearer token of an engine or of a host's agent. Its secret is shown this once; only its hash is kept.
#[utoipa::path(post, path = "/v1/tokens", operation_id = "create_token", tag = "tokens",
    request_body = CreateToken,
    responses((status = 201, description = "The token's record, and its secret.", body = TokenAccepted)))]
async fn create(
    State(state): State<AppState>,
    User(caller): User,
    Json(request): Json<CreateToken>,
) -> Result {
    let accepted = state.parts.cloud.create_token(&caller, request).await?;
    Ok(created("/v1/tokens", accepted))
}

/// List tokens
///
/// The records of all tokens, in no particular order, without their secrets.
#[utoipa::path(get, path = "/v1/tokens", operation_id = "list_tokens", tag = "tokens", params(ListQuery),
    responses((status = 200, description = "One page.", body = Listed<Token>)))]
async fn list(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Listed<Token>>> {
    Ok(Answer(state.parts.cloud.list_tokens(&caller, &query).await?))
}

/// Take a token back
///
/// The token stops working at once; open streams of it end within seconds.
#[utoipa::path(delete, path = "/v1/tokens/{id}", operation_id = "delete_token", tag = "tokens",
    responses((status = 204, description = "It works no more.")))]
async fn delete(State(state): State<AppState>, User(caller): User, id: RawId) -> Result<StatusCode> {
    state.parts.cloud.delete_token(&caller, id.of("token")?).await?;
    Ok(StatusCode::NO_CONTENT)
}
