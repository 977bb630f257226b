//! `kill -9` of the server under load: nothing acknowledged is lost, no event is missed or doubled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use skyloom_store::{Change, ErrorKind, Outcome, Revision, Store as _, Txn, WatchEvent};
use skyloom_store_etcd::EtcdStore;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::support::{Etcd, open};
use super::{item, json, key, revision, soon, until};

const ROUNDS: u64 = 40;
const WRITERS: u64 = 6;
/// Commits that each life of the server sees at least.
const EACH: u64 = 40;

/// What became of the attempts of all writers.
#[derive(Debug, Default)]
struct Fates {
    committed: BTreeMap<String, Revision>,
    unknown: BTreeSet<String>,
    refused: BTreeSet<String>,
}

/// Creates one document after the other under names of its own, until told to stop.
async fn write(
    store: Arc<EtcdStore>,
    writer: u64,
    done: watch::Sender<u64>,
    stop: watch::Receiver<bool>,
) -> Fates {
    let mut fates = Fates::default();
    let mut n = 0;
    while !*stop.borrow() {
        n += 1;
        let path = format!("w{writer}/{n:06}");
        let txn = Txn::new()
            .create(key(&path), json(n))
            .put(key(&format!("last/{writer}")), json(n));
        match store.commit(txn).await {
            Ok(Outcome::Committed { revision }) => {
                fates.committed.insert(path, revision);
                done.send_modify(|d| *d += 1);
            }
            Ok(conflict) => panic!("{path} cannot be there: {conflict:?}"),
            Err(e) => {
                match e.kind() {
                    ErrorKind::Unknown => fates.unknown.insert(path),
                    ErrorKind::Unavailable => fates.refused.insert(path),
                    other => panic!("{other:?}: {}", skyloom_model::report(&e)),
                };
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    fates
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_no_event_missed() {
    let mut server = Etcd::start(&[]).await;
    let store = Arc::new(open(server.config("c")).await.unwrap());
    let start = revision(&*store).await;
    let mut events = super::watch(&*store, "", start);
    let (stop, stopped) = watch::channel(false);
    let (done, mut progress) = watch::channel(0_u64);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(store.clone(), writer, done.clone(), stopped.clone()));
    }
    for round in 1..=ROUNDS {
        let wanted = *progress.borrow() + EACH;
        soon("commits", progress.wait_for(|d| *d >= wanted))
            .await
            .unwrap();
        server.kill();
        server.run();
        tracing::info!(round, "restarted");
    }
    let wanted = *progress.borrow() + EACH;
    soon("commits", progress.wait_for(|d| *d >= wanted))
        .await
        .unwrap();
    stop.send_replace(true);
    let mut fates = Fates::default();
    while let Some(of_one) = writers.join_next().await {
        let of_one = of_one.unwrap();
        fates.committed.extend(of_one.committed);
        fates.unknown.extend(of_one.unknown);
        fates.refused.extend(of_one.refused);
    }
    until("the end is written", async || {
        store.commit(Txn::new().put(key("end"), json(1))).await.is_ok()
    })
    .await;

    // The watch, which lived through all of it, has seen each commit once.
    let mut watched: BTreeMap<String, Revision> = BTreeMap::new();
    let mut last = start;
    'watch: loop {
        let Some(Ok(WatchEvent::Commit { revision, changes })) = item(&mut events).await else {
            panic!("the watch ended after {last}");
        };
        assert!(revision > last, "{revision} after {last}");
        last = revision;
        for change in changes {
            match change {
                Change::Put(kv) if kv.key.as_str() == "end" => break 'watch,
                Change::Put(kv) if kv.key.as_str().starts_with('w') => {
                    let twice = watched.insert(kv.key.to_string(), revision);
                    assert_eq!(twice, None, "{} came twice", kv.key);
                }
                _ => {}
            }
        }
    }
    for (path, revision) in &fates.committed {
        let there = store.get(&key(path)).await.unwrap();
        assert_eq!(
            there.map(|kv| kv.created),
            Some(*revision),
            "{path} was acknowledged"
        );
        assert_eq!(watched.remove(path), Some(*revision), "the watcher of {path}");
    }
    for path in &fates.refused {
        assert!(
            store.get(&key(path)).await.unwrap().is_none() && !watched.contains_key(path),
            "{path} was refused"
        );
    }
    for (path, revision) in watched {
        assert!(fates.unknown.contains(&path), "{path} at {revision} is nobody's");
    }
    assert!(fates.committed.len() as u64 >= ROUNDS * EACH);
    // More than one for each writer and kill cannot have been on its way.
    assert!(
        fates.unknown.len() as u64 <= ROUNDS * WRITERS,
        "{} unknown",
        fates.unknown.len()
    );
    assert!(!fates.unknown.is_empty(), "no kill hit a commit");
}
