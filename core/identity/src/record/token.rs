//! API tokens: long secrets for programs, listed and taken back one by one.

use serde::{Deserialize, Serialize};
use skyloom_model::{HostId, Timestamp, TokenId};

use crate::{AuthScope, SecretHash, UserId};

/// An API token. Its secret is shown once and kept nowhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApiToken {
    /// Which.
    pub id: TokenId,
    /// What it is called in lists; need not be unique.
    pub name: String,
    /// Who has it.
    pub holder: Holder,
    /// The secret's hash, by which it is found.
    pub secret_hash: SecretHash,
    /// The secret's first characters.
    pub hint: String,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was last used, give or take some minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
    /// Who made it, if not the cloud itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<UserId>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Who acts with an API token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Holder {
    /// A user in one scope: never with more than the user has there at the moment of the call.
    User {
        /// Which user.
        user: UserId,
        /// Where.
        scope: AuthScope,
        /// If there are any: patterns of permissions (as in roles), to which alone it reaches.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        permissions: Vec<String>,
    },
    /// An engine of the cloud.
    Engine,
    /// The agent of a host.
    Agent {
        /// Which host.
        host: HostId,
    },
}

impl ApiToken {
    /// The user who acts with it, if it is no machine's.
    #[must_use]
    pub fn user(&self) -> Option<UserId> {
        match &self.holder {
            Holder::User { user, .. } => Some(*user),
            Holder::Engine | Holder::Agent { .. } => None,
        }
    }
}
