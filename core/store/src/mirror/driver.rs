//! What feeds a mirror: list, watch, and again.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::data::Data;
use super::{Position, Shared};
use crate::backoff::Backoff;
use crate::{
    Change, Document, DynBackend, ErrorKind, Key, Result, Revision, WatchEvent, WatchOptions, table,
};

/// The driving half of a [`crate::Mirror`]: nothing moves until [`MirrorDriver::run`] is awaited.
#[must_use = "a mirror stays empty until its driver runs"]
pub struct MirrorDriver<T> {
    pub(super) backend: DynBackend,
    pub(super) shared: Arc<Shared<T>>,
    pub(super) position: watch::Sender<Position>,
    pub(super) page: usize,
    pub(super) buffer: usize,
    pub(super) resync: Option<Duration>,
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
    /// List again: the position is lost, or the resync period is over.
    Lost,
    /// Watch again from the last revision.
    Broken,
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
        loop {
            if !listed {
                match self.list().await {
                    Ok(()) => listed = true,
                    Err(e) => {
                        self.failed("list", &e);
                        self.pause(&mut failures).await;
                        continue;
                    }
                }
            }
            let before = self.position.borrow().revision;
            let ended = self.follow().await;
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
            }
        }
    }

    async fn list(&self) -> Result<()> {
        let listing = table::list_all(&*self.backend, &self.shared.prefix, self.page).await?;
        let data = Data::listed(listing.revision, &listing.items, &self.shared.indexes);
        self.swap(data);
        self.recovered();
        Ok(())
    }

    async fn follow(&self) -> Ended {
        let options = WatchOptions::after(self.position.borrow().revision).with_buffer(self.buffer);
        let mut events = self.backend.watch(&self.shared.prefix, options);
        let resync = async {
            match self.resync {
                Some(period) => tokio::time::sleep(period).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(resync);
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = &mut resync => return Ended::Lost,
            };
            match event {
                Some(Ok(WatchEvent::Commit { revision, changes })) => self.apply(revision, &changes),
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

    /// Applies one commit; one that is already in is passed over.
    fn apply(&self, revision: Revision, changes: &[Change]) {
        let mut data = self.shared.data.write();
        if revision <= data.revision {
            return;
        }
        Arc::make_mut(&mut data).apply(revision, changes, &self.shared.indexes);
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
