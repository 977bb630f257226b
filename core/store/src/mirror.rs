//! A local copy of all documents below a prefix, kept fresh by list-then-watch.
//!
//! ```text
//! Store::list (pages at one revision) ─┐
//!                                      ├─> MirrorDriver::run ─> Data (swapped or changed under a lock) ─> Mirror: get, under, …
//! Watch (from that revision) ──────────┘                    └─> Changes: keys to look at again
//! ```
//!
//! The driver never gives up: after an error or the end of a stream it watches again from the last revision, after a
//! [`crate::WatchEvent::Gap`] it lists again, finds out by comparison what was written and deleted meanwhile, and swaps
//! everything in one step. Readers never see half a commit or half a listing.
//!
//! It does not trust streams either. A commit that comes twice is passed over; one that comes late and tells of something
//! that is not in makes it list again; and every [`MIRROR_RESYNC`] it lists anyhow and takes over what is different, so that
//! an event that a backend lost is missed for that long at most.
//!
//! A document that is no `T` is set aside ([`Mirror::quarantined`]) and does not disturb the others.

mod changes;
mod data;
mod driver;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use skyloom_model::Ids;

use self::changes::Subscribers;
pub use self::changes::{Changed, Changes};
use self::data::{Data, IndexFn};
pub use self::driver::MirrorDriver;
use crate::backoff::Backoff;
use crate::{Document, DynBackend, Error, ErrorKind, Key, Prefix, Result, Revision, Versioned, latest};

/// How often a mirror lists again although nothing seems wrong, unless it is built with another period.
pub const MIRROR_RESYNC: Duration = Duration::from_secs(60);

/// A document that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecodable {
    /// Its key.
    pub key: Key,
    /// The commit that last wrote it.
    pub modified: Revision,
    /// Why it is no `T`.
    pub error: String,
}

/// How far the copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    ready: bool,
    revision: Revision,
}

struct Shared<T> {
    prefix: Prefix,
    indexes: Vec<(&'static str, IndexFn<T>)>,
    data: RwLock<Arc<Data<T>>>,
    subscribers: Subscribers,
    last_error: Mutex<Option<String>>,
}

/// The reading half: cheap to clone, never waits for the store.
pub struct Mirror<T> {
    shared: Arc<Shared<T>>,
    position: latest::Receiver<Position>,
}

impl<T> Clone for Mirror<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            position: self.position.clone(),
        }
    }
}

impl<T> fmt::Debug for Mirror<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror")
            .field("prefix", &self.shared.prefix)
            .field("position", &*self.position.borrow())
            .finish_non_exhaustive()
    }
}

impl<T: Document> Mirror<T> {
    /// A mirror of `prefix` without indexes, and the driver that must be run to feed it. It lists again every
    /// [`MIRROR_RESYNC`].
    pub fn new(backend: DynBackend, prefix: Prefix) -> (Self, MirrorDriver<T>) {
        Self::builder(backend, prefix).build()
    }

    /// A mirror of `prefix` with indexes or other settings.
    #[must_use]
    pub fn builder(backend: DynBackend, prefix: Prefix) -> MirrorBuilder<T> {
        MirrorBuilder {
            backend,
            prefix,
            indexes: Vec::new(),
            page: 0,
            buffer: 1024,
            resync: MIRROR_RESYNC,
            first_wait: Duration::from_millis(100),
            most_wait: Duration::from_secs(10),
            ids: None,
        }
    }

    /// Below what all documents of this mirror lie.
    #[must_use]
    pub fn prefix(&self) -> &Prefix {
        &self.shared.prefix
    }

    /// Waits until the first complete listing is in.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the driver has ended before.
    pub async fn ready(&self) -> Result<()> {
        self.reached(|p| p.ready).await
    }

    /// Waits until everything up to `revision` is in. `revision` should be that of a commit below this prefix, for a
    /// store need not tell about others.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the driver has ended before.
    pub async fn wait_for(&self, revision: Revision) -> Result<()> {
        self.reached(|p| p.ready && p.revision >= revision).await
    }

    async fn reached(&self, condition: impl FnMut(&Position) -> bool) -> Result<()> {
        let mut position = self.position.clone();
        match position.wait_for(condition).await {
            Ok(_) => Ok(()),
            Err(_) => {
                Err(Error::new(ErrorKind::Unavailable, "wait for mirror").with("prefix", &self.shared.prefix))
            }
        }
    }

