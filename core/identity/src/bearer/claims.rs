//! What a token says.

use std::fmt;

use serde::{Deserialize, Serialize};
use skyloom_model::Timestamp;
use uuid::Uuid;

use crate::{AuthScope, DomainId, Method, UserId, Via};

/// How often a token may be made from a token.
pub const MAX_CHAIN: usize = 8;

/// What a token rests on: when one of these goes or changes, the token ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grounds {
    /// The user.
    pub user: UserId,
    /// The user's domain.
    pub domain: DomainId,
    /// Where its roles count.
    pub scope: AuthScope,
    /// What else it rests on.
    pub via: Via,
}

/// How often what a token rests on has changed in a way that ends tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenEpochs {
    /// Of the user.
    pub user: u64,
    /// Of the user's domain.
    pub domain: u64,
    /// Of the project or domain of the scope; 0 for others.
    pub scope: u64,
    /// Of the credential, API token or trust behind it; 0 without one.
    pub credential: u64,
}

/// What is so now. The directory answers from memory.
pub trait Epochs: Send + Sync + fmt::Debug {
    /// The epochs of now. `None` when any of it is deleted, disabled or ended, or when what is known is too old to say.
    fn current(&self, grounds: &Grounds) -> Option<TokenEpochs>;
    /// Whether this single token was taken back.
    fn revoked(&self, token: Uuid) -> bool;
}

/// The claims of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenClaims {
    /// Who gave it.
    pub iss: String,
    /// The user.
    pub sub: UserId,
    /// The user's domain.
    pub dom: DomainId,
    /// Where its roles count.
    pub scope: AuthScope,
    /// What else it rests on.
    pub via: Via,
    /// How it was proven.
    pub methods: Vec<Method>,
    /// When it was given, in seconds of Unix time.
    pub iat: i64,
    /// From when it counts.
    pub nbf: i64,
    /// The second in which it counts no more.
    pub exp: i64,
    /// Its id.
    pub jti: Uuid,
    /// The tokens that it was made from, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<Uuid>,
    /// The epochs when it was given.
    pub epochs: TokenEpochs,
}

impl TokenClaims {
    /// What it rests on.
    #[must_use]
    pub fn grounds(&self) -> Grounds {
        Grounds {
            user: self.sub,
            domain: self.dom,
            scope: self.scope,
            via: self.via.clone(),
        }
    }
    /// When it was given.
    #[must_use]
    pub fn given_at(&self) -> Timestamp {
        Timestamp::from_second(self.iat).unwrap_or(Timestamp::MIN)
    }
    /// When it ends.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        Timestamp::from_second(self.exp).unwrap_or(Timestamp::MIN)
    }
    /// Its id and those of the tokens that it was made from, newest first: for the audit.
    #[must_use]
    pub fn audit_ids(&self) -> Vec<Uuid> {
        std::iter::once(self.jti)
            .chain(self.chain.iter().copied())
            .collect()
    }
}
