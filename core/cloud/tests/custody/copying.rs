//! Copies from store to store.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use skyloom_cloud::custody::{check, copy};
use skyloom_cloud::{Cloud, CloudParts};
use skyloom_model::{Kinship, ManualClock, Origin};
use skyloom_store::{
    DynBackend, ErrorKind, Key, LeaseMode, LeaseName, MemoryConfig, MemoryStore, Prefix, Txn, Value,
};

use crate::stage::{Busy, Fault, Faulty, cloud, documents, empty, outside, standing};
use crate::world::World;

fn over(world: &World, backend: &DynBackend) -> Cloud {
    let parts = world.cloud.parts().clone();
    Cloud::new(CloudParts {
        backend: backend.clone(),
        ..parts
    })
}

#[tokio::test]
async fn a_copy_has_the_same_records_and_is_a_newer_incarnation_of_the_same_cloud() {
    let world = cloud(700).await;
    let lease = LeaseName::parse("engines/e").unwrap();
    let ttl = Duration::from_secs(10);
    world
        .store
        .grant(&lease, "e", ttl, LeaseMode::Acquire)
        .await
        .unwrap();
    let (to, (clock, ids)) = (empty(), outside(1));
    let done = copy(&*world.store, "memory:", &*to, &*clock, &*ids)
        .await
        .unwrap();
    assert_eq!(documents(&*to).await, documents(&*world.store).await);
    assert_eq!(done.tally.records, documents(&*to).await.len() as u64);
    assert_eq!(done.written, done.tally.records);
    assert!(!done.source_moved_on);
    let (before, after) = (standing(&world.store).await, standing(&to).await);
    let (before, custody) = (before.incarnation().unwrap(), after.custody.unwrap());
    assert_eq!(before.kinship(&custody.incarnation), Kinship::Newer);
    assert_eq!(
        (custody.incarnation, custody.origin),
        (done.incarnation, Origin::Moved)
    );
    assert!(after.hold.is_none() && after.copying.is_none());
    assert!(to.leases(&Prefix::all()).await.unwrap().is_empty());
    assert!(check(&*to).await.unwrap().is_sound());
    over(&world, &to).bootstrap().await.unwrap();
    assert_eq!(
        standing(&to).await.incarnation(),
        Some(done.incarnation),
        "taken up, not made anew"
    );
}

#[tokio::test]
async fn a_copy_that_is_cut_off_anywhere_is_unusable_and_is_gone_on_with() {
    let world = cloud(250).await;
    let wanted = documents(&*world.store).await;
    let (clock, ids) = outside(1);
    for after in 0.. {
        let to = empty();
        let faulty = Faulty::new(&to, after, Fault::Dead);
        if copy(&*world.store, "a", &faulty, &*clock, &*ids).await.is_ok() {
            assert!(after > 4, "{after}: several batches");
            assert!(standing(&to).await.whole().is_ok());
            return;
        }
        if after > 0 {
            let error = standing(&to).await.whole().unwrap_err();
            assert!(error.to_string().contains("unfinished copy from a"), "{error}");
            let refused = over(&world, &to).bootstrap().await.unwrap_err();
            assert_eq!(refused.code(), "store.unfinished_copy");
            assert!(!check(&*to).await.unwrap().is_sound());
        }
        let there = documents(&*to).await.len() as u64;
        let done = copy(&*world.store, "a", &*to, &*clock, &*ids).await.unwrap();
        assert_eq!(
            done.written + there,
            done.tally.records,
            "{after}: nothing is written twice"
        );
        assert_eq!(documents(&*to).await, wanted);
    }
}

