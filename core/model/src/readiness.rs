//! How far a process is in its boot order: configuration and templates -> health -> caches -> watch (the seed's order).
//!
//! Process parts report into a shared [`Readiness`]; the health endpoints read it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

/// A step of the boot order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Phase {
    /// Configuration and templates are read and checked.
    Configuration,
    /// The process has made itself known: leases, listeners, host facts.
    Health,
    /// Caches hold everything that was there.
    Caches,
    /// Changes are followed, work is taken.
    Watch,
}

/// How far a phase is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PhaseState {
    /// Not begun or under way.
    Pending,
    /// Done.
    Ready,
}

/// One line of a readiness report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PhaseReport {
    /// Which part of the process: `api`, `engine`, `agent h1`.
    pub part: String,
    /// Which phase.
    pub phase: Phase,
    /// How far.
    pub state: PhaseState,
    /// What it waits for, or what it found.
    pub detail: String,
}

/// The phases of all parts of one process. Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<Phases>>);

/// By part and phase: how far, and what there is to say.
type Phases = BTreeMap<(String, Phase), (PhaseState, String)>;

impl Readiness {
    /// No parts yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Announces a part with all phases pending.
    pub fn expect(&self, part: &str) {
        let mut phases = self.0.lock();
        for phase in [Phase::Configuration, Phase::Health, Phase::Caches, Phase::Watch] {
            phases
                .entry((part.to_owned(), phase))
                .or_insert((PhaseState::Pending, String::new()));
        }
    }

    /// Reports a phase as done.
    pub fn done(&self, part: &str, phase: Phase, detail: impl Into<String>) {
        self.0
            .lock()
            .insert((part.to_owned(), phase), (PhaseState::Ready, detail.into()));
    }

    /// Reports a phase as (again) not done.
    pub fn pending(&self, part: &str, phase: Phase, detail: impl Into<String>) {
        self.0
            .lock()
            .insert((part.to_owned(), phase), (PhaseState::Pending, detail.into()));
    }

    /// Whether every announced phase is done.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let phases = self.0.lock();
        !phases.is_empty() && phases.values().all(|(state, _)| *state == PhaseState::Ready)
    }

    /// All phases, by part and in boot order.
    #[must_use]
    pub fn report(&self) -> Vec<PhaseReport> {
        let phases = self.0.lock();
        let line =
            |((part, phase), (state, detail)): (&(String, Phase), &(PhaseState, String))| PhaseReport {
                part: part.clone(),
                phase: *phase,
                state: *state,
                detail: detail.clone(),
            };
        phases.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_every_phase_of_every_part() {
        let readiness = Readiness::new();
        assert!(!readiness.is_ready());
        readiness.expect("api");
        for phase in [Phase::Configuration, Phase::Health, Phase::Caches] {
            readiness.done("api", phase, "");
        }
        assert!(!readiness.is_ready());
        readiness.done("api", Phase::Watch, "following");
        assert!(readiness.is_ready());
        readiness.expect("engine");
        assert!(!readiness.is_ready());
        assert_eq!(readiness.report().len(), 8);
    }
}
