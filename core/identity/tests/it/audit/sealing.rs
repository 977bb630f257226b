//! Each entry is in one seal, whatever happens to whoever seals.

use std::time::Duration;

use skyloom_identity::audit::{SealKind, SealerConfig, VerifyOptions, verify};
use skyloom_model::{Custody, Incarnation, Origin};
use skyloom_store::{Key, Txn, Value};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::shared::{DAY, Fated, Fault, World};

const TTL: Duration = Duration::from_secs(60);

fn config(holder: &str) -> SealerConfig {
    let mut config = SealerConfig::new(holder).with_most(8).with_keep_days(Some(2));
    config.ttl = TTL;
    config.retain_every = Duration::from_secs(3);
    config
}

/// 30 entries that are too old to be kept, and 10 that are not.
async fn filled() -> World {
    let world = World::new();
    world.write(30, 3).await;
    world.clock.advance(DAY * 5);
    world.write(10, 4).await;
    world
}

async fn settled(world: &World) {
    world
        .until(|head| {
            head.entries == 40
                && head
                    .removed
                    .is_some_and(|r| r.through >= 3 && r.cleaned == r.through)
        })
        .await;
}

/// All that was written is sealed once, and nothing is wrong. Answers how many are left.
async fn check(world: &World, sealed: u64) -> u64 {
    let report = verify(&*world.store, &VerifyOptions::default()).await.unwrap();
    assert!(report.is_whole(), "{report:?}");
    let left = world.all("audit").await.len() as u64;
    assert_eq!(
        (report.entries, report.removed, report.waiting),
        (left, sealed - left, 0)
    );
    let seals = world.seals().await;
    let named = seals.iter().filter(|seal| seal.kind == SealKind::Entries);
    assert_eq!(
        named.map(|seal| seal.count).sum::<u64>(),
        sealed,
        "each entry once"
    );
    left
}

/// A sealer that meets a fault at its first call, at its second and so on; killed there, or going on.
async fn every_call(fault: Fault, killed: bool) -> usize {
    for call in 0.. {
        assert!(call < 1000, "it never ends");
        let world = filled().await;
        let fated = Fated::new(&world.store, call, fault, killed);
        let run = world
            .sealer(fated.clone(), config("first"))
            .run(CancellationToken::new());
        tokio::select! {
            biased;
            () = fated.died() => {}
            () = settled(&world) => {}
            // A lease whose owner does not know that it has it ends by the store's clock.
            () = async { loop { tokio::time::sleep(TTL).await; world.clock.advance(TTL / 4) } } => {}
            () = run => {}
        }
        let met = fated.met();
        world.clock.advance(TTL * 2);
        let next = world
            .sealer(world.store.clone(), config("next"))
            .run(CancellationToken::new());
        tokio::select! {
            biased;
            () = settled(&world) => {}
            () = next => {}
        }
        // A seal of old and young entries stays as long as its youngest.
        assert!((10..=13).contains(&check(&world, 40).await));
        if !met {
            return call;
        }
    }
    0
}

#[tokio::test(start_paused = true)]
async fn killed_at_any_call_each_entry_is_sealed_once() {
    for fault in [Fault::Refused, Fault::AnswerLost] {
        let calls = every_call(fault, true).await;
        assert!(calls > 15, "{fault:?} was tried at {calls} calls only");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_call_fails_each_entry_is_sealed_once() {
    for fault in [Fault::Refused, Fault::AnswerLost] {
        let calls = every_call(fault, false).await;
        assert!(calls > 15, "{fault:?} was tried at {calls} calls only");
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_sealers_one_seals_also_when_its_lease_is_lost_again_and_again() {
    let world = World::new();
    let mut one = config("one");
    let mut two = config("two");
    (one.keep_days, two.keep_days) = (None, None);
    let stop = CancellationToken::new();
    let never = usize::MAX;
    let stores = [0; 2].map(|_| Fated::new(&world.store, never, Fault::Refused, false));
    let [a, b] = stores;
    let writing = async {
        for round in 1..=20 {
            world.write(13, 3).await;
            if round % 3 == 0 {
                // Both think that it is theirs until they write.
                world.clock.advance(TTL * 2);
            }
            world.until(|head| head.entries == 13 * round).await;
        }
        stop.cancel();
    };
    tokio::join!(
        world.sealer(a, one).run(stop.clone()),
        world.sealer(b, two).run(stop.clone()),
        writing
    );
    assert_eq!(check(&world, 260).await, 260);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_entries_and_a_history_that_is_too_short() {
    let world = World::with_history(16);
    // More than the history holds, before and while it is sealed.
    world.write(5000, 50).await;
    let stop = CancellationToken::new();
    let mut config = SealerConfig::new("one");
    config.ttl = TTL;
    let run = world.sealer(world.store.clone(), config).run(stop.clone());
    let writing = async {
        world.until(|head| head.entries > 0).await;
        world.write(5000, 50).await;
        world.until(|head| head.entries == 10_000).await;
        stop.cancel();
    };
    tokio::join!(run, writing);
    assert_eq!(check(&world, 10_000).await, 10_000);
    let longest = world.seals().await.iter().map(|seal| seal.count).max();
    assert!(longest <= Some(256 + 50), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn the_chain_goes_on_in_a_store_that_was_restored() {
    let world = World::new();
    world.write(10, 1).await;
    let mut plain = config("one");
    plain.keep_days = None;
    world.seal_until(plain.clone(), |head| head.entries == 10).await;
    // Another store, where nothing has the revision that it had.
    let restored = World::new();
    restored.clock.advance(Duration::from_secs(60));
    let filler = Key::parse("filler").unwrap();
    for n in 0..50 {
        let txn = Txn::new().put(filler.clone(), Value::json(&n).unwrap());
        restored.store.commit(txn).await.unwrap();
    }
    let mut all = world.all("audit").await;
    all.reverse();
    all.extend(world.all("audit-seals").await);
    for kv in all {
        restored
            .store
            .commit(Txn::new().create(kv.key, kv.value))
            .await
            .unwrap();
    }
    let custody = Custody {
        format: 1,
        incarnation: Incarnation::first(Uuid::from_u128(1), Uuid::from_u128(2)),
        origin: Origin::Founded,
        since: skyloom_model::Clock::now(&restored.clock),
    };
    let value = Value::json(&custody).unwrap();
    let incarnation = Key::parse(skyloom_model::paths::INCARNATION).unwrap();
    restored
        .store
        .commit(Txn::new().create(incarnation, value))
        .await
        .unwrap();
    restored.write(5, 1).await;
    restored.seal_until(plain, |head| head.entries == 15).await;
    assert_eq!(check(&restored, 15).await, 15);
}
