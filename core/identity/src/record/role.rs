//! Roles, to whom they are given and what they imply.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use skyloom_model::{Id, ProjectId, Timestamp};
use uuid::Uuid;

use super::{DomainId, GroupId, RoleId, UserId, is_false};

/// A list of what is allowed to whom it is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Role {
    /// Which.
    pub id: RoleId,
    /// Its name, unique in its domain or among the global ones.
    pub name: String,
    /// The only domain where it can be given; `None`: everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainId>,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Patterns over the names of permissions, such as `server:*`. Empty in the built-in roles: theirs are code.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<String>,
    /// Whether it is being deleted; it counts no more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub deleting: bool,
    /// What clients keep with it that means nothing here (Keystone's extra attributes).
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The roles that are always there. Their ids are fixed, their patterns are code.
///
/// `admin` implies `manager`, that `member`, that `reader` (as Keystone's bootstrap makes it). `operator` (runs the cloud's machines)
/// and `auditor` (reads the audit) stand apart: who has them has nothing else by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BuiltIn {
    /// Reads.
    Reader,
    /// Uses.
    Member,
    /// Manages what others use.
    Manager,
    /// Runs the machines of the cloud.
    Operator,
    /// Everything.
    Admin,
    /// Reads the audit.
    Auditor,
}

impl BuiltIn {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Reader,
        Self::Member,
        Self::Manager,
        Self::Operator,
        Self::Admin,
        Self::Auditor,
    ];

    /// Which of them implies which, at the beginning.
    pub const IMPLICATIONS: [(Self, Self); 3] = [
        (Self::Admin, Self::Manager),
        (Self::Manager, Self::Member),
        (Self::Member, Self::Reader),
    ];

    /// The role's fixed id.
    #[must_use]
    pub const fn id(self) -> RoleId {
        let number = match self {
            Self::Reader => 1,
            Self::Member => 2,
            Self::Manager => 3,
            Self::Operator => 4,
            Self::Admin => 5,
            Self::Auditor => 6,
        };
        Id::from_uuid(Uuid::from_u128(
            0x0000_0000_0000_7000_8000_0000_0000_0100 + number,
        ))
    }

    /// The role's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Member => "member",
            Self::Manager => "manager",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Auditor => "auditor",
        }
    }

    /// The one with that id.
    #[must_use]
    pub fn of(id: RoleId) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.id() == id)
    }
}

/// On what a role is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", content = "id")]
pub enum Target {
    /// The cloud itself.
    System,
    /// A domain.
    Domain(DomainId),
    /// A project.
    Project(ProjectId),
}

/// To whom a role is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", content = "id")]
pub enum Actor {
    /// A user.
    User(UserId),
    /// All users of a group.
    Group(GroupId),
}

impl fmt::Display for Target {
    /// As it stands in store keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Domain(id) => write!(f, "d-{id}"),
            Self::Project(id) => write!(f, "p-{id}"),
        }
    }
}

impl fmt::Display for Actor {
    /// As it stands in store keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "u-{id}"),
            Self::Group(id) => write!(f, "g-{id}"),
        }
    }
}

/// A text that is no target or actor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no target or actor of a grant")]
pub struct ParseError(String);

/// The id after `letter-`.
fn id_after<K: ?Sized>(text: &str, letter: &str) -> Option<Id<K>> {
    text.strip_prefix(letter)?.parse().ok()
}

impl FromStr for Target {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text == "system" {
            return Ok(Self::System);
        }
        (id_after(text, "d-").map(Self::Domain))
            .or_else(|| id_after(text, "p-").map(Self::Project))
            .ok_or_else(|| ParseError(text.to_owned()))
    }
}

impl FromStr for Actor {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        (id_after(text, "u-").map(Self::User))
            .or_else(|| id_after(text, "g-").map(Self::Group))
            .ok_or_else(|| ParseError(text.to_owned()))
    }
}

/// That an actor has a role on a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// Where.
    pub target: Target,
    /// Who.
    pub actor: Actor,
    /// What.
    pub role: RoleId,
    /// `false`: on the target itself. `true`: on all projects below it and not on itself (Keystone's `OS-INHERIT`).
    #[serde(default)]
    pub inherited: bool,
    /// Since when.
    pub created_at: Timestamp,
}

/// That who has one role has another too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Implication {
    /// The role that is given.
    pub prior: RoleId,
    /// The role that comes with it.
    pub implied: RoleId,
    /// Since when.
    pub created_at: Timestamp,
}
