//! The fleet: hosts, what is taken of them, who is near whom. Every change is a handful of nodes of the tree.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use skyloom_model::{HostId, HostLedger, ServerId};

use super::choose::Offer;
use super::demand::Demand;
use super::machine::{Amounts, CLASSES, Closed, Feature, Machine};
use super::tree::{BITS, Bits, Leaf, Tree};

/// The bit of hosts that are kept for tenants; the bits before it are those of [`Closed`].
pub(super) const KEPT: u32 = 4;
/// The first bit of features.
const FIRST: u32 = KEPT + 1;

/// A host and what is taken of it.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) machine: Machine,
    pub(super) used: [u64; CLASSES],
    servers: u32,
    version: u64,
    bits: Bits,
    /// The groups that [`Fleet::observe`] has seen here.
    observed: BTreeMap<String, u32>,
}

/// What a server has taken.
#[derive(Debug, Clone)]
struct Held {
    host: HostId,
    amounts: Amounts,
    groups: Box<[Arc<str>]>,
}

/// Where the members of a group are.
#[derive(Debug, Clone)]
pub(super) struct Group {
    name: Arc<str>,
    pub(super) members: BTreeMap<HostId, u32>,
    version: u64,
}

/// Many hosts, indexed. Hosts stand in the order of their ids, so that the same hosts give the same answers whatever the order
/// in which they came.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    pub(super) seats: Vec<Seat>,
    pub(super) offered: Vec<Amounts>,
    pub(super) tree: Tree,
    positions: HashMap<HostId, u32>,
    features: HashMap<Feature, u32>,
    tenants: HashMap<String, u32>,
    pub(super) groups: HashMap<Arc<str>, Group>,
    held: HashMap<ServerId, Held>,
    changes: u64,
}

/// An offer that no longer holds: decide again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// The host has changed, or is gone.
    Host,
    /// A member of a group that the offer reckoned with has come or gone.
    Group,
    /// The server has a host already.
    Held,
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Host => "the host has changed since the decision",
            Self::Group => "a server group has changed since the decision",
            Self::Held => "the server has a host already",
        })
    }
}

impl std::error::Error for Conflict {}

/// Servers are on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupied {
    /// How many.
    pub servers: u32,
}

impl std::fmt::Display for Occupied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} servers are on the host", self.servers)
    }
}

impl std::error::Error for Occupied {}

