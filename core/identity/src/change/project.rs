//! Projects: under a domain, or under another project of it.

use skyloom_model::{Meta, Name, Project, ProjectId, ProjectSpec, Scope};
use skyloom_store::Txn;

use super::{
    ChangeError, ChangeResult, Draft, Edit, checked_text, create, fold_name, together, touch, unchanged,
};
use crate::directory::MAX_PROJECT_DEPTH;
use crate::{DomainId, NameKind, paths};

/// Most tags of a project.
const MAX_TAGS: usize = 80;

impl Edit<'_> {
    /// Makes a project in `domain`, below `parent` or at its top. Where it lies never changes, so projects never lead in a circle.
    ///
    /// # Errors
    /// `NotFound` (domain, parent), `Invalid`, `NameTaken`, `Conflict` (something above it is disabled).
    pub fn create_project(
        &self,
        domain: DomainId,
        parent: Option<ProjectId>,
        name: &str,
        fill: impl FnOnce(&mut ProjectSpec),
    ) -> ChangeResult<Draft<Project>> {
        let on_domain = self.on_domain(domain)?;
        let above = match parent {
            Some(parent) => {
                let above = self.project(parent)?;
                if above.value.spec.domain != domain.uuid() {
                    return Err(ChangeError::invalid("parent", "is in another domain"));
                }
                if !self.at.project_counts(parent) {
                    return Err(ChangeError::Conflict("a project above it is disabled".to_owned()));
                }
                if self
                    .at
                    .depth(parent)
                    .is_none_or(|depth| depth >= MAX_PROJECT_DEPTH)
                {
                    let why = format!("at most {MAX_PROJECT_DEPTH} projects may lie below one another");
                    return Err(ChangeError::invalid("parent", why));
                }
                // So that nobody removes it meanwhile, having seen nothing below it.
                touch(above)?
            }
            None => Txn::new(),
        };
        let first = ProjectSpec {
            domain: domain.uuid(),
            parent,
            ..ProjectSpec::default()
        };
        let mut spec = first.clone();
        fill(&mut spec);
        fixed_project(&first, &spec)?;
        let name = Name::new(name).map_err(|e| ChangeError::invalid("name", e))?;
        let id = self.ids.uuid();
        let claim = self.claim_project(domain, &name, id)?;
        let project = Project {
            meta: Meta::new(id, name, Scope::System, self.now),
            spec,
        };
        let made = create(&paths::project(ProjectId::from_uuid(id)), &project)?;
        Ok(Draft::new(project, together([on_domain, above, made, claim])))
    }

    /// Changes a project. Disabling it ends all tokens for it.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `NameTaken`.
    pub fn update_project(
        &self,
        id: ProjectId,
        change: impl FnOnce(&mut Project),
    ) -> ChangeResult<Draft<Project>> {
        let old = self.project(id)?;
        let mut project = old.value.clone();
        change(&mut project);
        fixed_project(&old.value.spec, &project.spec)?;
        unchanged("id", &old.value.meta.id, &project.meta.id)?;
        unchanged("scope", &old.value.meta.scope, &project.meta.scope)?;
        unchanged("created_at", &old.value.meta.created_at, &project.meta.created_at)?;
        project.meta.generation = old.value.meta.generation + 1;
        project.meta.updated_at = self.now;
        if old.value.spec.enabled && !project.spec.enabled {
            project.spec.epoch += 1;
        }
        let (from, to) = (&old.value.meta.name, &project.meta.name);
        let domain = DomainId::from_uuid(project.spec.domain);
        let claim = if from == to {
            Txn::new()
        } else {
            self.rename_project(domain, from, to, id)?
        };
        let txn = old.replace(&project)?.and(claim);
        Ok(Draft::new(project, txn))
    }

    /// Claims a project's name; in the default domain where the cloud itself looks, too.
    fn claim_project(&self, domain: DomainId, name: &Name, id: uuid::Uuid) -> ChangeResult<Txn> {
        let claim = self.claim(NameKind::Project, Some(domain.uuid()), name.as_str(), id)?;
        Ok(claim.and(self.claim_in_cloud(domain, name, id)?))
    }

    fn claim_in_cloud(&self, domain: DomainId, name: &Name, id: uuid::Uuid) -> ChangeResult<Txn> {
        let Some(path) = paths::cloud_project_name(domain, name.as_str()) else {
            return Ok(Txn::new());
        };
        if self.at.claim(&path).is_some() {
            let name = name.to_string();
            return Err(ChangeError::NameTaken {
                kind: NameKind::Project,
                name,
                path,
            });
        }
        create(&path, &id)
    }

    /// Gives up a project's name.
    pub(super) fn unclaim_project(&self, domain: DomainId, name: &Name, id: ProjectId) -> Txn {
        let own = self.unclaim(NameKind::Project, Some(domain.uuid()), name.as_str(), id.uuid());
        let clouds = paths::cloud_project_name(domain, name.as_str());
        own.and(
            clouds
                .map(|path| self.unclaim_at(&path, id.uuid()))
                .unwrap_or_default(),
        )
    }

    fn rename_project(&self, domain: DomainId, from: &Name, to: &Name, id: ProjectId) -> ChangeResult<Txn> {
        if fold_name(from.as_str()) != fold_name(to.as_str()) {
            return Ok(self.unclaim_project(domain, from, id).and(self.claim_project(
                domain,
                to,
                id.uuid(),
            )?));
        }
        // The same to us, but not to the cloud.
        let old = paths::cloud_project_name(domain, from.as_str());
        let old = old
            .map(|path| self.unclaim_at(&path, id.uuid()))
            .unwrap_or_default();
        Ok(old.and(self.claim_in_cloud(domain, to, id.uuid())?))
    }
}

fn fixed_project(old: &ProjectSpec, new: &ProjectSpec) -> ChangeResult<()> {
    unchanged("domain", &old.domain, &new.domain)?;
    unchanged("parent", &old.parent, &new.parent)?;
    unchanged("epoch", &old.epoch, &new.epoch)?;
    unchanged("deleting", &old.deleting, &new.deleting)?;
    checked_text("description", &new.description)?;
    if new.tags.len() > MAX_TAGS {
        return Err(ChangeError::invalid(
            "tags",
            format!("at most {MAX_TAGS} are allowed"),
        ));
    }
    let bad = |tag: &&String| crate::check_name(tag).is_err() || tag.contains(['/', ',']);
    match new.tags.iter().find(bad) {
        Some(_) => Err(ChangeError::invalid(
            "tags",
            "a tag is a name without '/' and ','",
        )),
        None => Ok(()),
    }
}
