//! What the exam does not ask: settings, faults and corners of the memory store, tables, mirrors and layers.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod determinism;
mod layers;
mod memory;
mod mirror;
mod mirror_heals;
mod model;
mod observe;
mod table;

use std::sync::Arc;

use skyloom_model::ManualClock;
use skyloom_store::{Backend, DynBackend, Key, MemoryConfig, MemoryStore, Prefix, Revision, Txn, Value};

fn key(path: &str) -> Key {
    Key::parse(path).unwrap()
}
fn prefix(path: &str) -> Prefix {
    Prefix::parse(path).unwrap()
}
fn json(document: impl serde::Serialize) -> Value {
    Value::json(&document).unwrap()
}
fn memory() -> Arc<MemoryStore> {
    memory_with(MemoryConfig::default())
}
fn memory_with(config: MemoryConfig) -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(Arc::new(ManualClock::new()), config))
}
async fn commit(store: &dyn Backend, txn: Txn) -> Revision {
    store.commit(txn).await.unwrap().committed().unwrap()
}
async fn put(store: &dyn Backend, path: &str, document: impl serde::Serialize) -> Revision {
    commit(store, Txn::new().put(key(path), json(document))).await
}
async fn delete(store: &dyn Backend, path: &str) -> Revision {
    commit(store, Txn::new().delete(key(path))).await
}
fn shared(store: &Arc<MemoryStore>) -> DynBackend {
    store.clone()
}
