//! How much of the past stays, and large commits.

use std::sync::Arc;

use libtest_mimic::Trial;
use mongodb::bson::doc;
use skyloom_store::{ErrorKind, ListOptions, Revision, Store as _, Txn, Value};
use tokio::task::JoinSet;

use crate::support::Server;
use crate::tools::{Events, Shell, all, committed, key, open, patient, prefix, put};
use crate::trial;

pub(crate) fn trials(server: &Arc<Server>) -> Vec<Trial> {
    vec![
        trial("history::is_kept_for_so_many_commits", server, commits),
        trial("history::is_kept_for_so_many_bytes", server, bytes),
        trial("history::a_large_commit_is_one_commit", server, large),
        trial("history::many_large_documents_go_at_once", server, removal),
        trial("history::an_unfinished_sweep_is_finished", server, unfinished),
    ]
}

/// `count` commits of `value` by many tasks at once.
async fn fill(store: &Arc<skyloom_store_mongo::MongoStore>, count: u64, value: &Value) -> Revision {
    let mut tasks = JoinSet::new();
    for task in 0..32 {
        let (store, value) = (Arc::clone(store), value.clone());
        tasks.spawn(async move {
            let mut last = Revision(0);
            for _ in 0..count / 32 {
                let txn = Txn::new().put(key(&format!("a/{task}")), value.clone());
                last = committed(store.commit(txn).await);
            }
            last
        });
    }
    tasks.join_all().await.into_iter().max().unwrap()
}

async fn commits(server: Arc<Server>) {
    let mut config = patient(&server);
    config.max_history = 100;
    let store = open(&config).await;
    let last = fill(&store, 1600, &Value::json(&1).unwrap()).await;
    assert_eq!(last, Revision(1600), "revisions are dense");
    let shell = Shell::on(&config).await;
    let head = shell.one("state", doc! { "_id": "head" }).await.unwrap();
    let floor = u64::try_from(head.get_i64("floor").unwrap()).unwrap();
    assert!(floor > 1000, "the history grows: floor {floor}");
    assert!(
        last.0 - floor >= 100,
        "more was forgotten than may be: floor {floor}"
    );
    assert_eq!(shell.count("log").await, last.0 - floor);
    assert!(
        shell.count("past").await <= last.0 - floor,
        "former versions stay for ever"
    );
    let told = Events::after(&store, "a", Revision(5)).gap().await;
    assert_eq!(told, Revision(floor));
    let at = |revision| ListOptions::default().with_at(Revision(revision));
    let e = store.list(&prefix("a"), at(floor - 1)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Compacted);
    assert_eq!(store.list(&prefix("a"), at(floor)).await.unwrap().items.len(), 32);
    let mut events = Events::after(&store, "", Revision(floor));
    for revision in floor + 1..=last.0 {
        assert_eq!(events.commit().await.0, Revision(revision));
    }
    store.close().await;
}

async fn bytes(server: Arc<Server>) {
    let mut config = patient(&server);
    config.max_history_bytes = 50_000;
    let store = open(&config).await;
    let last = fill(&store, 640, &Value::json(&"x".repeat(1000)).unwrap()).await;
    let shell = Shell::on(&config).await;
    let head = shell.one("state", doc! { "_id": "head" }).await.unwrap();
    let floor = u64::try_from(head.get_i64("floor").unwrap()).unwrap();
    assert!(floor > 200 && last.0 - floor >= 40, "floor {floor} of {last}");
    store.close().await;
}

async fn large(server: Arc<Server>) {
    let config = patient(&server);
    let store = open(&config).await;
    let text = Value::json(&"x".repeat(1 << 20).as_str()[..(1 << 20) - 2]).unwrap();
    let txn = (0..11).fold(Txn::new(), |txn, n| {
        txn.put(key(&format!("big/{n:02}")), text.clone())
    });
    let mut events = Events::after(&store, "", Revision(0));
    let revision = committed(store.commit(txn.clone()).await);
    let (seen, changes) = events.commit().await;
    assert_eq!((seen, changes.len()), (revision, 11));
    let items = all(&*store, "big", None, 100).await.unwrap();
    assert!(items.iter().all(|kv| kv.value == text && kv.modified == revision));
    assert_eq!(items.len(), 11, "a page that ends early is followed by another");
    let more = (11..13).fold(txn, |txn, n| txn.put(key(&format!("big/{n:02}")), text.clone()));
    let e = store.commit(more).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TooLarge);
    store.close().await;
}

async fn removal(server: Arc<Server>) {
    let config = patient(&server);
    let store = open(&config).await;
    let text = Value::json(&"x".repeat(1_000_000)).unwrap();
    let mut last = Revision(0);
    for n in 0..20 {
        last = committed(
            store
                .commit(Txn::new().put(key(&format!("big/{n:02}")), text.clone()))
                .await,
        );
    }
    let txn = (0..20).fold(Txn::new(), |txn, n| txn.delete(key(&format!("big/{n:02}"))));
    committed(store.commit(txn).await);
    assert!(all(&*store, "big", None, 100).await.unwrap().is_empty());
    let then = all(&*store, "big", Some(last), 100).await.unwrap();
    assert_eq!(then.len(), 20);
    assert!(then.iter().all(|kv| kv.value == text));
    store.close().await;
}

/// A process that died after it raised the floor has deleted nothing.
async fn unfinished(server: Arc<Server>) {
    let config = patient(&server);
    let store = open(&config).await;
    for n in 0..10 {
        put(&store, "a/1", &n.to_string()).await;
    }
    let shell = Shell::on(&config).await;
    shell
        .collection("state")
        .update_one(doc! { "_id": "head" }, doc! { "$set": { "floor": 6_i64 } })
        .await
        .unwrap();
    assert_eq!(Events::after(&store, "a", Revision(5)).gap().await, Revision(6));
    assert_eq!(
        Events::after(&store, "a", Revision(6)).commit().await.0,
        Revision(7)
    );
    store.compact(Revision(8)).await.unwrap();
    assert_eq!((shell.count("log").await, shell.count("past").await), (2, 2));
    store.compact(Revision(100)).await.unwrap();
    assert_eq!((shell.count("log").await, shell.count("past").await), (0, 0));
    let next = put(&store, "a/1", "10").await;
    assert_eq!(next, Revision(11));
    assert_eq!(
        Events::after(&store, "a", Revision(10)).commit().await.0,
        next,
        "after forgetting everything"
    );
    store.close().await;
}
