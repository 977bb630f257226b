//! The one task of a store that commits: takes what waits, commits it together, and answers.
//!
//! ```text
//! queue ─> batch ─> attempt ──committed──────────────────────────> answers, follower
//!            ↑         │ somebody else was faster: wait for the turn, again
//!            │         │ nothing happened: again, until the deadline; what fails for good is tried alone
//!            └─────────┤ unclear: end the session, take the head, read the log for the batch's own name
//!                      └──────────────────────────────────────────> Unknown when the deadline comes first
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::TryStreamExt as _;
use mongodb::ClientSession;
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::ReturnDocument;
use skyloom_store::{Error, ErrorKind, Outcome, Result};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::batch::{Attempt, Done, Failed, head_of, was_logged};
use crate::error::{MAX_TIME_EXPIRED, code, driver, is_passing, labels};
use crate::follow::Published;
use crate::jitter::Jitter;
use crate::plan::Prepared;
use crate::queue::Job;
use crate::retain::{self, Retention};
use crate::space::{Head, Space};

/// A batch takes no more when it has this many bytes.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// How long ending a session may take.
const END_TIME: Duration = Duration::from_secs(1);
/// Sessions that were not used for half an hour are forgotten by the servers; ours is renewed before.
const SESSION_AGE: Duration = Duration::from_secs(600);
/// What is registered longer without renewal belongs to a process that is gone.
const REGISTERED: Duration = Duration::from_secs(86_400);
/// Commits after which the history is looked at; fewer than one step forgets.
const RETAIN_EVERY: u64 = retain::STEP / 2;

/// Counts since the store was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    pub(crate) resolved: AtomicU64,
}

/// The session in which this process commits. Other processes may end it when it keeps them waiting.
pub(crate) struct Lane {
    session: ClientSession,
    id: Bson,
    since: Instant,
}

impl Lane {
    pub(crate) async fn open(space: &Space) -> Result<Self> {
        let session = space.read("open session", space.session()).await?;
        let id = session.id().get("id").cloned().unwrap_or_default();
        Ok(Self {
            session,
            id,
            since: Instant::now(),
        })
    }

    /// The bytes of its id, which no other session has.
    pub(crate) fn id(&self) -> Vec<u8> {
        match &self.id {
            Bson::Binary(id) => id.bytes.clone(),
            other => other.to_string().into_bytes(),
        }
    }

    /// Tells the other processes which session to end if this one dies in the middle.
    pub(crate) async fn register(&self, space: &Space, instance: &str) -> Result<()> {
        let entry = vec![doc! { "$set": { "session": { "$literal": self.id.clone() }, "at": "$$NOW" } }];
        let update = space
            .writers
            .find_one_and_update(doc! { "_id": instance }, entry)
            .upsert(true)
            .return_document(ReturnDocument::After);
        let entry = space.read("register session", update).await?;
        let now = entry.and_then(|entry| entry.get_datetime("at").ok().copied());
        if let Some(now) = now {
            let age = i64::try_from(REGISTERED.as_millis()).unwrap_or(i64::MAX);
            let old = mongodb::bson::DateTime::from_millis(now.timestamp_millis().saturating_sub(age));
            let remove = space.writers.delete_many(doc! { "at": { "$lt": old } });
            space.read("register session", remove).await?;
        }
        Ok(())
    }
}

/// What became of a batch whose commit was not answered.
enum Settled {
    Done,
    NotDone,
    Unknown(Error),
}

