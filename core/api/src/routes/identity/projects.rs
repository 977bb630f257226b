//! `/v1/projects/{id}`: what becomes of a project after it was made.

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use skyloom_identity::{AuthScope, Deed, Doomed};
use skyloom_model::{
    Image, Keypair, Name, Port, Project, ProjectId, Reason, Resource, Scope, Server, Snapshot, Volume, paths,
};
use skyloom_store::{ListOptions, Prefix};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Asker, field};
use crate::answer::Result;
use crate::extract::{Json, RawId};
use crate::parts::AppState;
use crate::problem::ApiError;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(update, delete))
}

/// Changes a project: what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct UpdateProject {
    /// Another name.
    name: Option<String>,
    /// Another text.
    description: Option<String>,
    /// Disabled, nothing can be done in it, and all tokens for it end. What runs in it goes on.
    enabled: Option<bool>,
    /// Other tags.
    tags: Option<std::collections::BTreeSet<String>>,
}

fn deed(action: &'static str, asker: &Asker, project: &Project) -> Deed {
    let id = ProjectId::from_uuid(project.meta.id);
    (Deed::new(action)
        .on(project.meta.id)
        .named(project.meta.name.as_str()))
    .in_scope(&asker.identity, AuthScope::Project(id))
}

/// Change a project
///
/// Changes its name, text or tags, disables or enables it. Disabling ends all tokens for it and for the projects below it.
#[utoipa::path(patch, path = "/v1/projects/{id}", operation_id = "update_project", tag = "projects",
    request_body = UpdateProject,
    responses((status = 200, description = "The project as it is now.", body = Project)))]
async fn update(asker: Asker, id: RawId, Json(request): Json<UpdateProject>) -> Result<Answer<Project>> {
    let id: ProjectId = id.of("project")?;
    asker.may_of_project("project:update", id)?;
    let modified = asker.at().project(id).map(|found| found.modified);
    asker.fits(modified.ok_or_else(|| ApiError::not_found("project"))?)?;
    let name = request.name.as_deref().map(Name::new).transpose();
    let name = name.map_err(|error| field("name", "name.invalid", error.to_string()))?;
    let changed = asker
        .identity
        .change(
            &asker.call(),
            |edit| {
                edit.update_project(id, |project| {
                    if let Some(name) = &name {
                        project.meta.name = name.clone();
                    }
                    if let Some(description) = &request.description {
                        project.spec.description.clone_from(description);
                    }
                    if let Some(tags) = &request.tags {
                        project.spec.tags = tags.iter().cloned().collect();
                    }
                    project.spec.enabled = request.enabled.unwrap_or(project.spec.enabled);
                })
            },
            |project| deed("project:update", &asker, project),
        )
        .await?;
    Ok(Answer(changed))
}

/// Delete a project
///
/// Removes a project in which nothing is and below which no projects are, with the roles, credentials and tokens for it.
#[utoipa::path(delete, path = "/v1/projects/{id}", operation_id = "delete_project", tag = "projects",
    responses((status = 204, description = "Gone.")))]
async fn delete(State(state): State<AppState>, asker: Asker, id: RawId) -> Result<StatusCode> {
    let id: ProjectId = id.of("project")?;
    asker.may_of_project("project:delete", id)?;
    let at = asker.at();
    let found = at.project(id).ok_or_else(|| ApiError::not_found("project"))?;
    asker.fits(found.modified)?;
    is_empty(&state, id).await?;
    let told = deed("project:delete", &asker, &found.value);
    asker
        .identity
        .remove(&asker.call(), Doomed::Project(id), told)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// That nothing is in a project.
pub(super) async fn is_empty(state: &AppState, project: ProjectId) -> Result<()> {
    for kind in [
        Server::KIND,
        Image::KIND,
        Keypair::KIND,
        Port::KIND,
        Volume::KIND,
        Snapshot::KIND,
    ] {
        let below =
            Prefix::parse(&paths::scoped(kind, Scope::Project(project))).map_err(|_| ApiError::internal())?;
        let found = state
            .parts
            .backend
            .list(&below, ListOptions::default().with_limit(1))
            .await;
        let found = found.map_err(|error| ApiError::from(skyloom_cloud::CloudError::from(error)))?;
        if !found.items.is_empty() {
            let reason = Reason::new("project.in_use", format!("there are {kind} in the project"));
            return Err(ApiError::new(
                StatusCode::CONFLICT,
                reason.hint("delete them before"),
            ));
        }
    }
    Ok(())
}
