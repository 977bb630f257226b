//! Who waits for which prefix, and the streams they read.
//!
//! Watchers stand in a table by their prefix, so a commit looks up the ancestors of its keys and meets nobody else.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Weak;
use std::task::{Context, Poll};

use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::State;
use super::history::Commit;
use crate::{Prefix, Result, Revision, WatchEvent};

#[derive(Debug, Default)]
pub(super) struct Watchers {
    by_prefix: BTreeMap<String, Vec<Watcher>>,
    last_id: u64,
}

#[derive(Debug)]
struct Watcher {
    id: u64,
    /// The last commit put into the queue: one that touches two keys is sent once.
    sent: Revision,
    queue: mpsc::Sender<Arc<Commit>>,
}

impl Watchers {
    pub(super) fn add(&mut self, prefix: &Prefix, buffer: usize) -> (mpsc::Receiver<Arc<Commit>>, u64) {
        let (queue, receiver) = mpsc::channel(buffer.clamp(1, 1 << 20));
        self.last_id += 1;
        let watcher = Watcher {
            id: self.last_id,
            sent: Revision(0),
            queue,
        };
        self.by_prefix
            .entry(prefix.as_str().to_owned())
            .or_default()
            .push(watcher);
        (receiver, self.last_id)
    }

    fn remove(&mut self, prefix: &Prefix, id: u64) {
        if let Some(list) = self.by_prefix.get_mut(prefix.as_str()) {
            list.retain(|w| w.id != id);
            if list.is_empty() {
                self.by_prefix.remove(prefix.as_str());
            }
        }
    }

    pub(super) fn publish(&mut self, commit: &Arc<Commit>) {
        if self.by_prefix.is_empty() {
            return;
        }
        for record in &commit.records {
            let key = record.change.key().as_str();
            // "", "a/", "a/b/", … of the key a/b/c
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
    }
}

impl Watcher {
    /// Queues the commit; `false` when this watcher is full or gone. Dropping its sender then tells the stream.
    fn send(&mut self, commit: &Arc<Commit>) -> bool {
        if self.sent == commit.revision {
            return true;
        }
        self.sent = commit.revision;
        match self.queue.try_send(Arc::clone(commit)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => false,
        }
    }
}

/// The stream of one watcher.
#[derive(Debug)]
pub(super) struct MemoryWatch {
    prefix: Prefix,
    /// Commits from before the watch was opened.
    missed: VecDeque<Arc<Commit>>,
    queue: mpsc::Receiver<Arc<Commit>>,
    id: u64,
    state: Weak<Mutex<State>>,
    ended: bool,
}

impl MemoryWatch {
    pub(super) fn new(
        prefix: Prefix,
        missed: VecDeque<Arc<Commit>>,
        queue: mpsc::Receiver<Arc<Commit>>,
        id: u64,
        state: Weak<Mutex<State>>,
    ) -> Self {
        Self {
            prefix,
            missed,
            queue,
            id,
            state,
            ended: false,
        }
    }

    fn event(&self, commit: &Commit) -> WatchEvent {
        let below = commit
            .records
            .iter()
            .map(|r| &r.change)
            .filter(|c| self.prefix.covers(c.key()));
        WatchEvent::Commit {
            revision: commit.revision,
            changes: below.cloned().collect(),
        }
    }
}

impl Stream for MemoryWatch {
    type Item = Result<WatchEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(commit) = self.missed.pop_front() {
            return Poll::Ready(Some(Ok(self.event(&commit))));
        }
        match self.queue.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(commit)) => Poll::Ready(Some(Ok(self.event(&commit)))),
            Poll::Ready(None) => {
                self.ended = true;
                // The store hung up while it lives: this consumer was too slow.
                let gap = self.state.upgrade().map(|state| {
                    Ok(WatchEvent::Gap {
                        floor: state.lock().history.floor(),
                    })
                });
                Poll::Ready(gap)
            }
        }
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        if let Some(state) = self.state.upgrade() {
            state.lock().watchers.remove(&self.prefix, self.id);
        }
    }
}
