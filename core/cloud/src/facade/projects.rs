//! Projects: the unit of tenancy.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_identity::paths as identity_paths;
use skyloom_identity::{
    AuthScope, Covered, DEFAULT_DOMAIN, Domain, DomainId, Lineage, MAX_PROJECT_DEPTH, NameKind, Object, Place,
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
    /// Makes a project, in a domain where the caller may make some.
    ///
    /// # Errors
    /// `project.name_taken`, `name.invalid`, `project.description_too_long`, `domain.not_found`, `project.not_found` and
    /// `project.elsewhere` of its parent, `project.too_deep`, `project.disabled`, `domain.disabled`, `auth.forbidden`.
    pub async fn create_project(&self, caller: &Caller, request: CreateProject) -> Result<Project> {
        let domain = self.domain_for(caller, &request).await?;
        caller.may("project:create", &Object::all("project", Place::Domain(domain)))?;
        let parent = request.parent.map(ProjectId::from_uuid);
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
                        domain: domain.uuid(),
                        parent,
                        ..ProjectSpec::default()
                    },
                };
                async move {
                    let mut txn = create_resource(&project)?.and(self.claim_in_domain(&project).await?);
                    // In the first domain the cloud finds projects by name.
                    if domain == DEFAULT_DOMAIN {
                        let name = &project.meta.name;
                        let claim = self.claim_name::<Project>("project", Scope::System, name, id);
                        txn = txn.and(claim.await?);
                    }
                    txn = txn.and(self.in_domain(domain).await?);
                    if let Some(parent) = parent {
                        txn = txn.and(self.below(parent).await?);
                    }
                    let told = project.meta.clone();
                    Ok(Change::new(txn, project).told("project:create", &told))
                }
                .boxed()
            })
            .await?;
        self.wait_for_identity(&identity_paths::project(done.answer.id()), true)
            .await;
        Ok(done.answer)
    }

    /// In which domain a project is asked for: its parent's, or the named one, or where the caller is at home.
    async fn domain_for(&self, caller: &Caller, request: &CreateProject) -> Result<DomainId> {
        let named = request.domain.map(DomainId::from_uuid);
        let Some(parent) = request.parent else {
            return Ok(named.unwrap_or(match caller.rights.principal.scope {
                AuthScope::Domain(own) => own,
                _ => DEFAULT_DOMAIN,
            }));
        };
        let above = self.resource::<Project>(Scope::System, parent).await?;
        // One that the caller may not see is not there.
        let above = above.filter(|above| may_read(caller, &above.value).is_ok());
        let above = checks::found("parent", "project", &parent.to_string(), above)?;
        let domain = DomainId::from_uuid(above.value.spec.domain);
        if named.is_some_and(|named| named != domain) {
            let why = "is in another domain";
            return Err(CloudError::field(FieldError::new(
                "parent",
                "project.elsewhere",
                why,
            )));
        }
        Ok(domain)
    }

    /// The part of a commit that rests on a domain. Only the first one may have no record: where a product has users of its own.
    async fn in_domain(&self, id: DomainId) -> Result<Txn> {
        let path = identity_paths::domain(id);
        let found = self.read::<Domain>(&path).await?;
        let found = found.filter(|found| !found.value.deleting);
        if id == DEFAULT_DOMAIN && found.is_none() {
            return Ok(Txn::new());
        }
        let found = checks::found("domain", "domain", &id.to_string(), found)?;
        if !found.value.enabled {
            let reason = Reason::new("domain.disabled", "the domain is disabled");
            return Err(CloudError::conflict(reason));
        }
        Ok(Txn::new().guard(found.unchanged()))
    }

    /// The part of a commit that puts a project below another one, which is written as it is: so nobody removes it meanwhile,
    /// having seen nothing below it.
    async fn below(&self, parent: ProjectId) -> Result<Txn> {
        let (mut next, mut depth, mut txn) = (Some(parent), 0, Txn::new());
        while let Some(id) = next {
            let above = self.resource::<Project>(Scope::System, id.uuid()).await?;
            let above = above.filter(|above| !above.value.spec.deleting);
            let above = checks::found("parent", "project", &id.to_string(), above)?;
            if !above.value.spec.enabled {
                let reason = Reason::new("project.disabled", "a project above it is disabled");
                return Err(CloudError::conflict(reason));
            }
            depth += 1;
            if depth == MAX_PROJECT_DEPTH {
                let why = format!("at most {MAX_PROJECT_DEPTH} projects may lie below one another");
                return Err(CloudError::field(FieldError::new(
                    "parent",
                    "project.too_deep",
                    why,
                )));
            }
            if id == parent {
                txn = txn.and(above.replace(&above.value)?);
            }
            next = above.value.spec.parent;
        }
        Ok(txn)
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
