//! How many commits the in-process hub delivers per second: 1,000 watchers of one prefix on two threads, 1,000 commits
//! published one by one and in the groups of a group commit. Every delivery is counted where the watcher takes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use skyloom_model::{Clock as _, SystemClock};
use skyloom_store::feed::{Commit, Hub, Live};
use skyloom_store::{Change, Key, KeyValue, Prefix, Revision, Value};
use tokio::task::JoinSet;

const WATCHERS: usize = 1000;
const COMMITS: u64 = 1000;
const ROUNDS: u64 = 10;

fn commit(revision: u64) -> Arc<Commit> {
    let revision = Revision(revision);
    let value = serde_json::json!({"state": "running", "host": "host-1", "generation": 17});
    let document = KeyValue {
        key: Key::parse(&format!("events/{}", revision.0 % 100)).expect("a key"),
        value: Value::json(&value).expect("json"),
        created: revision,
        modified: revision,
    };
    Arc::new(Commit {
        revision,
        changes: vec![Change::Put(document)],
    })
}

/// Deliveries per second when commits come in groups of `group`.
async fn rate(group: usize) -> f64 {
    let clock = SystemClock::new();
    let hub = Arc::new(Hub::new(Revision(0), Revision(0)));
    let prefix = Prefix::parse("events").expect("a prefix");
    let delivered = Arc::new(AtomicUsize::new(0));
    let total = COMMITS * ROUNDS;
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS {
        let mut subscription = hub.subscribe(&prefix, 1 << 20);
        let delivered = Arc::clone(&delivered);
        watchers.spawn(async move {
            let mut seen = 0;
            while seen < total {
                if let Live::Commit(commit) = subscription.next().await.expect("nobody is lost") {
                    assert!(commit.revision.0 > seen);
                    seen = commit.revision.0;
                }
            }
            delivered.fetch_add(seen as usize, Ordering::SeqCst);
        });
    }
    let commits: Vec<_> = (1..=total).map(commit).collect();
    let begin = clock.monotonic();
    for group in commits.chunks(group) {
        let last = group.last().map_or(Revision(0), |c| c.revision);
        hub.publish(group, last, Revision(0));
        tokio::task::yield_now().await;
    }
    while let Some(ended) = watchers.join_next().await {
        ended.expect("a watcher");
    }
    let took = clock.monotonic() - begin;
    delivered.load(Ordering::SeqCst) as f64 / took.as_secs_f64()
}

#[expect(clippy::print_stdout, reason = "a report to the person who runs it")]
fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build();
    let runtime = runtime.expect("a runtime");
    println!(
        "\n| the hub, {WATCHERS} watchers, {} commits | deliveries | goal |\n| --- | --- | --- |",
        COMMITS * ROUNDS
    );
    for group in [1, 16, 64] {
        let rate = runtime.block_on(async { rate(group).await });
        let goal = if rate >= 1e7 { "met" } else { "**missed**" };
        println!(
            "| published {group} at a time | {:.1} million/s | >= 10 million/s: {goal} |",
            rate / 1e6
        );
    }
}
