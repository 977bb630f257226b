//! From a decided batch to what is durable and known, and from there into `documents`.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use skyloom_store::{LeaseName, Result, Revision};
use sqlx::{Connection as _, Either, Executor as _};

use super::batch::{Batch, Flush, Script};
use super::history::HistoryRow;
use super::leases::Now;
use super::load;
use super::writer::{FLUSH_AFTER, Failure, Writer};
use crate::error;

/// Bytes of dirty documents that are flushed at once.
const DIRTY_BYTES: usize = 8 << 20;
/// Bytes of one commit that are not left for later: there might be no room for them.
const LARGE: u64 = 64 << 10;
/// Bytes of SQLite's log, about, that are written into the database file at once.
const LOG_BYTES: u64 = 32 << 20;
/// What every transaction adds to them, about: pages are written whole.
const LOG_STEP: u64 = 8 << 10;

impl Writer {
    /// Makes a batch durable, and `documents` the truth where it is time for that.
    pub(super) async fn write(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        let large = batch.largest > LARGE || (self.full && batch.puts > 0);
        let asked = batch.floor;
        let row = batch.row();
        let size = row.as_ref().map(|row| (row.last, row.bytes));
        let flush = (large || asked > 0).then(|| self.what_to_flush(batch, row.as_ref()));
        // Kept meanwhile: what was allocated here is best freed here.
        self.execute(row.as_ref(), &batch.leases, flush.as_ref()).await?;
        self.settle(batch, size);
        if let Some(flush) = flush {
            self.flushed(&flush);
        }
        self.publish(batch);
        Ok(())
    }

    /// What is dirty, with a batch that is to be written with it.
    fn what_to_flush(&mut self, batch: &Batch, row: Option<&HistoryRow>) -> Flush {
        let present = self.present.lock();
        let mut rows = present.dirty.clone();
        rows.extend(
            batch
                .staged
                .iter()
                .map(|(key, dirty)| (key.clone(), dirty.clone())),
        );
        let floor = present.floor.max(batch.floor);
        let applied = row.map_or(present.revision, |row| row.last);
        Flush {
            rows,
            applied,
            floor,
            sweep: floor,
        }
    }

    pub(super) async fn flush_when_due(&mut self) {
        let (bytes, now) = (self.present.lock().dirty_bytes, self.clock.monotonic());
        let old = |since: Duration| now.saturating_sub(since) >= FLUSH_AFTER;
        // Without room, the next write that adds something tries again.
        if !self.full && (bytes >= DIRTY_BYTES || self.dirty_since.is_some_and(old)) {
            self.flush().await;
        }
    }

    /// Writes SQLite's log into the file when it has become long. SQLite would do that inside of a COMMIT, whose callers wait.
    pub(super) async fn checkpoint_when_due(&mut self) {
        if self.logged < LOG_BYTES {
            return;
        }
        self.logged = 0;
        let Some(conn) = &mut self.conn else { return };
        if let Err(e) = sqlx::raw_sql("PRAGMA wal_checkpoint(PASSIVE)")
            .execute(conn)
            .await
        {
            tracing::warn!(
                error = &e as &dyn std::error::Error,
                "the log stays as long as it is"
            );
        }
    }

    /// Brings `documents` up to date. What cannot be written stays in memory and in the history.
    pub(super) async fn flush(&mut self) {
        self.dirty_since = None;
        if let Err(e) = self.repair().await {
            tracing::warn!(
                error = &e as &dyn std::error::Error,
                "the database does not answer"
            );
            return;
        }
        let flush = self.what_to_flush(&Batch::default(), None);
        match self.execute(None, &BTreeSet::new(), Some(&flush)).await {
            Ok(()) => self.flushed(&flush),
            Err(Failure::RolledBack(e)) => {
                self.full = error::is_full(&e);
                self.dirty_since = (!self.full).then(|| self.clock.monotonic());
                tracing::warn!(
                    error = &e as &dyn std::error::Error,
                    "documents cannot be written, they stay in the history"
                );
            }
            Err(Failure::Unknown(e)) => {
                tracing::warn!(
                    error = &e as &dyn std::error::Error,
                    "the outcome of writing documents is unknown"
                );
                if let Err(e) = self.repair().await {
                    tracing::error!(
                        error = &e as &dyn std::error::Error,
                        "the database cannot be read again"
                    );
                }
            }
        }
    }

    fn flushed(&mut self, flush: &Flush) {
        self.full = false;
        self.dirty_since = None;
        {
            let mut present = self.present.lock();
            self.logged += present.dirty_bytes as u64 + LOG_STEP;
            present.floor = flush.floor;
            present.flushed();
        }
        self.moved.notify_waiters();
    }

