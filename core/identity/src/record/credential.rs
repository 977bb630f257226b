//! What users prove themselves with, and what they hand on.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use skyloom_model::{ProjectId, Timestamp};

use crate::{RecoveryCodes, Sealed, SecretHash, TotpConfig, TotpUse};

use super::{CredentialId, RoleId, TrustId, UserId, is_false};

/// An application credential, a second factor or an EC2 key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Credential {
    /// Which.
    pub id: CredentialId,
    /// Whose.
    pub user: UserId,
    /// What it is.
    pub kind: CredentialKind,
    /// Grows when tokens that were made with it must end.
    #[serde(default)]
    pub epoch: u64,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The sorts of credentials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum CredentialKind {
    /// A secret for a program.
    Application(ApplicationCredential),
    /// A second factor.
    Totp(SecondFactor),
    /// A key for signed requests.
    Ec2(Ec2Key),
}

impl Credential {
    /// The application credential that it is.
    #[must_use]
    pub fn application(&self) -> Option<&ApplicationCredential> {
        match &self.kind {
            CredentialKind::Application(application) => Some(application),
            CredentialKind::Totp(_) | CredentialKind::Ec2(_) => None,
        }
    }

    /// The project that it is for; it goes with that.
    #[must_use]
    pub fn project(&self) -> Option<ProjectId> {
        match &self.kind {
            CredentialKind::Application(application) => Some(application.project),
            CredentialKind::Ec2(ec2) => ec2.project,
            CredentialKind::Totp(_) => None,
        }
    }
}

/// A secret with which a program acts as a user in one project, with some of the user's roles there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApplicationCredential {
    /// Its name, unique for the user.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Where.
    pub project: ProjectId,
    /// Which roles at most. What the user has no more, it has no more.
    pub roles: BTreeSet<RoleId>,
    /// The secret's hash, by which it is found.
    pub secret_hash: SecretHash,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Whether it may make and delete credentials and trusts.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unrestricted: bool,
    /// If there are any: what alone may be called with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_rules: Vec<AccessRule>,
    /// If there are any: patterns of permissions (as in roles), to which alone it reaches in the cloud's own API. A credential that has access
    /// rules and none of these reaches nothing there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<String>,
    /// The credential with which it was made: it can do no more than that one and ends with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<CredentialId>,
}

/// One call that is allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AccessRule {
    /// The id by which the rule can be asked for.
    pub id: uuid::Uuid,
    /// The type of the service, such as `compute`.
    pub service: String,
    /// The HTTP method.
    pub method: String,
    /// The path; `*` stands for one segment, `**` for any number, `{name}` for one.
    pub path: String,
}

impl AccessRule {
    /// Whether it allows that call. The path is the one that was asked for, without its query.
    #[must_use]
    pub fn allows(&self, service: &str, method: &str, path: &str) -> bool {
        fn fits(pattern: &[&str], path: &[&str]) -> bool {
            match (pattern.split_first(), path.split_first()) {
                (None, None) => true,
                (Some((&"**", rest)), _) => {
                    (0..=path.len()).any(|n| path.get(n..).is_some_and(|p| fits(rest, p)))
                }
                (Some((first, rest)), Some((here, below))) => {
                    let any = *first == "*" || (first.starts_with('{') && first.ends_with('}'));
                    ((any && !here.is_empty()) || first == here) && fits(rest, below)
                }
                (None, Some(_)) | (Some(_), None) => false,
            }
        }
        // More of them would let a short pattern cost a long time.
        const MOST: usize = 64;
        let split = |text: &'_ str| text.split('/').count() <= MOST;
        self.service == service
            && self.method == method
            && split(&self.path)
            && split(path)
            && self.path.matches("**").count() <= 4
            && fits(
                &self.path.split('/').collect::<Vec<_>>(),
                &path.split('/').collect::<Vec<_>>(),
            )
    }

    /// Whether both allow the same call.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        (&self.service, &self.method, &self.path) == (&other.service, &other.method, &other.path)
    }
}

/// A second factor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecondFactor {
    /// The secret, sealed.
    pub sealed: Sealed,
    /// How codes are made of it.
    #[serde(default)]
    pub config: TotpConfig,
    /// Which codes have been taken.
    #[serde(default)]
    pub used: TotpUse,
    /// What is left for the day when the device is lost.
    #[serde(default)]
    pub recovery: RecoveryCodes,
    /// Whether a code of it has been shown once; until then it proves nothing and asks for nothing.
    #[serde(default)]
    pub confirmed: bool,
}

/// A key for signed requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ec2Key {
    /// The public half, unique.
    pub access: String,
    /// The secret half, sealed.
    pub sealed: Sealed,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectId>,
}

/// A user's password and those before it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Password {
    /// Whose.
    pub user: UserId,
    /// Hashes in the form that says how they were made, the one in force first.
    pub hashes: Vec<String>,
    /// When the first of them was set.
    pub changed_at: Timestamp,
}

impl Password {
    /// The hash in force.
    #[must_use]
    pub fn current(&self) -> Option<&str> {
        self.hashes.first().map(String::as_str)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Password")
            .field("user", &self.user)
            .field("hashes", &self.hashes.len())
            .field("changed_at", &self.changed_at)
            .finish()
    }
}

/// A delegation of roles from one user to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trust {
    /// Which.
    pub id: TrustId,
    /// Whose roles.
    pub trustor: UserId,
    /// Who may act with them.
    pub trustee: UserId,
    /// Where. `None`: it delegates no roles, only (with `impersonation`) who one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectId>,
    /// Which roles at most. What the trustor has no more, the trust has no more.
    #[serde(default)]
    pub roles: BTreeSet<RoleId>,
    /// Whether the trustee acts as the trustor, or as itself with these roles.
    #[serde(default)]
    pub impersonation: bool,
    /// How often it can still be used to log in; `None`: any number of times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_uses: Option<u32>,
    /// How often it can be handed on: 0 not at all, 1 by the trustee, and so on.
    #[serde(default)]
    pub redelegation_count: u32,
    /// The trust that was handed on by this one: it can do no more than that and ends with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redelegated_from: Option<TrustId>,
    /// The application credential with which it was made: as with `redelegated_from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialId>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// That a bearer token was taken back before its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revoked {
    /// When the token would have ended: then this record can go.
    pub until: Timestamp,
}
