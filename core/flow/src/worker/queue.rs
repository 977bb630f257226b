//! Which jobs wait for their turn, and whose turn it is. Pure: time and records are handed in.
//!
//! Projects take turns: first the one with the fewest jobs running, then the one that was served longest ago; within a
//! project the oldest job goes first. Jobs of one subject never run at the same time.

use std::collections::{BTreeMap, BTreeSet};

use skyloom_model::{JobRecord, Scope, Timestamp};
use skyloom_store::{Key, Revision, Versioned};
use uuid::Uuid;

use crate::backoff::is_over;

/// Projects whose last turn is remembered; beyond them the older half is forgotten.
const MOST_SCOPES: usize = 4096;

/// The open jobs of one place.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Where each waiting job is filed.
    waiting: BTreeMap<Key, Filed>,
    ready: BTreeMap<Scope, BTreeSet<(Revision, Key)>>,
    later: BTreeSet<(Timestamp, Key)>,
    running: BTreeMap<Key, Running>,
    /// The revision up to which a job's record is old news.
    seen: BTreeMap<Key, Revision>,
    /// When a job is looked at again though its record has not changed since this revision.
    again: BTreeMap<Key, (Timestamp, Revision)>,
    served: BTreeMap<Scope, u64>,
    turns: u64,
}

#[derive(Debug)]
struct Filed {
    scope: Scope,
    subject: Uuid,
    created: Revision,
    modified: Revision,
    later: Option<Timestamp>,
}

#[derive(Debug)]
struct Running {
    scope: Scope,
    subject: Uuid,
    /// The record that it runs by.
    modified: Revision,
}

impl Queue {
    /// Takes in what the record under `key` is now; `None` when there is none that a worker has something to do with.
    pub(super) fn put(&mut self, key: &Key, record: Option<&Versioned<JobRecord>>) {
        self.unfile(key);
        let Some(record) = record else {
            self.seen.remove(key);
            self.again.remove(key);
            return;
        };
        let fresh = self.seen.get(key).is_none_or(|seen| record.modified > *seen);
        if !fresh || self.running.contains_key(key) {
            return;
        }
        // A record that was begun and put off has waited for its own time; only a changed one has a new time to wait for.
        let again = self.again.get(key).filter(|(_, of)| *of == record.modified);
        let later = again.map_or(record.value.not_before, |(at, _)| Some(*at));
        let filed = Filed {
            scope: record.value.scope,
            subject: record.value.subject.id,
            created: record.created,
            modified: record.modified,
            later,
        };
        match filed.later {
            Some(at) => {
                self.later.insert((at, key.clone()));
            }
            None => self.make_ready(&filed, key),
        }
        self.waiting.insert(key.clone(), filed);
    }

    /// The keys that something is known of.
    pub(super) fn keys(&self) -> BTreeSet<Key> {
        let known = self.waiting.keys().chain(self.seen.keys());
        known.chain(self.again.keys()).cloned().collect()
    }

    /// Whether the job under `key` runs.
    pub(super) fn runs(&self, key: &Key) -> bool {
        self.running.contains_key(key)
    }

    /// Takes out the job whose turn it is at `now`.
    pub(super) fn next(&mut self, now: Timestamp) -> Option<Key> {
        self.ripen(now);
        let busy: BTreeSet<Uuid> = self.running.values().map(|r| r.subject).collect();
        let mut best: Option<((usize, u64, Revision), Scope, Key)> = None;
        for (scope, jobs) in &self.ready {
            let free = |key: &Key| self.waiting.get(key).is_some_and(|w| !busy.contains(&w.subject));
            let Some((created, key)) = jobs.iter().find(|(_, key)| free(key)) else {
                continue;
            };
            let running = self.running.values().filter(|r| r.scope == *scope).count();
            let served = self.served.get(scope).copied().unwrap_or_default();
            let turn = (running, served, *created);
            if best.as_ref().is_none_or(|(first, ..)| turn < *first) {
                best = Some((turn, *scope, key.clone()));
            }
        }
        let (_, scope, key) = best?;
        let filed = self.unfile(&key)?;
        self.turns += 1;
        self.served.insert(scope, self.turns);
        if self.served.len() > MOST_SCOPES {
            let old = self.turns.saturating_sub(MOST_SCOPES as u64 / 2);
            self.served.retain(|_, served| *served > old);
        }
        let Filed {
            scope,
            subject,
            modified,
            ..
        } = filed;
        let running = Running {
            scope,
            subject,
            modified,
        };
        self.running.insert(key.clone(), running);
        Some(key)
    }

