//! Who calls, for which project, and what they may do.
//!
//! ```text
//! Caller {rights, project} ── may("server:start", object) ──> go on | 403 auth.forbidden | 404 server.not_found
//!                          └─ list("server:read") ──> what a list may show
//! ```

use std::net::IpAddr;
use std::sync::Arc;

use skyloom_identity::{Covered, DEFAULT_DOMAIN, Effect, Lineage, Object, Place, Rights};
use skyloom_model::{Actor, Meta, ProjectId, Reason, Scope};
use skyloom_store::Revision;
use uuid::Uuid;

use crate::{CloudError, Result};

/// The authenticated origin of one call. Every facade method takes one; its project is the only one that the call sees.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What it may do.
    pub rights: Rights,
    /// The project that it works in; [`Caller::NO_PROJECT`]: none.
    pub project: ProjectId,
    /// Where that project stands.
    pub lineage: Lineage,
    /// Who it is, for records.
    pub actor: Actor,
    /// From where it comes, for the audit; `None`: from inside the process, or nobody knows.
    pub source: Option<IpAddr>,
    /// Ties logs, tasks and answers together.
    pub request_id: String,
    /// "Do this once": same key and same request give the same answer.
    pub idempotency_key: Option<String>,
    /// "Only if it still is at this revision": honoured by deletes and actions.
    pub if_match: Option<Revision>,
    /// "Show what would be done, and do nothing": mutations end with [`crate::ErrorKind::Previewed`].
    pub dry_run: bool,
}

/// What a list may show of what lies in the caller's project, and of what is the cloud's own.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    permission: &'static str,
    /// Whether anything of the project is shown.
    here: bool,
    /// Whether anything of the cloud's own is shown.
    cloud: bool,
    /// Whether each item is asked for.
    each: bool,
}

impl Caller {
    /// In place of a project: none was named, and the credential is for none.
    pub const NO_PROJECT: ProjectId = ProjectId::from_uuid(Uuid::nil());

    /// A caller inside the process, such as an embedding product that has asked its own users already.
    #[must_use]
    pub fn internal(name: &str, rights: Rights, project: ProjectId) -> Self {
        let known = rights.projects.lineage(project);
        Self {
            lineage: known.unwrap_or_else(|| Lineage {
                domain: DEFAULT_DOMAIN,
                ancestors: Arc::default(),
            }),
            rights,
            project,
            actor: Actor {
                id: name.to_owned(),
                name: name.to_owned(),
            },
            source: None,
            request_id: name.to_owned(),
            idempotency_key: None,
            if_match: None,
            dry_run: false,
        }
    }

