//! Decides a batch: which transactions hold, at which revisions, and what that writes. Pure.
//!
//! ```text
//! transactions, in order  +  head  +  present versions  +  leases  ──>  outcomes, commits, and the rows of all collections
//! ```
//!
//! Later transactions of a batch see what earlier ones write.

use std::collections::BTreeMap;
use std::sync::Arc;

use mongodb::bson::{Bson, Document, doc};
use skyloom_store::feed::Commit;
use skyloom_store::{
    Capability, Change, Error, ErrorKind, Guard, Key, KeyValue, LeaseName, Outcome, Result, Revision, Txn,
    Value, Write,
};

use crate::json::Stored;
use crate::record::{Version, log_delete, log_put};
use crate::space::{Head, int};

/// Most bytes of one commit: its document in the log must stay below the servers' 16 MiB.
const MAX_COMMIT: usize = 12 << 20;

/// A transaction whose form has been checked, with its writes in key order and its values as they are stored.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) guards: Vec<Guard>,
    pub(crate) writes: Vec<PreparedWrite>,
    /// Bytes that it writes, about.
    pub(crate) bytes: usize,
}

#[derive(Debug)]
pub(crate) struct PreparedWrite {
    pub(crate) key: Key,
    /// `None` removes.
    put: Option<(Value, Stored)>,
}

impl Prepared {
    pub(crate) fn new(mut txn: Txn, capability: &Capability) -> Result<Self> {
        txn.check(capability)?;
        txn.writes.sort_unstable_by(|a, b| a.key().cmp(b.key()));
        let mut bytes = 0;
        let mut writes = Vec::with_capacity(txn.writes.len());
        for write in txn.writes {
            let (key, put) = match write {
                Write::Delete(key) => (key, None),
                Write::Put(key, value) => {
                    let text = std::str::from_utf8(value.bytes()).map_err(|e| {
                        Error::new(ErrorKind::Invalid, "commit")
                            .with("no JSON under key", &key)
                            .because(e)
                    })?;
                    let stored = Stored::new(text);
                    (key, Some((value, stored)))
                }
            };
            bytes += 64 + key.as_str().len() + put.as_ref().map_or(0, |(_, stored)| stored.size());
            writes.push(PreparedWrite { key, put });
        }
        if bytes > MAX_COMMIT {
            return Err(Error::new(ErrorKind::TooLarge, "commit")
                .with("bytes", bytes)
                .with("limit", MAX_COMMIT));
        }
        Ok(Self {
            guards: txn.guards,
            writes,
            bytes,
        })
    }

    /// The keys whose versions it must know.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        let guarded = self.guards.iter().filter_map(|g| match g {
            Guard::Absent(key) | Guard::Revision(key, _) => Some(key),
            Guard::Lease(..) => None,
        });
        guarded.chain(self.writes.iter().map(|w| &w.key))
    }

    /// The leases that it needs.
    pub(crate) fn leases(&self) -> impl Iterator<Item = &LeaseName> {
        self.guards.iter().filter_map(|g| match g {
            Guard::Lease(name, _) => Some(name),
            Guard::Absent(_) | Guard::Revision(..) => None,
        })
    }
}

/// What the batch has read.
#[derive(Debug, Default)]
pub(crate) struct Present {
    pub(crate) documents: BTreeMap<Key, Version>,
    /// The epochs of the leases that are held.
    pub(crate) leases: BTreeMap<LeaseName, u64>,
}

/// What the batch does.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// One per transaction.
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) commits: Vec<Arc<Commit>>,
    pub(crate) log: Vec<Document>,
    pub(crate) past: Vec<Document>,
    /// The documents as they are afterwards; `None` is removed.
    pub(crate) documents: BTreeMap<Key, Option<Version>>,
    pub(crate) revision: u64,
    pub(crate) bytes: u64,
}

/// Decides `jobs` in their order.
pub(crate) fn plan<'j>(
    jobs: impl IntoIterator<Item = &'j Prepared>,
    head: Head,
    mut present: Present,
    batch: &str,
) -> Plan {
    let mut plan = Plan {
        revision: head.revision,
        bytes: head.bytes,
        ..Plan::default()
    };
    for job in jobs {
        let outcome = match conflict(&job.guards, &present) {
            Some(conflict) => conflict,
            None => {
                plan.apply(job, &mut present, batch);
                Outcome::Committed {
                    revision: Revision(plan.revision),
                }
            }
        };
        plan.outcomes.push(outcome);
    }
    plan
}

/// The first guard that does not hold.
fn conflict(guards: &[Guard], present: &Present) -> Option<Outcome> {
    guards.iter().enumerate().find_map(|(guard, g)| {
        let modified = |key: &Key| present.documents.get(key).map(|v| Revision(v.modified));
        let (holds, current) = match g {
            Guard::Absent(key) => {
                let current = modified(key);
                (current.is_none(), current)
            }
            Guard::Revision(key, revision) => {
                let current = modified(key);
                (current == Some(*revision), current)
            }
            Guard::Lease(name, epoch) => (present.leases.get(name) == Some(epoch), None),
        };
        (!holds).then_some(Outcome::Conflict { guard, current })
    })
}

