//! The one who writes: takes all calls that are waiting, decides them in memory, makes them durable together, answers.
//!
//! ```text
//! queue ─> fill (up to max_batch) ─> decide each in order ─> one SQL transaction ─> publish to the hub ─> answers
//!                                         ^                        │ rolled back: undo, then each call on its own
//!                                         └── reload from the file <┘ outcome unknown: say so to all who changed something
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use skyloom_model::Clock;
use skyloom_store::feed::Hub;
use skyloom_store::{Error, ErrorKind, Result, Revision};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Either, Executor as _};
use tokio::sync::{mpsc, oneshot};

use super::batch::{Batch, Script};
use super::leases::Now;
use super::owner::Owner;
use super::queue::{Answer, Job, Op};
use super::state::{Retention, State};
use super::{load, schema};
use crate::error;

/// Rows after which a batch is closed, so that one batch of large transactions stays short.
const MAX_ROWS: usize = 1024;

/// What the writer has done so far.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) commits: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) documents: AtomicU64,
}

/// How the writer's connection is made and bounded.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) path: PathBuf,
    pub(super) max_batch: usize,
    /// How long to wait for somebody else's transaction.
    pub(super) max_wait: Duration,
    pub(super) max_file_bytes: Option<u64>,
    pub(super) allow_unsafe: bool,
    pub(super) retention: Retention,
}

/// The writer with all it owns.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) jobs: mpsc::UnboundedReceiver<Job>,
    /// `None` after it failed, until the next call.
    pub(super) conn: Option<SqliteConnection>,
    pub(super) owner: Arc<Owner>,
    pub(super) state: State,
    pub(super) hub: Arc<Hub>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) counters: Arc<Counters>,
    pub(super) settings: Settings,
}

/// What became of a batch that was not committed.
#[derive(Debug)]
enum Failure {
    /// Nothing happened.
    RolledBack(sqlx::Error),
    /// Perhaps it happened.
    Unknown(sqlx::Error),
}

type Closing = Option<oneshot::Sender<Result<Answer>>>;

impl Settings {
    /// A connection ready to write.
    pub(super) async fn connect(&self, owner: &Arc<Owner>) -> Result<SqliteConnection> {
        let mut conn = schema::connect(&self.path, owner, self.max_wait).await?;
        match self.prepare(&mut conn).await {
            Ok(()) => Ok(conn),
            Err(e) => {
                let _ = conn.close().await; // really gone, with its hold on the lock, before the caller hears of it
                Err(e)
            }
        }
    }

    async fn prepare(&self, conn: &mut SqliteConnection) -> Result<()> {
        schema::require_current(conn).await?;
        schema::set_modes(conn, self.allow_unsafe).await?;
        match self.max_file_bytes {
            Some(bytes) => schema::limit_size(conn, bytes).await,
            None => Ok(()),
        }
    }
}

impl Writer {
    /// Serves until asked to close, or until every handle is gone.
    pub(super) async fn run(mut self) {
        let mut closing = None;
        while let Some(first) = self.jobs.recv().await {
            let mut batch = Vec::new();
            take(first, &mut batch, &mut closing);
            self.fill(&mut batch, &mut closing).await;
            self.serve(batch).await;
            if closing.is_some() {
                // Whoever got into the queue before it closed is still served; later calls are refused.
                self.jobs.close();
            }
        }
        self.end(closing).await;
    }

    /// Takes what else is waiting. Yields before it looks, so that callers who were just answered can queue their next
    /// call; ends when nobody new came.
    async fn fill(&mut self, batch: &mut Vec<Job>, closing: &mut Closing) {
        let mut rows: usize = batch.iter().map(rows).sum();
        loop {
            tokio::task::yield_now().await;
            let before = batch.len();
            while batch.len() < self.settings.max_batch && rows < MAX_ROWS {
                let Ok(job) = self.jobs.try_recv() else { break };
                rows += self::rows(&job);
                take(job, batch, closing);
            }
            if batch.len() == before || batch.len() >= self.settings.max_batch || rows >= MAX_ROWS {
                return;
            }
        }
    }

    async fn serve(&mut self, jobs: Vec<Job>) {
        let alone = jobs.len() == 1;
        let Some(jobs) = self.attempt(jobs, alone).await else {
            return;
        };
        // One call may have spoilt it for all (too large for the disk, say): each gets its own transaction.
        for job in jobs {
            self.attempt(vec![job], true).await;
        }
    }

