//! A demand against hosts: as bits, for the index, and in full, for the scan and for explanations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skyloom_model::HostId;

use super::demand::{Demand, GroupRule, Stand, Topology};
use super::machine::{Amounts, Class, Closed, Feature, Machine};
use super::state::{Fleet, KEPT, all_closed};
use super::tree::{BITS, Bits, Summary};

/// Where the members of a rule's group are, by host or by value of a label.
#[derive(Debug, Clone)]
pub(super) struct Places<'a> {
    rule: &'a GroupRule,
    hosts: &'a BTreeMap<HostId, u32>,
    values: BTreeMap<String, u32>,
}

static NOBODY: BTreeMap<HostId, u32> = BTreeMap::new();

impl Places<'_> {
    fn members(&self, machine: &Machine) -> Option<u32> {
        match &self.rule.topology {
            Topology::Host => Some(self.hosts.get(&machine.id).copied().unwrap_or(0)),
            Topology::Label(key) => machine
                .labels
                .get(key)
                .map(|value| self.values.get(value).copied().unwrap_or(0)),
        }
    }
    /// Whether the rule is kept there.
    fn kept(&self, machine: &Machine) -> bool {
        match self.rule.stand {
            Stand::Apart { most } => self.members(machine).unwrap_or(0) < most,
            Stand::Together => self.hosts.is_empty() || self.members(machine).unwrap_or(0) > 0,
        }
    }
    /// How well the host suits, 0 to 1.
    pub(super) fn fit(&self, machine: &Machine) -> f64 {
        match self.rule.stand {
            Stand::Apart { .. } => 1.0 / (1.0 + f64::from(self.members(machine).unwrap_or(0))),
            Stand::Together => f64::from(u8::from(self.kept(machine))),
        }
    }
}

impl Fleet {
    /// Where the members of the groups of a demand's rules are.
    pub(super) fn places<'a>(&'a self, demand: &'a Demand) -> Vec<Places<'a>> {
        let of = |rule: &'a GroupRule| {
            let hosts = self
                .groups
                .get(rule.group.as_str())
                .map_or(&NOBODY, |group| &group.members);
            let mut values = BTreeMap::new();
            if let Topology::Label(key) = &rule.topology {
                for (host, members) in hosts {
                    if let Some(value) = self.get(*host).and_then(|machine| machine.labels.get(key)) {
                        *values.entry(value.clone()).or_default() += members;
                    }
                }
            }
            Places { rule, hosts, values }
        };
        demand.rules.iter().map(of).collect()
    }
}

/// A demand as the index asks it.
#[derive(Debug)]
pub(super) struct Query {
    need: Amounts,
    all: Bits,
    none: Bits,
    rare_all: Vec<Feature>,
    rare_none: Vec<Feature>,
    /// One of each of these.
    one_of: Vec<Vec<Feature>>,
    /// The tenant's bit; `Err(true)`: it has none but may be known by name.
    tenant: Result<u32, bool>,
    /// The only hosts to look at, in order.
    pub(super) within: Option<Vec<u32>>,
    /// Hosts that are out, in order.
    avoid: Vec<u32>,
}

