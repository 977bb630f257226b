//! How the writer decides.
//!
//! It is the only one who changes the database, so it decides a whole batch of calls in memory, without one query where memory
//! knows the keys ([`Present`]). What it decides is staged in the batch, and enters memory when it is durable.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use skyloom_store::feed::Commit;
use skyloom_store::{Change, Guard, Key, LeaseName, Outcome, Revision};

use super::batch::Batch;
use super::history::Doc;
use super::leases::{LeaseTable, Now, Record};
use super::present::{Dirty, Known, Present};
use super::queue::{Answer, Op, Prepared};

/// How much history to keep.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retention {
    pub(super) commits: u64,
    pub(super) bytes: u64,
}

/// The rows of the history, oldest first.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Last revision and bytes of each after the floor.
    rows: VecDeque<(u64, u64)>,
    bytes: u64,
}

impl Rows {
    pub(super) fn push(&mut self, last: u64, bytes: u64) {
        self.rows.push_back((last, bytes));
        self.bytes += bytes;
    }

    /// Forgets what lies up to `floor` and what `retention` does not keep; gives the floor that follows.
    pub(super) fn retain(&mut self, floor: u64, newest: u64, retention: Retention) -> u64 {
        let mut floor = floor;
        while let Some((last, bytes)) = self.rows.front().copied() {
            let kept = newest.saturating_sub(last) < retention.commits && self.bytes <= retention.bytes;
            if last > floor && kept {
                break;
            }
            floor = floor.max(last);
            self.bytes -= bytes;
            self.rows.pop_front();
        }
        floor
    }
}

/// What only the writer knows.
#[derive(Debug)]
pub(super) struct State {
    pub(super) leases: LeaseTable,
    pub(super) rows: Rows,
}

/// What the database said of keys that memory does not know.
pub(super) type Fetched = HashMap<Key, Dirty>;

/// A batch being decided.
#[derive(Debug)]
pub(super) struct Deciding<'a> {
    pub(super) present: &'a mut Present,
    pub(super) state: &'a mut State,
    pub(super) fetched: &'a Fetched,
    pub(super) batch: &'a mut Batch,
    /// Keys of which nobody knows: what was decided is void, they have to be fetched first.
    pub(super) missing: Vec<Key>,
    pub(super) now: Now,
}

impl Deciding<'_> {
    pub(super) fn decide(&mut self, op: &Op) -> Answer {
        match op {
            Op::Commit(txn) => Answer::Outcome(self.commit(txn)),
            Op::Grant {
                name,
                holder,
                ttl,
                mode,
            } => {
                let before = self.state.leases.get(name).cloned();
                let grant = self.state.leases.grant(name, holder, *ttl, *mode, self.now);
                self.note_lease(name, before);
                Answer::Grant(grant)
            }
            Op::Renew { name, epoch, ttl } => {
                let before = self.state.leases.get(name).cloned();
                let renewal = self.state.leases.renew(name, *epoch, *ttl, self.now);
                self.note_lease(name, before);
                Answer::Renewal(renewal)
            }
            Op::Revoke { name, epoch } => {
                let before = self.state.leases.get(name).cloned();
                self.state.leases.revoke(name, *epoch);
                self.note_lease(name, before);
                Answer::Done
            }
            Op::Leases(prefix) => Answer::Leases(self.state.leases.below(prefix, self.now)),
            Op::Compact(revision) => {
                self.batch.floor = self.batch.floor.max(revision.0.min(self.revision()));
                Answer::Done
            }
            Op::Close => Answer::Done,
        }
    }

    /// The newest revision, with what the batch has decided so far.
    fn revision(&self) -> u64 {
        self.present.revision + self.batch.commits.len() as u64
    }

    fn note_lease(&mut self, name: &LeaseName, before: Option<Record>) {
        if self.state.leases.get(name) != before.as_ref() {
            self.batch.leases.insert(name.clone());
            self.batch.undo.push((name.clone(), before));
        }
    }

    /// `key` as it is after what the batch has decided so far.
    fn current(&mut self, key: &Key) -> Dirty {
        if let Some(staged) = self.batch.staged.get(key) {
            return staged.clone();
        }
        match self.present.known(key) {
            Known::Yes(dirty) => dirty,
            Known::No => self.fetched(key),
        }
    }

    fn fetched(&mut self, key: &Key) -> Dirty {
        if let Some(fetched) = self.fetched.get(key) {
            return fetched.clone();
        }
        self.missing.push(key.clone());
        Dirty {
            doc: None,
            stored: true,
        }
    }

    fn modified(&mut self, key: &Key) -> Option<Revision> {
        let revision = |doc: &Doc| Revision(doc.modified);
        if let Some(staged) = self.batch.staged.get(key) {
            return staged.doc.as_ref().map(revision);
        }
        match self.present.modified(key) {
            Some(modified) => modified,
            None => self.fetched(key).doc.as_ref().map(revision),
        }
    }

    /// The first guard that does not hold.
    fn conflict(&mut self, guards: &[Guard]) -> Option<Outcome> {
        for (guard, g) in guards.iter().enumerate() {
            let (holds, current) = match g {
                Guard::Absent(key) => {
                    let current = self.modified(key);
                    (current.is_none(), current)
                }
                Guard::Revision(key, revision) => {
                    let current = self.modified(key);
                    (current == Some(*revision), current)
                }
                Guard::Lease(name, epoch) => (self.state.leases.holds(name, *epoch, self.now), None),
            };
            if !holds {
                return Some(Outcome::Conflict { guard, current });
            }
        }
        None
    }

    fn commit(&mut self, txn: &Prepared) -> Outcome {
        if let Some(conflict) = self.conflict(&txn.guards) {
            return conflict;
        }
        let revision = self.revision() + 1;
        let bytes = self.batch.bytes;
        let mut changes = Vec::with_capacity(txn.writes.len());
        for write in &txn.writes {
            let Dirty { doc: before, stored } = self.current(&write.key);
            if before.is_none() && write.put.is_none() {
                continue; // removes what is absent
            }
            if changes.is_empty() {
                self.batch.lines.commit(revision);
            }
            let after = write.put.as_ref().map(|value| Doc {
                created: before.as_ref().map_or(revision, |doc| doc.created),
                modified: revision,
                value: value.clone(),
            });
            self.batch
                .lines
                .change(&write.key, after.as_ref(), before.as_ref());
            let len = |doc: &Option<Doc>| doc.as_ref().map_or(0, |doc| doc.value.bytes().len() as u64);
            self.batch.bytes += 2 * write.key.as_str().len() as u64 + len(&after) + len(&before) + 64;
            self.batch.puts += usize::from(after.is_some());
            match (&before, &after) {
                (None, Some(_)) => self.batch.documents.0 += 1,
                (Some(_), None) => self.batch.documents.1 += 1,
                _ => {}
            }
            changes.push(match &after {
                Some(doc) => Change::Put(doc.with_key(&write.key)),
                None => Change::Delete(write.key.clone()),
            });
            self.batch
                .staged
                .insert(write.key.clone(), Dirty { doc: after, stored });
        }
        if changes.is_empty() {
            return Outcome::Committed {
                revision: Revision(self.revision()),
            };
        }
        self.batch.largest = self.batch.largest.max(self.batch.bytes - bytes);
        self.batch.commits.push(Arc::new(Commit {
            revision: Revision(revision),
            changes,
        }));
        Outcome::Committed {
            revision: Revision(revision),
        }
    }
}
