//! What is asked of a login, and what it gives.

use std::time::Duration;

use skyloom_model::{ProjectId, Secret, Timestamp};
use std::sync::Arc;

use crate::{
    CredentialId, DEFAULT_DOMAIN, DomainId, External, OidcConfig, Rights, Snapshot, TokenClaims, TrustId,
    UserId,
};

/// A domain, by its id or its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainRef {
    /// By its id.
    Id(DomainId),
    /// By its name.
    Name(String),
}

impl Default for DomainRef {
    /// The default one.
    fn default() -> Self {
        Self::Id(DEFAULT_DOMAIN)
    }
}

/// A user, by its id or by its name in a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRef {
    /// By its id.
    Id(UserId),
    /// By its name.
    Name {
        /// In which domain.
        domain: DomainRef,
        /// Its name.
        name: String,
    },
}

/// A project, by its id or by its name in a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProjectRef {
    /// By its id.
    Id(ProjectId),
    /// By its name.
    Name {
        /// In which domain.
        domain: DomainRef,
        /// Its name.
        name: String,
    },
}

/// An application credential, by its id or by its user and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialRef {
    /// By its id.
    Id(CredentialId),
    /// By its name.
    Name {
        /// Whose.
        user: UserRef,
        /// Its name.
        name: String,
    },
}

impl DomainRef {
    /// Which one it is.
    #[must_use]
    pub fn find(&self, at: &Snapshot) -> Option<DomainId> {
        match self {
            Self::Id(id) => at.domain(*id).map(|found| found.value.id),
            Self::Name(name) => at.find_domain(name).map(|found| found.value.id),
        }
    }
}

impl UserRef {
    /// Which one it is.
    #[must_use]
    pub fn find(&self, at: &Snapshot) -> Option<UserId> {
        match self {
            Self::Id(id) => at.user(*id).map(|found| found.value.id),
            Self::Name { domain, name } => at.find_user(domain.find(at)?, name).map(|found| found.value.id),
        }
    }

    /// As it was typed: for the throttle, which counts also what is not there.
    pub(super) fn typed(&self) -> String {
        match self {
            Self::Id(id) => id.to_string(),
            Self::Name { domain, name } => {
                let name = crate::fold_name(name);
                match domain {
                    DomainRef::Id(id) => format!("{id} {name}"),
                    DomainRef::Name(domain) => format!("{} {name}", crate::fold_name(domain)),
                }
            }
        }
    }
}

impl ProjectRef {
    /// Which one it is.
    #[must_use]
    pub fn find(&self, at: &Snapshot) -> Option<ProjectId> {
        let id = match self {
            Self::Id(id) => return at.project(*id).map(|_| *id),
            Self::Name { domain, name } => at.find_project(domain.find(at)?, name)?,
        };
        Some(ProjectId::from_uuid(id.value.meta.id))
    }
}

impl CredentialRef {
    /// Which one it is.
    #[must_use]
    pub fn find(&self, at: &Snapshot) -> Option<CredentialId> {
        match self {
            Self::Id(id) => at.credential(*id).map(|found| found.value.id),
            Self::Name { user, name } => {
                (at.find_credential(user.find(at)?, name)).map(|found| found.value.id)
            }
        }
    }

    pub(super) fn typed(&self) -> String {
        match self {
            Self::Id(id) => format!("credential {id}"),
            Self::Name { user, name } => format!("credential {} {}", user.typed(), crate::fold_name(name)),
        }
    }
}

/// One proof of who somebody is. A login takes one of password, token, application credential and a provider's word, and with all but application
/// credentials at most one of code and recovery code.
#[derive(Debug)]
pub enum Proof {
    /// A password.
    Password {
        /// Whose.
        user: UserRef,
        /// The password.
        password: Secret<String>,
    },
    /// A code of a second factor.
    Totp {
        /// Whose.
        user: UserRef,
        /// The code.
        code: Secret<String>,
    },
    /// A code for the day when the device of the second factor is lost.
    RecoveryCode {
        /// Whose.
        user: UserRef,
        /// The code.
        code: Secret<String>,
    },
    /// A bearer token that was given before, or an API token.
    Token(Secret<String>),
    /// What an identity provider said, verified by [`crate::Oidc::verify`] or by a product in its own way. The user is made when there is none.
    External {
        /// What it said.
        said: Box<External>,
        /// How it is trusted.
        provider: Arc<OidcConfig>,
    },
    /// An application credential.
    ApplicationCredential {
        /// Which.
        credential: CredentialRef,
        /// Its secret.
        secret: Secret<String>,
    },
}

/// Where the roles of the new token shall count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ScopeAsked {
    /// In the user's default project if it has a role there, else nowhere. With an application credential or an API token: in its own.
    #[default]
    Default,
    /// Nowhere.
    Unscoped,
    /// In the cloud itself.
    System,
    /// In a domain.
    Domain(DomainRef),
    /// In a project.
    Project(ProjectRef),
    /// Where a delegation says, with its roles.
    Trust(TrustId),
}

/// A login.
#[derive(Debug)]
pub struct LogIn {
    /// What it is proven with.
    pub proofs: Vec<Proof>,
    /// Where the roles shall count.
    pub scope: ScopeAsked,
    /// How long the token shall live, if not as long as usual.
    pub life: Option<Duration>,
    /// The request's id, for the audit.
    pub request_id: String,
}

impl LogIn {
    /// A login for as long as usual.
    #[must_use]
    pub fn new(proofs: Vec<Proof>, scope: ScopeAsked) -> Self {
        Self {
            proofs,
            scope,
            life: None,
            request_id: String::new(),
        }
    }

    /// The same with the id of its request.
    #[must_use]
    pub fn in_request(mut self, id: impl Into<String>) -> Self {
        self.request_id = id.into();
        self
    }
}

/// What a login gave.
#[derive(Debug)]
pub struct Session {
    /// The bearer token: shown to its holder, kept nowhere.
    pub token: Secret<String>,
    /// What it allows now.
    pub rights: Rights,
    /// What it says.
    pub claims: Arc<TokenClaims>,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A token that counts.
#[derive(Debug, Clone)]
pub struct Valid {
    /// What it allows now.
    pub rights: Rights,
    /// What it says, if it is a bearer token; API tokens say nothing themselves.
    pub claims: Option<Arc<TokenClaims>>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}
