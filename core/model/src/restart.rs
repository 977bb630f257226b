//! What is done when a guest's process ends by itself: left off, or turned on again, each time later while it keeps ending.
//!
//! ```text
//!  crash seen ── same commit ──> status.crashes (count, restart_at) + a Timer at restart_at ──> the look at what is due ──> server.start
//! ```

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::{Scope, ServerId, Timestamp};

/// Wait before the first restart, in seconds. Each crash in a row doubles it.
const FIRST_SECONDS: i64 = 10;
/// The longest wait, in seconds: that of Kubernetes' back-off.
const MOST_SECONDS: i64 = 300;
/// A guest that ran so long, in seconds, has recovered: its next crash is a first one.
const RECOVERED_SECONDS: i64 = 600;

/// What is done when a guest's process ends by itself. A guest that shuts itself down is off, whatever this says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnCrash {
    /// It stays off until somebody starts it.
    #[default]
    Leave,
    /// It is started again after a wait that doubles with each crash in a row, from 10 seconds to 5 minutes.
    Restart,
}

impl OnCrash {
    /// Whether it is what is meant where nothing is said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A server's crashes in a row: with less than ten minutes of running between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Crashes {
    /// How many.
    pub count: u32,
    /// When the last was seen.
    pub last_at: Timestamp,
    /// When it is started again, if it is still off then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_at: Option<Timestamp>,
}

impl Crashes {
    /// One more crash, of a guest that was turned on at `launched_at`.
    #[must_use]
    pub fn after(
        before: Option<&Self>,
        launched_at: Option<Timestamp>,
        now: Timestamp,
        on_crash: OnCrash,
    ) -> Self {
        let recovered = launched_at
            .is_some_and(|at| now.duration_since(at) >= SignedDuration::from_secs(RECOVERED_SECONDS));
        let count = before
            .filter(|_| !recovered)
            .map_or(0, |b| b.count)
            .saturating_add(1);
        let doublings = (count - 1).min(10);
        let wait = (FIRST_SECONDS << doublings).min(MOST_SECONDS);
        let restart_at = match on_crash {
            OnCrash::Leave => None,
            OnCrash::Restart => now.checked_add(SignedDuration::from_secs(wait)).ok(),
        };
        Self {
            count,
            last_at: now,
            restart_at,
        }
    }
}

/// "Look at this server then": a mark in order of time. What is done then, the server's record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// When.
    pub at: Timestamp,
    /// Where the server's record is.
    pub scope: Scope,
    /// Which server.
    pub server: ServerId,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn each_crash_in_a_row_waits_twice_as_long_up_to_five_minutes() {
        let mut waits = Vec::new();
        let (mut crashes, mut now) = (None, 1000);
        for _ in 0..40 {
            let next = Crashes::after(crashes.as_ref(), Some(at(now - 5)), at(now), OnCrash::Restart);
            let restart = next.restart_at.unwrap().as_second();
            waits.push(restart - now);
            (crashes, now) = (Some(next), restart + 5);
        }
        assert_eq!(waits[..7], [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(waits[39], 300);
        assert_eq!(crashes.unwrap().count, 40);
    }

    #[test]
    fn ten_minutes_of_running_end_the_row() {
        let first = Crashes::after(None, Some(at(0)), at(5), OnCrash::Restart);
        let soon = Crashes::after(Some(&first), Some(at(15)), at(614), OnCrash::Restart);
        assert_eq!(soon.count, 2);
        let late = Crashes::after(Some(&soon), Some(at(640)), at(1240), OnCrash::Restart);
        assert_eq!((late.count, late.restart_at), (1, Some(at(1250))));
    }

    #[test]
    fn a_server_that_is_left_off_has_no_time_of_restart() {
        let crash = Crashes::after(None, None, at(5), OnCrash::Leave);
        assert_eq!((crash.count, crash.last_at, crash.restart_at), (1, at(5), None));
    }
}
