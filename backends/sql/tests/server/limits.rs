//! Bounds: pages, disks, requests, queues, history; callers that go away and stores that close.

use futures::StreamExt as _;
use futures::future::join_all;
use skyloom_store::{ErrorKind, ListOptions, Outcome, Revision, Txn, WatchEvent, WatchOptions};
use skyloom_store_sql::Engine;

use crate::servers::Handle;
use crate::stall::Somebody;
use crate::support::{all, commits_until, json, key, prefix, put, put_txn, server, together, until};

fn text(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

pub(crate) async fn pages_end_before_they_are_too_large(engine: Engine) {
    let server = server(engine).await;
    let store = Handle::create(server.config()).await.unwrap();
    let backend = store.backend();
    let megabyte = text(1 << 20);
    for n in 0..20 {
        put(&*backend, &format!("k/{n:02}"), &megabyte).await;
    }
    let page = backend.list(&prefix("k"), ListOptions::default()).await.unwrap();
    assert!(
        page.more && page.items.len() < 12,
        "{} documents at once",
        page.items.len()
    );
    for at in [None, Some(Revision(20))] {
        let found = all(&*backend, "k", at, 1000).await.unwrap();
        assert_eq!(found.len(), 20);
        assert!(found.iter().all(|kv| kv.value.bytes().len() == 1 << 20));
    }
    let mut stream = backend.watch(&prefix("k"), WatchOptions::after(Revision(0)));
    assert_eq!(commits_until(&mut stream, Revision(20)).await.unwrap().len(), 20);
    store.close().await.unwrap();
}

pub(crate) async fn a_full_database_refuses_what_does_not_fit_and_goes_on(engine: Engine) {
    let server = server(engine).await;
    let config = server.config();
    let store = Handle::create(config.clone()).await.unwrap();
    let backend = store.backend();
    let p = &config.prefix;
    // The error that the server itself gives, where it would give it.
    match engine {
        Engine::Postgres => {
            let function = format!(
                "CREATE FUNCTION {p}_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                   IF NEW.key LIKE 'big%' THEN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END IF; \
                   RETURN NEW; END $$; \
                 CREATE TRIGGER full_disk BEFORE INSERT ON {p}_documents FOR EACH ROW EXECUTE FUNCTION {p}_full()"
            );
            server.execute(&function).await.unwrap();
        }
        _ => {
            let trigger = format!(
                "CREATE TRIGGER {p}_full BEFORE INSERT ON {p}_documents FOR EACH ROW \
                 IF NEW.`key` LIKE 'big%' THEN SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1114, \
                 MESSAGE_TEXT = 'The table is full'; END IF"
            );
            server.execute(&trigger).await.unwrap();
        }
    }
    // Queued together with one that does not fit, the others still happen.
    let paths = ["a", "big/1", "b", "big/2"];
    let txns = paths.map(|path| put_txn(path, "1")).into();
    let answers = together(&config, &server, &store, txns).await;
    let shown: Vec<_> = answers
        .iter()
        .map(|a| a.as_ref().map(|_| ()).map_err(|e| e.kind()))
        .collect();
    assert_eq!(
        shown,
        [Ok(()), Err(ErrorKind::Full), Ok(()), Err(ErrorKind::Full)]
    );
    let kept = all(&*backend, "", None, 10).await.unwrap();
    assert_eq!(
        kept.iter().map(|kv| kv.key.as_str()).collect::<Vec<_>>(),
        ["a", "b"]
    );
    backend.commit(Txn::new().delete(key("a"))).await.unwrap();
    store.close().await.unwrap();
}

pub(crate) async fn what_the_server_cannot_take_is_refused(engine: Engine) {
    let server = server(engine).await;
    let config = server.config();
    let store = Handle::create(config.clone()).await.unwrap();
    let backend = store.backend();
    match engine {
        // Nested deeper than the server's parser can follow.
        Engine::Postgres => {
            let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
            let answers = join_all(
                [put_txn("a", "1"), put_txn("deep", &deep), put_txn("b", "1")].map(|t| backend.commit(t)),
            )
            .await;
            let shown: Vec<_> = answers
                .iter()
                .map(|a| a.as_ref().map(|_| ()).map_err(|e| e.kind()))
                .collect();
            assert_eq!(shown, [Ok(()), Err(ErrorKind::TooLarge), Ok(())]);
        }
        // More than one packet may hold.
        _ => {
            let megabyte = text(1 << 20);
            let many = (0..20).fold(Txn::new(), |txn, n| {
                txn.put(key(&format!("k/{n}")), json(&megabyte))
            });
            let e = backend.commit(many).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::TooLarge, "{e:?}");
            let some = (0..10).fold(Txn::new(), |txn, n| {
                txn.put(key(&format!("k/{n}")), json(&megabyte))
            });
            backend.commit(some).await.unwrap();
        }
    }
    put(&*backend, "c", "1").await;
    assert_eq!(store.stats().lost, 0);
    store.close().await.unwrap();
}

