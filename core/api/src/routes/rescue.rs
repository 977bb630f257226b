//! `/v1/servers/{id}/actions/start-rescue`, `…/stop-rescue` and what a rescue system has found.

use axum::Json as Answer;
use axum::extract::State;
use skyloom_cloud::{RescueReport, ServerAccepted, ServerTask, StartRescue, StopOptions};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{Result, accepted};
use crate::auth::User;
use crate::extract::{OptionalJson, RawId};
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(report))
}

#[utoipa::path(post, path = "/v1/servers/{id}/actions/start-rescue", operation_id = "start_server_rescue", tag = "servers",
    request_body = Option<StartRescue>,
    responses((status = 202, description = "The server, the task, root's password in the rescue system.", body = ServerAccepted)))]
async fn start(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    OptionalJson(request): OptionalJson<StartRescue>,
) -> Result {
    let asked = state
        .parts
        .cloud
        .start_rescue(&caller, id.of("server")?, request)
        .await?;
    Ok(accepted(asked.task.id, asked))
}

#[utoipa::path(post, path = "/v1/servers/{id}/actions/stop-rescue", operation_id = "stop_server_rescue", tag = "servers",
    request_body = Option<StopOptions>,
    responses((status = 202, description = "The server, and the task that does it.", body = ServerTask)))]
async fn stop(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    OptionalJson(options): OptionalJson<StopOptions>,
) -> Result {
    let asked = state
        .parts
        .cloud
        .stop_rescue(&caller, id.of("server")?, options)
        .await?;
    Ok(accepted(asked.task.id, asked))
}

/// Show what a rescue has found
///
/// What the rescue system says of the server's disks, read from its serial console: file systems, how full they are, systems, lines
/// of `/etc/fstab` that name what is not there; the last lines on the console before it, and what to do. It is what a
/// guest wrote: do not trust it further.
#[utoipa::path(get, path = "/v1/servers/{id}/rescue-report", operation_id = "get_server_rescue_report", tag = "servers",
    responses((status = 200, description = "The report.", body = RescueReport)))]
async fn report(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
) -> Result<Answer<RescueReport>> {
    Ok(Answer(
        state.parts.cloud.rescue_report(&caller, id.of("server")?).await?,
    ))
}
