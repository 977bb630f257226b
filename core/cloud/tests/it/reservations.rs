//! What is claimed of hosts is what their ledgers say, or it is put right and told.

use serde_json::json;
use skyloom_model::{HostId, HostLedger, ServerId, paths};
use skyloom_store::{Txn, Value};

use crate::engine::{Engine, active_image};
use crate::world::{World, key, server};

/// A cloud with a server, and its host.
async fn ready() -> (World, HostId) {
    let mut world = World::new();
    let admin = world.admin().await;
    let host = world.host(&admin, "h1").await;
    let image = active_image(&world, &admin).await;
    let made = world.cloud.create_server(&admin, server("web", image)).await;
    Engine::new(&world).await.carry(&made.unwrap().task).await;
    (world, host)
}

async fn put(world: &World, path: &str, document: &serde_json::Value) {
    let txn = Txn::new().put(key(path), Value::json(document).unwrap());
    world.store.commit(txn).await.unwrap();
}

async fn ledger(world: &World, host: HostId) -> HostLedger {
    let documents = world.documents(paths::LEDGERS).await;
    serde_json::from_str(&documents[&paths::ledger(host)]).unwrap()
}

#[tokio::test]
async fn a_ledger_that_is_not_what_is_claimed_is_put_right_and_told() {
    let (world, host) = ready().await;
    let admin = world.admin().await;
    let right = ledger(&world, host).await;
    assert_eq!(world.cloud.recount_hosts(&admin).await.unwrap(), []);

    let mut wrong = right.clone();
    wrong.used.memory_mib += 512;
    wrong.servers = 4;
    wrong.groups.insert("g".to_owned(), 2);
    put(&world, &paths::ledger(host), &json!(wrong)).await;
    let found = world.cloud.recount_hosts(&admin).await.unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|f| (f.host, f.resource.as_str(), f.was, f.is))
        .collect();
    let memory = right.used.memory_mib;
    let told = [
        (host, "group g", 2, 0),
        (host, "memory_mib", memory + 512, memory),
        (host, "servers", 4, 1),
    ];
    assert_eq!(found, told);
    assert_eq!(ledger(&world, host).await, right);
    assert_eq!(world.cloud.recount_hosts(&admin).await.unwrap(), []);

    // One that is gone.
    world
        .store
        .commit(Txn::new().delete(key(&paths::ledger(host))))
        .await
        .unwrap();
    assert!(!world.cloud.recount_hosts(&admin).await.unwrap().is_empty());
    assert_eq!(ledger(&world, host).await, right);

    let member = world.member(&admin, "shop").await;
    let refused = world.cloud.recount_hosts(&member).await.unwrap_err();
    assert_eq!(refused.code(), "auth.forbidden");
}

#[tokio::test]
async fn nothing_is_changed_while_a_claim_cannot_be_read() {
    let (world, host) = ready().await;
    let admin = world.admin().await;
    let broken = paths::claim(host, ServerId::from_uuid(uuid::Uuid::from_u128(7)));
    put(&world, &broken, &json!({"server": 7})).await;
    let before = world.documents(paths::LEDGERS).await;
    let refused = world.cloud.recount_hosts(&admin).await.unwrap_err();
    assert_eq!(refused.code(), "record.undecodable");
    assert!(refused.to_string().contains(&broken), "{refused}");
    assert_eq!(world.documents(paths::LEDGERS).await, before);
}
