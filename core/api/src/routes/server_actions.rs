//! `/v1/servers/{id}/actions/…`, and changes of several servers at once. What each action is stands in the table of actions, where its
//! words in the document come from.

use axum::Json as Answer;
use axum::extract::State;
use skyloom_cloud::{
    BatchAnswer, BatchServers, CreateServers, LockServer, RebuildServer, ServerTask, StopOptions,
    UpdateServer,
};
use skyloom_model::{Server, ServerAction};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{Result, accepted};
use crate::auth::User;
use crate::extract::{Json, OptionalJson, RawId};
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(reboot))
        .routes(routes!(hard_reboot))
        .routes(routes!(pause))
        .routes(routes!(unpause))
        .routes(routes!(suspend))
        .routes(routes!(resume))
        .routes(routes!(purge))
        .routes(routes!(reset_state))
        .routes(routes!(offload))
        .routes(routes!(unshelve))
        .routes(routes!(rebuild))
        .routes(routes!(lock))
        .routes(routes!(unlock))
        .routes(routes!(protect))
        .routes(routes!(unprotect))
        .routes(routes!(restore))
        .routes(routes!(force_complete_migration))
        .routes(routes!(update))
        .routes(routes!(batch))
        .routes(routes!(create_many))
}

/// Actions without a body that a task carries out.
macro_rules! by_task {
    ($($name:ident $path:literal $operation:literal $action:ident;)*) => {$(
        #[utoipa::path(post, path = $path, operation_id = $operation, tag = "servers",
            responses((status = 202, description = "The server, and the task that does it.", body = ServerTask)))]
        async fn $name(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
            let cloud = &state.parts.cloud;
            let asked = cloud
                .simple_action(&caller, id.of("server")?, ServerAction::$action)
                .await?;
            Ok(accepted(asked.task.id, asked))
        }
    )*};
}

by_task! {
    start "/v1/servers/{id}/actions/start" "start_server" Start;
    hard_reboot "/v1/servers/{id}/actions/hard-reboot" "hard_reboot_server" HardReboot;
    pause "/v1/servers/{id}/actions/pause" "pause_server" Pause;
    unpause "/v1/servers/{id}/actions/unpause" "unpause_server" Unpause;
    suspend "/v1/servers/{id}/actions/suspend" "suspend_server" Suspend;
    resume "/v1/servers/{id}/actions/resume" "resume_server" Resume;
    purge "/v1/servers/{id}/actions/purge" "purge_server" Purge;
    reset_state "/v1/servers/{id}/actions/reset-state" "reset_server_state" ResetState;
    offload "/v1/servers/{id}/actions/offload" "offload_server" Offload;
    unshelve "/v1/servers/{id}/actions/unshelve" "unshelve_server" Unshelve;
}

/// Actions without a body that are done at once.
macro_rules! at_once {
    ($($name:ident $path:literal $operation:literal $action:ident;)*) => {$(
        #[utoipa::path(post, path = $path, operation_id = $operation, tag = "servers",
            responses((status = 200, description = "The server as it is now.", body = Server)))]
        async fn $name(
            State(state): State<AppState>,
            User(caller): User,
            id: RawId,
        ) -> Result<Answer<Server>> {
            let cloud = &state.parts.cloud;
            let action = ServerAction::$action;
            Ok(Answer(cloud.edit_server(&caller, id.of("server")?, action).await?))
        }
    )*};
}

at_once! {
    unlock "/v1/servers/{id}/actions/unlock" "unlock_server" Unlock;
    protect "/v1/servers/{id}/actions/protect" "protect_server" Protect;
    unprotect "/v1/servers/{id}/actions/unprotect" "unprotect_server" Unprotect;
    restore "/v1/servers/{id}/actions/restore" "restore_server" Restore;
    force_complete_migration "/v1/servers/{id}/actions/force-complete-migration" "force_complete_server_migration" ForceCompleteMigration;
}

