//! What a server asks of the hosts.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use skyloom_model::{HostId, ServerId};

use super::machine::{Amounts, Feature};
use crate::Request;

/// What a server asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// Which server.
    pub server: ServerId,
    /// Whose; hosts that are kept for tenants take only theirs.
    pub tenant: Option<String>,
    /// Whether only a host will do that is kept for tenants, this one among them.
    pub dedicated: bool,
    /// How much.
    pub amounts: Amounts,
    /// What the host must have: all of these.
    pub required: BTreeSet<Feature>,
    /// What the host must not have: none of these.
    pub forbidden: BTreeSet<Feature>,
    /// The groups that the server will be a member of.
    pub joins: BTreeSet<String>,
    /// How it wants to stand to the members of groups.
    pub rules: Vec<GroupRule>,
    /// The only hosts that will do (a hint of an operator).
    pub only: Option<BTreeSet<HostId>>,
    /// Hosts that will not do.
    pub exclude: BTreeSet<HostId>,
}

/// How a server wants to stand to the members of a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GroupRule {
    /// The group.
    pub group: String,
    /// Near to them or away from them.
    pub stand: Stand,
    /// What counts as one place.
    pub topology: Topology,
    /// Whether no host at all is better than one against the rule. A soft rule is a preference.
    pub hard: bool,
}

/// Near or away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PlacementStand))]
pub enum Stand {
    /// Where a member is already. The first member goes anywhere.
    Together,
    /// Where fewer than `most` members are: 1 keeps all apart, more spreads them. A soft rule wants the fewest.
    Apart {
        /// The most members of one place, with this one.
        most: u32,
    },
}

/// What counts as one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PlacementTopology))]
pub enum Topology {
    /// A host.
    Host,
    /// All hosts with the same value of this label. A host without it is near to nobody.
    Label(String),
}

impl Demand {
    /// A demand for amounts, anywhere.
    #[must_use]
    pub fn new(server: ServerId, amounts: Amounts) -> Self {
        Self {
            server,
            tenant: None,
            dedicated: false,
            amounts,
            required: BTreeSet::new(),
            forbidden: BTreeSet::new(),
            joins: BTreeSet::new(),
            rules: Vec::new(),
            only: None,
            exclude: BTreeSet::new(),
        }
    }

    /// Makes the server a member of a group whose members stand on different hosts.
    #[must_use]
    pub fn apart(mut self, group: &str) -> Self {
        self.joins.insert(group.to_owned());
        self.rules.push(GroupRule {
            group: group.to_owned(),
            stand: Stand::Apart { most: 1 },
            topology: Topology::Host,
            hard: true,
        });
        self
    }

    /// The same question as a [`Request`] asks of an [`Inventory`](crate::Inventory).
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let mut demand = Self::new(request.server, Amounts::asked(request.resources));
        demand
            .required
            .insert(Feature::Architecture(request.architecture.clone()));
        let hypervisor = request.hypervisor.iter().map(|h| Feature::Hypervisor(h.clone()));
        let traits = request.traits.iter().map(|t| Feature::Trait(t.clone()));
        let labels = request
            .labels
            .iter()
            .map(|(k, v)| Feature::Label(k.clone(), v.clone()));
        demand.required.extend(hypervisor.chain(traits).chain(labels));
        demand.only = request.only.map(|only| BTreeSet::from([only]));
        demand.exclude.clone_from(&request.exclude);
        match &request.anti_affinity_group {
            Some(group) => demand.apart(group),
            None => demand,
        }
    }
}
