//! What could be changed so that a server fits, and which changes are the fewest.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use skyloom_model::HostId;

use super::demand::{Demand, GroupRule};
use super::machine::{Class, Closed, Feature};
use super::query::Lack;
use super::report::NAMED;

/// Changes that together make the server fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PlacementCounterfactual))]
pub struct Counterfactual {
    /// All of these.
    pub changes: Vec<Change>,
    /// How many hosts need just such changes, if not by the same numbers.
    pub hosts: u64,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PlacementChange))]
pub enum Change {
    /// Require this no more.
    Drop {
        /// What.
        feature: Feature,
    },
    /// Forbid this no more.
    Allow {
        /// What.
        feature: Feature,
    },
    /// Leave out a rule of a group.
    Leave {
        /// The rule.
        rule: GroupRule,
    },
    /// Ask for less.
    Shrink {
        /// Of what.
        class: Class,
        /// The most that fits.
        to: u32,
    },
    /// Do not insist on a kept host.
    Share,
    /// Do not insist on certain hosts. An operator's.
    Anywhere,
    /// Exclude this host no more. An operator's.
    Include {
        /// Which.
        host: HostId,
    },
    /// Open this host. An operator's.
    Open {
        /// Which.
        host: HostId,
        /// What it is now.
        state: Closed,
    },
    /// Keep this host for the tenant too. An operator's.
    Admit {
        /// Which.
        host: HostId,
    },
}

impl Change {
    /// What would cure `lack` of `host`; `None` when nobody knows.
    pub(super) fn of(lack: &Lack, demand: &Demand, host: HostId) -> Option<Self> {
        Some(match lack {
            Lack::Closed { state } => Self::Open { host, state: *state },
            Lack::NotAsked => Self::Anywhere,
            Lack::Excluded => Self::Include { host },
            Lack::Kept if demand.tenant.is_none() => return None,
            Lack::Kept => Self::Admit { host },
            Lack::Shared => Self::Share,
            Lack::Missing { feature } => Self::Drop {
                feature: feature.clone(),
            },
            Lack::Forbidden { feature } => Self::Allow {
                feature: feature.clone(),
            },
            Lack::Group { rule } => Self::Leave { rule: rule.clone() },
            Lack::Short { have: 0, .. } | Lack::Own { .. } => return None,
            Lack::Short { class, have, .. } => Self::Shrink {
                class: *class,
                to: *have,
            },
        })
    }

    /// Whether the tenant can make it.
    #[must_use]
    pub fn is_tenants(&self) -> bool {
        !matches!(
            self,
            Self::Anywhere | Self::Include { .. } | Self::Open { .. } | Self::Admit { .. }
        )
    }

    /// What it is, without a host's name: for tenants.
    #[must_use]
    pub fn classed(&self) -> String {
        match self {
            Self::Include { .. } => "exclude fewer hosts".to_owned(),
            Self::Open { state, .. } => match state {
                Closed::Disabled | Closed::Maintenance => format!("open a host that is {}", state.name()),
                Closed::Unreachable | Closed::Unreported => {
                    format!("look after a host that is {}", state.name())
                }
            },
            Self::Admit { .. } => "keep a host for this tenant too".to_owned(),
            other => other.to_string(),
        }
    }

    /// Makes the change in a demand; `false` when it is one of the host.
    pub fn apply(&self, demand: &mut Demand) -> bool {
        match self {
            Self::Drop { feature } => demand.required.remove(feature),
            Self::Allow { feature } => demand.forbidden.remove(feature),
            Self::Leave { rule } => {
                demand.rules.retain(|r| r != rule);
                true
            }
            Self::Shrink { class, to } => {
                demand.amounts = demand.amounts.with(*class, *to);
                true
            }
            Self::Share => std::mem::replace(&mut demand.dedicated, false),
            Self::Anywhere => demand.only.take().is_some(),
            Self::Include { host } => demand.exclude.remove(host),
            Self::Open { .. } | Self::Admit { .. } => false,
        }
    }

    /// The same for all hosts that need just such a change.
    fn shape(&self) -> String {
        match self {
            Self::Shrink { class, .. } => format!("shrink {class}"),
            Self::Include { .. } => "include".to_owned(),
            Self::Open { state, .. } => format!("open {}", state.name()),
            Self::Admit { .. } => "admit".to_owned(),
            other => format!("{other:?}"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop { feature } => write!(f, "require {feature} no more"),
            Self::Allow { feature } => write!(f, "forbid {feature} no more"),
            Self::Leave { rule } => write!(f, "leave out the rule of group {}", rule.group),
            Self::Shrink { class, to } => write!(f, "ask for at most {to} {class}"),
            Self::Share => f.write_str("take a host that is for everyone"),
            Self::Anywhere => f.write_str("ask for no certain host"),
            Self::Include { host } => write!(f, "exclude host {host} no more"),
            Self::Open { host, state } => write!(f, "open host {host}, which is {}", state.name()),
            Self::Admit { host } => write!(f, "keep host {host} for this tenant too"),
        }
    }
}

/// The fewest changes seen so far, by shape.
#[derive(Default)]
pub(super) struct Fewest {
    length: usize,
    found: BTreeMap<Vec<String>, (u64, u64, Vec<Change>)>,
}

impl Fewest {
    /// `far` is how much less would be asked for: of equal shapes the nearest host is told.
    pub(super) fn offer(&mut self, changes: Vec<Change>, far: u64) {
        if self.found.is_empty() || changes.len() < self.length {
            self.found.clear();
            self.length = changes.len();
        }
        if changes.len() > self.length {
            return;
        }
        let shape = changes.iter().map(Change::shape).collect();
        let best = self
            .found
            .entry(shape)
            .or_insert_with(|| (0, u64::MAX, Vec::new()));
        best.0 += 1;
        if far < best.1 {
            (best.1, best.2) = (far, changes);
        }
    }
    pub(super) fn told(self) -> Vec<Counterfactual> {
        let each = self
            .found
            .into_values()
            .map(|(hosts, _, changes)| Counterfactual { changes, hosts });
        let mut all: Vec<Counterfactual> = each.collect();
        all.sort_by_key(|c| std::cmp::Reverse(c.hosts));
        all.truncate(NAMED);
        all
    }
}

/// How much the host is short of, in thousandths of what is needed.
pub(super) fn far(lacks: &[Lack]) -> u64 {
    let short = |lack: &Lack| match lack {
        Lack::Short { need, have, .. } => u64::from(need - have) * 1_000 / u64::from(*need),
        _ => 0,
    };
    lacks.iter().map(short).sum()
}
