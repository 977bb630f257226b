//! The writer: groups, bounds, and callers that go away.

use std::sync::Arc;

use futures::future::join_all;
use skyloom_store::{ErrorKind, Guard, Outcome, Revision, Store, Txn, Value};

use crate::support::{Place, all, committed, delete, json, key, put};

#[tokio::test]
async fn calls_that_wait_together_share_a_write_and_keep_their_own_answers() {
    let place = Place::new();
    let store = place.open().await;
    let base = put(&store, "counter", "0").await;
    let before = store.stats();
    // All are guarded by the same revision: the first wins, the others learn the winner's.
    let txn = || {
        Txn::new()
            .replace(key("counter"), base, json("1"))
            .put(key("other"), json("2"))
    };
    let answers = join_all((0..20).map(|_| store.commit(txn()))).await;
    let won: Vec<_> = answers
        .iter()
        .filter_map(|a| a.as_ref().unwrap().committed())
        .collect();
    assert_eq!(won, [Revision(base.0 + 1)]);
    let lost = answers.iter().filter(
        |a| matches!(a, Ok(Outcome::Conflict { guard: 0, current: Some(r) }) if *r == Revision(base.0 + 1)),
    );
    assert_eq!(lost.count(), 19);
    let after = store.stats();
    assert_eq!(
        (after.commits - before.commits, after.batches - before.batches),
        (1, 1)
    );
    // Puts without guards: each its own revision, in one write.
    let answers =
        join_all((0..20).map(|n| store.commit(Txn::new().put(key(&format!("k/{}", n % 7)), json("3")))))
            .await;
    let revisions: Vec<u64> = answers.into_iter().map(|a| committed(a).0).collect();
    assert_eq!(
        revisions,
        (after.revision.0 + 1..=after.revision.0 + 20).collect::<Vec<_>>()
    );
    assert_eq!(store.stats().batches - after.batches, 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn within_one_write_a_key_may_be_made_removed_and_made_again() {
    let place = Place::new();
    let store = place.open().await;
    let txns = [
        Txn::new().create(key("k"), json("1")),
        Txn::new()
            .guard(Guard::Revision(key("k"), Revision(1)))
            .delete(key("k")),
        Txn::new().create(key("k"), json("2")),
        Txn::new().replace(key("k"), Revision(3), json("3")),
        Txn::new().delete(key("absent")),
    ];
    let answers = join_all(txns.into_iter().map(|txn| store.commit(txn))).await;
    let revisions: Vec<u64> = answers.into_iter().map(|a| committed(a).0).collect();
    assert_eq!(revisions, [1, 2, 3, 4, 4]);
    assert_eq!(store.stats().batches, 1);
    let values = |at| {
        let store = &store;
        async move {
            all(store, "", Some(Revision(at)))
                .await
                .unwrap()
                .into_iter()
                .map(|kv| kv.value)
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(values(0).await, []);
    assert_eq!(values(1).await, [json("1")]);
    assert_eq!(values(2).await, []);
    assert_eq!(values(3).await, [json("2")]);
    let now = store.get(&key("k")).await.unwrap().unwrap();
    assert_eq!(
        (now.value, now.created, now.modified),
        (json("3"), Revision(3), Revision(4))
    );
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_is_not_json_is_refused() {
    let place = Place::new();
    let store = place.open().await;
    for bad in [
        &b""[..],
        b"{",
        b"1 2",
        b"nul",
        b"'a'",
        b"\"\xff\"",
        b"\"\x00\"",
        b"{\"a\":1,}",
        b"\xef\xbb\xbf1",
    ] {
        let txn = Txn::new().put(key("a"), Value::from_json_bytes(bad.to_vec()));
        let e = store.commit(txn).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Invalid, "{bad:?}");
        assert!(e.to_string().contains("key a"), "{e}");
    }
    assert_eq!(store.stats().revision, Revision(0));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_full_file_refuses_what_does_not_fit_and_goes_on() {
    let place = Place::new();
    let mut config = place.config();
    config.max_file_bytes = Some(400_000);
    let store = place.open_with(config).await;
    let large = format!("\"{}\"", "x".repeat(300_000));
    put(&store, "keep", "1").await;
    // Queued together with one that is too large, the small ones still happen.
    let txns = [
        ("a", "1"),
        ("big", large.as_str()),
        ("b", "2"),
        ("big2", large.as_str()),
    ];
    let answers = join_all(txns.map(|(k, v)| store.commit(Txn::new().put(key(k), json(v))))).await;
    let shown: Vec<_> = answers
        .iter()
        .map(|a| a.as_ref().map(|o| o.committed().unwrap().0).map_err(|e| e.kind()))
        .collect();
    assert_eq!(shown, [Ok(2), Err(ErrorKind::Full), Ok(3), Err(ErrorKind::Full)]);
    let kept: Vec<_> = all(&store, "", None)
        .await
        .unwrap()
        .into_iter()
        .map(|kv| kv.key.to_string())
        .collect();
    assert_eq!(kept, ["a", "b", "keep"]);
    assert_eq!(delete(&store, "keep").await, Revision(4));
    store.close().await.unwrap();
    let store = place.open().await;
    assert_eq!(store.stats().revision, Revision(4));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_full_queue_refuses_after_its_wait() {
    let place = Place::new();
    let mut config = place.config();
    config.max_queued_kib = 1;
    config.max_wait_ms = 100;
    let store = place.open_with(config).await;
    put(&store, "a", "1").await;
    // Room for one call, and that one is held up.
    let mut other = place.sql().await;
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    let answers =
        join_all((0..3).map(|n| store.commit(Txn::new().put(key(&format!("k/{n}")), json("1"))))).await;
    let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().unwrap_err().kind()).collect();
    assert!(kinds.contains(&ErrorKind::Overloaded), "{kinds:?}");
    assert!(kinds.contains(&ErrorKind::Unavailable), "{kinds:?}");
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    sqlx::Connection::close(other).await.unwrap();
    assert_eq!(put(&store, "a", "2").await, Revision(2));
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_go_away_break_nothing() {
    let place = Place::new();
    let store = Arc::new(place.open().await);
    for round in 0..200u64 {
        let k = key(&format!("k/{round}"));
        let mut call = Box::pin(store.commit(Txn::new().put(k.clone(), json("1"))));
        // Polled so that it is queued, perhaps already under way; then dropped.
        let _ = futures::poll!(&mut call);
        if round % 3 == 0 {
            tokio::task::yield_now().await;
        }
        drop(call);
        if round % 10 == 0 {
            put(&store, "stays", &round.to_string()).await;
        }
    }
    let last = put(&store, "stays", "-1").await;
    let documents = all(&*store, "", None).await.unwrap();
    assert_eq!(store.stats().revision, last);
    assert_eq!(store.stats().documents, documents.len() as u64);
    store.close().await.unwrap();
    let store = place.open().await;
    assert_eq!(all(&store, "", None).await.unwrap(), documents);
    store.close().await.unwrap();
}

#[tokio::test]
async fn closing_answers_what_is_in_the_queue() {
    let place = Place::new();
    let store = place.open().await;
    let mut calls: Vec<_> = (0..50)
        .map(|n| Box::pin(store.commit(Txn::new().put(key(&format!("k/{n}")), json("1")))))
        .collect();
    for call in &mut calls {
        assert!(futures::poll!(call).is_pending());
    }
    store.close().await.unwrap();
    let answers = join_all(calls).await;
    assert!(answers.iter().all(|a| matches!(a, Ok(Outcome::Committed { .. }))));
    let store = place.open().await;
    assert_eq!(all(&store, "k", None).await.unwrap().len(), 50);
    store.close().await.unwrap();
}

#[tokio::test]
async fn somebody_elses_lock_makes_calls_fail_and_no_more() {
    let place = Place::new();
    let mut config = place.config();
    config.max_wait_ms = 20;
    let store = place.open_with(config).await;
    put(&store, "a", "1").await;
    let mut other = place.sql().await;
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    let answers =
        join_all((0..5).map(|n| store.commit(Txn::new().put(key(&format!("k/{n}")), json("1"))))).await;
    assert!(
        answers
            .iter()
            .all(|a| a.as_ref().is_err_and(|e| e.kind() == ErrorKind::Unavailable)),
        "{answers:?}"
    );
    assert_eq!(
        store.get(&key("a")).await.unwrap().unwrap().value,
        json("1"),
        "reads go on"
    );
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(put(&store, "a", "2").await, Revision(2));
    sqlx::Connection::close(other).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_one_revision_whatever_is_flushed_meanwhile() {
    let place = Place::new();
    let mut config = place.config();
    config.allow_unsafe = true;
    let store = Arc::new(place.open_with(config).await);
    // Each commit moves the large document, whose size has everything flushed with it, and leaves a small one in memory.
    let large = format!("\"{}\"", "x".repeat(70_000));
    put(&store, "k/a", &large).await;
    let mut writer = tokio::task::JoinSet::new();
    let writes = Arc::clone(&store);
    writer.spawn(async move {
        for n in 0..100 {
            let (from, to) = if n % 2 == 0 {
                ("k/a", "k/z")
            } else {
                ("k/z", "k/a")
            };
            let txn = Txn::new().delete(key(from)).put(key(to), json(&large));
            committed(writes.commit(txn).await);
            put(&writes, "k/m", &n.to_string()).await;
        }
    });
    let mut lists = 0;
    let ended = loop {
        if let Some(ended) = writer.try_join_next() {
            break ended;
        }
        let page = store
            .list(&skyloom_store::Prefix::all(), Default::default())
            .await
            .unwrap();
        let moved = page.items.iter().filter(|kv| kv.key.as_str() != "k/m").count();
        assert_eq!(
            moved,
            1,
            "{:?}",
            page.items.iter().map(|kv| &kv.key).collect::<Vec<_>>()
        );
        let past = all(&*store, "", Some(page.revision)).await.unwrap();
        assert_eq!(past, page.items, "at {}", page.revision);
        lists += 1;
    };
    ended.unwrap();
    assert!(lists > 0);
    store.close().await.unwrap();
    assert_eq!(place.sql_number("SELECT count(*) FROM documents").await, 2);
}

#[tokio::test]
async fn what_nobody_asks_about_is_written_over_by_itself() {
    let place = Place::new();
    let store = place.open().await;
    let revision = put(&store, "a", "1").await;
    // Bounded polling: the writer waits for calls before it does this.
    for _ in 0..200 {
        if place.sql_number("SELECT revision FROM state").await == i64::try_from(revision.0).unwrap() {
            assert_eq!(
                place
                    .sql_number("SELECT value ->> '$' FROM documents WHERE key = 'a'")
                    .await,
                1
            );
            store.close().await.unwrap();
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("never");
}