#[tokio::test]
async fn what_came_to_the_source_after_a_cut_is_not_mixed_in() {
    let world = cloud(250).await;
    let wanted = documents(&*world.store).await;
    let (to, (clock, ids)) = (empty(), outside(1));
    let faulty = Faulty::new(&to, 2, Fault::Dead);
    copy(&*world.store, "a", &faulty, &*clock, &*ids)
        .await
        .unwrap_err();
    for path in ["a/new", "extra/00003", "zz/new"] {
        let put = Txn::new().put(Key::parse(path).unwrap(), Value::json("later").unwrap());
        world.store.commit(put).await.unwrap();
    }
    let done = copy(&*world.store, "a", &*to, &*clock, &*ids).await.unwrap();
    assert_eq!(documents(&*to).await, wanted);
    assert!(done.source_moved_on);
}

#[tokio::test]
async fn answers_that_are_lost_change_nothing() {
    let world = cloud(250).await;
    let wanted = documents(&*world.store).await;
    let (clock, ids) = outside(1);
    for fault in [Fault::Deaf, Fault::Lost] {
        for after in [1, 3] {
            let to = empty();
            let faulty = Faulty::new(&to, after, fault);
            copy(&*world.store, "a", &faulty, &*clock, &*ids).await.unwrap();
            assert_eq!(documents(&*to).await, wanted, "{fault:?}");
            assert!(standing(&to).await.whole().is_ok());
        }
    }
}

#[tokio::test]
async fn only_an_empty_store_is_filled_and_only_by_one() {
    let world = cloud(250).await;
    let (clock, ids) = outside(1);
    let other = cloud(0).await;
    let before = documents(&*other.store).await;
    let error = copy(&*world.store, "a", &*other.store, &*clock, &*ids)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("not empty"), "{error}");
    assert_eq!(documents(&*other.store).await, before);

    let to = empty();
    let faulty = Faulty::new(&to, 2, Fault::Dead);
    copy(&*world.store, "a", &faulty, &*clock, &*ids)
        .await
        .unwrap_err();
    let error = copy(&*other.store, "b", &*to, &*clock, &*ids).await.unwrap_err();
    assert!(error.to_string().contains("half filled from a"), "{error}");
    let error = copy(&*to, "c", &*empty(), &*clock, &*ids).await.unwrap_err();
    assert!(error.to_string().contains("unfinished copy"), "{error}");
}

#[tokio::test]
async fn a_store_without_a_cloud_is_no_source() {
    let (clock, ids) = outside(1);
    let error = copy(&*empty(), "a", &*empty(), &*clock, &*ids).await.unwrap_err();
    assert!(error.to_string().contains("no cloud"), "{error}");
}

#[tokio::test]
async fn a_source_that_forgets_the_revision_is_told_of() {
    let clock = ManualClock::new();
    let config = MemoryConfig::default().with_history(5);
    let world = World::over(Arc::new(MemoryStore::new(Arc::new(clock.clone()), config)), clock);
    world.admin().await;
    for n in 0..200 {
        let key = Key::parse(&format!("extra/{n:05}")).unwrap();
        let put = Txn::new().put(key, Value::json(&n).unwrap());
        world.store.commit(put).await.unwrap();
    }
    let busy = Busy(world.store.clone(), AtomicUsize::new(0));
    let (clock, ids) = outside(1);
    let error = copy(&busy, "a", &*empty(), &*clock, &*ids).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Compacted);
    assert!(
        error.to_string().contains("begin again with an empty target"),
        "{error}"
    );
}

#[tokio::test]
async fn a_source_that_is_written_to_is_copied_as_it_was_at_one_moment() {
    let world = cloud(250).await;
    let wanted = documents(&*world.store).await;
    let busy = Busy(world.store.clone(), AtomicUsize::new(0));
    let (to, (clock, ids)) = (empty(), outside(1));
    let done = copy(&busy, "a", &*to, &*clock, &*ids).await.unwrap();
    let there = documents(&*to).await;
    // The look at what the store says of itself came before the moment.
    let only_before = there.keys().filter(|k| k.starts_with("busy/")).count();
    assert!(only_before <= 1, "{only_before}");
    assert!(wanted.keys().all(|k| there.contains_key(k)));
    assert!(done.source_moved_on);
}
