//! The store on real etcd servers that are killed, stopped, cut off, filled up, closed to strangers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod cluster;
mod compaction;
mod kills;
mod leases;
mod limits;
mod network;
mod proxy;
mod stream;

use std::process::Command;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use skyloom_store::{
    Backend, Change, ErrorKind, Key, ListOptions, Outcome, Prefix, Result as StoreResult, Revision, Txn,
    Value, WatchEvent, WatchOptions,
};

use crate::support::Etcd;

/// Longest wait for what must come.
const LIMIT: Duration = Duration::from_secs(60);

fn key(path: &str) -> Key {
    Key::parse(path).unwrap()
}
fn below(path: &str) -> Prefix {
    Prefix::parse(path).unwrap()
}
fn json(value: impl Into<serde_json::Value>) -> Value {
    Value::json(&value.into()).unwrap()
}
fn put(path: &str, value: impl Into<serde_json::Value>) -> Txn {
    Txn::new().put(key(path), json(value))
}

/// A commit that must happen.
async fn commit(store: &dyn Backend, txn: Txn) -> Revision {
    match store.commit(txn).await.unwrap() {
        Outcome::Committed { revision } => revision,
        conflict @ Outcome::Conflict { .. } => panic!("{conflict:?}"),
    }
}

async fn revision(store: &dyn Backend) -> Revision {
    let page = store.list(&below("nothing"), ListOptions::default()).await;
    page.unwrap().revision
}

/// What must not take for ever.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(done) => done,
        Err(_) => panic!("not done after {LIMIT:?}: {what}"),
    }
}

/// Asks an outside process again and again until it says yes.
async fn until(what: &str, mut good: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !good().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// The next item of a watch that is no mark of progress.
async fn item(events: &mut BoxStream<'static, StoreResult<WatchEvent>>) -> Option<StoreResult<WatchEvent>> {
    soon("the next event", async {
        loop {
            match events.next().await {
                Some(Ok(WatchEvent::Progress(_))) => {}
                other => return other,
            }
        }
    })
    .await
}

/// The next commit of a watch: its revision and keys.
async fn seen(events: &mut BoxStream<'static, StoreResult<WatchEvent>>) -> (Revision, Vec<String>) {
    match item(events).await {
        Some(Ok(WatchEvent::Commit { revision, changes })) => (
            revision,
            changes.iter().map(Change::key).map(ToString::to_string).collect(),
        ),
        other => panic!("wanted a commit, got {other:?}"),
    }
}

fn watch(store: &dyn Backend, path: &str, after: Revision) -> BoxStream<'static, StoreResult<WatchEvent>> {
    store.watch(&below(path), WatchOptions::after(after).with_buffer(100_000))
}

fn kind<T: std::fmt::Debug>(answer: StoreResult<T>) -> ErrorKind {
    answer.unwrap_err().kind()
}

/// The whole story of an error, as people read it.
fn story<T: std::fmt::Debug>(answer: StoreResult<T>) -> String {
    skyloom_model::report(&answer.unwrap_err())
}

impl Etcd {
    /// `kill -9`, and gone.
    fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Started, but perhaps not ready.
    fn prepare_and_run(extra: &[&str]) -> Self {
        let port = support::free_port();
        let mut server = Self::prepare(port, &format!("http://127.0.0.1:{port}"), extra);
        server.run();
        server
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = self.child.as_ref().unwrap().id();
        let pid = rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// The driver, for what the store does not do.
    async fn native(&self) -> etcd_client::Client {
        etcd_client::Client::connect([self.endpoint()], None)
            .await
            .unwrap()
    }
}

#[test]
fn the_server_is_new_enough_for_these_tests() {
    let shown = Command::new("etcd").arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("etcd Version: 3."));
}
