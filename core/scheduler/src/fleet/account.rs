//! What a decision tells of itself: cheap enough to be kept with each.
//!
//! A refusal looks at every host in full ([`Fleet::explain`]). A choice counts a bounded number of hosts, by the index where the index is
//! sure, and looks in full only at the other hosts and at one of each kind.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::change::far;
use super::choose::{Offer, View, finite};
use super::demand::Demand;
use super::policy::Policy;
use super::query::{Glance, Lack, Places, Query};
use super::report::{Fallen, Refused, Report, ScorePart, Scored};
use super::state::Fleet;
use super::tree::Bits;
use crate::ranking::pair_hash;

/// Hosts that fell for the same reason, and the one that lacks least of it.
struct Kind {
    fallen: Fallen,
    far: u64,
    at: usize,
}

/// Hosts by the first thing that they lack.
#[derive(Default)]
struct Tally {
    fitting: u64,
    /// By what is short, without its words: they are made once.
    short: BTreeMap<super::Class, Kind>,
    others: BTreeMap<String, Kind>,
}

impl Tally {
    fn fell(&mut self, at: usize, lack: &Lack, alone: bool) {
        let far = far(std::slice::from_ref(lack));
        let fresh = || Kind {
            fallen: Fallen {
                reason: lack.reason(),
                hosts: 0,
                alone: 0,
            },
            far: u64::MAX,
            at,
        };
        let kind = match lack {
            Lack::Short { class, .. } => self.short.entry(*class).or_insert_with(fresh),
            other => self.others.entry(other.reason()).or_insert_with(fresh),
        };
        kind.fallen.hosts += 1;
        kind.fallen.alone += u64::from(alone);
        if far < kind.far {
            (kind.far, kind.at) = (far, at);
        }
    }
}

/// What counting a choice may cost, in hosts that the index knows all about.
const BUDGET: usize = 256;
/// What a host costs that it does not.
const LOOK: usize = 4;
/// How many hosts and kinds a choice names beside the chosen host.
const FEW: usize = 3;

impl Fleet {
    /// As [`Fleet::decide`], with the reasons: those of [`Fleet::explain`] when no host fits. When one does, the report is what is worth
    /// keeping with each placement: the scores of the best, one host of each of the commonest kinds that fell, and counts of the hosts that
    /// were asked for and those from where the decision began, up to a bound, so that it costs some tens of microseconds whatever the number of
    /// hosts. With fewer than 64 hosts all are counted.
    #[must_use]
    pub fn decide_with_reasons(&self, policy: &Policy, demand: &Demand) -> (Option<Offer>, Report) {
        let places = self.places(demand);
        let (offer, chosen, compared) = self.compared(policy, demand, &places, FEW);
        let Some((offer, query)) = offer.zip(Query::new(self, demand, &places)) else {
            return (None, self.explain(policy, demand));
        };
        let mut tally = Tally::default();
        let glances = policy.filters.is_empty();
        // What hosts of the same bits lack first, and how many such things.
        let mut same: BTreeMap<Bits, (Lack, usize)> = BTreeMap::new();
        let (mut counted, mut left) = (0, BUDGET);
        for at in self.round(demand, &offer) {
            let glance = if glances {
                query.glance(self, at)
            } else {
                Glance::Unclear
            };
            let cost = if matches!(glance, Glance::Unclear) {
                LOOK
            } else {
                1
            };
            let Some(rest) = left.checked_sub(cost) else { break };
            (counted, left) = (counted + 1, rest);
            match glance {
                Glance::Fits => tally.fitting += 1,
                Glance::Short(lack, alone) => tally.fell(at, &lack, alone),
                Glance::Same(bits, short) => {
                    if let Some((first, lacks)) = same.get(&bits) {
                        tally.fell(at, first, *lacks == 1 && !short);
                        continue;
                    }
                    let mut lacks = self.lacks(policy, demand, &places, at);
                    lacks.retain(|lack| !matches!(lack, Lack::Short { .. }));
                    if let Some(first) = lacks.first() {
                        tally.fell(at, first, lacks.len() == 1 && !short);
                        same.insert(bits, (first.clone(), lacks.len()));
                    }
                }
                Glance::Unclear => {
                    let lacks = self.lacks(policy, demand, &places, at);
                    match lacks.first() {
                        None => tally.fitting += 1,
                        Some(first) => tally.fell(at, first, lacks.len() == 1),
                    }
                }
            }
        }
        let mut kinds: Vec<Kind> = tally
            .short
            .into_values()
            .chain(tally.others.into_values())
            .collect();
        kinds.sort_by(|a, b| {
            let fallen = b.fallen.hosts.cmp(&a.fallen.hosts);
            fallen.then_with(|| a.fallen.reason.cmp(&b.fallen.reason))
        });
        let nearest = kinds
            .iter()
            .take(FEW)
            .map(|kind| self.refused(kind.at, self.lacks(policy, demand, &places, kind.at)));
        let report = Report {
            considered: counted,
            uncounted: self.len() as u64 - counted,
            fitting: tally.fitting,
            nearest: nearest.collect(),
            fallen: kinds.into_iter().map(|kind| kind.fallen).collect(),
            chosen,
            compared,
            ..Report::default()
        };
        (Some(offer), report)
    }

