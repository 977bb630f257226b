//! Who may do what to which object, and which rule says so.
//!
//! ```text
//! PermissionSpec tables ──> Registry ──┐
//! roles: patterns + conditions ────────┴─> Policy ── decide(who, permission, object) ──> Allow | Forbidden | Hidden, and the rule
//!                                             ├── explain: every rule that was looked at
//!                                             └── filter_scope: what a list may cover
//! ```
//!
//! * **Deny by default.** A rule of a role allows; nothing else does. Rules only add: a role takes nothing away from another.
//! * **Scope before role.** A principal of a project reaches what is in that project, one of a domain what belongs to identity in
//!   that domain and its projects, one of the system all; besides, everybody reaches what is their own.
//! * **Hidden before forbidden.** Who may not read an object is told that there is none.

mod decide;
mod explain;
mod fields;
mod object;
mod registry;
mod role;
mod table;

use std::fmt;

pub use decide::{Coverage, Covered, Decision, Effect, Failed, Policy, PolicyBuilder, Ruling};
pub use explain::{Considered, Explanation, Said};
pub use fields::{FieldRefused, FieldRules, FieldSpec, Needs};
pub use object::{Narrowed, Object, Place, Who};
pub use registry::{Access, MAX_PERMISSIONS, Permission, PermissionSet, PermissionSpec, Places, Registry};
pub use role::{GRANTED_ROLE, RoleSpec, RuleSpec, When};
pub use table::PERMISSIONS;

/// Decides. [`Policy`] does; a product with rules of its own may bring something else.
pub trait Authorizer: Send + Sync + fmt::Debug + 'static {
    /// The permission of that name (`server:start`); `None`: there is none, and nothing of it is allowed.
    fn permission(&self, name: &str) -> Option<Permission>;
    /// May `who` do that to that?
    fn decide(&self, who: Who<'_>, permission: Permission, object: &Object<'_>) -> Decision;
    /// What a list by this permission may cover.
    fn filter_scope(&self, who: Who<'_>, permission: Permission) -> Coverage;
    /// The same as `decide`, with all that led to it.
    fn explain(&self, who: Who<'_>, permission: Permission, object: &Object<'_>) -> Explanation;
}

impl Authorizer for Policy {
    fn permission(&self, name: &str) -> Option<Permission> {
        self.registry().permission(name).ok()
    }
    fn decide(&self, who: Who<'_>, permission: Permission, object: &Object<'_>) -> Decision {
        Policy::decide(self, who, permission, object)
    }
    fn filter_scope(&self, who: Who<'_>, permission: Permission) -> Coverage {
        Policy::filter_scope(self, who, permission)
    }
    fn explain(&self, who: Who<'_>, permission: Permission, object: &Object<'_>) -> Explanation {
        Policy::explain(self, who, permission, object)
    }
}

/// What is wrong with a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyErrorKind {
    /// A table of the program is wrong.
    Table,
    /// No such permission.
    Unknown,
    /// A pattern or rule that says nothing.
    Pattern,
    /// For built-in roles only.
    Reserved,
    /// More than there may be.
    TooLong,
}

/// A policy that cannot be used: what, on what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    kind: PolicyErrorKind,
    on: String,
    what: String,
    hint: Option<String>,
}

impl PolicyError {
    pub(super) fn new(kind: PolicyErrorKind, on: &str, what: impl Into<String>) -> Self {
        Self {
            kind,
            on: on.chars().flat_map(char::escape_debug).take(128).collect(),
            what: what.into(),
            hint: None,
        }
    }
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> PolicyErrorKind {
        self.kind
    }
    /// What to do about it.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.on, self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for PolicyError {}
