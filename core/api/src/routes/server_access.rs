//! `/v1/servers/{id}/actions/set-password` and `set-keys`. What each action is stands in the table of actions.

use axum::extract::State;
use skyloom_cloud::{ServerAccepted, ServerTask, SetServerKeys, SetServerPassword};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{Result, accepted};
use crate::auth::User;
use crate::extract::{Json, OptionalJson, RawId};
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(set_password))
        .routes(routes!(set_keys))
}

#[utoipa::path(post, path = "/v1/servers/{id}/actions/set-password", operation_id = "set_server_password", tag = "servers",
    request_body = Option<SetServerPassword>,
    responses((status = 202, description = "The server, the task, the password if it was made.", body = ServerAccepted)))]
async fn set_password(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    OptionalJson(request): OptionalJson<SetServerPassword>,
) -> Result {
    let cloud = &state.parts.cloud;
    let asked = cloud
        .set_server_password(&caller, id.of("server")?, request)
        .await?;
    Ok(accepted(asked.task.id, asked))
}

#[utoipa::path(post, path = "/v1/servers/{id}/actions/set-keys", operation_id = "set_server_keys", tag = "servers",
    request_body = SetServerKeys,
    responses((status = 202, description = "The server, and the task that does it.", body = ServerTask)))]
async fn set_keys(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    Json(request): Json<SetServerKeys>,
) -> Result {
    let cloud = &state.parts.cloud;
    let asked = cloud.set_server_keys(&caller, id.of("server")?, request).await?;
    Ok(accepted(asked.task.id, asked))
}
