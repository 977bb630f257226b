//! A cloud's records as a whole: moved, kept, put back, checked, and compared with what the hosts say.
//!
//! ```text
//!  store ──Snapshot (one revision, page by page)──┬──> Filler ──> empty store ──> read again, same hash ──> usable
//!                                                 └──> file with a trailer that says its count and hash ──> Filler …
//! ```
//!
//! * [`copy`] moves a cloud to another store; [`backup`] and [`restore`] go by a file. All work over any two stores.
//! * A target is filled in the order of the keys, and its mark [`skyloom_model::Copying`] moves with every batch, in the same
//!   commit. The same command goes on after a crash; until it ends nobody uses the store.
//! * What the store says of itself (`cloud/`), and leases, are not copied: the last commit writes an incarnation of the target's
//!   own.
//! * [`check`] looks for what does not fit together; [`compare`] for what the hosts see otherwise.

mod backup;
mod check;
mod compare;
mod copy;
mod digest;
mod fill;
mod restore;
mod snapshot;

pub use backup::{BackupSummary, backup};
pub use check::{CheckReport, Finding, check};
pub(crate) use compare::{Adoptable, adoptable, compare};
pub use compare::{Difference, DifferenceKind, SilentHost};
pub use copy::{CopySummary, copy};
pub use digest::Tally;
pub use restore::{BackupHeader, RestoreSummary, inspect_backup, restore};