impl Query {
    /// `None` when no host can fit.
    pub(super) fn new(fleet: &Fleet, demand: &Demand, places: &[Places<'_>]) -> Option<Self> {
        let tenant = demand.tenant.as_ref().and_then(|tenant| fleet.tenant(tenant));
        let mut query = Self {
            need: demand.amounts,
            all: Bits::default(),
            none: all_closed(),
            rare_all: Vec::new(),
            rare_none: Vec::new(),
            one_of: Vec::new(),
            tenant: match tenant {
                Some(bit) if bit < BITS => Ok(bit),
                rare => Err(rare.is_some()),
            },
            within: demand.only.as_ref().map(|only| sorted(fleet, only)),
            avoid: sorted(fleet, &demand.exclude),
        };
        if demand.dedicated {
            query.all.set(KEPT);
        }
        for feature in &demand.required {
            query.require(fleet, feature)?;
        }
        for feature in &demand.forbidden {
            query.forbid(fleet, feature);
        }
        for places in places.iter().filter(|places| places.rule.hard) {
            query.keep(fleet, places)?;
        }
        query.avoid.sort_unstable();
        Some(query)
    }

    fn require(&mut self, fleet: &Fleet, feature: &Feature) -> Option<()> {
        match fleet.feature(feature)? {
            bit if bit < BITS => self.all.set(bit),
            _ => self.rare_all.push(feature.clone()),
        }
        Some(())
    }
    fn forbid(&mut self, fleet: &Fleet, feature: &Feature) {
        match fleet.feature(feature) {
            Some(bit) if bit < BITS => self.none.set(bit),
            Some(_) => self.rare_none.push(feature.clone()),
            None => {}
        }
    }

    /// Turns a hard rule into hosts to leave out or to look at, and into features to require or to forbid.
    fn keep(&mut self, fleet: &Fleet, places: &Places<'_>) -> Option<()> {
        match (places.rule.stand, &places.rule.topology) {
            (Stand::Apart { most: 0 }, _) => return None,
            (Stand::Apart { most }, Topology::Host) => {
                let full = places.hosts.iter().filter(|(_, members)| **members >= most);
                self.avoid.extend(
                    full.filter_map(|(host, _)| fleet.position(*host))
                        .map(|at| at as u32),
                );
            }
            (Stand::Apart { most }, Topology::Label(key)) => {
                for (value, _) in places.values.iter().filter(|(_, members)| **members >= most) {
                    self.forbid(fleet, &Feature::Label(key.clone(), value.clone()));
                }
            }
            (Stand::Together, _) if places.hosts.is_empty() => {}
            (Stand::Together, Topology::Host) => {
                let mut near = sorted(fleet, places.hosts.keys());
                if let Some(within) = &self.within {
                    near.retain(|at| within.binary_search(at).is_ok());
                }
                self.within = Some(near);
            }
            (Stand::Together, Topology::Label(key)) => {
                let near = places
                    .values
                    .keys()
                    .map(|value| Feature::Label(key.clone(), value.clone()));
                match near.collect::<Vec<_>>().as_slice() {
                    [] => return None,
                    [one] => self.require(fleet, one)?,
                    some => self.one_of.push(some.to_vec()),
                }
            }
        }
        Some(())
    }

    /// Whether a host below may fit.
    pub(super) fn may(&self, sum: &Summary) -> bool {
        let enough = sum.most.iter().zip(&self.need.0).all(|(most, need)| most >= need);
        let kept = match self.tenant {
            _ if !sum.each.has(KEPT) => true,
            Ok(bit) => sum.some.has(bit),
            Err(rare) => rare,
        };
        enough && sum.some.has_all(&self.all) && !sum.each.has_any(&self.none) && kept
    }

    /// Whether a host fits.
    pub(super) fn admits(&self, fleet: &Fleet, demand: &Demand, at: usize) -> bool {
        let leaf = fleet.tree.leaf(at);
        let enough = leaf
            .free
            .iter()
            .zip(&self.need.0)
            .all(|(free, need)| free >= need);
        if !(enough && leaf.bits.has_all(&self.all) && !leaf.bits.has_any(&self.none)) {
            return false;
        }
        let machine = || &fleet.seats[at].machine;
        let kept = match self.tenant {
            _ if !leaf.bits.has(KEPT) => true,
            Ok(bit) => leaf.bits.has(bit),
            Err(rare) => {
                rare && demand
                    .tenant
                    .as_ref()
                    .is_some_and(|tenant| machine().tenants.contains(tenant))
            }
        };
        kept && self.avoid.binary_search(&(at as u32)).is_err()
            && self.rare_all.iter().all(|feature| machine().has(feature))
            && !self.rare_none.iter().any(|feature| machine().has(feature))
            && self
                .one_of
                .iter()
                .all(|some| some.iter().any(|feature| machine().has(feature)))
    }
}

/// What the index alone says of a host.
pub(super) enum Glance {
    /// It can take the server.
    Fits,
    /// It is short of this first; whether that is all that it lacks.
    Short(Lack, bool),
    /// It lacks what hosts of the same bits lack; whether it is short of something too.
    Same(Bits, bool),
    /// It takes a look at the host itself.
    Unclear,
}

impl Query {
    /// What the index says of a host, as [`Fleet::misses`] would.
    pub(super) fn glance(&self, fleet: &Fleet, at: usize) -> Glance {
        let leaf = fleet.tree.leaf(at);
        let known = self.within.is_none()
            && self.rare_all.is_empty()
            && self.rare_none.is_empty()
            && self.one_of.is_empty()
            && !leaf.bits.has(KEPT)
            && self.avoid.binary_search(&(at as u32)).is_err();
        if !known {
            return Glance::Unclear;
        }
        let mut short = Class::all().filter(|class| leaf.free[class.index()] < self.need.of(*class));
        if !leaf.bits.has_all(&self.all) || leaf.bits.has_any(&self.none) {
            let asked = self.all.or(&self.none);
            return Glance::Same(leaf.bits.and(&asked), short.next().is_some());
        }
        match short.next() {
            None => Glance::Fits,
            Some(class) => {
                let (need, have) = (self.need.of(class), leaf.free[class.index()]);
                Glance::Short(Lack::Short { class, need, have }, short.next().is_none())
            }
        }
    }
}

fn sorted<'a>(fleet: &Fleet, hosts: impl IntoIterator<Item = &'a HostId>) -> Vec<u32> {
    let mut all: Vec<u32> = hosts
        .into_iter()
        .filter_map(|host| fleet.position(*host))
        .map(|at| at as u32)
        .collect();
    all.sort_unstable();
    all
}

