//! Playing a day: a script of the user's own on simulated hosts, by the product's own code, with the checker's eyes on it.
//!
//! ```text
//!  TOML ──parse──> Script ──with Options──> Play (a Scenario, acts at moments) ──run──> Played: timeline, summary
//!                                             │ World as for every schedule          ^
//!                                             └ Bed ── every commit ──> Diary ───────┘
//! ```
//!
//! One seed and one script are one trace. No fault is random but those that the script's `weather` asks for.
//!
//! ```
//! use skyloom_sim::play::{Options, Play};
//!
//! let script = r#"
//!     start = "08:00"
//!     [[hosts]]
//!     count = 2
//!     [[events]]
//!     at = "08:05"
//!     create = { count = 3, name = "web-{n}", flavor = "m1.small" }
//! "#;
//! let played = Play::parse(script, &Options::seed(42))?.run();
//! assert!(played.violation.is_none());
//! assert!(played.to_string().contains("create 3 × m1.small"));
//! # Ok::<(), skyloom_sim::play::ScriptError>(())
//! ```

mod act;
mod check;
mod describe;
mod diary;
mod error;
mod hand;
mod pattern;
mod played;
mod script;
mod stage;
mod text;
mod units;

use std::sync::Arc;

pub use error::ScriptError;
pub use pattern::{Glob, Numbered};
pub use played::{Entry, HostUse, Kind as EntryKind, Latency, Played, Retries, Size, Summary, TaskCount};
pub use script::{
    Create, Cut, Direction, EnginesFor, Event, FlavorSize, For, Guests, Halt, HostGroup, Hosts, HostsFor,
    Script, Select, SlowStore, Weather, What,
};
pub use units::{Gib, Mib, Moment, Span};

pub(crate) use act::Act;
pub(crate) use diary::Diary;
pub(crate) use stage::HostPlan;

use crate::bed::Bed;
use crate::checker::Checker;
use crate::faults;
use crate::swarm::Scenario;
use crate::{run, world};

/// The day that is played when nobody brings one.
pub const BUILT_IN: &str = include_str!("../../../examples/day.toml");

/// What a script leaves open.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Options {
    /// The seed: what is drawn follows from it.
    pub seed: u64,
    /// So many hosts instead of the script's: its groups grow or shrink alike.
    pub hosts: Option<usize>,
    /// So many engines instead of the script's.
    pub engines: Option<usize>,
    /// Another end of the day.
    pub until: Option<Moment>,
    /// Lines of the trace that are kept.
    pub trace: usize,
}

impl Options {
    /// All as the script says, by this seed.
    #[must_use]
    pub fn seed(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }
    /// With so many hosts.
    #[must_use]
    pub fn with_hosts(mut self, hosts: Option<usize>) -> Self {
        self.hosts = hosts;
        self
    }
    /// With so many engines.
    #[must_use]
    pub fn with_engines(mut self, engines: Option<usize>) -> Self {
        self.engines = engines;
        self
    }
    /// With another end.
    #[must_use]
    pub fn with_until(mut self, until: Option<Moment>) -> Self {
        self.until = until;
        self
    }
    /// With so many lines of the trace.
    #[must_use]
    pub fn with_trace(mut self, lines: usize) -> Self {
        self.trace = lines;
        self
    }
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// What is wrong with it, with line and field.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        let script: Self = toml::from_str(text).map_err(|e| ScriptError::parsing(&e, text))?;
        check::script(&script).map_err(|e| e.located(text))?;
        Ok(script)
    }
}

/// A day that is ready to be played.
#[derive(Debug)]
pub struct Play {
    scenario: Scenario,
    diary: Diary,
    trace: usize,
}

impl Play {
    /// Makes a day ready.
    ///
    /// # Errors
    /// What does not make sense, with its field.
    pub fn new(script: &Script, options: &Options) -> Result<Self, ScriptError> {
        check::script(script)?;
        let (scenario, diary) = stage::set(script, options)?;
        Ok(Self {
            scenario,
            diary,
            trace: options.trace,
        })
    }

    /// Reads a script and makes it ready.
    ///
    /// # Errors
    /// What is wrong with it, with line and field.
    pub fn parse(text: &str, options: &Options) -> Result<Self, ScriptError> {
        let script = Script::parse(text)?;
        Self::new(&script, options).map_err(|e| e.located(text))
    }

    /// Plays it to its end: as fast as it goes, on this thread, which must not be one of a runtime.
    #[must_use]
    pub fn run(self) -> Played {
        let Self {
            scenario,
            diary,
            trace,
        } = self;
        run::on_a_runtime(async move {
            let weather = faults::Weather::new(&scenario.rates);
            let bed = Bed::new(weather, scenario.history, Checker::default(), trace).with_diary(diary);
            let bed = Arc::new(bed);
            let engines = scenario.engines;
            let report = world::run_on(scenario, bed.clone()).await;
            played::played(report, bed.take_diary().unwrap_or_default(), engines)
        })
    }
}
