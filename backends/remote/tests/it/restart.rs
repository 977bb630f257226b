//! The server goes and comes back: what was begun is finished, what was not is done elsewhere, and nobody is left to guess.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use skyloom_store::{ErrorKind, Outcome, Store as _};
use skyloom_store_remote::RemoteStore;
use tokio::task::JoinSet;

use crate::server::ApiServer;
use crate::{key, memory, put};

#[tokio::test]
async fn restarts_leave_no_call_unknown() {
    let backend = memory();
    let server = ApiServer::start(backend.clone()).await.unwrap();
    let (address, known) = (server.address, server.known.clone());
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for c in 0..8 {
        // Two clients, each with one connection.
        let config = server.config().with_reconnect_spread(Duration::from_millis(20));
        let store = RemoteStore::open(config).unwrap();
        for half in 0..2 {
            let (store, over) = (store.clone(), Arc::clone(&over));
            clients.spawn(async move {
                let (mut done, mut refused) = (Vec::new(), 0);
                for n in 0.. {
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                    let path = format!("c/{c}-{half}-{n}");
                    match store.commit(put(&path)).await {
                        Ok(Outcome::Committed { .. }) => done.push((path, true)),
                        Ok(conflict) => panic!("{conflict:?}"),
                        Err(e) => {
                            assert_eq!(e.kind(), ErrorKind::Unavailable, "{}", skyloom_model::report(&e));
                            refused += 1;
                            done.push((path, false));
                        }
                    }
                    tokio::task::yield_now().await;
                }
                (done, refused)
            });
        }
    }
    let mut server = server;
    for _ in 0..10 {
        let before = backend.commit(put("mark")).await.unwrap();
        let Outcome::Committed { revision } = before else {
            panic!()
        };
        server.stop().await;
        server = ApiServer::start_at(address, backend.clone(), None, Some(known.clone()))
            .await
            .unwrap();
        // On when the clients have found the new one.
        let mut events = skyloom_store::Watch::watch(
            &*backend,
            &skyloom_store::Prefix::parse("c").unwrap(),
            skyloom_store::WatchOptions::after(revision),
        );
        for _ in 0..50 {
            futures::StreamExt::next(&mut events).await.unwrap().unwrap();
        }
    }
    over.store(true, Ordering::SeqCst);
    let (mut acknowledged, mut refusals) = (0, 0);
    while let Some(client) = clients.join_next().await {
        let (done, refused) = client.unwrap();
        refusals += refused;
        for (path, committed) in done {
            acknowledged += usize::from(committed);
            let there = backend.get(&key(&path)).await.unwrap().is_some();
            assert_eq!(there, committed, "{path}: what is said is what is so");
        }
    }
    assert!(acknowledged > 500 && refusals > 0, "{acknowledged} {refusals}");
    server.stop().await;
}
