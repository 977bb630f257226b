//! Why a server fits where it does, or nowhere, and the smallest changes that would make it fit.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};
use skyloom_model::{HostId, Name, ServerId};

use super::change::{Change, Counterfactual, Fewest, far};
use super::choose::View;
use super::demand::Demand;
use super::machine::{Amounts, Class};
use super::policy::Policy;
use super::query::{Lack, Places};
use super::state::Fleet;
use crate::ranking::Best;

/// How many hosts, and how many changes, a report names.
pub(super) const NAMED: usize = 8;

/// Why. Bounded: no list of hosts or changes is longer than eight, and there are no more reasons than what the server asks for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PlacementReport))]
pub struct Report {
    /// The hosts that were counted: all, unless one was chosen in a large fleet.
    pub considered: u64,
    /// The hosts that were not.
    #[serde(default, skip_serializing_if = "is_none")]
    pub uncounted: u64,
    /// Those of the counted that can take the server.
    pub fitting: u64,
    /// The other counted hosts by what they lack first; with `fitting` they add up to `considered`.
    pub fallen: Vec<Fallen>,
    /// The chosen host, when one fits. For operators.
    pub chosen: Option<Scored>,
    /// The others that were compared with it, best first. For operators.
    pub compared: Vec<Scored>,
    /// The hosts that lack least; of a kept choice one of each of the commonest kinds that fell. For operators.
    pub nearest: Vec<Refused>,
    /// The fewest changes of the request that make it fit; empty when it fits, or when no change of the request helps.
    pub for_tenant: Vec<Counterfactual>,
    /// The fewest changes that make it fit of which some are an operator's. For operators.
    pub for_operator: Vec<Counterfactual>,
}

fn is_none(hosts: &u64) -> bool {
    *hosts == 0
}

/// Hosts that fell for the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PlacementFallen))]
pub struct Fallen {
    /// What they lack, without a host's own numbers: `trait avx2 is missing`.
    pub reason: String,
    /// How many.
    pub hosts: u64,
    /// How many of them lack nothing else.
    pub alone: u64,
}

/// The chosen host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PlacementScored))]
pub struct Scored {
    /// Which host.
    pub host: HostId,
    /// Its name.
    pub name: Name,
    /// How good it is.
    pub score: f64,
    /// What the score is made of.
    pub parts: Vec<ScorePart>,
}

/// One weigher's part of a score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScorePart {
    /// The weigher.
    pub weigher: String,
    /// What it said, 0 to 1.
    pub value: f64,
    /// How much that counts.
    pub weight: f64,
}

/// A host that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PlacementRefused))]
pub struct Refused {
    /// Which host.
    pub host: HostId,
    /// Its name.
    pub name: Name,
    /// All that it lacks.
    pub lacks: Vec<Lack>,
}

impl Lack {
    /// What is wrong, without a host's own numbers.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Closed { state } => state.name().to_owned(),
            Self::NotAsked => "not asked for".to_owned(),
            Self::Excluded => "excluded".to_owned(),
            Self::Kept => "kept for others".to_owned(),
            Self::Shared => "for everyone".to_owned(),
            Self::Missing { feature } => format!("{feature} is missing"),
            Self::Forbidden { feature } => format!("{feature} is forbidden"),
            Self::Group { rule } => format!("rule of group {}", rule.group),
            Self::Short { class, need, .. } => format!("fewer than {need} {class} left"),
            Self::Own { filter, .. } => filter.clone(),
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { class, need, have } => write!(f, "needs {need} {class}, has {have}"),
            Self::Own { filter, text } => write!(f, "{filter}: {text}"),
            other => f.write_str(&other.reason()),
        }
    }
}