#[utoipa::path(post, path = "/v1/servers/{id}/actions/stop", operation_id = "stop_server", tag = "servers",
    request_body = Option<StopOptions>,
    responses((status = 202, description = "The server, and the task that turns it off.", body = ServerTask)))]
async fn stop(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    OptionalJson(options): OptionalJson<StopOptions>,
) -> Result {
    let cloud = &state.parts.cloud;
    let asked = cloud.stop_server(&caller, id.of("server")?, options).await?;
    Ok(accepted(asked.task.id, asked))
}

#[utoipa::path(post, path = "/v1/servers/{id}/actions/reboot", operation_id = "reboot_server", tag = "servers",
    request_body = Option<StopOptions>,
    responses((status = 202, description = "The server, and the task that reboots it.", body = ServerTask)))]
async fn reboot(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    OptionalJson(options): OptionalJson<StopOptions>,
) -> Result {
    let cloud = &state.parts.cloud;
    let asked = cloud.reboot_server(&caller, id.of("server")?, options).await?;
    Ok(accepted(asked.task.id, asked))
}

#[utoipa::path(post, path = "/v1/servers/{id}/actions/rebuild", operation_id = "rebuild_server", tag = "servers",
    request_body = Option<RebuildServer>,
    responses((status = 202, description = "The server, and the task that rebuilds it.", body = ServerTask)))]
async fn rebuild(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    OptionalJson(request): OptionalJson<RebuildServer>,
) -> Result {
    let cloud = &state.parts.cloud;
    let asked = cloud.rebuild_server(&caller, id.of("server")?, request).await?;
    Ok(accepted(asked.task.id, asked))
}

#[utoipa::path(post, path = "/v1/servers/{id}/actions/lock", operation_id = "lock_server", tag = "servers",
    request_body = Option<LockServer>,
    responses((status = 200, description = "The server as it is now.", body = Server)))]
async fn lock(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    OptionalJson(request): OptionalJson<LockServer>,
) -> Result<Answer<Server>> {
    let cloud = &state.parts.cloud;
    Ok(Answer(
        cloud.lock_server(&caller, id.of("server")?, request).await?,
    ))
}

#[utoipa::path(patch, path = "/v1/servers/{id}", operation_id = "update_server", tag = "servers",
    request_body = UpdateServer,
    responses((status = 200, description = "The server as it is now.", body = Server)))]
async fn update(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    Json(request): Json<UpdateServer>,
) -> Result<Answer<Server>> {
    let cloud = &state.parts.cloud;
    Ok(Answer(
        cloud.update_server(&caller, id.of("server")?, request).await?,
    ))
}

/// Act on several servers
///
/// Asks for one action on each of the servers that are named by id or by labels, as if each were asked for alone: the answer says for
/// each what became of it, and what is refused for one does not keep it from the others. With `dry_run=plan` it says for each
/// whether it would be refused.
#[utoipa::path(post, path = "/v1/servers/actions/batch", operation_id = "batch_servers", tag = "servers",
    request_body = BatchServers,
    responses((status = 200, description = "What became of each.", body = BatchAnswer)))]
async fn batch(
    State(state): State<AppState>,
    User(caller): User,
    Json(request): Json<BatchServers>,
) -> Result<Answer<BatchAnswer>> {
    Ok(Answer(state.parts.cloud.batch_servers(&caller, request).await?))
}

/// Make several servers
///
/// Makes up to 100 servers alike, numbered by their names, each with a task of its own. The quota must have room for all of them before the
/// first is made. The answer says for each what became of it.
#[utoipa::path(post, path = "/v1/servers/actions/create", operation_id = "create_servers", tag = "servers",
    request_body = CreateServers,
    responses((status = 200, description = "What became of each.", body = BatchAnswer)))]
async fn create_many(
    State(state): State<AppState>,
    User(caller): User,
    Json(request): Json<CreateServers>,
) -> Result<Answer<BatchAnswer>> {
    Ok(Answer(state.parts.cloud.create_servers(&caller, request).await?))
}