    /// The batch is on disk.
    fn settle(&mut self, batch: &mut Batch, row: Option<(u64, u64)>) {
        if let Some((last, bytes)) = row {
            self.state.rows.push(last, bytes);
            self.logged += bytes;
        }
        self.logged += LOG_STEP;
        let mut present = self.present.lock();
        for (key, dirty) in batch.staged.drain() {
            present.change(key, dirty);
        }
        present.revision += batch.commits.len() as u64;
        present.documents = (present.documents + batch.documents.0).saturating_sub(batch.documents.1);
        let floor = present.floor.max(batch.floor);
        present.floor = self
            .state
            .rows
            .retain(floor, present.revision, self.settings.retention);
        if self.dirty_since.is_none() && !batch.commits.is_empty() {
            self.dirty_since = Some(self.clock.monotonic());
        }
    }

    fn publish(&self, batch: &Batch) {
        self.counters
            .commits
            .fetch_add(batch.commits.len() as u64, Ordering::Relaxed);
        self.counters.batches.fetch_add(1, Ordering::Relaxed);
        let (revision, floor) = {
            let present = self.present.lock();
            (present.revision, present.floor)
        };
        self.hub
            .publish(&batch.commits, Revision(revision), Revision(floor));
    }

    async fn execute(
        &mut self,
        row: Option<&HistoryRow>,
        leases: &BTreeSet<LeaseName>,
        flush: Option<&Flush>,
    ) -> Result<(), Failure> {
        let script = Script::new(row, leases, &self.state.leases, flush)
            .map_err(|e| Failure::RolledBack(sqlx::Error::Encode(e)))?;
        let Some(conn) = &mut self.conn else {
            return Err(Failure::RolledBack(sqlx::Error::WorkerCrashed));
        };
        let parts = script.done.len();
        let mut failed = None;
        for (n, part) in script.done.into_iter().enumerate() {
            let statements = part.statements;
            let mut done = 0;
            // Bound arguments over several statements: one command to the connection's thread, one answer per statement.
            let query = sqlx::query_with(sqlx::AssertSqlSafe(part.text), part.arguments);
            let mut results = conn.fetch_many(query);
            let error = loop {
                match results.next().await {
                    Some(Ok(Either::Left(_))) => done += 1,
                    Some(Ok(Either::Right(_))) => {}
                    Some(Err(e)) => break Some(e),
                    None if done == statements => break None,
                    None => break Some(sqlx::Error::WorkerCrashed),
                }
            };
            if let Some(error) = error {
                // Before the last statement was reached nothing can have happened. One that found no room never wrote its last
                // frame, and one that found the lock taken never began.
                let at_commit = error.as_database_error().is_none() || done + 1 >= statements;
                let refused = error::is_full(&error) || error::is_busy(&error);
                let nothing = n + 1 < parts || !at_commit || refused;
                failed = Some((error, nothing));
                break;
            }
        }
        let Some((error, nothing)) = failed else {
            return Ok(());
        };
        match sqlx::raw_sql("ROLLBACK").execute(&mut *conn).await {
            Ok(_) => return Err(Failure::RolledBack(error)),
            // SQLite has ended the transaction by itself, and the connection is sound.
            Err(e) if nothing && error::is_no_transaction(&e) => return Err(Failure::RolledBack(error)),
            Err(_) => {}
        }
        // Start anew, with what the file says.
        if let Some(conn) = self.conn.take() {
            let _ = conn.close().await;
        }
        Err(if nothing {
            Failure::RolledBack(error)
        } else {
            Failure::Unknown(error)
        })
    }

    /// Makes a new connection when the last one broke, and believes what the file says.
    pub(super) async fn repair(&mut self) -> Result<()> {
        if self.conn.is_some() {
            return Ok(());
        }
        let mut conn = self.settings.connect(&self.owner).await?;
        let now = Now::read(&*self.clock);
        let (state, present) = load::everything(&mut conn, now, self.settings.retention, false).await?;
        if present.revision != self.hub.head().revision.0 {
            // A commit that was answered as unknown did happen, and no watcher has seen it.
            self.hub.lose(Revision(present.revision), Revision(present.floor));
        }
        self.state = state;
        self.dirty_since = (!present.dirty.is_empty()).then(|| self.clock.monotonic());
        *self.present.lock() = present;
        self.moved.notify_waiters();
        self.conn = Some(conn);
        Ok(())
    }
}
