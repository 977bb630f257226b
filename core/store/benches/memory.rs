//! How fast the memory store is: commits on one thread, with and without watchers and history, and the way of a commit
//! to its watcher. Prints one line each; compares nothing.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use skyloom_model::{Clock as _, ManualClock, SystemClock};
use skyloom_store::{
    Key, MemoryConfig, MemoryStore, Prefix, Revision, Store as _, Txn, Value, Watch as _, WatchOptions,
};

const COMMITS: u32 = 200_000;

fn key(path: &str) -> Key {
    Key::parse(path).expect("a key")
}

#[expect(clippy::print_stdout, reason = "a report to the person who runs it")]
fn report(what: &str, took: Duration, count: u32) {
    println!(
        "{what:<60} {:>10.0}/s {:>10.2?} each",
        f64::from(count) / took.as_secs_f64(),
        took / count
    );
}

/// Commits into a store with this many documents, this long a history and this many watchers of other prefixes.
fn commits(clock: &SystemClock, documents: usize, history: usize, watchers: usize) {
    let store = MemoryStore::new(
        Arc::new(ManualClock::new()),
        MemoryConfig::default().with_history(history),
    );
    let value = Value::json(&serde_json::json!({"state": "running", "host": "host-1", "generation": 17}))
        .expect("json");
    for n in 0..documents {
        let txn = Txn::new().put(key(&format!("others/{n}")), value.clone());
        store
            .commit(txn)
            .now_or_never()
            .expect("no waiting")
            .expect("a commit");
    }
    let watches: Vec<_> = (0..watchers)
        .map(|n| Prefix::parse(&format!("watched/{n}")).expect("a prefix"))
        .map(|p| store.watch(&p, WatchOptions::after(store.revision())))
        .collect();
    let start = clock.monotonic();
    let mut last = Revision(0);
    for n in 0..COMMITS {
        let path = key(&format!("hosts/{}/vms/{}", n % 100, n % 1000));
        let txn = Txn::new().put(path, value.clone());
        last = store
            .commit(txn)
            .now_or_never()
            .expect("no waiting")
            .expect("a commit")
            .committed()
            .unwrap_or(last);
    }
    let what = format!("{documents} documents, history {history}, {watchers} watchers elsewhere");
    report(&what, clock.monotonic() - start, COMMITS);
    drop(watches);
}

/// One commit after the other, each waited for on another thread.
fn latency(clock: &SystemClock) {
    const ROUNDS: u32 = 20_000;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("a runtime");
    let store = Arc::new(MemoryStore::new(
        Arc::new(ManualClock::new()),
        MemoryConfig::default(),
    ));
    let mut there = store.watch(
        &Prefix::parse("ping").expect("a prefix"),
        WatchOptions::after(Revision(0)),
    );
    let mut back = store.watch(
        &Prefix::parse("pong").expect("a prefix"),
        WatchOptions::after(Revision(0)),
    );
    let put = |path: &str| Txn::new().put(key(path), Value::json(&1).expect("json"));
    let took = runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        let (answers, pong) = (Arc::clone(&store), put("pong/1"));
        tasks.spawn(async move {
            for _ in 0..ROUNDS {
                there.next().await;
                answers.commit(pong.clone()).await.expect("a commit");
            }
        });
        let start = clock.monotonic();
        let (asks, ping) = (Arc::clone(&store), put("ping/1"));
        let asker = tasks.spawn(async move {
            for _ in 0..ROUNDS {
                asks.commit(ping.clone()).await.expect("a commit");
                back.next().await;
            }
        });
        drop(asker);
        tasks.join_all().await;
        clock.monotonic() - start
    });
    report("commit to watcher, task to task", took, 2 * ROUNDS);
}

fn main() {
    let clock = SystemClock::new();
    commits(&clock, 0, 10_000, 0);
    commits(&clock, 100_000, 10_000, 0);
    commits(&clock, 100_000, 0, 0);
    commits(&clock, 0, 200_000, 0);
    commits(&clock, 0, 10_000, 10_000);
    latency(&clock);
}
