//! Where each record of identity lies in the store. One table, so that keys are made in one place.
//!
//! | path | record |
//! | --- | --- |
//! | `identity/domains/{id}` | [`crate::Domain`] |
//! | `identity/users/{id}` | [`crate::User`] |
//! | `identity/groups/{id}` | [`crate::Group`] |
//! | `identity/roles/{id}` | [`crate::Role`] |
//! | `identity/members/{group}/{user}` | [`crate::Membership`] |
//! | `identity/grants/{target}/{actor}/{role}/{own or inherited}` | [`crate::Grant`] |
//! | `identity/implies/{prior}/{implied}` | [`crate::Implication`] |
//! | `identity/credentials/{user}/{id}` | [`crate::Credential`] |
//! | `identity/passwords/{user}` | [`crate::Password`] |
//! | `identity/trusts/{id}` | [`crate::Trust`] |
//! | `identity/regions/{hash of the id}` | [`crate::Region`]: its id is free text |
//! | `identity/services/{id}` | [`crate::Service`] |
//! | `identity/endpoints/{id}` | [`crate::Endpoint`] |
//! | `identity/names/{kind}/{owner}/{hash of the name}` | the id of the one that has the name; owner `-`, a domain or (credentials) a user |
//! | `identity/keys/{kid}` | a signing key, sealed |
//! | `identity/tokens/{id}` | [`crate::ApiToken`] |
//! | `identity/revoked/{token id}` | [`crate::Revoked`] |
//! | `identity/turns/implications` | a number that each new implication raises, so that two cannot make a circle |
//! | `identity/turns/keys` | the same for new signing keys, so that one process makes the next |
//! | `identity/pulse` | what is written to hear whether the store still answers and tells |
//! | `r/projects/-/{id}` | [`skyloom_model::Project`] |
//! | `names/projects/-/{hash of the name}` | the id of the project of the default domain that has the name (exact, as the cloud's own) |

use skyloom_model::{Project, ProjectId, Resource as _, Scope, TokenId};
use uuid::Uuid;

use crate::record::{name_hash, sha256_hex};
use crate::{
    Actor, CredentialId, DEFAULT_DOMAIN, DomainId, EndpointId, GroupId, NameKind, RoleId, ServiceId, Target,
    TrustId, UserId,
};

/// All records of identity, but for the projects.
pub const ROOT: &str = "identity";
/// All domains.
pub const DOMAINS: &str = "identity/domains";
/// All users.
pub const USERS: &str = "identity/users";
/// All groups.
pub const GROUPS: &str = "identity/groups";
/// All roles.
pub const ROLES: &str = "identity/roles";
/// All signing keys.
pub const KEYS: &str = "identity/keys";
/// All tokens that were taken back.
pub const REVOKED: &str = "identity/revoked";
/// What is written to hear whether the store still answers and tells.
pub const PULSE: &str = "identity/pulse";
/// What each new implication writes.
pub const IMPLICATION_TURN: &str = "identity/turns/implications";
/// What each new signing key writes.
pub const KEY_TURN: &str = "identity/turns/keys";
/// All projects.
pub const PROJECTS: &str = "r/projects";
/// The claims of the names of projects as the cloud makes them.
pub const CLOUD_PROJECT_NAMES: &str = "names/projects";

/// A domain.
#[must_use]
pub fn domain(id: DomainId) -> String {
    format!("{DOMAINS}/{id}")
}
/// A user.
#[must_use]
pub fn user(id: UserId) -> String {
    format!("{USERS}/{id}")
}
/// A group.
#[must_use]
pub fn group(id: GroupId) -> String {
    format!("{GROUPS}/{id}")
}
/// A role.
#[must_use]
pub fn role(id: RoleId) -> String {
    format!("{ROLES}/{id}")
}
/// That a user is in a group.
#[must_use]
pub fn member(group: GroupId, user: UserId) -> String {
    format!("identity/members/{group}/{user}")
}
/// A grant.
#[must_use]
pub fn grant(target: Target, actor: Actor, role: RoleId, inherited: bool) -> String {
    let how = if inherited { "inherited" } else { "own" };
    format!("identity/grants/{target}/{actor}/{role}/{how}")
}
/// That one role implies another.
#[must_use]
pub fn implication(prior: RoleId, implied: RoleId) -> String {
    format!("identity/implies/{prior}/{implied}")
}
/// A credential.
#[must_use]
pub fn credential(user: UserId, id: CredentialId) -> String {
    format!("identity/credentials/{user}/{id}")
}
/// A user's password.
#[must_use]
pub fn password(user: UserId) -> String {
    format!("identity/passwords/{user}")
}
/// A trust.
#[must_use]
pub fn trust(id: TrustId) -> String {
    format!("identity/trusts/{id}")
}
/// A region.
#[must_use]
pub fn region(id: &str) -> String {
    format!("identity/regions/{}", sha256_hex(id.as_bytes()))
}
/// A service.
#[must_use]
pub fn service(id: ServiceId) -> String {
    format!("identity/services/{id}")
}
/// An endpoint.
#[must_use]
pub fn endpoint(id: EndpointId) -> String {
    format!("identity/endpoints/{id}")
}
/// The claim of a name. `owner` is what it is unique in: `None` where that is everything.
#[must_use]
pub fn name(kind: NameKind, owner: Option<Uuid>, name: &str) -> String {
    let hash = name_hash(name);
    match owner {
        Some(owner) => format!("identity/names/{kind}/{owner}/{hash}"),
        None => format!("identity/names/{kind}/-/{hash}"),
    }
}
/// The claim of a project's name as the cloud makes it; in the default domain alone.
#[must_use]
pub fn cloud_project_name(domain: DomainId, name: &str) -> Option<String> {
    let claim = || skyloom_model::paths::name(Project::KIND, Scope::System, &sha256_hex(name.as_bytes()));
    (domain == DEFAULT_DOMAIN).then(claim)
}
/// A signing key.
#[must_use]
pub fn key(kid: &str) -> String {
    format!("{KEYS}/{kid}")
}
/// An API token.
#[must_use]
pub fn token(id: TokenId) -> String {
    format!("identity/tokens/{id}")
}
/// That a bearer token was taken back.
#[must_use]
pub fn revoked(token: Uuid) -> String {
    format!("{REVOKED}/{token}")
}
/// A project.
#[must_use]
pub fn project(id: ProjectId) -> String {
    skyloom_model::paths::resource(Project::KIND, Scope::System, id.uuid())
}
