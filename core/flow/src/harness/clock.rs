//! Time as tokio has it: stands still while anything is under way when the runtime's time is paused.

use std::time::Duration;

use skyloom_model::{Clock, Timestamp};
use tokio::time::Instant;

/// A clock that goes with tokio's time, from 2026-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    start: Instant,
}

impl TokioClock {
    /// A clock that starts now. To be called inside a runtime.
    #[must_use]
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let start = Timestamp::from_second(1_767_225_600).unwrap_or(Timestamp::UNIX_EPOCH);
        let passed = jiff::SignedDuration::try_from(self.monotonic()).unwrap_or(jiff::SignedDuration::MAX);
        start.saturating_add(passed).unwrap_or(Timestamp::MAX)
    }
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}
