//! Several transactions as one call of the database's commit routine.
//!
//! The routine works on sets, so it cannot look at one transaction after the other. Transactions that touch the same
//! keys are therefore put on different *levels*: within a level no transaction writes what another one reads or writes, so
//! all guards of a level can be compared before all its writes. Levels follow one another, so later transactions see
//! the writes of earlier ones. The order of revisions is that of (level, place in the queue).

use std::collections::HashMap;
use std::sync::Arc;

use skyloom_store::feed::Commit;
use skyloom_store::{Change, Guard, KeyValue, Outcome, Revision};

use super::dialect::{Applied, Failed, Written};
use super::queue::Prepared;

/// Most levels of one batch. What would need more waits for the next batch.
const MAX_LEVELS: i32 = 32;

/// A guard on a document, in its transaction's place. Without a number it asks for absence.
#[derive(Debug)]
pub struct FlatGuard {
    pub level: i32,
    pub txn: usize,
    pub index: usize,
    pub revision: Option<i64>,
}

/// A guard on a lease.
#[derive(Debug)]
pub struct FlatLease {
    pub level: i32,
    pub txn: usize,
    pub index: usize,
    pub epoch: i64,
}

/// A write. `place` is the transaction's number among the writing ones of its level, from 1.
#[derive(Debug)]
pub struct FlatWrite {
    pub level: i32,
    pub txn: usize,
    pub index: usize,
    pub place: i32,
}

/// Transactions with their levels, flattened for the routine.
#[derive(Debug, Default)]
pub struct Batch {
    pub txns: Vec<Prepared>,
    pub levels: i32,
    level_of: Vec<i32>,
    /// Index of each transaction's first write.
    first: Vec<usize>,
    pub guards: Vec<FlatGuard>,
    pub leases: Vec<FlatLease>,
    pub writes: Vec<FlatWrite>,
    /// Whether something is removed.
    pub deletes: bool,
    pub bytes: usize,
}

/// What a key needs of later transactions of the batch.
#[derive(Debug, Clone, Copy, Default)]
struct Touched {
    /// First level on which it may be read.
    readable: i32,
    /// First level on which it may be written.
    writable: i32,
}

/// Finds levels for transactions that come one by one.
#[derive(Debug, Default)]
pub(super) struct Levels {
    touched: HashMap<skyloom_store::Key, Touched>,
    writers: Vec<i32>,
    pub(super) count: i32,
}

impl Levels {
    /// The level of `txn` and its place there; `None` when there is no level left for it.
    fn place(&mut self, txn: &Prepared) -> Option<(i32, i32)> {
        let touched = |key| self.touched.get(key).copied().unwrap_or_default();
        let read = guarded(txn).map(|key| touched(key).readable).max();
        let written = txn.writes.iter().map(|w| touched(&w.key).writable).max();
        let level = read.max(written).unwrap_or(0);
        if level >= MAX_LEVELS {
            return None;
        }
        for key in guarded(txn) {
            let touched = self.touched.entry(key.clone()).or_default();
            touched.writable = touched.writable.max(level + 1);
        }
        for write in &txn.writes {
            let touched = self.touched.entry(write.key.clone()).or_default();
            touched.readable = level + 1;
            touched.writable = level + 1;
        }
        self.count = self.count.max(level + 1);
        let index = usize::try_from(level).unwrap_or(0);
        if self.writers.len() <= index {
            self.writers.resize(index + 1, 0);
        }
        if !txn.writes.is_empty() {
            self.writers[index] += 1;
        }
        Some((level, self.writers[index]))
    }
}

