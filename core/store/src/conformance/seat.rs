//! What a case works with: the store, and short words for what it does all the time.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde_json::Value as Json;

use super::failure::{ensure, ensure_eq};
use super::{Failure, Sitting, Verdict};
use crate::{
    Backend, Change, DynBackend, Error, ErrorKind, Guard, Key, KeyValue, LeaseName, ListOptions, Outcome,
    Page, Prefix, Result as StoreResult, Revision, Txn, Value, WatchEvent, WatchOptions,
};

/// Longest wait for an event that must come.
const EVENT_LIMIT: Duration = Duration::from_secs(30);

/// A case's place: one empty store.
pub struct Seat {
    sitting: Box<dyn Sitting>,
    pub(super) store: DynBackend,
    pub(super) ttl: Duration,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

pub(super) fn key(path: &str) -> Result<Key, Failure> {
    Ok(Key::parse(path)?)
}
pub(super) fn prefix(path: &str) -> Result<Prefix, Failure> {
    Ok(Prefix::parse(path)?)
}
pub(super) fn lease(name: &str) -> Result<LeaseName, Failure> {
    Ok(LeaseName::parse(name)?)
}
pub(super) fn json(document: impl Into<Json>) -> Result<Value, Failure> {
    Ok(Value::json(&document.into())?)
}
pub(super) fn document(kv: &KeyValue) -> Result<Json, Failure> {
    Ok(kv.value.parse()?)
}
/// A document that is a number.
pub(super) fn number(kv: &KeyValue) -> Result<i64, Failure> {
    Ok(kv.value.parse()?)
}
pub(super) fn paths(items: &[KeyValue]) -> Vec<&str> {
    items.iter().map(|kv| kv.key.as_str()).collect()
}
/// The error must be of this kind.
pub(super) fn refused<T: fmt::Debug>(answer: StoreResult<T>, kind: ErrorKind, what: &str) -> Verdict {
    match answer {
        Ok(answer) => Err(Failure::new(format!("{what}: wanted {kind:?}, got {answer:?}"))),
        Err(e) => {
            ensure_eq!(e.kind(), kind, "{what}: wrong kind of error ({e})");
            Ok(())
        }
    }
}

/// Commits that must happen.
pub(super) async fn commit(store: &dyn Backend, txn: Txn) -> Result<Revision, Failure> {
    let shown = format!("{txn:?}");
    match store.commit(txn).await? {
        Outcome::Committed { revision } => Ok(revision),
        conflict @ Outcome::Conflict { .. } => Err(Failure::new(format!(
            "{conflict:?} instead of a commit of {shown}"
        ))),
    }
}

/// All documents of a prefix at the present, by single pages.
pub(super) async fn list_in_pages(
    store: &dyn Backend,
    below: &Prefix,
    limit: usize,
) -> Result<(Vec<KeyValue>, Revision), Failure> {
    let mut options = ListOptions::default().with_limit(limit);
    let mut items: Vec<KeyValue> = Vec::new();
    loop {
        let page = store.list(below, options.clone()).await?;
        // So that writers get between the pages also of a store that never waits.
        tokio::task::yield_now().await;
        if let Some(at) = options.at {
            ensure_eq!(
                page.revision,
                at,
                "a page answers of another revision than it was asked for"
            );
        }
        ensure!(
            page.items.len() <= limit,
            "a page of {} with limit {limit}",
            page.items.len()
        );
        ensure!(
            !page.more || !page.items.is_empty(),
            "an empty page that says more follow"
        );
        items.extend(page.items);
        match items.last() {
            Some(last) if page.more => options = options.with_at(page.revision).with_after(last.key.clone()),
            _ => return Ok((items, page.revision)),
        }
    }
}

impl Seat {
    pub(super) fn new(sitting: Box<dyn Sitting>, ttl: Duration) -> Self {
        Self {
            store: sitting.store(),
            sitting,
            ttl,
        }
    }

    pub(super) async fn end(self) {
        drop(self.store);
        self.sitting.end().await;
    }

    pub(super) fn second(&self) -> DynBackend {
        self.sitting.second()
    }
    pub(super) async fn pass_time(&self, by: Duration) {
        self.sitting.pass_time(by).await;
    }
    pub(super) async fn compact(&self, revision: Revision) -> Verdict {
        self.sitting.compact(revision).await
    }
    pub(super) async fn reopen(&mut self) -> Verdict {
        // The case's own handle must go too.
        self.store = std::sync::Arc::new(crate::MemoryStore::new(
            std::sync::Arc::new(skyloom_model::ManualClock::new()),
            crate::MemoryConfig::default(),
        ));
        self.sitting.reopen().await?;
        self.store = self.sitting.store();
        Ok(())
    }

