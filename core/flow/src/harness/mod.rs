//! Tortures flows: whatever goes wrong while a task is carried out, it ends, and the world is as it was before or as asked for.
//!
//! ```text
//!  Arena ── world(case) ──> World: store, flows, jobs, outside ──> plain run: commits, jobs, what the outside looks like
//!    one fresh world per run                                            │
//!    every job twice · each job failing, before and after its effect,   │ all troubles that the plain run has room for
//!    for good and until its tries are used up · each undo twice,   <────┘
//!    failing once, failing for good · death before and after each
//!    commit, of one process and of all · cancelled after each commit
//!                 └──> judged alike: allowed end, outside as before or as after, nothing left over, asking again works
//! ```
//!
//! For everybody who writes a [`crate::TaskFlow`]. The driver, the workers, the journals and the leases are the real ones; time
//! is tokio's, which the test must have paused. Nothing here knows a flow: an [`Arena`] says how a world is made, a [`Case`]
//! what is asked for.

mod clock;
mod judge;
mod lives;
mod run;
mod script;
mod tamper;
mod tap;

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::Arc;

use async_trait::async_trait;
use skyloom_model::{Clock, HostId, Ids, OrderVerb, Task, TaskId};
use skyloom_scheduler::Scheduler;
use skyloom_store::DynBackend;

use crate::{Companion, FlowRegistry, JobRegistry};

pub use clock::TokioClock;
pub use judge::torture;
pub use run::carry;
pub use script::{How, Target, Trouble, When, Who};

/// Makes worlds.
#[async_trait]
pub trait Arena: Send + Sync + Debug {
    /// All cases that it knows, at least one for each flow.
    fn cases(&self) -> Vec<Case>;

    /// A fresh world with everything that `case` needs, and nothing under way: the same each time.
    async fn world(&self, case: &Case, clock: Arc<dyn Clock>) -> Arc<dyn World>;
}

/// One asked-for change in one kind of world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// The flow that it is for.
    pub flow: &'static str,
    /// Tells it from other cases of the flow.
    pub name: &'static str,
    /// Where its way back leads.
    pub back: Back,
}

/// Where the way back of a task leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// Everything is as it was before.
    Before,
    /// Some effects cannot be taken back, such as a deletion: what is left is as it is at some point of the plain run.
    Between,
    /// From some point on there is no way back: what fails there is made good, and the task may be done all the same. What fails before
    /// is as [`Back::Before`].
    Onward,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.flow, self.name)
    }
}

/// What can be seen of the outside: names with what they are. No ids, places or counts that may differ between two runs that
/// both did what was asked for.
pub type Digest = BTreeMap<String, String>;

/// A world in which one task is carried out.
#[async_trait]
pub trait World: Send + Sync + Debug {
    /// Its store.
    fn backend(&self) -> DynBackend;
    /// What its engine knows.
    fn flows(&self) -> FlowRegistry;
    /// What its engine runs itself, in one life of it.
    fn engine_jobs(&self) -> JobRegistry;
    /// Its hosts.
    fn hosts(&self) -> Vec<HostId>;
    /// What the agent of `host` runs in one life of it, which reaches the store through `backend`.
    fn host_jobs(&self, host: HostId, backend: DynBackend) -> JobRegistry;
    /// What the agent of `host` adds to results.
    fn companion(&self, host: HostId) -> Option<Arc<dyn Companion>>;
    /// Chooses hosts.
    fn scheduler(&self) -> Arc<dyn Scheduler>;
    /// Fresh ids.
    fn ids(&self) -> Arc<dyn Ids>;

    /// Asks for the change, as a user would.
    async fn ask(&self) -> Task;
    /// Asks anew, as a user would whose task has failed, for what is still wanted; nothing if what is left is that already.
    async fn ask_again(&self) -> Option<Task>;
    /// Asks for the task's end. When it has ended already, nothing happens.
    async fn cancel(&self, task: TaskId);
    /// Gives an operator's order.
    async fn order(&self, task: TaskId, verb: OrderVerb);

    /// The outside as it is.
    async fn digest(&self) -> Digest;
    /// How often something was done that must not be done twice, by name.
    async fn tally(&self) -> BTreeMap<String, u64>;
    /// Everything that belongs to nobody, or that records and outside disagree about, now that `ended` has ended and nothing is
    /// under way.
    async fn leftovers(&self, ended: &Task) -> Vec<String>;
}
