//! Long random histories by two stores, beside the store in memory: every answer must be the same.

use std::sync::Arc;

use libtest_mimic::Trial;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use skyloom_model::ManualClock;
use skyloom_store::{Guard, KeyValue, MemoryConfig, MemoryStore, Outcome, Revision, Store, Txn, Value};

use crate::support::Server;
use crate::tools::{Events, all, key, open, patient};
use crate::trial;

pub(crate) fn trials(server: &Arc<Server>) -> Vec<Trial> {
    vec![trial(
        "model::answers_as_the_store_in_memory",
        server,
        same_answers,
    )]
}

/// A guard or a write on one of a few keys; guards name revisions relative to the present one.
#[derive(Debug, Clone)]
enum Step {
    Absent(u8),
    Modified(u8, u64),
    Put(u8, serde_json::Value),
    Delete(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![
        any::<u64>().prop_map(serde_json::Value::from),
        any::<f64>().prop_map(serde_json::Value::from),
        "[a-z$.]{0,4}".prop_map(|name| serde_json::json!({ name: [1, null, "ü"] })),
    ];
    prop_oneof![
        1 => (0..6_u8).prop_map(Step::Absent),
        2 => (0..6_u8, 0..6_u64).prop_map(|(k, back)| Step::Modified(k, back)),
        5 => (0..6_u8, value).prop_map(|(k, v)| Step::Put(k, v)),
        2 => (0..6_u8).prop_map(Step::Delete),
    ]
}

fn txn(steps: &[Step], now: Revision) -> Txn {
    let path = |k: u8| key(&format!("a/{k}"));
    let mut written = Vec::new();
    steps.iter().fold(Txn::new(), |txn, step| match step {
        Step::Absent(k) => txn.guard(Guard::Absent(path(*k))),
        Step::Modified(k, back) => {
            txn.guard(Guard::Revision(path(*k), Revision(now.0.saturating_sub(*back))))
        }
        Step::Put(k, _) | Step::Delete(k) if written.contains(k) => txn,
        Step::Put(k, v) => {
            written.push(*k);
            txn.put(path(*k), Value::json(v).unwrap())
        }
        Step::Delete(k) => {
            written.push(*k);
            txn.delete(path(*k))
        }
    })
}

async fn listed(store: &dyn Store, at: Option<Revision>) -> Vec<KeyValue> {
    all(store, "a", at, 2).await.unwrap()
}

async fn same_answers(server: Arc<Server>) {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let history = prop::collection::vec(prop::collection::vec(step(), 1..4), 120..121);
    let history = history.new_tree(&mut runner).unwrap().current();
    let config = patient(&server);
    let stores = [open(&config).await, open(&config).await];
    let memory = MemoryStore::new(Arc::new(ManualClock::new()), MemoryConfig::default());
    let (mut done, mut refused) = (0, 0);
    for (n, steps) in history.iter().enumerate() {
        let txn = txn(steps, memory.revision());
        let wanted = memory.commit(txn.clone()).await.unwrap();
        let found = stores[n % 2].commit(txn.clone()).await.unwrap();
        assert_eq!(found, wanted, "commit {n}: {txn:?}");
        match wanted {
            Outcome::Committed { .. } => done += 1,
            Outcome::Conflict { .. } => refused += 1,
        }
    }
    assert!(done > 40 && refused > 20, "{done} commits, {refused} conflicts");
    let last = memory.revision();
    for at in (0..=last.0).step_by(7).map(Revision).chain([last]) {
        let wanted = listed(&memory, Some(at)).await;
        assert_eq!(listed(&*stores[0], Some(at)).await, wanted, "as of {at}");
    }
    let memory_watch = skyloom_store::Watch::watch(
        &memory,
        &crate::tools::prefix("a"),
        skyloom_store::WatchOptions::after(Revision(0)),
    );
    let mut wanted = futures::StreamExt::boxed(memory_watch);
    let mut found = Events::after(&stores[1], "a", Revision(0));
    loop {
        let event = futures::StreamExt::next(&mut wanted).await.unwrap().unwrap();
        let skyloom_store::WatchEvent::Commit { revision, changes } = event else {
            continue;
        };
        assert_eq!(found.commit().await, (revision, changes));
        if revision == last {
            break;
        }
    }
    for store in stores {
        store.close().await;
    }
}