/// A condition that a host does not fulfil.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PlacementLack))]
pub enum Lack {
    /// It takes no servers.
    Closed {
        /// Why.
        state: Closed,
    },
    /// It is none of the hosts that were asked for.
    NotAsked,
    /// It is excluded.
    Excluded,
    /// It is kept for other tenants.
    Kept,
    /// It is for everyone.
    Shared,
    /// It has not what is required.
    Missing {
        /// What.
        feature: Feature,
    },
    /// It has what is forbidden.
    Forbidden {
        /// What.
        feature: Feature,
    },
    /// It is against a rule of a group.
    Group {
        /// The rule.
        rule: GroupRule,
    },
    /// There is too little of a class.
    Short {
        /// The class.
        class: Class,
        /// What is needed.
        need: u32,
        /// What is left.
        have: u32,
    },
    /// A filter of the policy refuses it.
    Own {
        /// The filter.
        filter: String,
        /// What it says.
        text: String,
    },
}

impl Fleet {
    /// All that keeps a host from taking a server, apart from the policy's own filters. Looks at the host itself, not at the index.
    pub(super) fn misses(&self, demand: &Demand, places: &[Places<'_>], at: usize) -> Vec<Lack> {
        let seat = &self.seats[at];
        let machine = &seat.machine;
        let mut lacks: Vec<Lack> = Vec::new();
        if demand
            .only
            .as_ref()
            .is_some_and(|only| !only.contains(&machine.id))
        {
            lacks.push(Lack::NotAsked);
        }
        lacks.extend(machine.closed.iter().map(|state| Lack::Closed { state: *state }));
        if demand.exclude.contains(&machine.id) {
            lacks.push(Lack::Excluded);
        }
        let mine = demand
            .tenant
            .as_ref()
            .is_some_and(|tenant| machine.tenants.contains(tenant));
        if !machine.tenants.is_empty() && !mine {
            lacks.push(Lack::Kept);
        }
        if demand.dedicated && machine.tenants.is_empty() {
            lacks.push(Lack::Shared);
        }
        let missing = demand.required.iter().filter(|feature| !machine.has(feature));
        lacks.extend(missing.map(|f| Lack::Missing { feature: f.clone() }));
        let refused = demand.forbidden.iter().filter(|feature| machine.has(feature));
        lacks.extend(refused.map(|f| Lack::Forbidden { feature: f.clone() }));
        let broken = places
            .iter()
            .filter(|places| places.rule.hard && !places.kept(machine));
        lacks.extend(broken.map(|places| Lack::Group {
            rule: places.rule.clone(),
        }));
        let offered = machine.offered();
        for class in Class::all() {
            let left = u64::from(offered.of(class)).saturating_sub(seat.used[class.index()]);
            let (need, have) = (demand.amounts.of(class), u32::try_from(left).unwrap_or(u32::MAX));
            if need > have {
                lacks.push(Lack::Short { class, need, have });
            }
        }
        lacks
    }
}
