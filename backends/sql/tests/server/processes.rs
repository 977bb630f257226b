//! Several processes on one store, here as several handles, each with connections of its own.

use futures::future::join_all;
use skyloom_store::{Guard, Outcome, Revision, Txn, WatchOptions};
use skyloom_store_sql::Engine;
use tokio::task::JoinSet;

use crate::servers::Handle;
use crate::stall::Somebody;
use crate::support::{commits_until, committed, json, key, prefix, put, put_txn, server, together};

/// How a poll by a growing number misses what commits late: a table of the usual kind.
async fn naive_polling_misses(engine: Engine, table: &str) {
    let server = server(engine).await;
    let serial = match engine {
        Engine::Postgres => "bigserial",
        _ => "bigint auto_increment",
    };
    server
        .execute(&format!(
            "CREATE TABLE {table} (seq {serial} PRIMARY KEY, name varchar(9))"
        ))
        .await
        .unwrap();
    let early = format!("BEGIN; INSERT INTO {table} (name) VALUES ('early')");
    let early = Somebody::begin(engine, &server, &early).await;
    server
        .execute(&format!("INSERT INTO {table} (name) VALUES ('late')"))
        .await
        .unwrap();
    let last = server
        .number(&format!("SELECT MAX(seq) FROM {table}"))
        .await
        .unwrap();
    early.commit().await;
    let later = format!("SELECT COUNT(*) FROM {table} WHERE seq > {last}");
    assert_eq!(server.number(&later).await.unwrap(), 0, "the poller is done");
    let all = format!("SELECT COUNT(*) FROM {table}");
    assert_eq!(server.number(&all).await.unwrap(), 2, "and has seen one of two");
}

pub(crate) async fn every_process_sees_every_commit_once_and_in_order(engine: Engine) {
    const STORES: usize = 4;
    const WRITERS: usize = 4;
    const EACH: usize = 60;
    let server = server(engine).await;
    let config = server.config();
    naive_polling_misses(engine, &format!("{}_naive", config.prefix)).await;
    let mut stores = Vec::new();
    for _ in 0..STORES {
        stores.push(Handle::create(config.clone()).await.unwrap());
    }
    let last = Revision((STORES * WRITERS * EACH) as u64);
    let mut watchers = JoinSet::new();
    for store in &stores {
        let mut stream = store.backend().watch(
            &prefix("k"),
            WatchOptions::after(Revision(0)).with_buffer(100_000),
        );
        watchers.spawn(async move { commits_until(&mut stream, last).await });
    }
    let mut writers = JoinSet::new();
    for (s, store) in stores.iter().enumerate() {
        for w in 0..WRITERS {
            let backend = store.backend();
            writers.spawn(async move {
                for n in 0..EACH {
                    // One document of its own, and one that all write.
                    let txn = put_txn(&format!("k/{s}/{w}"), &n.to_string()).put(key("k/shared"), json("1"));
                    committed(backend.commit(txn).await);
                }
            });
        }
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let mut first = None;
    while let Some(seen) = watchers.join_next().await {
        let seen = seen.unwrap().expect("a gap");
        let revisions: Vec<u64> = seen.iter().map(|(revision, _)| revision.0).collect();
        assert_eq!(revisions, (1..=last.0).collect::<Vec<_>>());
        assert_eq!(
            first.get_or_insert_with(|| seen.clone()),
            &seen,
            "watchers differ"
        );
    }
    for store in stores {
        store.close().await.unwrap();
    }
}

pub(crate) async fn calls_that_wait_together_share_a_transaction(engine: Engine) {
    let server = server(engine).await;
    let config = server.config();
    let store = Handle::create(config.clone()).await.unwrap();
    let backend = store.backend();
    let base = put(&*backend, "counter", "0").await;
    let before = store.stats();
    // All are guarded by the same revision: the first wins, the others learn the winner's.
    let txn = || {
        Txn::new()
            .replace(key("counter"), base, json("1"))
            .put(key("other"), json("2"))
    };
    let txns = (0..20).map(|_| txn()).collect();
    let answers = together(&config, &server, &store, txns).await;
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
    // The other transaction is the one that was held up.
    assert_eq!(
        (after.commits - before.commits, after.batches - before.batches),
        (1, 2)
    );
    // Puts without guards: each its own revision, in one transaction.
    let txns = (0..20).map(|n| put_txn(&format!("k/{}", n % 7), "3")).collect();
    let answers = together(&config, &server, &store, txns).await;
    let mut revisions: Vec<u64> = answers.into_iter().map(|a| committed(a).0).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (base.0 + 2..=base.0 + 21).collect::<Vec<_>>());
    assert_eq!(store.stats().batches - after.batches, 2);
    // A chain within one transaction.
    let head = base.0 + 21;
    let txns = vec![
        Txn::new().create(key("c"), json("1")),
        Txn::new()
            .guard(Guard::Revision(key("c"), Revision(head + 1)))
            .delete(key("c")),
        Txn::new().create(key("c"), json("2")),
        Txn::new().replace(key("c"), Revision(head + 3), json("3")),
        Txn::new().delete(key("absent")),
    ];
    let before = store.stats().batches;
    let answers = together(&config, &server, &store, txns).await;
    let revisions: Vec<u64> = answers
        .into_iter()
        .take(4)
        .map(|a| committed(a).0 - head)
        .collect();
    assert_eq!(revisions, [1, 2, 3, 4]);
    assert_eq!(store.stats().batches - before, 2);
    let kv = backend.get(&key("c")).await.unwrap().unwrap();
    assert_eq!(
        (kv.created.0 - head, kv.modified.0 - head, kv.value),
        (3, 4, json("3"))
    );
    store.close().await.unwrap();
}

pub(crate) async fn a_withdrawn_leave_to_write_is_asked_for_again(engine: Engine) {
    let server = server(engine).await;
    let config = server.config();
    let store = Handle::create(config.clone()).await.unwrap();
    let backend = store.backend();
    put(&*backend, "a", "1").await;
    server
        .execute(&format!("DELETE FROM {}_writers", config.prefix))
        .await
        .unwrap();
    // Nobody notices.
    let answers = join_all((0..5).map(|n| backend.commit(put_txn(&format!("k/{n}"), "1")))).await;
    for answer in answers {
        committed(answer);
    }
    assert_eq!(store.stats().lost, 0);
    store.close().await.unwrap();
}

pub(crate) async fn what_was_wrong_with_one_call_does_not_spoil_the_others(engine: Engine) {
    let server = server(engine).await;
    let config = server.config();
    let store = Handle::create(config.clone()).await.unwrap();
    let backend = store.backend();
    // A constraint that somebody has added.
    let key_column = match engine {
        Engine::Postgres => "key",
        _ => "`key`",
    };
    let constraint = format!(
        "ALTER TABLE {p}_documents ADD CONSTRAINT {p}_no CHECK ({key_column} <> 'forbidden')",
        p = config.prefix
    );
    server.execute(&constraint).await.unwrap();
    let paths = ["a", "forbidden", "b"];
    let txns = paths.map(|path| put_txn(path, "1")).into();
    let answers = together(&config, &server, &store, txns).await;
    assert!(answers[1].is_err());
    let there = |path: &'static str| {
        let backend = backend.clone();
        async move { backend.get(&key(path)).await.unwrap().is_some() }
    };
    for (path, answer) in paths.iter().zip(&answers) {
        assert_eq!(there(path).await, answer.is_ok(), "{path}: {answer:?}");
    }
    put(&*backend, "c", "1").await;
    store.close().await.unwrap();
}
