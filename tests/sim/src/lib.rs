//! The seeded simulator: the product's own engine, agents and facade, over one store in memory and fake hosts, in virtual
//! time, with everything going wrong that may.
//!
//! ```text
//!  seed ─> Scenario (sizes, operations, faults) ─> World: engines, agents, API, clients ─> Report
//!                                                    │ each process: Link, Gate, Clock, Reach
//!                                                    v
//!                                                  Bed: MemoryStore + Checker + Trace
//! ```
//!
//! * One seed is one schedule: one thread, paused time, one generator split by purpose. The same seed gives the same trace.
//! * Three phases: faults; healing; and then everything must come to rest within a bound.
//! * The checker looks at every commit and effect (the invariants I1 to I12 are listed in `checker`).
//! * A failing seed is shrunk to the faults and operations that it needs, and printed with the line that repeats it.

mod bed;
mod checker;
mod client;
mod clock;
mod direct;
mod faults;
mod founding;
mod gate;
mod host;
mod images;
mod journal;
mod link;
mod old;
pub mod play;
mod process;
mod rng;
mod run;
mod shrink;
mod swarm;
mod trace;
mod watcher;
mod work;
mod world;

pub use bed::Violation;
pub use faults::Kind;
#[cfg(feature = "ablation")]
pub use run::without;
pub use run::{Totals, check_trace, one, reproducer, seeds};
pub use shrink::{Shrunk, shrink};
pub use swarm::Omit;
pub use world::Report;
