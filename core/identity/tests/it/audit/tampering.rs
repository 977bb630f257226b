//! Each kind of tampering is found, and nothing else is.

use skyloom_identity::audit::{Noted, Problem, Report, Seal, SealHead, SealerConfig, VerifyOptions, verify};
use skyloom_store::{Key, KeyValue, Txn, Value};

use super::shared::{DAY, World, key_of};

/// 20 entries in 5 seals, and one that is not sealed yet.
async fn sealed() -> World {
    let world = World::new();
    world.write(20, 2).await;
    world
        .seal_until(SealerConfig::new("one").with_most(4), |head| head.entries == 20)
        .await;
    world.write(1, 1).await;
    world
}

async fn look(world: &World) -> Report {
    verify(&*world.store, &VerifyOptions::default()).await.unwrap()
}

async fn found(world: &World) -> Vec<Problem> {
    let report = look(world).await;
    let problems = report.findings.iter().map(|finding| finding.problem);
    // Each is said with what it is about, and in words.
    assert!(
        report
            .findings
            .iter()
            .all(|f| (f.seal.is_some() || f.entry.is_some()) && !f.message.is_empty())
    );
    let mut problems: Vec<Problem> = problems.collect();
    problems.sort();
    problems.dedup();
    problems
}

async fn put(world: &World, key: &Key, value: &impl serde::Serialize) {
    let txn = Txn::new().put(key.clone(), Value::json(value).unwrap());
    world.store.commit(txn).await.unwrap();
}

async fn delete(world: &World, key: &Key) {
    world.store.commit(Txn::new().delete(key.clone())).await.unwrap();
}

fn json(kv: &KeyValue) -> serde_json::Value {
    kv.value.parse().unwrap()
}

fn seal_key(number: u64) -> Key {
    Key::parse(&format!("audit-seals/{number:016}")).unwrap()
}

