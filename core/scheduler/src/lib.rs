//! Where a server goes, and why: pure, synchronous, deterministic.
//!
//! ```text
//!  Request ──┐                       ┌─> Placement { host, claim, ledger_after, explanation }
//!            ├─ Scheduler::place ────┤
//!  Inventory ┘  (filters, weighers)  └─> NoFit { explanation }
//!      └── one HostView per host: its record, facts and ledger, kept up to date from a mirror
//! ```
//!
//! * No clock, no chance, no store: the same request and inventory give the same answer. Hosts that are equally good are
//!   told apart by a hash of (server, host), so that servers spread and schedulers side by side rarely collide.
//! * A [`Placement`] is an offer: it holds once its `ledger_after` is committed under a compare of the ledger's revision.
//! * Every answer explains itself ([`Explanation`]): counts for all hosts, verdicts for the most telling ones.
//!
//! Another policy: give [`FilterScheduler`] other [`Filter`]s and [`Weigher`]s, or implement [`Scheduler`].

mod explain;
mod filter;
pub mod fleet;
mod inventory;
mod ledger;
mod ranking;
mod request;
mod scheduler;
mod weigh;

use std::fmt::Debug;

pub use explain::{Explanation, HostVerdict, Miss, Nearest, NoFit, Rejections, ScorePart, Verdict};
pub use filter::{Amount, BuiltinFilter, Filter, Refusal};
pub use inventory::{HostView, Inventory};
pub use ledger::{claim, release};
pub use request::{Placement, Request};
pub use scheduler::FilterScheduler;
pub use weigh::{BuiltinWeigher, Weigher};

/// Finds a host for a server.
pub trait Scheduler: Send + Sync + Debug + 'static {
    /// Chooses a host of `inventory` for `request`. The same arguments give the same answer.
    ///
    /// # Errors
    /// [`NoFit`] says why no host can take it.
    fn place(&self, request: &Request, inventory: &Inventory) -> Result<Placement, NoFit>;
}