impl Plan {
    /// Writes a transaction whose guards hold.
    fn apply(&mut self, job: &Prepared, present: &mut Present, batch: &str) {
        let revision = self.revision + 1;
        let mut changes = Vec::with_capacity(job.writes.len());
        let mut logged: Vec<Bson> = Vec::with_capacity(job.writes.len());
        for PreparedWrite { key, put } in &job.writes {
            let former = present.documents.remove(key);
            let created = former.as_ref().map_or(revision, |v| v.created);
            match put {
                None if former.is_none() => continue,
                None => {
                    logged.push(log_delete(key));
                    changes.push(Change::Delete(key.clone()));
                    self.documents.insert(key.clone(), None);
                }
                Some((value, stored)) => {
                    logged.push(log_put(key, created, stored.clone()));
                    changes.push(Change::Put(KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        created: Revision(created),
                        modified: Revision(revision),
                    }));
                    let version = Version {
                        created,
                        modified: revision,
                        stored: stored.clone(),
                    };
                    present.documents.insert(key.clone(), version.clone());
                    self.documents.insert(key.clone(), Some(version));
                }
            }
            if let Some(former) = former {
                self.past.push(former.past(key, revision));
            }
        }
        if changes.is_empty() {
            return;
        }
        self.revision = revision;
        self.bytes += job.bytes as u64;
        self.log.push(doc! {
            "_id": int(revision), "batch": batch, "bytes": int(job.bytes as u64), "total": int(self.bytes),
            "changes": logged,
        });
        self.commits.push(Arc::new(Commit {
            revision: Revision(revision),
            changes,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> Key {
        Key::parse(path).unwrap()
    }
    fn prepared(txn: Txn) -> Prepared {
        Prepared::new(txn, &Capability::PORTABLE).unwrap()
    }
    fn value(n: u64) -> Value {
        Value::json(&n).unwrap()
    }
    const HEAD: Head = Head {
        revision: 10,
        floor: 0,
        bytes: 100,
        forgotten: 0,
        turn: 0,
    };
    fn present() -> Present {
        let version = Version {
            created: 4,
            modified: 9,
            stored: Stored::new("9"),
        };
        Present {
            documents: BTreeMap::from([(key("a"), version)]),
            leases: BTreeMap::from([(LeaseName::parse("l").unwrap(), 3)]),
        }
    }
    fn run(txns: Vec<Txn>) -> Plan {
        let jobs: Vec<Prepared> = txns.into_iter().map(prepared).collect();
        plan(&jobs, HEAD, present(), "w/1")
    }

    #[test]
    fn later_transactions_see_earlier_ones() {
        let plan = run(vec![
            Txn::new().replace(key("a"), Revision(9), value(1)),
            Txn::new().replace(key("a"), Revision(9), value(2)),
            Txn::new().replace(key("a"), Revision(11), value(3)),
            Txn::new().create(key("b"), value(4)),
            Txn::new().create(key("b"), value(5)),
        ]);
        let committed = |n| Outcome::Committed {
            revision: Revision(n),
        };
        let stale = |n| Outcome::Conflict {
            guard: 0,
            current: Some(Revision(n)),
        };
        assert_eq!(
            plan.outcomes,
            [committed(11), stale(11), committed(12), committed(13), stale(13)]
        );
        assert_eq!(plan.revision, 13);
        assert_eq!(plan.commits.len(), 3);
        let ended: Vec<_> = plan.past.iter().map(|d| d.get_str("_id").unwrap()).collect();
        assert_eq!(ended, ["00000000000000000011 a", "00000000000000000012 a"]);
        let a = plan.documents[&key("a")].as_ref().unwrap();
        assert_eq!((a.created, a.modified), (4, 12));
    }

    #[test]
    fn the_log_counts_what_it_holds() {
        let plan = run(vec![
            Txn::new().put(key("b"), value(1)),
            Txn::new().put(key("c"), value(1)),
        ]);
        let (mut last, mut total) = (10, 100);
        for document in &plan.log {
            let number = |name| document.get_i64(name).unwrap();
            assert_eq!(number("_id"), last + 1);
            assert_eq!(number("total"), total + number("bytes"));
            (last, total) = (number("_id"), number("total"));
        }
        assert_eq!((plan.revision, plan.bytes), (12, u64::try_from(total).unwrap()));
    }

    #[test]
    fn what_changes_nothing_has_the_present_revision() {
        let plan = run(vec![
            Txn::new().delete(key("x")),
            Txn::new().guard(Guard::Absent(key("x"))),
            Txn::new().delete(key("a")),
            Txn::new().delete(key("a")),
        ]);
        let revisions: Vec<_> = plan.outcomes.iter().map(|o| o.committed().unwrap().0).collect();
        assert_eq!(revisions, [10, 10, 11, 11]);
        assert_eq!(plan.documents[&key("a")], None);
        assert_eq!((plan.log.len(), plan.past.len()), (1, 1));
    }

    #[test]
    fn leases_guard_by_their_epoch() {
        let fenced = |name, epoch| {
            Txn::new()
                .guard(Guard::Lease(LeaseName::parse(name).unwrap(), epoch))
                .put(key("f"), value(1))
        };
        let plan = run(vec![fenced("l", 2), fenced("l", 3), fenced("m", 3)]);
        let done: Vec<_> = plan.outcomes.iter().map(|o| o.committed().is_some()).collect();
        assert_eq!(done, [false, true, false]);
    }

    #[test]
    fn a_document_created_again_is_a_new_one() {
        let plan = run(vec![
            Txn::new().delete(key("a")),
            Txn::new().create(key("a"), value(2)),
        ]);
        let a = plan.documents[&key("a")].as_ref().unwrap();
        assert_eq!((a.created, a.modified), (12, 12));
        assert_eq!(plan.past.len(), 1, "nothing ended at 12");
    }

    #[test]
    fn what_the_log_cannot_hold_is_refused() {
        let big = Value::json(&"x".repeat(1 << 19)).unwrap();
        let txn = (0..30).fold(Txn::new(), |txn, n| txn.put(key(&format!("b/{n}")), big.clone()));
        let e = Prepared::new(txn, &Capability::PORTABLE).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::TooLarge);
    }
}
