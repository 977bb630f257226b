//! Leases across ends of the server, and what they leave in etcd.

use std::time::Duration;

use skyloom_store::{
    Backend, Grant, Guard, LeaseMode, LeaseName, Leases as _, Outcome, Prefix, Renewal, Store as _, Txn,
};

use super::support::{Etcd, open};
use super::{commit, json, key, put, revision, soon, until};

fn name(text: &str) -> LeaseName {
    LeaseName::parse(text).unwrap()
}

async fn grant(store: &dyn Backend, text: &str, ttl: Duration, mode: LeaseMode) -> u64 {
    match store.grant(&name(text), "h", ttl, mode).await.unwrap() {
        Grant::Granted { epoch } => epoch,
        Grant::Held(info) => panic!("{info:?}"),
    }
}

fn fenced(text: &str, epoch: u64) -> Txn {
    Txn::new()
        .guard(Guard::Lease(name(text), epoch))
        .put(key("fenced"), json(1))
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_outlives_the_server_and_its_end_does_too() {
    let mut server = Etcd::start(&[]).await;
    let store = open(server.config("c")).await.unwrap();
    let long = grant(&store, "long", MINUTE, LeaseMode::Acquire).await;
    let short = grant(&store, "short", Duration::from_secs(1), LeaseMode::Acquire).await;
    let taken = grant(&store, "taken", MINUTE, LeaseMode::Acquire).await;
    let again = grant(&store, "taken", MINUTE, LeaseMode::TakeOver).await;
    server.kill();
    server.run();
    server.wait().await;
    assert_eq!(
        store.renew(&name("long"), long, MINUTE).await.unwrap(),
        Renewal::Held
    );
    assert_eq!(
        store.renew(&name("taken"), taken, MINUTE).await.unwrap(),
        Renewal::Lost
    );
    assert_eq!(
        store.renew(&name("taken"), again, MINUTE).await.unwrap(),
        Renewal::Held
    );
    commit(&store, fenced("long", long)).await;
    until("the short one runs out", async || {
        let leases = store.leases(&Prefix::all()).await.unwrap();
        leases.iter().any(|l| l.name == name("short") && l.expired)
    })
    .await;
    let outcome = store.commit(fenced("short", short)).await.unwrap();
    assert_eq!(
        outcome,
        Outcome::Conflict {
            guard: 0,
            current: None
        }
    );
    assert!(grant(&store, "short", MINUTE, LeaseMode::Acquire).await > short);
}

#[tokio::test(flavor = "multi_thread")]
async fn renewals_write_nothing_and_ended_leases_leave_nothing() {
    let server = Etcd::start(&[]).await;
    let store = open(server.config("c")).await.unwrap();
    let other = open(server.config("c")).await.unwrap();
    let mut client = server.native().await;
    let epoch = grant(&store, "a", MINUTE, LeaseMode::Acquire).await;
    let native_revision = async |client: &mut etcd_client::Client| {
        client.get("x", None).await.unwrap().header().unwrap().revision()
    };
    let before = native_revision(&mut client).await;
    for _ in 0..20 {
        assert_eq!(
            store.renew(&name("a"), epoch, MINUTE).await.unwrap(),
            Renewal::Held
        );
        assert_eq!(
            other.renew(&name("a"), epoch, MINUTE).await.unwrap(),
            Renewal::Held
        );
    }
    assert_eq!(native_revision(&mut client).await, before, "a renewal wrote");
    // Another length is another etcd lease, and the old one goes.
    for _ in 0..5 {
        assert_eq!(
            store.renew(&name("a"), epoch, MINUTE * 2).await.unwrap(),
            Renewal::Held
        );
        assert_eq!(
            other.renew(&name("a"), epoch, MINUTE).await.unwrap(),
            Renewal::Held
        );
    }
    assert_eq!(client.leases().await.unwrap().leases().len(), 1);
    let held = store
        .grant(&name("a"), "other", MINUTE, LeaseMode::Acquire)
        .await
        .unwrap();
    assert!(matches!(held, Grant::Held(info) if info.epoch == epoch));
    let newer = grant(&other, "a", MINUTE, LeaseMode::TakeOver).await;
    assert_eq!(
        client.leases().await.unwrap().leases().len(),
        1,
        "refused and former ones go"
    );
    store.revoke(&name("a"), epoch).await.unwrap();
    assert_eq!(
        client.leases().await.unwrap().leases().len(),
        1,
        "not the newer holder's"
    );
    store.revoke(&name("a"), newer).await.unwrap();
    assert_eq!(client.leases().await.unwrap().leases().len(), 0);
    assert!(store.leases(&Prefix::all()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_handles_that_renew_with_other_lengths_never_lose_it() {
    let server = Etcd::start(&[]).await;
    let stores = [
        open(server.config("c")).await.unwrap(),
        open(server.config("c")).await.unwrap(),
    ];
    let epoch = grant(&stores[0], "a", MINUTE, LeaseMode::Acquire).await;
    let renew = async |store: &dyn Backend, ttl| {
        for _ in 0..50 {
            // Too many changes at once may be refused, but are never taken for a loss.
            if let Ok(renewal) = store.renew(&name("a"), epoch, ttl).await {
                assert_eq!(renewal, Renewal::Held);
            }
        }
    };
    soon("renewals", async {
        tokio::join!(renew(&stores[0], MINUTE), renew(&stores[1], MINUTE * 2));
    })
    .await;
    commit(&stores[0], fenced("a", epoch)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_leases_than_one_page() {
    let server = Etcd::start(&[]).await;
    let store = open(server.config("c")).await.unwrap();
    let before = commit(&store, put("a", 1)).await;
    let mut epochs = Vec::new();
    for chunk in (0..1100).collect::<Vec<_>>().chunks(50) {
        let some = chunk
            .iter()
            .map(async |n| grant(&store, &format!("hosts/{n:04}"), MINUTE, LeaseMode::Acquire).await);
        epochs.extend(futures::future::join_all(some).await);
    }
    for n in [0, 999, 1000, 1099] {
        store
            .revoke(&name(&format!("hosts/{n:04}")), epochs[n])
            .await
            .unwrap();
    }
    let leases = store.leases(&Prefix::parse("hosts").unwrap()).await.unwrap();
    assert_eq!(leases.len(), 1096);
    assert!(leases.iter().all(|l| !l.expired));
    assert!(leases.windows(2).all(|w| w[0].name < w[1].name));
    assert_eq!(revision(&store).await, before);
}
