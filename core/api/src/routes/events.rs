//! `/v1/events`: what happened.

use axum::Json as Answer;
use axum::extract::State;
use skyloom_cloud::{EventQuery, Listed};
use skyloom_model::Event;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::Result;
use crate::auth::User;
use crate::extract::Query;
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// List events
///
/// What happened in the project within the last week, oldest first; for who runs the cloud also to the cloud itself. Each
/// event was written in the same commit as what it tells. Older ones are in the archive: `archived=true` lists those. To
/// hear of events as they happen, watch the kind `events`.
#[utoipa::path(get, path = "/v1/events", operation_id = "list_events", tag = "events", params(EventQuery),
    responses((status = 200, description = "One page.", body = Listed<Event>)))]
async fn list(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<EventQuery>,
) -> Result<Answer<Listed<Event>>> {
    Ok(Answer(state.parts.cloud.list_events(&caller, &query).await?))
}
