//! The records of identity, as they lie in the store (the table of paths is in RFD 9).
//!
//! All are read tolerantly: fields that a record does not have take their defaults, those that this build does not know are passed over.
//! `deleting` marks what is on its way out: nothing new may refer to it, and it counts for nothing.

mod catalog;
mod credential;
mod name;
mod people;
mod role;
mod token;

use skyloom_model::Id;

pub use catalog::{Endpoint, Interface, Region, Service};
pub use credential::{
    AccessRule, ApplicationCredential, Credential, CredentialKind, Ec2Key, Password, Revoked, SecondFactor,
    Trust,
};
pub(crate) use name::sha256_hex;
pub use name::{MAX_TEXT_LEN, NameKind, NamePolicyError, check_name, fold_name, name_hash};
pub use people::{Domain, Group, Membership, User, UserKind, UserOptions};
pub use role::{Actor, BuiltIn, Grant, Implication, ParseError, Role, Target};
pub use token::{ApiToken, Holder};

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
/// Id of a service of the catalog.
pub type ServiceId = Id<Service>;
/// Id of an endpoint of the catalog.
pub type EndpointId = Id<Endpoint>;

/// The domain that is always there, and that records without a domain belong to.
pub const DEFAULT_DOMAIN: DomainId = Id::from_uuid(skyloom_model::DEFAULT_DOMAIN);

/// What new records have where nothing else is said.
pub(crate) const fn yes() -> bool {
    true
}

/// For fields that are left out when they are false.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
pub(crate) const fn is_false(value: &bool) -> bool {
    !*value
}
