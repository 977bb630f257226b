//! Waiting for a task to come to rest, without polling.

use futures::StreamExt as _;
use skyloom_model::{Task, TaskId, paths};
use skyloom_store::{WatchEvent, WatchOptions};

use super::Cloud;
use super::records::prefix;
use crate::{Caller, Result};

impl Cloud {
    /// Waits until the task has ended, or is stuck and no operator's order is being carried out. Drop the future to stop
    /// waiting; the task goes on.
    ///
    /// # Errors
    /// `task.not_found`, and those of the store.
    pub async fn wait_for_task(&self, caller: &Caller, id: TaskId) -> Result<Task> {
        loop {
            let task = self.get_task(caller, id).await?;
            if task.value.rests() {
                return Ok(task.value);
            }
            let mut changes = self.parts.backend.watch(
                &prefix(&paths::tasks(task.value.scope))?,
                WatchOptions::after(task.modified),
            );
            // Whatever ends the stream, the record is read again.
            while let Some(Ok(event)) = changes.next().await {
                match event {
                    WatchEvent::Commit { changes, .. } if changes.iter().any(|c| *c.key() == task.key) => {
                        break;
                    }
                    WatchEvent::Commit { .. } | WatchEvent::Progress(_) => {}
                    WatchEvent::Gap { .. } => break,
                }
            }
        }
    }
}
