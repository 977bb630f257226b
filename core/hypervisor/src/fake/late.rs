//! Operations that take their time: they go on by themselves, whether their caller waits or not.
//!
//! ```text
//!  verb ──> queue ── due ──> carried out by whoever is there first:
//!                            its caller, the next verb for the same server, run_late
//! ```
//!
//! The queue is this process's: with the process its operations end, wherever the records are.

use std::collections::BTreeMap;
use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use parking_lot::Mutex;
use skyloom_model::ServerId;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::FakeWorld;
use crate::{Error, ErrorKind, Result};

/// What an operation works on, and so what waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Server(ServerId),
    Images,
    /// An event on its way: nothing waits for it.
    Event,
}

impl From<Option<ServerId>> for Target {
    fn from(server: Option<ServerId>) -> Self {
        server.map_or(Self::Images, Self::Server)
    }
}

type Work = Box<dyn FnOnce(&FakeWorld) + Send>;

struct Operation {
    due: Instant,
    target: Target,
    /// Nobody can tell what is while it is under way.
    hides: bool,
    /// Taken while it is carried out.
    work: Option<Work>,
}

/// What is under way.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    next: u64,
    operations: BTreeMap<u64, Operation>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("under way", &self.state.lock().operations.len())
            .finish()
    }
}

/// The answer of an operation under way.
#[derive(Debug)]
pub(super) struct Answer<T> {
    number: u64,
    told: oneshot::Receiver<Result<T>>,
}

impl Queue {
    /// When the first of these operations is due; `None` when there is none.
    fn due(&self, which: impl Fn(u64, &Operation) -> bool) -> Option<Instant> {
        let state = self.state.lock();
        let those = state.operations.iter().filter(|(n, o)| which(**n, o));
        those.map(|(_, o)| o.due).min()
    }
}

impl FakeWorld {
    /// Carries out late operations when they are due, until `shutdown`. Without it they are carried out only while
    /// somebody waits for them.
    pub async fn run_late(&self, shutdown: CancellationToken) {
        let mut ended = pin!(shutdown.cancelled());
        loop {
            let mut changed = pin!(self.0.queue.changed.notified());
            changed.as_mut().enable();
            let next = self.0.queue.due(|_, _| true);
            tokio::select! {
                biased;
                () = &mut ended => return,
                () = until(next) => self.carry_out_due(),
                () = changed => {}
            }
        }
    }

    /// How many operations are under way. While there are any, nothing that this host says of itself is the last word.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.0.queue.state.lock().operations.len()
    }

    /// Puts an operation into the queue.
    pub(super) fn begin<T: Send + 'static>(
        &self,
        target: Target,
        hides: bool,
        after: Duration,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Answer<T> {
        let (tell, told) = oneshot::channel();
        // Whoever asked may have gone away.
        let work: Work = Box::new(move |world| drop(tell.send(work(world))));
        let number = {
            let mut state = self.0.queue.state.lock();
            let number = state.next;
            state.next += 1;
            let operation = Operation {
                due: Instant::now() + after,
                target,
                hides,
                work: Some(work),
            };
            state.operations.insert(number, operation);
            number
        };
        self.0.queue.changed.notify_waiters();
        Answer { number, told }
    }

    /// Waits until the operation is carried out.
    pub(super) async fn end<T>(&self, answer: Answer<T>) -> Result<T> {
        self.wait(|number, _| number == answer.number).await;
        answer
            .told
            .await
            .map_err(|e| Error::new(ErrorKind::Internal, "wait for a late operation").because(e))?
    }

    /// Waits until nothing works on `target`, or nothing that hides what is.
    pub(super) async fn until_free(&self, target: Target, of_what_hides: bool) {
        self.wait(|_, o| o.target == target && (o.hides || !of_what_hides))
            .await;
    }

    /// Whether anything works on the server.
    pub(super) fn is_busy(&self, server: ServerId) -> bool {
        let target = Target::Server(server);
        self.0.queue.due(|_, o| o.target == target).is_some()
    }

    /// Whether an operation is under way that hides what `target` is.
    pub(super) fn is_hidden(&self, target: Target) -> bool {
        self.0.queue.due(|_, o| o.target == target && o.hides).is_some()
    }

    /// What works on the server need not wait any longer.
    pub(super) fn hasten(&self, server: ServerId) {
        let mut hastened = false;
        for operation in self.0.queue.state.lock().operations.values_mut() {
            if operation.target == Target::Server(server) && !operation.hides {
                operation.due = Instant::now();
                hastened = true;
            }
        }
        if hastened {
            self.0.queue.changed.notify_waiters();
        }
    }

    async fn wait(&self, which: impl Fn(u64, &Operation) -> bool) {
        while self.0.queue.due(&which).is_some() {
            let mut changed = pin!(self.0.queue.changed.notified());
            changed.as_mut().enable();
            let Some(due) = self.0.queue.due(&which) else {
                return;
            };
            tokio::select! {
                biased;
                () = until(Some(due)) => self.carry_out_due(),
                () = changed => {}
            }
        }
    }

    fn carry_out_due(&self) {
        let mut done = false;
        while let Some((number, work)) = self.take_due() {
            work(self);
            self.0.queue.state.lock().operations.remove(&number);
            done = true;
        }
        if done {
            self.0.queue.changed.notify_waiters();
        }
    }

    /// The operation that is due first; the earlier one where two are due at the same time.
    fn take_due(&self) -> Option<(u64, Work)> {
        let now = Instant::now();
        let mut state = self.0.queue.state.lock();
        let due = state
            .operations
            .iter_mut()
            .filter(|(_, o)| o.due <= now && o.work.is_some());
        let (number, operation) = due.min_by_key(|(number, o)| (o.due, **number))?;
        Some((*number, operation.work.take()?))
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => pending().await,
    }
}
