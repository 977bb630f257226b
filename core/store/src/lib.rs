//! The Store contract: one revisioned, transactional, watchable set of JSON documents.
//!
//! ```text
//!            Txn { guards, writes }                      Commit { revision, changes }
//!  caller ─────────────────────────> Store::commit ─────────────────────────> Watch ──> Mirror<T> ──> readers
//!            Key → JSON document       one revision                 ordered, gapless, atomic per commit, or Gap
//! ```
//!
//! Everything that Skyloom's processes say to one another is a [`Store::commit`] or a [`Watch`] stream; there is no
//! other channel. The model is etcd's (one global revision, compare-and-commit, leases, watch from a revision), cut
//! down to what every backend can honestly give.
//!
//! * Implementers write [`Store`], [`Watch`] and [`Leases`] (together: [`Backend`]) and sit the exam in
//!   `conformance` (behind the feature of that name).
//! * Users hold an `Arc<dyn Backend>` and mostly work through [`Table`] (typed documents) and [`Mirror`] (a cache fed
//!   by list-then-watch). Core never consumes a bare watch.
//!
//! What this is *not*: a place for blobs (values are JSON, bounded by [`Capability::max_value_len`]), and not a lock
//! service: a lease excludes nobody by itself, each write made under it must carry [`Guard::Lease`].

mod about;
mod backoff;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod event;
pub mod feed;
mod key;
pub mod latest;
pub mod layer;
mod lease;
mod memory;
mod mirror;
mod table;
mod txn;
pub mod wire;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;

pub use about::About;
pub use error::{Class, Error, ErrorKind, Result};
pub use event::{Change, WatchEvent, WatchOptions};
pub use key::{Key, KeyError, MAX_KEY_LEN, Prefix};
pub use lease::{Grant, LeaseInfo, LeaseMode, LeaseName, Leases, Renewal, check_grant};
pub use memory::{MemoryConfig, MemoryStore};
pub use mirror::{
    Changed, Changes, MIRROR_RESYNC, Mirror, MirrorBuilder, MirrorDriver, Snapshot, Undecodable,
};
pub use table::{Document, Documents, Table, Versioned};
pub use txn::{Guard, KeyValue, ListOptions, Outcome, Page, Revision, Txn, Value, Write};

/// A revisioned, transactional set of JSON documents.
///
/// # Contract
/// * **Linearizable.** `get`, `list` without `at`, and `commit` take effect at one moment between call and answer.
/// * **Atomic.** All writes of a [`Txn`] happen at one revision, or none does.
/// * **Revisions** are global to the store, start at 1 with the first commit, and grow by at least 1 per commit that
///   writes something. They never go back while the store lives.
/// * **Acknowledged means durable**: after `Ok(Outcome::Committed)` the writes survive the death of every process
///   (as far as [`Capability::durable`] says).
/// * **Three outcomes.** `Ok(Committed)`: it happened. `Ok(Conflict)` or any error but
///   [`ErrorKind::Unknown`]: it did not. `Unknown`: nobody can tell; read back before trying again.
#[async_trait]
pub trait Store: Send + Sync + Debug + 'static {
    /// The document under `key`, or `None`.
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>>;

    /// One page of the documents below `prefix`, in key order, all as of one revision.
    ///
    /// # Errors
    /// [`ErrorKind::Compacted`] when `options.at` is older than the retained history,
    /// [`ErrorKind::Invalid`] when it lies in the future.
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page>;

    /// Checks all guards and applies all writes at one new revision, or changes nothing.
    ///
    /// A transaction without writes (or whose deletes find nothing) checks its guards and answers with the current
    /// revision; it makes no event.
    /// What must be refused before anything else: [`Txn::check`].
    async fn commit(&self, txn: Txn) -> Result<Outcome>;

    /// What this composed store can do, and its limits.
    fn capability(&self) -> Capability;
}

/// Ordered, gapless, resumable change streams.
///
/// # Contract
/// * Every commit after `options.after` that touches the prefix is delivered once, in revision order, as **one**
///   [`WatchEvent::Commit`] with all of its changes below the prefix.
/// * A position that cannot be served (compacted, this watcher was too slow, or a revision that this store has not
///   reached, as after a restore from a backup) is one [`WatchEvent::Gap`], and then the stream ends. The consumer lists again. Nothing is ever skipped silently.
/// * [`WatchEvent::Progress`] says: everything up to this revision has been delivered.
/// * An error is an item; after it the stream ends, and watching again from the last delivered revision loses nothing.
pub trait Watch: Send + Sync + Debug + 'static {
    /// Opens a stream of the commits after `options.after`.
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>>;
}

/// What engine, API and agent hold: one `Arc` with all three abilities.
pub trait Backend: Store + Watch + Leases {}
impl<T: Store + Watch + Leases + ?Sized> Backend for T {}

/// A shared backend.
pub type DynBackend = Arc<dyn Backend>;

/// What a composed store can do: a flat value that layers override beside their code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capability {
    /// Acknowledged commits survive the death of the process and of the machine.
    pub durable: bool,
    /// Most guards plus writes in one transaction.
    pub max_txn_ops: usize,
    /// Longest value in bytes.
    pub max_value_len: usize,
    /// Most documents in one page; a larger `limit` is cut to it.
    pub max_page: usize,
}

impl Capability {
    /// Limits that every backend of Skyloom can keep (etcd's defaults are the narrowest).
    pub const PORTABLE: Self = Self {
        durable: false,
        max_txn_ops: 128,
        max_value_len: 1 << 20,
        max_page: 1000,
    };

    /// The same with `durable` set.
    #[must_use]
    pub const fn with_durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// The same with another `max_value_len`.
    #[must_use]
    pub const fn with_max_value_len(mut self, bytes: usize) -> Self {
        self.max_value_len = bytes;
        self
    }

    /// The same with another `max_txn_ops`.
    #[must_use]
    pub const fn with_max_txn_ops(mut self, ops: usize) -> Self {
        self.max_txn_ops = ops;
        self
    }
}
