//! Makes a failing schedule small: leaves out kinds of faults, single faults and operations while it still fails.

use crate::run;
use crate::swarm::{Omit, Scenario};
use crate::world::Report;

/// A failing schedule without what it does not need.
#[derive(Debug)]
pub struct Shrunk {
    /// What is left out.
    pub omit: Omit,
    /// What is left, in words.
    pub left: Vec<String>,
    /// Its report, with its trace's last lines.
    pub report: Report,
    /// Schedules that were run to find it.
    pub tries: usize,
}

/// Shrinks the failing schedule of `seed`. Nothing when it does not fail.
#[must_use]
pub fn shrink(seed: u64, omit: &Omit, lines: usize) -> Option<Shrunk> {
    let invariant = run::one(seed, omit, 0).violation?.invariant;
    let mut tries = 1;
    let mut fails = |omit: &Omit| {
        tries += 1;
        run::one(seed, omit, 0)
            .violation
            .is_some_and(|v| v.invariant == invariant)
    };
    let mut best = omit.clone();
    loop {
        let before = best.clone();
        let scenario = Scenario::draw(seed, &best);
        for kind in scenario.kinds() {
            let mut less = best.clone();
            less.kinds.insert(kind);
            if fails(&less) {
                best = less;
            }
        }
        for (_, number, _) in Scenario::draw(seed, &best).planned {
            let mut less = best.clone();
            less.faults.insert(number);
            if fails(&less) {
                best = less;
            }
        }
        for step in Scenario::draw(seed, &best).clients.iter().flatten() {
            let mut less = best.clone();
            less.operations.insert(step.number);
            if fails(&less) {
                best = less;
            }
        }
        if best == before {
            break;
        }
    }
    let report = run::one(seed, &best, lines);
    let scenario = Scenario::draw(seed, &best);
    let sizes = format!(
        "{} engines, {} hosts of {:?}, faults until {:?}, leases of {:?}",
        scenario.engines, scenario.hosts, scenario.capacity, scenario.faults_until, scenario.lease_ttl
    );
    let rates = scenario
        .rates
        .iter()
        .map(|(kind, rate)| format!("{kind} at {rate} of 1000"));
    let planned = scenario
        .planned
        .iter()
        .map(|(at, number, fault)| format!("fault {number} at {at:?}: {fault:?}"));
    let steps = scenario.clients.iter().enumerate().flat_map(|(client, steps)| {
        steps
            .iter()
            .map(move |s| format!("client {client}, operation {}: {:?}", s.number, s.operation))
    });
    Some(Shrunk {
        left: std::iter::once(sizes)
            .chain(rates)
            .chain(planned)
            .chain(steps)
            .collect(),
        omit: best,
        report,
        tries,
    })
}
