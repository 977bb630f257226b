//! `/v1/placement`: questions about servers that are not made, and advice about those that are.

use axum::Json as Answer;
use axum::extract::State;
use skyloom_cloud::{
    AdviceQuery, FlavorForecast, Listed, PlacementAdvice, PlacementExplained, PlacementQuery, PlacementTested,
};

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::Result;
use crate::auth::User;
use crate::extract::Query;
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(explain))
        .routes(routes!(forecast))
        .routes(routes!(test))
        .routes(routes!(advise))
}

/// Explain whether a server would fit
///
/// What a create would be told now: how many hosts can take the server, what the others lack, the fewest changes that would help, and the
/// flavors that fit. Who may see hosts sees them, others counts and what to change.
#[utoipa::path(get, path = "/v1/placement/explain", operation_id = "explain_placement", tag = "placement",
    params(PlacementQuery),
    responses((status = 200, description = "The explanation.", body = PlacementExplained)))]
async fn explain(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<PlacementQuery>,
) -> Result<Answer<PlacementExplained>> {
    Ok(Answer(
        state.parts.cloud.explain_placement(&caller, &query).await?,
    ))
}

/// Forecast how many more servers fit
///
/// Of one flavor or of each: how many more servers fit when nothing else is made, on how many hosts, and by the values of a label of hosts.
#[utoipa::path(get, path = "/v1/placement/forecast", operation_id = "forecast_placement", tag = "placement",
    params(PlacementQuery),
    responses((status = 200, description = "One entry for each flavor.", body = Listed<FlavorForecast>)))]
async fn forecast(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<PlacementQuery>,
) -> Result<Answer<Listed<FlavorForecast>>> {
    let items = state.parts.cloud.forecast_placement(&caller, &query).await?;
    Ok(Answer(Listed { items, next: None }))
}

/// Test where several servers would go
///
/// Places them one after the other, each seeing those before it, and keeps nothing: how many fit, on which hosts, and why not one more.
#[utoipa::path(get, path = "/v1/placement/test", operation_id = "test_placement", tag = "placement",
    params(PlacementQuery),
    responses((status = 200, description = "Where they would go.", body = PlacementTested)))]
async fn test(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<PlacementQuery>,
) -> Result<Answer<PlacementTested>> {
    Ok(Answer(state.parts.cloud.test_placement(&caller, &query).await?))
}

/// Advise which servers to move
///
/// So that hosts are alike full (`spread`), so that fewer are in use (`consolidate`), or so that one is empty (`drain`): moves in an order in which
/// each fits, with the memory that is copied and why there; and who would have to go and cannot. Nothing is moved.
#[utoipa::path(get, path = "/v1/placement/advice", operation_id = "advise_placement", tag = "placement",
    params(AdviceQuery),
    responses((status = 200, description = "The moves.", body = PlacementAdvice)))]
async fn advise(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<AdviceQuery>,
) -> Result<Answer<PlacementAdvice>> {
    Ok(Answer(state.parts.cloud.advise_placement(&caller, &query).await?))
}
