//! `/v1/volumes`: disks that outlive servers.

use axum::Json as Answer;
use axum::extract::State;
use skyloom_cloud::{AttachVolume, CreateVolume, GrowVolume, LimitVolume, ListQuery, Listed, VolumeTask};
use skyloom_model::Volume;
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
        .routes(routes!(grow))
        .routes(routes!(limit))
        .routes(routes!(attach))
        .routes(routes!(detach))
}

/// Create a volume
///
/// Makes a volume of zeroes, or as a copy of an image, of one disk of a snapshot, or of a volume that no server has. One of
/// the local pool lives on one host, and only servers there can have it: name the `server` that it is for. Of
/// a shared pool every host has it that carries the label `pool.<name>=yes`.
#[utoipa::path(post, path = "/v1/volumes", operation_id = "create_volume", tag = "volumes",
    request_body = CreateVolume,
    responses((status = 202, description = "The volume, and the task that makes it.", body = VolumeTask)))]
async fn create(
    State(state): State<AppState>,
    User(caller): User,
    Json(request): Json<CreateVolume>,
) -> Result {
    let asked = state.parts.cloud.create_volume(&caller, request).await?;
    Ok(accepted(asked.task.id, asked))
}

/// List volumes
///
/// The project's volumes, oldest first.
#[utoipa::path(get, path = "/v1/volumes", operation_id = "list_volumes", tag = "volumes", params(ListQuery),
    responses((status = 200, description = "One page.", body = Listed<Volume>)))]
async fn list(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Listed<Volume>>> {
    Ok(Answer(state.parts.cloud.list_volumes(&caller, &query).await?))
}

/// Show a volume
///
/// One volume of the project: its size, its state, the server that has it; with its revision as `ETag`.
#[utoipa::path(get, path = "/v1/volumes/{id}", operation_id = "get_volume", tag = "volumes",
    responses((status = 200, description = "The volume.", body = Volume)))]
async fn get(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    let found = state.parts.cloud.get_volume(&caller, id.of("volume")?).await?;
    Ok(tagged(found))
}

/// Delete a volume
///
/// Removes a volume with everything on it. No server may have it, and there may be no snapshots of it.
#[utoipa::path(delete, path = "/v1/volumes/{id}", operation_id = "delete_volume", tag = "volumes",
    responses((status = 202, description = "The volume, and the task that removes it.", body = VolumeTask)))]
async fn delete(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    let asked = state.parts.cloud.delete_volume(&caller, id.of("volume")?).await?;
    Ok(accepted(asked.task.id, asked))
}

/// Grow a volume
///
/// Makes a volume larger, also while a guest uses it: the guest sees the new size at once. Volumes never shrink.
#[utoipa::path(post, path = "/v1/volumes/{id}/actions/grow", operation_id = "grow_volume", tag = "volumes",
    request_body = GrowVolume,
    responses((status = 202, description = "The volume, and the task that does it.", body = VolumeTask)))]
async fn grow(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    Json(request): Json<GrowVolume>,
) -> Result {
    let cloud = &state.parts.cloud;
    let asked = cloud.grow_volume(&caller, id.of("volume")?, request).await?;
    Ok(accepted(asked.task.id, asked))
}

/// Limit a volume
///
/// Sets how many operations and bytes a second the volume may do at most, also while a guest uses it. Without limits it may do what
/// it can.
#[utoipa::path(post, path = "/v1/volumes/{id}/actions/limit", operation_id = "limit_volume", tag = "volumes",
    request_body = LimitVolume,
    responses((status = 202, description = "The volume, and the task that does it.", body = VolumeTask)))]
async fn limit(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    Json(request): Json<LimitVolume>,
) -> Result {
    let cloud = &state.parts.cloud;
    let asked = cloud.limit_volume(&caller, id.of("volume")?, request).await?;
    Ok(accepted(asked.task.id, asked))
}

/// Attach a volume
///
/// Gives a volume to a server that runs or is off, as its last disk. The guest sees the disk's name, `vol-` and twelve
/// digits, as its serial number.
#[utoipa::path(post, path = "/v1/volumes/{id}/actions/attach", operation_id = "attach_volume", tag = "volumes",
    request_body = AttachVolume,
    responses((status = 202, description = "The volume, and the task that does it.", body = VolumeTask)))]
async fn attach(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    Json(request): Json<AttachVolume>,
) -> Result {
    let cloud = &state.parts.cloud;
    let asked = cloud.attach_volume(&caller, id.of("volume")?, request).await?;
    Ok(accepted(asked.task.id, asked))
}

/// Detach a volume
///
/// Takes a volume from its server. A guest that uses the disk should let go of it first: one that does not answer keeps it, and the
/// task fails.
#[utoipa::path(post, path = "/v1/volumes/{id}/actions/detach", operation_id = "detach_volume", tag = "volumes",
    responses((status = 202, description = "The volume, and the task that does it.", body = VolumeTask)))]
async fn detach(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    let asked = state.parts.cloud.detach_volume(&caller, id.of("volume")?).await?;
    Ok(accepted(asked.task.id, asked))
}
