//! A decision: the first few hosts that fit, from a start that depends on the server, and the best of them.
//!
//! The walk through the tree and the scan of all hosts visit in the same order and end by the same rule, which counts hosts and
//! not nodes: the tree only leaves out what does not fit.

use std::ops::ControlFlow;

use skyloom_model::{HostId, ServerId};

use super::demand::Demand;
use super::machine::{Class, Machine};
use super::policy::Policy;
use super::query::{Places, Query};
use super::state::Fleet;
use crate::ranking::pair_hash;

/// A host for a server: holds until something that it was reckoned from changes. [`Fleet::claim`] compares.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The server.
    pub server: ServerId,
    /// The host.
    pub host: HostId,
    /// How good it is.
    pub score: f64,
    pub(super) version: u64,
    /// The version of each rule's group.
    pub(super) groups: Vec<u64>,
}

/// A host, as filters and weighers see it.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) at: usize,
    pub(super) places: &'a [Places<'a>],
}

impl<'a> View<'a> {
    /// What it is.
    #[must_use]
    pub fn machine(&self) -> &'a Machine {
        &self.fleet.seats[self.at].machine
    }
    /// What is left of a class.
    #[must_use]
    pub fn free(&self, class: Class) -> u32 {
        self.fleet.tree.leaf(self.at).free[class.index()]
    }
    /// What there is of a class for servers in all.
    #[must_use]
    pub fn offered(&self, class: Class) -> u32 {
        self.fleet.offered[self.at].of(class)
    }
    /// How well it suits the groups' rules, hard and soft: 1 without rules.
    #[must_use]
    pub fn group_fit(&self) -> f64 {
        let fits = self.places.iter().map(|places| places.fit(self.machine()));
        fits.sum::<f64>() / self.places.len().max(1) as f64 + if self.places.is_empty() { 1.0 } else { 0.0 }
    }
}

/// The best of those that were visited.
struct Best {
    at: Option<(usize, f64)>,
    seen: usize,
    /// Where the search ends, once something fits.
    until: usize,
}

impl Best {
    /// `tie` tells equally good hosts apart: the smaller wins. It is asked seldom, for it reads the host itself.
    fn offer(&mut self, at: usize, score: f64, tie: impl Fn(usize) -> u64) {
        self.seen += 1;
        let better = self
            .at
            .is_none_or(|(other, best)| score > best || score == best && tie(at) < tie(other));
        if better {
            self.at = Some((at, score));
        }
    }
}

impl Fleet {
    /// Chooses a host; `None` says that none fits, [`Fleet::explain`] why.
    #[must_use]
    pub fn decide(&self, policy: &Policy, demand: &Demand) -> Option<Offer> {
        self.compare(policy, demand, &self.places(demand), |_, _| {})
    }

