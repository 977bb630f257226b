//! Long histories: none of many events missed, doubled or out of order, through cuts and compactions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skyloom_store::{Change, ListOptions, Revision, Store as _, Txn, WatchEvent};
use skyloom_store_etcd::{EtcdConfig, EtcdStore};
use tokio::task::JoinSet;

use super::proxy::{Proxy, Wire};
use super::support::{Etcd, open};
use super::{below, commit, item, json, key, put, revision, seen, until, watch};

const WRITERS: u64 = 32;

/// Many writers: the revision of each commit.
async fn write(store: &Arc<EtcdStore>, commits: u64) -> Vec<Revision> {
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut revisions = Vec::new();
            for n in 0..commits / WRITERS {
                let txn = Txn::new()
                    .put(key(&format!("a/{writer}/{}", n % 50)), json(n))
                    .put(key(&format!("b/{writer}")), json(n));
                revisions.push(commit(&*store, txn).await);
            }
            revisions
        });
    }
    let mut all: Vec<Revision> = tasks.join_all().await.into_iter().flatten().collect();
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn far_back_is_read_from_etcd_in_pieces() {
    let server = Etcd::start(&[]).await;
    let writer = Arc::new(open(server.config("c")).await.unwrap());
    let start = revision(&*writer).await;
    let revisions = write(&writer, 3200).await;
    // A handle that was not there.
    let late = open(server.config("c")).await.unwrap();
    let mut both = [watch(&late, "", start), watch(&late, "a/7", start)];
    for wanted in &revisions {
        assert_eq!(seen(&mut both[0]).await.0, *wanted);
    }
    for _ in 0..100 {
        let (_, keys) = seen(&mut both[1]).await;
        assert!(keys.iter().all(|k| k.starts_with("a/7/")), "{keys:?}");
    }
    let live = commit(&*writer, put("a/7/end", 1)).await;
    for events in &mut both {
        assert_eq!(seen(events).await.0, live, "from the past into the present");
    }
}

/// Watches from the empty store on, and after a gap lists, as [`skyloom_store::Mirror`] does: how many commits it saw,
/// how many gaps, and what it has in the end.
async fn follow(store: Arc<EtcdStore>, start: Revision) -> (u64, u64, BTreeMap<String, u64>) {
    let (mut commits, mut gaps) = (0, 0);
    let (mut map, mut empty) = (BTreeMap::new(), true);
    loop {
        let mut options = ListOptions::default();
        let after = loop {
            if std::mem::take(&mut empty) {
                break start;
            }
            let Ok(page) = store.list(&below("a"), options.clone()).await else {
                // The wire is cut, or the revision of the former page compacted: from the start.
                tokio::time::sleep(Duration::from_millis(5)).await;
                map.clear();
                options = ListOptions::default();
                continue;
            };
            options = options.with_at(page.revision);
            for kv in &page.items {
                map.insert(kv.key.to_string(), kv.value.parse().unwrap());
                options.after = Some(kv.key.clone());
            }
            if !page.more {
                break page.revision;
            }
        };
        // The last commit may have been in what was missed.
        if map.remove("a/end").is_some() {
            return (commits, gaps, map);
        }
        let (mut events, mut last) = (watch(&*store, "a", after), after);
        loop {
            match item(&mut events).await {
                Some(Ok(WatchEvent::Commit { revision, changes })) => {
                    assert!(revision > last, "{revision} after {last}");
                    (last, commits) = (revision, commits + 1);
                    for change in changes {
                        let Change::Put(kv) = change else {
                            panic!("nothing is deleted")
                        };
                        let n: u64 = kv.value.parse().unwrap();
                        let key = kv.key.to_string();
                        if key == "a/end" {
                            return (commits, gaps, map);
                        }
                        // Each key is written by one writer, every fiftieth time.
                        let before = map.insert(key, n);
                        assert_eq!(
                            before.map_or(n, |b| b + 50),
                            n,
                            "{} jumped from {before:?} without a gap",
                            kv.key
                        );
                    }
                }
                Some(Ok(WatchEvent::Gap { .. })) => {
                    gaps += 1;
                    map.clear();
                    break;
                }
                // From where it broke nothing is lost.
                Some(Err(_)) => events = watch(&*store, "a", last),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_events_through_cuts_and_compactions() {
    const COMMITS: u64 = WRITERS * 1600;
    let server = Etcd::start(&[]).await;
    let proxy = Proxy::to(server.port).await;
    let writer = Arc::new(open(server.config("c")).await.unwrap());
    let config = EtcdConfig::new([format!("127.0.0.1:{}", proxy.port)]).with_prefix("c");
    let reader = Arc::new(open(config).await.unwrap());
    let (store, other) = (writer.clone(), reader.clone());
    let start = revision(&*writer).await;
    let (mut following, mut steady, mut writing) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    following.spawn(follow(reader.clone(), start));
    steady.spawn(follow(writer.clone(), start));
    let writers = writing.spawn(async move { write(&store, COMMITS).await });
    let mut cuts = 0_u32;
    while !writers.is_finished() {
        let mark = revision(&*writer).await;
        until("some more commits", async || {
            writers.is_finished() || revision(&*writer).await.0 > mark.0 + 1000
        })
        .await;
        proxy.set(Wire::Cut);
        until("the cut is noticed", async || other.get(&key("x")).await.is_err()).await;
        if cuts % 3 == 2 {
            // What the reader misses now is gone.
            let here = revision(&*writer).await;
            until("more is missed", async || {
                writers.is_finished() || revision(&*writer).await.0 > here.0 + 10
            })
            .await;
            writer.compact(revision(&*writer).await).await.unwrap();
        }
        proxy.set(Wire::Whole);
        cuts += 1;
    }
    assert_eq!(writing.join_next().await.unwrap().unwrap().len() as u64, COMMITS);
    commit(&*writer, put("a/end", 0)).await;
    let (_, gaps, map) = following.join_next().await.unwrap().unwrap();
    let (commits, steady_gaps, steady_map) = steady.join_next().await.unwrap().unwrap();
    assert!(cuts >= 10 && gaps >= 1, "{cuts} cuts, {gaps} gaps");
    assert_eq!(map.len() as u64, WRITERS * 50);
    assert_eq!(map, steady_map);
    // With the one that marks the end.
    assert_eq!(
        (commits, steady_gaps),
        (COMMITS + 1, 0),
        "who is not cut off sees everything"
    );
}
