//! Filters, then weighers, in one pass over the hosts.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::ranking::{Best, pair_hash};
use crate::{
    BuiltinFilter, BuiltinWeigher, Explanation, Filter, HostVerdict, HostView, Inventory, Miss, Nearest,
    NoFit, Placement, Refusal, Rejections, Request, Scheduler, ScorePart, Verdict, Weigher, claim,
};

/// A scheduler made of filters and weighers.
#[derive(Debug, Clone)]
pub struct FilterScheduler {
    filters: Vec<Arc<dyn Filter>>,
    weighers: Vec<(Arc<dyn Weigher>, f64)>,
    levels: f64,
    kept: usize,
}

impl FilterScheduler {
    /// All built-in filters and no weigher: any host that fits, chosen by hash.
    #[must_use]
    pub fn any() -> Self {
        let filters = BuiltinFilter::ALL
            .into_iter()
            .map(|f| Arc::new(f) as Arc<dyn Filter>)
            .collect();
        Self {
            filters,
            weighers: Vec::new(),
            levels: 100.0,
            kept: 50,
        }
    }
    /// Prefers hosts with much free memory.
    #[must_use]
    pub fn spread() -> Self {
        Self::any().with_weigher(BuiltinWeigher::FreeMemory, 1.0)
    }
    /// Prefers hosts that are used already, so that others stay empty.
    #[must_use]
    pub fn pack() -> Self {
        Self::any().with_weigher(BuiltinWeigher::UsedMemory, 1.0)
    }
    /// Adds a filter; it is asked after those that are there.
    #[must_use]
    pub fn with_filter(mut self, filter: impl Filter) -> Self {
        self.filters.push(Arc::new(filter));
        self
    }
    /// Adds a weigher that counts `weight` times; a negative weight turns it round.
    #[must_use]
    pub fn with_weigher(mut self, weigher: impl Weigher, weight: f64) -> Self {
        self.weighers.push((Arc::new(weigher), weight));
        self
    }
    /// Into how many levels a score of 1 is divided (100 unless told). Hosts of one level count as equally good; with
    /// few levels, schedulers side by side choose the same host less often.
    #[must_use]
    pub fn levels(mut self, levels: u32) -> Self {
        self.levels = f64::from(levels.max(1));
        self
    }
    /// For how many hosts an explanation keeps a verdict (50 unless told).
    #[must_use]
    pub fn keep_verdicts(mut self, hosts: usize) -> Self {
        self.kept = hosts;
        self
    }

    fn parts<'a>(
        &'a self,
        request: &'a Request,
        host: &'a HostView,
    ) -> impl Iterator<Item = (&'static str, f64, f64)> {
        self.weighers.iter().map(move |(weigher, weight)| {
            let value = weigher.weigh(request, host);
            (
                weigher.name(),
                if value.is_finite() { value } else { 0.0 },
                *weight,
            )
        })
    }
    fn score(&self, request: &Request, host: &HostView) -> f64 {
        self.parts(request, host)
            .map(|(_, value, weight)| value * weight)
            .sum()
    }

    fn fits(&self, request: &Request, host: &HostView) -> Verdict {
        let part = |(weigher, value, weight): (&str, f64, f64)| ScorePart {
            weigher: weigher.to_owned(),
            value,
            weight,
        };
        let parts = self.parts(request, host).map(part).collect();
        Verdict::Fit {
            score: self.score(request, host),
            parts,
        }
    }

    /// The kept host that fails the fewest filters.
    fn nearest(&self, request: &Request, refused: &[Refused<'_>]) -> Option<Nearest> {
        let of = |host: &HostView| {
            let failed = self
                .filters
                .iter()
                .filter_map(|f| f.check(request, host).err().map(|r| (f, r)));
            let (misses, advice) = failed
                .map(|(f, refusal)| (miss(f.as_ref(), &refusal), f.advice().to_owned()))
                .unzip::<_, _, Vec<_>, Vec<_>>();
            Nearest {
                host: host.id,
                name: host.name.clone(),
                misses,
                advice,
            }
        };
        refused
            .iter()
            .flat_map(|filter| filter.best.iter().take(NEAREST_PER_FILTER))
            .map(|(host, _)| of(host))
            .min_by_key(|nearest| nearest.misses.len())
    }

    fn explain(&self, request: &Request, seen: Seen<'_>) -> Explanation {
        let nearest = if seen.fitting == 0 {
            self.nearest(request, &seen.refused)
        } else {
            None
        };
        let rejected = self
            .filters
            .iter()
            .zip(&seen.refused)
            .filter(|(_, r)| r.hosts > 0);
        let rejected = rejected
            .map(|(filter, refused)| {
                let first = refused.best.first().map(|(_, refusal)| refusal);
                let number = |r: &&Refusal<'_>| matches!(r.have, crate::Amount::Number(..));
                Rejections {
                    filter: filter.name().to_owned(),
                    complaint: filter.complaint().to_owned(),
                    hosts: refused.hosts,
                    need: first.and_then(|r| r.need.shown()),
                    best: first.filter(number).and_then(|r| r.have.shown()),
                }
            })
            .collect();
        let mut hosts: Vec<HostVerdict> = Vec::new();
        let verdict = |host: &HostView, verdict| HostVerdict {
            host: host.id,
            name: host.name.clone(),
            verdict,
        };
        // The chosen one, then of each outcome the best, then of each the second best, and so on.
        let mut fitting = seen.fits.into_iter();
        let mut refused: Vec<_> = self
            .filters
            .iter()
            .zip(seen.refused)
            .map(|(f, r)| (f, r.best.into_iter()))
            .collect();
        loop {
            let before = hosts.len();
            hosts.extend(fitting.next().map(|host| verdict(host, self.fits(request, host))));
            for (filter, rest) in &mut refused {
                hosts.extend(
                    rest.next()
                        .map(|(host, r)| verdict(host, Verdict::Rejected(miss(filter.as_ref(), &r)))),
                );
            }
            if hosts.len() == before || hosts.len() >= self.kept {
                break;
            }
        }
        hosts.truncate(self.kept);
        let omitted = seen.considered.saturating_sub(hosts.len() as u64);
        Explanation {
            considered: seen.considered,
            fitting: seen.fitting,
            rejected,
            hosts,
            omitted,
            nearest,
        }
    }
}

