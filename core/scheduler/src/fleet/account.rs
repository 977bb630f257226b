//! What a decision tells of itself: cheap enough to be kept with each.
//!
//! A refusal looks at every host in full ([`Fleet::explain`]). A choice counts by the index where the index is sure, and looks in full
//! only at the other hosts and at one of each kind.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::change::far;
use super::choose::{Offer, View, finite};
use super::demand::Demand;
use super::policy::Policy;
use super::query::{Glance, Lack, Places, Query};
use super::report::{Fallen, NAMED, Refused, Report, ScorePart, Scored};
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

impl Fleet {
    /// As [`Fleet::decide`], with the reasons: those of [`Fleet::explain`] when no host fits. When one does, its `nearest` are one host of
    /// each kind; that takes some nanoseconds for each host that the index knows all about, and far longer for others: those with what is
    /// asked for under no bit, and all when the policy has filters.
    #[must_use]
    pub fn decide_with_reasons(&self, policy: &Policy, demand: &Demand) -> (Option<Offer>, Report) {
        let places = self.places(demand);
        let (offer, chosen, compared) = self.compared(policy, demand, &places);
        let Some((offer, query)) = offer.zip(Query::new(self, demand, &places)) else {
            return (None, self.explain(policy, demand));
        };
        let mut tally = Tally::default();
        let glances = policy.filters.is_empty();
        // What hosts of the same bits lack first, and how many such things.
        let mut same: BTreeMap<Bits, (Lack, usize)> = BTreeMap::new();
        for at in 0..self.len() {
            let glance = if glances {
                query.glance(self, at)
            } else {
                Glance::Unclear
            };
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
            let of = |kind: &Kind| (std::cmp::Reverse(kind.fallen.hosts), kind.fallen.reason.clone());
            of(a).cmp(&of(b))
        });
        let nearest = kinds
            .iter()
            .take(NAMED)
            .map(|kind| self.refused(kind.at, self.lacks(policy, demand, &places, kind.at)));
        let report = Report {
            considered: self.len() as u64,
            fitting: tally.fitting,
            nearest: nearest.collect(),
            fallen: kinds.into_iter().map(|kind| kind.fallen).collect(),
            chosen,
            compared,
            ..Report::default()
        };
        (Some(offer), report)
    }

    /// A decision, the score of its host, and those of the hosts that were compared with it, best first.
    pub(super) fn compared(
        &self,
        policy: &Policy,
        demand: &Demand,
        places: &[Places<'_>],
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
            .take(NAMED)
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
