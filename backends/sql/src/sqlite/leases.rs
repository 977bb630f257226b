//! Leases: who holds what until when. The writer alone decides about them; the table only survives restarts.
//!
//! While the process lives, ends are compared on the clock that never steps. After a restart the rest of a lease is
//! taken from the wall-clock end that was stored, and is never longer than the time that was asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use skyloom_model::{Clock, Timestamp};
use skyloom_store::{Grant, LeaseInfo, LeaseMode, LeaseName, Prefix, Renewal};

/// Both clocks, read together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    wall: Timestamp,
    monotonic: Duration,
}

impl Now {
    pub(super) fn read(clock: &dyn Clock) -> Self {
        Self {
            wall: clock.now(),
            monotonic: clock.monotonic(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) epoch: u64,
    /// `None` after it was given back.
    pub(super) held: Option<Held>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) holder: String,
    pub(super) ttl: Duration,
    /// The end on the monotonic clock: what counts.
    pub(super) end: Duration,
    /// The end on the wall clock: for display and for the next process.
    pub(super) expires_at: Timestamp,
}

impl Held {
    fn new(holder: String, ttl: Duration, now: Now) -> Self {
        let expires_at = now.wall.checked_add(ttl).unwrap_or(Timestamp::MAX);
        Self {
            holder,
            ttl,
            end: now.monotonic.saturating_add(ttl),
            expires_at,
        }
    }

    /// A lease of a former process.
    pub(super) fn resumed(holder: String, ttl: Duration, expires_at: Timestamp, now: Now) -> Self {
        let rest = Duration::try_from(expires_at.duration_since(now.wall)).unwrap_or(Duration::ZERO);
        Self {
            holder,
            ttl,
            end: now.monotonic.saturating_add(rest.min(ttl)),
            expires_at,
        }
    }
}

impl Record {
    fn info(&self, name: &LeaseName, now: Now) -> Option<LeaseInfo> {
        self.held.as_ref().map(|held| LeaseInfo {
            name: name.clone(),
            epoch: self.epoch,
            holder: held.holder.clone(),
            expires_at: held.expires_at,
            expired: now.monotonic >= held.end,
        })
    }
}

/// All leases that ever were.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LeaseTable(BTreeMap<LeaseName, Record>);

impl LeaseTable {
    pub(super) fn get(&self, name: &LeaseName) -> Option<&Record> {
        self.0.get(name)
    }

    /// Sets a record: loading, and undoing what was not written.
    pub(super) fn set(&mut self, name: LeaseName, record: Option<Record>) {
        match record {
            Some(record) => self.0.insert(name, record),
            None => self.0.remove(&name),
        };
    }

    pub(super) fn holds(&self, name: &LeaseName, epoch: u64, now: Now) -> bool {
        self.0
            .get(name)
            .is_some_and(|r| r.epoch == epoch && r.held.as_ref().is_some_and(|held| now.monotonic < held.end))
    }

    pub(super) fn grant(
        &mut self,
        name: &LeaseName,
        holder: &str,
        ttl: Duration,
        mode: LeaseMode,
        now: Now,
    ) -> Grant {
        let epoch = match self.0.get(name) {
            Some(record) => {
                if mode == LeaseMode::Acquire
                    && let Some(info) = record.info(name, now)
                    && !info.expired
                {
                    return Grant::Held(info);
                }
                record.epoch + 1
            }
            None => 1,
        };
        self.0.insert(
            name.clone(),
            Record {
                epoch,
                held: Some(Held::new(holder.to_owned(), ttl, now)),
            },
        );
        Grant::Granted { epoch }
    }

    pub(super) fn renew(&mut self, name: &LeaseName, epoch: u64, ttl: Duration, now: Now) -> Renewal {
        if !self.holds(name, epoch, now) {
            return Renewal::Lost;
        }
        if let Some(held) = self.0.get_mut(name).and_then(|r| r.held.as_mut()) {
            *held = Held::new(std::mem::take(&mut held.holder), ttl, now);
        }
        Renewal::Held
    }

    pub(super) fn revoke(&mut self, name: &LeaseName, epoch: u64) {
        if let Some(record) = self.0.get_mut(name)
            && record.epoch == epoch
        {
            record.held = None;
        }
    }

    pub(super) fn below(&self, prefix: &Prefix, now: Now) -> Vec<LeaseInfo> {
        let below = self.0.iter().filter(|(name, _)| prefix.covers(name.as_key()));
        below
            .filter_map(|(name, record)| record.info(name, now))
            .collect()
    }
}
