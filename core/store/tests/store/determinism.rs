//! The same calls in the same order give the same answers, the same events and the same order of wake-ups.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use skyloom_model::ManualClock;
use skyloom_store::{
    LeaseMode, LeaseName, Leases as _, ListOptions, MemoryConfig, MemoryStore, Revision, Store as _, Txn,
    Watch as _, WatchOptions,
};
use tokio::task::JoinSet;

use crate::{json, key, prefix};

/// One life of a store with many watchers on one thread: everything that anybody saw, in the order in which it was seen.
async fn trace() -> Vec<String> {
    let clock = ManualClock::new();
    let store = Arc::new(MemoryStore::new(
        Arc::new(clock.clone()),
        MemoryConfig::default().with_history(40),
    ));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut watchers = JoinSet::new();
    for below in ["", "a", "b", "a/1", "a/2", "b/1", "a", "", "c"] {
        for buffer in [2, 100] {
            let number = watchers.len();
            let options = WatchOptions::after(Revision(0)).with_buffer(buffer);
            let mut events = store.watch(&prefix(below), options);
            let seen = seen.clone();
            watchers.spawn(async move {
                while let Some(event) = events.next().await {
                    seen.lock().push(format!("{number}: {event:?}"));
                }
            });
        }
    }
    for n in 0..50_u32 {
        let mut txn = Txn::new();
        for (i, first) in ["a", "b", "c", "d"].iter().enumerate() {
            let key = key(&format!("{first}/{}/{}", n % 3, n % 7));
            match (n as usize + i) % 3 {
                0 => txn = txn.put(key, json(n)),
                1 => txn = txn.delete(key),
                _ => {}
            }
        }
        let outcome = store.commit(txn).await;
        seen.lock().push(format!("{outcome:?}"));
        let name = LeaseName::parse(&format!("l/{}", n * 7 % 10)).unwrap();
        let granted = store
            .grant(
                &name,
                "me",
                Duration::from_secs(u64::from(n % 4) + 1),
                LeaseMode::Acquire,
            )
            .await;
        seen.lock().push(format!("{granted:?}"));
        clock.advance(Duration::from_millis(300));
        // Some watchers fall behind, some keep up.
        if n % 5 == 0 {
            tokio::task::yield_now().await;
        }
        let page = store.list(&prefix("a"), ListOptions::default()).await;
        let leases = store.leases(&prefix("")).await;
        seen.lock().push(format!("{page:?} {leases:?}"));
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    watchers.shutdown().await;
    let seen = seen.lock();
    seen.clone()
}

#[tokio::test]
async fn the_same_calls_give_the_same_trace() {
    let first = trace().await;
    assert!(
        first.iter().any(|line| line.contains("Gap")),
        "some watcher was too slow"
    );
    assert!(
        first.iter().any(|line| line.contains("expired: true")),
        "some lease ran out"
    );
    for _ in 0..10 {
        assert_eq!(trace().await, first);
    }
}
