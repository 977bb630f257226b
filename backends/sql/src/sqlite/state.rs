//! What the writer knows without asking the database, and how it decides.
//!
//! The writer is the only one who changes the database, so it keeps each key's versions in memory (about 100 bytes a
//! key) and decides a whole batch of calls without one query: guards cost a hash lookup, conflicts cost no IO, and the
//! SQL that follows is a few multi-row statements. What a batch changed here is undone when its SQL is rolled back.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use skyloom_store::feed::Commit;
use skyloom_store::{Change, Guard, Key, KeyValue, LeaseName, Outcome, Revision};

use super::batch::{Batch, HistoryRow, Undo};
use super::crc;
use super::leases::{LeaseTable, Now};
use super::queue::{Answer, Op, Prepared};

/// A document's versions, and what its history row will need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) created: u64,
    pub(super) modified: u64,
    pub(super) crc: u32,
    pub(super) len: u32,
}

/// How much history to keep.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retention {
    pub(super) commits: u64,
    pub(super) bytes: u64,
}

/// The present, as decided (the database follows within the batch).
#[derive(Debug)]
pub(super) struct State {
    pub(super) revision: u64,
    /// The oldest revision that can be listed at and watched from.
    pub(super) floor: u64,
    /// History rows up to here have been deleted; at most `floor`.
    pub(super) swept: u64,
    pub(super) index: HashMap<Arc<str>, Entry>,
    pub(super) leases: LeaseTable,
    /// Revision and bytes of each commit after the floor.
    pub(super) history: VecDeque<(u64, u64)>,
    pub(super) history_bytes: u64,
}

impl State {
    pub(super) fn decide(&mut self, batch: &mut Batch, op: &Op, now: Now) -> Answer {
        match op {
            Op::Commit(txn) => Answer::Outcome(self.commit(batch, txn, now)),
            Op::Grant {
                name,
                holder,
                ttl,
                mode,
            } => {
                let before = self.leases.get(name).cloned();
                let grant = self.leases.grant(name, holder, *ttl, *mode, now);
                self.note_lease(batch, name, before);
                Answer::Grant(grant)
            }
            Op::Renew { name, epoch, ttl } => {
                let before = self.leases.get(name).cloned();
                let renewal = self.leases.renew(name, *epoch, *ttl, now);
                self.note_lease(batch, name, before);
                Answer::Renewal(renewal)
            }
            Op::Revoke { name, epoch } => {
                let before = self.leases.get(name).cloned();
                self.leases.revoke(name, *epoch);
                self.note_lease(batch, name, before);
                Answer::Done
            }
            Op::Leases(prefix) => Answer::Leases(self.leases.below(prefix, now)),
            Op::Compact(revision) => {
                batch.floor = batch.floor.max(revision.0.min(self.revision));
                Answer::Done
            }
            Op::Close => Answer::Done,
        }
    }

    fn note_lease(&self, batch: &mut Batch, name: &LeaseName, before: Option<super::leases::Record>) {
        if self.leases.get(name) != before.as_ref() {
            batch.leases.insert(name.clone());
            batch.undo.push(Undo::Lease(name.clone(), before));
        }
    }

    /// The first guard that does not hold.
    fn conflict(&self, guards: &[Guard], now: Now) -> Option<Outcome> {
        let modified = |key: &Key| self.index.get(key.as_str()).map(|e| Revision(e.modified));
        guards.iter().enumerate().find_map(|(guard, g)| {
            let (holds, current) = match g {
                Guard::Absent(key) => (modified(key).is_none(), modified(key)),
                Guard::Revision(key, revision) => (modified(key) == Some(*revision), modified(key)),
                Guard::Lease(name, epoch) => (self.leases.holds(name, *epoch, now), None),
            };
            (!holds).then_some(Outcome::Conflict { guard, current })
        })
    }

