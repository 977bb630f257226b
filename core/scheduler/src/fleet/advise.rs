//! Advice: which servers to move so that a fleet is as it is wanted, and what that costs. Nothing is moved here.
//!
//! ```text
//!  residents (who could go, and what they need elsewhere) ──┐
//!  Inventory, as it is now ─────────────────────────────────┼─> advise ─> moves, in an order in which each fits, and who stays and why
//!  Goal ────────────────────────────────────────────────────┘
//! ```
//!
//! * **Spread**: from the host that is fullest by memory to the emptiest one that fits, while the fuller of both becomes less full.
//! * **Consolidate**: hosts with the least on them are emptied, all or nothing, onto hosts that are used anyway.
//! * **Drain**: all that is on one host goes; largest first, for those find a place the hardest.
//!
//! Each move is reckoned as a claim: on the destination before the source gives it back, so that no host ever has more than it offers.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use skyloom_model::{HostId, Name, ServerId};

use super::policy::Policy;
use super::report::Report;
use crate::{FleetScheduler, Inventory, Request, Scheduler, release};

/// How much less full the fuller host must become by a move of spreading: five hundredths of its memory.
const GAIN: f64 = 0.05;

/// What is wanted of the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Hosts alike full.
    Spread,
    /// Few hosts used.
    Consolidate,
    /// One host empty.
    Drain(HostId),
}

/// A server, and what it needs elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Resident {
    /// Which server.
    pub server: ServerId,
    /// Its name.
    pub name: Name,
    /// Where it is.
    pub from: HostId,
    /// What another host must have, or why there is none.
    pub asks: Result<Request, String>,
    /// Whether its memory goes with it.
    pub live: bool,
}

/// One move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PlacementMove))]
pub struct Move {
    /// Which server.
    pub server: ServerId,
    /// Its name.
    pub name: Name,
    /// Where it is.
    pub from: Name,
    /// Where it would go.
    pub to: Name,
    /// Whether it runs on meanwhile.
    pub live: bool,
    /// MiB of memory that are copied at least; nothing of one that is off.
    pub memory_mib: u64,
    /// Why that host.
    pub report: Report,
}

/// A server that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PlacementStay))]
pub struct Stay {
    /// Which server.
    pub server: ServerId,
    /// Its name.
    pub name: Name,
    /// Where it is.
    pub host: HostId,
    /// Why.
    pub why: String,
}

/// What to do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PlacementAdvice))]
pub struct Advice {
    /// In an order in which each fits.
    pub moves: Vec<Move>,
    /// Who would have to go and cannot.
    pub stays: Vec<Stay>,
    /// Hosts that are empty then and were not.
    pub emptied: Vec<Name>,
    /// MiB of memory that are copied in all.
    pub memory_mib: u64,
}

/// The fleet as it would be after the moves so far.
struct Trial {
    inventory: Inventory,
    advice: Advice,
}

impl Trial {
    /// How full a host is by memory.
    fn share(&self, host: HostId) -> f64 {
        let Some(view) = self.inventory.get(host) else {
            return 0.0;
        };
        match (view.effective().memory_mib, view.ledger.used.memory_mib) {
            (_, 0) => 0.0,
            (0, _) => f64::INFINITY,
            (offered, used) => used as f64 / offered as f64,
        }
    }

    /// Moves a server, if a host can take it.
    fn go(
        &mut self,
        scheduler: &FleetScheduler,
        who: &Resident,
        request: &Request,
    ) -> Result<HostId, String> {
        let mut request = request.clone();
        request.exclude.insert(who.from);
        let placed = scheduler
            .place(&request, &self.inventory)
            .map_err(|no| no.to_string())?;
        let claimed = request.claim();
        let Some(from) = self.inventory.get(who.from).cloned() else {
            return Err("its host is not known".to_owned());
        };
        let left = release(&from.ledger, &claimed);
        self.inventory
            .set_ledger(placed.host, placed.ledger_after, placed.ledger_revision);
        self.inventory.set_ledger(who.from, left, from.ledger_revision);
        let memory_mib = if who.live { request.resources.memory_mib } else { 0 };
        self.advice.memory_mib += memory_mib;
        self.advice.moves.push(Move {
            server: request.server,
            name: who.name.clone(),
            from: from.name.clone(),
            to: placed.name,
            live: who.live,
            memory_mib,
            report: placed.report,
        });
        Ok(placed.host)
    }

    /// Takes the last moves back.
    fn back_to(&mut self, inventory: Inventory, moves: usize) {
        self.inventory = inventory;
        self.advice.moves.truncate(moves);
        self.advice.memory_mib = self.advice.moves.iter().map(|gone| gone.memory_mib).sum();
    }

    fn used(&self, host: HostId) -> bool {
        self.inventory
            .get(host)
            .is_some_and(|view| view.ledger.servers > 0)
    }

