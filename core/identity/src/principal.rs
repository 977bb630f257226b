//! Who calls, as far as it has been proven.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skyloom_model::{HostId, ProjectId, Timestamp, TokenId};
use uuid::Uuid;

use crate::{CredentialId, DomainId, RoleId, TrustId, UserId};

/// Where a principal's roles count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", content = "id")]
pub enum AuthScope {
    /// The cloud itself: hosts, flavors, all domains.
    System,
    /// A domain: its users, groups and projects.
    Domain(DomainId),
    /// A project and what is in it.
    Project(ProjectId),
    /// None: it is proven who calls, and they may ask which scopes they could choose.
    None,
}

/// One way in which somebody proved who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// A password.
    Password,
    /// A one-time code of a second factor.
    Totp,
    /// An application credential's secret.
    ApplicationCredential,
    /// A bearer token that was given before.
    Token,
    /// An API token.
    ApiToken,
    /// A signature with an EC2 key.
    Ec2,
    /// An identity provider in front.
    External,
    /// A client certificate.
    Certificate,
}

/// On what a principal's rights rest beside the user: gone with that, and never more than that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Via {
    /// Nothing else.
    User,
    /// An application credential.
    ApplicationCredential {
        /// Which.
        id: CredentialId,
    },
    /// An API token.
    ApiToken {
        /// Which.
        id: TokenId,
    },
    /// A delegation.
    Trust {
        /// Which.
        id: TrustId,
        /// Who acts for the user that the principal names.
        trustee: UserId,
    },
    /// A host's certificate.
    Host {
        /// Which host.
        id: HostId,
    },
}

/// Somebody who has proven who they are. Valid for one call: what it rests on may be taken away before the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Principal {
    /// The user, or service account. With a trust that impersonates: the trustor.
    pub user: UserId,
    /// The user's domain.
    pub domain: DomainId,
    /// Where its roles count.
    pub scope: AuthScope,
    /// Effective roles there, with what they imply.
    pub roles: Arc<BTreeSet<RoleId>>,
    /// What else it rests on.
    pub via: Via,
    /// How it was proven.
    pub methods: Vec<Method>,
    /// When it must be proven anew.
    pub until: Option<Timestamp>,
    /// The id of the bearer token, and those of the tokens that it was made from, newest first. For the audit.
    pub audit_ids: Vec<Uuid>,
}