    /// The job under `key` runs no more; records up to `seen` are old news.
    pub(super) fn done(&mut self, key: &Key, seen: Revision) {
        self.running.remove(key);
        self.again.remove(key);
        self.seen.insert(key.clone(), seen);
    }

    /// The job under `key` runs no more, and is to be looked at again at `at`.
    pub(super) fn put_off(&mut self, key: &Key, at: Timestamp) {
        if let Some(running) = self.running.remove(key) {
            self.again.insert(key.clone(), (at, running.modified));
        }
    }

    /// When the next job becomes ready by time alone.
    pub(super) fn wake(&self) -> Option<Timestamp> {
        self.later.first().map(|(at, _)| *at)
    }

    fn ripen(&mut self, now: Timestamp) {
        while let Some((at, key)) = self.over(now) {
            self.later.remove(&(at, key.clone()));
            self.again.remove(&key);
            if let Some(mut filed) = self.waiting.remove(&key) {
                filed.later = None;
                self.make_ready(&filed, &key);
                self.waiting.insert(key, filed);
            }
        }
    }

    /// A job whose wait is over: the earliest, or one that no clock like this one can have meant.
    fn over(&self, now: Timestamp) -> Option<(Timestamp, Key)> {
        let mut ends = [self.later.first(), self.later.last()].into_iter().flatten();
        ends.find(|(at, _)| is_over(*at, now)).cloned()
    }

    fn make_ready(&mut self, filed: &Filed, key: &Key) {
        let jobs = self.ready.entry(filed.scope).or_default();
        jobs.insert((filed.created, key.clone()));
    }