    /// Decides and writes `jobs` together. Gives them back when nothing happened and they are not on their `last` try.
    async fn attempt(&mut self, mut jobs: Vec<Job>, last: bool) -> Option<Vec<Job>> {
        jobs.retain(|job| !job.reply.is_closed()); // nobody waits for it, and nothing has happened yet
        if let Err(e) = self.repair().await {
            let cause = Arc::new(e);
            for job in jobs {
                answer_error(job, cause.kind(), "the database does not answer", &cause);
            }
            return None;
        }
        let now = Now::read(&*self.clock);
        let mut batch = Batch::new(&self.state);
        let answers: Vec<Answer> = jobs
            .iter()
            .map(|job| self.state.decide(&mut batch, &job.op, now))
            .collect();
        if !batch.is_empty(&self.state) {
            self.state.retain(&mut batch, self.settings.retention);
            match self.write(&batch).await {
                Ok(()) => self.settle(&batch),
                Err(Failure::RolledBack(e)) => {
                    self.state.undo(batch);
                    // A database that does not answer would not answer each of them either, one wait after the other.
                    let busy = matches!(error::kind(&e), ErrorKind::Unavailable | ErrorKind::Corrupt);
                    if !last && !busy {
                        return Some(jobs);
                    }
                    let cause = Arc::new(e);
                    for job in jobs {
                        answer_error(job, error::kind(&cause), "nothing was changed", &cause);
                    }
                    return None;
                }
                Err(Failure::Unknown(e)) => {
                    tracing::error!(
                        error = &e as &dyn std::error::Error,
                        "the outcome of a commit is unknown"
                    );
                    let cause = Arc::new(e);
                    for job in jobs {
                        let kind = if job.op.changes() {
                            ErrorKind::Unknown
                        } else {
                            ErrorKind::Unavailable
                        };
                        answer_error(job, kind, "the transaction failed at its end", &cause);
                    }
                    // Now rather than at the next call: watchers may have missed something.
                    if let Err(e) = self.repair().await {
                        tracing::error!(
                            error = &e as &dyn std::error::Error,
                            "the database cannot be read again"
                        );
                    }
                    return None;
                }
            }
        }
        for (job, answer) in jobs.into_iter().zip(answers) {
            // A caller that is gone does not hear it.
            let _ = job.reply.send(Ok(answer));
        }
        None
    }

    /// The batch is on disk.
    fn settle(&mut self, batch: &Batch) {
        self.state.settle(batch);
        self.counters
            .commits
            .fetch_add(batch.commits.len() as u64, Ordering::Relaxed);
        self.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.counters
            .documents
            .store(self.state.index.len() as u64, Ordering::Relaxed);
        self.hub.publish(
            &batch.commits,
            Revision(self.state.revision),
            Revision(self.state.floor),
        );
    }

    async fn write(&mut self, batch: &Batch) -> Result<(), Failure> {
        let script =
            Script::new(batch, &self.state).map_err(|e| Failure::RolledBack(sqlx::Error::Encode(e)))?;
        let Some(conn) = &mut self.conn else {
            return Err(Failure::RolledBack(sqlx::Error::WorkerCrashed));
        };
        let last = script.statements;
        let mut done = 0;
        // Bound arguments over several statements: one command to the connection's thread, one answer per statement.
        let query = sqlx::query_with(sqlx::AssertSqlSafe(script.text), script.arguments);
        let mut results = conn.fetch_many(query);
        let failed = loop {
            match results.next().await {
                Some(Ok(Either::Left(_))) => done += 1,
                Some(Ok(Either::Right(_))) => {}
                Some(Err(e)) => break e,
                None if done == last => return Ok(()),
                None => break sqlx::Error::WorkerCrashed,
            }
        };
        drop(results);
        // Before COMMIT was reached nothing can have happened. A COMMIT that found no room never wrote its last frame.
        let reached_commit = failed.as_database_error().is_none() || done + 1 >= last;
        let nothing = !reached_commit || error::is_full(&failed);
        match sqlx::raw_sql("ROLLBACK").execute(&mut *conn).await {
            Ok(_) => return Err(Failure::RolledBack(failed)),
            // SQLite has ended the transaction by itself, and the connection is sound.
            Err(e) if nothing && error::is_no_transaction(&e) => return Err(Failure::RolledBack(failed)),
            Err(_) => {}
        }
        // Start anew, with what the file says.
        if let Some(conn) = self.conn.take() {
            let _ = conn.close().await;
        }
        Err(if nothing {
            Failure::RolledBack(failed)
        } else {
            Failure::Unknown(failed)
        })
    }

    /// Makes a new connection when the last one broke, and believes what the file says.
    async fn repair(&mut self) -> Result<()> {
        if self.conn.is_some() {
            return Ok(());
        }
        let mut conn = self.settings.connect(&self.owner).await?;
        let state = load::state(&mut conn, Now::read(&*self.clock), false).await?;
        if state.revision != self.hub.head().revision.0 {
            // A commit that was answered as unknown did happen, and no watcher has seen it.
            self.hub.lose(Revision(state.revision), Revision(state.floor));
        }
        self.state = state;
        self.conn = Some(conn);
        Ok(())
    }

    async fn end(self, closing: Closing) {
        self.hub.close();
        let result = match self.conn {
            Some(mut conn) => {
                let checkpoint = sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)")
                    .execute(&mut conn)
                    .await;
                let closed = conn.close().await;
                checkpoint.and(closed).map_err(error::sql("close"))
            }
            None => Ok(()),
        };
        drop(self.owner);
        if let Some(reply) = closing {
            let _ = reply.send(result.map(|()| Answer::Done));
        }
    }
}

fn rows(job: &Job) -> usize {
    match &job.op {
        Op::Commit(txn) => txn.writes.len(),
        _ => 1,
    }
}

fn take(job: Job, batch: &mut Vec<Job>, closing: &mut Closing) {
    match job.op {
        Op::Close => *closing = Some(job.reply),
        _ => batch.push(job),
    }
}

fn answer_error<E>(job: Job, kind: ErrorKind, state: &str, cause: &Arc<E>)
where
    E: std::error::Error + Send + Sync + 'static,
{
    let error = Error::new(kind, job.op.name())
        .with("state", state)
        .because(Arc::clone(cause));
    let _ = job.reply.send(Err(error));
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
