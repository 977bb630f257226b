//! Random groups of transactions against the memory store.
//!
//! Transactions that are queued together share a batch, and the store may put them in any order. So the answers are
//! checked for *an* order: that of the revisions for those that wrote; and for each of the others some moment at
//! which its answer was right. Afterwards everything that can be read must be the same.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use skyloom_model::ManualClock;
use skyloom_store::{
    Backend, Change, Guard, MemoryConfig, MemoryStore, Outcome, Revision, Store as _, Txn, WatchOptions,
    Write,
};
use skyloom_store_sql::{Engine, ServerConfig};

use crate::servers::{Handle, Server};
use crate::support::{all, commits_until, json, key, prefix, server, together};

const KEYS: [&str; 6] = ["a/1", "a/10", "a/1/x", "b/1", "b/2", "c"];
const CASES: u32 = 24;

#[derive(Debug, Clone, Copy)]
enum Check {
    No,
    Absent,
    /// So many revisions back.
    Recent(u64),
    /// A lease that is held, or not.
    Lease(bool),
}

/// Key, and what is written there (`None` deletes; no write at all for a guard alone) under which guard.
type Part = (usize, Option<Option<u8>>, Check);

fn part() -> impl Strategy<Value = Part> {
    let check = prop_oneof![
        4 => Just(Check::No),
        2 => Just(Check::Absent),
        3 => (0..4u64).prop_map(Check::Recent),
        1 => any::<bool>().prop_map(Check::Lease),
    ];
    let write = proptest::option::weighted(0.85, proptest::option::weighted(0.7, 0..9u8));
    (0..KEYS.len(), write, check)
}

fn groups() -> impl Strategy<Value = Vec<Vec<Vec<Part>>>> {
    let txn = proptest::collection::vec(part(), 0..4);
    proptest::collection::vec(proptest::collection::vec(txn, 1..9), 1..7)
}

fn txn(parts: &[Part], head: Revision, epoch: u64) -> Txn {
    let mut txn = Txn::new();
    for (k, write, check) in parts {
        let k = key(KEYS[*k]);
        txn = match check {
            Check::No => txn,
            Check::Absent => txn.guard(Guard::Absent(k.clone())),
            Check::Recent(back) => {
                txn.guard(Guard::Revision(k.clone(), Revision(head.0.saturating_sub(*back))))
            }
            Check::Lease(held) => {
                let name = skyloom_store::LeaseName::parse("l").unwrap();
                txn.guard(Guard::Lease(name, if *held { epoch } else { epoch + 1 }))
            }
        };
        if txn.writes.iter().any(|w| *w.key() == k) {
            continue;
        }
        txn = match write {
            Some(Some(n)) => txn.put(k, json(&format!("{{\"n\":{n}}}"))),
            Some(None) => txn.delete(k),
            None => txn,
        };
    }
    txn
}

/// What a transaction that writes nothing would be told now; `None` when it would write.
async fn told(memory: &MemoryStore, txn: &Txn, epoch: u64) -> Option<Outcome> {
    for (guard, g) in txn.guards.iter().enumerate() {
        let (holds, current) = match g {
            Guard::Absent(k) => {
                let current = memory.get(k).await.unwrap().map(|kv| kv.modified);
                (current.is_none(), current)
            }
            Guard::Revision(k, wanted) => {
                let current = memory.get(k).await.unwrap().map(|kv| kv.modified);
                (current == Some(*wanted), current)
            }
            Guard::Lease(_, e) => (*e == epoch, None),
        };
        if !holds {
            return Some(Outcome::Conflict { guard, current });
        }
    }
    for write in &txn.writes {
        if matches!(write, Write::Put(..)) || memory.get(write.key()).await.unwrap().is_some() {
            return None;
        }
    }
    Some(Outcome::Committed {
        revision: memory.revision(),
    })
}

/// Where one case is tried.
struct Place {
    config: ServerConfig,
    server: Arc<Server>,
    store: Handle,
}

