//! `/v1/hold`: whether the fleet is held.

use axum::Json as Answer;
use axum::extract::State;
use skyloom_cloud::{Adopted, HoldStatus, ReleaseHold, SetHold};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::Result;
use crate::auth::User;
use crate::extract::{Json, OptionalJson};
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(get, set))
        .routes(routes!(adopt))
        .routes(routes!(release))
}

/// Show the hold
///
/// Whether the fleet is held, which hosts have not reported their guests since, and which guests are not as recorded. Says also
/// which cloud this is, in which incarnation of its store.
#[utoipa::path(get, path = "/v1/hold", operation_id = "get_hold", tag = "hold",
    responses((status = 200, description = "The hold, and what is known of the hosts.", body = HoldStatus)))]
async fn get(State(state): State<AppState>, User(caller): User) -> Result<Answer<HoldStatus>> {
    Ok(Answer(state.parts.cloud.hold_status(&caller).await?))
}

/// Hold the fleet
///
/// From now on nothing is begun on any host, nothing is planned, and changes are refused with 503, code `fleet.held`. Reading
/// works, guests run on, and what operators need works too.
#[utoipa::path(post, path = "/v1/hold", operation_id = "set_hold", tag = "hold",
    request_body = SetHold,
    responses((status = 200, description = "The hold as it is now.", body = HoldStatus)))]
async fn set(
    State(state): State<AppState>,
    User(caller): User,
    Json(request): Json<SetHold>,
) -> Result<Answer<HoldStatus>> {
    let status = state.parts.cloud.set_hold(&caller, &request.reason).await?;
    Ok(Answer(status))
}

/// Take over what hosts report
///
/// Records of servers whose guests run or are off against them, or are newer, become as their guests: power, wanted power and
/// generation. Nothing changes on any host. At most twenty servers a call; ask again while there are `more`.
#[utoipa::path(post, path = "/v1/hold/actions/adopt", operation_id = "adopt_guests", tag = "hold",
    responses((status = 200, description = "The servers whose records were changed.", body = Adopted)))]
async fn adopt(State(state): State<AppState>, User(caller): User) -> Result<Answer<Adopted>> {
    Ok(Answer(state.parts.cloud.adopt_guests(&caller).await?))
}

/// Release the fleet
///
/// Work goes on. Refused while hosts have not reported or guests are not as recorded, unless `anyway` says so.
#[utoipa::path(post, path = "/v1/hold/actions/release", operation_id = "release_hold", tag = "hold",
    request_body = Option<ReleaseHold>,
    responses((status = 200, description = "Work goes on.", body = HoldStatus)))]
async fn release(
    State(state): State<AppState>,
    User(caller): User,
    OptionalJson(options): OptionalJson<ReleaseHold>,
) -> Result<Answer<HoldStatus>> {
    state.parts.cloud.release_hold(&caller, options.anyway).await?;
    Ok(Answer(state.parts.cloud.hold_status(&caller).await?))
}
