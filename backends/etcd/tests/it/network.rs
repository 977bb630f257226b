//! Servers that are not there, do not answer, or whose answers get lost.

use rustix::process::Signal;
use skyloom_store::{ErrorKind, Guard, Store as _, Txn};
use skyloom_store_etcd::EtcdConfig;

use super::proxy::{Proxy, Wire};
use super::support::{Etcd, free_port, open};
use super::{commit, key, kind, put, revision, seen, soon, story, until, watch};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there() {
    let port = free_port();
    let error = open(EtcdConfig::new([format!("127.0.0.1:{port}")])).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = skyloom_model::report(&error);
    for part in [
        "open etcd store",
        &format!("http://127.0.0.1:{port}"),
        "is etcd running there?",
        "refused",
    ] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn something_else_on_the_port() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = EtcdConfig::new([listener.local_addr().unwrap().to_string()]);
    (config.connect_timeout_ms, config.request_timeout_ms) = (200, 200);
    // It takes connections and says nothing.
    let error = soon("an error", open(config)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = skyloom_model::report(&error);
    assert!(text.contains("does not answer as etcd does"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_member_serves_when_the_first_is_away() {
    let server = Etcd::start(&[]).await;
    let endpoints = [format!("127.0.0.1:{}", free_port()), server.endpoint()];
    let store = open(EtcdConfig::new(endpoints)).await.unwrap();
    commit(&store, put("a", 1)).await;
    assert!(store.get(&key("a")).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_nothing_is_unknown_for_long() {
    let mut server = Etcd::start(&[]).await;
    let store = open(server.config("c")).await.unwrap();
    commit(&store, put("a", 1)).await;
    server.kill();
    // The first may still have gone out on a wire that was dead already.
    let first = kind(store.commit(put("b", 1)).await);
    assert!(
        [ErrorKind::Unknown, ErrorKind::Unavailable].contains(&first),
        "{first:?}"
    );
    for n in 0..5 {
        assert_eq!(
            kind(store.commit(put("b", n)).await),
            ErrorKind::Unavailable,
            "nothing can have happened"
        );
        assert_eq!(kind(store.get(&key("a")).await), ErrorKind::Unavailable);
    }
    server.run();
    until("commits go on", async || store.commit(put("c", 1)).await.is_ok()).await;
    assert!(store.get(&key("a")).await.unwrap().is_some());
    assert!(store.get(&key("b")).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still_ends_no_call_late() {
    let server = Etcd::start(&[]).await;
    let mut config = server.config("c");
    (config.connect_timeout_ms, config.request_timeout_ms) = (500, 500);
    let store = open(config.clone()).await.unwrap();
    let after = commit(&store, put("a", 1)).await;
    let mut events = watch(&store, "", after);

    server.signal(Signal::STOP);
    let work = async {
        assert_eq!(
            kind(store.commit(put("b", 1)).await),
            ErrorKind::Unknown,
            "it may have been sent"
        );
        assert!(matches!(
            kind(store.get(&key("a")).await),
            ErrorKind::Timeout | ErrorKind::Unavailable
        ));
        // Its connection was given up, and a new one does not answer: nothing is sent any more.
        assert_eq!(kind(store.commit(put("c", 1)).await), ErrorKind::Unavailable);
        let guards = Txn::new().guard(Guard::Absent(key("x")));
        assert_ne!(
            kind(store.commit(guards).await),
            ErrorKind::Unknown,
            "it writes nothing"
        );
        assert_eq!(kind(open(config).await), ErrorKind::Unavailable);
    };
    soon("calls to a server that stands still", work).await;

    server.signal(Signal::CONT);
    until("commits go on", async || store.commit(put("d", 1)).await.is_ok()).await;
    assert!(store.get(&key("c")).await.unwrap().is_none());
    let (mut last, mut keys) = (after, Vec::new());
    while keys.last().is_none_or(|k| k != "d") {
        let (revision, changed) = seen(&mut events).await;
        assert!(revision > last, "{revision} after {last}");
        last = revision;
        keys.extend(changed);
    }
    // The unknown one either happened or not, but once.
    keys.dedup();
    assert!(keys == ["d"] || keys == ["b", "d"], "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_unknown_and_happened() {
    let server = Etcd::start(&[]).await;
    let proxy = Proxy::to(server.port).await;
    let mut config = EtcdConfig::new([format!("127.0.0.1:{}", proxy.port)]).with_prefix("c");
    config.request_timeout_ms = 1_000;
    let store = open(config).await.unwrap();
    let direct = open(server.config("c")).await.unwrap();
    let start = revision(&direct).await;
    let mut here = watch(&store, "", start);
    for n in 0..5 {
        let path = format!("lost/{n}");
        commit(&store, put(&format!("good/{n}"), n)).await;
        proxy.set(Wire::Deaf);
        assert_eq!(kind(store.commit(put(&path, n)).await), ErrorKind::Unknown);
        until("the server did it", async || {
            direct.get(&key(&path)).await.unwrap().is_some()
        })
        .await;
        proxy.set(Wire::Whole);
        until("the way is free", async || store.get(&key(&path)).await.is_ok()).await;
    }
    // The watch of the same handle went through the same wire; it has lost nothing.
    let mut keys = Vec::new();
    while keys.len() < 10 {
        keys.extend(seen(&mut here).await.1);
    }
    let wanted: Vec<String> = (0..5)
        .flat_map(|n| [format!("good/{n}"), format!("lost/{n}")])
        .collect();
    assert_eq!(keys, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_wire_is_unavailable_and_watches_wait() {
    let server = Etcd::start(&[]).await;
    let proxy = Proxy::to(server.port).await;
    let config = EtcdConfig::new([format!("127.0.0.1:{}", proxy.port)]).with_prefix("c");
    let store = open(config).await.unwrap();
    let direct = open(server.config("c")).await.unwrap();
    let mut events = watch(&store, "a", revision(&direct).await);
    for n in 0..5 {
        proxy.set(Wire::Cut);
        until(
            "the cut is noticed",
            async || matches!(store.get(&key("x")).await, Err(e) if e.kind() == ErrorKind::Unavailable),
        )
        .await;
        assert_eq!(kind(store.commit(put("x", 1)).await), ErrorKind::Unavailable);
        let revision = commit(&direct, put("a/1", n)).await;
        proxy.set(Wire::Whole);
        assert_eq!(seen(&mut events).await, (revision, vec!["a/1".to_owned()]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_store_says_so() {
    let server = Etcd::start(&[]).await;
    let store = open(server.config("c")).await.unwrap();
    let mut events = watch(&store, "", revision(&store).await);
    store.close().await.unwrap();
    assert!(story(store.get(&key("a")).await).contains("closed"));
    assert_eq!(kind(store.commit(put("a", 1)).await), ErrorKind::Unavailable);
    let end = super::item(&mut events).await.unwrap();
    assert_eq!(kind(end), ErrorKind::Unavailable);
    assert!(super::item(&mut events).await.is_none());
    assert!(format!("{store:?}").contains(&server.endpoint()));
    assert!(store.capability().durable);
    let about = store.about();
    assert!(
        about.server.starts_with("etcd 3.") && about.risks.is_empty(),
        "{about:?}"
    );
    assert!(about.durability.contains_key("members"), "{about:?}");
}
