//! What a project uses, charged and given back in the commits of its resources.
//!
//! ```text
//! create ─ Change::charge ──> turn of the project ─> Quotas::load ─> charge ─┐
//! delete ─ Change::give_back ────────────────────────────────> give back ─┴─> the same commit as the resource
//! end of a task (flows) ─ give back ──> the commit that removes the record
//! recount, once a day ──> ledgers that are not what there is: put right, and told; then those of hosts
//! ```
//!
//! A project's ledger is one record, so its creates go one after another: in one process they wait for their turns, between
//! processes the store lets one through and the others ask again.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use skyloom_identity::{
    Amounts, Correction, DomainId, LEDGERS, Limits, Owner, QuotaError, Quotas, Slot, Usage,
};
use skyloom_model::{
    Image, Keypair, Network, Port, Project, ProjectId, Resource as _, Scope, SecurityGroup, Server, Snapshot,
    Subnet, Volume, paths,
};
use skyloom_store::Txn;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::Cloud;
use super::audit::Told;
use crate::preview::QuotaUse;
use crate::{Caller, CloudError, ErrorKind, Result, amounts};

/// What counting takes.
const RECOUNT: &str = "quota:recount";
/// Time between two counts.
const PERIOD: Duration = Duration::from_secs(24 * 3600);
/// Tries of one count before others are left to it.
const TRIES: usize = 16;

/// What a change takes of the quota, or gives back.
#[derive(Debug, Clone)]
pub(crate) enum Quota {
    Charge(Amounts),
    GiveBack(Amounts),
}

/// One turn after another, for each project.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<BTreeMap<ProjectId, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    async fn of(&self, project: ProjectId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock();
            let known = turns.get(&project).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                turns.retain(|_, turn| turn.strong_count() > 0);
                let turn = Arc::new(tokio::sync::Mutex::new(()));
                turns.insert(project, Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }
}

/// A part of a commit, and the turn in which it is to be made.
pub(crate) struct Charged {
    pub(crate) txn: Txn,
    _turn: OwnedMutexGuard<()>,
}

impl Cloud {
    /// With other limits where neither a project nor its domain says something.
    #[must_use]
    pub fn with_default_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    async fn quotas(&self, domain: DomainId, project: ProjectId) -> Result<Quotas> {
        Ok(Quotas::load(&self.parts.backend, self.limits.clone(), domain, project).await?)
    }

    /// The part of a commit that charges or gives back what is of the caller's project.
    pub(super) async fn charged(&self, caller: &Caller, quota: &Quota) -> Result<Charged> {
        let turn = self.turns.of(caller.project).await;
        let quotas = self.quotas(caller.lineage.domain, caller.project).await?;
        let txn = match quota {
            Quota::Charge(amounts) => quotas.charge(amounts).map_err(refused)?,
            Quota::GiveBack(amounts) => {
                let (txn, drift) = quotas.give_back(amounts)?;
                for drift in drift {
                    tracing::warn!(?drift, "more is given back than was in use");
                }
                txn
            }
        };
        Ok(Charged { txn, _turn: turn })
    }

    /// What a charge would make of the caller's quota: refused as the charge would be.
    pub(super) async fn would_charge(&self, caller: &Caller, quota: &Quota) -> Result<Vec<QuotaUse>> {
        let Quota::Charge(asked) = quota else {
            return Ok(Vec::new());
        };
        let quotas = self.quotas(caller.lineage.domain, caller.project).await?;
        quotas.charge(asked).map_err(refused)?;
        Ok(asked
            .iter()
            .map(|(resource, asked)| QuotaUse {
                resource: resource.to_string(),
                used: quotas.project.used(resource),
                asked,
                limit: quotas.limit(resource).most(),
            })
            .collect())
    }

    /// What the caller's project uses of all that is limited or used.
    ///
    /// # Errors
    /// `auth.forbidden`, and those of the store.
    pub async fn quota_usage(&self, caller: &Caller) -> Result<Vec<Usage>> {
        caller.may_here("quota:read")?;
        Ok(self.quotas(caller.lineage.domain, caller.project).await?.usage())
    }

