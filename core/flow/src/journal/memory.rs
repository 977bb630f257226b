//! A journal on a disk in memory, which can lose what was not synced and can be full: for tests and simulations.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use skyloom_model::Incarnation;
use skyloom_store::LeaseName;

use super::{Effect, Entry, Intent, JobOutcome, Journal, JournalError, JournalErrorKind, JournalState, Line};

/// A disk that outlives the journals on it. Clones are the same disk. What was written and not synced is gone with its
/// journal, whether that is dropped or [`MemoryDisk::crash`] comes first.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Disk>>);

#[derive(Debug, Default)]
struct Disk {
    durable: JournalState,
    written: Vec<Line>,
    full: bool,
    /// Counts the lives of its owners; only the last may write.
    life: u64,
    open: bool,
}

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The death of whoever has it open, who can write no more; it can be opened again.
    pub fn crash(&self) {
        let mut disk = self.0.lock();
        disk.written.clear();
        disk.life += 1;
        disk.open = false;
    }

    /// While it is full nothing more can be written.
    pub fn set_full(&self, full: bool) {
        self.0.lock().full = full;
    }

    /// What the next life will know if this one ends now.
    #[must_use]
    pub fn durable(&self) -> JournalState {
        self.0.lock().durable.clone()
    }
}

/// A journal on a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryJournal {
    disk: MemoryDisk,
    life: u64,
    state: Mutex<JournalState>,
}

impl MemoryJournal {
    /// Opens what is on `disk`.
    ///
    /// # Errors
    /// [`JournalErrorKind::InUse`] while another journal has it open.
    pub fn open(disk: &MemoryDisk) -> Result<Self, JournalError> {
        let mut inner = disk.0.lock();
        if inner.open {
            return Err(JournalError::new(
                JournalErrorKind::InUse,
                "another agent has the journal open",
            ));
        }
        inner.open = true;
        inner.life += 1;
        inner.written.clear();
        Ok(Self {
            disk: disk.clone(),
            life: inner.life,
            state: Mutex::new(inner.durable.clone()),
        })
    }

    fn write(&self, line: Line) -> Result<(), JournalError> {
        let mut disk = self.disk.0.lock();
        if disk.life != self.life {
            return Err(JournalError::new(
                JournalErrorKind::Closed,
                "this journal's owner has died",
            ));
        }
        if disk.full {
            return Err(JournalError::new(
                JournalErrorKind::Full,
                "no room for the journal on the disk",
            ));
        }
        disk.written.push(line);
        Ok(())
    }

    fn sync(&self) -> Result<(), JournalError> {
        let mut disk = self.disk.0.lock();
        if disk.life != self.life {
            return Err(JournalError::new(
                JournalErrorKind::Closed,
                "this journal's owner has died",
            ));
        }
        for line in std::mem::take(&mut disk.written) {
            disk.durable.apply(line);
        }
        Ok(())
    }

    /// Writes and syncs; between the two others may run, and the owner may die.
    async fn keep(&self, line: Line) -> Result<(), JournalError> {
        self.write(line.clone())?;
        tokio::task::yield_now().await;
        self.sync()?;
        self.state.lock().apply(line);
        Ok(())
    }
}

impl Drop for MemoryJournal {
    fn drop(&mut self) {
        let mut disk = self.disk.0.lock();
        if disk.life == self.life {
            disk.open = false;
        }
    }
}

#[async_trait]
impl Journal for MemoryJournal {
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
        if let Err(error) = self.write(line) {
            tracing::debug!(%error, %effect, "not forgotten on disk");
        }
    }

    fn known(&self, effect: &Effect) -> Option<Entry> {
        self.state.lock().known(effect).cloned()
    }

    fn effects(&self) -> Vec<Effect> {
        self.state.lock().effects().cloned().collect()
    }

    async fn hold(&self, lease: &LeaseName, epoch: u64) -> Result<(), JournalError> {
        let (line, refused) = self.state.lock().grant(lease, epoch);
        self.keep(line).await?;
        refused.map_or(Ok(()), Err)
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
