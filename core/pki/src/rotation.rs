//! How roots follow each other without a gap.
//!
//! ```text
//! made ──root_announce──> signs ──root_signs──> (successor signs) ──longest life of what it has signed──> dropped
//!  └───────────────────────────── trusted by everybody ─────────────────────────────────────────────┘
//! ```

use serde::{Deserialize, Serialize};
use skyloom_model::Timestamp;

use crate::lifetimes::{earlier, later};
use crate::{Fingerprint, Lifetimes, Root};

/// A root, as it is kept. Its key lies elsewhere, sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootRecord {
    /// Of its certificate.
    pub fingerprint: Fingerprint,
    /// Its certificate in PEM.
    pub certificate: String,
    /// From when it signs, if no later one does.
    pub signs_from: Timestamp,
    /// Until when it counts.
    pub not_after: Timestamp,
}

impl RootRecord {
    /// Of a root.
    #[must_use]
    pub fn new(root: &Root, signs_from: Timestamp) -> Self {
        Self {
            fingerprint: root.fingerprint().clone(),
            certificate: root.to_pem(),
            signs_from,
            not_after: root.not_after(),
        }
    }
}

/// What is to be done with the roots at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootPlan {
    /// The one that signs now.
    pub signer: Option<Fingerprint>,
    /// Those that everybody is to trust, in order of their signing.
    pub trusted: Vec<Fingerprint>,
    /// Make a new one that signs from then on.
    pub make: Option<Timestamp>,
    /// Nothing that they have signed is of use any more: delete them, with their keys.
    pub drop: Vec<Fingerprint>,
}

impl RootPlan {
    /// Says it. Whoever carries it out does so under the records' revisions, and asks again.
    #[must_use]
    pub fn new(records: &[RootRecord], now: Timestamp, lifetimes: &Lifetimes) -> Self {
        let mut ordered: Vec<&RootRecord> = records.iter().collect();
        ordered.sort_by(|a, b| (a.signs_from, &a.fingerprint).cmp(&(b.signs_from, &b.fingerprint)));
        let alive = |r: &&&RootRecord| now <= r.not_after;
        let signer = ordered.iter().filter(alive).rfind(|r| r.signs_from <= now);
        // A successor that has signed for as long as anything of its predecessors can be of use.
        let settled = earlier(now, lifetimes.longest());
        let over = |r: &RootRecord| {
            let succeeded = signer.is_some_and(|s| {
                (r.signs_from, &r.fingerprint) < (s.signs_from, &s.fingerprint) && s.signs_from <= settled
            });
            now > r.not_after || succeeded
        };
        let last = ordered.iter().rfind(|r| now <= r.not_after);
        let make = match (signer, last) {
            (None, None) => Some(now),
            (None, Some(_)) => None,
            (Some(_), Some(last)) => {
                // Early enough to be known by all, and to sign full lives before the last one ends.
                let due = later(last.signs_from, lifetimes.root_signs);
                let end = earlier(last.not_after, lifetimes.longest());
                let due = due.min(end);
                (now >= earlier(due, lifetimes.root_announce))
                    .then(|| later(now, lifetimes.root_announce).max(due))
            }
            (Some(_), None) => None,
        };
        let names = |want: bool| {
            let those = ordered.iter().filter(|r| over(r) != want);
            those.map(|r| r.fingerprint.clone()).collect()
        };
        Self {
            signer: signer.map(|r| r.fingerprint.clone()),
            trusted: names(true),
            make,
            drop: names(false),
        }
    }
}
