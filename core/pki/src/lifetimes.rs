//! How long things live, in one place, since they depend on each other.

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use skyloom_model::Timestamp;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long certificates, roots and join tokens live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lifetimes {
    /// A host's certificate: 7 days.
    pub host: Duration,
    /// A server's certificate: 30 days.
    pub server: Duration,
    /// A root: 10 years.
    pub root: Duration,
    /// How far the begin lies back, for clocks that are behind: 5 minutes.
    pub back_date: Duration,
    /// How long after its end a host's certificate may still ask for its successor: 30 days.
    pub grace: Duration,
    /// A join token: 24 hours.
    pub join: Duration,
    /// How long a join token that was used answers the same key again, when the first answer was lost: 10 minutes.
    pub join_again: Duration,
    /// How long everybody knows a root before it signs: 14 days.
    pub root_announce: Duration,
    /// How long a root signs before the next one does: 1 year.
    pub root_signs: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            host: 7 * DAY,
            server: 30 * DAY,
            root: 3650 * DAY,
            back_date: HOUR / 12,
            grace: 30 * DAY,
            join: DAY,
            join_again: HOUR / 6,
            root_announce: 14 * DAY,
            root_signs: 365 * DAY,
        }
    }
}

impl Lifetimes {
    /// How long after its issue any certificate can still be of use: what a revocation must outlast, and a root that has
    /// stopped to sign.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.host.saturating_add(self.grace).max(self.server)
    }
}

pub(crate) fn later(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

pub(crate) fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.saturating_sub(by).unwrap_or(Timestamp::MIN)
}
