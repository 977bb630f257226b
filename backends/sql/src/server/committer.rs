//! The one task that commits: gathers what waits, has the database do it at once, and answers.
//!
//! ```text
//! queue ─> gather ─> batch ─> commit routine (one call) ─┬─ answer ──> feed, callers
//!            ↑ the next one gathers meanwhile            ├─ rejected ─> each alone, or an error: nothing happened
//!                                                        └─ lost ─────> fence ─> what did happen; else Unknown
//! ```
//!
//! A lost answer is no riddle for long. Every batch carries the number of this task's leave to write and its own. A new
//! connection withdraws that leave, under the same lock as commits, and looks for the batch in the log: what is not there then can
//! never get there any more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use skyloom_store::{Class, Error, ErrorKind, Outcome, Result};
use tokio::sync::mpsc;

use super::batch::{Batch, Levels, unsigned};
use super::dialect::{Applied, Dialect, Fault, Fenced, Link};
use super::feed::News;
use super::pool::Pool;
use super::queue::{Job, Jobs, Prepared, Reply};
use super::{Counters, Durable, Limits, stall, timed};

/// Most bytes of one batch of several transactions.
const BATCH_BYTES: usize = 4 << 20;
/// Tries to learn what became of a batch whose answer was lost.
const FENCE_TRIES: u32 = 3;

#[derive(Debug)]
pub(super) struct Committer<D: Dialect> {
    pub(super) jobs: Jobs<Prepared>,
    pub(super) pool: Arc<Pool<D>>,
    pub(super) session: Option<Session<D>>,
    /// The present session's writer, for those who tell own commits from others'.
    pub(super) current: Arc<AtomicI64>,
    pub(super) news: mpsc::Sender<News>,
    pub(super) counters: Arc<Counters>,
    pub(super) durable: Arc<Durable>,
    pub(super) limits: Limits,
    pub(super) max_batch: usize,
}

/// A connection with leave to write.
#[derive(Debug)]
pub(super) struct Session<D: Dialect> {
    link: Link<D::Raw>,
    pub(super) writer: i64,
    /// Number of the last batch.
    batch: i64,
    /// A revision from before the next batch.
    base: i64,
}

impl<D: Dialect> Session<D> {
    pub(super) async fn open(pool: &Pool<D>, limits: Limits) -> Result<Self> {
        let mut link = pool.connect().await?;
        let dialect = &pool.dialect;
        let opened = async {
            let writer = dialect.register(&mut link).await?;
            Ok((dialect.position(&mut link).await?.revision, writer))
        };
        let (base, writer) = timed(limits.patience, opened)
            .await
            .map_err(|e| super::dialect::failed(&**dialect, "connect", e))?;
        Ok(Self {
            link,
            writer,
            batch: 0,
            base,
        })
    }
}

/// What became of a try.
enum Tried {
    Done,
    /// Nothing happened, and each of these may fare better alone or on a new session.
    Again(Vec<(Prepared, Reply<Outcome>)>),
}

