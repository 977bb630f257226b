//! `/v1/ports`: the NICs of servers, and those that are to be.

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use skyloom_cloud::{AttachPort, CreatePort, ListQuery, Listed, PortTask, UpdatePort};
use skyloom_model::Port;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{Result, accepted, created, tagged};
use crate::auth::User;
use crate::extract::{Json, Query, RawId};
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, update, delete))
        .routes(routes!(attach))
        .routes(routes!(detach))
}

/// Create a port
///
/// Reserves an address and a MAC address in a network, for a server that is made later. Without security groups it is in `default`, which is made when it is not there.
#[utoipa::path(post, path = "/v1/ports", operation_id = "create_port", tag = "ports",
    request_body = CreatePort,
    responses((status = 201, description = "The port.", body = Port)))]
async fn create(
    State(state): State<AppState>,
    User(caller): User,
    Json(request): Json<CreatePort>,
) -> Result {
    let made = state.parts.cloud.create_port(&caller, request).await?;
    Ok(created(&format!("/v1/ports/{}", made.meta.id), made))
}

/// List ports
///
/// The project's ports with their addresses, oldest first. Those that were made with a server go with it.
#[utoipa::path(get, path = "/v1/ports", operation_id = "list_ports", tag = "ports", params(ListQuery),
    responses((status = 200, description = "One page.", body = Listed<Port>)))]
async fn list(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Listed<Port>>> {
    Ok(Answer(state.parts.cloud.list_ports(&caller, &query).await?))
}

/// Show a port
///
/// One port of the project, with its revision as `ETag`.
#[utoipa::path(get, path = "/v1/ports/{id}", operation_id = "get_port", tag = "ports",
    responses((status = 200, description = "The port.", body = Port)))]
async fn get(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    let found = state.parts.cloud.get_port(&caller, id.of("port")?).await?;
    Ok(tagged(found))
}

/// Change a port
///
/// Changes name, security groups and labels; what is absent stays.
#[utoipa::path(patch, path = "/v1/ports/{id}", operation_id = "update_port", tag = "ports",
    request_body = UpdatePort,
    responses((status = 200, description = "The port as it is now.", body = Port)))]
async fn update(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    Json(request): Json<UpdatePort>,
) -> Result<Answer<Port>> {
    let cloud = &state.parts.cloud;
    Ok(Answer(cloud.update_port(&caller, id.of("port")?, request).await?))
}

/// Delete a port
///
/// Removes a port that no server has; its addresses are free again.
#[utoipa::path(delete, path = "/v1/ports/{id}", operation_id = "delete_port", tag = "ports",
    responses((status = 204, description = "Gone.")))]
async fn delete(State(state): State<AppState>, User(caller): User, id: RawId) -> Result<StatusCode> {
    state.parts.cloud.delete_port(&caller, id.of("port")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Attach a port
///
/// Gives a port to a server that runs or is off, as its last NIC. The guest gets its address by DHCP.
#[utoipa::path(post, path = "/v1/ports/{id}/actions/attach", operation_id = "attach_port", tag = "ports",
    request_body = AttachPort,
    responses((status = 202, description = "The port, and the task that does it.", body = PortTask)))]
async fn attach(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    Json(request): Json<AttachPort>,
) -> Result {
    let asked = state
        .parts
        .cloud
        .attach_port(&caller, id.of("port")?, request)
        .await?;
    Ok(accepted(asked.task.id, asked))
}

/// Detach a port
///
/// Takes a port from its server. It stays in the project with its addresses, also when it was made with the server.
#[utoipa::path(post, path = "/v1/ports/{id}/actions/detach", operation_id = "detach_port", tag = "ports",
    responses((status = 202, description = "The port, and the task that does it.", body = PortTask)))]
async fn detach(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    let asked = state.parts.cloud.detach_port(&caller, id.of("port")?).await?;
    Ok(accepted(asked.task.id, asked))
}
