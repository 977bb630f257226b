//! Mirrors over backends that break the contract of watches: events twice, late, never.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use proptest::prelude::*;
use skyloom_store::{
    Backend, Change, Changed, ErrorKind, KeyValue, ListOptions, MIRROR_RESYNC, MemoryStore, Mirror, Result,
    Revision, Txn, Watch as _, WatchEvent, WatchOptions,
};

use crate::mirror::{Scripted, events, names, start};
use crate::{commit, delete, json, key, memory, prefix, put};

/// A commit that put `value` under `n/{name}`.
fn written(revision: u64, name: &str, value: u32) -> Result<WatchEvent> {
    let kv = KeyValue {
        key: key(&format!("n/{name}")),
        value: json(value),
        created: Revision(revision),
        modified: Revision(revision),
    };
    Ok(WatchEvent::Commit {
        revision: Revision(revision),
        changes: vec![Change::Put(kv)],
    })
}

fn removed(revision: u64, name: &str) -> Result<WatchEvent> {
    Ok(WatchEvent::Commit {
        revision: Revision(revision),
        changes: vec![Change::Delete(key(&format!("n/{name}")))],
    })
}

/// These events, and then silence.
fn then_nothing(of: Vec<Result<WatchEvent>>) -> BoxStream<'static, Result<WatchEvent>> {
    events(of).chain(stream::pending()).boxed()
}

/// A mirror that has listed a store with `n/1` (revision 1), with that stream after it.
async fn after_one(watch: Vec<Result<WatchEvent>>) -> (Arc<MemoryStore>, Arc<Scripted>) {
    let store = memory();
    put(&*store, "n/1", 1).await;
    let scripted = Scripted::new(&store, vec![], vec![then_nothing(watch)]);
    (store, scripted)
}

