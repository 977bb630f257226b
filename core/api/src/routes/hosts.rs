//! `/v1/hosts`: the machines that run servers.

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use skyloom_cloud::{
    BatchAnswer, CreateHost, DrainHost, DrainPlan, FenceHost, HostAccepted, LedgerCorrection, ListQuery,
    Listed, PatchHost, SweepHost, TaskAccepted,
};
use skyloom_model::Host;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{Result, accepted, created, tagged};
use crate::auth::User;
use crate::extract::{Json, OptionalJson, Query, RawId};
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, patch, delete))
        .routes(routes!(sweep))
        .routes(routes!(recount))
        .routes(routes!(drain))
        .routes(routes!(drain_plan))
        .routes(routes!(fence))
        .routes(routes!(unfence))
        .routes(routes!(evacuate))
}

/// Register a host
///
/// Makes a host's record and its agent's token, which is shown this once. Give the token to the agent on that machine.
#[utoipa::path(post, path = "/v1/hosts", operation_id = "create_host", tag = "hosts",
    request_body = CreateHost,
    responses((status = 201, description = "The host, and its agent's token.", body = HostAccepted)))]
async fn create(
    State(state): State<AppState>,
    User(caller): User,
    Json(request): Json<CreateHost>,
) -> Result {
    let accepted = state.parts.cloud.create_host(&caller, request).await?;
    Ok(created(&format!("/v1/hosts/{}", accepted.host.meta.id), accepted))
}

/// List hosts
///
/// All machines that run servers, oldest first.
#[utoipa::path(get, path = "/v1/hosts", operation_id = "list_hosts", tag = "hosts", params(ListQuery),
    responses((status = 200, description = "One page.", body = Listed<Host>)))]
async fn list(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Listed<Host>>> {
    Ok(Answer(state.parts.cloud.list_hosts(&caller, &query).await?))
}

/// Show a host
///
/// One machine with what its agent reports, and its revision as `ETag`.
#[utoipa::path(get, path = "/v1/hosts/{id}", operation_id = "get_host", tag = "hosts",
    responses((status = 200, description = "The host.", body = Host)))]
async fn get(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    Ok(tagged(state.parts.cloud.get_host(&caller, id.of("host")?).await?))
}

/// Change a host
///
/// Changes what the operator wants of a host: whether new servers may be placed there, its labels, its ratios. What is
/// absent stays. Servers that run there stay too.
#[utoipa::path(patch, path = "/v1/hosts/{id}", operation_id = "patch_host", tag = "hosts",
    request_body = PatchHost,
    responses((status = 200, description = "The host as it is now.", body = Host)))]
async fn patch(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    Json(request): Json<PatchHost>,
) -> Result<Answer<Host>> {
    Ok(Answer(
        state
            .parts
            .cloud
            .patch_host(&caller, id.of("host")?, request)
            .await?,
    ))
}

/// Delete a host
///
/// Removes a host that holds no server, with its agent's token.
#[utoipa::path(delete, path = "/v1/hosts/{id}", operation_id = "delete_host", tag = "hosts",
    responses((status = 204, description = "Gone.")))]
async fn delete(State(state): State<AppState>, User(caller): User, id: RawId) -> Result<StatusCode> {
    state.parts.cloud.delete_host(&caller, id.of("host")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sweep a host
///
/// Looks for what lies on a host and belongs to no server, such as disks that a crash left behind. It is named in the
/// task's result, and with `remove` taken away. Follow the task.
#[utoipa::path(post, path = "/v1/hosts/{id}/actions/sweep", operation_id = "sweep_host", tag = "hosts",
    request_body = Option<SweepHost>,
    responses((status = 202, description = "The task that sweeps.", body = TaskAccepted)))]
async fn sweep(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    OptionalJson(options): OptionalJson<SweepHost>,
) -> Result {
    let asked = state
        .parts
        .cloud
        .sweep_host(&caller, id.of("host")?, options)
        .await?;
    Ok(accepted(asked.task.id, asked))
}

