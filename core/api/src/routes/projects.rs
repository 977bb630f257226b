//! `/v1/projects`: the units of tenancy.

use axum::Json as Answer;
use axum::extract::State;
use skyloom_cloud::{CreateProject, ListQuery, Listed};
use skyloom_model::Project;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{Result, created, tagged};
use crate::auth::User;
use crate::extract::{Json, Query, RawId};
use crate::parts::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get))
}

/// Make a project
///
/// Makes a unit of tenancy: what belongs to it is seen by its own tokens and by who runs the cloud only. Its name must be
/// free in its domain. It may stand below another project of that domain, which the caller may see.
#[utoipa::path(post, path = "/v1/projects", operation_id = "create_project", tag = "projects",
    request_body = CreateProject,
    responses((status = 201, description = "The project.", body = Project)))]
async fn create(
    State(state): State<AppState>,
    User(caller): User,
    Json(request): Json<CreateProject>,
) -> Result {
    let project = state.parts.cloud.create_project(&caller, request).await?;
    Ok(created(&format!("/v1/projects/{}", project.meta.id), project))
}

/// List projects
///
/// The projects that the caller may see.
#[utoipa::path(get, path = "/v1/projects", operation_id = "list_projects", tag = "projects", params(ListQuery),
    responses((status = 200, description = "One page.", body = Listed<Project>)))]
async fn list(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Listed<Project>>> {
    Ok(Answer(state.parts.cloud.list_projects(&caller, &query).await?))
}

/// Show a project
///
/// One project, with its revision as `ETag`.
#[utoipa::path(get, path = "/v1/projects/{id}", operation_id = "get_project", tag = "projects",
    responses((status = 200, description = "The project.", body = Project)))]
async fn get(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    Ok(tagged(
        state.parts.cloud.get_project(&caller, id.of("project")?).await?,
    ))
}
