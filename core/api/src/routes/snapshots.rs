//! `/v1/snapshots`: what disks were at one moment.

use axum::Json as Answer;
use axum::extract::State;
use skyloom_cloud::{CreateSnapshot, ListQuery, Listed, SnapshotTask};
use skyloom_model::Snapshot;
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
        .routes(routes!(revert))
}

/// Take a snapshot
///
/// Keeps what all disks of a server are at one moment, with the guest's memory if asked for, or what one volume is. The record is
/// there at once; it is available, with its sizes, when the host has confirmed it. Raw volumes keep no snapshots.
#[utoipa::path(post, path = "/v1/snapshots", operation_id = "create_snapshot", tag = "snapshots",
    request_body = CreateSnapshot,
    responses((status = 202, description = "The snapshot, and the task that takes it.", body = SnapshotTask)))]
async fn create(
    State(state): State<AppState>,
    User(caller): User,
    Json(request): Json<CreateSnapshot>,
) -> Result {
    let asked = state.parts.cloud.create_snapshot(&caller, request).await?;
    Ok(accepted(asked.task.id, asked))
}

/// List snapshots
///
/// The project's snapshots, oldest first.
#[utoipa::path(get, path = "/v1/snapshots", operation_id = "list_snapshots", tag = "snapshots", params(ListQuery),
    responses((status = 200, description = "One page.", body = Listed<Snapshot>)))]
async fn list(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Listed<Snapshot>>> {
    Ok(Answer(state.parts.cloud.list_snapshots(&caller, &query).await?))
}

/// Show a snapshot
///
/// One snapshot of the project: of what it is, its disks with their sizes, its state; with its revision as `ETag`.
#[utoipa::path(get, path = "/v1/snapshots/{id}", operation_id = "get_snapshot", tag = "snapshots",
    responses((status = 200, description = "The snapshot.", body = Snapshot)))]
async fn get(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    let found = state
        .parts
        .cloud
        .get_snapshot(&caller, id.of("snapshot")?)
        .await?;
    Ok(tagged(found))
}

/// Delete a snapshot
///
/// Removes a snapshot from the disks that keep it. The disks themselves stay as they are.
#[utoipa::path(delete, path = "/v1/snapshots/{id}", operation_id = "delete_snapshot", tag = "snapshots",
    responses((status = 202, description = "The snapshot, and the task that removes it.", body = SnapshotTask)))]
async fn delete(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    let cloud = &state.parts.cloud;
    let asked = cloud.delete_snapshot(&caller, id.of("snapshot")?).await?;
    Ok(accepted(asked.task.id, asked))
}

/// Revert to a snapshot
///
/// Makes the disks what they were then; what was written since is lost. The server must be off, unless the snapshot has its
/// memory: then the guest goes on from that moment.
#[utoipa::path(post, path = "/v1/snapshots/{id}/actions/revert", operation_id = "revert_snapshot", tag = "snapshots",
    responses((status = 202, description = "The snapshot, and the task that does it.", body = SnapshotTask)))]
async fn revert(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    let cloud = &state.parts.cloud;
    let asked = cloud.revert_snapshot(&caller, id.of("snapshot")?).await?;
    Ok(accepted(asked.task.id, asked))
}