impl Fleet {
    /// Looks at every host and says why the server fits where it does, or nowhere.
    #[must_use]
    pub fn explain(&self, policy: &Policy, demand: &Demand) -> Report {
        let places = self.places(demand);
        let mut report = Report {
            considered: self.len() as u64,
            ..Report::default()
        };
        let mut fallen: BTreeMap<String, Fallen> = BTreeMap::new();
        let mut nearest = Best::new(NAMED);
        let (mut tenants, mut operators) = (Fewest::default(), Fewest::default());
        for at in 0..self.len() {
            let lacks = self.lacks(policy, demand, &places, at);
            let Some(first) = lacks.first() else {
                report.fitting += 1;
                continue;
            };
            let reason = first.reason();
            let entry = fallen.entry(reason).or_insert_with_key(|reason| Fallen {
                reason: reason.clone(),
                hosts: 0,
                alone: 0,
            });
            entry.hosts += 1;
            entry.alone += u64::from(lacks.len() == 1);
            let host = self.seats[at].machine.id;
            if let Some(changes) = lacks
                .iter()
                .map(|lack| Change::of(lack, demand, host))
                .collect::<Option<Vec<_>>>()
            {
                let all = changes.iter().all(Change::is_tenants);
                if all {
                    tenants.offer(changes, far(&lacks))
                } else {
                    operators.offer(changes, far(&lacks))
                }
            }
            nearest.offer((lacks.len(), far(&lacks)), (at, lacks));
        }
        report.fallen = fallen.into_values().collect();
        report
            .fallen
            .sort_by_key(|fallen| std::cmp::Reverse(fallen.hosts));
        report.nearest = nearest
            .into_iter()
            .map(|(at, lacks)| self.refused(at, lacks))
            .collect();
        (_, report.chosen, report.compared) = self.compared(policy, demand, &places, NAMED);
        if report.fitting == 0 {
            (report.for_tenant, report.for_operator) = (tenants.told(), operators.told());
        }
        report
    }

