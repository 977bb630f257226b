//! Who may act over whom: nobody gets at more than they have by way of somebody else's password, token or group.

use skyloom_model::ProjectId;

use super::Snapshot;
use crate::{Actor, AuthScope, BuiltIn, DomainId, Lineage, Lineages, Principal, Target};

impl Snapshot {
    /// Whether one scope lies within that of a principal: all in the system's, a domain and its projects in the domain's.
    #[must_use]
    pub fn covers(&self, by: &Principal, scope: AuthScope) -> bool {
        match (by.scope, scope) {
            (AuthScope::System, _) => true,
            (AuthScope::Domain(mine), AuthScope::Project(project)) => self
                .project(project)
                .is_some_and(|found| found.value.spec.domain == mine.uuid()),
            (AuthScope::None, _) => false,
            (mine, scope) => mine == scope,
        }
    }

    /// Whether a principal has, in a scope around them, all roles that a user (or its groups) or a group was given: then nothing is gained
    /// by acting as that one. An administrator has every role of its scope.
    #[must_use]
    pub fn commands(&self, by: &Principal, actor: Actor) -> bool {
        let admin = by.roles.contains(&BuiltIn::Admin.id());
        let groups = match actor {
            Actor::User(user) => self
                .groups_of(user)
                .map(|group| Actor::Group(group.value.id))
                .collect(),
            Actor::Group(_) => Vec::new(),
        };
        [actor].into_iter().chain(groups).all(|actor| {
            self.grants_to(actor).all(|grant| {
                let scope = match grant.value.target {
                    Target::System => AuthScope::System,
                    Target::Domain(domain) => AuthScope::Domain(domain),
                    Target::Project(project) => AuthScope::Project(project),
                };
                let has = || self.implied_roles(grant.value.role).is_subset(&by.roles);
                self.covers(by, scope) && (admin || has())
            })
        })
    }
}

impl Lineages for super::Directory {
    fn lineage(&self, project: ProjectId) -> Option<Lineage> {
        let at = self.snapshot();
        let spec = &at.project(project)?.value.spec;
        let (mut ancestors, mut next) = (Vec::new(), spec.parent);
        while let Some(id) = next.filter(|_| ancestors.len() < super::MAX_PROJECT_DEPTH) {
            ancestors.push(id);
            next = at.project(id).and_then(|above| above.value.spec.parent);
        }
        Some(Lineage {
            domain: DomainId::from_uuid(spec.domain),
            ancestors: ancestors.into(),
        })
    }
}
