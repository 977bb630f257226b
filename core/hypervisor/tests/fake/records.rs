//! What there is and what is left.

use std::collections::{BTreeMap, BTreeSet};

use skyloom_hypervisor::{
    ErrorKind, FakeOptions, FakeWorld, Holding, HostStorage, Hypervisor, StopMode, VmSpec,
};
use skyloom_model::PowerState;

use super::{spec, world};

#[tokio::test]
async fn leftovers_are_what_belongs_to_no_known_server() {
    let (world, one) = world().await;
    let (two, three) = (spec(2), spec(3));
    world
        .storage()
        .create_seed(two.id, "seed", b"seed")
        .await
        .unwrap();
    world
        .storage()
        .create_seed(three.id, "seed", b"seed")
        .await
        .unwrap();
    world.storage().delete_server(three.id).await.unwrap();
    let domain = Holding {
        domain: Some((3, PowerState::Stopped)),
        disks: vec![],
        seed: false,
    };
    let seed = Holding {
        domain: None,
        disks: vec![],
        seed: true,
    };
    let all = BTreeMap::from([(one.id, domain), (two.id, seed.clone())]);
    assert_eq!(world.holdings().unwrap(), all);
    assert_eq!(world.leftovers(&BTreeSet::new()).unwrap(), all);
    assert_eq!(
        world.leftovers(&BTreeSet::from([one.id, three.id])).unwrap(),
        BTreeMap::from([(two.id, seed)])
    );
    world.storage().delete_server(two.id).await.unwrap();
    world.hypervisor().undefine(one.id, 3).await.unwrap();
    assert_eq!(world.leftovers(&BTreeSet::new()).unwrap(), BTreeMap::new());
}

#[tokio::test]
async fn full_pool_takes_nothing_new_and_keeps_what_it_has() {
    let (world, spec) = world().await;
    let storage = world.storage();
    let seed = storage.create_seed(spec.id, "seed", b"seed").await.unwrap();
    world.pool_full(true).unwrap();
    let full = storage.create_seed(spec.id, "seed", b"other").await.unwrap_err();
    assert_eq!((full.kind(), full.reason().retryable), (ErrorKind::Full, true));
    assert_eq!(
        storage.create_seed(spec.id, "seed", b"seed").await.unwrap(),
        seed,
        "it is there"
    );
    storage.delete_server(spec.id).await.unwrap();
    assert!(storage.create_seed(spec.id, "seed", b"seed").await.is_err());
    world.pool_full(false).unwrap();
    storage.create_seed(spec.id, "seed", b"seed").await.unwrap();
}

/// One story on both kinds of ledger: what they tell is the same.
#[tokio::test]
async fn memory_and_directory_tell_the_same_history() {
    async fn story(world: FakeWorld, spec: &VmSpec) -> Vec<String> {
        let (hypervisor, storage) = (world.hypervisor(), world.storage());
        storage.create_seed(spec.id, "seed", b"seed").await.unwrap();
        hypervisor.define(spec).await.unwrap();
        hypervisor.start(spec.id, 4).await.unwrap();
        let middle = world.position().unwrap();
        assert_eq!(world.history_since(middle).unwrap(), []);
        assert!(hypervisor.start(spec.id, 3).await.is_err());
        assert!(world.crash_guest(spec.id).unwrap());
        hypervisor.start(spec.id, 5).await.unwrap();
        hypervisor.stop(spec.id, 6, StopMode::Force).await.unwrap();
        hypervisor.stop(spec.id, 7, StopMode::Force).await.unwrap();
        let since = world.history_since(middle).unwrap();
        assert_eq!(since.len(), 3);
        let whole = world.history().unwrap();
        assert!(whole.ends_with(&since) && whole.is_sorted_by(|a, b| a.at < b.at));
        let domain = format!("{:?}", world.domain(spec.id).unwrap());
        let tell = |e: &skyloom_hypervisor::Effect| format!("{} {:?} {:?}", e.generation, e.server, e.kind);
        whole.iter().map(tell).chain([domain]).collect()
    }
    let directory = tempfile::tempdir().unwrap();
    let spec = spec(1);
    let stays = FakeWorld::open(FakeOptions::directory(directory.path())).unwrap();
    assert_eq!(
        story(FakeWorld::in_memory(), &spec).await,
        story(stays, &spec).await
    );
}

#[tokio::test]
async fn a_forgetful_world_has_what_is_there_and_no_past() {
    let forgetful = FakeWorld::open(FakeOptions::in_memory().forgetful()).unwrap();
    for (world, remembers) in [(forgetful, false), (FakeWorld::in_memory(), true)] {
        let (stays, goes) = (spec(1), spec(2));
        for spec in [&stays, &goes] {
            world
                .storage()
                .create_seed(spec.id, "seed", b"seed")
                .await
                .unwrap();
            world.hypervisor().define(spec).await.unwrap();
        }
        world.hypervisor().undefine(goes.id, 3).await.unwrap();
        world.storage().delete_server(goes.id).await.unwrap();
        let there = world.holdings().unwrap();
        assert_eq!(there.keys().collect::<Vec<_>>(), [&stays.id]);
        assert!(there[&stays.id].seed && there[&stays.id].domain.is_some());
        assert_eq!(!world.history().unwrap().is_empty(), remembers);
    }
}
