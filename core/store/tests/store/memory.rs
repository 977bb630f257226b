//! Settings and corners of the memory store.

use futures::{FutureExt as _, StreamExt as _};
use skyloom_store::{
    Capability, ErrorKind, ListOptions, MemoryConfig, Outcome, Revision, Store as _, Txn, Watch as _,
    WatchEvent, WatchOptions,
};

use crate::{delete, json, key, memory, memory_with, prefix, put};

fn now<T>(next: impl Future<Output = T>) -> Option<T> {
    next.now_or_never()
}

#[tokio::test]
async fn history_is_bounded_and_what_fell_out_is_a_gap() {
    let store = memory_with(MemoryConfig::default().with_history(10));
    for n in 0..25 {
        put(&*store, "a", n).await;
    }
    let all = prefix("");
    let at = |r| ListOptions::default().with_at(Revision(r));
    assert_eq!(
        store.list(&all, at(14)).await.unwrap_err().kind(),
        ErrorKind::Compacted
    );
    assert_eq!(store.list(&all, at(15)).await.unwrap().items[0].value, json(14));
    let mut lost = store.watch(&all, WatchOptions::after(Revision(14)));
    assert_eq!(
        lost.next().await.unwrap().unwrap(),
        WatchEvent::Gap { floor: Revision(15) }
    );
    assert!(lost.next().await.is_none());
    let kept = store.watch(&all, WatchOptions::after(Revision(15)));
    let seen: Vec<_> = kept.take(10).map(|e| e.unwrap()).collect().await;
    assert!(matches!(
        seen.last(),
        Some(WatchEvent::Commit {
            revision: Revision(25),
            ..
        })
    ));
}

#[tokio::test]
async fn without_history_the_present_still_works() {
    let store = memory_with(MemoryConfig::default().with_history(0));
    let last = put(&*store, "a", 1).await;
    assert_eq!(
        store
            .list(&prefix(""), ListOptions::default().with_at(last))
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    let mut events = store.watch(&prefix(""), WatchOptions::after(last));
    let next = put(&*store, "a", 2).await;
    assert!(matches!(events.next().await, Some(Ok(WatchEvent::Commit { revision, .. })) if revision == next));
}

#[tokio::test]
async fn a_full_queue_is_emptied_and_then_a_gap() {
    let store = memory();
    let mut events = store.watch(&prefix("a"), WatchOptions::after(Revision(0)).with_buffer(3));
    for n in 0..10 {
        put(&*store, "a/1", n).await;
    }
    for wanted in 1..=3 {
        assert!(
            matches!(events.next().await, Some(Ok(WatchEvent::Commit { revision: Revision(r), .. })) if r == wanted)
        );
    }
    assert_eq!(
        events.next().await.unwrap().unwrap(),
        WatchEvent::Gap { floor: Revision(0) }
    );
    assert!(events.next().await.is_none());
    assert!(events.next().await.is_none(), "a finished stream stays finished");
}

#[tokio::test]
async fn a_commit_with_many_keys_takes_one_place_in_the_queue() {
    let store = memory();
    let mut events = store.watch(&prefix("a"), WatchOptions::after(Revision(0)).with_buffer(1));
    let txn = (0..20).fold(Txn::new(), |t, n| t.put(key(&format!("a/{n}")), json(n)));
    store.commit(txn).await.unwrap();
    assert!(
        matches!(now(events.next()), Some(Some(Ok(WatchEvent::Commit { changes, .. }))) if changes.len() == 20)
    );
    assert!(now(events.next()).is_none(), "nothing more, and no gap");
}

#[tokio::test]
async fn the_end_of_the_store_ends_its_watches() {
    let store = memory();
    let mut events = store.watch(&prefix(""), WatchOptions::after(Revision(0)));
    put(&*store, "a", 1).await;
    drop(store);
    assert!(matches!(events.next().await, Some(Ok(WatchEvent::Commit { .. }))));
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn compacting_twice_or_into_the_future_is_harmless() {
    let store = memory();
    for n in 0..5 {
        put(&*store, "a", n).await;
    }
    store.compact(Revision(3));
    store.compact(Revision(1));
    let page = |r| {
        store
            .list(&prefix(""), ListOptions::default().with_at(Revision(r)))
            .now_or_never()
            .unwrap()
    };
    assert_eq!(page(2).unwrap_err().kind(), ErrorKind::Compacted);
    assert!(page(3).is_ok());
    store.compact(Revision(1000));
    assert_eq!(store.revision(), Revision(5));
    assert!(page(4).is_err());
    assert_eq!(put(&*store, "a", 9).await, Revision(6));
}

#[tokio::test]
async fn revisions_have_no_holes() {
    let store = memory();
    assert_eq!(put(&*store, "a", 1).await, Revision(1));
    assert_eq!(delete(&*store, "b").await, Revision(1));
    assert_eq!(
        store.commit(Txn::new()).await.unwrap(),
        Outcome::Committed {
            revision: Revision(1)
        }
    );
    assert_eq!(delete(&*store, "a").await, Revision(2));
}

#[tokio::test]
async fn limits_are_settings() {
    let capability = Capability::PORTABLE
        .with_max_txn_ops(2)
        .with_max_value_len(10)
        .with_durable(true);
    let store = memory_with(MemoryConfig::default().with_capability(capability));
    assert!(!store.capability().durable, "memory is never durable");
    let long = store
        .commit(Txn::new().put(key("a"), json("0123456789")))
        .await
        .unwrap_err();
    assert_eq!(long.kind(), ErrorKind::TooLarge);
    let many = Txn::new().delete(key("a")).delete(key("b")).delete(key("c"));
    assert_eq!(store.commit(many).await.unwrap_err().kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn a_waiting_watcher_is_woken() {
    let store = memory();
    let mut events = store.watch(&prefix("a"), WatchOptions::after(Revision(0)));
    let waits = events.next();
    tokio::pin!(waits);
    assert!(waits.as_mut().now_or_never().is_none());
    put(&*store, "b/1", 1).await;
    assert!(waits.as_mut().now_or_never().is_none());
    let (seen, revision) = tokio::join!(waits, put(&*store, "a/1", 1));
    assert!(matches!(seen, Some(Ok(WatchEvent::Commit { revision: r, .. })) if r == revision));
}
