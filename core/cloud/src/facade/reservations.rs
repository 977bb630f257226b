//! What is claimed of hosts, against the ledgers that say how much of each is taken.
//!
//! ```text
//! ledgers, then claims and volumes ──> the sum for each host ──> ledgers that say something else: put right, and told
//! ```
//!
//! Whoever claims or gives back writes the ledger in the same commit, so if it is unchanged after the count, what was counted is
//! still so. By the rules of the engine all are right; whoever edits the store by hand or restores half of a backup is answered here.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use skyloom_model::{Claim, Host, HostId, HostLedger, Reason, Resource as _, Scope, Volume, paths};
use skyloom_store::{Document, ListOptions, Versioned};

use super::Cloud;
use super::audit::Told;
use super::records::{create, prefix};
use crate::{Caller, CloudError, ErrorKind, LedgerCorrection, Result};

/// What counting takes.
const RECOUNT: &str = "host:recount";
/// Tries of one count before others are left to it.
const TRIES: usize = 16;

impl Cloud {
    /// Counts what is claimed of all hosts, and puts right the ledgers that say something else; a dry run only says which those are. An
    /// operator's call; the audit has each ledger that was corrected.
    ///
    /// # Errors
    /// `auth.forbidden`; `record.undecodable` when a claim or a volume cannot be read: what it takes is not known, and nothing is changed;
    /// those of the store.
    pub async fn recount_hosts(&self, caller: &Caller) -> Result<Vec<LedgerCorrection>> {
        caller.may_in_cloud(RECOUNT)?;
        self.recount_claims(Some(caller)).await
    }

    pub(super) async fn recount_claims(&self, caller: Option<&Caller>) -> Result<Vec<LedgerCorrection>> {
        let mut all = Vec::new();
        for _ in 0..TRIES {
            if self.count_claims(caller, &mut all).await? {
                return Ok(all);
            }
        }
        Err(CloudError::contended())
    }

    /// Counts once: whether nobody changed a wrong ledger meanwhile.
    async fn count_claims(&self, caller: Option<&Caller>, done: &mut Vec<LedgerCorrection>) -> Result<bool> {
        let written = self.decoded::<HostLedger>(paths::LEDGERS).await?;
        let written: BTreeMap<HostId, Versioned<HostLedger>> = written
            .into_iter()
            .filter_map(|l| Some((host_of(&l)?, l)))
            .collect();
        let mut counted: BTreeMap<HostId, HostLedger> = BTreeMap::new();
        for claim in self.decoded::<Claim>(paths::CLAIMS).await? {
            if let Some(host) = host_of(&claim) {
                let ledger = counted.entry(host).or_default();
                *ledger = skyloom_scheduler::claim(ledger, &claim.value);
            }
        }
        for volume in self.decoded::<Volume>(&paths::kind(Volume::KIND)).await? {
            let status = &volume.value.status;
            if let Some(host) = status.host.filter(|_| status.reserved_gib > 0) {
                let ledger = counted.entry(host).or_default();
                *ledger = ledger.with_volumes(status.reserved_gib);
            }
        }
        let hosts: BTreeSet<HostId> = written.keys().chain(counted.keys()).copied().collect();
        let mut alone = true;
        for host in hosts {
            let (before, actual) = (written.get(&host), counted.remove(&host).unwrap_or_default());
            let was = before.map(|before| before.value.clone()).unwrap_or_default();
            if was == actual {
                continue;
            }
            let dry = caller.is_some_and(|caller| caller.dry_run);
            let mut txn = match before {
                Some(before) => before.replace(&actual)?,
                None => create(&paths::ledger(host), &actual)?,
            };
            if let Some(caller) = caller {
                let told = Told::nameless(RECOUNT, Some(host.uuid()), Scope::System);
                txn = txn.and(self.audited(caller, told, None)?);
            }
            if dry || self.commit(txn).await? {
                let record = self.resource::<Host>(Scope::System, host.uuid()).await?;
                let name = record.map(|record| record.value.meta.name);
                let found = differences(&was, &actual).into_iter();
                done.extend(found.map(|(resource, was, is)| LedgerCorrection {
                    host,
                    name: name.clone(),
                    resource,
                    was,
                    is,
                }));
            } else {
                alone = false;
            }
        }
        Ok(alone)
    }

    /// All documents below a path, in pages. One that cannot be decoded is an error.
    async fn decoded<T: Document + DeserializeOwned>(&self, below: &str) -> Result<Vec<Versioned<T>>> {
        let below = prefix(below)?;
        let mut all = Vec::new();
        let mut options = ListOptions::default();
        loop {
            let page = self.parts.backend.list(&below, options).await?;
            for kv in &page.items {
                let found = Versioned::decode(kv).map_err(|_| {
                    let message = format!("{} cannot be read, so what it takes is not known", kv.key);
                    let hint = "`skyloom store check` names all records that cannot be read";
                    CloudError::new(
                        ErrorKind::Conflict,
                        Reason::new("record.undecodable", message).hint(hint),
                    )
                })?;
                all.push(found);
            }
            match page.items.last().filter(|_| page.more) {
                Some(last) => options = ListOptions::default().with_after(last.key.clone()),
                None => return Ok(all),
            }
        }
    }
}

/// `ledgers/{host}` and `claims/{host}/{server}` both name the host.
fn host_of<T>(found: &Versioned<T>) -> Option<HostId> {
    found.key.segments().nth(1)?.parse().ok()
}

/// What two ledgers say differently: what, as written, as counted.
fn differences(was: &HostLedger, is: &HostLedger) -> Vec<(String, u64, u64)> {
    let numbers = |ledger: &HostLedger| {
        let plain = [
            ("servers", u64::from(ledger.servers)),
            ("vcpus", u64::from(ledger.used.vcpus)),
            ("memory_mib", ledger.used.memory_mib),
            ("disk_gib", ledger.used.disk_gib),
            ("volume_gib", ledger.volume_gib),
        ];
        let plain = plain.map(|(name, number)| (name.to_owned(), number));
        let groups = ledger.groups.iter();
        let groups = groups.map(|(group, members)| (format!("group {group}"), u64::from(*members)));
        plain.into_iter().chain(groups).collect::<BTreeMap<String, u64>>()
    };
    let (was, is) = (numbers(was), numbers(is));
    let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let of = |numbers: &BTreeMap<String, u64>, name| numbers.get(name).copied().unwrap_or_default();
    let both = names
        .into_iter()
        .map(|name| (name.clone(), of(&was, name), of(&is, name)));
    both.filter(|(_, was, is)| was != is).collect()
}