    pub(super) async fn commit(&self, txn: Txn) -> Result<Revision, Failure> {
        commit(&*self.store, txn).await
    }
    /// A transaction that must conflict: the index of the guard, and what is there now.
    pub(super) async fn conflict(&self, txn: Txn) -> Result<(usize, Option<Revision>), Failure> {
        let shown = format!("{txn:?}");
        match self.store.commit(txn).await? {
            Outcome::Conflict { guard, current } => Ok((guard, current)),
            Outcome::Committed { revision } => Err(Failure::new(format!(
                "committed at {revision} what had to conflict: {shown}"
            ))),
        }
    }
    pub(super) async fn put(&self, path: &str, document: impl Into<Json>) -> Result<Revision, Failure> {
        self.commit(Txn::new().put(key(path)?, json(document)?)).await
    }
    pub(super) async fn create(&self, path: &str, document: impl Into<Json>) -> Result<Revision, Failure> {
        self.commit(Txn::new().create(key(path)?, json(document)?)).await
    }
    pub(super) async fn delete(&self, path: &str) -> Result<Revision, Failure> {
        self.commit(Txn::new().delete(key(path)?)).await
    }
    pub(super) async fn get(&self, path: &str) -> Result<Option<KeyValue>, Failure> {
        Ok(self.store.get(&key(path)?).await?)
    }
    /// The document that must be there.
    pub(super) async fn have(&self, path: &str) -> Result<KeyValue, Failure> {
        self.get(path)
            .await?
            .ok_or_else(|| Failure::new(format!("there is nothing under {path}")))
    }
    pub(super) async fn list(&self, below: &str) -> Result<Page, Failure> {
        self.list_with(below, ListOptions::default()).await
    }
    pub(super) async fn list_with(&self, below: &str, options: ListOptions) -> Result<Page, Failure> {
        Ok(self.store.list(&prefix(below)?, options).await?)
    }
    /// The present revision.
    pub(super) async fn revision(&self) -> Result<Revision, Failure> {
        Ok(self.list("no-such-place").await?.revision)
    }
    pub(super) fn watch(&self, below: &str, after: Revision) -> Result<Events, Failure> {
        Events::open(&*self.store, below, WatchOptions::after(after))
    }
    /// A write guarded by a lease.
    pub(super) fn fenced(
        path: &str,
        document: impl Into<Json>,
        name: &str,
        epoch: u64,
    ) -> Result<Txn, Failure> {
        Ok(Txn::new()
            .guard(Guard::Lease(lease(name)?, epoch))
            .put(key(path)?, json(document)?))
    }
}

/// A watch as a case reads it: progress marks are checked and passed over, and nothing is waited for without end.
pub(super) struct Events {
    stream: BoxStream<'static, StoreResult<WatchEvent>>,
    last: Revision,
}

/// One commit as a watcher saw it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) revision: Revision,
    pub(super) changes: Vec<Change>,
}

impl Seen {
    pub(super) fn paths(&self) -> Vec<&str> {
        self.changes.iter().map(|c| c.key().as_str()).collect()
    }
}

impl Events {
    pub(super) fn open(store: &dyn Backend, below: &str, options: WatchOptions) -> Result<Self, Failure> {
        let last = options.after;
        Ok(Self {
            stream: store.watch(&prefix(below)?, options),
            last,
        })
    }

    /// The next item that is no progress mark; `None` at the end.
    pub(super) async fn item(&mut self) -> Result<Option<Result<WatchEvent, Error>>, Failure> {
        loop {
            let next = tokio::time::timeout(EVENT_LIMIT, self.stream.next());
            let item = next
                .await
                .map_err(|_| Failure::new(format!("no event after revision {}", self.last)))?;
            match item {
                Some(Ok(WatchEvent::Progress(revision))) => {
                    ensure!(
                        revision >= self.last,
                        "progress to {revision} after {}",
                        self.last
                    );
                    self.last = revision;
                }
                other => return Ok(other),
            }
        }
    }

    /// The next commit, which must come.
    pub(super) async fn commit(&mut self) -> Result<Seen, Failure> {
        match self.item().await? {
            Some(Ok(WatchEvent::Commit { revision, changes })) => {
                ensure!(
                    revision > self.last,
                    "commit {revision} delivered after {}",
                    self.last
                );
                ensure!(!changes.is_empty(), "commit {revision} without changes");
                self.last = revision;
                Ok(Seen { revision, changes })
            }
            other => Err(Failure::new(format!(
                "wanted a commit after {}, got {other:?}",
                self.last
            ))),
        }
    }

    /// The next commit must be the one at `revision`.
    pub(super) async fn expect(&mut self, revision: Revision) -> Result<Seen, Failure> {
        let seen = self.commit().await?;
        ensure_eq!(seen.revision, revision, "another commit was delivered: {seen:?}");
        Ok(seen)
    }

    /// The next item must be a gap, and the stream must end.
    pub(super) async fn gap(&mut self) -> Result<Revision, Failure> {
        match self.item().await? {
            Some(Ok(WatchEvent::Gap { floor })) => {
                let after = self.item().await?;
                ensure!(after.is_none(), "after the gap came {after:?}");
                Ok(floor)
            }
            other => Err(Failure::new(format!("wanted a gap, got {other:?}"))),
        }
    }
}

/// Keeps a map up to date with what a watcher saw.
pub(super) fn replay(map: &mut BTreeMap<Key, KeyValue>, seen: &Seen) {
    for change in &seen.changes {
        match change {
            Change::Put(kv) => map.insert(kv.key.clone(), kv.clone()),
            Change::Delete(key) => map.remove(key),
        };
    }
}