    fn unfile(&mut self, key: &Key) -> Option<Filed> {
        let filed = self.waiting.remove(key)?;
        match filed.later {
            Some(at) => {
                self.later.remove(&(at, key.clone()));
            }
            None => {
                if let Some(jobs) = self.ready.get_mut(&filed.scope) {
                    jobs.remove(&(filed.created, key.clone()));
                    if jobs.is_empty() {
                        self.ready.remove(&filed.scope);
                    }
                }
            }
        }
        Some(filed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn key(number: usize) -> Key {
        Key::parse(&format!("jobs/h/t/{number:03}")).unwrap()
    }

    fn record(number: usize, project: u8, subject: u8, not_before: Option<i64>) -> Versioned<JobRecord> {
        let value = json!({
            "format": 2,
            "task": Uuid::from_u128(1),
            "scope": { "project": Uuid::from_u128(project.into()) },
            "subject": { "kind": "things", "id": Uuid::from_u128(subject.into()), "name": "thing" },
            "generation": 1,
            "request_id": "r",
            "spec": {
                "id": number.to_string(), "kind": "k", "title": "t", "input": null, "weight": 1,
                "place": "engine",
            },
            "want": "run",
            "attempt": 1,
            "not_before": not_before.map(at),
            "state": "ready",
        });
        let number = Revision(number as u64);
        Versioned {
            key: key(number.0 as usize),
            value: serde_json::from_value(value).unwrap(),
            created: number,
            modified: number,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    proptest! {
        /// Jobs that take a while each, on some slots: everything runs once, one of a subject at a time, and no project
        /// waits with a free job while another has two more running than it.
        #[test]
        fn all_run_once_and_projects_share_the_slots(
            jobs in prop::collection::vec((0..4_u8, 0..30_u8, prop::option::of(0..20_i64)), 1..40),
            slots in 1..5_usize,
            takes in 1..4_i64,
        ) {
            let mut queue = Queue::default();
            for (number, (project, subject, not_before)) in jobs.iter().enumerate() {
                queue.put(&key(number), Some(&record(number, *project, *subject, *not_before)));
            }
            let mut running: Vec<(i64, usize)> = Vec::new();
            let mut ran = BTreeSet::new();
            for now in 0..1000 {
                let (ended, on): (Vec<_>, Vec<_>) = running.iter().partition(|(end, _)| *end <= now);
                running = on;
                for (_, number) in ended {
                    queue.done(&key(number), Revision(number as u64));
                    queue.put(&key(number), Some(&record(number, jobs[number].0, jobs[number].1, None)));
                }
                while running.len() < slots {
                    let Some(next) = queue.next(at(now)) else { break };
                    let number = (0..jobs.len()).find(|n| key(*n) == next).unwrap();
                    let (project, subject, not_before) = jobs[number];
                    prop_assert!(ran.insert(number), "twice");
                    prop_assert!(not_before.is_none_or(|at| at <= now), "too early");
                    prop_assert!(running.iter().all(|(_, n)| jobs[*n].1 != subject), "one subject twice");
                    let of = |p: u8| running.iter().filter(|(_, n)| jobs[*n].0 == p).count();
                    for (other, (p, s, not_before)) in jobs.iter().enumerate() {
                        let free = !ran.contains(&other)
                            && not_before.is_none_or(|at| at <= now)
                            && running.iter().all(|(_, n)| jobs[*n].1 != *s);
                        prop_assert!(!free || of(project) <= of(*p), "{p} waits while {project} has more");
                        prop_assert!(!free || *p != project || number < other, "the younger first");
                    }
                    running.push((now + takes, number));
                }
                if running.is_empty() && queue.wake().is_none() {
                    break;
                }
            }
            prop_assert_eq!(ran.len(), jobs.len());
        }
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_no_job_waiting() {
        let mut queue = Queue::default();
        queue.put(&key(1), Some(&record(1, 1, 1, Some(630))));
        queue.put(&key(2), Some(&record(2, 1, 2, Some(40))));
        assert_eq!(queue.next(at(30)), Some(key(1)));
        assert_eq!((queue.next(at(30)), queue.wake()), (None, Some(at(40))));
        assert_eq!(queue.next(at(40)), Some(key(2)));
    }

    #[test]
    fn what_is_put_off_waits_though_a_clock_was_set_back() {
        let mut queue = Queue::default();
        let job = record(1, 1, 1, Some(630));
        queue.put(&key(1), Some(&job));
        assert_eq!(queue.next(at(30)), Some(key(1)));
        queue.put_off(&key(1), at(32));
        queue.put(&key(1), Some(&job));
        assert_eq!((queue.next(at(31)), queue.wake()), (None, Some(at(32))));
        assert_eq!(queue.next(at(32)), Some(key(1)));
        queue.put_off(&key(1), at(34));
        let changed = Versioned {
            modified: Revision(7),
            ..record(1, 1, 1, Some(40))
        };
        queue.put(&key(1), Some(&changed));
        assert_eq!((queue.next(at(34)), queue.wake()), (None, Some(at(40))));
    }

    #[test]
    fn what_is_gone_is_not_run_and_what_is_put_off_waits() {
        let mut queue = Queue::default();
        queue.put(&key(1), Some(&record(1, 1, 1, None)));
        queue.put(&key(1), None);
        assert_eq!(queue.next(at(0)), None);
        assert!(queue.keys().is_empty());
        queue.put(&key(2), Some(&record(2, 1, 1, None)));
        assert_eq!(queue.next(at(0)), Some(key(2)));
        assert!(queue.runs(&key(2)));
        queue.put_off(&key(2), at(5));
        queue.put(&key(2), Some(&record(2, 1, 1, None)));
        assert_eq!((queue.next(at(4)), queue.wake()), (None, Some(at(5))));
        assert_eq!(queue.next(at(5)), Some(key(2)));
    }
}
