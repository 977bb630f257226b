//! What the observing layer counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, KeyName, Metadata, Recorder, SharedString,
    Unit,
};
use parking_lot::Mutex;
use skyloom_model::ManualClock;
use skyloom_store::layer::Observe;
use skyloom_store::{
    LeaseMode, LeaseName, Leases as _, ListOptions, Revision, Store as _, Txn, Watch as _, WatchOptions,
};

use crate::{commit, json, key, memory, prefix};

const SECOND: Duration = Duration::from_secs(1);

/// Keeps what was recorded, by metric and labels.
#[derive(Debug, Default, Clone)]
struct Recorded(Arc<Mutex<BTreeMap<String, Arc<Cell>>>>);
#[derive(Debug, Default)]
struct Cell {
    count: AtomicU64,
    last: Mutex<f64>,
}
impl CounterFn for Cell {
    fn increment(&self, by: u64) {
        self.count.fetch_add(by, Ordering::Relaxed);
    }
    fn absolute(&self, value: u64) {
        self.count.store(value, Ordering::Relaxed);
    }
}
impl GaugeFn for Cell {
    fn increment(&self, by: f64) {
        *self.last.lock() += by;
    }
    fn decrement(&self, by: f64) {
        *self.last.lock() -= by;
    }
    fn set(&self, value: f64) {
        *self.last.lock() = value;
    }
}
impl HistogramFn for Cell {
    fn record(&self, value: f64) {
        self.count.fetch_add(1, Ordering::Relaxed);
        *self.last.lock() = value;
    }
}
impl Recorded {
    fn cell(&self, key: &metrics::Key) -> Arc<Cell> {
        let labels: Vec<_> = key
            .labels()
            .map(|l| format!("{}={}", l.key(), l.value()))
            .collect();
        let name = format!("{} {}", key.name(), labels.join(" "));
        self.0.lock().entry(name).or_default().clone()
    }
    fn all(&self) -> Vec<(String, u64, f64)> {
        let value = |cell: &Cell| (cell.count.load(Ordering::Relaxed), *cell.last.lock());
        self.0
            .lock()
            .iter()
            .map(|(name, cell)| (name.clone(), value(cell).0, value(cell).1))
            .collect()
    }
}
impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &metrics::Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }
    fn register_gauge(&self, key: &metrics::Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }
    fn register_histogram(&self, key: &metrics::Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.cell(key))
    }
}

#[test]
fn every_call_is_measured() {
    let recorded = Recorded::default();
    metrics::with_local_recorder(&recorded, || {
        futures::executor::block_on(async {
            let store = Observe::new(memory(), Arc::new(ManualClock::new()));
            let mut events = store.watch(&prefix(""), WatchOptions::after(Revision(0)));
            commit(&store, Txn::new().create(key("a"), json(1))).await;
            store.commit(Txn::new().create(key("a"), json(1))).await.unwrap();
            store.get(&key("a")).await.unwrap();
            let future = ListOptions::default().with_at(Revision(9));
            store.list(&prefix(""), future).await.unwrap_err();
            let name = LeaseName::parse("l").unwrap();
            store.grant(&name, "h", SECOND, LeaseMode::Acquire).await.unwrap();
            store.grant(&name, "h", SECOND, LeaseMode::Acquire).await.unwrap();
            store.renew(&name, 9, SECOND).await.unwrap();
            events.next().await.unwrap().unwrap();
            let other = store.watch(&prefix(""), WatchOptions::after(Revision(0)));
            drop(other);
        });
    });
    let call = |labels: &str| (format!("skyloom_store_call_seconds {labels}"), 1, 0.0);
    let wanted = vec![
        call("operation=commit outcome=conflict"),
        call("operation=commit outcome=ok"),
        call("operation=get outcome=ok"),
        call("operation=grant outcome=held"),
        call("operation=grant outcome=ok"),
        call("operation=list outcome=invalid"),
        call("operation=renew outcome=lost"),
        ("skyloom_store_watch_events_total event=commit".to_owned(), 1, 0.0),
        ("skyloom_store_watches ".to_owned(), 0, 0.0),
    ];
    assert_eq!(recorded.all(), wanted);
}
