//! What comes without a commit is written or counted, and what is secret has no way in.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use skyloom_identity::audit::{AuditActor, AuditOutcome, Entry, EntryId, Recorded, StoreAudit, Text, Word};
use skyloom_identity::{AuditSink as _, FieldRules, FieldSpec, Needs, PERMISSIONS, Registry};
use skyloom_model::Secret;
use skyloom_store::{DynBackend, ErrorKind, Key, Txn, Value};
use tokio_util::sync::CancellationToken;

use super::shared::{Fated, Fault, World, id, key_of};

fn denied(world: &World, source: &str) -> Entry {
    Entry {
        outcome: AuditOutcome::Denied {
            code: Word::new("auth.denied"),
        },
        action: Word::new("token:create"),
        source: Some(source.parse().unwrap()),
        ..world.entry()
    }
}

async fn kept(world: &World) -> Vec<Entry> {
    world
        .all("audit")
        .await
        .iter()
        .map(|kv| kv.value.parse().unwrap())
        .collect()
}

fn times(entries: &[Entry]) -> u64 {
    entries
        .iter()
        .map(|e| e.repeated.as_ref().map_or(1, |r| r.times))
        .sum()
}

fn sink(world: &World, store: DynBackend) -> (StoreAudit, skyloom_identity::audit::AuditWriter) {
    StoreAudit::new(store, Arc::new(world.clock.clone()), world.ids.clone())
}

#[tokio::test]
async fn an_entry_is_written_with_what_it_tells_of_or_not_at_all() {
    let world = World::new();
    let (audit, _writer) = sink(&world, world.store.clone());
    let server = Key::parse("r/servers/1").unwrap();
    let change = || Txn::new().create(server.clone(), Value::json("server").unwrap());
    let (one, two) = (world.entry(), world.entry());
    let txn = change().and(audit.part(&one).unwrap());
    assert!(world.store.commit(txn).await.unwrap().committed().is_some());
    let again = change().and(audit.part(&two).unwrap());
    assert!(world.store.commit(again).await.unwrap().committed().is_none());
    assert_eq!(kept(&world).await, std::slice::from_ref(&one));
    assert_eq!(world.all("audit").await[0].key, key_of(&one));
}

