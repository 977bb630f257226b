//! Forgets history: first the floor goes up, then what lies below it is deleted, in bounded steps.
//!
//! Readers look at the floor after (or together with) what they read, so they never take a hole for the history. Any process
//! may do this at any time, also after another one that died in the middle.

use futures::TryStreamExt as _;
use mongodb::bson::{Document, doc};
use skyloom_store::{Result, Revision};

use crate::error::damaged;
use crate::record::past_after;
use crate::space::{HEAD, Head, Space, int, revisions, uint};

/// Most commits that one step forgets.
pub(crate) const STEP: u64 = 512;

/// How much history stays.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    pub(crate) commits: u64,
    pub(crate) bytes: u64,
}

/// A commit as far as retention cares: its revision, its bytes, and the bytes of all commits so far.
#[derive(Debug, Clone, Copy)]
struct Size {
    revision: u64,
    bytes: u64,
    total: u64,
}

impl Retention {
    /// Whether there is more history than may be.
    pub(crate) fn is_due(self, head: Head) -> bool {
        head.revision.saturating_sub(head.floor) > self.commits
            || head.bytes.saturating_sub(head.forgotten) > self.bytes
    }

    /// The floor that is due, going over the oldest commits in order.
    fn floor(self, head: Head, oldest: &[Size]) -> u64 {
        let over = oldest.iter().take_while(|size| {
            let commits = (head.revision + 1).saturating_sub(size.revision);
            let bytes = (head.bytes + size.bytes).saturating_sub(size.total);
            commits > self.commits || bytes > self.bytes
        });
        over.last().map_or(head.floor, |size| size.revision)
    }
}

/// One step of what `retention` asks for.
pub(crate) async fn step(space: &Space, retention: Retention) -> Result<()> {
    const OPERATION: &str = "forget history";
    let find = space.state.find_one(doc! { "_id": HEAD });
    let head = space.read(OPERATION, find).await?;
    let head = Head::parse(&head.ok_or_else(|| damaged(OPERATION, HEAD))?)?;
    let oldest = async {
        let cursor = space
            .log
            .find(doc! { "_id": revisions(head.floor, head.floor + STEP) })
            .sort(doc! { "_id": 1 })
            .projection(doc! { "bytes": 1, "total": 1 })
            .await?;
        cursor.try_collect::<Vec<Document>>().await
    };
    let oldest = space.read(OPERATION, oldest).await?;
    let sizes = oldest.iter().map(|document| {
        let number = |name| uint(document, name).ok_or_else(|| damaged(OPERATION, name));
        Ok(Size {
            revision: number("_id")?,
            bytes: number("bytes")?,
            total: number("total")?,
        })
    });
    let floor = retention.floor(head, &sizes.collect::<Result<Vec<_>>>()?);
    if floor > head.floor {
        forget(space, Revision(floor)).await?;
    }
    Ok(())
}

/// Forgets everything up to and including `revision`, or the present one if that is less.
pub(crate) async fn forget(space: &Space, revision: Revision) -> Result<()> {
    const OPERATION: &str = "compact";
    let before = space.head(OPERATION).await?;
    let floor = revision.0.min(before.revision);
    let last = space.log.find_one(doc! { "_id": int(floor) });
    let last = space.read(OPERATION, last).await?;
    let total = last.and_then(|commit| uint(&commit, "total")).unwrap_or(0);
    let raise = doc! { "$max": { "floor": int(floor), "forgotten": int(total) } };
    space
        .read(OPERATION, space.state.update_one(doc! { "_id": HEAD }, raise))
        .await?;
    let mut from = before.floor.min(floor);
    loop {
        let to = floor.min(from + STEP);
        let log = space.log.delete_many(doc! { "_id": { "$lte": int(to) } });
        space.read(OPERATION, log).await?;
        let past = space.past.delete_many(doc! { "_id": { "$lt": past_after(to) } });
        space.read(OPERATION, past).await?;
        from = to;
        if from == floor {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten commits of 100 bytes each, after revision 20 and 1000 bytes that are forgotten.
    fn history() -> (Head, Vec<Size>) {
        let sizes = (21..=30).map(|revision| Size {
            revision,
            bytes: 100,
            total: 1000 + (revision - 20) * 100,
        });
        let head = Head {
            revision: 30,
            floor: 20,
            bytes: 2000,
            forgotten: 1000,
            turn: 0,
        };
        (head, sizes.collect())
    }

    #[test]
    fn the_oldest_go_first_and_only_as_many_as_must() {
        let (head, sizes) = history();
        for (commits, bytes, floor) in [
            (10, 1000, 20),
            (100, u64::MAX, 20),
            (9, 1000, 21),
            (1, 1000, 29),
            (0, 1000, 30),
            (10, 999, 21),
            (10, 350, 27),
            (10, 0, 30),
            (4, 900, 26),
        ] {
            let retention = Retention { commits, bytes };
            assert_eq!(retention.floor(head, &sizes), floor, "{retention:?}");
            assert_eq!(retention.is_due(head), floor > 20, "{retention:?}");
        }
    }

    #[test]
    fn a_step_forgets_what_it_has_seen() {
        let (head, sizes) = history();
        let retention = Retention { commits: 1, bytes: 0 };
        assert_eq!(retention.floor(head, &sizes[..3]), 23);
        assert_eq!(retention.floor(head, &[]), 20);
    }
}