    /// Whether the first complete listing is in.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.position.borrow().ready
    }

    /// The revision up to which everything is in.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.shared.data.read().revision
    }

    /// The document under `key`. `None` also when it is quarantined: who acts on absence asks
    /// [`Mirror::is_quarantined`] too.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<Versioned<T>>> {
        self.shared.data.read().get(key).cloned()
    }

    /// The documents below `prefix`, in key order.
    #[must_use]
    pub fn under(&self, prefix: &Prefix) -> Vec<Arc<Versioned<T>>> {
        self.shared.data.read().under(prefix).cloned().collect()
    }

    /// The documents that index `name` files under `value`, in key order. An index that was not declared is empty.
    #[must_use]
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<Versioned<T>>> {
        self.snapshot().by_index(name, value)
    }

    /// Everything as of one revision. Costs nothing; while it is kept, the next change copies the map once.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<T> {
        Snapshot {
            data: Arc::clone(&self.shared.data.read()),
            shared: Arc::clone(&self.shared),
        }
    }

    /// The keys that change from now on. See [`Changes`].
    #[must_use]
    pub fn changes(&self) -> Changes {
        // Under the lock that the driver takes to change the data, so that no change falls between.
        let data = self.shared.data.read();
        let changes = self.shared.subscribers.add(self.is_ready());
        drop(data);
        changes
    }

    /// The documents that could not be decoded, in key order.
    #[must_use]
    pub fn quarantined(&self) -> Vec<Undecodable> {
        self.shared.data.read().quarantine.values().cloned().collect()
    }

    /// Whether there is a document under `key` that could not be decoded.
    #[must_use]
    pub fn is_quarantined(&self, key: &Key) -> bool {
        self.shared.data.read().quarantine.contains_key(key)
    }

    /// Why the store cannot be followed at the moment; `None` while all is well. For health pages.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.shared.last_error.lock().clone()
    }
}

/// All documents of a mirror as of one revision.
pub struct Snapshot<T> {
    data: Arc<Data<T>>,
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self {
            data: Arc::clone(&self.data),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> fmt::Debug for Snapshot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("prefix", &self.shared.prefix)
            .field("revision", &self.data.revision)
            .field("len", &self.data.items.len())
            .finish()
    }
}

impl<T: Document> Snapshot<T> {
    /// The revision of which this is the truth.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.data.revision
    }

    /// How many documents there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.items.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.items.is_empty()
    }

    /// The document under `key`.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Arc<Versioned<T>>> {
        self.data.get(key)
    }

    /// All documents in key order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Versioned<T>>> {
        self.data.items.values()
    }

    /// The documents below `prefix`, in key order.
    pub fn under<'a>(&'a self, prefix: &'a Prefix) -> impl Iterator<Item = &'a Arc<Versioned<T>>> {
        self.data.under(prefix)
    }

    /// The documents that index `name` files under `value`, in key order. An index that was not declared is empty.
    #[must_use]
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<Versioned<T>>> {
        match self.shared.indexes.iter().position(|(n, _)| *n == name) {
            Some(index) => self.data.by_index(index, value).cloned().collect(),
            None => {
                tracing::error!(name, prefix = %self.shared.prefix, "no such index of this mirror");
                Vec::new()
            }
        }
    }
}

/// Settings of a mirror.
pub struct MirrorBuilder<T> {
    backend: DynBackend,
    prefix: Prefix,
    indexes: Vec<(&'static str, IndexFn<T>)>,
    page: usize,
    buffer: usize,
    resync: Duration,
    first_wait: Duration,
    most_wait: Duration,
    ids: Option<Arc<dyn Ids>>,
}

impl<T> fmt::Debug for MirrorBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MirrorBuilder")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl<T: Document> MirrorBuilder<T> {
    /// With a secondary index: `values` gives what a document is filed under.
    #[must_use]
    pub fn with_index(
        mut self,
        name: &'static str,
        values: impl Fn(&T) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        self.indexes.push((name, Box::new(values)));
        self
    }

    /// Lists in pages of at most `documents`; 0 is the backend's largest page.
    #[must_use]
    pub fn with_page(mut self, documents: usize) -> Self {
        self.page = documents;
        self
    }

    /// Lets at most `commits` wait before the store answers [`crate::WatchEvent::Gap`].
    #[must_use]
    pub fn with_buffer(mut self, commits: usize) -> Self {
        self.buffer = commits;
        self
    }

    /// Lists again every `period` and not every [`MIRROR_RESYNC`], as a safety net under watches that miss something.
    #[must_use]
    pub fn with_resync(mut self, period: Duration) -> Self {
        self.resync = period;
        self
    }

    /// Waits from `first`, doubling, up to `most` after failures.
    #[must_use]
    pub fn with_backoff(mut self, first: Duration, most: Duration) -> Self {
        self.first_wait = first;
        self.most_wait = most;
        self
    }

    /// Takes a random part of each wait, so that many mirrors do not come back in step.
    #[must_use]
    pub fn with_jitter(mut self, ids: Arc<dyn Ids>) -> Self {
        self.ids = Some(ids);
        self
    }

    /// The mirror, and the driver that must be run to feed it.
    pub fn build(self) -> (Mirror<T>, MirrorDriver<T>) {
        let data = Data::empty(self.indexes.len());
        let shared = Arc::new(Shared {
            prefix: self.prefix,
            indexes: self.indexes,
            data: RwLock::new(Arc::new(data)),
            subscribers: Subscribers::default(),
            last_error: Mutex::new(None),
        });
        let (sender, position) = latest::channel(Position {
            ready: false,
            revision: Revision(0),
        });
        let driver = MirrorDriver {
            backend: self.backend,
            shared: Arc::clone(&shared),
            position: sender,
            page: self.page,
            buffer: self.buffer,
            resync: self.resync,
            backoff: Backoff::new(self.first_wait, self.most_wait, self.ids),
        };
        (Mirror { shared, position }, driver)
    }
}
