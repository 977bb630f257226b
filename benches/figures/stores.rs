//! Commits per second, and how long a commit takes to reach a watcher.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use skyloom::model::{Clock as _, SystemClock};
use skyloom::store::{
    DynBackend, Key, ListOptions, Outcome, Prefix, Revision, Txn, Value, WatchEvent, WatchOptions,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::meter::{Anyhow, Meter};
use crate::table::Samples;

/// Documents of each writer.
const DOCUMENTS: usize = 64;

/// A document of 256 bytes.
pub(crate) fn document() -> Value {
    Value::from_json_bytes(format!("{{\"padding\":\"{}\"}}", "x".repeat(242)).into_bytes())
}

/// A writer's documents, each with the revision at which it was last written.
async fn documents(store: &DynBackend, writer: usize) -> Result<Vec<(Key, Revision)>, Anyhow> {
    let mut all = Vec::with_capacity(DOCUMENTS);
    for n in 0..DOCUMENTS {
        let key = Key::parse(&format!("figures/writer-{writer}/document-{n}"))?;
        let revision = match store.get(&key).await? {
            Some(found) => found.modified,
            None => committed(store.commit(Txn::new().create(key.clone(), document())).await?)?,
        };
        all.push((key, revision));
    }
    Ok(all)
}

fn committed(outcome: Outcome) -> Result<Revision, Anyhow> {
    outcome
        .committed()
        .ok_or_else(|| format!("a commit without rivals met {outcome:?}").into())
}

/// Each writer replaces its own documents in turn, each time guarded by the revision that it wrote before, and waits for
/// the answer before it goes on.
pub(crate) async fn commits(
    store: &DynBackend,
    writers: usize,
    limit: Duration,
    clock: SystemClock,
) -> Result<Samples, Anyhow> {
    let mut prepared = Vec::new();
    for writer in 0..writers {
        prepared.push(documents(store, writer).await?);
    }
    let value = document();
    let meter = Meter::start(clock)?;
    let start = clock.monotonic();
    let mut tasks = JoinSet::new();
    for mut documents in prepared {
        let (store, value) = (store.clone(), value.clone());
        tasks.spawn(async move {
            let mut took = Vec::with_capacity(1 << 16);
            for n in 0.. {
                let begin = clock.monotonic();
                if begin.saturating_sub(start) >= limit {
                    break;
                }
                let (key, revision) = &mut documents[n % DOCUMENTS];
                let txn = Txn::new().replace(key.clone(), *revision, value.clone());
                *revision = committed(store.commit(txn).await?)?;
                took.push(clock.monotonic().saturating_sub(begin));
            }
            Ok::<_, Anyhow>(took)
        });
    }
    let mut took = Vec::new();
    while let Some(done) = tasks.join_next().await {
        took.extend(done??);
    }
    Ok(Samples::new(took, meter.stop()?))
}

/// The floor under a store in memory: the same documents put into a map behind a lock, with nothing else.
pub(crate) fn bare_map(limit: Duration, clock: SystemClock) -> Result<Samples, Anyhow> {
    let keys: Vec<Key> = (0..DOCUMENTS)
        .map(|n| Key::parse(&format!("figures/writer-0/document-{n}")))
        .collect::<Result<_, _>>()?;
    let map = Mutex::new(BTreeMap::new());
    let value = document();
    let meter = Meter::start(clock)?;
    let start = clock.monotonic();
    let mut took = Vec::with_capacity(1 << 20);
    for n in 0.. {
        let begin = clock.monotonic();
        if begin.saturating_sub(start) >= limit {
            break;
        }
        let old = map
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(keys[n % DOCUMENTS].clone(), value.clone());
        std::hint::black_box(old);
        took.push(clock.monotonic().saturating_sub(begin));
    }
    Ok(Samples::new(took, meter.stop()?))
}

/// From the call of `commit` to the change in the hands of a watcher in another task, one commit at a time.
pub(crate) async fn watch_latency(
    store: &DynBackend,
    rounds: usize,
    clock: SystemClock,
) -> Result<Samples, Anyhow> {
    let mut documents = documents(store, 0).await?;
    let prefix = Prefix::parse("figures")?;
    let now = store
        .list(&prefix, ListOptions::default().with_limit(1))
        .await?
        .revision;
    let mut events = store.watch(&prefix, WatchOptions::after(now));
    let (seen, mut arrivals) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(event) = events.next().await {
            match event {
                Ok(WatchEvent::Commit { revision, .. }) => {
                    if seen.send((revision, clock.monotonic())).is_err() {
                        return Ok(());
                    }
                }
                Ok(WatchEvent::Progress(_)) => {}
                Ok(WatchEvent::Gap { floor }) => return Err(format!("a gap below {floor}").into()),
                Err(error) => return Err(Anyhow::from(error)),
            }
        }
        Ok(())
    });
    let value = document();
    let meter = Meter::start(clock)?;
    let mut took = Vec::with_capacity(rounds);
    for n in 0..rounds {
        let (key, revision) = &mut documents[n % DOCUMENTS];
        let begin = clock.monotonic();
        let txn = Txn::new().replace(key.clone(), *revision, value.clone());
        *revision = committed(store.commit(txn).await?)?;
        let Some((arrived, at)) = arrivals.recv().await else {
            break;
        };
        if arrived != *revision {
            return Err(format!("the watcher saw {arrived}, not {revision}").into());
        }
        took.push(at.saturating_sub(begin));
    }
    let cost = meter.stop()?;
    drop(arrivals);
    if took.len() < rounds {
        return Err(tasks
            .join_next()
            .await
            .map_or_else(|| "the watcher ended".into(), |e| format!("{e:?}").into()));
    }
    Ok(Samples::new(took, cost))
}

/// The floor under a watch: a word handed to another task through a channel, one at a time.
pub(crate) async fn channel_latency(rounds: usize, clock: SystemClock) -> Result<Samples, Anyhow> {
    let (word, mut words) = mpsc::unbounded_channel::<Arc<str>>();
    let (seen, mut arrivals) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while words.recv().await.is_some() {
            if seen.send(clock.monotonic()).is_err() {
                return;
            }
        }
    });
    let meter = Meter::start(clock)?;
    let mut took = Vec::with_capacity(rounds);
    let text: Arc<str> = "word".into();
    for _ in 0..rounds {
        let begin = clock.monotonic();
        word.send(text.clone())?;
        let at = arrivals.recv().await.ok_or("the channel closed")?;
        took.push(at.saturating_sub(begin));
    }
    Ok(Samples::new(took, meter.stop()?))
}
