//! One watch: first the history, page by page, then the hub.
//!
//! The hub is joined only when the history is nearly read, so a watcher that starts far back does not overflow its
//! buffer meanwhile. What the hub sends starts exactly where the last replay ends: no gap, and nothing twice.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};

use super::{Commit, DynPast, End, Hub, Live, Replay, Subscription};
use crate::{Error, ErrorKind, Prefix, Result, Revision, WatchEvent, WatchOptions};

/// Revisions left to replay when the hub is joined.
const NEAR: u64 = 128;

#[derive(Debug)]
struct Tail {
    past: DynPast,
    hub: Arc<Hub>,
    prefix: Prefix,
    buffer: usize,
    /// Delivered, or being delivered, up to here.
    position: Revision,
    /// Replay up to here.
    target: Revision,
    ready: VecDeque<WatchEvent>,
    live: Option<Subscription>,
    ended: bool,
}

/// The stream of one watcher of the log `past`, live through `hub`.
pub fn watch(
    past: DynPast,
    hub: Arc<Hub>,
    prefix: &Prefix,
    options: &WatchOptions,
) -> BoxStream<'static, Result<WatchEvent>> {
    let tail = Tail {
        past,
        hub,
        prefix: prefix.clone(),
        buffer: options.buffer,
        position: options.after,
        target: options.after,
        ready: VecDeque::new(),
        live: None,
        ended: false,
    };
    stream::unfold(tail, |mut tail| async move {
        tail.next().await.map(|item| (item, tail))
    })
    .boxed()
}

impl Tail {
    async fn next(&mut self) -> Option<Result<WatchEvent>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.ended {
                return None;
            }
            let step = if self.position < self.target {
                self.replay().await
            } else {
                self.follow().await
            };
            if let Err(e) = step {
                self.ended = true;
                return Some(Err(e));
            }
        }
    }

    fn lost(&mut self, floor: Revision) {
        self.ended = true;
        self.live = None;
        self.ready.push_back(WatchEvent::Gap { floor });
    }

    async fn replay(&mut self) -> Result<()> {
        match self.past.replay(&self.prefix, self.position, self.target).await {
            Ok(Replay::Commits { commits, through }) => {
                self.position = through;
                let events = commits.into_iter();
                self.ready.extend(
                    events.map(|Commit { revision, changes }| WatchEvent::Commit { revision, changes }),
                );
                if self.live.is_some() && self.position == self.target {
                    self.ready.push_back(WatchEvent::Progress(self.position));
                }
                Ok(())
            }
            Ok(Replay::Lost { floor }) => {
                self.lost(floor);
                Ok(())
            }
            // The present may well be sound where the past is damaged, and a list says so.
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                tracing::error!(
                    error = &e as &dyn std::error::Error,
                    "damaged history; the watcher must list again"
                );
                self.lost(self.hub.head().revision);
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    async fn follow(&mut self) -> Result<()> {
        let Some(live) = &mut self.live else {
            return self.join().await;
        };
        match live.next().await {
            Ok(Live::Commit(commit)) if commit.revision > self.position => {
                self.position = commit.revision;
                let below = commit.changes.iter().filter(|c| self.prefix.covers(c.key()));
                let changes = below.cloned().collect();
                self.ready.push_back(WatchEvent::Commit {
                    revision: commit.revision,
                    changes,
                });
                self.target = self.position;
            }
            Ok(Live::Progress(revision)) if revision > self.position => {
                self.position = revision;
                self.target = revision;
                self.ready.push_back(WatchEvent::Progress(revision));
            }
            Ok(_) => {}
            Err(End::Lost) => self.lost(self.hub.head().floor),
            Err(End::Closed) => return Err(closed()),
        }
        Ok(())
    }

    /// Sets the next stretch to replay, the last of which begins with joining the hub.
    async fn join(&mut self) -> Result<()> {
        let head = self.hub.head();
        if head.closed {
            return Err(closed());
        }
        if self.position < head.floor
            || (self.position > head.revision && self.position > self.past.revision().await?)
        {
            self.lost(head.floor);
        } else if head.revision.0.saturating_sub(self.position.0) > NEAR {
            self.target = head.revision;
        } else {
            let live = self.hub.subscribe(&self.prefix, self.buffer);
            // What the hub sends up to the position is left out when it comes.
            self.target = live.start.max(self.position);
            self.live = Some(live);
        }
        Ok(())
    }
}

/// The store has been closed.
fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "watch").with("state", "the store is closed")
}
