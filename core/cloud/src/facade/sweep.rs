//! Records that nobody will ask for again.

use std::time::Duration;

use jiff::SignedDuration;
use serde::Deserialize;
use skyloom_model::Timestamp;
use skyloom_store::{Guard, Key, KeyValue, ListOptions, Txn};
use tokio_util::sync::CancellationToken;

use super::Cloud;
use super::records::{key, prefix};
use crate::Result;

/// How often it is looked for what can be forgotten.
const SWEEP: Duration = Duration::from_secs(3600);
/// The pause before the rest, when there was more than one sweep looks at.
const PAUSE: Duration = Duration::from_secs(10);
/// Records of an area that one sweep looks at.
const MOST: usize = 10_000;
/// Records that are read at once.
const PAGE: usize = 500;

/// One area of old records.
struct Area {
    below: &'static str,
    keep: SignedDuration,
    /// Whether keys end in ids that grow with time, below a scope: then the first young one ends its scope's turn.
    by_age: bool,
    /// Whether the archive takes these, so that nothing is forgotten here while there is one.
    archived: bool,
}

/// What is kept, and for how long.
const AREAS: [Area; 4] = [
    Area {
        below: "idempotency",
        keep: SignedDuration::from_hours(24),
        by_age: false,
        archived: false,
    },
    Area {
        below: "submitted",
        keep: SignedDuration::from_hours(24),
        by_age: false,
        archived: false,
    },
    Area {
        below: "previews",
        keep: SignedDuration::from_hours(24),
        by_age: true,
        archived: false,
    },
    Area {
        below: "events",
        keep: SignedDuration::from_hours(7 * 24),
        by_age: true,
        archived: true,
    },
];

/// What all of these records have.
#[derive(Debug, Clone, Deserialize)]
struct Dated {
    at: Timestamp,
}

/// Where a sweep of each area goes on; from the beginning where there is nothing.
type Positions = [Option<Key>; AREAS.len()];

impl Cloud {
    /// Until `shutdown`: counts unfinished tasks, so that there are never more than the cloud's [`crate::TaskLimits`]
    /// (without this running nothing is limited); forgets now and then what need not be kept: answers to idempotency
    /// keys, keys of submissions and plans that were shown after a day; and moves to the archive what has ended: tasks
    /// after a day, events after a week ([`crate::ArchiveConfig`]); and counts once a day what projects use and what is claimed of hosts. Any number of processes may do it; every process that
    /// takes requests should.
    pub async fn keep_tidy(&self, shutdown: CancellationToken) {
        let count = self.admission.follow(&self.parts.backend, shutdown.clone());
        let (counted, (), (), ()) = tokio::join!(
            count,
            self.recount_daily(shutdown.clone()),
            self.sweep_now_and_then(shutdown.clone()),
            self.archive.run(shutdown)
        );
        if let Err(error) = counted {
            tracing::error!(%error, "unfinished tasks are not counted");
        }
    }

    async fn sweep_now_and_then(&self, shutdown: CancellationToken) {
        let mut positions = Positions::default();
        let mut pause = SWEEP;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = match self.sweep(&mut positions).await {
                Ok(forgotten) => {
                    tracing::debug!(forgotten, "old records forgotten");
                    if positions.iter().any(Option::is_some) {
                        PAUSE
                    } else {
                        SWEEP
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "old records are not forgotten yet");
                    SWEEP
                }
            };
        }
    }

    /// Forgets all that need not be kept any more, moves to the archive what goes there, and says how many tasks, events
    /// and other records that were. What [`Cloud::keep_tidy`] does in small portions.
    ///
    /// # Errors
    /// Those of the store and of the archive.
    pub async fn forget_old(&self) -> Result<usize> {
        let mut positions = Positions::default();
        let mut forgotten = 0;
        loop {
            forgotten += self.sweep(&mut positions).await?;
            if positions.iter().all(Option::is_none) {
                let moved = self.archive.move_all().await?;
                return Ok(forgotten + moved.tasks + moved.events);
            }
        }
    }

    /// One portion of every area.
    async fn sweep(&self, positions: &mut Positions) -> Result<usize> {
        let all_done = positions.iter().all(Option::is_none);
        let mut forgotten = 0;
        for (area, position) in AREAS.iter().zip(positions) {
            if area.archived && self.archive.moves() {
                continue;
            }
            // An area that is through waits for the others.
            if all_done || position.is_some() {
                let (count, next) = self.sweep_area(area, position.take()).await?;
                forgotten += count;
                *position = next;
            }
        }
        Ok(forgotten)
    }

    async fn sweep_area(&self, area: &Area, mut after: Option<Key>) -> Result<(usize, Option<Key>)> {
        let (below, now) = (prefix(area.below)?, self.now());
        let (mut forgotten, mut looked) = (0, 0);
        while looked < MOST {
            let mut options = ListOptions::default().with_limit(PAGE);
            if let Some(key) = after.take() {
                options = options.with_after(key);
            }
            let page = self.parts.backend.list(&below, options).await?;
            looked += page.items.len();
            after = page.items.last().filter(|_| page.more).map(|kv| kv.key.clone());
            let mut old: Vec<&KeyValue> = Vec::new();
            for kv in &page.items {
                match kv.value.parse::<Dated>() {
                    Ok(dated) if now.duration_since(dated.at) > area.keep => old.push(kv),
                    Ok(_) if area.by_age => {
                        after = Some(behind_siblings(&kv.key)?);
                        break;
                    }
                    Ok(_) => {}
                    Err(error) => {
                        let error = skyloom_model::report(&error);
                        tracing::warn!(key = %kv.key, error, "an old record cannot be read");
                    }
                }
            }
            forgotten += self.forget(&old).await?;
            if after.is_none() {
                return Ok((forgotten, None));
            }
        }
        Ok((forgotten, after))
    }

    /// Removes records that still are as they were read; another process may be at the same.
    async fn forget(&self, old: &[&KeyValue]) -> Result<usize> {
        let at_once = (self.parts.backend.capability().max_txn_ops / 2).max(1);
        let mut forgotten = 0;
        for portion in old.chunks(at_once) {
            let mut txn = Txn::new();
            for kv in portion {
                txn = txn
                    .guard(Guard::Revision(kv.key.clone(), kv.modified))
                    .delete(kv.key.clone());
            }
            if self.commit(txn).await? {
                forgotten += portion.len();
            }
        }
        Ok(forgotten)
    }
}

/// A key behind all that could stand beside `sibling`, whose last segment is a UUID.
fn behind_siblings(sibling: &Key) -> Result<Key> {
    let (parent, _) = sibling.as_str().rsplit_once('/').unwrap_or_default();
    key(&format!("{parent}/{}", uuid::Uuid::max()))
}
