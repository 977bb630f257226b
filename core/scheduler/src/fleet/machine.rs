//! A host as the index knows it: what it offers, what it is, whether it is open, and for whom.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use skyloom_model::{HostId, Name, Resources};

use crate::HostView;
use crate::inventory::times;

/// How many classes of resources there are: three that all hosts have and five for an operator's own.
pub const CLASSES: usize = 8;

/// A class of resources; in JSON its name: `vcpus`, `memory`, `disk`, `own-0` to `own-4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PlacementClass, value_type = String))]
pub struct Class(u8);

impl From<Class> for String {
    fn from(class: Class) -> Self {
        match class {
            Class::VCPUS => "vcpus".to_owned(),
            Class::MEMORY => "memory".to_owned(),
            Class::DISK => "disk".to_owned(),
            Class(own) => format!("own-{}", own - 3),
        }
    }
}

impl TryFrom<String> for Class {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        Self::all()
            .find(|class| String::from(*class) == name)
            .ok_or_else(|| format!("{name} is no class of resources"))
    }
}

impl Class {
    /// Virtual CPUs.
    pub const VCPUS: Self = Self(0);
    /// Memory in MiB.
    pub const MEMORY: Self = Self(1);
    /// Disk in GiB.
    pub const DISK: Self = Self(2);

    /// All, in their order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..CLASSES as u8).map(Self)
    }
    /// An operator's own class, such as graphics cards: 0 to 4.
    #[must_use]
    pub const fn custom(number: u8) -> Option<Self> {
        if number < CLASSES as u8 - 3 {
            Some(Self(number + 3))
        } else {
            None
        }
    }
    /// Its place in [`Amounts`].
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::VCPUS => f.write_str("vCPUs"),
            Self::MEMORY => f.write_str("MiB of memory"),
            Self::DISK => f.write_str("GiB of disk"),
            Self(custom) => write!(f, "of class {}", custom - 3),
        }
    }
}

/// How much of each class. Amounts are 32 bits wide, so that a host of the index is one line of a CPU's cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts(pub [u32; CLASSES]);

impl Amounts {
    /// As a server asks: what is too much to count is more than any host has.
    #[must_use]
    pub fn asked(resources: Resources) -> Self {
        let wide = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Self::default()
            .with(Class::VCPUS, resources.vcpus)
            .with(Class::MEMORY, wide(resources.memory_mib))
            .with(Class::DISK, wide(resources.disk_gib))
    }
    /// The same with another amount of a class.
    #[must_use]
    pub fn with(mut self, class: Class, amount: u32) -> Self {
        self.0[class.index()] = amount;
        self
    }
    /// How much of a class.
    #[must_use]
    pub fn of(&self, class: Class) -> u32 {
        self.0[class.index()]
    }
}

/// What a host is or has, and what a server can ask for or refuse.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PlacementFeature))]
pub enum Feature {
    /// CPU architecture.
    Architecture(String),
    /// Hypervisor.
    Hypervisor(String),
    /// Something that its hardware or hypervisor can do.
    Trait(String),
    /// A set of hosts that an operator made.
    Aggregate(String),
    /// A label: key and value. Zones and racks are labels.
    Label(String, String),
}

impl std::fmt::Display for Feature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Architecture(a) => write!(f, "architecture {a}"),
            Self::Hypervisor(h) => write!(f, "hypervisor {h}"),
            Self::Trait(t) => write!(f, "trait {t}"),
            Self::Aggregate(a) => write!(f, "aggregate {a}"),
            Self::Label(key, value) => write!(f, "label {key}={value}"),
        }
    }
}

/// Why a host takes no new servers at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PlacementClosed))]
pub enum Closed {
    /// The operator does not want new servers there.
    Disabled,
    /// It is being worked on.
    Maintenance,
    /// Its agent cannot be asked.
    Unreachable,
    /// Its agent has not reported yet.
    Unreported,
}

impl Closed {
    /// Its name, such as `disabled`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Maintenance => "maintenance",
            Self::Unreachable => "unreachable",
            Self::Unreported => "unreported",
        }
    }
}

/// A host.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// Which host.
    pub id: HostId,
    /// Its name.
    pub name: Name,
    /// What is really there.
    pub total: Amounts,
    /// Kept back for the host itself, before the ratios.
    pub reserved: Amounts,
    /// How often each class is given away. What is no positive number gives nothing away.
    pub ratios: [f64; CLASSES],
    /// Why it takes no servers; empty when it does.
    pub closed: BTreeSet<Closed>,
    /// What it is and has. Labels stand below, so that each has one value.
    pub features: BTreeSet<Feature>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The tenants that it is kept for; empty is for all.
    pub tenants: BTreeSet<String>,
}

impl Machine {
    /// An open host for everyone, without overcommit.
    #[must_use]
    pub fn new(id: HostId, name: Name, total: Amounts) -> Self {
        Self {
            id,
            name,
            total,
            reserved: Amounts::default(),
            ratios: [1.0; CLASSES],
            closed: BTreeSet::new(),
            features: BTreeSet::new(),
            labels: BTreeMap::new(),
            tenants: BTreeSet::new(),
        }
    }

    /// The host of an [`Inventory`](crate::Inventory), without its ledger: tell that to
    /// [`Fleet::observe`](super::Fleet::observe).
    #[must_use]
    pub fn of(view: &HostView) -> Self {
        let mut machine = Self::new(view.id, view.name.clone(), Amounts::default());
        let spec = &view.spec;
        if !spec.enabled || spec.fenced.is_some() {
            machine.closed.insert(Closed::Disabled);
        }
        if !view.reachable {
            machine.closed.insert(Closed::Unreachable);
        }
        machine.labels.clone_from(&view.labels);
        let Some(facts) = &view.facts else {
            machine.closed.insert(Closed::Unreported);
            return machine;
        };
        machine.total = Amounts::asked(view.believed());
        machine.reserved = Amounts::asked(spec.reserved);
        (machine.ratios[0], machine.ratios[1], machine.ratios[2]) =
            (spec.cpu_ratio, spec.memory_ratio, spec.disk_ratio);
        let own = [
            Feature::Architecture(facts.architecture.clone()),
            Feature::Hypervisor(facts.hypervisor.clone()),
        ];
        let traits = facts.traits.iter().map(|t| Feature::Trait(t.clone()));
        machine.features.extend(own.into_iter().chain(traits));
        machine
    }

    /// What servers may take in all: what is there, less the reserve, times the ratios, rounded down. Never so much that an
    /// amount too great to count would fit.
    #[must_use]
    pub fn offered(&self) -> Amounts {
        let mut offered = Amounts::default();
        for (i, amount) in offered.0.iter_mut().enumerate() {
            let real = self.total.0[i].saturating_sub(self.reserved.0[i]);
            let given = times(u64::from(real), self.ratios[i]);
            *amount = u32::try_from(given).unwrap_or(u32::MAX).min(u32::MAX - 1);
        }
        offered
    }

    /// Whether it is or has this.
    #[must_use]
    pub fn has(&self, feature: &Feature) -> bool {
        match feature {
            Feature::Label(key, value) => self.labels.get(key) == Some(value),
            other => self.features.contains(other),
        }
    }
    /// All that it is and has, labels too.
    pub(super) fn all_features(&self) -> impl Iterator<Item = Feature> {
        let labels = self
            .labels
            .iter()
            .map(|(key, value)| Feature::Label(key.clone(), value.clone()));
        let label = |feature: &&Feature| matches!(feature, Feature::Label(..));
        self.features
            .iter()
            .filter(move |feature| !label(feature))
            .cloned()
            .chain(labels)
    }
}
