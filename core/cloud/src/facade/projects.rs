//! Projects: the unit of tenancy.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_identity::paths as identity_paths;
use skyloom_identity::{
    Covered, DEFAULT_DOMAIN, DomainId, Lineage, MAX_PROJECT_DEPTH, NameKind, Object, Place,
};
use skyloom_model::{Meta, Project, ProjectId, ProjectSpec, Reason, Resource as _, Scope, paths};
use skyloom_store::{Txn, Versioned};

use super::Cloud;
use super::bootstrap::DEFAULT_PROJECT;
use super::list::{PageOf, Wanted};
use super::once::Change;
use super::records::{create, create_resource, prefix};
use crate::{Caller, CloudError, CreateProject, FieldError, ListQuery, Listed, Result, checks};

impl Cloud {
    /// Makes a project.
    ///
    /// # Errors
    /// `project.name_taken`, `name.invalid`, `project.description_too_long`, `auth.forbidden`.
    pub async fn create_project(&self, caller: &Caller, request: CreateProject) -> Result<Project> {
        let place = Place::Domain(DEFAULT_DOMAIN);
        caller.may("project:create", &Object::all("project", place))?;
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
                    let taken = self.claim_in_domain(&project).await?;
                    let told = project.meta.clone();
                    let change = Change::new(create_resource(&project)?.and(claim).and(taken), project);
                    Ok(change.told("project:create", &told))
                }
                .boxed()
            })
            .await?;
        self.wait_for_identity(&identity_paths::project(done.answer.id()), true)
            .await;
        Ok(done.answer)
    }

    /// The part of a commit that claims a project's name in its domain, where names that differ in case alone are the same.
    pub(crate) async fn claim_in_domain(&self, project: &Project) -> Result<Txn> {
        let name = project.meta.name.as_str();
        let path = identity_paths::name(NameKind::Project, Some(project.spec.domain), name);
        if self.read::<uuid::Uuid>(&path).await?.is_some() {
            let message = format!("there is already a project with the name {name}");
            return Err(CloudError::conflict(Reason::new("project.name_taken", message)));
        }
        create(&path, &project.meta.id)
    }

    /// A page of the projects that the caller may see.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`, `label.invalid`, `auth.forbidden`.
    pub async fn list_projects(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Project>> {
        let coverage = caller
            .rights
            .permission(READ)
            .map(|read| caller.rights.coverage(read));
        if coverage.is_none_or(|coverage| coverage.scope == Covered::Nothing) {
            caller.may_in_cloud(READ)?;
        }
        let wanted = Wanted::of(query)?;
        let page = PageOf {
            cursor: query.cursor.as_deref(),
            limit: query.limit,
        };
        let below = prefix(&paths::scoped(Project::KIND, Scope::System))?;
        let keep = |p: &Project| wanted.fits(p) && may_read(caller, p).is_ok();
        self.page(&[below], page, keep).await
    }

    /// One project.
    ///
    /// # Errors
    /// `project.not_found`, `auth.forbidden`.
    pub async fn get_project(&self, caller: &Caller, id: ProjectId) -> Result<Versioned<Project>> {
        let found = self.resource::<Project>(Scope::System, id.uuid()).await?;
        let found = found.ok_or_else(|| CloudError::not_found("project"))?;
        may_read(caller, &found.value)?;
        Ok(found)
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

    /// The project that work is done in when none is named.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn default_project(&self) -> Result<Option<Versioned<Project>>> {
        self.by_id_or_name(Scope::System, DEFAULT_PROJECT).await
    }

    /// Where a project stands, by the records themselves.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn lineage(&self, project: &Project) -> Result<Lineage> {
        let mut ancestors = Vec::new();
        let mut parent = project.spec.parent;
        while let Some(id) = parent.filter(|_| ancestors.len() < MAX_PROJECT_DEPTH) {
            ancestors.push(id);
            let above = self.resource::<Project>(Scope::System, id.uuid()).await?;
            parent = above.and_then(|above| above.value.spec.parent);
        }
        Ok(Lineage {
            domain: DomainId::from_uuid(project.spec.domain),
            ancestors: ancestors.into(),
        })
    }
}

const READ: &str = "project:read";

fn may_read(caller: &Caller, project: &Project) -> Result<()> {
    let id = project.id();
    let known = caller.rights.projects.lineage(id);
    let lineage = known.unwrap_or_else(|| Lineage {
        domain: DomainId::from_uuid(project.spec.domain),
        ancestors: project.spec.parent.into_iter().collect(),
    });
    let object = Object::one("project", lineage.place(id)).labelled(&project.meta.labels);
    caller.may(READ, &object)
}
