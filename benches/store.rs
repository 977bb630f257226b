//! Single operations of the memory store under criterion: for finding out what a change did to one of them.
//! What an operator sees is in `figures`.

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use skyloom::model::SystemClock;
use skyloom::store::{Key, ListOptions, MemoryConfig, MemoryStore, Prefix, Revision, Store as _, Txn, Value};
use tokio::runtime::{Builder, Runtime};

/// As in the programs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DOCUMENTS: usize = 10_000;

fn key(n: usize) -> Key {
    Key::parse(&format!("bench/folder-{}/document-{n}", n % 100)).expect("a key")
}

fn document() -> Value {
    Value::from_json_bytes(format!("{{\"padding\":\"{}\"}}", "x".repeat(242)).into_bytes())
}

/// A store of [`DOCUMENTS`] documents, and the revision of each.
fn filled(runtime: &Runtime) -> (MemoryStore, Vec<Revision>) {
    let store = MemoryStore::new(Arc::new(SystemClock::new()), MemoryConfig::default());
    let revisions = (0..DOCUMENTS).map(|n| commit(runtime, &store, Txn::new().create(key(n), document())));
    let revisions = revisions.collect();
    (store, revisions)
}

fn commit(runtime: &Runtime, store: &MemoryStore, txn: Txn) -> Revision {
    runtime
        .block_on(store.commit(txn))
        .expect("a commit")
        .committed()
        .expect("no conflict")
}

fn memory(c: &mut Criterion) {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let (store, mut revisions) = filled(&runtime);
    let keys: Vec<Key> = (0..DOCUMENTS).map(key).collect();
    let value = document();

    let mut at = 0;
    c.bench_function("memory/get", |b| {
        b.iter(|| {
            at = (at + 7919) % DOCUMENTS;
            runtime.block_on(store.get(&keys[at])).expect("a read")
        });
    });

    let mut group = c.benchmark_group("memory/list");
    for limit in [1, 100] {
        let prefix = Prefix::parse("bench/folder-7").expect("a prefix");
        group.throughput(Throughput::Elements(limit));
        group.bench_with_input(BenchmarkId::from_parameter(limit), &limit, |b, &limit| {
            let options = ListOptions::default().with_limit(limit as usize);
            b.iter(|| {
                runtime
                    .block_on(store.list(&prefix, options.clone()))
                    .expect("a page")
            });
        });
    }
    group.finish();

    let mut group = c.benchmark_group("memory/commit");
    for writes in [1, 8] {
        group.throughput(Throughput::Elements(writes));
        group.bench_with_input(
            BenchmarkId::new("guarded writes", writes),
            &writes,
            |b, &writes| {
                b.iter(|| {
                    at = (at + 7919) % (DOCUMENTS - 8);
                    let touched = at..at + writes as usize;
                    let txn = touched.clone().fold(Txn::new(), |txn, n| {
                        txn.replace(keys[n].clone(), revisions[n], value.clone())
                    });
                    let revision = commit(&runtime, &store, txn);
                    revisions[touched].fill(revision);
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, memory);
criterion_main!(benches);
