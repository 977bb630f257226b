//! `kill -9` of the server under load, again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use skyloom_store::{ErrorKind, Outcome, Revision, Txn, WatchEvent, WatchOptions};
use skyloom_store_sql::Engine;
use tokio::task::JoinSet;

use crate::servers::Handle;
use crate::support::{LIMIT, all, commits_until, json, key, own_server, prefix, put, until};

const ROUNDS: u64 = 40;
const WRITERS: u64 = 6;

/// What the writers were told.
#[derive(Default)]
struct Told {
    acknowledged: BTreeMap<String, Revision>,
    /// Keys of which they were told that nothing happened.
    refused: BTreeSet<String>,
    unknown: u64,
}

/// Writes new pairs of keys, for ever.
async fn write(
    store: Handle,
    name: String,
    told: Arc<Mutex<Told>>,
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) {
    let backend = store.backend();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let pair = [format!("left/{name}-{n}"), format!("right/{name}-{n}")];
        let txn = pair
            .iter()
            .fold(Txn::new(), |txn, path| {
                txn.create(key(path), json(&n.to_string()))
            })
            .put(key("shared"), json(&n.to_string()));
        let answer = backend.commit(txn).await;
        {
            let mut told = told.lock();
            match answer {
                Ok(Outcome::Committed { revision }) => {
                    told.acknowledged.extend(pair.map(|path| (path, revision)));
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(conflict) => panic!("a new key conflicts: {conflict:?}"),
                Err(e) if e.kind() == ErrorKind::Unknown => told.unknown += 1,
                Err(e) => {
                    assert!(
                        matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Overloaded),
                        "{e:?}"
                    );
                    told.refused.extend(pair);
                }
            }
        }
        n += 1;
        tokio::task::yield_now().await;
    }
}

/// Revisions, each with the keys that it changed.
type Log = Vec<(Revision, Vec<String>)>;

/// Follows everything, from wherever it was when the line broke.
async fn follow(store: Handle, seen: Arc<Mutex<Log>>) {
    loop {
        let last = seen.lock().last().map_or(Revision(0), |(revision, _)| *revision);
        let options = WatchOptions::after(last).with_buffer(100_000);
        let mut stream = store.backend().watch(&prefix(""), options);
        while let Some(item) = stream.next().await {
            match item {
                Ok(WatchEvent::Commit { revision, changes }) => {
                    let keys = changes.iter().map(|c| c.key().to_string()).collect();
                    seen.lock().push((revision, keys));
                }
                Ok(WatchEvent::Progress(_)) => {}
                Ok(WatchEvent::Gap { floor }) => panic!("a gap up to {floor}, but nothing was trimmed"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

pub(crate) async fn acknowledged_commits_survive_and_watchers_miss_nothing(engine: Engine) {
    rounds(engine, &[], ROUNDS).await;
    if engine == Engine::MySql {
        // With a binary log commits are durable before they are visible, by another path through the server.
        rounds(
            engine,
            &["log-bin=binlog", "server-id=1", "sync-binlog=1"],
            ROUNDS / 2,
        )
        .await;
    }
}

async fn rounds(engine: Engine, settings: &'static [&'static str], rounds: u64) {
    let server = own_server(engine, settings).await;
    let mut config = server.config();
    config.max_history = 1_000_000;
    config.max_wait_ms = 2_000;
    let stores = [
        Handle::create(config.clone()).await.unwrap(),
        Handle::create(config.clone()).await.unwrap(),
    ];
    let told = Arc::new(Mutex::new(Told::default()));
    let done = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    let mut watchers = JoinSet::new();
    let mut seen = Vec::new();
    for (s, store) in stores.iter().enumerate() {
        for w in 0..WRITERS {
            writers.spawn(write(
                store.clone(),
                format!("s{s}w{w}"),
                told.clone(),
                done.clone(),
                stop.clone(),
            ));
        }
        let list = Arc::new(Mutex::new(Vec::new()));
        seen.push(Arc::clone(&list));
        watchers.spawn(follow(store.clone(), list));
    }
    let mut chance: u64 = 7;
    for _ in 0..rounds {
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let enough = done.load(Ordering::Relaxed) + 20 + (chance >> 33) % 60;
        until("commits go on", async || done.load(Ordering::Relaxed) >= enough).await;
        let server = Arc::clone(&server);
        tokio::task::spawn_blocking(move || {
            server.kill().unwrap();
            server.run().unwrap();
        })
        .await
        .unwrap();
    }
    let enough = done.load(Ordering::Relaxed) + 20;
    until("commits go on", async || done.load(Ordering::Relaxed) >= enough).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }

    let backend = stores[0].backend();
    let end = put(&*backend, "end", "1").await;
    let found: BTreeMap<String, Revision> = all(&*backend, "", None, 1000)
        .await
        .unwrap()
        .into_iter()
        .map(|kv| (kv.key.to_string(), kv.modified))
        .collect();
    {
        let told = told.lock();
        assert!(told.acknowledged.len() as u64 > 40 * rounds);
        for (path, revision) in &told.acknowledged {
            assert_eq!(
                found.get(path),
                Some(revision),
                "{path} was acknowledged at {revision}"
            );
        }
        for path in &told.refused {
            assert_eq!(found.get(path), None, "{path} was refused");
        }
    }
    // The log has each pair at one revision, and both watchers saw exactly the log.
    let mut stream = backend.watch(&prefix(""), WatchOptions::after(Revision(0)));
    let log: Log = commits_until(&mut stream, end)
        .await
        .unwrap()
        .into_iter()
        .map(|(revision, changes)| (revision, changes.iter().map(|c| c.key().to_string()).collect()))
        .collect();
    for (revision, keys) in &log[..log.len() - 1] {
        let names: BTreeSet<&str> = keys
            .iter()
            .filter_map(|k| k.split_once('/'))
            .map(|(_, name)| name)
            .collect();
        assert!(
            keys.len() == 3 && names.len() == 1,
            "{revision} is not one whole commit: {keys:?}"
        );
    }
    for list in &seen {
        let wait = async {
            while list.lock().last().is_none_or(|(revision, _)| *revision < end) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, wait)
            .await
            .expect("a watcher stands still");
        assert_eq!(*list.lock(), log, "a watcher saw something else than the log");
    }
    watchers.abort_all();
    for store in &stores {
        store.close().await.unwrap();
    }
}
