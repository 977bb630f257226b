//! The one task for leases: many heartbeats of many holders are one call of the database.
//!
//! The database's clock decides, inside the call. Renewals need no lock beside their own rows; whatever changes an
//! epoch waits for commits under way, so that no commit is guarded by a lease that somebody else already has.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use skyloom_model::Timestamp;
use skyloom_store::{Error, ErrorKind, Grant, LeaseInfo, LeaseMode, LeaseName, Renewal};

use super::dialect::{Dialect, Fault, Link, StoredLease};
use super::pool::Pool;
use super::queue::{Call, Job, Jobs, Reply};
use super::{Limits, timed};

/// Most calls that go together.
const MOST: usize = 1_024;
/// Longest lease: a hundred years, so that no clock overflows.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What is asked for.
#[derive(Debug)]
pub struct LeaseCall {
    pub name: LeaseName,
    pub wish: Wish,
}

#[derive(Debug)]
pub enum Wish {
    Grant {
        holder: String,
        ttl: Duration,
        mode: LeaseMode,
    },
    Renew {
        epoch: u64,
        ttl: Duration,
    },
    Revoke {
        epoch: u64,
    },
}

/// What the database did.
#[derive(Debug)]
pub enum LeaseAnswer {
    /// A grant, at this epoch.
    Granted(i64),
    /// Somebody has it.
    Held(StoredLease),
    /// Renewed or revoked, or not.
    Done(bool),
}

impl LeaseCall {
    /// As the routines know it: 0 acquire, 1 take over, 2 renew, 3 revoke.
    pub fn code(&self) -> i32 {
        match &self.wish {
            Wish::Grant { mode, .. } => match mode {
                LeaseMode::Acquire => 0,
                LeaseMode::TakeOver => 1,
            },
            Wish::Renew { .. } => 2,
            Wish::Revoke { .. } => 3,
        }
    }

    pub fn epoch(&self) -> i64 {
        match &self.wish {
            Wish::Grant { .. } => 0,
            Wish::Renew { epoch, .. } | Wish::Revoke { epoch } => i64::try_from(*epoch).unwrap_or(i64::MAX),
        }
    }

    pub fn holder(&self) -> &str {
        match &self.wish {
            Wish::Grant { holder, .. } => holder,
            _ => "",
        }
    }

    /// In microseconds.
    pub fn ttl(&self) -> i64 {
        match &self.wish {
            Wish::Grant { ttl, .. } | Wish::Renew { ttl, .. } => {
                i64::try_from(ttl.min(&LONGEST).as_micros()).unwrap_or(i64::MAX)
            }
            Wish::Revoke { .. } => 0,
        }
    }

    /// Whether it may change who holds the lease.
    pub fn moves(&self) -> bool {
        !matches!(self.wish, Wish::Renew { .. })
    }
}

impl Call for LeaseCall {
    type Answer = LeaseAnswer;
    fn operation(&self) -> &'static str {
        match &self.wish {
            Wish::Grant { .. } => "grant lease",
            Wish::Renew { .. } => "renew lease",
            Wish::Revoke { .. } => "revoke lease",
        }
    }
    fn changes(&self) -> bool {
        true
    }
    fn bytes(&self) -> usize {
        256
    }
}

pub(super) fn info(name: LeaseName, row: StoredLease) -> LeaseInfo {
    LeaseInfo {
        name,
        epoch: u64::try_from(row.epoch).unwrap_or(0),
        holder: row.holder,
        expires_at: Timestamp::from_microsecond(row.expires_at).unwrap_or(Timestamp::MAX),
        expired: row.expired,
    }
}

fn strange(operation: &'static str, answer: &LeaseAnswer) -> Error {
    Error::new(ErrorKind::Internal, operation).with("answer", format!("{answer:?}"))
}

