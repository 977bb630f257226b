//! Running schedules: one, or many on all cores.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::faults::Kind;
use crate::swarm::{Omit, Scenario};
use crate::world::{self, Report};

/// Runs the schedule of `seed` without what `omit` leaves out; keeps the last `lines` lines of its trace.
///
/// # Panics
/// When no runtime can be built.
#[must_use]
pub fn one(seed: u64, omit: &Omit, lines: usize) -> Report {
    on_a_runtime(world::run(Scenario::draw(seed, omit), lines))
}

/// Runs to its end on a runtime of its own, in virtual time.
#[expect(clippy::expect_used, reason = "without a runtime there is nothing to report")]
pub(crate) fn on_a_runtime<T>(all: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without IO");
    runtime.block_on(all)
}

/// Runs `seed` twice; the hash of its trace, or both when they differ.
///
/// # Errors
/// The two different hashes.
pub fn check_trace(seed: u64) -> Result<u64, (u64, u64)> {
    let (a, b) = (one(seed, &Omit::default(), 0), one(seed, &Omit::default(), 0));
    if a.hash == b.hash && a.steps == b.steps {
        Ok(a.hash)
    } else {
        Err((a.hash, b.hash))
    }
}

/// The command that runs a schedule again.
#[must_use]
pub fn reproducer(seed: u64, omit: &Omit) -> String {
    let mut line = format!("cargo run --profile sim -p skyloom-sim -- --seed {seed}");
    let mut add = |name: &str, values: Vec<String>| {
        if !values.is_empty() {
            line.push_str(&format!(" --{name} {}", values.join(",")));
        }
    };
    add("no-kinds", omit.kinds.iter().map(ToString::to_string).collect());
    add("no-faults", omit.faults.iter().map(ToString::to_string).collect());
    add(
        "no-operations",
        omit.operations.iter().map(ToString::to_string).collect(),
    );
    line
}

/// Sums over many schedules.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Schedules.
    pub schedules: u64,
    /// Steps.
    pub steps: u64,
    /// Virtual time.
    pub took: Duration,
    /// In how many schedules each kind of fault has bitten, and how often in all.
    pub bites: BTreeMap<Kind, (u64, u64)>,
    /// Tasks by flow, last state and reason.
    pub ends: BTreeMap<(String, String, String), u64>,
}

impl Totals {
    fn add(&mut self, report: &Report) {
        self.schedules += 1;
        self.steps += report.steps;
        self.took += report.took;
        for (kind, times) in &report.bites {
            let bites = self.bites.entry(*kind).or_default();
            bites.0 += 1;
            bites.1 += times;
        }
        for (end, times) in &report.ends {
            *self.ends.entry(end.clone()).or_default() += times;
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.took.as_secs() / 3600;
        writeln!(
            f,
            "{} schedules, {} steps, {hours} h of virtual time",
            self.schedules, self.steps
        )?;
        writeln!(f, "fault: schedules in which it bit, times in all")?;
        for kind in Kind::ALL {
            let (schedules, times) = self.bites.get(kind).copied().unwrap_or_default();
            writeln!(f, "  {:<15} {schedules:>9} {times:>11}", kind.name())?;
        }
        writeln!(f, "tasks by end:")?;
        for ((flow, state, reason), times) in &self.ends {
            writeln!(f, "  {flow:<15} {state:<10} {reason:<28} {times:>9}")?;
        }
        Ok(())
    }
}

/// Runs the schedules of all `seeds` like [`seeds`], with one safety rule left out.
#[cfg(feature = "ablation")]
#[must_use]
pub fn without(
    rule: skyloom_model::ablation::Rule,
    range: Range<u64>,
    threads: usize,
) -> (Totals, Option<Report>) {
    let enter = || skyloom_model::ablation::Ablated::without(rule);
    on_threads(range, threads, &enter, &|_| {})
}

/// Runs the schedules of all `seeds`, on `threads` threads, until one is violated. `seen` is told of each.
#[must_use]
pub fn seeds(seeds: Range<u64>, threads: usize, seen: &(dyn Fn(&Report) + Sync)) -> (Totals, Option<Report>) {
    on_threads(seeds, threads, &|| (), seen)
}

/// `enter` is called on each thread, and what it gives lives as long as the thread works.
fn on_threads<G>(
    seeds: Range<u64>,
    threads: usize,
    enter: &(dyn Fn() -> G + Sync),
    seen: &(dyn Fn(&Report) + Sync),
) -> (Totals, Option<Report>) {
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    let broken: Mutex<Option<Report>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let _entered = enter();
                let mut mine = Totals::default();
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let report = one(seed, &Omit::default(), 0);
                    mine.add(&report);
                    seen(&report);
                    if report.violation.is_some() {
                        stop.store(true, Ordering::Relaxed);
                        let mut broken = broken.lock();
                        if broken.as_ref().is_none_or(|b| report.seed < b.seed) {
                            *broken = Some(report);
                        }
                    }
                }
                totals.lock().merge(mine);
            });
        }
    });
    (totals.into_inner(), broken.into_inner())
}

impl Totals {
    fn merge(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.steps += other.steps;
        self.took += other.took;
        for (kind, (schedules, times)) in other.bites {
            let bites = self.bites.entry(kind).or_default();
            bites.0 += schedules;
            bites.1 += times;
        }
        for (end, times) in other.ends {
            *self.ends.entry(end).or_default() += times;
        }
    }
}
