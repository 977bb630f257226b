//! The one who writes: takes all calls that are waiting, decides them in memory, makes them durable together, answers.
//!
//! ```text
//! queue ─> fill (up to max_batch) ─> decide each in order ─> one SQL transaction ─> Present, hub ─> answers
//!                                         ^                        │ rolled back: each call on its own
//!                                         └── reload from the file <┘ outcome unknown: say so to all who changed something
//! ```
//!
//! A batch becomes one row of the history, and that makes it durable. `documents` follows: after [`FLUSH_AFTER`], when much is
//! dirty, when nobody asks for anything, and when the store is closed; in the same transaction as the batch where large values
//! or a full disk make it doubtful whether there will be room.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use skyloom_model::Clock;
use skyloom_store::feed::Hub;
use skyloom_store::{Error, ErrorKind, Result};
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{Notify, mpsc, oneshot};

use super::batch::Batch;
use super::leases::Now;
use super::owner::Owner;
use super::present::Present;
use super::queue::{Answer, Job, Op};
use super::state::{Deciding, Fetched, Retention, State};
use super::{load, schema};
use crate::error;

/// Rows after which a batch is closed, so that one batch of large transactions stays short.
const MAX_ROWS: usize = 1024;
/// What is dirty goes into `documents` after this time, and as soon as nobody asks for anything for as long.
pub(super) const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// What the writer has done so far.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) commits: AtomicU64,
    pub(super) batches: AtomicU64,
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
    pub(super) present: Arc<Mutex<Present>>,
    /// When the oldest of what is dirty became so.
    pub(super) dirty_since: Option<Duration>,
    /// The last flush found no room.
    pub(super) full: bool,
    /// Bytes in SQLite's log since it was written into the file, about.
    pub(super) logged: u64,
    /// Told when `documents` has been brought up to date.
    pub(super) moved: Arc<Notify>,
    /// The room that the last batch took.
    pub(super) spare: Batch,
    pub(super) hub: Arc<Hub>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) counters: Arc<Counters>,
    pub(super) settings: Settings,
}

/// What became of a batch that was not committed.
#[derive(Debug)]
pub(super) enum Failure {
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
        while let Some(first) = self.next().await {
            let mut batch = Vec::new();
            take(first, &mut batch, &mut closing);
            self.fill(&mut batch, &mut closing).await;
            self.serve(batch).await;
            // When all have their answers.
            self.flush_when_due().await;
            self.checkpoint_when_due().await;
            if closing.is_some() {
                // Whoever got into the queue before it closed is still served; later calls are refused.
                self.jobs.close();
            }
        }
        self.end(closing).await;
    }

    /// The next call. While there is none, what is dirty is flushed.
    async fn next(&mut self) -> Option<Job> {
        while self.dirty_since.is_some() {
            match tokio::time::timeout(FLUSH_AFTER, self.jobs.recv()).await {
                Ok(job) => return job,
                Err(_) => self.flush().await,
            }
        }
        self.jobs.recv().await
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
        let mut batch = std::mem::take(&mut self.spare);
        let answers = match self.decide(&mut batch, &jobs, now).await {
            Ok(answers) => answers,
            Err(e) => {
                let cause = Arc::new(e);
                for job in jobs {
                    answer_error(job, error::kind(&cause), "nothing was changed", &cause);
                }
                return None;
            }
        };
        let floor = self.present.lock().floor;
        if !batch.is_empty(floor) {
            match self.write(&mut batch).await {
                Ok(()) => {}
                Err(Failure::RolledBack(e)) => {
                    self.undo(batch);
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
        self.spare = batch.cleared();
        for (job, answer) in jobs.into_iter().zip(answers) {
            // A caller that is gone does not hear it.
            let _ = job.reply.send(Ok(answer));
        }
        None
    }

    /// Decides all `jobs` in order. Where memory does not know a key, all is decided again with what the database says.
    async fn decide(&mut self, batch: &mut Batch, jobs: &[Job], now: Now) -> sqlx::Result<Vec<Answer>> {
        let mut fetched = Fetched::new();
        loop {
            let missing = {
                let mut present = self.present.lock();
                let applied = present.applied;
                for (key, dirty) in &fetched {
                    if let Some(doc) = &dirty.doc {
                        present.keep(key, doc, applied);
                    }
                }
                let mut deciding = Deciding {
                    present: &mut present,
                    state: &mut self.state,
                    fetched: &fetched,
                    batch,
                    missing: Vec::new(),
                    now,
                };
                let answers = jobs.iter().map(|job| deciding.decide(&job.op)).collect();
                if deciding.missing.is_empty() {
                    return Ok(answers);
                }
                deciding.missing
            };
            self.undo(std::mem::take(batch));
            let Some(conn) = &mut self.conn else {
                return Err(sqlx::Error::WorkerCrashed);
            };
            fetched.extend(load::fetch(conn, missing).await?);
        }
    }

    fn undo(&mut self, batch: Batch) {
        for (name, record) in batch.undo.into_iter().rev() {
            self.state.leases.set(name, record);
        }
    }

    async fn end(mut self, closing: Closing) {
        self.hub.close();
        if self.dirty_since.is_some() {
            self.flush().await;
        }
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
