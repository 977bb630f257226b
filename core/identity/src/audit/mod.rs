//! What was done, by whom, to what, and how it ended; and that nobody changed that afterwards.
//!
//! ```text
//! change ─ AuditSink::part ──> the change's own commit ──┐
//! denied login ─ record ─> queue, floods counted ─ run ──┴─> audit/{day}/{entry} ── watch ──> Sealer (one, by a lease)
//!                                                                 │                              │
//!                                search: pages of bounded work <──┘    audit-seals/{n} + head <──┘ each with the hash of the one before
//!                                                                                   └──> verify: what was changed, removed, put in
//! ```
//!
//! * **Nothing free-form.** An entry holds ids, words of the program ([`Word`]) and two texts, a request's id and an object's
//!   name ([`Text`], bounded and escaped). What a request carried cannot get in: names of changed fields are words.
//! * **In the same commit.** What changes something is written with it, or not at all.
//! * **Sealed in order of commit**, seconds later. Whoever can write to the store can still add entries, and can remove what no
//!   seal names yet; and who rewrites all seals from one on must change the last one's hash: keep that elsewhere now and then
//!   ([`Report::head`]) and hand it to [`verify`] ([`VerifyOptions::known`]).
//! * **Kept for so many days.** What is removed then is named by a seal, and the chain goes on over it.

mod entry;
mod flood;
mod retain;
mod seal;
mod sealer;
mod search;
mod sink;
mod verify;

pub use entry::{AuditActor, AuditObject, AuditOutcome, AuditScope, Entry, EntryId, Repeated, Text, Word};
pub use seal::{Leaf, Noted, Seal, SealHead, SealKind, SealsRemoved};
pub use sealer::{Sealer, SealerConfig};
pub use search::{AuditFilter, AuditPage, search_audit};
pub use sink::{AuditSink, AuditWriter, Recorded, StoreAudit};
pub use verify::{Finding, Problem, Report, VerifyOptions, verify};

use skyloom_store::{Error, ErrorKind, Key, KeyError, Prefix};

/// Below it all entries lie.
pub const AUDIT: &str = "audit";
/// Below it all seals lie.
pub const SEALS: &str = "audit-seals";

fn bad(error: KeyError) -> Error {
    Error::new(ErrorKind::Internal, "make a key of the audit").because(error)
}

fn prefix(of: &str) -> Result<Prefix, Error> {
    Prefix::parse(of).map_err(bad)
}

fn key(path: &str) -> Result<Key, Error> {
    Key::parse(path).map_err(bad)
}
