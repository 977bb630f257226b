//! Events to many watchers of one prefix, through the API.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use skyloom_model::{Clock as _, SystemClock};
use skyloom_store::{
    Change, Key, ListOptions, Outcome, Prefix, Store as _, Txn, Value, Watch as _, WatchEvent, WatchOptions,
};
use skyloom_store_remote::RemoteStore;
use tokio::task::JoinSet;

use crate::agents::verdict;
use crate::child::Api;
use crate::{AnyError, say};

const WATCHERS: usize = 1000;
const EVENTS: usize = 1000;
/// Watchers on one connection.
const EACH: usize = 100;
/// Events a second that keep up the wanted rate.
const PACE: u64 = 500;

/// Latencies in tenths of milliseconds.
#[derive(Debug)]
struct Latencies(Vec<AtomicU64>);

impl Latencies {
    fn new() -> Self {
        Self((0..200_000).map(|_| AtomicU64::new(0)).collect())
    }
    fn add(&self, took: Duration) {
        let slot = (took.as_micros() / 100) as usize;
        self.0[slot.min(self.0.len() - 1)].fetch_add(1, Ordering::Relaxed);
    }
    fn at(&self, share: f64) -> Duration {
        let count = |slot: &AtomicU64| slot.load(Ordering::Relaxed);
        let wanted = self.0.iter().map(count).sum::<u64>() as f64 * share;
        let mut seen = 0;
        let slot = self.0.iter().position(|slot| {
            seen += count(slot);
            seen as f64 >= wanted
        });
        Duration::from_micros(slot.unwrap_or(self.0.len()) as u64 * 100)
    }
}

pub(crate) async fn all() -> Result<(), AnyError> {
    say(&format!(
        "\n| {EVENTS} events to {WATCHERS} watchers over {} connections | delivered | p50 | p99 | API processor | goal |\n| --- | --- | --- | --- | --- | --- |",
        WATCHERS / EACH
    ));
    run("at 500 commits/s", Some(PACE)).await?;
    run("as fast as 64 writers commit", None).await
}

async fn run(what: &str, pace: Option<u64>) -> Result<(), AnyError> {
    let api = Api::start().await?;
    let clock = SystemClock::new();
    let prefix = Prefix::parse("events")?;
    let writer = Arc::new(api.store()?);
    let start = writer.list(&prefix, ListOptions::default()).await?.revision;
    let latencies = Arc::new(Latencies::new());
    let delivered = Arc::new(AtomicUsize::new(0));
    let open = Arc::new(AtomicUsize::new(0));
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS / EACH {
        let store = Arc::new(api.store()?);
        for _ in 0..EACH {
            let options = WatchOptions::after(start).with_buffer(1 << 16);
            let (open, delivered) = (open.clone(), delivered.clone());
            watchers.spawn(watch(
                store.clone(),
                prefix.clone(),
                options,
                latencies.clone(),
                open,
                delivered,
                clock,
            ));
        }
    }
    // The first event reaches everybody before the measurement.
    let first = Txn::new().put(Key::parse("events/first")?, Value::json(&0)?);
    writer.commit(first).await?;
    while open.load(Ordering::SeqCst) < WATCHERS {
        if let Some(ended) = watchers.try_join_next() {
            ended??;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (begin, before) = (clock.monotonic(), api.processor()?);
    write(&writer, pace, clock).await?;
    while let Some(ended) = watchers.join_next().await {
        ended??;
    }
    let took = (clock.monotonic() - begin).as_secs_f64();
    let used = api.processor()? - before;
    let rate = delivered.load(Ordering::SeqCst) as f64 / took;
    let (p50, p99) = (latencies.at(0.5), latencies.at(0.99));
    let goal = match pace {
        Some(_) => verdict("p99 < 250 ms", p99 < Duration::from_millis(250)),
        None => verdict(">= 500,000/s", rate >= 500_000.0),
    };
    say(&format!(
        "| {what} | {rate:.0}/s | {:.1} ms | {:.1} ms | {:.0} % of a core | {goal} |",
        p50.as_secs_f64() * 1e3,
        p99.as_secs_f64() * 1e3,
        100.0 * used / took
    ));
    Ok(())
}

async fn write(store: &Arc<RemoteStore>, pace: Option<u64>, clock: SystemClock) -> Result<(), AnyError> {
    let put = |n: usize| {
        let now = clock.monotonic().as_nanos() as u64;
        let value = serde_json::json!({"at": now, "state": "running", "host": "host-1", "generation": 17});
        Ok::<_, AnyError>(Txn::new().put(Key::parse(&format!("events/{}", n % 100))?, Value::json(&value)?))
    };
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / pace.unwrap_or(1_000_000)));
    let mut writers = JoinSet::new();
    for n in 0..EVENTS {
        match pace {
            Some(_) => drop(ticks.tick().await),
            None if writers.len() == 64 => {
                if let Some(done) = writers.join_next().await {
                    done??;
                }
            }
            None => {}
        }
        let (store, txn) = (store.clone(), put(n)?);
        writers.spawn(async move {
            match store.commit(txn).await? {
                Outcome::Committed { .. } => Ok::<_, AnyError>(()),
                conflict => Err(format!("{conflict:?}").into()),
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    Ok(())
}

async fn watch(
    store: Arc<RemoteStore>,
    prefix: Prefix,
    options: WatchOptions,
    latencies: Arc<Latencies>,
    open: Arc<AtomicUsize>,
    delivered: Arc<AtomicUsize>,
    clock: SystemClock,
) -> Result<(), AnyError> {
    #[derive(serde::Deserialize)]
    struct Event {
        at: u64,
    }
    let mut events = store.watch(&prefix, options);
    let mut seen = 0;
    while seen < EVENTS {
        let event = events.next().await.ok_or("the watch ended")??;
        let WatchEvent::Commit { changes, .. } = event else {
            if let WatchEvent::Gap { .. } = event {
                return Err("a watcher was too slow".into());
            }
            continue;
        };
        for change in changes {
            let Change::Put(kv) = change else { continue };
            if kv.key.as_str() == "events/first" {
                open.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            let at = Duration::from_nanos(kv.value.parse::<Event>()?.at);
            latencies.add(clock.monotonic().saturating_sub(at));
            seen += 1;
        }
    }
    delivered.fetch_add(seen, Ordering::SeqCst);
    Ok(())
}