pub(crate) async fn a_full_queue_refuses_after_its_wait(engine: Engine) {
    let server = server(engine).await;
    let mut config = server.config();
    config.max_queued_kib = 1;
    config.max_wait_ms = 1_000;
    let store = Handle::create(config.clone()).await.unwrap();
    // Room for one call, and that one is held up.
    let hold = Somebody::hold(engine, &server, &config.prefix).await;
    let backend = store.backend();
    let answers = join_all((0..3).map(|n| backend.commit(put_txn(&format!("k/{n}"), "1")))).await;
    let mut kinds: Vec<_> = answers.iter().map(|a| a.as_ref().unwrap_err().kind()).collect();
    kinds.sort_by_key(|k| format!("{k:?}"));
    assert!(kinds.contains(&ErrorKind::Overloaded), "{kinds:?}");
    assert!(kinds.contains(&ErrorKind::Unavailable), "{kinds:?}");
    hold.end().await;
    put(&*backend, "a", "2").await;
    store.close().await.unwrap();
}

pub(crate) async fn history_is_trimmed(engine: Engine) {
    let server = server(engine).await;
    let mut config = server.config();
    config.max_history = 50;
    let store = Handle::create(config.clone()).await.unwrap();
    let other = Handle::open(config.clone()).await.unwrap();
    let backend = store.backend();
    for n in 0..300 {
        put(&*backend, "k/0", &n.to_string()).await;
    }
    for handle in [&store, &other] {
        until("the floor is raised", async || {
            handle.stats().floor >= Revision(240)
        })
        .await;
        let floor = handle.stats().floor;
        assert!(
            floor <= Revision(250),
            "{floor}: more is kept than asked for, not less"
        );
        let mut old = handle
            .backend()
            .watch(&prefix("k"), WatchOptions::after(Revision(floor.0 - 1)));
        assert!(matches!(old.next().await, Some(Ok(WatchEvent::Gap { .. }))));
        let mut young = handle.backend().watch(&prefix("k"), WatchOptions::after(floor));
        let seen = commits_until(&mut young, Revision(300)).await.unwrap();
        assert_eq!(seen.len() as u64, 300 - floor.0);
        let past = handle
            .backend()
            .list(
                &prefix("k"),
                ListOptions::default().with_at(Revision(floor.0 - 1)),
            )
            .await;
        assert_eq!(past.unwrap_err().kind(), ErrorKind::Compacted);
        let past = handle
            .backend()
            .list(&prefix("k"), ListOptions::default().with_at(floor))
            .await
            .unwrap();
        assert_eq!(past.items[0].value, json(&(floor.0 - 1).to_string()));
    }
    let rows = format!("SELECT COUNT(*) FROM {}_history", config.prefix);
    until("old rows are deleted", async || {
        server.number(&rows).await.unwrap() <= 60
    })
    .await;
    // Everything forgotten: the revision is remembered.
    store.compact(Revision(1_000)).await.unwrap();
    until("all rows are deleted", async || {
        server.number(&rows).await.unwrap() == 0
    })
    .await;
    assert_eq!(
        backend
            .list(&prefix(""), ListOptions::default())
            .await
            .unwrap()
            .revision,
        Revision(300)
    );
    assert_eq!(put(&*backend, "k/0", "-1").await, Revision(301));
    store.close().await.unwrap();
    other.close().await.unwrap();
}

pub(crate) async fn callers_that_go_away_break_nothing(engine: Engine) {
    let server = server(engine).await;
    let store = Handle::create(server.config()).await.unwrap();
    let backend = store.backend();
    for round in 0..200u64 {
        let mut call = backend.commit(put_txn(&format!("k/{round}"), "1"));
        // Polled so that it is queued, perhaps already under way; then dropped.
        let _ = futures::poll!(&mut call);
        if round % 3 == 0 {
            tokio::task::yield_now().await;
        }
        drop(call);
        if round % 10 == 0 {
            put(&*backend, "stays", &round.to_string()).await;
        }
    }
    let last = put(&*backend, "stays", "-1").await;
    // What was read stays so, and the log says the same.
    let documents = all(&*backend, "", None, 1000).await.unwrap();
    let mut stream = backend.watch(&prefix(""), WatchOptions::after(Revision(0)));
    let seen = commits_until(&mut stream, last).await.unwrap();
    let mut keys: Vec<String> = seen
        .iter()
        .flat_map(|(_, c)| c)
        .map(|c| c.key().to_string())
        .collect();
    keys.sort();
    keys.dedup();
    assert_eq!(
        keys,
        documents.iter().map(|kv| kv.key.to_string()).collect::<Vec<_>>()
    );
    store.close().await.unwrap();
}

pub(crate) async fn closing_answers_what_is_in_the_queue(engine: Engine) {
    let server = server(engine).await;
    let store = Handle::create(server.config()).await.unwrap();
    let backend = store.backend();
    let mut stream = backend.watch(&prefix(""), WatchOptions::after(Revision(0)));
    let mut calls: Vec<_> = (0..50)
        .map(|n| backend.commit(put_txn(&format!("k/{n}"), "1")))
        .collect();
    for call in &mut calls {
        assert!(futures::poll!(call).is_pending());
    }
    store.close().await.unwrap();
    let answers = join_all(calls).await;
    assert!(
        answers.iter().all(|a| matches!(a, Ok(Outcome::Committed { .. }))),
        "{answers:?}"
    );
    // Afterwards everything is refused, and watches end.
    store.close().await.unwrap();
    assert_eq!(
        backend.commit(put_txn("late", "1")).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(
        backend.get(&key("k/1")).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    let end = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            other => break other,
        }
    };
    assert_eq!(end.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(stream.next().await.is_none());
}
