//! The agent's journal in a folder of its host.
//!
//! ```text
//!  intend, outcome, hold ──┐                       ┌─ one line: {"sum": …, "lines": […]}, written, synced ──> all answered
//!  intend, outcome, hold ──┼─> writer (a thread) ──┤
//!  forget (not waited for) ┘                       └─ large, or suspect after an error: a new file, synced, put in place
//! ```
//!
//! Whatever comes in while the disk syncs shares the next sync. All that is synced together is one line with one checksum, so
//! a crash can only damage the last line: that one is dropped, for nobody was told that it is there. Damage before a sound line is
//! no crash, and refused.

mod disk;

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use async_trait::async_trait;
use parking_lot::Mutex;
use skyloom_flow::journal::{
    Effect, Entry, Intent, JobOutcome, Journal, JournalError, JournalErrorKind, JournalState, Line,
};
use skyloom_model::Incarnation;
use skyloom_store::LeaseName;
use tokio::sync::oneshot;

use self::disk::{Disk, io_error};

/// A [`Journal`] in a folder, for one process at a time.
#[derive(Debug)]
pub struct FileJournal {
    state: Arc<Mutex<JournalState>>,
    /// Taken when the journal is dropped, which ends the writer.
    orders: Option<Sender<Order>>,
    writer: Option<JoinHandle<()>>,
    lock: File,
}

/// What the writer is told.
#[derive(Debug)]
struct Order {
    line: Line,
    /// Who waits for it to be durable.
    done: Option<oneshot::Sender<Result<(), JournalError>>>,
}

impl FileJournal {
    /// Opens the journal in `folder`, which is made when it is not there.
    ///
    /// # Errors
    /// [`JournalErrorKind::InUse`] while another agent has it open, [`JournalErrorKind::Corrupt`] when it is damaged in its
    /// middle or written by a newer version, and those of the disk.
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|e| io_error("the journal's folder cannot be made", folder, e))?;
        let lock =
            File::open(folder).map_err(|e| io_error("the journal's folder does not open", folder, e))?;
        lock.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => JournalError::new(
                JournalErrorKind::InUse,
                format!(
                    "the journal {} is in use: another agent of this host runs; end that one first",
                    folder.display()
                ),
            ),
            TryLockError::Error(e) => io_error("the journal's folder cannot be locked", folder, e),
        })?;
        let (disk, state) = Disk::open(folder)?;
        let state = Arc::new(Mutex::new(state));
        let (orders, inbox) = channel();
        let kept = state.clone();
        let writer = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || write(disk, &kept, &inbox))
            .map_err(|e| io_error("the journal's writer does not start", folder, e))?;
        Ok(Self {
            state,
            orders: Some(orders),
            writer: Some(writer),
            lock,
        })
    }

    fn send(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // The writer lives until the sender is dropped; should it have panicked, who waits is told.
            let _ = orders.send(order);
        }
    }

    async fn keep(&self, line: Line) -> Result<(), JournalError> {
        let (done, told) = oneshot::channel();
        self.send(Order {
            line,
            done: Some(done),
        });
        told.await.unwrap_or_else(|_| {
            Err(JournalError::new(
                JournalErrorKind::Closed,
                "the journal's writer has ended",
            ))
        })
    }
}

impl Drop for FileJournal {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
        // Closing alone would leave the lock with a child process that is just being started.
        let _ = self.lock.unlock();
    }
}

/// The writer: takes all that waits, makes it durable at once, answers.
fn write(mut disk: Disk, state: &Mutex<JournalState>, inbox: &Receiver<Order>) {
    // What may be forgotten goes along with the next lines that somebody waits for: then each line on the disk is synced
    // before the next one is written.
    let mut lines = Vec::new();
    while let Ok(first) = inbox.recv() {
        let mut waiting = Vec::new();
        for order in std::iter::once(first).chain(inbox.try_iter()) {
            waiting.extend(order.done.map(|done| (lines.len(), done)));
            lines.push(order.line);
        }
        if waiting.is_empty() {
            continue;
        }
        let lines = std::mem::take(&mut lines);
        let kept = disk.append(&lines, || state.lock().lines());
        if kept.is_ok() {
            let mut state = state.lock();
            for (at, _) in &waiting {
                state.apply(lines[*at].clone());
            }
        }
        for (_, done) in waiting {
            // Who does not wait any more has been dropped, and looks at what is there in its next life.
            let _ = done.send(match &kept {
                Ok(()) => Ok(()),
                Err(error) => Err(disk::copy(error)),
            });
        }
    }
    if !lines.is_empty()
        && let Err(error) = disk.append(&lines, || state.lock().lines())
    {
        tracing::debug!(%error, "the journal keeps what could be forgotten");
    }
}

#[async_trait]
impl Journal for FileJournal {
    async fn intend(&self, intent: Intent) -> Result<(), JournalError> {
        self.keep(Line::Intent(intent)).await
    }

    async fn outcome(&self, intent: &Intent, outcome: JobOutcome) -> Result<(), JournalError> {
        self.keep(Line::Outcome {
            effect: intent.effect.clone(),
            attempt: intent.attempt,
            outcome,
        })
        .await
    }

    fn forget(&self, effect: &Effect) {
        let line = Line::Forget(effect.clone());
        self.state.lock().apply(line.clone());
        self.send(Order { line, done: None });
    }

    fn known(&self, effect: &Effect) -> Option<Entry> {
        self.state.lock().known(effect).cloned()
    }

    fn effects(&self) -> Vec<Effect> {
        self.state.lock().effects().cloned().collect()
    }

    async fn hold(&self, lease: &LeaseName, epoch: u64) -> Result<(), JournalError> {
        let (line, refused) = self.state.lock().grant(lease, epoch);
        let kept = self.keep(line).await;
        match refused {
            Some(refused) => Err(refused),
            None => kept,
        }
    }

    async fn obey(&self, incarnation: &Incarnation) -> Result<bool, JournalError> {
        let (line, before) = {
            let state = self.state.lock();
            (state.obey(incarnation)?, state.obeys())
        };
        if let Some(line) = line {
            self.keep(line).await?;
        }
        Ok(before.is_some_and(|before| before != *incarnation))
    }

    fn obeys(&self) -> Option<Incarnation> {
        self.state.lock().obeys()
    }
}
