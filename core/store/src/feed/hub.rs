//! Hands commits to the watchers whose prefix they touch.
//!
//! Whoever learns of durable commits publishes them, in order. There is one [`Ring`] for each watched prefix, so a commit
//! looks up the ancestors of its keys, is put into one ring each however many watchers read it, and meets nobody else. A
//! watcher that does not keep up is lost and told so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Commit;
use super::ring::{Reader, Ring, Turn};
use crate::{Change, Prefix, Revision};

/// After this many revisions without a commit for them, watchers are told how far the store has come.
const PROGRESS_EVERY: u64 = 1_000;
/// Most commits that may wait for one watcher, whatever it asks for.
const MAX_BUFFER: usize = 1 << 20;
/// Most bytes of documents that may wait for the watchers of one prefix.
const MAX_BYTES: usize = 256 << 20;
/// Commits that a watcher takes at a time.
const AT_A_TIME: usize = 64;

/// What a watcher is sent.
#[derive(Debug)]
pub enum Live {
    /// A commit that touches its prefix. It may be one that the replay has shown already.
    Commit(Arc<Commit>),
    /// Everything up to here has been sent.
    Progress(Revision),
}

/// Why a watcher is sent nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was too slow, or the store lost track of what it has delivered.
    Lost,
    /// The store was closed.
    Closed,
}

/// Where the store stands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Head {
    /// The last revision that was published.
    pub revision: Revision,
    /// The oldest revision from which watching works.
    pub floor: Revision,
    /// No watch is served any more.
    pub closed: bool,
}

/// The watchers of one store.
#[derive(Debug, Default)]
pub struct Hub(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    head: Head,
    progress_at: u64,
    by_prefix: BTreeMap<String, CommitRing>,
}

/// One watcher's end of the line; dropping it signs off.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Hub>,
    prefix: String,
    /// None when the store was closed before.
    reader: Option<Reader<Arc<Commit>>>,
    at_a_time: usize,
    ready: VecDeque<Arc<Commit>>,
    /// Commits after this one are sent.
    pub start: Revision,
}

impl Subscription {
    /// The next thing, or why there is none.
    ///
    /// # Errors
    /// The reason why nothing more comes. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Live, End> {
        loop {
            if let Some(commit) = self.ready.pop_front() {
                return Ok(Live::Commit(commit));
            }
            let reader = self.reader.as_mut().ok_or(End::Closed)?;
            if let Turn::Progress(revision) = reader.next(self.at_a_time, &mut self.ready).await? {
                return Ok(Live::Progress(revision));
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut table = self.hub.0.lock();
        self.reader = None;
        if table
            .by_prefix
            .get(&self.prefix)
            .is_some_and(|ring| ring.readers() == 0)
        {
            table.by_prefix.remove(&self.prefix);
        }
    }
}

impl Hub {
    /// A hub of a store that stands at `revision` and remembers from `floor` on.
    #[must_use]
    pub fn new(revision: Revision, floor: Revision) -> Self {
        let head = Head {
            revision,
            floor,
            closed: false,
        };
        Self(Mutex::new(Table {
            head,
            progress_at: revision.0,
            ..Table::default()
        }))
    }

    /// Where the hub stands.
    #[must_use]
    pub fn head(&self) -> Head {
        self.0.lock().head
    }

    /// Joins: every commit published from now on that touches `prefix`, at most `buffer` of them waiting.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, prefix: &Prefix, buffer: usize) -> Subscription {
        let buffer = buffer.clamp(1, MAX_BUFFER);
        let mut table = self.0.lock();
        let start = table.head.revision;
        let reader = (!table.head.closed).then(|| {
            let new = || Ring::new(start, MAX_BYTES);
            let ring = table.by_prefix.entry(prefix.as_str().to_owned());
            ring.or_insert_with(new).join(buffer)
        });
        Subscription {
            hub: Arc::clone(self),
            prefix: prefix.as_str().to_owned(),
            reader,
            at_a_time: AT_A_TIME.min(buffer),
            ready: VecDeque::new(),
            start,
        }
    }

    /// Commits that are now durable, in order, and where the store stands after them.
    pub fn publish(&self, commits: &[Arc<Commit>], revision: Revision, floor: Revision) {
        let mut table = self.0.lock();
        table.head.revision = revision;
        table.head.floor = floor;
        if table.by_prefix.is_empty() {
            return;
        }
        let mut touched = Vec::new();
        for commit in commits {
            let weight = commit.changes.iter().map(weight).sum();
            for change in &commit.changes {
                table.send(change.key().as_str(), commit, weight, &mut touched);
            }
        }
        if revision.0 >= table.progress_at + PROGRESS_EVERY {
            table.progress_at = revision.0;
            for ring in table.by_prefix.values() {
                ring.progress(revision);
                ring.wake();
            }
        } else {
            touched.iter().for_each(|ring| ring.wake());
        }
    }

    /// Ends all watches as lost: what was delivered may not be what is stored.
    pub fn lose(&self, revision: Revision, floor: Revision) {
        let mut table = self.0.lock();
        table.head.revision = revision;
        table.head.floor = floor;
        table.end(End::Lost);
    }

    /// Ends all watches, now and later.
    pub fn close(&self) {
        let mut table = self.0.lock();
        table.head.closed = true;
        table.end(End::Closed);
    }
}

/// What a change takes in memory, roughly.
fn weight(change: &Change) -> usize {
    let value = match change {
        Change::Put(kv) => kv.value.bytes().len(),
        Change::Delete(_) => 0,
    };
    value + change.key().as_str().len() + 64
}

type CommitRing = Arc<Ring<Arc<Commit>>>;

impl Table {
    fn send(&self, key: &str, commit: &Arc<Commit>, weight: usize, touched: &mut Vec<CommitRing>) {
        // "", "a/", "a/b/" of the key a/b/c
        let ends = std::iter::once(0).chain(key.match_indices('/').map(|(i, _)| i + 1));
        for ring in ends.filter_map(|end| self.by_prefix.get(&key[..end])) {
            // One that touches two keys below a prefix is sent once.
            if !ring.push_after(commit, commit.revision, weight) {
                continue;
            }
            if !touched.iter().any(|known| Arc::ptr_eq(known, ring)) {
                touched.push(Arc::clone(ring));
            }
        }
    }

    fn end(&mut self, end: End) {
        for ring in std::mem::take(&mut self.by_prefix).values() {
            ring.end(end);
            ring.wake();
        }
    }
}
