//! The server is killed under load, again and again: what was acknowledged is there afterwards, once, and in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use skyloom_store::{ErrorKind, Outcome, Revision, Store as _, Txn};
use skyloom_store_mongo::MongoStore;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::Server;
use crate::tools::{Events, all, json, key, open, patient, put, until};
use crate::trial;

const ROUNDS: usize = 40;
/// Commits of a round before the server is killed.
const LOAD: usize = 30;

pub(crate) fn trials(server: &Arc<Server>) -> Vec<Trial> {
    vec![trial(
        "crash::acknowledged_commits_survive_the_server",
        server,
        kills,
    )]
}

/// What a writer was told about one document.
#[derive(Debug, Clone, Copy)]
enum Told {
    Committed(Revision),
    Unknown,
}

/// Creates documents of its own until it is told to stop.
async fn write(
    store: Arc<MongoStore>,
    name: String,
    count: watch::Sender<usize>,
    stop: watch::Receiver<bool>,
) -> BTreeMap<String, Told> {
    let mut told = BTreeMap::new();
    for n in 0.. {
        if *stop.borrow() {
            break;
        }
        let path = format!("a/{name}-{n}");
        match store.commit(Txn::new().create(key(&path), json("1"))).await {
            Ok(Outcome::Committed { revision }) => {
                count.send_modify(|n| *n += 1);
                told.insert(path, Told::Committed(revision));
            }
            Ok(conflict @ Outcome::Conflict { .. }) => panic!("{path} was done twice: {conflict:?}"),
            Err(e) if e.kind() == ErrorKind::Unknown => {
                told.insert(path, Told::Unknown);
            }
            Err(e) => assert!(e.may_pass(), "{path}: {e:?}"),
        }
    }
    told
}

async fn kills(_: Arc<Server>) {
    let mut server = Server::start(&["--sync-on-commit"]);
    let mut config = patient(&server);
    config.call_ms = 3_000;
    config.connect_ms = 1_000;
    let stores = [open(&config).await, open(&config).await];
    let mut events = Events::after(&stores[0], "a", Revision(0));
    let mut told = BTreeMap::new();
    for round in 0..ROUNDS {
        let (count, mut counted) = watch::channel(0);
        let (stop, stopped) = watch::channel(false);
        let mut writers = JoinSet::new();
        for (s, store) in stores.iter().enumerate() {
            for task in 0..4 {
                let name = format!("{round}-{s}-{task}");
                writers.spawn(write(Arc::clone(store), name, count.clone(), stopped.clone()));
            }
        }
        let loaded = counted.wait_for(|n| *n >= LOAD);
        tokio::time::timeout(Duration::from_secs(60), loaded)
            .await
            .expect("the writers come on")
            .unwrap();
        server.kill();
        stop.send_replace(true);
        server.restart();
        told.extend(writers.join_all().await.into_iter().flatten());
    }
    let last = until(async || {
        stores[1]
            .commit(Txn::new().put(key("a/last"), json("1")))
            .await
            .ok()
    })
    .await;
    let last = last.committed().unwrap();
    put(&stores[0], "b/after", "1").await;
    let found: BTreeMap<String, Revision> = all(&*stores[0], "a", None, 500)
        .await
        .unwrap()
        .into_iter()
        .map(|kv| (kv.key.to_string(), kv.created))
        .collect();
    let mut acknowledged = 0;
    for (path, told) in &told {
        if let Told::Committed(revision) = told {
            acknowledged += 1;
            assert_eq!(found.get(path), Some(revision), "{path} was acknowledged");
        }
    }
    assert!(acknowledged >= ROUNDS * LOAD, "{acknowledged} commits");
    let strangers: Vec<_> = found
        .keys()
        .filter(|path| !told.contains_key(*path) && *path != "a/last")
        .collect();
    assert!(strangers.is_empty(), "refused, but there: {strangers:?}");
    // The watcher lived through all of it.
    let mut next = Revision(0);
    while next < last {
        let (revision, changes) = events.commit().await;
        assert_eq!(revision.0, next.0 + 1, "a gap in the watch");
        assert_eq!(found.get(changes[0].key().as_str()), Some(&revision));
        next = revision;
    }
    for store in stores {
        store.close().await;
    }
}
