//! The commits that wait for the writer, and their bound.

use std::sync::Arc;
use std::time::Duration;

use skyloom_store::{Error, ErrorKind, Outcome, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::error::closed;
use crate::plan::Prepared;

const OPERATION: &str = "commit";

/// One waiting commit.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) txn: Prepared,
    pub(crate) reply: oneshot::Sender<Result<Outcome>>,
    /// By when it must have been begun.
    pub(crate) until: Instant,
    /// Its share of the queue, given back when it is answered.
    _room: OwnedSemaphorePermit,
}

impl Job {
    pub(crate) fn answer(self, answer: Result<Outcome>) {
        // Who stopped waiting does not want to know.
        let _ = self.reply.send(answer);
    }
}

/// The callers' side of the queue. Its bound is the room, counted in kibibytes; the channel itself has none.
#[derive(Debug)]
pub(crate) struct Queue {
    jobs: mpsc::UnboundedSender<Job>,
    room: Arc<Semaphore>,
    size: u32,
    wait: Duration,
}

impl Queue {
    pub(crate) fn new(size: u32, wait: Duration) -> (Self, mpsc::UnboundedReceiver<Job>) {
        let size = size.clamp(1, 1 << 28);
        let (jobs, receiver) = mpsc::unbounded_channel();
        let queue = Self {
            jobs,
            room: Arc::new(Semaphore::new(size as usize)),
            size,
            wait,
        };
        (queue, receiver)
    }

    /// Hands `txn` to the writer and waits for its answer. A caller that stops waiting changes nothing about it.
    pub(crate) async fn commit(&self, txn: Prepared) -> Result<Outcome> {
        let until = Instant::now() + self.wait;
        let weight = u32::try_from(1 + txn.bytes / 1024)
            .unwrap_or(u32::MAX)
            .min(self.size);
        let room = Arc::clone(&self.room).acquire_many_owned(weight);
        let room = match tokio::time::timeout_at(until, room).await {
            Ok(Ok(room)) => room,
            Ok(Err(_)) => return Err(closed(OPERATION)),
            Err(_) => {
                return Err(Error::new(ErrorKind::Overloaded, OPERATION)
                    .with("waited ms", self.wait.as_millis())
                    .with("queue KiB", self.size));
            }
        };
        let (reply, answer) = oneshot::channel();
        let job = Job {
            txn,
            reply,
            until,
            _room: room,
        };
        self.jobs.send(job).map_err(|_| closed(OPERATION))?;
        answer.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Unknown, OPERATION)
                .with("state", "the writer ended while the call was with it"))
        })
    }

    /// Refuses further commits; those that wait are still answered.
    pub(crate) fn close(&self) {
        self.room.close();
    }
}
