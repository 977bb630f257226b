//! `/v1/servers/{id}/actions/resize` with its confirmation and way back, `migrate`, `live-migrate`, `evacuate` and
//! `shelve`. What each action is stands in the table of actions.

use axum::extract::State;
use skyloom_cloud::{
    EvacuateServer, LiveMigrateServer, MigrateServer, ResizeServer, ServerTask, StopOptions,
};
use skyloom_model::ServerAction;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{Result, accepted};
use crate::auth::User;
use crate::extract::{Json, OptionalJson, RawId};
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(resize))
        .routes(routes!(confirm_resize))
        .routes(routes!(revert_resize))
        .routes(routes!(migrate))
        .routes(routes!(live_migrate))
        .routes(routes!(evacuate))
        .routes(routes!(shelve))
}

#[utoipa::path(post, path = "/v1/servers/{id}/actions/resize", operation_id = "resize_server", tag = "servers",
    request_body = ResizeServer,
    responses((status = 202, description = "The server, and the task that resizes it.", body = ServerTask)))]
async fn resize(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    Json(request): Json<ResizeServer>,
) -> Result {
    let cloud = &state.parts.cloud;
    let asked = cloud.resize_server(&caller, id.of("server")?, request).await?;
    Ok(accepted(asked.task.id, asked))
}

#[utoipa::path(post, path = "/v1/servers/{id}/actions/confirm-resize", operation_id = "confirm_server_resize", tag = "servers",
    responses((status = 202, description = "The server, and the task that gives back what is not needed any more.", body = ServerTask)))]
async fn confirm_resize(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    let cloud = &state.parts.cloud;
    let asked = cloud
        .simple_action(&caller, id.of("server")?, ServerAction::ConfirmResize)
        .await?;
    Ok(accepted(asked.task.id, asked))
}

#[utoipa::path(post, path = "/v1/servers/{id}/actions/revert-resize", operation_id = "revert_server_resize", tag = "servers",
    request_body = Option<StopOptions>,
    responses((status = 202, description = "The server, and the task that makes it what it was.", body = ServerTask)))]
async fn revert_resize(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    OptionalJson(options): OptionalJson<StopOptions>,
) -> Result {
    let cloud = &state.parts.cloud;
    let asked = cloud.revert_resize(&caller, id.of("server")?, options).await?;
    Ok(accepted(asked.task.id, asked))
}

#[utoipa::path(post, path = "/v1/servers/{id}/actions/migrate", operation_id = "migrate_server", tag = "servers",
    request_body = Option<MigrateServer>,
    responses((status = 202, description = "The server, and the task that moves it.", body = ServerTask)))]
async fn migrate(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    OptionalJson(request): OptionalJson<MigrateServer>,
) -> Result {
    let cloud = &state.parts.cloud;
    let asked = cloud.migrate_server(&caller, id.of("server")?, request).await?;
    Ok(accepted(asked.task.id, asked))
}

#[utoipa::path(post, path = "/v1/servers/{id}/actions/live-migrate", operation_id = "live_migrate_server", tag = "servers",
    request_body = Option<LiveMigrateServer>,
    responses((status = 202, description = "The server, and the task that moves it.", body = ServerTask)))]
async fn live_migrate(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    OptionalJson(request): OptionalJson<LiveMigrateServer>,
) -> Result {
    let cloud = &state.parts.cloud;
    let asked = cloud
        .live_migrate_server(&caller, id.of("server")?, request)
        .await?;
    Ok(accepted(asked.task.id, asked))
}

#[utoipa::path(post, path = "/v1/servers/{id}/actions/evacuate", operation_id = "evacuate_server", tag = "servers",
    request_body = Option<EvacuateServer>,
    responses((status = 202, description = "The server, and the task that brings it back.", body = ServerTask)))]
async fn evacuate(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    OptionalJson(request): OptionalJson<EvacuateServer>,
) -> Result {
    let cloud = &state.parts.cloud;
    let asked = cloud.evacuate_server(&caller, id.of("server")?, request).await?;
    Ok(accepted(asked.task.id, asked))
}

#[utoipa::path(post, path = "/v1/servers/{id}/actions/shelve", operation_id = "shelve_server", tag = "servers",
    request_body = Option<StopOptions>,
    responses((status = 202, description = "The server, and the task that keeps it as an image.", body = ServerTask)))]
async fn shelve(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    OptionalJson(options): OptionalJson<StopOptions>,
) -> Result {
    let cloud = &state.parts.cloud;
    let asked = cloud.shelve_server(&caller, id.of("server")?, options).await?;
    Ok(accepted(asked.task.id, asked))
}
