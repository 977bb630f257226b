//! Where a server goes, and why: pure, synchronous, deterministic.
//!
//! ```text
//!  Request ──┐                       ┌─> Placement { host, claim, ledger_after, report }
//!            ├─ Scheduler::place ────┤
//!  Inventory ┘  (a fleet's policy)   └─> NoFit { report }
//!      └── one HostView per host: its record, facts and ledger, kept up to date from a mirror, and the fleet's index of them
//! ```
//!
//! * No clock, no chance, no store: the same request and inventory give the same answer. Hosts that are equally good are
//!   told apart by a hash of (server, host), so that servers spread and schedulers side by side rarely collide.
//! * A [`Placement`] is an offer: it holds once its `ledger_after` is committed under a compare of the ledger's revision.
//! * Every answer explains itself ([`fleet::Report`]): counts for all hosts, and a bounded number of hosts by name.
//!
//! Another policy: give [`FleetScheduler`] another [`fleet::Policy`], or implement [`Scheduler`].

pub mod fleet;
mod inventory;
mod ledger;
mod ranking;
mod request;
mod scheduler;

use std::fmt::Debug;

pub use inventory::{HostView, Inventory};
pub use ledger::{claim, release};
pub use request::{NoFit, Placement, Request};
pub use scheduler::FleetScheduler;

/// Finds a host for a server.
pub trait Scheduler: Send + Sync + Debug + 'static {
    /// Chooses a host of `inventory` for `request`. The same arguments give the same answer.
    ///
    /// # Errors
    /// [`NoFit`] says why no host can take it.
    fn place(&self, request: &Request, inventory: &Inventory) -> Result<Placement, NoFit>;

    /// The policy that it goes by, for questions beside placing one server: how many more fit, and whether several do.
    fn policy(&self) -> &fleet::Policy;
}