async fn seal(world: &World, number: u64) -> Seal {
    world
        .seals()
        .await
        .into_iter()
        .find(|seal| seal.number == number)
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_nobody_touched_is_whole_however_the_store_writes_it() {
    let world = sealed().await;
    let report = look(&world).await;
    assert!(report.is_whole(), "{report:?}");
    assert_eq!((report.seals, report.entries, report.waiting), (5, 20, 1));
    for kv in world.all("audit").await {
        let spaced = serde_json::to_string_pretty(&json(&kv)).unwrap();
        let txn = Txn::new().put(kv.key, Value::from_json_bytes(spaced));
        world.store.commit(txn).await.unwrap();
    }
    assert!(look(&world).await.is_whole());
    for (first, last) in [(1, 5), (2, 4), (5, 5), (3, 99)] {
        let options = VerifyOptions {
            first,
            last: Some(last),
            ..VerifyOptions::default()
        };
        let report = verify(&*world.store, &options).await.unwrap();
        assert!(
            report.is_whole() && report.entries == 4 * report.seals,
            "{first}..={last}: {report:?}"
        );
    }
    assert!(look(&World::new()).await.is_whole());
}

#[tokio::test(start_paused = true)]
async fn entries_that_are_changed_removed_swapped_or_put_in_are_found() {
    let world = sealed().await;
    let all = world.all("audit").await;
    let mut changed = json(&all[3]);
    changed["actor"]["user"] = "00000000-0000-0000-0000-000000000099".into();
    put(&world, &all[3].key, &changed).await;
    assert_eq!(found(&world).await, [Problem::EntryChanged]);

    let world = sealed().await;
    let mut more = json(&all[3]);
    more["note"] = "a field that no version knows".into();
    put(&world, &world.all("audit").await[3].key, &more).await;
    assert_eq!(found(&world).await, [Problem::EntryChanged]);

    let world = sealed().await;
    delete(&world, &world.all("audit").await[7].key).await;
    assert_eq!(found(&world).await, [Problem::EntryRemoved]);
    let removed = look(&world).await.findings.remove(0);
    assert_eq!(removed.seal, Some(2));
    assert!(removed.entry.unwrap().starts_with("2026-01-01/"));

    let world = sealed().await;
    let all = world.all("audit").await;
    put(&world, &all[1].key, &json(&all[9])).await;
    put(&world, &all[9].key, &json(&all[1])).await;
    assert_eq!(found(&world).await, [Problem::EntryReordered]);

    // Put in as if it had always been there: before it is sealed, and after.
    let world = sealed().await;
    let late = world.entry();
    world.clock.advance(DAY);
    world.write(1, 1).await;
    world
        .seal_until(SealerConfig::new("one"), |head| head.entries == 22)
        .await;
    assert!(look(&world).await.is_whole());
    put(&world, &key_of(&late), &late).await;
    assert_eq!(found(&world).await, [Problem::EntryInserted]);
    world
        .seal_until(SealerConfig::new("one"), |head| head.entries == 23)
        .await;
    assert_eq!(found(&world).await, [Problem::EntryInserted]);

    // Removed, and put in again later: in two seals.
    let world = sealed().await;
    let all = world.all("audit").await;
    delete(&world, &all[2].key).await;
    put(&world, &all[2].key, &json(&all[2])).await;
    world
        .seal_until(SealerConfig::new("one"), |head| head.entries == 22)
        .await;
    assert_eq!(found(&world).await, [Problem::EntryInserted]);
}

#[tokio::test(start_paused = true)]
async fn seals_that_are_missing_changed_or_made_anew_are_found() {
    let world = sealed().await;
    delete(&world, &seal_key(3)).await;
    assert!(found(&world).await.contains(&Problem::SealMissing));

    // An entry and its hash, root and all, but not what follows.
    let world = sealed().await;
    let entry = world.all("audit").await[5].clone();
    delete(&world, &entry.key).await;
    let mut forged = seal(&world, 2).await;
    let other = seal(&world, 3).await;
    forged.entries = other.entries.clone();
    (forged.root, forged.count) = (other.root.clone(), other.count);
    put(&world, &seal_key(2), &forged).await;
    assert!(found(&world).await.contains(&Problem::SealChanged));

    let world = sealed().await;
    let mut swapped = seal(&world, 4).await;
    swapped.entries.as_mut().unwrap().swap(0, 1);
    put(&world, &seal_key(4), &swapped).await;
    assert_eq!(found(&world).await, [Problem::SealChanged]);

    // The list names another entry, or another content.
    for what in 0..2 {
        let world = sealed().await;
        let (mut forged, other) = (seal(&world, 4).await, seal(&world, 5).await.entries.unwrap());
        let leaf = &mut forged.entries.as_mut().unwrap()[0];
        if what == 0 {
            leaf.0 = other[0].0.clone();
        } else {
            leaf.1 = other[0].1.clone();
        }
        put(&world, &seal_key(4), &forged).await;
        assert!(found(&world).await.contains(&Problem::SealChanged));
    }

    let world = sealed().await;
    let mut emptied = seal(&world, 4).await;
    emptied.entries = None;
    put(&world, &seal_key(4), &emptied).await;
    assert!(found(&world).await.contains(&Problem::SealChanged));

    let world = sealed().await;
    let (two, three) = (seal(&world, 2).await, seal(&world, 3).await);
    put(&world, &seal_key(2), &three).await;
    put(&world, &seal_key(3), &two).await;
    assert!(found(&world).await.contains(&Problem::SealChanged));

    let world = sealed().await;
    put(&world, &seal_key(4), &"nothing").await;
    assert!(found(&world).await.contains(&Problem::SealChanged));
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_was_cut_or_made_anew_is_told_from_one_that_was_noted() {
    let head_key = Key::parse("audit-seals/head").unwrap();
    let world = sealed().await;
    let noted = look(&world).await.head.unwrap();
    let known = |noted: &Noted| VerifyOptions {
        known: vec![noted.clone()],
        ..VerifyOptions::default()
    };
    assert!(verify(&*world.store, &known(&noted)).await.unwrap().is_whole());

    // The head goes back, the seal is still there.
    let head = world.head().await.unwrap();
    let last = Noted {
        number: 4,
        hash: seal(&world, 4).await.hash(),
    };
    put(&world, &head_key, &SealHead { last, ..head.clone() }).await;
    assert!(found(&world).await.contains(&Problem::HeadWrong));
    // The seal goes too, with its entries: only who noted the end can tell.
    let gone = seal(&world, 5).await.entries.unwrap();
    for leaf in gone {
        delete(&world, &Key::parse(&format!("audit/{}", leaf.0)).unwrap()).await;
    }
    delete(&world, &seal_key(5)).await;
    assert!(look(&world).await.is_whole());
    let report = verify(&*world.store, &known(&noted)).await.unwrap();
    assert_eq!(report.findings[0].problem, Problem::SealMissing);

    // The last seal made anew, with the head.
    let world = sealed().await;
    let mut last = seal(&world, 5).await;
    last.at = skyloom_model::Timestamp::UNIX_EPOCH;
    put(&world, &seal_key(5), &last).await;
    assert!(found(&world).await.contains(&Problem::HeadWrong));
    let hash = last.hash();
    put(
        &world,
        &head_key,
        &SealHead {
            last: Noted { number: 5, hash },
            ..head
        },
    )
    .await;
    let report = verify(&*world.store, &known(&noted)).await.unwrap();
    assert_eq!(report.findings[0].problem, Problem::SealChanged);
}

#[tokio::test(start_paused = true)]
async fn who_removes_entries_cannot_say_that_they_were_old() {
    let world = sealed().await;
    let mut head = world.head().await.unwrap();
    head.removed = Some(skyloom_identity::audit::SealsRemoved {
        through: 2,
        by: 4,
        cleaned: 2,
    });
    for kv in &world.all("audit").await[..8] {
        delete(&world, &kv.key).await;
    }
    put(&world, &Key::parse("audit-seals/head").unwrap(), &head).await;
    assert_eq!(found(&world).await, [Problem::HeadWrong]);
}
