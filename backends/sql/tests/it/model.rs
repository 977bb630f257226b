//! Random histories against the memory store: every answer must be the same, also in groups, at old revisions and for
//! watchers, and after opening again.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::join_all;
use proptest::prelude::*;
use skyloom_model::ManualClock;
use skyloom_store::{
    Change, ErrorKind, Guard, MemoryConfig, MemoryStore, Outcome, Revision, Store, Txn, Watch, WatchEvent,
    WatchOptions,
};
use skyloom_store_sql::{SqliteConfig, SqliteStore};

use crate::support::{Place, all, commits_until, json, key, prefix};

const KEYS: [&str; 6] = ["a/1", "a/10", "a/1/x", "b/1", "b/2", "c"];

#[derive(Debug, Clone)]
enum Step {
    /// Key, and what is written there (`None` deletes) under which guard.
    Commit(Vec<(usize, Option<u8>, Check)>),
    Compact(u64),
    Reopen,
    /// The process ends without a word.
    Die,
}

#[derive(Debug, Clone, Copy)]
enum Check {
    No,
    Absent,
    Revision(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let check =
        prop_oneof![3 => Just(Check::No), 1 => Just(Check::Absent), 2 => (0..6u64).prop_map(Check::Revision)];
    let write = (0..KEYS.len(), proptest::option::weighted(0.7, 0..9u8), check);
    let writes = proptest::collection::vec(write, 0..4);
    prop_oneof![12 => writes.prop_map(Step::Commit), 1 => (0..20u64).prop_map(Step::Compact), 1 => Just(Step::Reopen), 1 => Just(Step::Die)]
}

fn txn(writes: &[(usize, Option<u8>, Check)]) -> Txn {
    writes.iter().fold(Txn::new(), |txn, (k, value, check)| {
        let k = key(KEYS[*k]);
        let txn = match check {
            Check::No => txn,
            Check::Absent => txn.guard(Guard::Absent(k.clone())),
            Check::Revision(revision) => txn.guard(Guard::Revision(k.clone(), Revision(*revision))),
        };
        match value {
            // Large ones are not left for later, so that what is dirty is flushed here and there.
            Some(0) => txn.put(k, json(&format!("\"{}\"", "x".repeat(70_000)))),
            Some(n) => txn.put(k, json(&format!("{{\"n\":{n}}}"))),
            None => txn.delete(k),
        }
    })
}

/// The answer to a commit, or what kind of refusal it is.
fn shape(answer: skyloom_store::Result<Outcome>) -> Result<Outcome, ErrorKind> {
    answer.map_err(|e| e.kind())
}

async fn events(
    store: &dyn Watch,
    below: &str,
    after: u64,
    to: Revision,
) -> Option<Vec<(Revision, Vec<Change>)>> {
    let mut stream = store.watch(&prefix(below), WatchOptions::after(Revision(after)));
    if Revision(after) == to {
        return Some(Vec::new());
    }
    commits_until(&mut stream, to).await
}

/// Compares everything that can be read.
async fn compare(sqlite: &SqliteStore, memory: &MemoryStore) {
    let newest = memory.revision();
    for at in (0..=newest.0 + 1).map(|r| Some(Revision(r))).chain([None]) {
        for below in ["", "a", "a/1", "b", "none"] {
            let have = all(sqlite, below, at).await.map_err(|e| e.kind());
            let want = all(memory, below, at).await.map_err(|e| e.kind());
            assert_eq!(have, want, "list of {below:?} at {at:?}");
        }
    }
    for k in KEYS {
        assert_eq!(
            sqlite.get(&key(k)).await.unwrap(),
            memory.get(&key(k)).await.unwrap()
        );
    }
    for after in 0..=newest.0 {
        // Everything below "": every commit touches it, so both streams end at the newest.
        assert_eq!(
            events(sqlite, "", after, newest).await,
            events(memory, "", after, newest).await,
            "watch after {after}"
        );
    }
}

/// Opens a file that somebody has just let go of.
async fn reopen(place: &Place, config: &SqliteConfig) -> SqliteStore {
    loop {
        match SqliteStore::open(config.clone(), Arc::new(place.clock.clone())).await {
            Ok(store) => return store,
            // Its last owner's connection is being closed on a thread of its own.
            Err(e) if e.kind() == ErrorKind::Unavailable => tokio::task::yield_now().await,
            Err(e) => panic!("{e}"),
        }
    }
}

async fn follow(steps: Vec<Vec<Step>>) {
    let place = Place::new();
    let mut config = place.config();
    config.allow_unsafe = true; // thousands of small histories; what is on disk is the same
    let mut sqlite = place.open_with(config.clone()).await;
    let memory = MemoryStore::new(Arc::new(ManualClock::new()), MemoryConfig::default());
    for group in steps {
        // The commits of a group are queued together, so they share a transaction.
        let commits: Vec<&[_]> = group
            .iter()
            .filter_map(|s| {
                if let Step::Commit(w) = s {
                    Some(&w[..])
                } else {
                    None
                }
            })
            .collect();
        let have = join_all(commits.iter().map(|w| sqlite.commit(txn(w)))).await;
        for (have, writes) in have.into_iter().zip(&commits) {
            assert_eq!(shape(have), shape(memory.commit(txn(writes)).await), "{writes:?}");
        }
        for step in group {
            match step {
                Step::Commit(_) => {}
                Step::Compact(revision) => {
                    sqlite.compact(Revision(revision)).await.unwrap();
                    memory.compact(Revision(revision));
                }
                Step::Reopen => {
                    sqlite.close().await.unwrap();
                    sqlite = place.open_with(config.clone()).await;
                }
                Step::Die => {
                    drop(sqlite);
                    sqlite = reopen(&place, &config).await;
                }
            }
        }
    }
    compare(&sqlite, &memory).await;
    sqlite.close().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn random_histories_answer_as_the_memory_store(
        steps in proptest::collection::vec(proptest::collection::vec(step(), 1..6), 1..8)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(follow(steps));
    }
}

#[tokio::test]
async fn a_watch_below_a_prefix_sees_only_that() {
    let place = Place::new();
    let store = place.open().await;
    let both = Txn::new().put(key("a/1"), json("1")).put(key("b/1"), json("2"));
    let first = store.commit(both).await.unwrap().committed().unwrap();
    store.commit(Txn::new().put(key("b/2"), json("3"))).await.unwrap();
    let last = store
        .commit(Txn::new().put(key("a/2"), json("4")))
        .await
        .unwrap()
        .committed()
        .unwrap();
    let mut stream = store.watch(&prefix("a"), WatchOptions::after(Revision(0)));
    let seen = commits_until(&mut stream, last).await.unwrap();
    let shown: Vec<_> = seen
        .iter()
        .map(|(r, c)| (*r, c.iter().map(|c| c.key().as_str()).collect::<Vec<_>>()))
        .collect();
    assert_eq!(shown, [(first, vec!["a/1"]), (last, vec!["a/2"])]);
    store.close().await.unwrap();
    // After closing, the stream says so and ends.
    let item = loop {
        match stream.next().await {
            Some(Ok(WatchEvent::Progress(_))) => {}
            other => break other,
        }
    };
    assert_eq!(item.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(stream.next().await.is_none());
}
