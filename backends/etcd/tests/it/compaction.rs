//! etcd forgets: for everybody at once, and wherever it stands.

use skyloom_store::{ErrorKind, ListOptions, Revision, Store as _, WatchEvent};
use skyloom_store_etcd::{EtcdConfig, EtcdStore};

use super::proxy::{Proxy, Wire};
use super::support::{Etcd, open};
use super::{below, commit, item, key, kind, put, revision, seen, until, watch};

/// Moves etcd's own revision without the store's.
async fn elsewhere(server: &Etcd, commits: u32) -> Revision {
    let other = open(server.config("other")).await.unwrap();
    let mut last = Revision(0);
    for n in 0..commits {
        last = commit(&other, put("x", n)).await;
    }
    last
}

async fn through(proxy: &Proxy) -> EtcdStore {
    let config = EtcdConfig::new([format!("127.0.0.1:{}", proxy.port)]).with_prefix("c");
    open(config).await.unwrap()
}

async fn cut(store: &EtcdStore, proxy: &Proxy) {
    proxy.set(Wire::Cut);
    until("the cut is noticed", async || store.get(&key("x")).await.is_err()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_store_outlives_compaction_beyond_its_last_commit() {
    let server = Etcd::start(&[]).await;
    let store = open(server.config("c")).await.unwrap();
    for n in 0..5 {
        commit(&store, put(&format!("a/{n}"), n)).await;
    }
    let quiet = revision(&store).await;
    let mut living = watch(&store, "a", quiet);
    let far = elsewhere(&server, 50).await;
    assert!(far > quiet);
    store.compact(far).await.unwrap();

    // As of its present, page by page, through this handle and a new one.
    let fresh = open(server.config("c")).await.unwrap();
    for store in [&store, &fresh] {
        let first = store
            .list(&below("a"), ListOptions::default().with_limit(3))
            .await
            .unwrap();
        assert_eq!((first.revision, first.more), (quiet, true));
        let rest = ListOptions::default()
            .with_at(quiet)
            .with_after(first.items[2].key.clone());
        assert_eq!(store.list(&below("a"), rest).await.unwrap().items.len(), 2);
        let before = ListOptions::default().with_at(Revision(quiet.0 - 1));
        assert_eq!(kind(store.list(&below("a"), before).await), ErrorKind::Compacted);
    }
    let mut late = watch(&store, "a", quiet);
    let mut new = watch(&fresh, "a", quiet);
    let next = commit(&store, put("a/next", 1)).await;
    for events in [&mut living, &mut late, &mut new] {
        assert_eq!(seen(events).await.0, next);
    }
    match item(&mut watch(&fresh, "a", Revision(quiet.0 - 1))).await {
        Some(Ok(WatchEvent::Gap { floor })) => assert!(floor >= quiet && floor <= next, "{floor}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_watch_of_a_quiet_store_goes_on_after_compaction() {
    let server = Etcd::start(&[]).await;
    let proxy = Proxy::to(server.port).await;
    let store = through(&proxy).await;
    let direct = open(server.config("c")).await.unwrap();
    let mut events = watch(&store, "", revision(&direct).await);
    let first = commit(&direct, put("a", 0)).await;
    assert_eq!(seen(&mut events).await.0, first);
    cut(&store, &proxy).await;
    let far = elsewhere(&server, 20).await;
    direct.compact(far).await.unwrap();
    proxy.set(Wire::Whole);
    until("the way is free", async || store.get(&key("a")).await.is_ok()).await;
    let next = commit(&direct, put("a", 1)).await;
    assert_eq!(
        seen(&mut events).await.0,
        next,
        "nothing was missed, so there is no gap"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_compacted_while_the_wire_was_cut_is_a_gap() {
    let server = Etcd::start(&[]).await;
    let proxy = Proxy::to(server.port).await;
    let store = through(&proxy).await;
    let direct = open(server.config("c")).await.unwrap();
    let start = commit(&direct, put("a", 0)).await;
    let mut events = watch(&store, "", start);
    let mut idle = watch(&store, "nothing/here", start);
    let first = commit(&direct, put("a", 1)).await;
    assert_eq!(seen(&mut events).await.0, first);
    cut(&store, &proxy).await;
    let mut last = first;
    for n in 0..5 {
        last = commit(&direct, put("a", n)).await;
    }
    direct.compact(last).await.unwrap();
    let end = commit(&direct, put("a", 6)).await;
    proxy.set(Wire::Whole);
    for events in [&mut events, &mut idle] {
        match item(events).await {
            Some(Ok(WatchEvent::Gap { floor })) => assert!(floor > first && floor <= end, "{floor}"),
            other => panic!("wanted a gap, got {other:?}"),
        }
        assert!(item(events).await.is_none());
    }
    // From there it goes on as always.
    let listed = revision(&store).await;
    assert_eq!(listed, end);
    let mut events = watch(&store, "", listed);
    let next = commit(&store, put("a", 7)).await;
    assert_eq!(seen(&mut events).await.0, next);
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_at_the_compacted_revision_are_not_lost() {
    let server = Etcd::start(&[]).await;
    let store = open(server.config("c")).await.unwrap();
    for n in 0..3 {
        commit(&store, put(&format!("a/{n}"), n)).await;
    }
    let before = revision(&store).await;
    let delete = skyloom_store::Txn::new().delete(key("a/1"));
    let deleted = commit(&store, delete.clone()).await;
    commit(&store, put("a/2", 9)).await;
    assert_eq!(revision(&store).await, Revision(deleted.0 + 1));
    store.compact(deleted).await.unwrap();
    // The delete itself cannot be told any more, and that is said; whoever has seen it goes on.
    let fresh = open(server.config("c")).await.unwrap();
    assert!(matches!(
        item(&mut watch(&fresh, "", before)).await,
        Some(Ok(WatchEvent::Gap { .. }))
    ));
    assert_eq!(seen(&mut watch(&fresh, "", deleted)).await.1, ["a/2"]);
}
