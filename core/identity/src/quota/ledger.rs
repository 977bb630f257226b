//! The record of what a project or a domain uses, and counting anew.

use serde::{Deserialize, Serialize};
use skyloom_model::ProjectId;
use skyloom_store::{Key, Versioned};
use uuid::Uuid;

use super::amounts::{Amounts, Limits, ResourceName};
use crate::DomainId;

/// Whose ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", content = "id")]
pub enum Owner {
    /// A project's.
    Project(ProjectId),
    /// A domain's: the sum over its projects.
    Domain(DomainId),
}

impl Owner {
    /// `project` or `domain`.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Project(_) => "project",
            Self::Domain(_) => "domain",
        }
    }
    /// Its id.
    #[must_use]
    pub const fn id(self) -> Uuid {
        match self {
            Self::Project(id) => id.uuid(),
            Self::Domain(id) => id.uuid(),
        }
    }
}

/// The record at `quotas/{id}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// What is used.
    #[serde(default)]
    pub used: Amounts,
    /// Limits of its own.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// A domain's: the limits of each of its projects that has none of its own.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub each_project: Limits,
}

impl Ledger {
    /// Less of each, never below 0.
    pub fn give_back(&mut self, amounts: &Amounts) {
        self.used.take(amounts);
    }

    /// Whether what is used is kept in the ledger of a domain: from its first limit on.
    #[must_use]
    pub fn counts_for_domain(&self) -> bool {
        !self.limits.is_empty()
    }
}

/// The place of a ledger, and what was read there.
#[derive(Debug, Clone)]
pub struct Slot {
    owner: Owner,
    pub(super) key: Key,
    pub(super) versioned: Option<Versioned<Ledger>>,
}

/// More was given back than was in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// In whose ledger.
    pub owner: Owner,
    /// Of what.
    pub resource: ResourceName,
    /// What was in use by the ledger.
    pub used: u64,
    /// What was given back.
    pub given_back: u64,
}

/// What counting anew found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    /// In whose ledger.
    pub owner: Owner,
    /// Of what.
    pub resource: ResourceName,
    /// What was written.
    pub was: u64,
    /// What there is.
    pub is: u64,
}

impl Slot {
    pub(super) fn new(owner: Owner, key: Key, versioned: Option<Versioned<Ledger>>) -> Self {
        Self {
            owner,
            key,
            versioned,
        }
    }

    /// Whose it is.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// What was read; `None`: there is none yet.
    #[must_use]
    pub fn ledger(&self) -> Option<&Ledger> {
        self.versioned.as_ref().map(|v| &v.value)
    }

    /// What is used of a resource.
    #[must_use]
    pub fn used(&self, resource: &ResourceName) -> u64 {
        self.ledger().map_or(0, |l| l.used.of(resource))
    }

    /// Whether what is used is kept here: always for a project, for a domain when it has limits.
    pub(super) fn counts(&self) -> bool {
        matches!(self.owner, Owner::Project(_)) || self.ledger().is_some_and(Ledger::counts_for_domain)
    }

    pub(super) fn short_of(&self, amounts: &Amounts) -> Vec<Drift> {
        let short = amounts.iter().filter(|(name, amount)| self.used(name) < *amount);
        short
            .map(|(name, amount)| Drift {
                owner: self.owner,
                resource: name.clone(),
                used: self.used(name),
                given_back: amount,
            })
            .collect()
    }

    /// Where the ledger differs from what there is, by name.
    #[must_use]
    pub fn recount(&self, actual: &Amounts) -> Vec<Correction> {
        let written = self.ledger().map(|l| &l.used);
        let mut names: Vec<&ResourceName> = actual.names().collect();
        names.extend(written.into_iter().flat_map(Amounts::names));
        names.sort();
        names.dedup();
        names
            .into_iter()
            .filter(|name| self.used(name) != actual.of(name))
            .map(|name| Correction {
                owner: self.owner,
                resource: name.clone(),
                was: self.used(name),
                is: actual.of(name),
            })
            .collect()
    }
}