#[tokio::test(start_paused = true)]
async fn a_flood_from_one_source_is_counted_and_others_are_written() {
    let world = World::new();
    let (audit, writer) = sink(&world, world.store.clone());
    let stop = CancellationToken::new();
    let calls = async {
        for n in 0..10_000_u128 {
            let mut entry = denied(&world, &format!("2001:db8::{:x}", n % 99));
            entry.actor = AuditActor {
                user: Some(id(n)),
                ..entry.actor
            };
            let recorded = audit.record(entry).await.unwrap();
            assert_eq!(recorded == Recorded::Written, n < 16, "{n}");
        }
        assert_eq!(
            audit.record(denied(&world, "192.0.2.9")).await.unwrap(),
            Recorded::Written
        );
        stop.cancel();
    };
    tokio::join!(writer.run(stop.clone()), calls);
    let all = kept(&world).await;
    assert_eq!((all.len(), times(&all)), (18, 10_001));
    let counted = all.iter().find(|e| e.repeated.is_some()).unwrap();
    assert_eq!(
        (counted.actor.user, counted.source),
        (None, Some("2001:db8::".parse().unwrap()))
    );
    assert!(
        audit.record(world.entry()).await.is_err(),
        "nobody writes any more"
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_while_the_store_is_away() {
    let world = World::new();
    let fated = Fated::new(&world.store, usize::MAX, Fault::Refused, false);
    let (audit, writer) = sink(&world, fated.clone());
    fated.away.store(true, Ordering::SeqCst);
    let stop = CancellationToken::new();
    let calls = async {
        let entries = (0..3000_u32).map(|n| denied(&world, &std::net::Ipv4Addr::from_bits(n).to_string()));
        let records: Vec<_> = entries.map(|entry| audit.record(entry)).collect();
        let all = futures::future::join_all(records);
        let back = async {
            tokio::task::yield_now().await;
            fated.away.store(false, Ordering::SeqCst);
        };
        let (answers, ()) = tokio::join!(all, back);
        let written = answers
            .iter()
            .filter(|a| *a.as_ref().unwrap() == Recorded::Written);
        assert_eq!(written.count(), 1024, "what waits is bounded");
        // A call that is given up is written all the same.
        let given_up = audit.record(denied(&world, "192.0.2.200"));
        let _none = futures::FutureExt::now_or_never(given_up);
        stop.cancel();
    };
    tokio::join!(writer.run(stop.clone()), calls);
    assert_eq!(times(&kept(&world).await), 3001);
}

#[tokio::test(start_paused = true)]
async fn whatever_call_fails_each_entry_is_written_once() {
    for fault in [Fault::Refused, Fault::AnswerLost] {
        for call in 0..8 {
            let world = World::new();
            let (audit, writer) = sink(&world, Fated::new(&world.store, call, fault, false));
            let stop = CancellationToken::new();
            let calls = async {
                let some = |range: std::ops::Range<u32>| {
                    let source = |n| std::net::Ipv4Addr::from_bits(n).to_string();
                    let entries = range.map(|n| denied(&world, &source(n)));
                    futures::future::join_all(entries.map(|entry| audit.record(entry)).collect::<Vec<_>>())
                };
                let later = async {
                    // While the writer waits after what failed: other batches than those that it tried.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    some(10..200).await
                };
                let (first, rest) = tokio::join!(some(0..10), later);
                for answer in first.into_iter().chain(rest) {
                    assert_eq!(answer.unwrap(), Recorded::Written);
                }
                stop.cancel();
            };
            tokio::join!(writer.run(stop.clone()), calls);
            let all = kept(&world).await;
            assert_eq!((all.len(), times(&all)), (200, 200), "{fault:?} at {call}");
        }
    }
}

#[tokio::test]
async fn a_sink_that_nobody_runs_says_so() {
    let world = World::new();
    let (audit, writer) = sink(&world, world.store.clone());
    let stop = CancellationToken::new();
    stop.cancel();
    writer.run(stop).await;
    let error = audit.record(world.entry()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[test]
fn texts_of_callers_are_bounded_and_escaped() {
    let text = Text::new("a\r\n2026 fake line\u{1b}[31m\u{202e}\u{200b}云\\");
    assert_eq!(
        text.as_str(),
        "a\\r\\n2026 fake line\\u{1b}[31m\\u{202e}\\u{200b}云\\\\"
    );
    for long in ["x".repeat(1_000_000), "云".repeat(1000), "\u{1b}".repeat(1000)] {
        let text = Text::new(&long);
        assert!(
            text.as_str().len() <= 256 && text.as_str().ends_with('…'),
            "{text}"
        );
    }
    assert_eq!(Text::new("").as_str(), "");
    assert_eq!(Text::new(&"x".repeat(253)).as_str().len(), 253);
}

/// A request is refused, as a handler does it, and told to the audit: what it carried is nowhere.
#[tokio::test]
async fn no_secret_and_nothing_of_a_request_comes_into_an_entry() {
    const CANARY: &str = "canary-5f1e0c";
    const FIELDS: &[FieldSpec] = &[
        FieldSpec {
            kind: "server",
            field: "name",
            read: Needs::Nothing,
            write: Needs::Nothing,
        },
        FieldSpec {
            kind: "server",
            field: "password",
            read: Needs::Never,
            write: Needs::Nothing,
        },
    ];
    #[derive(Debug, serde::Deserialize)]
    struct Login {
        user: String,
        password: Secret<String>,
    }
    let world = World::new();
    let (audit, _writer) = sink(&world, world.store.clone());
    let login: Login = serde_json::from_value(json!({"user": CANARY, "password": CANARY})).unwrap();
    assert_eq!(
        (login.user.as_str(), login.password.expose().as_str()),
        (CANARY, CANARY)
    );
    let body = json!({"name": CANARY, "password": CANARY, CANARY: 1});
    let fields = body.as_object().unwrap();
    let rules = FieldRules::new(&Registry::new(&[PERMISSIONS]).unwrap(), &[FIELDS]).unwrap();
    assert!(
        rules
            .check("server", fields.keys().map(String::as_str), |_| true)
            .is_err()
    );
    // Only names that the program knows can be made into words: those of the table, never those of the body.
    let changes = rules
        .names("server")
        .filter(|name| fields.contains_key(*name))
        .map(Word::new);
    let entry = Entry {
        id: EntryId::fresh(&*world.ids),
        actor: AuditActor::unknown(vec![skyloom_identity::Method::Password]),
        changes: changes.collect(),
        outcome: AuditOutcome::Failed {
            code: Word::new("field.unknown"),
        },
        ..world.entry()
    };
    assert_eq!(entry.changes, [Word::new("name"), Word::new("password")]);
    world.store.commit(audit.part(&entry).unwrap()).await.unwrap();
    let mut seen = format!("{entry:?} {login:?}").replace(&format!("user: {CANARY:?}"), "");
    for kv in world.all("audit").await {
        seen.push_str(std::str::from_utf8(kv.value.bytes()).unwrap());
    }
    assert!(!seen.contains(CANARY) && seen.contains("field.unknown"));
}
