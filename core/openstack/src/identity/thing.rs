//! What a call is about, for the policy and for the audit.

use std::collections::BTreeMap;

use skyloom_identity::{
    BuiltIn, Deed, DomainId, GRANTED_ROLE, Lineages, Object, Place, RoleId, Snapshot, Target, User, UserId,
};
use skyloom_model::{Project, ProjectId};
use uuid::Uuid;

/// Where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lies {
    System,
    /// Readable from every scope: global roles, the catalog.
    Shared,
    Domain(DomainId),
    Project(ProjectId),
}

/// An object of a call.
#[derive(Debug, Clone)]
pub(crate) struct Thing {
    kind: &'static str,
    lies: Lies,
    owner: Option<UserId>,
    labels: Option<BTreeMap<String, String>>,
    id: Option<Uuid>,
    name: Option<String>,
    /// Its id as it is shown; `None`: it is to be made.
    pub(crate) shown: Option<String>,
    called: Option<&'static str>,
}

impl Thing {
    /// One that is to be made, or all of a kind.
    pub(crate) fn new(kind: &'static str, lies: Lies) -> Self {
        Self {
            kind,
            lies,
            owner: None,
            labels: None,
            id: None,
            name: None,
            shown: None,
            called: None,
        }
    }

    /// One that is there.
    pub(crate) fn one(kind: &'static str, lies: Lies, id: Uuid) -> Self {
        let mut thing = Self::new(kind, lies);
        (thing.id, thing.shown) = (Some(id), Some(id.simple().to_string()));
        thing
    }

    pub(crate) fn user(user: &User) -> Self {
        Self::one("user", Lies::Domain(user.domain), user.id.uuid())
            .owned_by(user.id)
            .named(&user.name)
    }

    /// Something of a user: a credential, a trust.
    pub(crate) fn of_user(kind: &'static str, user: &User) -> Self {
        Self::new(kind, Lies::Domain(user.domain)).owned_by(user.id)
    }

    pub(crate) fn domain(id: DomainId, name: &str) -> Self {
        let mut thing = Self::one("domain", Lies::Domain(id), id.uuid()).named(name);
        thing.shown = Some(super::ids::domain(id));
        thing
    }

    pub(crate) fn project(project: &Project) -> Self {
        let id = project.meta.id;
        Self::one("project", Lies::Project(ProjectId::from_uuid(id)), id).named(project.meta.name.as_str())
    }

    /// A grant of a role on a target.
    pub(crate) fn grant(target: Target, role: Option<RoleId>) -> Self {
        let lies = match target {
            Target::System => Lies::System,
            Target::Domain(id) => Lies::Domain(id),
            Target::Project(id) => Lies::Project(id),
        };
        let mut thing = Self::new("grant", lies);
        thing.id = role.map(RoleId::uuid);
        let built_in = role.and_then(BuiltIn::of);
        thing.labels =
            built_in.map(|role| BTreeMap::from([(GRANTED_ROLE.to_owned(), role.name().to_owned())]));
        thing
    }

    pub(crate) fn owned_by(mut self, owner: UserId) -> Self {
        self.owner = Some(owner);
        self
    }

    pub(crate) fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// The same, that is there.
    pub(crate) fn with_id(mut self, id: Uuid) -> Self {
        (self.id, self.shown) = (Some(id), Some(id.simple().to_string()));
        self
    }

    /// What messages call it, where that is not the kind.
    pub(crate) fn called_so(mut self, called: &'static str) -> Self {
        self.called = Some(called);
        self
    }

    pub(crate) fn called(&self) -> &'static str {
        self.called.unwrap_or(self.kind)
    }

    /// Asks something about the object. `None`: it lies in a project that is not there.
    pub(crate) fn with_object<T>(
        &self,
        lineages: &dyn Lineages,
        ask: impl FnOnce(&Object<'_>) -> T,
    ) -> Option<T> {
        let lineage = match self.lies {
            Lies::Project(id) => Some((id, lineages.lineage(id)?)),
            _ => None,
        };
        let place = match (&lineage, self.lies) {
            (Some((id, lineage)), _) => lineage.place(*id),
            (None, Lies::Shared) => Place::Shared,
            (None, Lies::Domain(id)) => Place::Domain(id),
            (None, _) => Place::System,
        };
        let mut object = match self.shown {
            Some(_) => Object::one(self.kind, place),
            None => Object::all(self.kind, place),
        };
        if let Some(owner) = self.owner {
            object = object.owned_by(owner);
        }
        if let Some(labels) = &self.labels {
            object = object.labelled(labels);
        }
        Some(ask(&object))
    }

    /// What the audit says of what was tried with it.
    pub(crate) fn deed(&self, action: &'static str) -> Deed {
        let deed = Deed::new(action);
        let deed = match self.lies {
            Lies::Domain(id) => deed.in_domain(id),
            // Where a project lies is asked where it is known.
            Lies::System | Lies::Shared | Lies::Project(_) => deed,
        };
        let deed = match self.id {
            Some(id) => deed.on(id),
            None => deed,
        };
        match &self.name {
            Some(name) => deed.named(name),
            None => deed,
        }
    }

    /// The same with the domain of the project in which it lies.
    pub(crate) fn deed_at(&self, action: &'static str, at: &Snapshot) -> Deed {
        let deed = self.deed(action);
        match self.lies {
            Lies::Project(id) => match at.project(id) {
                Some(found) => deed.in_project(id, DomainId::from_uuid(found.value.spec.domain)),
                None => deed,
            },
            _ => deed,
        }
    }
}
