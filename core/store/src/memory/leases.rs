//! Leases by a handed-in clock. A revoked lease leaves its epoch behind.

use std::collections::BTreeMap;
use std::time::Duration;

use skyloom_model::{Clock, Timestamp};

use crate::{Grant, LeaseInfo, LeaseMode, LeaseName, Prefix, Renewal};

#[derive(Debug, Default)]
pub(super) struct LeaseTable(BTreeMap<LeaseName, Record>);

#[derive(Debug)]
struct Record {
    epoch: u64,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    holder: String,
    /// The end on the monotonic clock: what counts.
    end: Duration,
    /// The end on the wall clock: for display.
    expires_at: Timestamp,
}

fn wall_end(clock: &dyn Clock, ttl: Duration) -> Timestamp {
    clock.now().checked_add(ttl).unwrap_or(Timestamp::MAX)
}

impl Record {
    fn holds(&self, epoch: u64, now: Duration) -> bool {
        self.epoch == epoch && self.held.as_ref().is_some_and(|h| now < h.end)
    }

    fn info(&self, name: &LeaseName, now: Duration) -> Option<LeaseInfo> {
        self.held.as_ref().map(|held| LeaseInfo {
            name: name.clone(),
            epoch: self.epoch,
            holder: held.holder.clone(),
            expires_at: held.expires_at,
            expired: now >= held.end,
        })
    }
}

impl LeaseTable {
    pub(super) fn holds(&self, name: &LeaseName, epoch: u64, now: Duration) -> bool {
        self.0.get(name).is_some_and(|r| r.holds(epoch, now))
    }

    pub(super) fn grant(
        &mut self,
        name: &LeaseName,
        holder: &str,
        ttl: Duration,
        mode: LeaseMode,
        clock: &dyn Clock,
    ) -> Grant {
        let now = clock.monotonic();
        let record = self
            .0
            .entry(name.clone())
            .or_insert(Record { epoch: 0, held: None });
        if mode == LeaseMode::Acquire
            && let Some(info) = record.info(name, now)
            && !info.expired
        {
            return Grant::Held(info);
        }
        record.epoch += 1;
        record.held = Some(Held {
            holder: holder.to_owned(),
            end: now.saturating_add(ttl),
            expires_at: wall_end(clock, ttl),
        });
        Grant::Granted { epoch: record.epoch }
    }

    pub(super) fn renew(
        &mut self,
        name: &LeaseName,
        epoch: u64,
        ttl: Duration,
        clock: &dyn Clock,
    ) -> Renewal {
        let now = clock.monotonic();
        match self.0.get_mut(name) {
            Some(record) if record.holds(epoch, now) => {
                if let Some(held) = &mut record.held {
                    held.end = now.saturating_add(ttl);
                    held.expires_at = wall_end(clock, ttl);
                }
                Renewal::Held
            }
            _ => Renewal::Lost,
        }
    }

    pub(super) fn revoke(&mut self, name: &LeaseName, epoch: u64) {
        if let Some(record) = self.0.get_mut(name)
            && record.epoch == epoch
        {
            record.held = None;
        }
    }

    pub(super) fn below(&self, prefix: &Prefix, now: Duration) -> Vec<LeaseInfo> {
        self.0
            .iter()
            .filter(|(n, _)| prefix.covers(n.as_key()))
            .filter_map(|(n, r)| r.info(n, now))
            .collect()
    }
}
