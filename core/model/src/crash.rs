//! Named points at which a test build can be made to die, as by kill -9.
//!
//! In every normal build [`crash_point`] is empty and costs nothing. With the feature `failpoints` a program that holds what
//! [`arm`] gives dies at the points that its variable `FAILPOINTS` names: `engine.after_plan_commit=return` at the first
//! passage, `agent.after_effect=3*off->return` at the fourth. `docs/reliability.md` has the rules that make each death harmless.

/// A point at which a process may die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashPoint {
    /// What the code calls it.
    pub name: &'static str,
    /// Its number in the catalogue of crashes.
    pub number: u8,
    /// What has happened by then, and what has not.
    pub place: &'static str,
}

/// All points, in the order in which a request meets them.
pub const CRASH_POINTS: [CrashPoint; 19] = [
    point(
        "api.before_commit",
        1,
        "the request is checked, nothing is written",
    ),
    point("api.after_commit", 2, "written, not answered"),
    point(
        "engine.after_claim",
        3,
        "the task is this engine's, not looked at",
    ),
    point("engine.before_plan_commit", 4, "planned and placed, not written"),
    point(
        "engine.after_plan_commit",
        5,
        "plan, claim and first jobs are written",
    ),
    point(
        "engine.after_dispatch",
        6,
        "what follows from a result is written",
    ),
    point(
        "engine.result_seen",
        7,
        "a result is read, what follows is not written",
    ),
    point(
        "engine.before_end",
        8,
        "all jobs have succeeded, the end is not written",
    ),
    point(
        "engine.after_end",
        9,
        "the end is written, nothing else has happened since",
    ),
    point(
        "engine.unwind_decided",
        10,
        "a failure is read, the turn is not written",
    ),
    point("engine.amid_unwind", 11, "the next undo is decided, not written"),
    point("engine.all_undone", 12, "all is undone, the end is not written"),
    point("agent.job_seen", 13, "a job is read, nothing is done"),
    point(
        "agent.after_started",
        14,
        "`started` is in the store, not in the journal",
    ),
    point(
        "agent.after_intent",
        15,
        "the intent is in the journal, nothing is done",
    ),
    point(
        "agent.mid_effect",
        16,
        "the simulated host has done it, its verb has not returned",
    ),
    point("agent.after_effect", 17, "done, not in the journal"),
    point(
        "agent.after_outcome",
        18,
        "the outcome is in the journal, not in the store",
    ),
    point(
        "agent.after_report",
        19,
        "the outcome is in the store, the journal still has it",
    ),
];

const fn point(name: &'static str, number: u8, place: &'static str) -> CrashPoint {
    CrashPoint { name, number, place }
}

/// Dies here, if this is a test build and `name` is armed.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn crash_point(_name: &'static str) {}

/// Dies here, if this is a test build and `name` is armed.
#[cfg(feature = "failpoints")]
pub fn crash_point(name: &'static str) {
    debug_assert!(CRASH_POINTS.iter().any(|p| p.name == name), "{name}");
    fail::fail_point!(name, |_| die());
}

/// As by kill -9: nothing is tidied up.
#[cfg(feature = "failpoints")]
fn die() {
    use rustix::process::{Signal, getpid, kill_process};
    if kill_process(getpid(), Signal::KILL).is_err() {
        std::process::abort();
    }
}

/// Points stay armed while it lives.
#[must_use]
pub struct Armed {
    #[cfg(feature = "failpoints")]
    _scenario: fail::FailScenario<'static>,
}

impl std::fmt::Debug for Armed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Armed")
    }
}

/// Arms what the variable `FAILPOINTS` names, for the whole process. Panics when it cannot be read: a test that kills nothing
/// shows nothing. Does nothing without the feature `failpoints`.
pub fn arm() -> Armed {
    Armed {
        #[cfg(feature = "failpoints")]
        _scenario: fail::FailScenario::setup(),
    }
}

#[cfg(test)]
mod tests {
    use super::CRASH_POINTS;

    #[test]
    fn names_and_numbers_are_unique() {
        for (n, a) in CRASH_POINTS.iter().enumerate() {
            assert!(
                CRASH_POINTS[..n]
                    .iter()
                    .all(|b| a.name != b.name && a.number != b.number),
                "{a:?}"
            );
        }
    }
}