/// How many hosts of each filter are looked at closely when none fits.
const NEAREST_PER_FILTER: usize = 8;

fn miss(filter: &dyn Filter, refusal: &Refusal<'_>) -> Miss {
    Miss {
        filter: filter.name().to_owned(),
        need: refusal.need.shown(),
        have: refusal.have.shown(),
    }
}

impl Default for FilterScheduler {
    fn default() -> Self {
        Self::spread()
    }
}

/// What one pass found.
struct Seen<'a> {
    considered: u64,
    fitting: u64,
    fits: Best<(Reverse<i64>, u64), &'a Arc<HostView>>,
    /// In the order of the filters.
    refused: Vec<Refused<'a>>,
}

struct Refused<'a> {
    hosts: u64,
    best: Best<u64, (&'a Arc<HostView>, Refusal<'a>)>,
}

impl Scheduler for FilterScheduler {
    fn place(&self, request: &Request, inventory: &Inventory) -> Result<Placement, NoFit> {
        let kept = self.kept.max(1);
        let refused = self
            .filters
            .iter()
            .map(|_| Refused {
                hosts: 0,
                best: Best::new(kept),
            })
            .collect();
        let mut seen = Seen {
            considered: 0,
            fitting: 0,
            fits: Best::new(kept),
            refused,
        };
        let server = request.server.uuid().as_u128();
        let mut look = |host| {
            let host: &Arc<HostView> = host;
            seen.considered += 1;
            for (filter, refused) in self.filters.iter().zip(&mut seen.refused) {
                if let Err(refusal) = filter.check(request, host) {
                    refused.hosts += 1;
                    refused.best.offer(refusal.distance(), (host, refusal));
                    return;
                }
            }
            seen.fitting += 1;
            // The cast saturates.
            let level = (self.score(request, host) * self.levels).round() as i64;
            seen.fits.offer(
                (Reverse(level), pair_hash(server, host.id.uuid().as_u128())),
                host,
            );
        };
        match request.only {
            Some(only) => inventory.get(only).into_iter().for_each(&mut look),
            None => inventory.hosts().for_each(&mut look),
        }
        match seen.fits.first().map(|host| Arc::clone(host)) {
            Some(host) => {
                let claimed = request.claim();
                Ok(Placement {
                    host: host.id,
                    name: host.name.clone(),
                    ledger_after: claim(&host.ledger, &claimed),
                    ledger_revision: host.ledger_revision,
                    claim: claimed,
                    explanation: self.explain(request, seen),
                })
            }
            None => Err(NoFit {
                explanation: Box::new(self.explain(request, seen)),
            }),
        }
    }
}
