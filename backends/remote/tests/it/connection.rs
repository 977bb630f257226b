//! One connection carries everything, and nothing on it waits for anything else.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{join_all, try_join_all};
use skyloom_model::Secret;
use skyloom_store::{
    ErrorKind, Grant, LeaseMode, LeaseName, Leases as _, Mirror, Outcome, Prefix, Renewal, Revision,
    Store as _, Txn, Value, Watch as _, WatchEvent, WatchOptions,
};
use skyloom_store_remote::{RemoteConfig, RemoteStore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::server::{ApiServer, self_signed};
use crate::wire::Wire;
use crate::{key, memory, put};

const TTL: Duration = Duration::from_secs(600);

async fn granted(store: &RemoteStore, name: &LeaseName) -> u64 {
    match store.grant(name, "me", TTL, LeaseMode::Acquire).await.unwrap() {
        Grant::Granted { epoch, .. } => epoch,
        held => panic!("{held:?}"),
    }
}

/// Watches, leases, commits and lists at the same time, through one connection.
async fn everything_at_once(config: RemoteConfig, wire: &Wire) {
    let store = Arc::new(RemoteStore::open(config).unwrap());
    let shutdown = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let mut mirrors = Vec::new();
    for n in 0..20 {
        let prefix = Prefix::parse(&format!("n/{n}")).unwrap();
        let (mirror, driver) = Mirror::<u32>::new(store.clone(), prefix);
        tasks.spawn(driver.run(shutdown.clone()));
        mirrors.push(mirror);
    }
    let work = (0..20).map(|n| {
        let (store, mirror) = (&store, &mirrors[n]);
        async move {
            let lease = LeaseName::parse(&format!("l/{n}")).unwrap();
            let epoch = granted(store, &lease).await;
            let mut last = Revision(0);
            for m in 0..10 {
                if let Outcome::Committed { revision } =
                    store.commit(put(&format!("n/{n}/{m}"))).await.unwrap()
                {
                    last = revision;
                }
                assert_eq!(store.renew(&lease, epoch, TTL).await.unwrap(), Renewal::Held);
            }
            mirror.wait_for(last).await.unwrap();
            assert_eq!(mirror.snapshot().len(), 10);
        }
    });
    join_all(work).await;
    assert_eq!(wire.connections(), 1);
    shutdown.cancel();
    while tasks.join_next().await.is_some() {}
}

#[tokio::test]
async fn all_of_a_client_goes_over_one_connection() {
    let server = ApiServer::start(memory()).await.unwrap();
    let wire = Wire::to(server.address).await;
    let token = Secret::new(server.known.token.clone());
    let config = RemoteConfig::new(format!("http://{}", wire.address), token);
    everything_at_once(config, &wire).await;
    server.stop().await;
}

#[tokio::test]
async fn all_of_a_client_goes_over_one_connection_with_tls() {
    let (pem, tls) = self_signed();
    let any = "127.0.0.1:0".parse().unwrap();
    let server = ApiServer::start_at(any, memory(), Some(tls), None).await.unwrap();
    let wire = Wire::to(server.address).await;
    let token = Secret::new(server.known.token.clone());
    let url = format!("https://localhost:{}", wire.address.port());
    everything_at_once(RemoteConfig::new(url, token).with_ca_pem(pem), &wire).await;
    server.stop().await;
}

#[tokio::test]
async fn watches_that_nobody_reads_delay_no_renewal() {
    let backend = memory();
    let server = ApiServer::start(backend.clone()).await.unwrap();
    let store = RemoteStore::open(server.config()).unwrap();
    let lease = LeaseName::parse("l/1").unwrap();
    let epoch = granted(&store, &lease).await;
    let first = backend.commit(put("w/first")).await.unwrap();
    let Outcome::Committed { revision } = first else {
        panic!()
    };

    // As many as may be: each gets its first event, so that it is open, and is not looked at again.
    let all = Prefix::parse("w").unwrap();
    let open = (0..128).map(|_| async {
        let mut watch = store.watch(&all, WatchOptions::after(Revision(revision.0 - 1)));
        assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Commit { .. }))));
        watch
    });
    let unread = join_all(open).await;
    let big = Value::json(&"x".repeat(900 << 10)).unwrap();
    for n in 0..20 {
        let txn = Txn::new().put(key(&format!("w/{n}")), big.clone());
        backend.commit(txn).await.unwrap();
    }
    for _ in 0..20 {
        assert_eq!(store.renew(&lease, epoch, TTL).await.unwrap(), Renewal::Held);
        assert!(store.get(&key("w/first")).await.unwrap().is_some());
    }
    let mut more = store.watch(&all, WatchOptions::after(revision));
    assert_eq!(
        more.next().await.unwrap().unwrap_err().kind(),
        ErrorKind::Overloaded
    );
    drop(unread);
    let mut again = store.watch(&all, WatchOptions::after(revision));
    assert!(
        again.next().await.unwrap().is_ok(),
        "a closed watch leaves its seat"
    );
    server.stop().await;
}

#[tokio::test]
async fn bulk_of_both_directions_delays_no_renewal() {
    let server = ApiServer::start(memory()).await.unwrap();
    let store = RemoteStore::open(server.config()).unwrap();
    let lease = LeaseName::parse("l/1").unwrap();
    let epoch = granted(&store, &lease).await;
    let big = Value::json(&"x".repeat(900 << 10)).unwrap();
    // More calls than there are seats for them: what waits is not what renews.
    let commits = (0..200).map(|n| store.commit(Txn::new().put(key(&format!("b/{n}")), big.clone())));
    let renewals = async {
        for _ in 0..20 {
            assert_eq!(store.renew(&lease, epoch, TTL).await.unwrap(), Renewal::Held);
        }
    };
    let mut commits = std::pin::pin!(try_join_all(commits));
    tokio::select! {
        biased;
        () = renewals => {}
        _ = &mut commits => panic!("200 commits of 900 KiB came before 20 renewals"),
    }
    commits.await.unwrap();
    server.stop().await;
}
