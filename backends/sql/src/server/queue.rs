//! The calls that wait for a worker, and their bound.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skyloom_store::{Capability, Error, ErrorKind, Guard, Key, Result, Txn, Value, Write};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// A transaction whose form has been checked, with its writes in key order.
#[derive(Debug)]
pub struct Prepared {
    pub guards: Vec<Guard>,
    pub writes: Vec<PreparedWrite>,
    /// Bytes of keys and values.
    pub bytes: usize,
}

/// One write; without a value it removes. A value is valid UTF-8.
#[derive(Debug)]
pub struct PreparedWrite {
    pub key: Key,
    pub value: Option<Value>,
}

impl PreparedWrite {
    /// The value as text.
    pub fn text(&self) -> Option<&str> {
        // Checked when it was prepared.
        self.value
            .as_ref()
            .map(|v| std::str::from_utf8(v.bytes()).unwrap_or_default())
    }
}

impl Prepared {
    pub(super) fn new(mut txn: Txn, capability: &Capability) -> Result<Self> {
        txn.check(capability)?;
        txn.writes.sort_unstable_by(|a, b| a.key().cmp(b.key()));
        let mut bytes = 64 * txn.guards.len();
        let mut writes = Vec::with_capacity(txn.writes.len());
        for write in txn.writes {
            let write = match write {
                Write::Put(key, value) => PreparedWrite {
                    key,
                    value: Some(value),
                },
                Write::Delete(key) => PreparedWrite { key, value: None },
            };
            let value = write.value.as_ref().map_or(&[][..], |v| v.bytes());
            if let Err(e) = std::str::from_utf8(value) {
                return Err(Error::new(ErrorKind::Invalid, "commit")
                    .with("no JSON under key", &write.key)
                    .because(e));
            }
            bytes += write.key.as_str().len() + value.len() + 64;
            writes.push(write);
        }
        Ok(Self {
            guards: txn.guards,
            writes,
            bytes,
        })
    }
}

/// What can wait in a queue.
pub(super) trait Call: Send + 'static {
    type Answer: Send + 'static;
    /// What it is, for errors.
    fn operation(&self) -> &'static str;
    /// Whether anybody could notice that it happened.
    fn changes(&self) -> bool;
    /// Bytes held while it waits, about.
    fn bytes(&self) -> usize;
}

impl Call for Prepared {
    type Answer = skyloom_store::Outcome;
    fn operation(&self) -> &'static str {
        "commit"
    }
    fn changes(&self) -> bool {
        !self.writes.is_empty()
    }
    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// One waiting call.
#[derive(Debug)]
pub(super) struct Job<C: Call> {
    pub(super) call: C,
    pub(super) reply: Reply<C::Answer>,
}

/// Where the answer goes.
#[derive(Debug)]
pub(super) struct Reply<A> {
    sender: oneshot::Sender<Result<A>>,
    /// The call's share of the queue, given back when it is answered.
    _room: OwnedSemaphorePermit,
}

impl<A> Reply<A> {
    pub(super) fn send(self, answer: Result<A>) {
        // A caller that is gone does not hear it.
        let _ = self.sender.send(answer);
    }

    /// Whether nobody waits for the answer any more.
    pub(super) fn abandoned(&self) -> bool {
        self.sender.is_closed()
    }
}

/// The callers' side of a queue. Its bound is the room, counted in kibibytes; the channel itself has none.
#[derive(Debug)]
pub(super) struct Queue<C: Call> {
    /// Gone when the queue has been closed: its worker ends when it has done the rest.
    jobs: Mutex<Option<mpsc::UnboundedSender<Job<C>>>>,
    room: Arc<Semaphore>,
    size: u32,
    wait: Duration,
}

/// The worker's side.
pub(super) type Jobs<C> = mpsc::UnboundedReceiver<Job<C>>;

/// The store has been closed.
pub(super) fn closed(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, operation).with("state", "the store is closed")
}

impl<C: Call> Queue<C> {
    pub(super) fn new(size: u32, wait: Duration) -> (Self, Jobs<C>) {
        let (jobs, receiver) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(size as usize));
        (
            Self {
                jobs: Mutex::new(Some(jobs)),
                room,
                size,
                wait,
            },
            receiver,
        )
    }

    /// Hands `call` to the worker and waits for its answer. A caller that stops waiting changes nothing about it.
    pub(super) async fn ask(&self, call: C) -> Result<C::Answer> {
        let (operation, changes) = (call.operation(), call.changes());
        let weight = u32::try_from(1 + call.bytes() / 1024)
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
        let (sender, answer) = oneshot::channel();
        let reply = Reply { sender, _room: room };
        let job = Job { call, reply };
        let sent = self.jobs.lock().as_ref().map(|jobs| jobs.send(job));
        if !matches!(sent, Some(Ok(()))) {
            return Err(closed(operation));
        }
        answer.await.unwrap_or_else(|_| {
            let kind = if changes {
                ErrorKind::Unknown
            } else {
                ErrorKind::Unavailable
            };
            Err(Error::new(kind, operation).with("state", "the store ended while the call was under way"))
        })
    }

    /// Refuses further calls.
    pub(super) fn close(&self) {
        self.room.close();
        *self.jobs.lock() = None;
    }
}
