//! The one task that tells this process's watchers about commits, in order, whoever made them.
//!
//! ```text
//! committer ── own commits, with the revision before them ──┐
//! bell (LISTEN) or timer ── "look" ─────────────────────────┴─> feed ─> hub ─> watchers
//!                                          log ──── what others committed ──┘
//! ```
//!
//! The database lets one commit end before the next one begins, so the log is complete up to its newest revision at
//! any moment: reading on from a revision misses nothing. Own commits that follow directly on what was published need
//! no reading at all; otherwise somebody else was in between, and the log has both.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use skyloom_store::feed::{Commit, Hub};
use skyloom_store::{Error, ErrorKind, Prefix, Result, Revision};
use tokio::sync::{Notify, mpsc};

use super::Counters;
use super::dialect::Dialect;
use super::pool::Pool;
use super::reader::{Page, Reader};

/// What the feed hears.
#[derive(Debug)]
pub(super) enum News {
    /// This process's own batch. `base` is the newest revision before it.
    Own {
        base: Revision,
        head: Revision,
        floor: Revision,
        commits: Vec<Arc<Commit>>,
    },
    /// There may be something in the log.
    Look,
}

#[derive(Debug)]
pub(super) struct Feed<D: Dialect> {
    pub(super) news: mpsc::Receiver<News>,
    pub(super) reader: Arc<Reader<D>>,
    pub(super) hub: Arc<Hub>,
    pub(super) counters: Arc<Counters>,
    /// Rings when others have committed.
    pub(super) bell: Arc<Notify>,
    /// Shortest and longest time between two looks.
    pub(super) poll: (Duration, Duration),
}

impl<D: Dialect> Feed<D> {
    /// Ends when the committer has ended.
    pub(super) async fn run(mut self) {
        let mut wait = self.poll.0;
        loop {
            tokio::select! {
                biased;
                news = self.news.recv() => match news {
                    None => return,
                    Some(News::Own { base, head, floor, commits }) => {
                        let at = self.hub.head().revision;
                        if base == at {
                            self.hub.publish(&commits, head, floor);
                        } else if head > at {
                            self.look().await;
                        }
                        wait = self.poll.0;
                    }
                    Some(News::Look) => {
                        self.look().await;
                        wait = self.poll.0;
                    }
                },
                () = self.bell.notified() => {
                    self.look().await;
                    wait = self.poll.0;
                }
                () = tokio::time::sleep(wait) => {
                    // Own commits tell what others did in between, so looking is for quiet times.
                    wait = if self.look().await { self.poll.0 } else { (wait * 2).min(self.poll.1) };
                }
            }
        }
    }

    /// Reads what the log has beyond the hub. Whether there was something.
    async fn look(&mut self) -> bool {
        match self.catch_up().await {
            Ok(found) => {
                self.counters.blind.store(false, Ordering::Relaxed);
                found
            }
            Err(e) => {
                // Once per outage; the watchers wait, and lose nothing.
                if !self.counters.blind.swap(true, Ordering::Relaxed) {
                    metrics::counter!("skyloom_store_blind_watches_total").increment(1);
                    tracing::warn!(
                        error = &e as &dyn std::error::Error,
                        "the log cannot be read; watches stand still"
                    );
                }
                false
            }
        }
    }

    async fn catch_up(&mut self) -> Result<bool> {
        let position = self.reader.position("watch").await?;
        let head = self.hub.head();
        if position.0 == head.revision {
            if position.1 > head.floor {
                self.hub.publish(&[], head.revision, position.1);
            }
            return Ok(false);
        }
        if position.0 < head.revision {
            let e = Error::new(ErrorKind::Corrupt, "watch")
                .with("revision", position.0)
                .with("was", head.revision);
            tracing::error!(
                error = &e as &dyn std::error::Error,
                "the database has gone back; all watchers must list again"
            );
            self.hub.lose(position.0, position.1);
            return Ok(true);
        }
        let mut at = head.revision;
        while at < position.0 {
            match self.reader.read(&Prefix::all(), at, position.0).await? {
                Page::Commits {
                    commits,
                    through,
                    floor,
                } => {
                    let commits: Vec<Arc<Commit>> = commits.into_iter().map(Arc::new).collect();
                    at = through;
                    self.hub.publish(&commits, at, floor);
                }
                Page::Lost { floor } => {
                    self.hub.lose(position.0, floor);
                    at = position.0;
                }
            }
        }
        Ok(true)
    }
}

/// Rings `bell` for commits of other processes, where the database tells of them. Otherwise ends at once.
pub(super) async fn listen<D: Dialect>(
    pool: Arc<Pool<D>>,
    writer: Arc<AtomicI64>,
    bell: Arc<Notify>,
    pause: Duration,
) {
    let mut complained = false;
    loop {
        let hung = tokio::time::timeout(pause, pool.dialect.bell(Arc::clone(&writer))).await;
        let error = match hung {
            Ok(Ok(None)) => return,
            Ok(Ok(Some(mut hung))) => {
                complained = false;
                // What was rung for before.
                bell.notify_one();
                loop {
                    match hung.rung().await {
                        Ok(()) => bell.notify_one(),
                        Err(e) => break Error::new(ErrorKind::Unavailable, "listen").because(e),
                    }
                }
            }
            Ok(Err(e)) => e,
            Err(_) => Error::new(ErrorKind::Unavailable, "listen").with("state", "no answer"),
        };
        if !std::mem::replace(&mut complained, true) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "no notifications; looking now and then instead"
            );
        }
        tokio::time::sleep(pause / 10).await;
    }
}