    /// The scope of the caller's own resources.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope::Project(self.project)
    }

    /// Whether hosts are no secret to it: then placements and previews name them.
    #[must_use]
    pub fn sees_hosts(&self) -> bool {
        self.allows("host:read", &Object::all("host", Place::System))
    }

    /// Whether the rules allow that.
    #[must_use]
    pub fn allows(&self, permission: &'static str, object: &Object<'_>) -> bool {
        self.effect(permission, object) == Effect::Allow
    }

    fn effect(&self, permission: &'static str, object: &Object<'_>) -> Effect {
        match self.rights.permission(permission) {
            Some(permission) => self.rights.decide(permission, object).effect,
            None => Effect::Forbidden,
        }
    }

    /// Lets through whom the rules allow that.
    ///
    /// # Errors
    /// `auth.forbidden`; `….not_found` for what the caller may not know of.
    pub fn may(&self, permission: &'static str, object: &Object<'_>) -> Result<()> {
        match self.effect(permission, object) {
            Effect::Allow => Ok(()),
            Effect::Forbidden => Err(forbidden(permission)),
            Effect::Hidden => Err(CloudError::not_found(object.kind).for_want_of(permission)),
        }
    }

    /// The caller's project as a place; `None`: it has none.
    #[must_use]
    pub fn place(&self) -> Option<Place<'_>> {
        (self.project != Self::NO_PROJECT).then(|| self.lineage.place(self.project))
    }

    /// The same, where it takes a project.
    ///
    /// # Errors
    /// `project.missing`.
    pub(crate) fn here(&self) -> Result<Place<'_>> {
        self.place().ok_or_else(|| {
            let reason = Reason::new("project.missing", "this is done in a project, and none is named");
            CloudError::bad_request(
                reason.hint("name one with the header X-Skyloom-Project, or use a credential for a project"),
            )
        })
    }

    /// Lets through who may do that in the project as such: to list, to create.
    pub(crate) fn may_here(&self, permission: &'static str) -> Result<()> {
        self.may(permission, &Object::all(kind_of(permission), self.here()?))
    }

    /// Lets through who may do that in the cloud itself.
    pub(crate) fn may_in_cloud(&self, permission: &'static str) -> Result<()> {
        self.may(permission, &Object::all(kind_of(permission), Place::System))
    }

    /// Lets through who may do that to a resource that was loaded.
    pub(crate) fn may_to(&self, permission: &'static str, meta: &Meta) -> Result<()> {
        let place = self.place_of(permission, meta.scope)?;
        self.may(
            permission,
            &Object::one(kind_of(permission), place).labelled(&meta.labels),
        )
    }

    /// Lets through who may do that to something without labels.
    pub(crate) fn may_in(&self, permission: &'static str, scope: Scope) -> Result<()> {
        let place = self.place_of(permission, scope)?;
        self.may(permission, &Object::one(kind_of(permission), place))
    }

    /// Where what lies in `scope` lies to the rules: of the cloud's own things, images and flavors are for all to see.
    fn place_of(&self, permission: &'static str, scope: Scope) -> Result<Place<'_>> {
        match scope {
            Scope::Project(project) if project == self.project => self.here(),
            // The keys are made of the caller's project: nothing of another one comes here.
            Scope::Project(_) => Err(CloudError::not_found(kind_of(permission))),
            Scope::System if matches!(kind_of(permission), "image" | "flavor") => Ok(Place::Shared),
            Scope::System => Ok(Place::System),
        }
    }

    /// What a list by that permission may show.
    ///
    /// # Errors
    /// As [`Caller::may`], when it may show nothing.
    pub fn list(&self, permission: &'static str) -> Result<Shown> {
        let refused = || match self.place() {
            // A list without a project in sight: of the cloud's own alone.
            None => self.may_in_cloud(permission),
            Some(_) => self.may_here(permission),
        };
        let Some(known) = self.rights.permission(permission) else {
            return Err(forbidden(permission));
        };
        let coverage = self.rights.coverage(known);
        let shared = matches!(kind_of(permission), "image" | "flavor");
        let here = self.project != Self::NO_PROJECT
            && match coverage.scope {
                Covered::All => true,
                Covered::Project(id) => id == self.project,
                Covered::Domain(id) => id == self.lineage.domain,
                Covered::Nothing => false,
            };
        let cloud = coverage.scope == Covered::All || (shared && coverage.shared);
        if !here && !cloud {
            refused()?;
        }
        Ok(Shown {
            permission,
            here,
            cloud,
            each: coverage.check_each,
        })
    }
}

impl Shown {
    /// Whether anything of that scope is shown.
    #[must_use]
    pub fn covers(self, scope: Scope) -> bool {
        match scope {
            Scope::Project(_) => self.here,
            Scope::System => self.cloud,
        }
    }

    /// Whether each item is to be asked for.
    #[must_use]
    pub fn each(self) -> bool {
        self.each
    }

    /// Whether an item may be shown.
    #[must_use]
    pub fn item(self, caller: &Caller, meta: &Meta) -> bool {
        !self.each || caller.may_to(self.permission, meta).is_ok()
    }
}

/// The kind that a permission is for.
pub(crate) fn kind_of(permission: &'static str) -> &'static str {
    permission.split_once(':').map_or(permission, |(kind, _)| kind)
}

fn forbidden(permission: &'static str) -> CloudError {
    let reason = Reason::new(
        "auth.forbidden",
        format!("this takes the permission {permission}"),
    )
    .hint("ask for a role that has it; `skyloom policy explain` says which rule decided");
    CloudError::denied(reason).for_want_of(permission)
}
