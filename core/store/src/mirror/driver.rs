//! What feeds a mirror: list, watch, and again.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use skyloom_model::ablation::{Rule, kept};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::data::Data;
use super::{Position, Shared};
use crate::backoff::Backoff;
use crate::{
    Change, Document, DynBackend, ErrorKind, Key, ListOptions, Result, Revision, WatchEvent, WatchOptions,
    latest, table,
};

/// The driving half of a [`crate::Mirror`]: nothing moves until [`MirrorDriver::run`] is awaited.
#[must_use = "a mirror stays empty until its driver runs"]
pub struct MirrorDriver<T> {
    pub(super) backend: DynBackend,
    pub(super) shared: Arc<Shared<T>>,
    pub(super) position: latest::Sender<Position>,
    pub(super) page: usize,
    pub(super) buffer: usize,
    pub(super) resync: Duration,
    pub(super) backoff: Backoff,
}

impl<T> fmt::Debug for MirrorDriver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MirrorDriver")
            .field("prefix", &self.shared.prefix)
            .finish_non_exhaustive()
    }
}

/// Whoever waits for changes learns that no more will come.
impl<T> Drop for MirrorDriver<T> {
    fn drop(&mut self) {
        self.shared.subscribers.end();
    }
}

/// Why one watch came to its end.
enum Ended {
    /// The position is lost: list again.
    Lost,
    /// Watch again from the last revision.
    Broken,
    /// It missed something, which is in by now: watch again from the last revision.
    Mended,
}

