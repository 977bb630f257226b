//! The last commits, in memory: for watchers that begin a bit back, above all those that come back.

use std::collections::VecDeque;
use std::sync::Arc;

use skyloom_store::feed::Commit;
use skyloom_store::{Change, Prefix, Revision};

/// Most commits.
const COMMITS: usize = 4096;
/// Most bytes of values, about.
const BYTES: usize = 16 << 20;
/// What a change takes beside its value, about.
const OVERHEAD: usize = 128;

/// All commits after `base`.
#[derive(Debug)]
pub(crate) struct Ring {
    base: Revision,
    commits: VecDeque<Arc<Commit>>,
    bytes: usize,
}

fn weight(commit: &Commit) -> usize {
    let one = |change: &Change| match change {
        Change::Put(kv) => kv.value.bytes().len() + OVERHEAD,
        Change::Delete(_) => OVERHEAD,
    };
    commit.changes.iter().map(one).sum()
}

/// A commit's part below a prefix, if any.
pub(crate) fn below(prefix: &Prefix, commit: &Commit) -> Option<Commit> {
    let changes: Vec<Change> = commit
        .changes
        .iter()
        .filter(|c| prefix.covers(c.key()))
        .cloned()
        .collect();
    (!changes.is_empty()).then_some(Commit {
        revision: commit.revision,
        changes,
    })
}

impl Ring {
    pub(crate) fn new(base: Revision) -> Self {
        Self {
            base,
            commits: VecDeque::new(),
            bytes: 0,
        }
    }

    /// The next commit; the oldest go when there is no room.
    pub(crate) fn push(&mut self, commit: Arc<Commit>) {
        self.bytes += weight(&commit);
        self.commits.push_back(commit);
        while self.commits.len() > COMMITS || self.bytes > BYTES {
            self.drop_oldest();
        }
    }

    /// Without the commits up to `through`.
    pub(crate) fn forget(&mut self, through: Revision) {
        while self.commits.front().is_some_and(|c| c.revision <= through) {
            self.drop_oldest();
        }
        self.base = self.base.max(through);
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.commits.pop_front() {
            self.bytes -= weight(&oldest);
            self.base = self.base.max(oldest.revision);
        }
    }

    /// The commits of a stretch below a prefix; `None` when it begins before the ring does.
    pub(crate) fn between(&self, prefix: &Prefix, after: Revision, through: Revision) -> Option<Vec<Commit>> {
        if after < self.base {
            return None;
        }
        let first = self.commits.partition_point(|c| c.revision <= after);
        let stretch = self.commits.range(first..).take_while(|c| c.revision <= through);
        Some(stretch.filter_map(|c| below(prefix, c)).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use skyloom_store::{Key, KeyValue, Value};

    use super::*;

    fn commit(revision: u64, bytes: usize) -> Arc<Commit> {
        let put = |path: &str| {
            Change::Put(KeyValue {
                key: Key::parse(path).unwrap(),
                value: Value::from_json_bytes(vec![b'1'; bytes]),
                created: Revision(revision),
                modified: Revision(revision),
            })
        };
        let changes = match revision % 3 {
            0 => vec![put("a/x")],
            1 => vec![put("b/x")],
            _ => vec![put("a/x"), put("b/x")],
        };
        Arc::new(Commit {
            revision: Revision(revision),
            changes,
        })
    }

    #[test]
    fn it_is_bounded_by_number_and_bytes() {
        let mut ring = Ring::new(Revision(0));
        for n in 1..=3 * COMMITS as u64 {
            ring.push(commit(n, 1));
        }
        assert_eq!(ring.commits.len(), COMMITS);
        assert_eq!(ring.base, Revision(2 * COMMITS as u64));
        let mut ring = Ring::new(Revision(0));
        for n in 1..=100 {
            ring.push(commit(n * 3, 1 << 20));
        }
        assert_eq!(ring.commits.len(), 15);
        assert!(ring.bytes <= BYTES);
    }

    proptest! {
        #[test]
        fn it_gives_all_of_a_stretch_or_says_that_it_cannot(
            steps in proptest::collection::vec((1_u64..5, proptest::option::weighted(0.1, 0_u64..10)), 1..60),
            after in 0_u64..150, length in 0_u64..150,
        ) {
            let (mut ring, mut all, mut now, mut forgotten) = (Ring::new(Revision(7)), Vec::new(), 7, 7);
            for (step, forget) in steps {
                now += step;
                all.push(commit(now, 1));
                ring.push(commit(now, 1));
                if let Some(back) = forget {
                    forgotten = forgotten.max(now.saturating_sub(back));
                    ring.forget(Revision(now.saturating_sub(back)));
                }
            }
            let (after, through) = (Revision(after), Revision(after + length));
            let prefix = Prefix::parse("a").unwrap();
            let got = ring.between(&prefix, after, through);
            prop_assert_eq!(got.is_some(), after.0 >= forgotten);
            if let Some(got) = got {
                let wanted: Vec<Commit> = all
                    .iter()
                    .filter(|c| after < c.revision && c.revision <= through)
                    .filter_map(|c| below(&prefix, c))
                    .collect();
                prop_assert_eq!(got, wanted);
            }
        }
    }
}
