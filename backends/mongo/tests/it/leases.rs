//! Leases against the clock of the server, and against commits under way.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use mongodb::bson::doc;
use skyloom_store::{Grant, Guard, LeaseMode, Leases as _, Outcome, Renewal, Store as _, Txn};
use skyloom_store_mongo::MongoStore;
use tokio::task::JoinSet;

use crate::proxy::{Mode, Proxy};
use crate::support::Server;
use crate::tools::{Shell, json, key, lease, open, open_through, patient, prefix};
use crate::trial;

const LONG: Duration = Duration::from_secs(600);

pub(crate) fn trials(server: &Arc<Server>) -> Vec<Trial> {
    vec![
        trial(
            "lease::what_was_seen_to_run_out_stays_so",
            server,
            clock_steps_back,
        ),
        trial("lease::no_take_over_slips_into_a_commit", server, slip),
        trial("lease::renewals_do_not_fail_commits", server, renewals),
        trial("lease::operators_see_holder_and_end", server, shown),
    ]
}

async fn granted(store: &MongoStore, mode: LeaseMode) -> u64 {
    match store
        .grant(&lease("hosts/h1"), "agent $h1", LONG, mode)
        .await
        .unwrap()
    {
        Grant::Granted { epoch } => epoch,
        Grant::Held(info) => panic!("held by {info:?}"),
    }
}

fn fenced(epoch: u64) -> Txn {
    Txn::new()
        .guard(Guard::Lease(lease("hosts/h1"), epoch))
        .put(key("f"), json("1"))
}

/// The ends of all leases, earlier (or later) by this much: what a step of the server's clock looks like.
async fn shift(shell: &Shell, ms: i64) {
    let earlier = doc! { "$set": { "expires_at": { "$subtract": ["$expires_at", ms] } } };
    shell
        .collection("leases")
        .update_many(doc! {}, vec![earlier])
        .await
        .unwrap();
}

async fn clock_steps_back(server: Arc<Server>) {
    let config = patient(&server);
    let store = open(&config).await;
    let shell = Shell::on(&config).await;
    let hour = 3_600_000;
    // Seen by a listing, by a renewal, by a commit.
    for way in 0..3 {
        let epoch = granted(&store, LeaseMode::TakeOver).await;
        shift(&shell, hour).await;
        match way {
            0 => assert!(store.leases(&prefix("hosts")).await.unwrap()[0].expired),
            1 => assert_eq!(
                store.renew(&lease("hosts/h1"), epoch, LONG).await.unwrap(),
                Renewal::Lost
            ),
            _ => assert!(matches!(
                store.commit(fenced(epoch)).await.unwrap(),
                Outcome::Conflict { .. }
            )),
        }
        shift(&shell, -hour).await;
        assert!(
            store.leases(&prefix("hosts")).await.unwrap()[0].expired,
            "way {way}: shown alive again"
        );
        assert_eq!(
            store.renew(&lease("hosts/h1"), epoch, LONG).await.unwrap(),
            Renewal::Lost,
            "way {way}"
        );
        assert!(
            matches!(
                store.commit(fenced(epoch)).await.unwrap(),
                Outcome::Conflict { .. }
            ),
            "way {way}: it guards again"
        );
        assert!(
            granted(&store, LeaseMode::Acquire).await > epoch,
            "way {way}: nobody else gets it"
        );
    }
    store.close().await;
}

/// The holder's commit has checked the lease and waits in the network; another one takes the lease over. Then either the
/// commit did not happen, or it happened before the other one was told of its grant.
async fn slip(server: Arc<Server>) {
    let config = patient(&server);
    let other = open(&config).await;
    let proxy = Proxy::to(server.port).await;
    let holder = open_through(&config, proxy.port).await;
    for _ in 0..3 {
        let epoch = granted(&other, LeaseMode::TakeOver).await;
        proxy.set(Mode::HoldCommits);
        let mut tasks = JoinSet::new();
        let committing = Arc::clone(&holder);
        tasks.spawn(async move { committing.commit(fenced(epoch)).await });
        proxy.reached(Mode::Holding).await;
        let taking = granted(&other, LeaseMode::TakeOver);
        tokio::pin!(taking);
        let early = tokio::time::timeout(Duration::from_millis(300), &mut taking)
            .await
            .ok();
        proxy.set(Mode::Pass);
        let outcome = tasks.join_next().await.unwrap().unwrap().unwrap();
        if early.is_some() {
            assert!(
                matches!(outcome, Outcome::Conflict { guard: 0, .. }),
                "a former holder wrote: {outcome:?}"
            );
        } else {
            assert!(taking.await > epoch);
        }
        let late = holder.commit(fenced(epoch)).await.unwrap();
        assert!(matches!(late, Outcome::Conflict { guard: 0, .. }), "{late:?}");
    }
    holder.close().await;
    other.close().await;
}

async fn renewals(server: Arc<Server>) {
    let config = patient(&server);
    let store = open(&config).await;
    let epoch = granted(&store, LeaseMode::Acquire).await;
    let renewing = async {
        for _ in 0..30 {
            let renewal = store.renew(&lease("hosts/h1"), epoch, LONG).await.unwrap();
            assert_eq!(renewal, Renewal::Held);
        }
    };
    let committing = async {
        for _ in 0..30 {
            let outcome = store.commit(fenced(epoch)).await.unwrap();
            assert!(outcome.committed().is_some(), "{outcome:?}");
        }
    };
    tokio::join!(renewing, committing);
    store.close().await;
}

async fn shown(server: Arc<Server>) {
    let config = patient(&server);
    let store = open(&config).await;
    let epoch = granted(&store, LeaseMode::Acquire).await;
    let shell = Shell::on(&config).await;
    let filter = doc! { "_id": "hosts/h1", "held": true, "holder": "agent $h1" };
    let row = shell.one("leases", filter.clone()).await.unwrap();
    assert_eq!(u64::try_from(row.get_i64("epoch").unwrap()).unwrap(), epoch);
    assert!(row.get_datetime("expires_at").is_ok());
    store.revoke(&lease("hosts/h1"), epoch).await.unwrap();
    assert_eq!(shell.one("leases", filter).await, None);
    store.close().await;
}