    fn drain(&mut self, host: HostId, here: &[&Resident], policy: &Policy) {
        let scheduler = FleetScheduler::new(policy.clone());
        for who in here {
            let gone = match &who.asks {
                Ok(request) => self.go(&scheduler, who, request).map(drop),
                Err(why) => Err(why.clone()),
            };
            if let Err(why) = gone {
                let (server, name) = (who.server, who.name.clone());
                self.advice.stays.push(Stay {
                    server,
                    name,
                    host,
                    why,
                });
            }
        }
    }

    fn consolidate(&mut self, homes: &BTreeMap<HostId, Vec<&Resident>>, most: usize) {
        let scheduler = FleetScheduler::new(Policy::pack().whole());
        let mut sources: Vec<HostId> = homes.keys().copied().filter(|host| self.used(*host)).collect();
        let memory = |host: &HostId| self.inventory.get(*host).map(|view| view.ledger.used.memory_mib);
        sources.sort_by_key(|host| (memory(host), *host));
        let mut received: BTreeSet<HostId> = BTreeSet::new();
        for host in sources {
            let here = &homes[&host];
            let all = self.inventory.get(host).map(|view| view.ledger.servers as usize);
            let moves = self.advice.moves.len();
            // Who is not among the residents cannot go.
            if all != Some(here.len()) || received.contains(&host) || moves + here.len() > most {
                continue;
            }
            let unused = self.inventory.hosts().map(|view| view.id);
            let unused: BTreeSet<HostId> = unused.filter(|other| !self.used(*other)).collect();
            let before = self.inventory.clone();
            let mut to = BTreeSet::new();
            let gone = here.iter().all(|who| {
                let Ok(request) = &who.asks else { return false };
                let mut request = request.clone();
                request.exclude.extend(&unused);
                self.go(&scheduler, who, &request)
                    .map(|host| to.insert(host))
                    .is_ok()
            });
            if gone {
                received.extend(to);
                let name = self.inventory.get(host).map(|view| view.name.clone());
                self.advice.emptied.extend(name);
            } else {
                self.back_to(before, moves);
            }
        }
    }

    fn spread(&mut self, homes: &BTreeMap<HostId, Vec<&Resident>>, most: usize) {
        let scheduler = FleetScheduler::new(Policy::spread().whole());
        let mut at: BTreeMap<HostId, Vec<&Resident>> = homes.clone();
        while self.advice.moves.len() < most {
            // A server goes once.
            let fullest = at
                .iter()
                .filter(|(_, here)| !here.is_empty())
                .map(|(host, _)| *host)
                .max_by(|a, b| self.share(*a).total_cmp(&self.share(*b)).then(b.cmp(a)));
            let Some(host) = fullest else { return };
            let here = at.get_mut(&host).map(std::mem::take).unwrap_or_default();
            let mut here = here.into_iter();
            let before = self.share(host);
            while let Some(who) = here.next() {
                let Ok(request) = &who.asks else { continue };
                let (inventory, moves) = (self.inventory.clone(), self.advice.moves.len());
                let Ok(to) = self.go(&scheduler, who, request) else {
                    continue;
                };
                if self.share(to).max(self.share(host)) + GAIN <= before {
                    // The others may go after it.
                    at.insert(host, here.collect());
                    break;
                }
                self.back_to(inventory, moves);
            }
        }
    }
}

/// What to move for a goal, `most` moves at most where the goal leaves a choice. A drain goes by `policy`, as placing does.
#[must_use]
pub fn advise(
    goal: Goal,
    residents: &[Resident],
    inventory: &Inventory,
    policy: &Policy,
    most: usize,
) -> Advice {
    let mut homes: BTreeMap<HostId, Vec<&Resident>> = BTreeMap::new();
    for who in residents {
        homes.entry(who.from).or_default().push(who);
    }
    let memory = |who: &&Resident| {
        who.asks
            .as_ref()
            .map_or(0, |request| request.resources.memory_mib)
    };
    for here in homes.values_mut() {
        here.sort_by_key(|who| (std::cmp::Reverse(memory(who)), who.server));
    }
    let mut trial = Trial {
        inventory: inventory.clone(),
        advice: Advice::default(),
    };
    match goal {
        Goal::Spread => trial.spread(&homes, most),
        Goal::Consolidate => trial.consolidate(&homes, most),
        Goal::Drain(host) => {
            let here = homes.remove(&host).unwrap_or_default();
            trial.drain(host, &here, policy);
            if !trial.used(host) && inventory.get(host).is_some_and(|view| view.ledger.servers > 0) {
                let name = inventory.get(host).map(|view| view.name.clone());
                trial.advice.emptied.extend(name);
            }
        }
    }
    trial.advice
}
