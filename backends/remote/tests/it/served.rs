//! Against a real API server: tokens, TLS, restarts, pages.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use skyloom_model::{ManualClock, Secret};
use skyloom_store::{
    Class, DynBackend, ErrorKind, ListOptions, MemoryConfig, MemoryStore, Mirror, Outcome, Prefix, Revision,
    Store as _, Txn, Value, Watch as _, WatchOptions,
};
use skyloom_store_remote::{RemoteConfig, RemoteStore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::server::{ApiServer, self_signed};
use crate::{key, memory, put};

#[tokio::test]
async fn a_wrong_token_is_denied() {
    let server = ApiServer::start(memory()).await.unwrap();
    let config = RemoteConfig::new(
        format!("http://{}", server.address),
        Secret::new("sky_wrong".to_owned()),
    );
    let error = RemoteStore::connect(config.clone()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (ErrorKind::Denied, Class::Permanent)
    );
    let mut watch = RemoteStore::open(config)
        .unwrap()
        .watch(&Prefix::all(), WatchOptions::after(Revision(0)));
    assert_eq!(watch.next().await.unwrap().unwrap_err().kind(), ErrorKind::Denied);
    server.stop().await;
}

#[tokio::test]
async fn a_mirror_lives_through_a_restart_of_the_server() {
    let backend = memory();
    let server = ApiServer::start(backend.clone()).await.unwrap();
    let (address, config) = (server.address, server.config());
    let store = Arc::new(RemoteStore::open(config).unwrap());
    let (mirror, driver) = Mirror::<u32>::new(store.clone(), Prefix::parse("n").unwrap());
    let shutdown = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(driver.run(shutdown.clone()));

    let Outcome::Committed { revision } = store.commit(put("n/1")).await.unwrap() else {
        panic!()
    };
    mirror.wait_for(revision).await.unwrap();
    assert_eq!(mirror.snapshot().len(), 1);
    let known = server.known.clone();
    server.stop().await;
    let Outcome::Committed { revision } = backend.commit(put("n/2")).await.unwrap() else {
        panic!()
    };
    let server = ApiServer::start_at(address, backend, None, Some(known))
        .await
        .unwrap();
    tokio::time::timeout(Duration::from_secs(60), mirror.wait_for(revision))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(mirror.snapshot().len(), 2);

    shutdown.cancel();
    while tasks.join_next().await.is_some() {}
    server.stop().await;
}

#[tokio::test]
async fn tls_believes_the_given_authority_only() {
    let (pem, tls) = self_signed();
    let server = ApiServer::start_at("127.0.0.1:0".parse().unwrap(), memory(), Some(tls), None)
        .await
        .unwrap();
    let token = Secret::new(server.known.token.clone());
    let url = format!("https://localhost:{}", server.address.port());

    let config = RemoteConfig::new(&url, token.clone()).with_ca_pem(pem.clone());
    let store = RemoteStore::connect(config).await.unwrap();
    assert!(matches!(
        store.commit(put("a")).await.unwrap(),
        Outcome::Committed { .. }
    ));

    for doubtful in [
        RemoteConfig::new(&url, token.clone()),
        RemoteConfig::new(format!("https://127.0.0.1:{}", server.address.port()), token).with_ca_pem(pem),
    ] {
        let error = RemoteStore::open(doubtful)
            .unwrap()
            .get(&key("a"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn pages_are_cut_by_bytes_and_go_on() {
    let backend: DynBackend = Arc::new(MemoryStore::new(
        Arc::new(ManualClock::new()),
        MemoryConfig::default(),
    ));
    let big = Value::json(&"x".repeat(900 << 10)).unwrap();
    for n in 10..30 {
        backend
            .commit(Txn::new().put(key(&format!("big/{n}")), big.clone()))
            .await
            .unwrap();
    }
    let server = ApiServer::start(backend).await.unwrap();
    let store = RemoteStore::open(server.config()).unwrap();
    let below = Prefix::parse("big").unwrap();
    let (mut seen, mut pages, mut options) = (Vec::new(), 0, ListOptions::default());
    loop {
        let page = store.list(&below, options).await.unwrap();
        pages += 1;
        seen.extend(page.items.iter().map(|kv| kv.key.to_string()));
        let Some(last) = page.items.last().filter(|_| page.more) else {
            break;
        };
        options = ListOptions::default()
            .with_after(last.key.clone())
            .with_at(page.revision);
    }
    assert_eq!(seen, (10..30).map(|n| format!("big/{n}")).collect::<Vec<_>>());
    assert!(pages > 1, "18 MiB in one page");
    server.stop().await;
}
