//! What a remote store says when the network or the far end misbehaves, and what one connection carries.

#![allow(clippy::unwrap_used, reason = "tests")]

mod answers;
mod connection;
mod losses;
mod peer;
mod restart;
mod served;
#[path = "../server/mod.rs"]
mod server;
mod wire;

use std::sync::Arc;

use skyloom_model::SystemClock;
use skyloom_store::{DynBackend, Key, MemoryConfig, MemoryStore, Txn, Value};

fn memory() -> DynBackend {
    Arc::new(MemoryStore::new(
        Arc::new(SystemClock::new()),
        MemoryConfig::default(),
    ))
}

fn key(path: &str) -> Key {
    Key::parse(path).unwrap()
}

fn put(path: &str) -> Txn {
    Txn::new().put(key(path), Value::json(&1).unwrap())
}
