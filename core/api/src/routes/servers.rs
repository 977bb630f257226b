//! `/v1/servers`: virtual machines.

use axum::Json as Answer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use skyloom_cloud::{
    CreateServer, DeleteServer, Listed, PlacementAnswer, ServerAccepted, ServerQuery, ServerTask,
    TimelineEntry,
};
use skyloom_model::Server;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{Result, accepted, tagged};
use crate::auth::User;
use crate::extract::{Json, Query, RawId};
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, delete))
        .routes(routes!(console))
        .routes(routes!(screenshot))
        .routes(routes!(placement))
        .routes(routes!(timeline))
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
/// The project's servers that fit all that is asked for, oldest first.
#[utoipa::path(get, path = "/v1/servers", operation_id = "list_servers", tag = "servers", params(ServerQuery),
    responses((status = 200, description = "One page.", body = Listed<Server>)))]
async fn list(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<ServerQuery>,
) -> Result<Answer<Listed<Server>>> {
    Ok(Answer(state.parts.cloud.find_servers(&caller, &query).await?))
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

/// How a server is deleted. Other things of the query are for others to look at.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DeleteQuery {
    /// How long it is kept in the recycle bin, at most a year of hours; 0: not at all. By default as the cloud is configured.
    #[param(minimum = 0, maximum = 8760)]
    keep_hours: Option<u32>,
}

#[utoipa::path(delete, path = "/v1/servers/{id}", operation_id = "delete_server", tag = "servers", params(DeleteQuery),
    responses((status = 202, description = "The server, and the task that removes it.", body = ServerTask)))]
async fn delete(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    Query(query): Query<DeleteQuery>,
) -> Result {
    let options = DeleteServer {
        keep_hours: query.keep_hours,
    };
    let cloud = &state.parts.cloud;
    let asked = cloud.remove_server(&caller, id.of("server")?, options).await?;
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

/// Show a server's screen
///
/// A picture of what the guest shows now, a PNG of at most 720896 bytes, asked of the host's agent. A host whose hypervisor takes no
/// pictures refuses (`host.cannot`). What is in it is the guest's: do not trust it.
#[utoipa::path(get, path = "/v1/servers/{id}/screenshot", operation_id = "get_server_screenshot", tag = "servers",
    responses((status = 200, description = "The picture.", body = String, content_type = "image/png")))]
async fn screenshot(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    let cloud = &state.parts.cloud;
    let picture = cloud.screenshot(&caller, id.of("server")?).await?;
    Ok(([(CONTENT_TYPE, "image/png")], picture).into_response())
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

/// Show a server's timeline
///
/// Every task, step and event of the server that is in the store, oldest first; at most the newest two hundred tasks and events.
#[utoipa::path(get, path = "/v1/servers/{id}/timeline", operation_id = "get_server_timeline", tag = "servers",
    responses((status = 200, description = "What happened.", body = Listed<TimelineEntry>)))]
async fn timeline(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
) -> Result<Answer<Listed<TimelineEntry>>> {
    Ok(Answer(
        state
            .parts
            .cloud
            .server_timeline(&caller, id.of("server")?)
            .await?,
    ))
}
