//! How much a project or a domain may use, and how much it does.
//!
//! ```text
//! Quotas::load ─> Quotas {defaults, domain's ledger, project's ledger} ─ charge(amounts) ─> Txn part ─┐
//!                                                       └─ give_back(amounts) ─> Txn part ─┴─> the resource's own commit
//! ```
//!
//! One ledger per project, and one per domain that has limits, at `quotas/{id}`. A part of a commit writes the ledgers under guards on what was
//! read, so what is used and what there is change together or not at all; who loses against another reads anew and asks again.
//!
//! A project's limit is its own, else the one that its domain gives each project, else the default, else none. A domain's limit is
//! on the sum over its projects.

mod amounts;
mod ledger;

use std::fmt;

use skyloom_model::{ProjectId, Reason};
use skyloom_store::{DynBackend, Error, ErrorKind, Guard, Key, Result, Txn, Value, Versioned};

use crate::DomainId;

pub use amounts::{Amounts, BadResource, Limit, Limits, ResourceName};
pub use ledger::{Correction, Drift, Ledger, Owner, Slot};

/// The resources that a cloud counts, to begin with. Products count others too.
pub const COUNTED: [&str; 13] = [
    "servers",
    "vcpus",
    "memory_mib",
    "volumes",
    "volume_gib",
    "snapshots",
    "images",
    "ports",
    "keypairs",
    "networks",
    "subnets",
    "security_groups",
    "security_group_rules",
];

/// A charge that does not fit: what was tried, and what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    /// Whose limit.
    pub owner: Owner,
    /// Of what.
    pub resource: ResourceName,
    /// The limit.
    pub limit: u64,
    /// What is used now.
    pub used: u64,
    /// What was asked for on top.
    pub asked: u64,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (owner, resource) = (self.owner.noun(), &self.resource);
        let (limit, used, asked) = (self.limit, self.used, self.asked);
        write!(
            f,
            "the {owner}'s quota of {resource} is {limit}, {used} used, {asked} asked for"
        )
    }
}

/// Why a charge is refused.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    /// It does not fit. Each limit that is in the way, never none.
    #[error("{}", all(.0))]
    Exceeded(Vec<Exceeded>),
    /// The part of the commit could not be made.
    #[error("the ledger cannot be written")]
    Store(#[from] Error),
}

fn all(exceeded: &[Exceeded]) -> String {
    let texts: Vec<String> = exceeded.iter().map(Exceeded::to_string).collect();
    texts.join("; ")
}

impl QuotaError {
    /// For whoever asked.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Exceeded(_) => Reason::new("quota.exceeded", self.to_string())
                .hint("delete what is not needed, or ask for a higher limit"),
            Self::Store(error) => {
                let reason = Reason::new("quota.unavailable", self.to_string());
                if error.may_pass() {
                    reason.retryable()
                } else {
                    reason
                }
            }
        }
    }
}

/// What is used of a resource, and how much of it there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Of what.
    pub resource: ResourceName,
    /// The limit; `None`: there is none.
    pub limit: Option<u64>,
    /// What is used.
    pub used: u64,
}

/// The ledgers that a project's resources are charged to, as they were read.
#[derive(Debug, Clone)]
pub struct Quotas {
    /// What holds where nothing else is said.
    pub defaults: Limits,
    /// The domain's ledger.
    pub domain: Slot,
    /// The project's ledger.
    pub project: Slot,
}

