//! What a decision is about: who, and what.

use std::collections::BTreeMap;

use skyloom_model::ProjectId;

use super::registry::{PermissionSet, Registry};
use super::{PolicyError, role};
use crate::{DomainId, Principal, UserId};

/// Where an object lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// In the cloud itself, for who runs it: hosts, domains as a whole.
    System,
    /// In the cloud itself, for all to see: flavors, public images, kinds, the catalog, roles of the cloud.
    Shared,
    /// In a domain: users, groups, its own record.
    Domain(DomainId),
    /// In a project: servers, and the project's own record.
    Project {
        /// Which.
        id: ProjectId,
        /// Of which domain.
        domain: DomainId,
        /// The projects above it, nearest first or in any order.
        ancestors: &'a [ProjectId],
    },
}

/// What something is to be done to. Borrowed, so that asking costs nothing.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    /// Its kind, as in permissions: `server`.
    pub kind: &'a str,
    /// Where it lies, or would lie.
    pub place: Place<'a>,
    /// Whose it is, where it is a person's.
    pub owner: Option<UserId>,
    /// Its labels.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// Whether it is all of a kind in a place (to list, to create in): that such a thing exists is no secret to who is there.
    pub collection: bool,
}

impl<'a> Object<'a> {
    /// One thing.
    #[must_use]
    pub const fn one(kind: &'a str, place: Place<'a>) -> Self {
        Self {
            kind,
            place,
            owner: None,
            labels: None,
            collection: false,
        }
    }
    /// All of a kind in a place.
    #[must_use]
    pub const fn all(kind: &'a str, place: Place<'a>) -> Self {
        Self {
            collection: true,
            ..Self::one(kind, place)
        }
    }
    /// The same of an owner.
    #[must_use]
    pub const fn owned_by(mut self, owner: UserId) -> Self {
        self.owner = Some(owner);
        self
    }
    /// The same with labels.
    #[must_use]
    pub const fn labelled(mut self, labels: &'a BTreeMap<String, String>) -> Self {
        self.labels = Some(labels);
        self
    }
}

/// To what the access rules of an application credential narrow its bearer, beside what the user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Narrowed(PermissionSet);

impl Narrowed {
    /// To what these patterns cover, written as in roles.
    ///
    /// # Errors
    /// As [`Registry::matching`]; none at all is refused too, for it would allow nothing.
    pub fn to(registry: &Registry, patterns: &[String]) -> Result<Self, PolicyError> {
        let rule = role::RuleSpec {
            allow: patterns.to_vec(),
            when: role::When::default(),
        };
        rule.compile(registry).map(Self)
    }

    /// To nothing.
    #[must_use]
    pub fn to_nothing() -> Self {
        Self(PermissionSet::default())
    }

    /// What is left.
    #[must_use]
    pub const fn permissions(&self) -> &PermissionSet {
        &self.0
    }
}

/// Who asks: a principal, and how far its credential reaches.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// Who it is.
    pub principal: &'a Principal,
    /// The access rules of the credential, if it has some.
    pub narrowed: Option<&'a Narrowed>,
}

impl<'a> From<&'a Principal> for Who<'a> {
    fn from(principal: &'a Principal) -> Self {
        Self {
            principal,
            narrowed: None,
        }
    }
}

impl<'a> Who<'a> {
    /// The same with access rules.
    #[must_use]
    pub const fn narrowed(mut self, to: &'a Narrowed) -> Self {
        self.narrowed = Some(to);
        self
    }
}
