//! `/v1/ports`: the NICs of servers.

use axum::Json as Answer;
use axum::extract::State;
use skyloom_cloud::{ListQuery, Listed};
use skyloom_model::Port;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{Result, tagged};
use crate::auth::User;
use crate::extract::{Query, RawId};
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get))
}

/// List ports
///
/// The NICs of the project's servers with their addresses, oldest first. They come and go with their servers.
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
/// One NIC of one of the project's servers, with its revision as `ETag`.
#[utoipa::path(get, path = "/v1/ports/{id}", operation_id = "get_port", tag = "ports",
    responses((status = 200, description = "The port.", body = Port)))]
async fn get(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    Ok(tagged(state.parts.cloud.get_port(&caller, id.of("port")?).await?))
}
