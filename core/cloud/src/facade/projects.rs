//! Projects: the unit of tenancy. Administrators only.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_model::{Meta, Project, ProjectId, ProjectSpec, Resource as _, Scope, paths};
use skyloom_store::Versioned;

use super::Cloud;
use super::once::Change;
use super::records::{create_resource, prefix};
use crate::{Caller, CloudError, CreateProject, FieldError, ListQuery, Listed, Result, checks};

impl Cloud {
    /// Makes a project.
    ///
    /// # Errors
    /// `project.name_taken`, `name.invalid`, `project.description_too_long`, `role.denied`.
    pub async fn create_project(&self, caller: &Caller, request: CreateProject) -> Result<Project> {
        caller.may_operate()?;
        let name = checks::text::name("name", &request.name).map_err(CloudError::field)?;
        if request.description.len() > 1024 {
            let message = "at most 1024 bytes are allowed";
            return Err(CloudError::field(FieldError::new(
                "description",
                "project.description_too_long",
                message,
            )));
        }
        let done = self
            .once(caller, "projects.create", json!(request), || {
                let id = self.parts.ids.uuid();
                let project = Project {
                    meta: Meta::new(id, name.clone(), Scope::System, self.now()),
                    spec: ProjectSpec {
                        description: request.description.clone(),
                        ..ProjectSpec::default()
                    },
                };
                async move {
                    let claim = self
                        .claim_name::<Project>("project", Scope::System, &project.meta.name, id)
                        .await?;
                    Ok(Change::new(create_resource(&project)?.and(claim), project))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// A page of all projects.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`, `label.invalid`, `role.denied`.
    pub async fn list_projects(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Project>> {
        caller.may_operate()?;
        self.list_resources(&[prefix(&paths::scoped(Project::KIND, Scope::System))?], query)
            .await
    }

    /// One project.
    ///
    /// # Errors
    /// `project.not_found`, `role.denied`.
    pub async fn get_project(&self, caller: &Caller, id: ProjectId) -> Result<Versioned<Project>> {
        caller.may_operate()?;
        self.resource(Scope::System, id.uuid())
            .await?
            .ok_or_else(|| CloudError::not_found("project"))
    }

    /// The project that a caller's `X-Skyloom-Project` names, by id or name. For the door, before there is a [`Caller`]:
    /// whether the bearer may pick projects is checked there.
    ///
    /// # Errors
    /// `project.not_found`.
    pub async fn find_project(&self, id_or_name: &str) -> Result<Versioned<Project>> {
        let found = self.by_id_or_name(Scope::System, id_or_name).await?;
        found.ok_or_else(|| CloudError::not_found("project"))
    }
}