impl<D: Dialect> Committer<D> {
    /// Ends when the queue has been closed and emptied.
    pub(super) async fn run(mut self) {
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                match self.jobs.recv().await {
                    Some(job) => waiting.push_back(job),
                    None => break,
                }
            }
            self.fill(&mut waiting).await;
            let (batch, replies) = gather(&mut waiting, self.max_batch);
            self.serve(batch, replies).await;
        }
        if let Some(session) = self.session.take() {
            let goodbye = self.pool.dialect.disconnect(session.link);
            let _ = tokio::time::timeout(self.limits.wait, goodbye).await;
        }
    }

    /// Takes what else is waiting. Yields before it looks, so that callers who were just answered can queue their next
    /// call; ends when nobody new came.
    async fn fill(&mut self, waiting: &mut VecDeque<Job<Prepared>>) {
        loop {
            tokio::task::yield_now().await;
            let before = waiting.len();
            while waiting.len() < self.max_batch {
                let Ok(job) = self.jobs.try_recv() else { break };
                waiting.push_back(job);
            }
            if waiting.len() == before || waiting.len() >= self.max_batch {
                return;
            }
        }
    }

    async fn serve(&mut self, batch: Batch, replies: Vec<Reply<Outcome>>) {
        if replies.is_empty() {
            return;
        }
        if let Tried::Again(again) = self.attempt(batch, replies, true).await {
            // One call may have spoilt it for all: each gets its own transaction.
            for (txn, reply) in again {
                self.alone(txn, reply).await;
            }
        }
    }

    async fn alone(&mut self, txn: Prepared, reply: Reply<Outcome>) {
        let mut batch = Batch::default();
        if batch.push(&mut Levels::default(), txn).is_ok() {
            self.attempt(batch, vec![reply], false).await;
        }
    }

    /// Has the database do `batch`.
    async fn attempt(&mut self, batch: Batch, replies: Vec<Reply<Outcome>>, again: bool) -> Tried {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => match Session::open(&self.pool, self.limits).await {
                Ok(session) => {
                    self.current.store(session.writer, Ordering::Relaxed);
                    session
                }
                Err(e) => {
                    refuse_all(
                        replies,
                        e.kind(),
                        e.class(),
                        "the database cannot be reached",
                        Arc::new(e),
                    );
                    return Tried::Done;
                }
            },
        };
        if let Some(limit) = too_large(&batch, &session.link) {
            self.session = Some(session);
            if replies.len() > 1 {
                return Tried::Again(batch.txns.into_iter().zip(replies).collect());
            }
            for reply in replies {
                reply.send(Err(Error::new(ErrorKind::TooLarge, "commit")
                    .with("bytes", batch.bytes)
                    .with("the server's limit", limit)));
            }
            return Tried::Done;
        }
        session.batch += 1;
        let (waiting, started) = (session.link.session, session.base);
        let dialect = Arc::clone(&self.pool.dialect);
        let call = dialect.commit(&mut session.link, session.writer, session.batch, &batch);
        let (answer, holder) = stall::watched(
            &self.pool,
            &self.counters,
            self.limits,
            waiting,
            timed(self.limits.patience, call),
        )
        .await;
        let e = match answer {
            Ok(applied) => {
                session.base = applied.head;
                self.session = Some(session);
                self.settle(&batch, &applied, replies);
                return Tried::Done;
            }
            Err(e) => e,
        };
        match dialect.fault(&e) {
            Fault::Fenced if again => {
                // Its leave was withdrawn, by somebody who tidied up. A new session gets a new one.
                Tried::Again(batch.txns.into_iter().zip(replies).collect())
            }
            Fault::Rejected(kind) if again && replies.len() > 1 && own_fault(kind) => {
                self.session = (!session.link.dirty).then_some(session);
                Tried::Again(batch.txns.into_iter().zip(replies).collect())
            }
            fault @ (Fault::Rejected(_) | Fault::Fenced) => {
                self.session = (!session.link.dirty).then_some(session);
                // "Timed out" is for reads: of a commit it would leave open what happened.
                let kind = match fault.kind() {
                    ErrorKind::Timeout => ErrorKind::Unavailable,
                    kind => kind,
                };
                let state = match &holder {
                    Some(holder) => format!("nothing was changed; held up by {holder}"),
                    None => "nothing was changed".to_owned(),
                };
                refuse_all(replies, kind, kind.default_class(), &state, Arc::new(e));
                Tried::Done
            }
            Fault::Lost(_) => {
                tracing::warn!(
                    error = &e as &dyn std::error::Error,
                    "the answer to a commit was lost; looking for what it did"
                );
                let (writer, number) = (session.writer, session.batch);
                drop(session); // closes its connection
                self.resolve(&batch, replies, writer, number, started, Arc::new(e))
                    .await;
                Tried::Done
            }
        }
    }

    fn settle(&self, batch: &Batch, applied: &Applied, replies: Vec<Reply<Outcome>>) {
        self.durable.reached(applied.head);
        let commits = batch.commits(applied);
        self.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.counters
            .commits
            .fetch_add(commits.len() as u64, Ordering::Relaxed);
        // Watchers hear it before the caller does. If the feed is that far behind, it reads the log instead.
        let _ = self.news.try_send(News::Own {
            base: unsigned(applied.base),
            head: unsigned(applied.head),
            floor: unsigned(applied.floor),
            commits,
        });
        for (reply, outcome) in replies.into_iter().zip(batch.outcomes(applied)) {
            reply.send(Ok(outcome));
        }
    }

    /// Learns what a batch did whose answer was lost.
    async fn resolve(
        &mut self,
        batch: &Batch,
        replies: Vec<Reply<Outcome>>,
        writer: i64,
        number: i64,
        base: i64,
        cause: Arc<sqlx::Error>,
    ) {
        self.counters.lost.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("skyloom_store_lost_answers_total").increment(1);
        let mut fenced = None;
        for _ in 0..FENCE_TRIES {
            match self
                .pool
                .run("commit", |d, link| d.fence(link, writer, number, base))
                .await
            {
                Ok(found) => {
                    fenced = Some(found);
                    break;
                }
                Err(e) if e.class() == Class::Transient => {
                    tracing::warn!(
                        error = &e as &dyn std::error::Error,
                        "what a commit did cannot be read back"
                    );
                    tokio::time::sleep(self.limits.wait / 10).await;
                }
                Err(_) => break,
            }
        }
        // Watchers learn of it from the log.
        let _ = self.news.try_send(News::Look);
        match fenced {
            // Older than the log remembers: a revision that is not there may have been.
            Some(Fenced { floor, .. }) if floor > base => {
                refuse_all(
                    replies,
                    ErrorKind::Unknown,
                    Class::Permanent,
                    "its place in the log is gone",
                    cause,
                );
            }
            Some(Fenced { found, .. }) => {
                if let Some(head) = found.iter().map(|(_, revision)| *revision).max() {
                    self.durable.reached(head);
                }
                for (txn, reply) in replies.into_iter().enumerate() {
                    match found.iter().find(|(number, _)| *number == txn) {
                        Some((_, revision)) => reply.send(Ok(Outcome::Committed {
                            revision: unsigned(*revision),
                        })),
                        None => refuse_all(
                            vec![reply],
                            ErrorKind::Unavailable,
                            Class::Transient,
                            "the connection was lost; nothing was changed",
                            Arc::clone(&cause),
                        ),
                    }
                }
            }
            None => {
                let kinds = batch.txns.iter().map(|txn| match txn.writes.is_empty() {
                    true => ErrorKind::Unavailable,
                    false => ErrorKind::Unknown,
                });
                for (kind, reply) in kinds.zip(replies) {
                    refuse_all(
                        vec![reply],
                        kind,
                        kind.default_class(),
                        "the connection was lost, and what happened cannot be read back",
                        Arc::clone(&cause),
                    );
                }
            }
        }
    }
}