impl Quotas {
    /// Reads the ledgers of a project.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn load(
        backend: &DynBackend,
        defaults: Limits,
        domain: DomainId,
        project: ProjectId,
    ) -> Result<Self> {
        Ok(Self {
            defaults,
            domain: Slot::load(backend, Owner::Domain(domain)).await?,
            project: Slot::load(backend, Owner::Project(project)).await?,
        })
    }

    /// The limit of the project.
    #[must_use]
    pub fn limit(&self, resource: &ResourceName) -> Limit {
        let own = self.project.ledger().and_then(|l| l.limits.get(resource));
        let of_domain = || self.domain.ledger().and_then(|l| l.each_project.get(resource));
        own.or_else(of_domain)
            .or_else(|| self.defaults.get(resource))
            .unwrap_or(Limit::Unlimited)
    }

    /// What the project uses of all that is limited or used, by name.
    #[must_use]
    pub fn usage(&self) -> Vec<Usage> {
        let ledgers = [&self.project, &self.domain].map(Slot::ledger);
        let mut names: Vec<ResourceName> = self.defaults.names().cloned().collect();
        names.extend(
            ledgers[0]
                .iter()
                .flat_map(|l| l.limits.names().chain(l.used.names()).cloned()),
        );
        names.extend(ledgers[1].iter().flat_map(|l| l.each_project.names().cloned()));
        names.sort();
        names.dedup();
        let usage = |resource: ResourceName| Usage {
            limit: self.limit(&resource).most(),
            used: self.project.used(&resource),
            resource,
        };
        names.into_iter().map(usage).collect()
    }

    /// What is in the way of `amounts`: nothing, if they fit.
    #[must_use]
    pub fn exceeded(&self, amounts: &Amounts) -> Vec<Exceeded> {
        let mut all = Vec::new();
        for (resource, asked) in amounts.iter().filter(|(_, asked)| *asked > 0) {
            let of_domain = self.domain.ledger().and_then(|l| l.limits.get(resource));
            let limits = [
                (&self.project, self.limit(resource)),
                (&self.domain, of_domain.unwrap_or(Limit::Unlimited)),
            ];
            for (slot, limit) in limits {
                let used = slot.used(resource);
                let most = limit.most().unwrap_or(u64::MAX);
                if used.checked_add(asked).is_none_or(|sum| sum > most) {
                    all.push(Exceeded {
                        owner: slot.owner(),
                        resource: resource.clone(),
                        limit: most,
                        used,
                        asked,
                    });
                }
            }
        }
        all
    }

    /// The part of a commit that charges `amounts`, all of them or none.
    ///
    /// # Errors
    /// [`QuotaError::Exceeded`] with each limit that is in the way.
    pub fn charge(&self, amounts: &Amounts) -> std::result::Result<Txn, QuotaError> {
        let exceeded = self.exceeded(amounts);
        if !exceeded.is_empty() {
            return Err(QuotaError::Exceeded(exceeded));
        }
        let mut add = |used: &mut Amounts| used.add(amounts);
        Ok(self.write(&mut add)?)
    }

    /// The part of a commit that gives `amounts` back, and where less was in use than is given back: nothing goes below zero,
    /// and whoever commits reports it.
    ///
    /// # Errors
    /// Those of encoding.
    pub fn give_back(&self, amounts: &Amounts) -> Result<(Txn, Vec<Drift>)> {
        let mut drift = Vec::new();
        for slot in [&self.project, &self.domain] {
            if slot.counts() {
                drift.extend(slot.short_of(amounts));
            }
        }
        let mut take = |used: &mut Amounts| used.take(amounts);
        Ok((self.write(&mut take)?, drift))
    }

    /// Both ledgers changed, or for a domain without limits the guard that it still has none.
    fn write(&self, change: &mut dyn FnMut(&mut Amounts)) -> Result<Txn> {
        let mut txn = Txn::new();
        for slot in [&self.project, &self.domain] {
            if !slot.counts() {
                txn = txn.guard(slot.unchanged());
                continue;
            }
            let mut ledger = slot.ledger().cloned().unwrap_or_default();
            change(&mut ledger.used);
            txn = txn.and(slot.put(&ledger)?);
        }
        Ok(txn)
    }
}

/// Below it all ledgers lie.
pub const LEDGERS: &str = "quotas";

/// Where a ledger lies.
#[must_use]
pub fn ledger_path(owner: Owner) -> String {
    format!("{LEDGERS}/{}", owner.id())
}

fn key(owner: Owner) -> Result<Key> {
    Key::parse(&ledger_path(owner))
        .map_err(|e| Error::new(ErrorKind::Internal, "make the key of a ledger").because(e))
}

impl Slot {
    /// Reads one ledger.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn load(backend: &DynBackend, owner: Owner) -> Result<Self> {
        let key = key(owner)?;
        let found = backend.get(&key).await?;
        let ledger = found.as_ref().map(Versioned::decode).transpose()?;
        Ok(Self::new(owner, key, ledger))
    }

    fn unchanged(&self) -> Guard {
        match &self.versioned {
            Some(ledger) => ledger.unchanged(),
            None => Guard::Absent(self.key.clone()),
        }
    }

    /// The part of a commit that makes the ledger this one.
    fn put(&self, ledger: &Ledger) -> Result<Txn> {
        let value = Value::json(ledger)?;
        Ok(Txn::new().guard(self.unchanged()).put(self.key.clone(), value))
    }

    /// The part of a commit that sets limits. Those below what is used stop what comes, not what is there.
    ///
    /// A domain's ledger is kept from its first limit on: recount it then.
    ///
    /// # Errors
    /// Those of encoding.
    pub fn set_limits(&self, limits: Limits, each_project: Limits) -> Result<Txn> {
        let mut ledger = self.ledger().cloned().unwrap_or_default();
        ledger.limits = limits;
        ledger.each_project = each_project;
        self.put(&ledger)
    }

    /// What `actual` says against what is written; and the part of a commit that makes it so.
    ///
    /// # Errors
    /// Those of encoding.
    pub fn correct(&self, actual: &Amounts) -> Result<(Txn, Vec<Correction>)> {
        let corrections = self.recount(actual);
        if corrections.is_empty() {
            return Ok((Txn::new().guard(self.unchanged()), corrections));
        }
        let mut ledger = self.ledger().cloned().unwrap_or_default();
        ledger.used = actual.clone();
        Ok((self.put(&ledger)?, corrections))
    }
}
