//! What a store says of itself: which cloud it holds, in which telling of its history, and whether the fleet is held.
//!
//! ```text
//!  founded: number 1 ──backup──> file ──restore──> number = max(its number + 1, milliseconds of now), a fresh id, a hold
//!          └─────────────── copy ───────────────> the same, without a hold
//! ```
//!
//! Revisions, lease epochs and attempts are comparable within one incarnation and nowhere else. Whoever remembers such a
//! number remembers the [`Incarnation`] with it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{PowerState, ServerId, Timestamp};

/// Which cloud, in which telling of its history. Two restores of one backup are two incarnations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Incarnation {
    /// The cloud: the same for ever, through backups and moves.
    pub cluster: Uuid,
    /// Grows with each restore and each move.
    pub number: u64,
    /// Tells incarnations of the same number apart.
    pub id: Uuid,
}

/// How one incarnation stands to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinship {
    /// It is that one.
    Same,
    /// A later telling of the same cloud: what was numbered before means nothing any more.
    Newer,
    /// An older one, or another of the same number: not to be obeyed.
    Older,
    /// Another cloud.
    Foreign,
}

impl Incarnation {
    /// The first of a new cloud.
    #[must_use]
    pub const fn first(cluster: Uuid, id: Uuid) -> Self {
        Self {
            cluster,
            number: 1,
            id,
        }
    }

    /// The one that follows when the cloud's records begin another history at `now`. Its number is higher than that of any
    /// restore or move before `now`, also of those that these records know nothing of.
    #[must_use]
    pub fn next(&self, id: Uuid, now: Timestamp) -> Self {
        let now = u64::try_from(now.as_millisecond()).unwrap_or(0);
        Self {
            cluster: self.cluster,
            number: now.max(self.number.saturating_add(1)),
            id,
        }
    }

    /// How `other` stands to this one.
    #[must_use]
    pub fn kinship(&self, other: &Self) -> Kinship {
        if self.cluster != other.cluster {
            Kinship::Foreign
        } else if self == other {
            Kinship::Same
        } else if other.number > self.number {
            Kinship::Newer
        } else {
            Kinship::Older
        }
    }
}

/// How an incarnation came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The cloud was made.
    Founded,
    /// Put back from a backup.
    Restored,
    /// Copied from another store.
    Moved,
}

/// The record of a store's incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Custody {
    /// Version of this record's format.
    pub format: u16,
    /// Which.
    #[serde(flatten)]
    pub incarnation: Incarnation,
    /// How it came about.
    pub origin: Origin,
    /// When.
    pub since: Timestamp,
}

/// While this record is there nothing is begun on any host and nothing is planned; what runs, runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hold {
    /// Version of this record's format.
    pub format: u16,
    /// Tells this hold from others: hosts name it when they report.
    pub id: Uuid,
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: String,
    /// Who set it.
    pub by: String,
    /// Under which incarnation.
    pub incarnation: Option<Incarnation>,
}

/// A copy or restore into this store that has not ended: the store is not to be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copying {
    /// Version of this record's format.
    pub format: u16,
    /// The source, for people.
    pub source: String,
    /// The incarnation that the source is in, if it says one.
    pub from: Option<Incarnation>,
    /// As of which revision of the source.
    pub at: u64,
    /// The last key that is here.
    pub after: Option<String>,
    /// Since when.
    pub since: Timestamp,
}

/// All guests that a host has, known to the cloud or not; written when its agent begins and while the fleet is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestReport {
    /// The incarnation that its agent obeys.
    pub incarnation: Option<Incarnation>,
    /// The hold that it looked under, if it was one.
    pub hold: Option<Uuid>,
    /// When it looked.
    pub at: Timestamp,
    /// What it saw, in the order of their ids.
    pub guests: Vec<Guest>,
    /// There are more than the report has room for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// One guest of a [`GuestReport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Whose.
    pub server: ServerId,
    /// The generation that it carries; nothing when the host cannot tell.
    pub generation: Option<u64>,
    /// Its power state.
    pub power: PowerState,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    #[test]
    fn two_restores_of_one_backup_differ_and_the_later_is_the_newer() {
        let first = Incarnation::first(Uuid::from_u128(1), Uuid::from_u128(2));
        let a = first.next(Uuid::from_u128(3), at(1000));
        let b = first.next(Uuid::from_u128(4), at(2000));
        assert_eq!(first.kinship(&a), Kinship::Newer);
        assert_eq!(a.kinship(&b), Kinship::Newer);
        assert_eq!(b.kinship(&a), Kinship::Older);
        assert_eq!(a.kinship(&first), Kinship::Older);
        assert_eq!(a.kinship(&a), Kinship::Same);
    }

    #[test]
    fn restores_at_one_moment_are_not_taken_for_each_other() {
        let first = Incarnation::first(Uuid::from_u128(1), Uuid::from_u128(2));
        let (a, b) = (
            first.next(Uuid::from_u128(3), at(1000)),
            first.next(Uuid::from_u128(4), at(1000)),
        );
        assert_eq!(a.kinship(&b), Kinship::Older);
        assert_eq!(b.kinship(&a), Kinship::Older);
    }

    #[test]
    fn a_clock_that_is_behind_never_makes_a_number_fall() {
        let late =
            Incarnation::first(Uuid::from_u128(1), Uuid::from_u128(2)).next(Uuid::from_u128(3), at(9000));
        assert_eq!(late.next(Uuid::from_u128(4), at(10)).number, 9001);
        assert_eq!(late.next(Uuid::from_u128(4), at(-10)).number, 9001);
    }

    #[test]
    fn another_cloud_is_foreign_whatever_its_number() {
        let mine = Incarnation::first(Uuid::from_u128(1), Uuid::from_u128(2));
        let other = Incarnation::first(Uuid::from_u128(9), Uuid::from_u128(2));
        assert_eq!(mine.kinship(&other), Kinship::Foreign);
        assert_eq!(
            mine.kinship(&other.next(Uuid::from_u128(3), at(5))),
            Kinship::Foreign
        );
    }
}