    /// All hosts, each once: the chosen one, those that were asked for, and the others from where the decision began.
    fn round(&self, demand: &Demand, offer: &Offer) -> impl Iterator<Item = usize> {
        let mut first: Vec<usize> = self.position(offer.host).into_iter().collect();
        let asked = demand.only.iter().flatten().filter(|host| **host != offer.host);
        first.extend(asked.filter_map(|host| self.position(*host)));
        let start = self.start(demand.server);
        let others = (start..self.len()).chain(0..start);
        let known: BTreeSet<usize> = first.iter().copied().collect();
        first
            .into_iter()
            .chain(others.filter(move |at| !known.contains(at)))
    }

    /// A decision, the score of its host, and those of the best `most` others that were compared with it, best first.
    pub(super) fn compared(
        &self,
        policy: &Policy,
        demand: &Demand,
        places: &[Places<'_>],
        most: usize,
    ) -> (Option<Offer>, Option<Scored>, Vec<Scored>) {
        let mut seen: Vec<(usize, f64)> = Vec::new();
        let offer = self.compare(policy, demand, places, |at, score| seen.push((at, score)));
        let server = demand.server.uuid().as_u128();
        let tie = |at: usize| pair_hash(server, self.seats[at].machine.id.uuid().as_u128());
        seen.sort_by(|(a, one), (b, other)| {
            other
                .partial_cmp(one)
                .unwrap_or(Ordering::Equal)
                .then_with(|| tie(*a).cmp(&tie(*b)))
        });
        let mut best = seen
            .into_iter()
            .take(most + 1)
            .map(|(at, score)| self.scored(policy, demand, places, at, score));
        let chosen = best.next();
        (offer, chosen, best.collect())
    }

    fn scored(
        &self,
        policy: &Policy,
        demand: &Demand,
        places: &[Places<'_>],
        at: usize,
        score: f64,
    ) -> Scored {
        let view = View {
            fleet: self,
            at,
            places,
        };
        let part = |(weigher, weight): &(std::sync::Arc<dyn super::HostWeigher>, f64)| ScorePart {
            weigher: weigher.name().to_owned(),
            value: finite(weigher.weigh(demand, &view)),
            weight: *weight,
        };
        Scored {
            host: view.machine().id,
            name: view.machine().name.clone(),
            score,
            parts: policy.weighers.iter().map(part).collect(),
        }
    }

    pub(super) fn refused(&self, at: usize, lacks: Vec<Lack>) -> Refused {
        let machine = &self.seats[at].machine;
        Refused {
            host: machine.id,
            name: machine.name.clone(),
            lacks,
        }
    }
}