    pub(super) fn lacks(
        &self,
        policy: &Policy,
        demand: &Demand,
        places: &[Places<'_>],
        at: usize,
    ) -> Vec<Lack> {
        let mut lacks = self.misses(demand, places, at);
        let view = View {
            fleet: self,
            at,
            places,
        };
        for filter in &policy.filters {
            if let Err(text) = filter.check(demand, &view) {
                lacks.push(Lack::Own {
                    filter: filter.name().to_owned(),
                    text,
                });
            }
        }
        lacks
    }

    /// Of other sizes those with which the server would fit.
    #[must_use]
    pub fn fitting_sizes(
        &self,
        policy: &Policy,
        demand: &Demand,
        sizes: &[(String, Amounts)],
    ) -> Vec<String> {
        let fits = |amounts: &Amounts| {
            let smaller = Demand {
                amounts: *amounts,
                ..demand.clone()
            };
            self.decide(policy, &smaller).is_some()
        };
        sizes
            .iter()
            .filter(|(_, amounts)| fits(amounts))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Up to `most` servers, smallest first, of which each would make room for this one by leaving its host. For operators; where they
    /// could go is not asked.
    #[must_use]
    pub fn in_the_way(&self, policy: &Policy, demand: &Demand, most: usize) -> Vec<(ServerId, HostId)> {
        let places = self.places(demand);
        let mut rooms: BTreeMap<HostId, Option<Vec<(Class, u32)>>> = BTreeMap::new();
        let mut found = BTreeSet::new();
        for (server, host, amounts) in self.holders() {
            let room = rooms.entry(host).or_insert_with(|| {
                let lacks = self.lacks(policy, demand, &places, self.position(host)?);
                let short = |lack: Lack| match lack {
                    Lack::Short { class, need, .. } => Some((class, need)),
                    _ => None,
                };
                lacks
                    .into_iter()
                    .map(short)
                    .collect::<Option<Vec<_>>>()
                    .filter(|short| !short.is_empty())
            });
            let Some(short) = room else { continue };
            let Some(seat) = self.position(host).map(|at| &self.seats[at]) else {
                continue;
            };
            let left = |class: Class| {
                let used = seat.used[class.index()].saturating_sub(u64::from(amounts.of(class)));
                u64::from(seat.machine.offered().of(class)).saturating_sub(used)
            };
            if short.iter().all(|(class, need)| left(*class) >= u64::from(*need)) {
                found.insert((amounts.of(Class::MEMORY), amounts.of(Class::VCPUS), server, host));
            }
        }
        found
            .into_iter()
            .take(most)
            .map(|(_, _, server, host)| (server, host))
            .collect()
    }
}

impl Report {
    /// What a tenant may know: counts, and changes of the own request. No host, and nothing of one host.
    #[must_use]
    pub fn for_tenants(&self) -> Self {
        Self {
            chosen: None,
            compared: Vec::new(),
            nearest: Vec::new(),
            for_operator: Vec::new(),
            ..self.clone()
        }
    }

    /// A paragraph for tenants.
    #[must_use]
    pub fn tenant_text(&self) -> String {
        let mut text = self.counts();
        tell(&mut text, "it would fit if you", &self.for_tenant);
        text
    }

    /// A paragraph of all that is in it: for whoever it was made for.
    #[must_use]
    pub fn text(&self) -> String {
        if self.chosen.is_none() && self.nearest.is_empty() && self.for_operator.is_empty() {
            self.tenant_text()
        } else {
            self.operator_text()
        }
    }

    /// A paragraph for operators, with the names of hosts.
    #[must_use]
    pub fn operator_text(&self) -> String {
        let mut text = self.counts();
        // Writing to a string cannot fail.
        let mut score = |how: &str,
                         Scored {
                             name, score, parts, ..
                         }: &Scored| {
            let _ = write!(text, "\n  {how}: {name}, score {score:.3}");
            for part in parts {
                let _ = write!(text, "; {} {:.3} x {}", part.weigher, part.value, part.weight);
            }
        };
        self.chosen.iter().for_each(|chosen| score("chosen", chosen));
        self.compared.iter().for_each(|other| score("compared", other));
        for refused in &self.nearest {
            let lacks: Vec<String> = refused.lacks.iter().map(ToString::to_string).collect();
            let _ = write!(text, "\n  {}: {}", refused.name, lacks.join("; "));
        }
        tell(&mut text, "the tenant could", &self.for_tenant);
        tell(&mut text, "an operator could", &self.for_operator);
        text
    }

    /// One line of what the hosts lack, without anything of single hosts: `4 hosts considered: 3 (disabled), 1 (unreachable)`.
    #[must_use]
    pub fn summary(&self) -> String {
        let hosts = if self.considered == 1 { "host" } else { "hosts" };
        let fell = self.fallen.iter().map(|f| format!("{} ({})", f.hosts, f.reason));
        let fit = (self.fitting > 0).then(|| format!("{} fit", self.fitting));
        let parts: Vec<String> = fit.into_iter().chain(fell).collect();
        let colon = if parts.is_empty() { "" } else { ": " };
        format!(
            "{} {hosts} considered{colon}{}",
            self.considered,
            parts.join(", ")
        )
    }

    /// The fewest changes that would help, in one line, without anything of single hosts; `None` when none is known.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        let told = |who: &str, all: &[Counterfactual]| {
            let fewest = all.first()?;
            let changes: Vec<String> = fewest.changes.iter().map(Change::classed).collect();
            Some(format!("{who} {}", changes.join(", and ")))
        };
        let tenant = told("it would fit if you", &self.for_tenant);
        let operator = told("an operator could", &self.for_operator);
        match (tenant, operator) {
            (Some(tenant), Some(operator)) => Some(format!("{tenant}; {operator}")),
            (tenant, operator) => tenant.or(operator),
        }
    }

    fn counts(&self) -> String {
        let mut text = format!("{} of {} hosts fit", self.fitting, self.considered);
        if self.uncounted > 0 {
            let _ = write!(text, "; {} more were not counted", self.uncounted);
        }
        for Fallen { reason, hosts, alone } in &self.fallen {
            let _ = write!(text, "\n  {hosts}: {reason}");
            if *alone > 0 && self.fitting == 0 {
                let _ = write!(text, " (and nothing else for {alone})");
            }
        }
        text
    }
}

fn tell(text: &mut String, who: &str, changes: &[Counterfactual]) {
    for Counterfactual { changes, .. } in changes {
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        let _ = write!(text, "\n  {who}: {}", changes.join(", and "));
    }
}