/// Takes as many of `waiting` as go into one batch.
fn gather(waiting: &mut VecDeque<Job<Prepared>>, most: usize) -> (Batch, Vec<Reply<Outcome>>) {
    let mut batch = Batch::default();
    let mut levels = Levels::default();
    let mut replies = Vec::new();
    while replies.len() < most
        && let Some(Job { call, reply }) = waiting.pop_front()
    {
        if reply.abandoned() {
            continue; // nothing has happened yet
        }
        if !replies.is_empty() && batch.bytes + call.bytes > BATCH_BYTES {
            waiting.push_front(Job { call, reply });
            break;
        }
        match batch.push(&mut levels, call) {
            Ok(()) => replies.push(reply),
            Err(call) => {
                waiting.push_front(Job { call, reply });
                break;
            }
        }
    }
    (batch, replies)
}

/// The server's limit when `batch` is beyond it. Values may double on their way.
fn too_large<C>(batch: &Batch, link: &Link<C>) -> Option<usize> {
    (batch.bytes + 4096 > link.max_request).then_some(link.max_request)
}

/// Whether another call of the same batch may have nothing to do with it.
fn own_fault(kind: ErrorKind) -> bool {
    !matches!(
        kind,
        ErrorKind::Unavailable
            | ErrorKind::Overloaded
            | ErrorKind::Timeout
            | ErrorKind::Corrupt
            | ErrorKind::Denied
    )
}

fn refuse_all<E>(replies: Vec<Reply<Outcome>>, kind: ErrorKind, class: Class, state: &str, cause: Arc<E>)
where
    E: std::error::Error + Send + Sync + 'static,
{
    for reply in replies {
        reply.send(Err(Error::new(kind, "commit")
            .class_is(class)
            .with("state", state)
            .because(Arc::clone(&cause))));
    }
}