/// Count anew what is claimed of hosts
///
/// Adds up what servers and volumes take of each host and puts right the ledgers that say something else: one entry for each number, none when
/// all were right. The cloud does so once a day by itself.
#[utoipa::path(post, path = "/v1/hosts/actions/recount", operation_id = "recount_hosts", tag = "hosts",
    responses((status = 200, description = "What was put right.", body = Listed<LedgerCorrection>)))]
async fn recount(
    State(state): State<AppState>,
    User(caller): User,
) -> Result<Answer<Listed<LedgerCorrection>>> {
    let items = state.parts.cloud.recount_hosts(&caller).await?;
    Ok(Answer(Listed { items, next: None }))
}

/// Fence a host
///
/// Notes that a host is off and stays off, as whoever asks has made sure of. Nothing is placed there, and its servers may be evacuated, or
/// purged without it. Refused while its agent reports.
#[utoipa::path(post, path = "/v1/hosts/{id}/actions/fence", operation_id = "fence_host", tag = "hosts",
    request_body = FenceHost,
    responses((status = 200, description = "The host as it is now.", body = Host)))]
async fn fence(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    Json(request): Json<FenceHost>,
) -> Result<Answer<Host>> {
    let cloud = &state.parts.cloud;
    Ok(Answer(cloud.fence_host(&caller, id.of("host")?, request).await?))
}

/// Take a fenced host back
///
/// The host is disabled from now on; as soon as its agent reports, a sweep removes what is left there of servers that live elsewhere by now.
/// Enable it then. Follow the task.
#[utoipa::path(post, path = "/v1/hosts/{id}/actions/unfence", operation_id = "unfence_host", tag = "hosts",
    responses((status = 202, description = "The task that sweeps.", body = TaskAccepted)))]
async fn unfence(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    let asked = state.parts.cloud.unfence_host(&caller, id.of("host")?).await?;
    Ok(accepted(asked.task.id, asked))
}

/// Evacuate a host
///
/// Asks for the evacuation of each server on a fenced host: one item and one task for each, or why not.
#[utoipa::path(post, path = "/v1/hosts/{id}/actions/evacuate", operation_id = "evacuate_host", tag = "hosts",
    responses((status = 200, description = "One item for each server.", body = BatchAnswer)))]
async fn evacuate(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
) -> Result<Answer<BatchAnswer>> {
    Ok(Answer(
        state.parts.cloud.evacuate_host(&caller, id.of("host")?).await?,
    ))
}

/// Drain a host
///
/// Closes a host to new servers and sends those on it to others, a few at a time: those that run keep running where that can be, the others
/// are off meanwhile; who cannot go stays. It goes on by itself; `GET /v1/hosts/{id}/drain` shows how far it is. Asked again, those that
/// stayed are asked anew. Enabling the host, or disabling it, ends it.
#[utoipa::path(post, path = "/v1/hosts/{id}/actions/drain", operation_id = "drain_host", tag = "hosts",
    request_body = Option<DrainHost>,
    responses((status = 200, description = "The host as it is now.", body = Host)))]
async fn drain(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    OptionalJson(request): OptionalJson<DrainHost>,
) -> Result<Answer<Host>> {
    let cloud = &state.parts.cloud;
    Ok(Answer(cloud.drain_host(&caller, id.of("host")?, request).await?))
}

/// Show a host's drain
///
/// What becomes of each server on the host while it is drained, or what would: where it goes, how, and why; or why it stays.
#[utoipa::path(get, path = "/v1/hosts/{id}/drain", operation_id = "get_host_drain", tag = "hosts",
    responses((status = 200, description = "The plan, or how far it is.", body = DrainPlan)))]
async fn drain_plan(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
) -> Result<Answer<DrainPlan>> {
    Ok(Answer(
        state.parts.cloud.drain_plan(&caller, id.of("host")?).await?,
    ))
}
