//! `/v1/servers`: virtual machines.

use axum::Json as Answer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use skyloom_cloud::{
    CreateServer, ListQuery, Listed, PlacementAnswer, ServerAccepted, ServerTask, StopOptions,
};
use skyloom_model::Server;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{Result, accepted, tagged};
use crate::auth::User;
use crate::extract::{Json, OptionalJson, Query, RawId};
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, delete))
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(reboot))
        .routes(routes!(console))
        .routes(routes!(placement))
}

/// Make a server
///
/// Checks the request, stores the server with a task that builds it, and answers before it is built: follow the task.
/// Without a password the cloud makes one and shows it this once.
#[utoipa::path(post, path = "/v1/servers", operation_id = "create_server", tag = "servers",
    request_body = CreateServer,
    responses((status = 202, description = "The server, the task that builds it, the password.", body = ServerAccepted)))]
async fn create(
    State(state): State<AppState>,
    User(caller): User,
    Json(request): Json<CreateServer>,
) -> Result {
    let made = state.parts.cloud.create_server(&caller, request).await?;
    Ok(accepted(made.task.id, made))
}

/// List servers
///
/// The project's servers, oldest first.
#[utoipa::path(get, path = "/v1/servers", operation_id = "list_servers", tag = "servers", params(ListQuery),
    responses((status = 200, description = "One page.", body = Listed<Server>)))]
async fn list(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Listed<Server>>> {
    Ok(Answer(state.parts.cloud.list_servers(&caller, &query).await?))
}

/// Show a server
///
/// One server of the project: what is wanted of it, what is known of it, and its revision as `ETag`.
#[utoipa::path(get, path = "/v1/servers/{id}", operation_id = "get_server", tag = "servers",
    responses((status = 200, description = "The server.", body = Server)))]
async fn get(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    Ok(tagged(
        state.parts.cloud.get_server(&caller, id.of("server")?).await?,
    ))
}

/// Delete a server
///
/// Removes the server with its disks and ports: follow the task.
#[utoipa::path(delete, path = "/v1/servers/{id}", operation_id = "delete_server", tag = "servers",
    responses((status = 202, description = "The server, and the task that removes it.", body = ServerTask)))]
async fn delete(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    let asked = state.parts.cloud.delete_server(&caller, id.of("server")?).await?;
    Ok(accepted(asked.task.id, asked))
}

/// Start a server
///
/// Turns a server on that is off: follow the task.
#[utoipa::path(post, path = "/v1/servers/{id}/actions/start", operation_id = "start_server", tag = "servers",
    responses((status = 202, description = "The server, and the task that turns it on.", body = ServerTask)))]
async fn start(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    let asked = state.parts.cloud.start_server(&caller, id.of("server")?).await?;
    Ok(accepted(asked.task.id, asked))
}

/// Stop a server
///
/// Asks the guest to turn itself off, and forces it after a time; or forces it at once. Follow the task.
#[utoipa::path(post, path = "/v1/servers/{id}/actions/stop", operation_id = "stop_server", tag = "servers",
    request_body = Option<StopOptions>,
    responses((status = 202, description = "The server, and the task that turns it off.", body = ServerTask)))]
async fn stop(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    OptionalJson(options): OptionalJson<StopOptions>,
) -> Result {
    let asked = state
        .parts
        .cloud
        .stop_server(&caller, id.of("server")?, options)
        .await?;
    Ok(accepted(asked.task.id, asked))
}

/// Reboot a server
///
/// Off and on again, off as by `stop`. Follow the task.
#[utoipa::path(post, path = "/v1/servers/{id}/actions/reboot", operation_id = "reboot_server", tag = "servers",
    request_body = Option<StopOptions>,
    responses((status = 202, description = "The server, and the task that reboots it.", body = ServerTask)))]
async fn reboot(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    OptionalJson(options): OptionalJson<StopOptions>,
) -> Result {
    let asked = state
        .parts
        .cloud
        .reboot_server(&caller, id.of("server")?, options)
        .await?;
    Ok(accepted(asked.task.id, asked))
}

/// How much of a console log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ConsoleQuery {
    /// Most bytes, counted from the end.
    #[serde(default = "all_bytes")]
    #[param(default = 65536, minimum = 1, maximum = 65536, required = false)]
    bytes: u32,
}

const fn all_bytes() -> u32 {
    65536
}

/// Show a server's console log
///
/// The end of what the guest wrote to its serial console, asked of the host's agent. What is no UTF-8 is replaced;
/// otherwise it is as the guest wrote it: do not trust it.
#[utoipa::path(get, path = "/v1/servers/{id}/console", operation_id = "get_server_console", tag = "servers",
    params(ConsoleQuery),
    responses((status = 200, description = "The text.", body = String, content_type = "text/plain")))]
async fn console(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    Query(query): Query<ConsoleQuery>,
) -> Result {
    let text = state
        .parts
        .cloud
        .console_tail(&caller, id.of("server")?, query.bytes)
        .await?;
    let response: Response = ([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response();
    Ok(response)
}

/// Explain a server's placement
///
/// Why its host was chosen, or why none was. Who may see hosts sees them, others counts and what to change.
#[utoipa::path(get, path = "/v1/servers/{id}/placement", operation_id = "get_server_placement", tag = "servers",
    responses((status = 200, description = "The explanation.", body = PlacementAnswer)))]
async fn placement(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
) -> Result<Answer<PlacementAnswer>> {
    Ok(Answer(
        state
            .parts
            .cloud
            .server_placement(&caller, id.of("server")?)
            .await?,
    ))
}