    fn commit(&mut self, batch: &mut Batch, txn: &Prepared, now: Now) -> Outcome {
        if let Some(conflict) = self.conflict(&txn.guards, now) {
            return conflict;
        }
        let revision = self.revision + 1;
        let mut changes = Vec::with_capacity(txn.writes.len());
        let mut bytes = 0;
        for write in &txn.writes {
            let old = self.index.get(&write.key_text).copied();
            let Some(created) = old.map(|o| o.created).or(write.put.is_some().then_some(revision)) else {
                continue; // removes what is absent
            };
            let text = write.put.as_ref().map(|(_, text)| Arc::clone(text));
            let crc = crc::of_document(&write.key_text, text.as_deref(), created, revision);
            let len = text
                .as_ref()
                .map_or(0, |t| u32::try_from(t.len()).unwrap_or(u32::MAX));
            let row = HistoryRow {
                revision,
                key: Arc::clone(&write.key_text),
                created,
                crc,
                bytes: 2 * write.key_text.len() as u64
                    + u64::from(len)
                    + u64::from(old.map_or(0, |o| o.len))
                    + 64,
                value: text.clone(),
                old,
                old_inline: batch.documents.get(&write.key_text).cloned(),
            };
            bytes += row.bytes;
            batch.rows.push(row);
            match &write.put {
                Some((value, _)) => {
                    let entry = Entry {
                        created,
                        modified: revision,
                        crc,
                        len,
                    };
                    self.index.insert(Arc::clone(&write.key_text), entry);
                    changes.push(Change::Put(KeyValue {
                        key: write.key.clone(),
                        value: value.clone(),
                        created: Revision(created),
                        modified: Revision(revision),
                    }));
                }
                None => {
                    self.index.remove(&write.key_text);
                    changes.push(Change::Delete(write.key.clone()));
                }
            }
            batch.documents.insert(Arc::clone(&write.key_text), text);
            batch.undo.push(Undo::Entry(Arc::clone(&write.key_text), old));
        }
        if changes.is_empty() {
            return Outcome::Committed {
                revision: Revision(self.revision),
            };
        }
        self.revision = revision;
        self.history.push_back((revision, bytes));
        self.history_bytes += bytes;
        batch.commits.push(Arc::new(Commit {
            revision: Revision(revision),
            changes,
        }));
        Outcome::Committed {
            revision: Revision(revision),
        }
    }

    /// Raises the batch's floor as far as `retention` asks, and picks how many old rows go with it.
    pub(super) fn retain(&self, batch: &mut Batch, retention: Retention) {
        let mut commits = self.history.len() as u64;
        let mut bytes = self.history_bytes;
        for (revision, size) in &self.history {
            if commits <= retention.commits && bytes <= retention.bytes {
                break;
            }
            batch.floor = batch.floor.max(*revision);
            commits -= 1;
            bytes -= size;
        }
        // Twice what comes in, so that sweeping always catches up, in steps that nobody notices.
        let step = 256 + 2 * batch.commits.len() as u64;
        batch.sweep = batch.floor.min(self.swept + step);
    }

    /// The batch is durable.
    pub(super) fn settle(&mut self, batch: &Batch) {
        self.floor = batch.floor;
        self.swept = batch.sweep;
        while let Some((_, bytes)) = self
            .history
            .pop_front_if(|(revision, _)| *revision <= batch.floor)
        {
            self.history_bytes -= bytes;
        }
    }

    /// The batch did not happen.
    pub(super) fn undo(&mut self, batch: Batch) {
        for undo in batch.undo.into_iter().rev() {
            match undo {
                Undo::Entry(key, Some(entry)) => {
                    self.index.insert(key, entry);
                }
                Undo::Entry(key, None) => {
                    self.index.remove(&key);
                }
                Undo::Lease(name, record) => self.leases.set(name, record),
            }
        }
        for _ in &batch.commits {
            if let Some((_, bytes)) = self.history.pop_back() {
                self.history_bytes -= bytes;
            }
        }
        self.revision -= batch.commits.len() as u64;
    }
}

/// The documents of a batch as they are after it; `None` is removed.
pub(super) type Documents = BTreeMap<Arc<str>, Option<Arc<str>>>;
