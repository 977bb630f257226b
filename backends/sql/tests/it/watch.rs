//! From the history into the live stream while commits go on, and how a watch is lost.

use std::sync::Arc;
use std::task::Poll;

use futures::StreamExt as _;
use skyloom_store::{ErrorKind, ListOptions, Revision, Store, Watch, WatchEvent, WatchOptions};
use tokio::task::JoinSet;

use crate::support::{Place, commits_until, json, key, prefix, put};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_opened_under_load_miss_nothing_and_repeat_nothing() {
    let place = Place::new();
    let store = Arc::new(place.open().await);
    let mut writers = JoinSet::new();
    for w in 0..8 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            for n in 0..100 {
                put(&store, &format!("load/{w}"), &n.to_string()).await;
            }
        });
    }
    let mut watchers = JoinSet::new();
    for after in 0..16 {
        // Each starts at a later revision, so some begin in the history and some live.
        while store.stats().revision < Revision(after * 30) {
            tokio::task::yield_now().await;
        }
        let mut stream = store.watch(&prefix("load"), WatchOptions::after(Revision(after * 20)));
        watchers.spawn(async move {
            let seen = commits_until(&mut stream, Revision(800)).await.unwrap();
            let revisions: Vec<u64> = seen.iter().map(|(r, _)| r.0).collect();
            assert_eq!(revisions, (after * 20 + 1..=800).collect::<Vec<_>>());
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    while let Some(done) = watchers.join_next().await {
        done.unwrap();
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn history_longer_than_a_page_is_replayed_whole() {
    let place = Place::new();
    let mut config = place.config();
    config.allow_unsafe = true;
    let store = place.open_with(config).await;
    for n in 0..150u64 {
        let txn = (0..20).fold(skyloom_store::Txn::new(), |t, i| {
            t.put(key(&format!("k/{i}")), json(&n.to_string()))
        });
        store.commit(txn).await.unwrap();
    }
    let mut stream = store.watch(&prefix("k"), WatchOptions::after(Revision(0)));
    let seen = commits_until(&mut stream, Revision(150)).await.unwrap();
    assert_eq!(seen.len(), 150);
    assert!(seen.iter().all(|(_, changes)| changes.len() == 20));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_watcher_that_is_further_behind_than_its_buffer_gets_a_gap() {
    let place = Place::new();
    let store = place.open().await;
    let mut stream = store.watch(&prefix("k"), WatchOptions::after(Revision(0)).with_buffer(2));
    put(&store, "k/0", "0").await;
    assert_eq!(commits_until(&mut stream, Revision(1)).await.unwrap().len(), 1);
    // It has begun; now it falls asleep, after it has joined the live stream.
    while let Poll::Ready(item) = futures::poll!(stream.next()) {
        assert_eq!(item.unwrap().unwrap(), WatchEvent::Progress(Revision(1)));
    }
    for n in 1..10 {
        put(&store, "k/0", &n.to_string()).await;
    }
    let mut delivered = Vec::new();
    let floor = loop {
        match stream.next().await.unwrap().unwrap() {
            WatchEvent::Commit { revision, .. } => delivered.push(revision.0),
            WatchEvent::Progress(_) => {}
            WatchEvent::Gap { floor } => break floor,
        }
    };
    assert_eq!(delivered, [0_u64; 0], "what is lost is told at once");
    assert_eq!(floor, Revision(0));
    assert!(stream.next().await.is_none());
    store.close().await.unwrap();
}

#[tokio::test]
async fn retention_raises_the_floor_and_sweeps_the_table() {
    let place = Place::new();
    let mut config = place.config();
    config.max_history = 10;
    config.allow_unsafe = true;
    let store = place.open_with(config).await;
    for n in 0..700 {
        put(&store, "k/0", &n.to_string()).await;
    }
    assert_eq!(store.stats().floor, Revision(690));
    let mut old = store.watch(&prefix("k"), WatchOptions::after(Revision(689)));
    assert_eq!(
        old.next().await.unwrap().unwrap(),
        WatchEvent::Gap { floor: Revision(690) }
    );
    let mut young = store.watch(&prefix("k"), WatchOptions::after(Revision(690)));
    assert_eq!(commits_until(&mut young, Revision(700)).await.unwrap().len(), 10);
    let past = store
        .list(&prefix("k"), ListOptions::default().with_at(Revision(689)))
        .await;
    assert_eq!(past.unwrap_err().kind(), ErrorKind::Compacted);
    let past = store
        .list(&prefix("k"), ListOptions::default().with_at(Revision(690)))
        .await
        .unwrap();
    assert_eq!(past.items[0].value, json("689"));
    store.close().await.unwrap();
    assert_eq!(place.sql_number("SELECT count(*) FROM history").await, 10);
}

#[tokio::test]
async fn retention_also_counts_bytes() {
    let place = Place::new();
    let mut config = place.config();
    config.max_history_bytes = 50_000;
    config.allow_unsafe = true;
    let store = place.open_with(config.clone()).await;
    let value = format!("\"{}\"", "x".repeat(1_000));
    for n in 0..100 {
        put(&store, &format!("k/{n}"), &value).await;
    }
    let floor = store.stats().floor;
    assert!(floor > Revision(50) && floor < Revision(60), "{floor}");
    // The count survives a restart.
    store.close().await.unwrap();
    let store = place.open_with(config).await;
    assert_eq!(store.stats().floor, floor);
    put(&store, "k/0", &value).await;
    assert!(store.stats().floor > floor);
    store.close().await.unwrap();
}