impl Fleet {
    /// No hosts yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// How many hosts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seats.len()
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }
    /// How many servers have claimed.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.held.len()
    }
    /// The host of a server.
    #[must_use]
    pub fn host_of(&self, server: ServerId) -> Option<HostId> {
        self.held.get(&server).map(|held| held.host)
    }
    /// One host.
    #[must_use]
    pub fn get(&self, host: HostId) -> Option<&Machine> {
        self.position(host).map(|at| &self.seats[at].machine)
    }
    /// What is left of a host.
    #[must_use]
    pub fn free(&self, host: HostId) -> Option<Amounts> {
        self.position(host).map(|at| Amounts(self.tree.leaf(at).free))
    }
    /// What is taken of a host.
    #[must_use]
    pub fn used(&self, host: HostId) -> Option<[u64; CLASSES]> {
        self.position(host).map(|at| self.seats[at].used)
    }
    /// All hosts in the order of their ids.
    pub fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.seats.iter().map(|seat| &seat.machine)
    }
    /// Bytes that the index takes on top of the hosts themselves.
    #[must_use]
    pub fn index_bytes(&self) -> usize {
        let positions = self.positions.capacity() * (size_of::<(HostId, u32)>() + 1);
        self.tree.bytes() + self.offered.capacity() * size_of::<Amounts>() + positions
    }

    pub(super) fn position(&self, host: HostId) -> Option<usize> {
        self.positions.get(&host).map(|at| *at as usize)
    }
    /// The number of a feature that some host has or had; below [`BITS`] it is a bit.
    pub(super) fn feature(&self, feature: &Feature) -> Option<u32> {
        self.features.get(feature).copied()
    }
    /// The number of a tenant that some host is or was kept for; below [`BITS`] it is a bit.
    pub(super) fn tenant(&self, tenant: &str) -> Option<u32> {
        self.tenants.get(tenant).copied()
    }

    /// Adds hosts, or replaces what they are; what is taken of them stays. Known hosts cost a few nodes each; new ones rebuild the
    /// index once for all of them.
    pub fn upsert(&mut self, machines: impl IntoIterator<Item = Machine>) {
        let mut fresh = BTreeMap::new();
        for machine in machines {
            match self.position(machine.id) {
                Some(at) => {
                    self.seats[at].machine = machine;
                    self.offered[at] = self.seats[at].machine.offered();
                    self.learn(at);
                    self.touch(at);
                }
                None => {
                    fresh.insert(machine.id, machine);
                }
            }
        }
        if fresh.is_empty() {
            return;
        }
        self.changes += 1;
        let seat = |machine| Seat {
            machine,
            used: [0; CLASSES],
            servers: 0,
            version: self.changes,
            bits: Bits::default(),
            observed: BTreeMap::new(),
        };
        let known = self.seats.len();
        self.seats.extend(fresh.into_values().map(seat));
        (known..self.seats.len()).for_each(|at| self.learn(at));
        self.rebuild();
    }

    /// Forgets a host.
    ///
    /// # Errors
    /// Servers are there.
    pub fn remove(&mut self, host: HostId) -> Result<(), Occupied> {
        let Some(at) = self.position(host) else {
            return Ok(());
        };
        match self.seats[at].servers {
            0 => {}
            servers => return Err(Occupied { servers }),
        }
        self.seats.remove(at);
        self.positions.remove(&host);
        self.changes += 1;
        self.rebuild();
        Ok(())
    }

    fn rebuild(&mut self) {
        self.seats.sort_by_key(|seat| seat.machine.id);
        self.offered = self.seats.iter().map(|seat| seat.machine.offered()).collect();
        self.positions = self
            .seats
            .iter()
            .zip(0..)
            .map(|(seat, at)| (seat.machine.id, at))
            .collect();
        self.tree = Tree::new((0..self.seats.len()).map(|at| self.leaf(at)).collect());
    }

    /// Finds the bits of what a host is, and gives bits to what it is the first to have.
    fn learn(&mut self, at: usize) {
        let machine = &self.seats[at].machine;
        let mut bits = Bits::default();
        for closed in &machine.closed {
            bits.set(closed_bit(*closed));
        }
        if !machine.tenants.is_empty() {
            bits.set(KEPT);
        }
        let mut next = FIRST + (self.features.len() + self.tenants.len()) as u32;
        let mut number = |known: &mut u32| {
            if *known == u32::MAX {
                *known = next;
                next += 1;
            }
            if *known < BITS {
                bits.set(*known);
            }
        };
        for feature in machine.all_features() {
            number(self.features.entry(feature).or_insert(u32::MAX));
        }
        for tenant in &machine.tenants {
            number(self.tenants.entry(tenant.clone()).or_insert(u32::MAX));
        }
        self.seats[at].bits = bits;
    }

    fn leaf(&self, at: usize) -> Leaf {
        let (seat, offered) = (&self.seats[at], &self.offered[at]);
        let mut leaf = Leaf {
            bits: seat.bits,
            ..Leaf::default()
        };
        for (class, free) in leaf.free.iter_mut().enumerate() {
            let used = u32::try_from(seat.used[class]).unwrap_or(u32::MAX);
            *free = offered.0[class].saturating_sub(used);
        }
        leaf
    }

    /// Something of a host has changed.
    fn touch(&mut self, at: usize) {
        self.changes += 1;
        self.seats[at].version = self.changes;
        let leaf = self.leaf(at);
        self.tree.set(at, leaf);
    }

    pub(super) fn version(&self, at: usize) -> u64 {
        self.seats[at].version
    }
    /// When the members of a group last changed; 0 when it has none.
    pub(super) fn group_version(&self, group: &str) -> u64 {
        self.groups.get(group).map_or(0, |group| group.version)
    }

    /// Takes what an offer says.
    ///
    /// # Errors
    /// The world has changed since the decision: decide again on the fresh view. Nothing is taken.
    pub fn claim(&mut self, demand: &Demand, offer: &Offer) -> Result<(), Conflict> {
        let at = self.position(offer.host).ok_or(Conflict::Host)?;
        if self.held.contains_key(&demand.server) || offer.server != demand.server {
            return Err(Conflict::Held);
        }
        if self.seats[at].version != offer.version {
            return Err(Conflict::Host);
        }
        let stale = |(rule, version): (&super::GroupRule, &u64)| self.group_version(&rule.group) != *version;
        if offer.groups.len() != demand.rules.len() || demand.rules.iter().zip(&offer.groups).any(stale) {
            return Err(Conflict::Group);
        }
        let groups = demand
            .joins
            .iter()
            .map(|name| self.join(name, offer.host, 1))
            .collect();
        let seat = &mut self.seats[at];
        for (used, asked) in seat.used.iter_mut().zip(demand.amounts.0) {
            *used += u64::from(asked);
        }
        seat.servers += 1;
        let held = Held {
            host: offer.host,
            amounts: demand.amounts,
            groups,
        };
        self.held.insert(demand.server, held);
        self.touch(at);
        Ok(())
    }

    /// Gives back what a server has taken; says from which host.
    pub fn release(&mut self, server: ServerId) -> Option<HostId> {
        let held = self.held.remove(&server)?;
        for group in &held.groups {
            self.leave(group, held.host, 1);
        }
        let at = self.position(held.host)?;
        let seat = &mut self.seats[at];
        for (used, given) in seat.used.iter_mut().zip(held.amounts.0) {
            *used = used.saturating_sub(u64::from(given));
        }
        seat.servers = seat.servers.saturating_sub(1);
        self.touch(at);
        Some(held.host)
    }

    /// Takes over a host's ledger as the store has it, for fleets that follow a store in place of claiming themselves.
    /// Says whether the host is known.
    pub fn observe(&mut self, host: HostId, ledger: &HostLedger) -> bool {
        let Some(at) = self.position(host) else {
            return false;
        };
        let seat = &mut self.seats[at];
        let used = ledger.used;
        seat.used = [0; CLASSES];
        (seat.used[0], seat.used[1], seat.used[2]) = (used.vcpus.into(), used.memory_mib, used.disk_gib);
        seat.servers = ledger.servers;
        let before = std::mem::replace(&mut seat.observed, ledger.groups.clone());
        if before != ledger.groups {
            for (group, members) in &before {
                self.leave(group, host, *members);
            }
            for (group, members) in ledger.groups.iter().filter(|(_, members)| **members > 0) {
                self.join(group, host, *members);
            }
        }
        self.touch(at);
        true
    }

    fn join(&mut self, name: &str, host: HostId, members: u32) -> Arc<str> {
        self.changes += 1;
        if !self.groups.contains_key(name) {
            let shared: Arc<str> = name.into();
            let group = Group {
                name: shared.clone(),
                members: BTreeMap::new(),
                version: 0,
            };
            self.groups.insert(shared, group);
        }
        let Some(group) = self.groups.get_mut(name) else {
            return name.into();
        };
        *group.members.entry(host).or_default() += members;
        group.version = self.changes;
        group.name.clone()
    }

    fn leave(&mut self, name: &str, host: HostId, members: u32) {
        self.changes += 1;
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        group.version = self.changes;
        if let Some(left) = group.members.get_mut(&host) {
            *left = left.saturating_sub(members);
            if *left == 0 {
                group.members.remove(&host);
            }
        }
        if group.members.is_empty() {
            self.groups.remove(name);
        }
    }

    /// The servers that have claimed, with their hosts and amounts, by id.
    pub(super) fn holders(&self) -> Vec<(ServerId, HostId, Amounts)> {
        let mut all: Vec<_> = self
            .held
            .iter()
            .map(|(id, held)| (*id, held.host, held.amounts))
            .collect();
        all.sort_by_key(|(id, ..)| *id);
        all
    }
}

pub(super) fn closed_bit(closed: Closed) -> u32 {
    match closed {
        Closed::Disabled => 0,
        Closed::Maintenance => 1,
        Closed::Unreachable => 2,
        Closed::Unreported => 3,
    }
}

/// The bits of all states in which a host takes nothing.
pub(super) fn all_closed() -> Bits {
    let mut bits = Bits::default();
    for bit in 0..KEPT {
        bits.set(bit);
    }
    bits
}
