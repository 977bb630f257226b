//! Processes that die in the middle of a commit, with the head in their hands.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use mongodb::bson::doc;
use skyloom_store::{Revision, Store as _, Txn};
use tokio::task::JoinSet;

use crate::proxy::{Mode, Proxy};
use crate::support::Server;
use crate::tools::{Events, Shell, get, json, key, open, open_through, patient, put, until};
use crate::trial;

pub(crate) fn trials(server: &Arc<Server>) -> Vec<Trial> {
    vec![
        trial("abandoned::the_head_is_taken_from_the_dead", server, dead),
        trial("abandoned::a_living_store_repeats_its_commit", server, alive),
        trial("abandoned::closed_stores_sign_off", server, signed_off),
    ]
}

/// The dead one's commit waits in the network when it dies, so the server keeps its transaction open.
async fn dead(server: Arc<Server>) {
    let mut config = patient(&server);
    config.call_ms = 8_000;
    let proxy = Proxy::to(server.port).await;
    let survivor = open(&config).await;
    put(&survivor, "a", "1").await;
    let dead = open_through(&config, proxy.port).await;
    proxy.set(Mode::HoldCommits);
    let mut tasks = JoinSet::new();
    let committing = Arc::clone(&dead);
    tasks.spawn(async move { committing.commit(Txn::new().put(key("a"), json("2"))).await });
    proxy.reached(Mode::Holding).await;
    tasks.shutdown().await;
    drop(dead);
    // Nothing that it might still want to say arrives.
    proxy.set(Mode::Refuse);
    let revision = put(&survivor, "a", "3").await;
    assert_eq!(revision, Revision(2), "the dead one's commit is there");
    assert_eq!(get(&survivor, "a").await.as_deref(), Some("3"));
    let mut events = Events::after(&survivor, "", Revision(1));
    assert_eq!(events.commit().await.0, revision);
    survivor.close().await;
}

/// One that was only slow is robbed of its transaction, and commits again.
async fn alive(server: Arc<Server>) {
    let config = patient(&server);
    let proxy = Proxy::to(server.port).await;
    let (quick, slow) = (open(&config).await, open_through(&config, proxy.port).await);
    put(&quick, "a", "1").await;
    proxy.set(Mode::HoldCommits);
    let mut tasks = JoinSet::new();
    let committing = Arc::clone(&slow);
    tasks.spawn(async move { committing.commit(Txn::new().create(key("slow"), json("1"))).await });
    proxy.reached(Mode::Holding).await;
    put(&quick, "a", "2").await;
    proxy.set(Mode::Pass);
    let outcome = tasks.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(outcome.committed(), Some(Revision(3)), "after the quick one's");
    assert_eq!(get(&quick, "slow").await.as_deref(), Some("1"));
    slow.close().await;
    quick.close().await;
}

async fn signed_off(server: Arc<Server>) {
    let config = patient(&server);
    let (a, b) = (open(&config).await, open(&config).await);
    put(&a, "a", "1").await;
    put(&b, "a", "2").await;
    let shell = Shell::on(&config).await;
    assert_eq!(shell.count("writers").await, 2);
    a.close().await;
    assert_eq!(shell.count("writers").await, 1);
    drop(b);
    // It could not sign off; whoever opens a day later removes it.
    let gone = mongodb::bson::DateTime::from_millis(0);
    shell
        .collection("writers")
        .update_many(doc! {}, doc! { "$set": { "at": gone } })
        .await
        .unwrap();
    let c = open(&config).await;
    until(async || (shell.count("writers").await == 1).then_some(())).await;
    tokio::time::timeout(Duration::from_secs(60), c.close())
        .await
        .unwrap();
    assert_eq!(shell.count("writers").await, 0);
}