#[tokio::test(start_paused = true)]
async fn what_comes_twice_is_passed_over() {
    let (_, scripted) = after_one(vec![
        written(2, "2", 2),
        written(2, "2", 2),
        written(3, "1", 3),
        written(2, "2", 2),
        removed(4, "2"),
        removed(4, "2"),
        written(5, "5", 5),
        written(1, "1", 1),
    ])
    .await;
    let (mirror, driver) = Mirror::<u32>::new(scripted.clone(), prefix("n"));
    let _running = start(driver);
    mirror.wait_for(Revision(5)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(names(&mirror.under(&prefix("n"))), ["n/1", "n/5"]);
    assert_eq!(mirror.get(&key("n/1")).unwrap().value, 3);
    assert_eq!(scripted.asked(), ["list", "watch after 1"]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_late_is_looked_up() {
    for (write, late) in [(true, written(2, "2", 2)), (false, removed(2, "1"))] {
        let store = memory();
        put(&*store, "n/1", 1).await;
        let (send, receive) = futures::channel::mpsc::unbounded();
        let scripted = Scripted::new(&store, vec![], vec![receive.boxed()]);
        let (mirror, driver) = Mirror::<u32>::new(scripted.clone(), prefix("n"));
        let _running = start(driver);
        mirror.ready().await.unwrap();
        if write {
            put(&*store, "n/2", 2).await;
        } else {
            delete(&*store, "n/1").await;
        }
        put(&*store, "n/3", 3).await;
        send.unbounded_send(written(3, "3", 3)).unwrap();
        send.unbounded_send(late).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(held(&mirror), listed(&*store).await);
        assert_eq!(
            scripted.asked(),
            ["list", "watch after 1", "list", "watch after 3"]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_value_never_replaces_a_newer_one() {
    let (_, scripted) = after_one(vec![written(3, "1", 3), written(2, "1", 2)]).await;
    let (mirror, driver) = Mirror::<u32>::new(scripted.clone(), prefix("n"));
    let _running = start(driver);
    mirror.wait_for(Revision(3)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(mirror.get(&key("n/1")).unwrap().value, 3);
    assert_eq!(scripted.asked(), ["list", "watch after 1"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_is_found_by_the_listing_of_every_minute() {
    let (store, scripted) = after_one(vec![]).await;
    let (mirror, driver) = Mirror::<u32>::new(scripted.clone(), prefix("n"));
    let mut changes = mirror.changes();
    let _running = start(driver);
    assert_eq!(changes.next().await, Some(Changed::Everything));
    let before = mirror.get(&key("n/1")).unwrap();

    // Nothing is different: nobody is told, and the watch stays.
    tokio::time::sleep(MIRROR_RESYNC * 2 + Duration::from_secs(1)).await;
    assert_eq!(changes.next().now_or_never(), None);
    assert_eq!(scripted.asked(), ["list", "watch after 1", "list", "list"]);

    put(&*store, "n/2", 2).await;
    put(&*store, "n/3", "text").await;
    let found = ["n/2", "n/3"].map(key).to_vec();
    assert_eq!(changes.next().await, Some(Changed::Keys(found)));
    assert!(mirror.is_quarantined(&key("n/3")));
    assert!(
        Arc::ptr_eq(&before, &mirror.get(&key("n/1")).unwrap()),
        "what is the same is not read anew"
    );
    // A stream that loses events is not trusted any further: the next event comes at once, from another one.
    let last = delete(&*store, "n/2").await;
    mirror.wait_for(last).await.unwrap();
    assert_eq!(scripted.asked()[4..], ["list", "watch after 3"]);
}

#[tokio::test(start_paused = true)]
async fn watches_that_end_all_the_time_do_not_put_the_listing_off() {
    let store = memory();
    let watches = (0..100).map(|_| events(vec![])).collect();
    let scripted = Scripted::new(&store, vec![], watches);
    let (mirror, driver) = Mirror::<u32>::builder(scripted.clone(), prefix("n"))
        .with_backoff(Duration::from_secs(1), Duration::from_secs(1))
        .build();
    let _running = start(driver);
    mirror.ready().await.unwrap();
    tokio::time::sleep(MIRROR_RESYNC + Duration::from_secs(5)).await;
    let lists = scripted.asked().iter().filter(|a| *a == "list").count();
    assert_eq!(lists, 2);
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_fails_changes_nothing_and_is_tried_again() {
    let store = memory();
    put(&*store, "n/1", 1).await;
    let lists = vec![None, Some(ErrorKind::Unavailable)];
    let scripted = Scripted::new(&store, lists, vec![then_nothing(vec![])]);
    let (mirror, driver) = Mirror::<u32>::new(scripted.clone(), prefix("n"));
    let _running = start(driver);
    mirror.ready().await.unwrap();
    let last = put(&*store, "n/2", 2).await;
    tokio::time::sleep(MIRROR_RESYNC + Duration::from_secs(1)).await;
    assert!(mirror.last_error().unwrap().contains("unavailable"));
    assert_eq!(names(&mirror.under(&prefix("n"))), ["n/1"]);
    mirror.wait_for(last).await.unwrap();
    assert_eq!(names(&mirror.under(&prefix("n"))), ["n/1", "n/2"]);
}

/// What a mirror holds: key, value, revision.
fn held(mirror: &Mirror<u32>) -> Vec<(String, u32, u64)> {
    let all = mirror.snapshot();
    all.iter()
        .map(|d| (d.key.to_string(), d.value, d.modified.0))
        .collect()
}

/// What the store holds below `n`.
async fn listed(store: &dyn Backend) -> Vec<(String, u32, u64)> {
    let page = store.list(&prefix("n"), ListOptions::default()).await.unwrap();
    page.items
        .iter()
        .map(|kv| (kv.key.to_string(), kv.value.parse().unwrap(), kv.modified.0))
        .collect()
}

/// What happens to one event on its way.
#[derive(Debug, Clone, Copy)]
enum Way {
    Comes,
    Lost,
    Twice,
    /// After so many that were sent later.
    Late(usize),
    /// And once more after so many.
    Again(usize),
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![
        4 => Just(Way::Comes),
        1 => Just(Way::Lost),
        1 => Just(Way::Twice),
        1 => (1..5_usize).prop_map(Way::Late),
        1 => (1..5_usize).prop_map(Way::Again),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever becomes of the events, a key never goes back to an older revision, and a minute later all is in.
    #[test]
    fn a_mirror_comes_to_hold_what_the_store_holds(writes in proptest::collection::vec((0..6_u32, any::<bool>(), way()), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let store = memory();
            let (send, receive) = futures::channel::mpsc::unbounded();
            let scripted = Scripted::new(&store, vec![], vec![receive.boxed()]);
            let (mirror, driver) = Mirror::<u32>::new(scripted, prefix("n"));
            let _running = start(driver);
            mirror.ready().await.unwrap();
            for (n, (name, there, _)) in writes.iter().enumerate() {
                let key = key(&format!("n/{name}"));
                let txn = if *there { Txn::new().put(key, json(n)) } else { Txn::new().delete(key) };
                commit(&*store, txn).await;
            }
            // What a sound watch would deliver; some deletes found nothing and made no event.
            let sound = store.watch(&prefix("n"), WatchOptions::after(Revision(0)));
            let sound: Vec<WatchEvent> = sound.take(store.revision().0 as usize).map(|e| e.unwrap()).collect().await;
            let mut sent: Vec<(usize, WatchEvent)> = Vec::new();
            for (at, (event, (_, _, way))) in sound.into_iter().zip(&writes).enumerate() {
                let mut push = |after: usize| sent.push((at + after, event.clone()));
                match way {
                    Way::Comes => push(0),
                    Way::Lost => {}
                    Way::Twice => [0, 0].into_iter().for_each(&mut push),
                    Way::Late(by) => push(*by),
                    Way::Again(by) => [0, *by].into_iter().for_each(&mut push),
                }
            }
            sent.sort_by_key(|(at, _)| *at);
            let mut newest = std::collections::BTreeMap::new();
            for (_, event) in sent {
                // The mirror has left a stream that it does not trust.
                if send.unbounded_send(Ok(event)).is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
                for (key, _, modified) in held(&mirror) {
                    let before = newest.insert(key, modified);
                    prop_assert!(before <= Some(modified));
                }
            }
            tokio::time::sleep(MIRROR_RESYNC + Duration::from_secs(1)).await;
            prop_assert_eq!(held(&mirror), listed(&*store).await);
            Ok(())
        })?;
    }
}
