//! The connection is lost: before it is there, under a call, under a watch, without a word.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use skyloom_model::Secret;
use skyloom_store::{
    DynBackend, ErrorKind, Mirror, Outcome, Prefix, Revision, Store as _, Watch as _, WatchEvent,
    WatchOptions,
};
use skyloom_store_remote::{RemoteConfig, RemoteStore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::server::ApiServer;
use crate::wire::{State, Wire};
use crate::{key, memory, put};

async fn wired(backend: &DynBackend) -> (ApiServer, Wire, RemoteConfig) {
    let server = ApiServer::start(backend.clone()).await.unwrap();
    let wire = Wire::to(server.address).await;
    let token = Secret::new(server.known.token.clone());
    let config = RemoteConfig::new(format!("http://{}", wire.address), token)
        .with_reconnect_spread(Duration::from_millis(50));
    (server, wire, config)
}

/// Waits until the store behind has `path`.
async fn arrived(backend: &DynBackend, path: &str) {
    let mut watch = backend.watch(&Prefix::all(), WatchOptions::after(Revision(0)));
    while backend.get(&key(path)).await.unwrap().is_none() {
        watch.next().await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_call_under_which_the_connection_is_cut_is_unknown_and_the_next_goes_on() {
    let backend = memory();
    let (server, wire, config) = wired(&backend).await;
    let store = RemoteStore::open(config).unwrap();
    store.commit(put("a/0")).await.unwrap();
    wire.set(State::Deaf);
    let (lost, ()) = tokio::join!(store.commit(put("a/1")), async {
        arrived(&backend, "a/1").await;
        wire.set(State::Cut);
    });
    assert_eq!(lost.unwrap_err().kind(), ErrorKind::Unknown);
    wire.set(State::Whole);
    assert!(store.get(&key("a/1")).await.unwrap().is_some(), "it had happened");
    assert_eq!(wire.connections(), 2);
    server.stop().await;
}

#[tokio::test]
async fn a_dead_peer_is_found_by_pings_long_before_the_call_is_given_up() {
    let backend = memory();
    let (server, wire, config) = wired(&backend).await;
    let for_ever = Duration::from_secs(36_000);
    let config = config
        .with_ping(Duration::from_millis(100))
        .with_request_timeout(for_ever)
        .with_silence_timeout(for_ever);
    let store = RemoteStore::open(config).unwrap();
    store.commit(put("a/0")).await.unwrap();
    let mut watch = store.watch(&Prefix::all(), WatchOptions::after(Revision(0)));
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Commit { .. }))));
    wire.set(State::Dead);
    let lost = store.commit(put("a/1")).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Unknown);
    let broken = loop {
        if let Err(e) = watch.next().await.unwrap() {
            break e;
        }
    };
    assert_eq!(broken.kind(), ErrorKind::Unavailable);
    wire.set(State::Whole);
    store.commit(put("a/2")).await.unwrap();
    assert!(store.get(&key("a/1")).await.unwrap().is_none());
    server.stop().await;
}

#[tokio::test]
async fn where_no_connection_can_be_made_nothing_is_unknown_and_nothing_waits_in_a_row() {
    let backend = memory();
    let (server, wire, config) = wired(&backend).await;
    let store = RemoteStore::open(config).unwrap();
    store.commit(put("a/0")).await.unwrap();
    let mut watch = store.watch(&Prefix::all(), WatchOptions::after(Revision(0)));
    assert!(watch.next().await.unwrap().is_ok());
    server.stop().await;
    while !matches!(watch.next().await, Some(Err(_))) {}
    // The wire accepts and closes at once: not even a greeting comes.
    drop(wire);
    let calls = (0..50).map(|_| store.commit(put("a/1")));
    for answer in futures::future::join_all(calls).await {
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}

#[tokio::test]
async fn a_mirror_misses_nothing_through_many_cuts() {
    let backend = memory();
    let (server, wire, config) = wired(&backend).await;
    let store = Arc::new(RemoteStore::open(config).unwrap());
    let (mirror, driver) = Mirror::<u32>::builder(store, Prefix::parse("n").unwrap())
        .with_backoff(Duration::from_millis(1), Duration::from_millis(20))
        .build();
    let shutdown = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(driver.run(shutdown.clone()));
    let mut written = 0;
    for _ in 0..10 {
        let mut last = Revision(0);
        for n in 0..30 {
            if n == 10 {
                wire.set(State::Cut);
                tokio::task::yield_now().await;
                wire.set(State::Whole);
            }
            let done = backend.commit(put(&format!("n/{written}"))).await.unwrap();
            written += 1;
            if let Outcome::Committed { revision } = done {
                last = revision;
            }
        }
        let caught_up = tokio::time::timeout(Duration::from_secs(60), mirror.wait_for(last));
        caught_up.await.unwrap().unwrap();
        assert_eq!(mirror.snapshot().len(), written);
    }
    assert!(
        wire.connections() > 5,
        "the cuts were felt: {}",
        wire.connections()
    );
    shutdown.cancel();
    while tasks.join_next().await.is_some() {}
    server.stop().await;
}