async fn check_group(place: &Place, memory: &MemoryStore, group: &[Vec<Part>], epoch: u64) {
    let head = memory.revision();
    let txns: Vec<Txn> = group.iter().map(|parts| txn(parts, head, epoch)).collect();
    let Place {
        config,
        server,
        store,
    } = place;
    let answers = together(config, server, store, txns.clone()).await;
    let answers: Vec<Outcome> = answers.into_iter().map(|a| a.unwrap()).collect();
    // Whoever put something, or whose revision nobody else has: found by trying them in the order of their revisions.
    let mut right = vec![false; txns.len()];
    loop {
        for (n, txn) in txns.iter().enumerate() {
            right[n] = right[n] || told(memory, txn, epoch).await.as_ref() == Some(&answers[n]);
        }
        let next = Outcome::Committed {
            revision: Revision(memory.revision().0 + 1),
        };
        let mut writer = None;
        for (n, txn) in txns.iter().enumerate() {
            if answers[n] == next && told(memory, txn, epoch).await.is_none() {
                assert!(writer.is_none(), "two transactions got {next:?}");
                writer = Some(n);
            }
        }
        let Some(n) = writer else { break };
        // The memory store has no such lease; its guards were right, as `told` says.
        let mut bare = txns[n].clone();
        bare.guards.retain(|g| !matches!(g, Guard::Lease(..)));
        assert_eq!(memory.commit(bare).await.unwrap(), next);
        right[n] = true;
    }
    for (n, right) in right.iter().enumerate() {
        assert!(
            right,
            "{:?} cannot have been told {:?}\nof {txns:?}\n{answers:?}",
            txns[n], answers[n]
        );
    }
}

async fn events(store: &dyn Backend, after: u64, to: Revision) -> Vec<(Revision, Vec<Change>)> {
    if Revision(after) == to {
        return Vec::new();
    }
    let mut stream = store.watch(&prefix(""), WatchOptions::after(Revision(after)));
    commits_until(&mut stream, to).await.unwrap()
}

async fn compare(backend: &dyn Backend, memory: &MemoryStore) {
    let newest = memory.revision();
    for at in (0..=newest.0).map(|r| Some(Revision(r))).chain([None]) {
        for below in ["", "a", "a/1", "none"] {
            let have = all(backend, below, at, 3).await.unwrap();
            let want = all(memory, below, at, 3).await.unwrap();
            assert_eq!(have, want, "list of {below:?} at {at:?}");
        }
    }
    for after in [0, newest.0 / 2, newest.0] {
        assert_eq!(
            events(backend, after, newest).await,
            events(memory, after, newest).await,
            "watch after {after}"
        );
    }
}

pub(crate) async fn random_groups_answer_as_the_memory_store(engine: Engine) {
    let server = server(engine).await;
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, b"thirty-two bytes of a fixed seed");
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    for _ in 0..CASES {
        let groups = groups().new_tree(&mut runner).unwrap().current();
        let config = server.config();
        let store = Handle::create(config.clone()).await.unwrap();
        let other = Handle::open(config.clone()).await.unwrap();
        let memory = MemoryStore::new(Arc::new(ManualClock::new()), MemoryConfig::default());
        let name = skyloom_store::LeaseName::parse("l").unwrap();
        let ttl = std::time::Duration::from_secs(3600);
        let granted = store
            .backend()
            .grant(&name, "test", ttl, skyloom_store::LeaseMode::Acquire)
            .await;
        let skyloom_store::Grant::Granted { epoch } = granted.unwrap() else {
            panic!("held by nobody")
        };
        let place = Place {
            config,
            server: Arc::clone(&server),
            store: store.clone(),
        };
        for group in &groups {
            check_group(&place, &memory, group, epoch).await;
        }
        compare(&*store.backend(), &memory).await;
        compare(&*other.backend(), &memory).await;
        store.close().await.unwrap();
        other.close().await.unwrap();
    }
}
