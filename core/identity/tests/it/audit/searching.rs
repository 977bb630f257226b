//! Searches find what a naive filter finds, in pages, and never more than the scope.

use proptest::prelude::*;
use skyloom_identity::Covered;
use skyloom_identity::audit::{
    AuditFilter, AuditOutcome, AuditScope, Entry, Repeated, Text, Word, search_audit,
};
use skyloom_model::{Clock as _, Timestamp};
use skyloom_store::{ErrorKind, Txn, Value};
use std::time::Duration;
use uuid::Uuid;

use super::shared::{DAY, World, id, key_of};

/// Entries of `days` days that differ in all that can be searched for.
async fn varied(days: u32, each: u32) -> (World, Vec<Entry>) {
    let world = World::new();
    let mut all = Vec::new();
    for n in 0..days * each {
        let project = u128::from(n % 4);
        let entry = Entry {
            action: Word::new(["server:start", "server:stop", "user:create"][n as usize % 3]),
            outcome: match n % 5 {
                0 => AuditOutcome::Denied {
                    code: Word::new("role.denied"),
                },
                1 => AuditOutcome::Failed {
                    code: Word::new("quota.exceeded"),
                },
                _ => AuditOutcome::Done,
            },
            request_id: Text::new(&format!("req-{}", n % 7)),
            ..world.entry()
        };
        let mut entry = entry;
        entry.actor.user = Some(id(u128::from(n % 3)));
        entry.object.id = Some(Uuid::from_u128(u128::from(n % 6)));
        entry.object.scope = match n % 6 {
            0 => AuditScope::System,
            1 => AuditScope::Domain {
                id: id(10 + project / 2),
            },
            _ => AuditScope::Project {
                id: id(20 + project),
                domain: id(10 + project / 2),
            },
        };
        if n % 11 == 0 {
            let until = entry.at.checked_add(jiff::SignedDuration::from_secs(9)).unwrap();
            entry.repeated = Some(Repeated { times: 3, until });
        }
        world
            .store
            .commit(Txn::new().create(key_of(&entry), Value::json(&entry).unwrap()))
            .await
            .unwrap();
        all.push(entry);
        world.clock.advance(DAY / each);
    }
    (world, all)
}

async fn search(world: &World, scope: Covered, filter: &AuditFilter, limit: usize) -> Vec<Entry> {
    let (mut all, mut cursor, mut calls) = (Vec::new(), None, 0);
    loop {
        let page = search_audit(&*world.store, scope, filter, limit, cursor.as_deref())
            .await
            .unwrap();
        assert!(page.items.len() <= limit);
        all.extend(page.items);
        calls += 1;
        assert!(calls < 10_000, "it never ends");
        match page.next {
            Some(next) => cursor = Some(next),
            None => return all,
        }
    }
}

fn naive(scope: Covered, filter: &AuditFilter, entry: &Entry) -> bool {
    let inside = match (scope, entry.object.scope) {
        (Covered::All, _) => true,
        (Covered::Project(mine), AuditScope::Project { id, .. }) => mine == id,
        (Covered::Domain(mine), AuditScope::Project { domain, .. }) => mine == domain,
        (Covered::Domain(mine), AuditScope::Domain { id }) => mine == id,
        _ => false,
    };
    let word = match &entry.outcome {
        AuditOutcome::Done => vec!["done"],
        AuditOutcome::Denied { code } => vec!["denied", code.as_str()],
        AuditOutcome::Failed { code } => vec!["failed", code.as_str()],
    };
    let end = entry.repeated.as_ref().map_or(entry.at, |r| r.until);
    inside
        && filter.actor.is_none_or(|a| entry.actor.user == Some(a))
        && filter.object.is_none_or(|o| entry.object.id == Some(o))
        && filter.action.as_ref().is_none_or(|a| a == entry.action.as_str())
        && filter.outcome.as_ref().is_none_or(|o| word.contains(&o.as_str()))
        && filter
            .request_id
            .as_ref()
            .is_none_or(|r| r == entry.request_id.as_str())
        && filter.from.is_none_or(|from| end >= from)
        && filter.until.is_none_or(|until| entry.at < until)
}

fn moment(hours: i64) -> Timestamp {
    let start = skyloom_model::ManualClock::new().now();
    start
        .checked_add(jiff::SignedDuration::from_hours(hours))
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_search_finds_what_a_naive_filter_finds(
        scope in prop_oneof![
            3 => Just(Covered::All), 1 => Just(Covered::Nothing),
            1 => (20_u128..25).prop_map(|p| Covered::Project(id(p))),
            1 => (10_u128..13).prop_map(|d| Covered::Domain(id(d))),
        ],
        actor in prop::option::weighted(0.3, 0_u128..4),
        object in prop::option::weighted(0.3, 0_u128..7),
        action in prop::option::weighted(0.3, prop::sample::select(vec!["server:start", "user:create", "x"])),
        outcome in prop::option::weighted(0.3, prop::sample::select(vec!["done", "denied", "failed", "quota.exceeded"])),
        request in prop::option::weighted(0.3, 0_u8..8),
        span in prop::option::weighted(0.5, (0_i64..150, 0_i64..150)),
        limit in 1_usize..60,
    ) {
        let filter = AuditFilter {
            actor: actor.map(id),
            object: object.map(Uuid::from_u128),
            action: action.map(str::to_owned),
            outcome: outcome.map(str::to_owned),
            request_id: request.map(|n| format!("req-{n}")),
            from: span.map(|(from, _)| moment(from)),
            until: span.map(|(from, length)| moment(from + length)),
            kind: Some("server".to_owned()),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (world, all) = varied(6, 20).await;
            let wanted: Vec<Entry> = all.into_iter().filter(|e| naive(scope, &filter, e)).collect();
            assert_eq!(search(&world, scope, &filter, limit).await, wanted);
        });
    }
}

#[tokio::test]
async fn one_call_does_bounded_work_and_goes_on_where_it_stopped() {
    let world = World::new();
    world.write(5000, 50).await;
    let rare = AuditFilter {
        action: Some("server:delete".to_owned()),
        ..AuditFilter::default()
    };
    let page = search_audit(&*world.store, Covered::All, &rare, 10, None)
        .await
        .unwrap();
    assert!(
        page.items.is_empty() && page.next.is_some(),
        "it stops before the end"
    );
    assert!(search(&world, Covered::All, &rare, 10).await.is_empty());
    assert_eq!(
        search(&world, Covered::All, &AuditFilter::default(), usize::MAX)
            .await
            .len(),
        5000
    );
}

#[tokio::test]
async fn cursors_are_taken_as_they_were_given() {
    let (world, all) = varied(1, 10).await;
    world.clock.advance(Duration::from_secs(1));
    let id = all[0].id;
    for bad in [
        "",
        "/",
        "x",
        "2026-01-01",
        &format!("{id}"),
        &format!("2026-01-01/{id}/x"),
        "../identity/users",
        &format!("2026-13-01/{id}"),
        &format!("2026-01-01/{}", "x".repeat(1000)),
        "2026-01-01/\u{0}",
    ] {
        let answer = search_audit(&*world.store, Covered::All, &AuditFilter::default(), 5, Some(bad)).await;
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Invalid, "{bad:?}");
    }
    // Somebody else's cursor shows nothing of theirs.
    let cursor = format!("2026-01-01/{id}");
    let filter = AuditFilter::default();
    let page = search_audit(&*world.store, Covered::Nothing, &filter, 5, Some(&cursor))
        .await
        .unwrap();
    assert!(page.items.is_empty() && page.next.is_none());
}
