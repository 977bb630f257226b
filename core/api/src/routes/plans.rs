//! `/v1/plans`: what was shown by dry runs, and can be applied.

use axum::Json as Answer;
use axum::extract::State;
use skyloom_cloud::{ListQuery, Listed, PlanApplied, ShownPlan};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{Result, accepted, tagged};
use crate::auth::User;
use crate::extract::{Query, RawId};
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(apply))
}

/// List shown plans
///
/// Plans that dry runs of the project have shown within the last day, oldest first; for who runs the cloud also the cloud's
/// own. Those of requests with a password, user data or image content are not kept.
#[utoipa::path(get, path = "/v1/plans", operation_id = "list_plans", tag = "plans", params(ListQuery),
    responses((status = 200, description = "One page.", body = Listed<ShownPlan>)))]
async fn list(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Listed<ShownPlan>>> {
    Ok(Answer(state.parts.cloud.list_plans(&caller, &query).await?))
}

/// Show a shown plan again
///
/// One plan as it was shown, and the task that carries it out if it was applied.
#[utoipa::path(get, path = "/v1/plans/{id}", operation_id = "get_plan", tag = "plans",
    responses((status = 200, description = "The plan.", body = ShownPlan)))]
async fn get(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    let id = id.of::<ShownPlan>("plan")?.uuid();
    Ok(tagged(state.parts.cloud.get_plan(&caller, id).await?))
}

/// Apply a shown plan
///
/// Makes the request of the plan again and carries out exactly what was shown: the same steps on the same host. When
/// anything that it was made from has changed, or another plan would be made now, nothing is done and the answer is 409
/// `plan.world_moved`, naming what has moved. A plan is applied once. Follow the task.
#[utoipa::path(post, path = "/v1/plans/{id}/actions/apply", operation_id = "apply_plan", tag = "plans",
    responses((status = 202, description = "The task that carries it out.", body = PlanApplied)))]
async fn apply(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    let id = id.of::<ShownPlan>("plan")?.uuid();
    let applied = state.parts.cloud.apply_plan(&caller, id).await?;
    Ok(accepted(applied.task.id, applied))
}