pub(crate) struct Writer {
    pub(crate) space: Arc<Space>,
    pub(crate) jobs: mpsc::UnboundedReceiver<Job>,
    /// The name of this open store.
    pub(crate) instance: String,
    pub(crate) lane: Lane,
    pub(crate) jitter: Jitter,
    pub(crate) max_batch: usize,
    pub(crate) call_time: Duration,
    pub(crate) retention: Retention,
    pub(crate) follower: mpsc::Sender<Published>,
    pub(crate) counters: Arc<Counters>,
    /// Whether a batch is under way.
    pub(crate) busy: Arc<AtomicBool>,
    /// Batches begun.
    pub(crate) number: u64,
    /// The head's turn as it was last seen; more means that somebody waits.
    pub(crate) turn: u64,
    /// Where the last batch left the store.
    pub(crate) head: Head,
    /// Commits since history was looked at.
    pub(crate) unretained: u64,
}

impl Writer {
    /// Runs until it is stopped and the queue is empty.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while let Some(first) = self.next(&stop).await {
            let batch = self.fill(first).await;
            self.renew_session().await;
            self.busy.store(true, Ordering::Release);
            self.serve(batch).await;
            self.busy.store(false, Ordering::Release);
            self.retain().await;
        }
        let leave = self.space.writers.delete_one(doc! { "_id": &self.instance });
        let _ = timeout(END_TIME, leave).await;
    }

    async fn next(&mut self, stop: &CancellationToken) -> Option<Job> {
        tokio::select! {
            biased;
            job = self.jobs.recv() => job,
            // The queue takes nothing any more when this is said; what is in it comes first.
            () = stop.cancelled() => None,
        }
    }

    /// Takes what else is waiting. Yields before it looks, so that callers who were just answered can queue their next
    /// call; ends when nobody new came.
    async fn fill(&mut self, first: Job) -> Vec<Job> {
        let mut bytes = first.txn.bytes;
        let mut batch = vec![first];
        loop {
            tokio::task::yield_now().await;
            let before = batch.len();
            while batch.len() < self.max_batch && bytes < MAX_BATCH_BYTES {
                let Ok(job) = self.jobs.try_recv() else { break };
                bytes += job.txn.bytes;
                batch.push(job);
            }
            if batch.len() == before || batch.len() >= self.max_batch || bytes >= MAX_BATCH_BYTES {
                return batch;
            }
        }
    }

    async fn renew_session(&mut self) {
        if self.lane.since.elapsed() < SESSION_AGE {
            return;
        }
        let renewed = async {
            let lane = Lane::open(&self.space).await?;
            lane.register(&self.space, &self.instance).await?;
            Ok::<_, Error>(lane)
        };
        match renewed.await {
            Ok(lane) => self.lane = lane,
            Err(e) => tracing::warn!(error = &e as &dyn std::error::Error, "the session stays as it is"),
        }
    }

    async fn serve(&mut self, jobs: Vec<Job>) {
        let now = Instant::now();
        let (jobs, late): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| job.until > now);
        for job in late {
            let error = self.space.late(ErrorKind::Overloaded, "commit");
            job.answer(Err(error));
        }
        if jobs.is_empty() {
            return;
        }
        let Some(jobs) = self.batch(jobs).await else {
            return;
        };
        // One of them cannot be written; it shall not spoil the others.
        for job in jobs {
            self.batch(vec![job]).await;
        }
    }

    /// Commits the jobs together and answers them. What fails for good is given back, unless it is alone.
    async fn batch(&mut self, jobs: Vec<Job>) -> Option<Vec<Job>> {
        let end = Instant::now() + self.call_time;
        // The last third is for finding out what happened.
        let deadline = end - self.call_time / 3;
        for tries in 0.. {
            self.number += 1;
            let name = format!("{}/{}", self.instance, self.number);
            let began = Instant::now();
            let prepared: Vec<&Prepared> = jobs.iter().map(|job| &job.txn).collect();
            let attempt = Attempt {
                space: &self.space,
                session: &mut self.lane.session,
                jobs: &prepared,
                name: &name,
                deadline,
            };
            let failed = match attempt.run().await {
                Ok(done) => {
                    self.finish(jobs, done, began).await;
                    return None;
                }
                Err(failed) => failed,
            };
            let failed = match failed {
                Failed::Unclear(done, e) => match self.settle(&done, e.as_ref(), &name, end).await {
                    Settled::Done => {
                        self.finish(jobs, *done, began).await;
                        return None;
                    }
                    Settled::NotDone => match e {
                        Some(e) => Failed::Driver(e),
                        None => Failed::Late,
                    },
                    Settled::Unknown(e) => {
                        answer_unknown(jobs, &done, &e);
                        return None;
                    }
                },
                failed @ (Failed::Driver(_) | Failed::Store(_) | Failed::Late) => failed,
            };
            let again = match &failed {
                Failed::Driver(e) => is_passing(e),
                Failed::Store(_) | Failed::Late | Failed::Unclear(..) => false,
            };
            let pause = self.jitter.backoff(tries);
            if again && Instant::now() + pause < deadline {
                if failed.is_conflict() {
                    self.wait_for_turn(deadline).await;
                } else {
                    self.end_own_session().await;
                }
                sleep(pause).await;
                continue;
            }
            if !again && jobs.len() > 1 && matches!(failed, Failed::Driver(_) | Failed::Store(_)) {
                return Some(jobs);
            }
            answer_failed(jobs, failed, &self.space);
            return None;
        }
        None
    }

    async fn finish(&mut self, jobs: Vec<Job>, done: Done, began: Instant) {
        let Done { plan, head } = done;
        let commits = plan.commits.len() as u64;
        self.counters.commits.fetch_add(commits, Ordering::Relaxed);
        self.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.unretained += commits;
        if commits > 0 {
            // A follower that does not keep up reads the log.
            let _ = self.follower.try_send(Published {
                commits: plan.commits,
                floor: head.floor,
            });
        }
        for (job, outcome) in jobs.into_iter().zip(plan.outcomes) {
            job.answer(Ok(outcome));
        }
        self.head = Head {
            revision: plan.revision,
            bytes: plan.bytes,
            ..head
        };
        let crowded = head.turn > self.turn;
        self.turn = self.turn.max(head.turn);
        if crowded {
            sleep(self.jitter.around(began.elapsed())).await;
        }
    }

    /// How long a transaction of another process may hold the head before it is taken for abandoned.
    fn turn_time(&self) -> Duration {
        self.call_time / 4
    }

    /// Lets the transaction of another process end, and tells its process that somebody waits.
    async fn wait_for_turn(&mut self, deadline: Instant) {
        self.counters.conflicts.fetch_add(1, Ordering::Relaxed);
        match timeout_at(deadline, self.space.turn(self.turn_time())).await {
            Ok(Ok(head)) => {
                if let Ok(head) = head_of(head) {
                    self.turn = self.turn.max(head.turn);
                }
            }
            Ok(Err(e)) if code(&e) == Some(MAX_TIME_EXPIRED) => self.unblock(deadline).await,
            Ok(Err(e)) => tracing::debug!(error = &e as &dyn std::error::Error, "while waiting for the turn"),
            Err(_) => {}
        }
    }

    /// Ends the transactions of all processes. Those that live repeat theirs; those that died in the middle of one no
    /// longer keep everybody waiting.
    async fn unblock(&self, deadline: Instant) {
        let work = async {
            let entries: Vec<Document> = self.space.writers.find(doc! {}).await?.try_collect().await?;
            let ids: Vec<Bson> = entries
                .into_iter()
                .filter_map(|mut entry| entry.remove("session"))
                .collect();
            tracing::warn!(
                sessions = ids.len(),
                "a transaction holds the head for too long; ending all"
            );
            self.space.end_sessions(ids).await
        };
        match timeout_at(deadline, work).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!(
                error = &e as &dyn std::error::Error,
                "an abandoned transaction could not be ended; the server does after transactionLifetimeLimitSeconds"
            ),
            Err(_) => tracing::error!("an abandoned transaction could not be ended in time"),
        }
    }

    /// Ends what may still be open of the last attempt, so that it cannot be committed later.
    async fn end_own_session(&self) {
        let end = self.space.end_sessions(vec![self.lane.id.clone()]);
        if !matches!(timeout(END_TIME, end).await, Ok(Ok(()))) {
            tracing::debug!("the session could not be ended");
        }
        if let Err(e) = self.lane.register(&self.space, &self.instance).await {
            tracing::debug!(
                error = &e as &dyn std::error::Error,
                "the session could not be registered"
            );
        }
    }

    /// Finds out whether a batch was committed. Whatever is still open of it is ended; then the head is changed, which
    /// nobody can do while a transaction holds it, so the log has the answer.
    async fn settle(
        &mut self,
        done: &Done,
        cause: Option<&mongodb::error::Error>,
        name: &str,
        end: Instant,
    ) -> Settled {
        let Some(first) = done.plan.commits.first().map(|commit| commit.revision.0) else {
            return Settled::NotDone;
        };
        tracing::debug!(batch = name, ?cause, labels = ?cause.map(labels), "a commit was not answered");
        self.counters.resolved.fetch_add(1, Ordering::Relaxed);
        let mut last = None;
        for tries in 0.. {
            self.end_own_session().await;
            let look = async {
                let head = self
                    .space
                    .turn(self.turn_time())
                    .await
                    .map_err(driver("commit"))?;
                let head = head_of(head)?;
                let logged = was_logged(&self.space, head, first, name).await;
                logged.map_err(driver("commit"))
            };
            match timeout_at(end, look).await {
                Ok(Ok(Some(true))) => return Settled::Done,
                Ok(Ok(Some(false))) => return Settled::NotDone,
                Ok(Ok(None)) => {
                    last = Some(
                        Error::new(ErrorKind::Unknown, "commit")
                            .with("state", "the log has forgotten it already"),
                    );
                    break;
                }
                Ok(Err(e)) => {
                    if e.kind() == ErrorKind::Timeout {
                        self.unblock(end).await;
                    }
                    last = Some(e);
                }
                Err(_) => break,
            }
            let pause = self.jitter.backoff(tries);
            if Instant::now() + pause >= end {
                break;
            }
            sleep(pause).await;
        }
        let unknown = Error::new(ErrorKind::Unknown, "commit").with("batch", name);
        Settled::Unknown(match (last, cause) {
            (Some(last), _) => unknown.because(last),
            (None, Some(cause)) => unknown.because(cause.clone()),
            (None, None) => unknown,
        })
    }

    /// Forgets history when it is time.
    async fn retain(&mut self) {
        if self.unretained < RETAIN_EVERY {
            return;
        }
        self.unretained = 0;
        if !self.retention.is_due(self.head) {
            return;
        }
        if let Err(e) = retain::step(&self.space, self.retention).await {
            tracing::warn!(
                error = &e as &dyn std::error::Error,
                "history could not be forgotten"
            );
        }
    }
}

/// Nobody knows about those that write; the others did nothing.
fn answer_unknown(jobs: Vec<Job>, done: &Done, cause: &Error) {
    for (job, outcome) in jobs.into_iter().zip(&done.plan.outcomes) {
        let wrote = matches!(outcome, Outcome::Committed { .. }) && !job.txn.writes.is_empty();
        let kind = if wrote {
            ErrorKind::Unknown
        } else {
            ErrorKind::Unavailable
        };
        let error = Error::new(kind, "commit").with("cause", skyloom_model::report(cause));
        job.answer(Err(error));
    }
}

/// None of them happened.
fn answer_failed(jobs: Vec<Job>, failed: Failed, space: &Space) {
    let error = failed.into_error(space);
    let mut jobs = jobs.into_iter();
    let first = jobs.next();
    for job in jobs {
        let like = Error::new(error.kind(), "commit").with("cause", skyloom_model::report(&error));
        job.answer(Err(like));
    }
    if let Some(job) = first {
        job.answer(Err(error));
    }
}
