//! The records of identity, as they lie in the store (the table of paths is in RFD 9).

use serde::{Deserialize, Serialize};
use skyloom_model::{Id, Timestamp};

/// Id of a domain.
pub type DomainId = Id<Domain>;
/// Id of a user or service account.
pub type UserId = Id<User>;
/// Id of a group.
pub type GroupId = Id<Group>;
/// Id of a role.
pub type RoleId = Id<Role>;
/// Id of an application credential, a second factor or an EC2 key.
pub type CredentialId = Id<Credential>;
/// Id of a delegation.
pub type TrustId = Id<Trust>;

/// An organisation: its own users, groups and projects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Domain {
    /// Which.
    pub id: DomainId,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A person or a service account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// Which.
    pub id: UserId,
    /// Whose.
    pub domain: DomainId,
}

/// Users who are given roles together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Which.
    pub id: GroupId,
    /// Whose.
    pub domain: DomainId,
}

/// A list of what is allowed to whom it is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Role {
    /// Which.
    pub id: RoleId,
}

/// An application credential, a second factor or an EC2 key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Credential {
    /// Which.
    pub id: CredentialId,
    /// Whose.
    pub user: UserId,
}

/// A delegation of roles from one user to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trust {
    /// Which.
    pub id: TrustId,
}
