//! Hands commits to the watchers whose prefix they touch.
//!
//! Whoever learns of durable commits publishes them, in order. Watchers stand in a table by their prefix, so a commit looks up
//! the ancestors of its keys and meets nobody else. A watcher that does not keep up is dropped and told so.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Commit;
use crate::{Prefix, Revision};

/// After this many revisions without a commit for them, watchers are told how far the store has come.
const PROGRESS_EVERY: u64 = 1_000;
/// Most commits that may wait for one watcher, whatever it asks for.
const MAX_BUFFER: usize = 1 << 20;

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
    last_id: u64,
    by_prefix: HashMap<String, Vec<Watcher>>,
}

#[derive(Debug)]
struct Watcher {
    id: u64,
    /// The last commit put into the queue: one that touches two keys is sent once.
    sent: Revision,
    queue: mpsc::Sender<Live>,
    end: Arc<OnceLock<End>>,
}

impl Watcher {
    /// `false` when this watcher is full or gone.
    fn send(&mut self, commit: &Arc<Commit>) -> bool {
        if self.sent == commit.revision {
            return true;
        }
        self.sent = commit.revision;
        let kept = self.queue.try_send(Live::Commit(Arc::clone(commit))).is_ok();
        if !kept {
            self.end.get_or_init(|| End::Lost);
        }
        kept
    }
}

/// One watcher's end of the line; dropping it signs off.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Hub>,
    prefix: String,
    id: u64,
    queue: mpsc::Receiver<Live>,
    end: Arc<OnceLock<End>>,
    /// Commits after this one are sent.
    pub start: Revision,
}

impl Subscription {
    /// The next thing, or why there is none.
    ///
    /// # Errors
    /// The reason why nothing more comes. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Live, End> {
        match self.queue.recv().await {
            Some(live) => Ok(live),
            None => Err(self.end.get().copied().unwrap_or(End::Closed)),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut table = self.hub.0.lock();
        if let Some(list) = table.by_prefix.get_mut(&self.prefix) {
            list.retain(|w| w.id != self.id);
            if list.is_empty() {
                table.by_prefix.remove(&self.prefix);
            }
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
        let (sender, queue) = mpsc::channel(buffer.clamp(1, MAX_BUFFER));
        let end = Arc::new(OnceLock::new());
        let mut table = self.0.lock();
        table.last_id += 1;
        let id = table.last_id;
        let start = table.head.revision;
        if !table.head.closed {
            let watcher = Watcher {
                id,
                sent: start,
                queue: sender,
                end: Arc::clone(&end),
            };
            table
                .by_prefix
                .entry(prefix.as_str().to_owned())
                .or_default()
                .push(watcher);
        }
        Subscription {
            hub: Arc::clone(self),
            prefix: prefix.as_str().to_owned(),
            id,
            queue,
            end,
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
        for commit in commits {
            for change in &commit.changes {
                table.send(change.key().as_str(), commit);
            }
        }
        if revision.0 >= table.progress_at + PROGRESS_EVERY {
            table.progress_at = revision.0;
            for watcher in table.by_prefix.values().flatten() {
                // A full queue has better news in it.
                let _ = watcher.queue.try_send(Live::Progress(revision));
            }
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

impl Table {
    fn send(&mut self, key: &str, commit: &Arc<Commit>) {
        // "", "a/", "a/b/" of the key a/b/c
        let ends = std::iter::once(0).chain(key.match_indices('/').map(|(i, _)| i + 1));
        for prefix in ends.map(|end| &key[..end]) {
            let Some(list) = self.by_prefix.get_mut(prefix) else {
                continue;
            };
            list.retain_mut(|watcher| watcher.send(commit));
            if list.is_empty() {
                self.by_prefix.remove(prefix);
            }
        }
    }

    fn end(&mut self, end: End) {
        for watcher in self.by_prefix.values().flatten() {
            watcher.end.get_or_init(|| end);
        }
        self.by_prefix.clear();
    }
}
