//! The hosts as the scheduler sees them: small, shared, replaced one by one as their records change.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::fleet::{Fleet, Machine};
use skyloom_model::{Host, HostFacts, HostId, HostLedger, HostSpec, Name, Resources};

/// One host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostView {
    /// Which host.
    pub id: HostId,
    /// Its name.
    pub name: Name,
    /// What the operator wants of it.
    pub spec: HostSpec,
    /// Whether its agent can be asked: it holds its lease, and its certificate has not expired.
    pub reachable: bool,
    /// What its agent reports.
    pub facts: Option<HostFacts>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The sum of its claims.
    pub ledger: HostLedger,
    /// Revision of `ledger`, as the store counts.
    pub ledger_revision: u64,
}

impl HostView {
    /// The host of a record, with its ledger.
    #[must_use]
    pub fn of(host: &Host, ledger: HostLedger, ledger_revision: u64) -> Self {
        Self {
            id: HostId::from_uuid(host.meta.id),
            name: host.meta.name.clone(),
            spec: host.spec.clone(),
            reachable: host.status.reachable && !host.status.certificate_expired,
            facts: host.status.facts.clone(),
            labels: host.meta.labels.clone(),
            ledger,
            ledger_revision,
        }
    }

    /// Whether it is the same host, apart from its ledger.
    fn is_same(&self, other: &Self) -> bool {
        (&self.name, &self.spec, self.reachable, &self.facts, &self.labels)
            == (
                &other.name,
                &other.spec,
                other.reachable,
                &other.facts,
                &other.labels,
            )
    }

    /// What is there: the facts, cut at the operator's limit.
    pub(crate) fn believed(&self) -> Resources {
        let mut real = self.facts.as_ref().map(|f| f.capacity).unwrap_or_default();
        if let Some(limit) = self.spec.limit {
            real.vcpus = real.vcpus.min(limit.vcpus);
            real.memory_mib = real.memory_mib.min(limit.memory_mib);
            real.disk_gib = real.disk_gib.min(limit.disk_gib);
        }
        real
    }

    /// What servers may take in all: the facts, cut at the operator's limit, less the reserve, times the ratios,
    /// rounded down. Nothing while the agent has not reported.
    #[must_use]
    pub fn effective(&self) -> Resources {
        let real = self.believed().minus(self.spec.reserved);
        Resources {
            vcpus: u32::try_from(times(u64::from(real.vcpus), self.spec.cpu_ratio)).unwrap_or(u32::MAX),
            memory_mib: times(real.memory_mib, self.spec.memory_ratio),
            disk_gib: times(real.disk_gib, self.spec.disk_ratio),
        }
    }

    /// What is left for further servers.
    #[must_use]
    pub fn free(&self) -> Resources {
        self.effective().minus(self.ledger.used)
    }
}

/// `amount` times `ratio`, rounded down. A ratio that is no positive number offers nothing.
pub(crate) fn times(amount: u64, ratio: f64) -> u64 {
    if ratio == 1.0 {
        return amount;
    }
    if !ratio.is_finite() || ratio <= 0.0 {
        return 0;
    }
    // The cast saturates.
    (amount as f64 * ratio).floor() as u64
}

/// All hosts, indexed. Cloning shares the hosts, not the index.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    hosts: BTreeMap<HostId, Arc<HostView>>,
    fleet: Fleet,
    revision: u64,
    grown: u64,
}

impl Inventory {
    /// No hosts yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds or replaces a host.
    pub fn insert(&mut self, host: HostView) {
        self.extend([host]);
    }
    /// Removes a host.
    pub fn remove(&mut self, host: HostId) {
        if self.hosts.remove(&host).is_some() {
            self.fleet.observe(host, &HostLedger::default());
            // It is empty now, so it goes.
            let _ = self.fleet.remove(host);
        }
    }
    /// Counts what may have made room for somebody: hosts that came or are others than before, and ledgers with less in them.
    #[must_use]
    pub fn grown(&self) -> u64 {
        self.grown
    }
    /// Replaces a host's ledger, and says whether the host is known.
    pub fn set_ledger(&mut self, host: HostId, ledger: HostLedger, revision: u64) -> bool {
        let Some(view) = self.hosts.get_mut(&host) else {
            return false;
        };
        self.fleet.observe(host, &ledger);
        let view = Arc::make_mut(view);
        self.grown += u64::from(has_less(&ledger, &view.ledger));
        view.ledger = ledger;
        view.ledger_revision = revision;
        true
    }
    /// The index of the hosts.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }
    /// One host.
    #[must_use]
    pub fn get(&self, host: HostId) -> Option<&Arc<HostView>> {
        self.hosts.get(&host)
    }
    /// All hosts in id order.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<HostView>> {
        self.hosts.values()
    }
    /// How many hosts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hosts.len()
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }
    /// The store's revision up to which it is true.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }
    /// Sets the revision up to which it is true.
    pub fn set_revision(&mut self, revision: u64) {
        self.revision = revision;
    }
}

impl Extend<HostView> for Inventory {
    /// Adds or replaces hosts. Several new ones cost one rebuild of the index.
    fn extend<T: IntoIterator<Item = HostView>>(&mut self, hosts: T) {
        let hosts: Vec<Arc<HostView>> = hosts.into_iter().map(Arc::new).collect();
        let changed = |host: &&Arc<HostView>| self.hosts.get(&host.id).is_none_or(|old| !old.is_same(host));
        let machines: Vec<Machine> = hosts.iter().filter(changed).map(|h| Machine::of(h)).collect();
        self.grown += machines.len() as u64;
        self.fleet.upsert(machines);
        for host in hosts {
            self.fleet.observe(host.id, &host.ledger);
            let before = self.hosts.insert(host.id, host.clone());
            let less = before.is_some_and(|before| has_less(&host.ledger, &before.ledger));
            self.grown += u64::from(less);
        }
    }
}

/// Whether something that stands in the ledger of before is not in this one.
fn has_less(now: &HostLedger, before: &HostLedger) -> bool {
    let fewer = |(group, members): (&String, &u32)| now.groups.get(group).copied().unwrap_or(0) < *members;
    now.used.vcpus < before.used.vcpus
        || now.used.memory_mib < before.used.memory_mib
        || now.used.disk_gib < before.used.disk_gib
        || before.groups.iter().any(fewer)
}

impl FromIterator<HostView> for Inventory {
    fn from_iter<T: IntoIterator<Item = HostView>>(hosts: T) -> Self {
        let mut inventory = Self::new();
        inventory.extend(hosts);
        inventory
    }
}
