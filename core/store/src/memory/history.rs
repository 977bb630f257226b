//! The last commits, numbered without holes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::{Change, KeyValue, Prefix, Revision};

/// One change, and what it replaced.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) change: Change,
    pub(super) before: Option<KeyValue>,
}

/// One commit, shared by the history and the queues of all watchers.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) revision: Revision,
    pub(super) records: Vec<Recorded>,
}

impl Commit {
    pub(super) fn touches(&self, prefix: &Prefix) -> bool {
        self.records.iter().any(|r| prefix.covers(r.change.key()))
    }
}

/// Commit `floor + 1 + i` stands at index `i`.
#[derive(Debug)]
pub(super) struct History {
    most: usize,
    floor: u64,
    commits: VecDeque<Arc<Commit>>,
}

impl History {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            floor: 0,
            commits: VecDeque::new(),
        }
    }

    /// The newest revision.
    pub(super) fn revision(&self) -> Revision {
        Revision(self.floor + self.commits.len() as u64)
    }

    /// The oldest revision that can still be listed at and watched from.
    pub(super) fn floor(&self) -> Revision {
        Revision(self.floor)
    }

    /// Appends the next commit.
    pub(super) fn push(&mut self, records: Vec<Recorded>) -> Arc<Commit> {
        let commit = Arc::new(Commit {
            revision: Revision(self.revision().0 + 1),
            records,
        });
        self.commits.push_back(Arc::clone(&commit));
        if self.commits.len() > self.most {
            self.commits.pop_front();
            self.floor += 1;
        }
        commit
    }

    /// Forgets the commits up to and including `revision`.
    pub(super) fn compact(&mut self, revision: Revision) {
        let forget = self.index(revision.min(self.revision()));
        self.commits.drain(..forget);
        self.floor += forget as u64;
    }

    /// The commits after `revision` that touch `prefix`.
    pub(super) fn after(&self, revision: Revision, prefix: &Prefix) -> VecDeque<Arc<Commit>> {
        self.commits
            .range(self.index(revision)..)
            .filter(|c| c.touches(prefix))
            .map(Arc::clone)
            .collect()
    }

    /// What the keys below `prefix` that changed after `at` held at `at`.
    pub(super) fn undo(&self, at: Revision, prefix: &Prefix) -> BTreeMap<&str, Option<&KeyValue>> {
        let mut undo = BTreeMap::new();
        let later = self.commits.range(self.index(at)..);
        for record in later
            .flat_map(|c| &c.records)
            .filter(|r| prefix.covers(r.change.key()))
        {
            undo.entry(record.change.key().as_str())
                .or_insert(record.before.as_ref());
        }
        undo
    }

    /// The index of the first commit after `revision`.
    fn index(&self, revision: Revision) -> usize {
        usize::try_from(revision.0.saturating_sub(self.floor))
            .unwrap_or(usize::MAX)
            .min(self.commits.len())
    }
}
