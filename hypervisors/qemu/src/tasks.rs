//! The tasks that a hypervisor owns. They end with it.

use std::future::Future;
use std::time::Duration;

use parking_lot::Mutex;
use skyloom_hypervisor::{Error, ErrorKind, Result};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::Instrument as _;

/// A set of tasks; `None` inside once it is closed.
#[derive(Debug)]
pub struct Tasks(Mutex<Option<JoinSet<()>>>);

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self(Mutex::new(Some(JoinSet::new())))
    }

    /// Adds a task; once the set is closed, nothing happens.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(set) = &mut *self.0.lock() {
            while set.try_join_next().is_some() {}
            set.spawn(work);
        }
    }

    /// Runs `work` to its end even when the caller goes away: half a start is worse than a whole one.
    ///
    /// # Errors
    /// Those of `work`; [`ErrorKind::Unavailable`] when the set is closed.
    pub async fn finish<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (sender, answer) = oneshot::channel();
        // In the caller's span: the request's id stands beside each monitor command.
        self.spawn(async move { drop(sender.send(work.await)) }.in_current_span());
        answer.await.map_err(|_| {
            Error::new(ErrorKind::Unavailable, operation).with("because", "the hypervisor is closed")
        })?
    }

    /// Ends all tasks where they stand, as a crash would.
    pub fn abort(&self) {
        drop(self.0.lock().take());
    }

    /// Ends all tasks and waits for that.
    pub async fn close(&self) {
        let set = self.0.lock().take();
        if let Some(mut set) = set {
            set.abort_all();
            // A task that is off in file work ends after it.
            let _ = tokio::time::timeout(Duration::from_secs(10), async {
                while set.join_next().await.is_some() {}
            })
            .await;
        }
    }
}
