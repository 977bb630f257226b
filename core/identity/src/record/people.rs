//! Domains, users, groups and who is in them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use skyloom_model::{ProjectId, Timestamp};

use super::{DEFAULT_DOMAIN, DomainId, GroupId, UserId, is_false, yes};

const fn default_domain() -> DomainId {
    DEFAULT_DOMAIN
}

/// An organisation: its own users, groups and projects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Domain {
    /// Which.
    pub id: DomainId,
    /// Its name, unique among all domains.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Whether its users can log in and its projects be worked in.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whether it is being deleted with all that is in it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub deleting: bool,
    /// Grows when tokens of its users and for its projects must end.
    #[serde(default)]
    pub epoch: u64,
    /// What clients keep with it that means nothing here (Keystone's extra attributes).
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Who is behind a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserKind {
    /// A person, who logs in with a password and perhaps a second factor.
    #[default]
    Person,
    /// A program, which has credentials and no second factor.
    Service,
}

/// Exceptions from the rules of passwords and logins for one user. Those of Keystone's user options that mean something here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UserOptions {
    /// The first password need not be changed at its first use.
    pub ignore_change_password_upon_first_use: bool,
    /// Passwords do not expire.
    pub ignore_password_expiry: bool,
    /// Wrong passwords are not counted.
    pub ignore_lockout_failure_attempts: bool,
    /// The user is not disabled for having been away long.
    pub ignore_user_inactivity: bool,
    /// The user cannot change the own password.
    pub lock_password: bool,
    /// Whether `multi_factor_auth_rules` count.
    pub multi_factor_auth_enabled: bool,
    /// Sets of methods, one of which must be proven completely.
    pub multi_factor_auth_rules: Vec<Vec<String>>,
}

/// A person or a service account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// Which.
    pub id: UserId,
    /// Whose.
    #[serde(default = "default_domain")]
    pub domain: DomainId,
    /// The name to log in with, unique in the domain.
    pub name: String,
    /// A person or a program.
    #[serde(default)]
    pub kind: UserKind,
    /// Where to write to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Whether anything may be done as this user.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whether it is being deleted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub deleting: bool,
    /// The project that a login without a scope gets when there is a role in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_project: Option<ProjectId>,
    /// Exceptions.
    #[serde(default)]
    pub options: UserOptions,
    /// When the password must have been changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_expires_at: Option<Timestamp>,
    /// Whether a password alone is not enough.
    #[serde(default, skip_serializing_if = "is_false")]
    pub needs_second_factor: bool,
    /// Grows when all tokens of the user must end.
    #[serde(default)]
    pub epoch: u64,
    /// What clients keep with it that means nothing here (Keystone's extra attributes).
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Users who are given roles together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Which.
    pub id: GroupId,
    /// Whose.
    #[serde(default = "default_domain")]
    pub domain: DomainId,
    /// Its name, unique in the domain.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Whether it is being deleted; its grants count no more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub deleting: bool,
    /// What clients keep with it that means nothing here (Keystone's extra attributes).
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// That a user is in a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Membership {
    /// In which.
    pub group: GroupId,
    /// Who.
    pub user: UserId,
    /// Since when.
    pub created_at: Timestamp,
}