impl<T: Document> MirrorDriver<T> {
    /// Feeds the mirror until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let _: Option<()> = shutdown.run_until_cancelled(self.feed()).await;
    }

    /// Lists, watches, and comes back after every failure; never returns.
    async fn feed(&self) {
        let mut failures = 0;
        let mut listed = false;
        // One for all watches: those that end often must not put it off for ever.
        let period = self.resync.max(Duration::from_millis(1));
        let mut resync = tokio::time::interval_at(Instant::now() + period, period);
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if !listed {
                match self.list().await {
                    Ok(()) => {
                        listed = true;
                        resync.reset();
                    }
                    Err(e) => {
                        self.failed("list", &e);
                        self.pause(&mut failures).await;
                        continue;
                    }
                }
            }
            let before = self.position.borrow().revision;
            let ended = self.follow(&mut resync).await;
            if self.position.borrow().revision > before {
                failures = 0;
            }
            match ended {
                // At once the first time; a watch that never delivers anything must not list in circles.
                Ended::Lost if failures == 0 => {
                    listed = false;
                    failures = 1;
                }
                Ended::Lost => {
                    listed = false;
                    self.pause(&mut failures).await;
                }
                Ended::Broken => self.pause(&mut failures).await,
                Ended::Mended => {}
            }
        }
    }

    /// Takes over a whole listing.
    async fn list(&self) -> Result<()> {
        if !kept(Rule::RelistOnGap) && self.position.borrow().ready {
            // As if nothing had been missed: on from now.
            let one = ListOptions::default().with_limit(1);
            let now = self.backend.list(&self.shared.prefix, one).await?;
            self.advance(now.revision);
            return Ok(());
        }
        let listing = table::list_all(&*self.backend, &self.shared.prefix, self.page).await?;
        self.swap(Data::listed(
            listing.revision,
            &listing.items,
            &self.shared.indexes,
        ));
        self.recovered();
        Ok(())
    }

    /// Compares with a listing and takes over what is different; tells whether anything was.
    async fn resync(&self) -> Result<bool> {
        let listing = table::list_all(&*self.backend, &self.shared.prefix, self.page).await?;
        if listing.revision < self.position.borrow().revision {
            // The store went back: nothing that is here can be compared.
            self.swap(Data::listed(
                listing.revision,
                &listing.items,
                &self.shared.indexes,
            ));
            return Ok(true);
        }
        let mut data = self.shared.data.write();
        let missed = data.behind(&listing.items);
        self.take_in(&mut data, listing.revision, &missed);
        Arc::make_mut(&mut data).listed = listing.revision;
        Ok(!missed.is_empty())
    }

    async fn follow(&self, resync: &mut Interval) -> Ended {
        let options = WatchOptions::after(self.position.borrow().revision).with_buffer(self.buffer);
        let mut events = self.backend.watch(&self.shared.prefix, options);
        loop {
            let event = tokio::select! {
                biased;
                // Rare, and never to be kept waiting by a busy stream.
                _ = resync.tick(), if kept(Rule::RelistOnGap) => {
                    match self.resync().await {
                        Ok(false) => self.recovered(),
                        Ok(true) => return Ended::Mended,
                        Err(e) => self.failed("list again", &e),
                    }
                    continue;
                }
                event = events.next() => event,
            };
            match event {
                Some(Ok(WatchEvent::Commit { revision, changes })) => {
                    if !self.apply(revision, &changes) {
                        tracing::warn!(prefix = %self.shared.prefix, %revision, "a commit came late, listing again");
                        return Ended::Lost;
                    }
                }
                Some(Ok(WatchEvent::Progress(revision))) => self.advance(revision),
                Some(Ok(WatchEvent::Gap { floor })) => {
                    tracing::info!(prefix = %self.shared.prefix, %floor, "position lost, listing again");
                    return Ended::Lost;
                }
                Some(Err(e)) => {
                    self.failed("watch", &e);
                    return if e.kind() == ErrorKind::Compacted {
                        Ended::Lost
                    } else {
                        Ended::Broken
                    };
                }
                None => {
                    tracing::debug!(prefix = %self.shared.prefix, "watch ended, resuming");
                    return Ended::Broken;
                }
            }
            self.recovered();
        }
    }

    async fn pause(&self, failures: &mut u32) {
        tokio::time::sleep(self.backoff.wait(*failures)).await;
        *failures = failures.saturating_add(1);
    }

    fn failed(&self, what: &'static str, error: &crate::Error) {
        let error = skyloom_model::report(error);
        tracing::warn!(prefix = %self.shared.prefix, what, error, "mirror cannot follow the store, trying again");
        *self.shared.last_error.lock() = Some(error);
    }

    fn recovered(&self) {
        let mut last_error = self.shared.last_error.lock();
        if last_error.take().is_some() {
            tracing::info!(prefix = %self.shared.prefix, "mirror follows the store again");
        }
    }

    /// Replaces everything in one step and tells what is different.
    fn swap(&self, new: Data<T>) {
        let mut data = self.shared.data.write();
        let first = !self.position.borrow().ready;
        // A store that went back (restored from a backup) may use a revision twice, so revisions prove nothing then.
        let all = first || new.revision < data.revision;
        let different: BTreeSet<Key> = if all {
            BTreeSet::new()
        } else {
            data.difference(&new)
        };
        let revision = new.revision;
        *data = Arc::new(new);
        self.position.send_replace(Position {
            ready: true,
            revision,
        });
        if all {
            self.shared.subscribers.everything();
        } else {
            self.shared.subscribers.keys(different.iter());
        }
    }

    /// Applies one commit. One that is already in is passed over; `false` when it should be in and is not.
    fn apply(&self, revision: Revision, changes: &[Change]) -> bool {
        let mut data = self.shared.data.write();
        if revision <= data.revision {
            return !kept(Rule::RelistOnGap) || data.has(revision, changes);
        }
        self.take_in(&mut data, revision, changes);
        true
    }

    /// Makes these changes in one step and tells of them.
    fn take_in(&self, data: &mut Arc<Data<T>>, revision: Revision, changes: &[Change]) {
        Arc::make_mut(data).apply(revision, changes, &self.shared.indexes);
        self.position.send_replace(Position {
            ready: true,
            revision,
        });
        self.shared.subscribers.keys(changes.iter().map(Change::key));
    }

    fn advance(&self, revision: Revision) {
        let mut data = self.shared.data.write();
        if revision > data.revision {
            Arc::make_mut(&mut data).revision = revision;
            self.position.send_replace(Position {
                ready: true,
                revision,
            });
        }
    }
}
