//! A fleet: many hosts, indexed, so that a decision costs microseconds whatever their number.
//!
//! ```text
//!  Machine, HostLedger ─> Fleet ── decide(Policy, Demand) ─> Offer ── claim ─> taken, or Conflict: decide again
//!                           │                                          release <─┘
//!                           ├── place(demands): a batch, all or as many as fit
//!                           ├── decide_with_reasons: the same decision, with a bounded Report to keep
//!                           ├── explain ─> Report: counts, score parts, the fewest changes that would make it fit
//!                           ├── forecast: how many more, and where
//!                           ├── advise: what to move so that it is spread, consolidated or drained
//!                           └── scan: the same answer as decide, from every host in full
//! ```
//!
//! * **Index.** Hosts stand in the order of their ids below a tree of summaries (the most that is free of each class, the features that some
//!   host and that each host has). What changes for a host changes a handful of nodes.
//! * **Decision.** From a start that depends on the server, the first few hosts that fit are compared by the policy's weighers.
//!   [`Policy::whole`] compares all.
//! * **Truth.** The same fleet, policy and demand give the same answer: no thread, no clock, no order of a map takes part.

mod account;
mod advise;
mod change;
mod choose;
mod demand;
mod forecast;
mod machine;
mod policy;
mod query;
mod report;
mod state;
mod tree;

pub use advise::{Advice, Goal, Move, Resident, Stay, advise};
pub use change::{Change, Counterfactual};
pub use choose::{Batch, Offer, View};
pub use demand::{Demand, GroupRule, Stand, Topology};
pub use forecast::Forecast;
pub use machine::{Amounts, CLASSES, Class, Closed, Feature, Machine};
pub use policy::{HostFilter, HostWeigher, Policy, Weigh};
pub use query::Lack;
pub use report::{Fallen, Refused, Report, ScorePart, Scored};
pub use state::{Conflict, Fleet, Occupied};
