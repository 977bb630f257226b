//! What is found in a store whose records do not fit together.

use skyloom_cloud::CreateHost;
use skyloom_cloud::custody::check;
use skyloom_model::{ActiveTask, Claim, Priority, Resource as _, Resources, Scope, ServerId, TaskId, paths};
use skyloom_store::{Key, Txn, Value};
use uuid::Uuid;

use crate::stage::cloud;
use crate::world::{World, key};

async fn put(world: &World, path: &str, value: &impl serde::Serialize) {
    let put = Txn::new().put(key(path), Value::json(value).unwrap());
    world.store.commit(put).await.unwrap();
}

#[tokio::test]
async fn a_new_cloud_is_sound_and_counted() {
    let world = cloud(12).await;
    let report = check(&*world.store).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.records["extra"], 12);
    assert!(report.records["r"] > 4 && report.incarnation.is_some());
}

#[tokio::test]
async fn what_cannot_be_read_or_does_not_fit_is_named_by_its_key() {
    let world = cloud(0).await;
    let admin = world.admin().await;
    let request = CreateHost {
        name: "h".into(),
        ..CreateHost::default()
    };
    let host = world.cloud.create_host(&admin, request).await.unwrap().host.id();
    let nobody = Uuid::from_u128(77);
    put(&world, "r/servers/system/x", &"no server").await;
    let mark = ActiveTask {
        scope: Scope::System,
        task: TaskId::from_uuid(nobody),
        priority: Priority::Normal,
    };
    put(&world, &paths::active(mark.task), &mark).await;
    let claim = Claim {
        server: ServerId::from_uuid(nobody),
        scope: None,
        resources: Resources::default(),
        group: None,
    };
    put(&world, &paths::claim(host, claim.server), &claim).await;
    let report = check(&*world.store).await.unwrap();
    assert!(!report.is_sound());
    let named = |found: &[skyloom_cloud::custody::Finding]| -> Vec<Key> {
        found.iter().map(|f| key(&f.key)).collect()
    };
    assert_eq!(named(&report.undecodable), [key("r/servers/system/x")]);
    assert_eq!(
        named(&report.inconsistent),
        [key(&paths::active(mark.task)), key(&paths::ledger(host))],
        "a claim's server may be the record that cannot be read: only the sum is wrong for certain"
    );
    world
        .store
        .commit(Txn::new().delete(key("r/servers/system/x")))
        .await
        .unwrap();
    let report = check(&*world.store).await.unwrap();
    assert!(named(&report.inconsistent).contains(&key(&paths::claim(host, claim.server))));
}