    /// Decides, and shows each host that was compared with its score.
    pub(super) fn compare(
        &self,
        policy: &Policy,
        demand: &Demand,
        places: &[Places<'_>],
        compared: impl FnMut(usize, f64),
    ) -> Option<Offer> {
        let query = Query::new(self, demand, places)?;
        let visit_range = |start, end, visit: &mut dyn FnMut(usize, bool) -> ControlFlow<()>| {
            if let Some(within) = &query.within {
                let from = within.partition_point(|at| (*at as usize) < start);
                let inside = within[from..]
                    .iter()
                    .map(|at| *at as usize)
                    .take_while(|at| *at < end);
                return inside.into_iter().try_for_each(|at| {
                    if query.admits(self, demand, at) {
                        visit(at, true)
                    } else {
                        ControlFlow::Continue(())
                    }
                });
            }
            self.tree.walk(start..end, &|sum| query.may(sum), &mut |at| {
                visit(at, query.admits(self, demand, at))
            })
        };
        self.search(policy, demand, places, compared, visit_range)
    }

    /// The same answer from looking at every host in full, without the index.
    #[must_use]
    pub fn scan(&self, policy: &Policy, demand: &Demand) -> Option<Offer> {
        let places = self.places(demand);
        self.search(
            policy,
            demand,
            &places,
            |_, _| {},
            |start, end, visit| {
                (start..end).try_for_each(|at| visit(at, self.misses(demand, &places, at).is_empty()))
            },
        )
    }

    /// `visit_range` calls its visitor with hosts of a range in order and whether they fit; it may leave out those that do not.
    fn search(
        &self,
        policy: &Policy,
        demand: &Demand,
        places: &[Places<'_>],
        mut compared: impl FnMut(usize, f64),
        visit_range: impl Fn(usize, usize, &mut dyn FnMut(usize, bool) -> ControlFlow<()>) -> ControlFlow<()>,
    ) -> Option<Offer> {
        let hosts = self.len();
        if hosts == 0 {
            return None;
        }
        let server = demand.server.uuid().as_u128();
        let tie = |at: usize| pair_hash(server, self.seats[at].machine.id.uuid().as_u128());
        let start = self.start(demand.server);
        let mut best = Best {
            at: None,
            seen: 0,
            until: usize::MAX,
        };
        // Twice the range from the start on, as if the hosts stood in a circle.
        for (from, to, turn) in [(start, hosts, 0), (0, start, hosts)] {
            let mut visit = |at: usize, fits: bool| {
                let way = at + turn;
                if way >= best.until {
                    return ControlFlow::Break(());
                }
                let view = View {
                    fleet: self,
                    at,
                    places,
                };
                if !fits
                    || policy
                        .filters
                        .iter()
                        .any(|filter| filter.check(demand, &view).is_err())
                {
                    return ControlFlow::Continue(());
                }
                if best.seen == 0 {
                    best.until = way.saturating_add(policy.window).saturating_add(1);
                }
                let score = self.score(policy, demand, &view);
                compared(at, score);
                best.offer(at, score, tie);
                if best.seen >= policy.candidates {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            if visit_range(from, to, &mut visit).is_break() {
                break;
            }
        }
        let (at, score) = best.at?;
        Some(Offer {
            server: demand.server,
            host: self.seats[at].machine.id,
            score,
            version: self.version(at),
            groups: demand
                .rules
                .iter()
                .map(|rule| self.group_version(&rule.group))
                .collect(),
        })
    }

    /// Where a decision for a server begins: not called without hosts.
    pub(super) fn start(&self, server: ServerId) -> usize {
        (pair_hash(server.uuid().as_u128(), 0) % self.len().max(1) as u64) as usize
    }

    pub(super) fn score(&self, policy: &Policy, demand: &Demand, view: &View<'_>) -> f64 {
        let part = |(weigher, weight): &(std::sync::Arc<dyn super::HostWeigher>, f64)| {
            finite(weigher.weigh(demand, view)) * weight
        };
        finite(policy.weighers.iter().map(part).sum())
    }

    /// Places servers one after the other, each seeing those before it, and claims for them.
    ///
    /// # Errors
    /// With [`Batch::All`]: the number of the first that fits nowhere; then nothing is claimed.
    pub fn place(
        &mut self,
        policy: &Policy,
        demands: &[Demand],
        batch: Batch,
    ) -> Result<Vec<Option<HostId>>, usize> {
        let mut hosts = Vec::with_capacity(demands.len());
        for (number, demand) in demands.iter().enumerate() {
            let offer = self
                .decide(policy, demand)
                .filter(|offer| self.claim(demand, offer).is_ok());
            if offer.is_none() && batch == Batch::All {
                for placed in &demands[..number] {
                    self.release(placed.server);
                }
                return Err(number);
            }
            hosts.push(offer.map(|offer| offer.host));
        }
        Ok(hosts)
    }
}

/// What becomes of a batch of which some fit nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// All are placed, or none.
    All,
    /// As many as fit are placed.
    Most,
}

pub(super) fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}
