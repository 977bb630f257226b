//! Who calls, for which project, and what they may do.

use skyloom_model::{Actor, ProjectId, Reason, Role, Scope};
use skyloom_store::Revision;

use crate::{CloudError, Result};

/// The authenticated origin of one call. Every facade method takes one; its project is the only one that the call sees.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What it may do.
    pub role: Role,
    /// The project that it works in. For administrators the one they picked.
    pub project: ProjectId,
    /// Who it is, for records.
    pub actor: Actor,
    /// Ties logs, tasks and answers together.
    pub request_id: String,
    /// "Do this once": same key and same request give the same answer.
    pub idempotency_key: Option<String>,
    /// "Only if it still is at this revision": honoured by deletes and actions.
    pub if_match: Option<Revision>,
    /// "Show what would be done, and do nothing": mutations end with [`crate::ErrorKind::Previewed`].
    pub dry_run: bool,
}

impl Caller {
    /// Whether everything is allowed.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        matches!(self.role, Role::Admin { .. })
    }

    /// The scope of the caller's own resources.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope::Project(self.project)
    }

    /// Lets through who may read in the project.
    pub(crate) fn may_read(&self) -> Result<()> {
        match self.role {
            Role::Admin { .. } | Role::Member { .. } | Role::Reader { .. } => Ok(()),
            Role::Engine | Role::Agent { .. } => Err(denied("engines and agents make no user calls")),
        }
    }

    /// Lets through who may change things in the project.
    pub(crate) fn may_write(&self) -> Result<()> {
        match self.role {
            Role::Admin { .. } | Role::Member { .. } => Ok(()),
            Role::Reader { .. } => Err(denied("this token may only read")),
            Role::Engine | Role::Agent { .. } => Err(denied("engines and agents make no user calls")),
        }
    }

    /// Lets through who runs the cloud.
    pub(crate) fn may_operate(&self) -> Result<()> {
        if self.is_admin() {
            Ok(())
        } else {
            Err(denied("only administrators may do this"))
        }
    }
}

fn denied(why: &str) -> CloudError {
    CloudError::denied(Reason::new("role.denied", why).hint("use a token with another role"))
}