    /// Counts once a day, until `shutdown`.
    pub(super) async fn recount_daily(&self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            match self.recount(None).await {
                Ok(corrections) if corrections.is_empty() => tracing::debug!("all quotas are as counted"),
                Ok(corrections) => tracing::warn!(?corrections, "quotas were not what there is: put right"),
                Err(error) => tracing::warn!(%error, "quotas cannot be counted now"),
            }
            match self.recount_claims(None).await {
                Ok(corrections) if corrections.is_empty() => {
                    tracing::debug!("all ledgers of hosts are as counted")
                }
                Ok(corrections) => tracing::warn!(
                    ?corrections,
                    "ledgers of hosts were not what is claimed: put right"
                ),
                Err(error) => tracing::warn!(%error, "claims on hosts cannot be counted now"),
            }
        }
    }

    /// Counts what all projects have, and puts right what is written otherwise. An operator's call; the audit has each ledger that
    /// was corrected.
    ///
    /// # Errors
    /// `auth.forbidden`, and those of the store.
    pub async fn recount_quotas(&self, caller: &Caller) -> Result<Vec<Correction>> {
        caller.may_in_cloud(RECOUNT)?;
        self.recount(Some(caller)).await
    }

    async fn recount(&self, caller: Option<&Caller>) -> Result<Vec<Correction>> {
        let projects = self.everything::<Project>(&paths::kind(Project::KIND)).await?;
        let mut all = Vec::new();
        let mut by_domain: BTreeMap<DomainId, Vec<ProjectId>> = BTreeMap::new();
        for project in projects {
            let id = project.value.id();
            let domain = DomainId::from_uuid(project.value.spec.domain);
            by_domain.entry(domain).or_default().push(id);
            all.extend(self.put_right(caller, Owner::Project(id), &[id]).await?);
        }
        for (domain, projects) in by_domain {
            let slot = Slot::load(&self.parts.backend, Owner::Domain(domain)).await?;
            if slot.ledger().is_some_and(|ledger| ledger.counts_for_domain()) {
                all.extend(self.put_right(caller, Owner::Domain(domain), &projects).await?);
            }
        }
        Ok(all)
    }

    /// Makes one ledger what its projects have. Whoever changes what there is writes the ledger too, so if it is unchanged
    /// after counting, what was counted is still so.
    async fn put_right(
        &self,
        caller: Option<&Caller>,
        owner: Owner,
        projects: &[ProjectId],
    ) -> Result<Vec<Correction>> {
        for _ in 0..TRIES {
            let slot = Slot::load(&self.parts.backend, owner).await?;
            let mut actual = Amounts::new();
            for project in projects {
                actual = actual.plus(&self.count(*project).await?);
            }
            let (txn, corrections) = slot.correct(&actual)?;
            if corrections.is_empty() {
                return Ok(corrections);
            }
            let told = match caller {
                Some(caller) => {
                    let told = Told::nameless(RECOUNT, Some(owner.id()), Scope::System);
                    self.audited(caller, told, None)?
                }
                None => Txn::new(),
            };
            if self.commit(txn.and(told)).await? {
                return Ok(corrections);
            }
        }
        Err(CloudError::contended())
    }

    /// What a project has.
    async fn count(&self, project: ProjectId) -> Result<Amounts> {
        let scope = Scope::Project(project);
        let mut sum = Amounts::new();
        for server in self
            .everything::<Server>(&paths::scoped(Server::KIND, scope))
            .await?
        {
            sum = sum.plus(&amounts::of_server(&server.value));
        }
        let ports = self.everything::<Port>(&paths::scoped(Port::KIND, scope)).await?;
        sum = sum.plus(&amounts::of_ports(ports.len()));
        for _ in self
            .everything::<Network>(&paths::scoped(Network::KIND, scope))
            .await?
        {
            sum = sum.plus(&amounts::of_network());
        }
        for _ in self
            .everything::<Subnet>(&paths::scoped(Subnet::KIND, scope))
            .await?
        {
            sum = sum.plus(&amounts::of_subnet());
        }
        for group in self
            .everything::<SecurityGroup>(&paths::scoped(SecurityGroup::KIND, scope))
            .await?
        {
            sum = sum.plus(&amounts::of_security_group(group.value.spec.rules.len()));
        }
        for _ in self
            .everything::<Image>(&paths::scoped(Image::KIND, scope))
            .await?
        {
            sum = sum.plus(&amounts::of_image());
        }
        for volume in self
            .everything::<Volume>(&paths::scoped(Volume::KIND, scope))
            .await?
        {
            sum = sum.plus(&amounts::of_volume(volume.value.spec.size_gib));
        }
        for _ in self
            .everything::<Snapshot>(&paths::scoped(Snapshot::KIND, scope))
            .await?
        {
            sum = sum.plus(&amounts::of_snapshot());
        }
        for _ in self
            .everything::<Keypair>(&paths::scoped(Keypair::KIND, scope))
            .await?
        {
            sum = sum.plus(&amounts::of_keypair());
        }
        Ok(sum)
    }
}

/// Whether a key is of a ledger: it changes with everything that its project makes, and no plan is out of date for it.
pub(super) fn is_ledger(key: &skyloom_store::Key) -> bool {
    key.segments().next() == Some(LEDGERS)
}

fn refused(error: QuotaError) -> CloudError {
    let kind = match &error {
        QuotaError::Exceeded(_) => ErrorKind::Conflict,
        QuotaError::Store(_) => ErrorKind::Unavailable,
    };
    CloudError::new(kind, error.reason())
}
