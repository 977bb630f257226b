//! Leases across restarts.

use std::time::Duration;

use skyloom_store::{Grant, Guard, LeaseMode, LeaseName, Leases, Outcome, Renewal, Revision, Store, Txn};
use skyloom_store_sql::SqliteStore;

use crate::support::{Place, json, key, prefix};

const TTL: Duration = Duration::from_secs(10);

async fn grant(store: &SqliteStore, name: &LeaseName) -> Grant {
    store.grant(name, "me", TTL, LeaseMode::Acquire).await.unwrap()
}

async fn fenced(store: &SqliteStore, name: &LeaseName, epoch: u64) -> Outcome {
    store
        .commit(
            Txn::new()
                .guard(Guard::Lease(name.clone(), epoch))
                .put(key("x"), json("1")),
        )
        .await
        .unwrap()
}

#[tokio::test]
async fn deadlines_and_epochs_survive_a_restart() {
    let place = Place::new();
    let name = LeaseName::parse("hosts/h1").unwrap();
    let gone = LeaseName::parse("hosts/h2").unwrap();
    let store = place.open().await;
    assert_eq!(grant(&store, &name).await, Grant::Granted { epoch: 1 });
    assert_eq!(grant(&store, &gone).await, Grant::Granted { epoch: 1 });
    store.revoke(&gone, 1).await.unwrap();
    place.clock.advance(TTL / 2);
    store.close().await.unwrap();

    let store = place.open().await;
    let listed = store.leases(&prefix("hosts")).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].epoch, listed[0].expired, listed[0].holder.as_str()),
        (1, false, "me")
    );
    assert!(matches!(grant(&store, &name).await, Grant::Held(_)));
    assert!(matches!(
        fenced(&store, &name, 1).await,
        Outcome::Committed { .. }
    ));
    assert_eq!(store.renew(&name, 1, TTL).await.unwrap(), Renewal::Held);
    store.close().await.unwrap();

    // It runs out while nobody has the file open.
    place.clock.advance(TTL);
    let store = place.open().await;
    assert!(store.leases(&prefix("hosts")).await.unwrap()[0].expired);
    assert_eq!(store.renew(&name, 1, TTL).await.unwrap(), Renewal::Lost);
    assert!(matches!(
        fenced(&store, &name, 1).await,
        Outcome::Conflict {
            guard: 0,
            current: None
        }
    ));
    assert_eq!(grant(&store, &name).await, Grant::Granted { epoch: 2 });
    assert_eq!(
        grant(&store, &gone).await,
        Grant::Granted { epoch: 2 },
        "a revoked epoch is remembered"
    );
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_clock_that_went_back_does_not_make_a_lease_longer() {
    let place = Place::new();
    place.clock.advance(Duration::from_secs(1_000));
    let name = LeaseName::parse("hosts/h1").unwrap();
    let store = place.open().await;
    grant(&store, &name).await;
    store.close().await.unwrap();
    // The next process starts with a wall clock 1,000 s earlier.
    let earlier = Place {
        dir: place.dir,
        clock: skyloom_model::ManualClock::new(),
    };
    let store = earlier.open().await;
    assert!(matches!(grant(&store, &name).await, Grant::Held(_)));
    earlier.clock.advance(TTL);
    assert_eq!(grant(&store, &name).await, Grant::Granted { epoch: 2 });
    store.close().await.unwrap();
}

#[tokio::test]
async fn renewals_make_no_revision_and_no_history() {
    let place = Place::new();
    let name = LeaseName::parse("hosts/h1").unwrap();
    let store = place.open().await;
    grant(&store, &name).await;
    for _ in 0..20 {
        assert_eq!(store.renew(&name, 1, TTL).await.unwrap(), Renewal::Held);
    }
    assert_eq!(store.stats().revision, Revision(0));
    store.close().await.unwrap();
    assert_eq!(place.sql_number("SELECT count(*) FROM history").await, 0);
}
