//! The calls that wait for the writer, and their bound.

use std::sync::Arc;
use std::time::Duration;

use skyloom_store::{
    Capability, Error, ErrorKind, Grant, Guard, Key, LeaseInfo, LeaseMode, LeaseName, Outcome, Prefix,
    Renewal, Result, Revision, Txn, Value, Write,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::error::closed;

/// A transaction whose form has been checked, with its writes in key order.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) guards: Vec<Guard>,
    pub(super) writes: Vec<PreparedWrite>,
}

/// One write.
#[derive(Debug)]
pub(super) struct PreparedWrite {
    pub(super) key: Key,
    /// `None` removes.
    pub(super) put: Option<Value>,
}

impl Prepared {
    pub(super) fn new(mut txn: Txn, capability: &Capability) -> Result<Self> {
        txn.check(capability)?;
        txn.writes.sort_unstable_by(|a, b| a.key().cmp(b.key()));
        let writes = txn
            .writes
            .into_iter()
            .map(PreparedWrite::new)
            .collect::<Result<_>>()?;
        Ok(Self {
            guards: txn.guards,
            writes,
        })
    }
}

impl PreparedWrite {
    fn new(write: Write) -> Result<Self> {
        Ok(match write {
            Write::Put(key, value) => {
                check_text(&key, &value)?;
                Self {
                    key,
                    put: Some(value),
                }
            }
            Write::Delete(key) => Self { key, put: None },
        })
    }
}

/// [`Txn::check`] has seen to it that the value is JSON; here it is what goes to SQL as text.
fn check_text(key: &Key, value: &Value) -> Result<()> {
    match std::str::from_utf8(value.bytes()) {
        Ok(_) => Ok(()),
        Err(e) => Err(Error::new(ErrorKind::Invalid, "commit")
            .with("key", key)
            .with("hint", "values are JSON documents")
            .because(e)),
    }
}

/// What the writer is asked.
#[derive(Debug)]
pub(super) enum Op {
    Commit(Prepared),
    Grant {
        name: LeaseName,
        holder: String,
        ttl: Duration,
        mode: LeaseMode,
    },
    Renew {
        name: LeaseName,
        epoch: u64,
        ttl: Duration,
    },
    Revoke {
        name: LeaseName,
        epoch: u64,
    },
    Leases(Prefix),
    Compact(Revision),
    Close,
}

impl Op {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Commit(_) => "commit",
            Self::Grant { .. } => "grant lease",
            Self::Renew { .. } => "renew lease",
            Self::Revoke { .. } => "revoke lease",
            Self::Leases(_) => "list leases",
            Self::Compact(_) => "compact",
            Self::Close => "close",
        }
    }

    /// Whether anybody could notice that it happened.
    pub(super) fn changes(&self) -> bool {
        match self {
            Self::Commit(txn) => !txn.writes.is_empty(),
            Self::Grant { .. } | Self::Renew { .. } | Self::Revoke { .. } | Self::Compact(_) => true,
            Self::Leases(_) | Self::Close => false,
        }
    }

    /// Bytes held while it waits, about.
    fn bytes(&self) -> usize {
        match self {
            Self::Commit(txn) => txn
                .writes
                .iter()
                .map(|w| w.key.as_str().len() + w.put.as_ref().map_or(0, |value| value.bytes().len()))
                .sum(),
            _ => 0,
        }
    }
}

/// What the writer answers.
#[derive(Debug)]
pub(super) enum Answer {
    Outcome(Outcome),
    Grant(Grant),
    Renewal(Renewal),
    Leases(Vec<LeaseInfo>),
    Done,
}

/// One waiting call.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) op: Op,
    pub(super) reply: oneshot::Sender<Result<Answer>>,
    /// Its share of the queue, given back when it is answered.
    _room: Option<OwnedSemaphorePermit>,
}

/// The callers' side of the queue. Its bound is the room, counted in kibibytes; the channel itself has none.
#[derive(Debug)]
pub(super) struct Queue {
    jobs: mpsc::UnboundedSender<Job>,
    room: Arc<Semaphore>,
    size: u32,
    wait: Duration,
}

impl Queue {
    pub(super) fn new(size: u32, wait: Duration) -> (Self, mpsc::UnboundedReceiver<Job>) {
        let size = size.clamp(1, 1 << 28);
        let (jobs, receiver) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(size as usize));
        (
            Self {
                jobs,
                room,
                size,
                wait,
            },
            receiver,
        )
    }

    /// Hands `op` to the writer and waits for its answer. A caller that stops waiting changes nothing about `op`.
    pub(super) async fn ask(&self, op: Op) -> Result<Answer> {
        let operation = op.name();
        let changes = op.changes();
        let weight = u32::try_from(1 + op.bytes() / 1024)
            .unwrap_or(u32::MAX)
            .min(self.size);
        let room = Arc::clone(&self.room).acquire_many_owned(weight);
        let room = match tokio::time::timeout(self.wait, room).await {
            Ok(Ok(room)) => room,
            Ok(Err(_)) => return Err(closed(operation)),
            Err(_) => {
                return Err(Error::new(ErrorKind::Overloaded, operation)
                    .with("waited ms", self.wait.as_millis())
                    .with("queue KiB", self.size));
            }
        };
        let (reply, answer) = oneshot::channel();
        self.jobs
            .send(Job {
                op,
                reply,
                _room: Some(room),
            })
            .map_err(|_| closed(operation))?;
        answer.await.unwrap_or_else(|_| {
            let kind = if changes {
                ErrorKind::Unknown
            } else {
                ErrorKind::Unavailable
            };
            Err(Error::new(kind, operation).with("state", "the writer ended while the call was with it"))
        })
    }

    /// Refuses further calls, has those in the queue answered, and waits until the writer has let go of the database.
    /// `None` when it already had.
    pub(super) async fn close(&self) -> Option<Result<()>> {
        self.room.close();
        let (reply, answer) = oneshot::channel();
        self.jobs
            .send(Job {
                op: Op::Close,
                reply,
                _room: None,
            })
            .ok()?;
        answer.await.ok().map(|answer| answer.map(drop))
    }
}