impl LeaseAnswer {
    pub(super) fn grant(self, name: &LeaseName) -> skyloom_store::Result<Grant> {
        match self {
            Self::Granted(epoch) => Ok(Grant::Granted {
                epoch: u64::try_from(epoch).unwrap_or(0),
            }),
            Self::Held(row) => Ok(Grant::Held(info(name.clone(), row))),
            Self::Done(_) => Err(strange("grant lease", &self)),
        }
    }

    pub(super) fn renewal(self) -> skyloom_store::Result<Renewal> {
        match self {
            Self::Done(true) => Ok(Renewal::Held),
            Self::Done(false) => Ok(Renewal::Lost),
            _ => Err(strange("renew lease", &self)),
        }
    }
}

#[derive(Debug)]
pub(super) struct Leaser<D: Dialect> {
    pub(super) jobs: Jobs<LeaseCall>,
    pub(super) pool: Arc<Pool<D>>,
    pub(super) limits: Limits,
}

impl<D: Dialect> Leaser<D> {
    /// Ends when the queue has been closed and emptied.
    pub(super) async fn run(mut self) {
        let mut waiting = VecDeque::new();
        let mut link = None;
        loop {
            if waiting.is_empty() {
                match self.jobs.recv().await {
                    Some(job) => waiting.push_back(job),
                    None => break,
                }
            }
            while waiting.len() < MOST
                && let Ok(job) = self.jobs.try_recv()
            {
                waiting.push_back(job);
            }
            let (calls, replies) = distinct(&mut waiting);
            self.serve(&mut link, &calls, replies).await;
        }
        if let Some(link) = link {
            let _ = tokio::time::timeout(self.limits.wait, self.pool.dialect.disconnect(link)).await;
        }
    }

    async fn serve(
        &self,
        kept: &mut Option<Link<D::Raw>>,
        calls: &[LeaseCall],
        replies: Vec<Reply<LeaseAnswer>>,
    ) {
        let connected = match kept.take() {
            Some(link) => Ok(link),
            None => self.pool.connect().await,
        };
        let dialect = &self.pool.dialect;
        let (kind, cause) = match connected {
            Ok(mut link) => match timed(self.limits.patience, dialect.lease(&mut link, calls)).await {
                Ok(answers) if answers.len() == replies.len() => {
                    *kept = Some(link);
                    for (reply, answer) in replies.into_iter().zip(answers) {
                        reply.send(Ok(answer));
                    }
                    return;
                }
                Ok(_) => (ErrorKind::Internal, Arc::new(sqlx::Error::RowNotFound).into()),
                Err(e) => {
                    let kind = match dialect.fault(&e) {
                        Fault::Lost(_) => ErrorKind::Unknown,
                        fault => fault.kind(),
                    };
                    (kind, Cause::Sql(Arc::new(e)))
                }
            },
            Err(e) => (e.kind(), Cause::Store(Arc::new(e))),
        };
        for (reply, call) in replies.into_iter().zip(calls) {
            let error = Error::new(kind, call.operation()).with("lease", &call.name);
            reply.send(Err(match &cause {
                Cause::Sql(e) => error.because(Arc::clone(e)),
                Cause::Store(e) => error.because(Arc::clone(e)),
            }));
        }
    }
}

/// Why all calls of a batch failed.
enum Cause {
    Sql(Arc<sqlx::Error>),
    Store(Arc<Error>),
}

impl From<Arc<sqlx::Error>> for Cause {
    fn from(e: Arc<sqlx::Error>) -> Self {
        Self::Sql(e)
    }
}

/// The first call for each lease, in the order of their names, which is the order in which rows are locked. Others wait.
fn distinct(waiting: &mut VecDeque<Job<LeaseCall>>) -> (Vec<LeaseCall>, Vec<Reply<LeaseAnswer>>) {
    let mut chosen = BTreeMap::new();
    let mut later = VecDeque::new();
    for job in waiting.drain(..) {
        if chosen.contains_key(&job.call.name) {
            later.push_back(job);
        } else {
            chosen.insert(job.call.name.clone(), job);
        }
    }
    *waiting = later;
    chosen
        .into_values()
        .map(|Job { call, reply }| (call, reply))
        .unzip()
}
