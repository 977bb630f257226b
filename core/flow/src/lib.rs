//! Tasks woven into plans of jobs.
//!
//! ```text
//!  Task ──> TaskFlow::plan (pure) ──> Plan: a DAG of JobSpecs, every choice taken ──┐ one commit
//!                                                                                   v
//!  decide (pure): plan + job records ──> dispatch | retry | undo | end        JobRecord per runnable job
//!        ^                                        │ driver: the only IO              │ watch
//!        └────────── job records <── worker: Job::run / Job::undo <──────────────────┘
//! ```
//!
//! * [`TaskFlow::plan`] and [`decide`] are pure: same input, same answer. All IO is in [`Driver`] (the engine's side) and
//!   [`Worker`] (the side that makes effects, in an agent or an engine).
//! * Nothing is remembered outside the Store: whoever owns a task reads its records and goes on. A restart continues.
//! * A job says *ensure*: it looks, makes its one effect, looks again. It may be called any number of times, also after
//!   a crash in its middle. Undo is called for every job that was started and copes with "it never happened".
//!
//! Why not only reconcilers: people ask for one change and want to see its steps, its end and its reason; and undoing half
//! a change needs to know what was begun. Reconcilers stand beside this and may only submit tasks.

mod backoff;
pub mod compose;
mod context;
mod custody;
mod decide;
mod driver;
#[cfg(feature = "harness")]
pub mod harness;
mod inventory;
pub mod journal;
mod keeper;
mod read;
mod registry;
mod worker;

pub use context::{Lend, PlanContext, Planned, Records, Refusal, SettleContext, Settled, StageEnd};
pub use custody::{Held, HoldFeed, Standing, Witness, not_held};
pub use decide::{Decision, MAX_UNDO_ATTEMPTS, RETRY_BUDGET, View, decide, wake};
pub use driver::{Driver, DriverParts, Life, MAX_CLAIMS, Rest, Slot};
pub use inventory::{InventoryDriver, InventoryFeed};
pub use keeper::{Fence, LeaseKeeper};
pub use read::Reading;
pub use registry::{FlowRegistry, Job, JobContext, JobError, JobRegistry, TaskFlow, Undo};
pub use worker::{Companion, Worker, WorkerParts};