/// The keys of documents that the guards look at.
fn guarded(txn: &Prepared) -> impl Iterator<Item = &skyloom_store::Key> {
    txn.guards.iter().filter_map(|guard| match guard {
        Guard::Absent(key) | Guard::Revision(key, _) => Some(key),
        Guard::Lease(..) => None,
    })
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(n: i64) -> Revision {
    Revision(u64::try_from(n).unwrap_or(0))
}

impl Batch {
    /// Adds `txn`, unless it has to wait for the next batch.
    pub(super) fn push(&mut self, levels: &mut Levels, txn: Prepared) -> Result<(), Prepared> {
        let Some((level, place)) = levels.place(&txn) else {
            return Err(txn);
        };
        let number = self.txns.len();
        for (index, guard) in txn.guards.iter().enumerate() {
            let revision = match guard {
                Guard::Absent(_) => None,
                Guard::Revision(_, revision) => Some(signed(revision.0)),
                Guard::Lease(_, epoch) => {
                    self.leases.push(FlatLease {
                        level,
                        txn: number,
                        index,
                        epoch: signed(*epoch),
                    });
                    continue;
                }
            };
            self.guards.push(FlatGuard {
                level,
                txn: number,
                index,
                revision,
            });
        }
        self.first.push(self.writes.len());
        for (index, write) in txn.writes.iter().enumerate() {
            self.deletes |= write.value.is_none();
            self.writes.push(FlatWrite {
                level,
                txn: number,
                index,
                place,
            });
        }
        self.levels = levels.count;
        self.level_of.push(level);
        self.bytes += txn.bytes;
        self.txns.push(txn);
        Ok(())
    }

    /// The text of a guard's key or lease name.
    pub fn guard_text(&self, txn: usize, index: usize) -> &str {
        match &self.txns[txn].guards[index] {
            Guard::Absent(key) | Guard::Revision(key, _) => key.as_str(),
            Guard::Lease(name, _) => name.as_key().as_str(),
        }
    }

    /// The write behind a flat one.
    pub fn write(&self, flat: &FlatWrite) -> &super::queue::PreparedWrite {
        &self.txns[flat.txn].writes[flat.index]
    }

    /// The index of transaction `txn`'s write of `key`.
    pub fn row(&self, txn: usize, key: &str) -> Option<usize> {
        let first = self.first.get(txn)?;
        let writes = &self.txns.get(txn)?.writes;
        writes
            .binary_search_by(|w| w.key.as_str().cmp(key))
            .ok()
            .map(|index| first + index)
    }

    /// Each transaction's outcome.
    pub(super) fn outcomes(&self, applied: &Applied) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = self
            .level_of
            .iter()
            .map(|level| {
                let end = usize::try_from(*level)
                    .ok()
                    .and_then(|level| applied.ends.get(level));
                Outcome::Committed {
                    revision: unsigned(end.copied().unwrap_or(applied.head)),
                }
            })
            .collect();
        for Written { row, revision, .. } in &applied.rows {
            if let Some(write) = self.writes.get(*row) {
                outcomes[write.txn] = Outcome::Committed {
                    revision: unsigned(*revision),
                };
            }
        }
        for Failed { txn, guard, current } in &applied.conflicts {
            match outcomes.get_mut(*txn) {
                Some(Outcome::Conflict { guard: first, .. }) if *first <= *guard => {}
                Some(outcome) => {
                    *outcome = Outcome::Conflict {
                        guard: *guard,
                        current: current.map(unsigned),
                    }
                }
                None => {}
            }
        }
        outcomes
    }

    /// What watchers are told.
    pub(super) fn commits(&self, applied: &Applied) -> Vec<Arc<Commit>> {
        let mut rows: Vec<&Written> = applied.rows.iter().collect();
        rows.sort_unstable_by_key(|w| (w.revision, w.row));
        let mut commits: Vec<Commit> = Vec::new();
        for Written {
            row,
            revision,
            created,
        } in rows
        {
            let Some(flat) = self.writes.get(*row) else {
                continue;
            };
            let write = self.write(flat);
            let revision = unsigned(*revision);
            let change = match &write.value {
                Some(value) => Change::Put(KeyValue {
                    key: write.key.clone(),
                    value: value.clone(),
                    created: unsigned(*created),
                    modified: revision,
                }),
                None => Change::Delete(write.key.clone()),
            };
            match commits.last_mut() {
                Some(last) if last.revision == revision => last.changes.push(change),
                _ => commits.push(Commit {
                    revision,
                    changes: vec![change],
                }),
            }
        }
        commits.into_iter().map(Arc::new).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use skyloom_store::{Capability, Key, Txn, Value};

    use super::*;

    /// A transaction that looks at some of the keys `k0` to `k5` and writes others.
    fn txn() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let keys = || proptest::collection::btree_set(0..6u8, 0..4).prop_map(|set| set.into_iter().collect());
        (keys(), keys())
    }

    fn key(n: u8) -> Key {
        Key::parse(&format!("k{n}")).unwrap()
    }

    fn prepared((guards, writes): &(Vec<u8>, Vec<u8>)) -> Prepared {
        let mut txn = Txn::new();
        for n in guards {
            txn = txn.guard(Guard::Absent(key(*n)));
        }
        for n in writes {
            txn = txn.put(key(*n), Value::from_json_bytes("1"));
        }
        Prepared::new(txn, &Capability::PORTABLE).unwrap()
    }

    proptest! {
        #[test]
        fn who_touches_what_another_one_writes_stands_on_another_level(txns in proptest::collection::vec(txn(), 1..60)) {
            let mut batch = Batch::default();
            let mut levels = Levels::default();
            let taken = txns.iter().take_while(|t| batch.push(&mut levels, prepared(t)).is_ok()).count();
            prop_assert!(taken == txns.len() || levels.count == MAX_LEVELS);
            let touches = |(guards, writes): &(Vec<u8>, Vec<u8>), n: &u8| guards.contains(n) || writes.contains(n);
            for later in 0..taken {
                for earlier in 0..later {
                    let (a, b) = (&txns[earlier], &txns[later]);
                    if a.1.iter().any(|n| touches(b, n)) || b.1.iter().any(|n| touches(a, n)) {
                        prop_assert!(batch.level_of[earlier] < batch.level_of[later], "{:?} and {:?}", a, b);
                    }
                }
            }
            for level in 0..levels.count {
                let mut places: Vec<(usize, i32)> = batch.writes.iter()
                    .filter(|w| w.level == level).map(|w| (w.txn, w.place)).collect();
                places.dedup();
                let wanted: Vec<i32> = (1..).take(places.len()).collect();
                prop_assert_eq!(places.into_iter().map(|(_, place)| place).collect::<Vec<_>>(), wanted);
            }
        }
    }

    #[test]
    fn strangers_share_a_level() {
        let mut batch = Batch::default();
        let mut levels = Levels::default();
        for n in 0..6 {
            batch.push(&mut levels, prepared(&(vec![n], vec![n]))).unwrap();
        }
        assert_eq!((levels.count, batch.levels), (1, 1));
    }
}
