//! Stores to copy from and to, and what goes wrong with them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use skyloom_flow::Standing;
use skyloom_model::{Clock, Ids, ManualClock, SeededIds};
use skyloom_store::{
    Capability, DynBackend, Error, ErrorKind, Key, KeyValue, ListOptions, MemoryConfig, MemoryStore, Outcome,
    Page, Prefix, Result, Store, Txn, Value,
};

use crate::world::World;

/// A cloud in memory with documents of all sizes beside its own.
pub(crate) async fn cloud(documents: usize) -> World {
    let world = World::new();
    world.admin().await;
    for n in 0..documents {
        let text = "x".repeat((n * 7919) % 9000);
        let value = Value::json(&serde_json::json!({ "n": n, "half": 0.5, "text": text })).unwrap();
        let key = Key::parse(&format!("extra/{n:05}")).unwrap();
        world.store.commit(Txn::new().create(key, value)).await.unwrap();
    }
    world
}

pub(crate) fn empty() -> DynBackend {
    Arc::new(MemoryStore::new(
        Arc::new(ManualClock::new()),
        MemoryConfig::default(),
    ))
}

/// A clock of another time than the clouds', and ids of its own.
pub(crate) fn outside(seed: u64) -> (Arc<dyn Clock>, Arc<dyn Ids>) {
    let clock = ManualClock::new();
    clock.advance(std::time::Duration::from_secs(3600 * seed));
    (Arc::new(clock.clone()), Arc::new(SeededIds::new(clock, seed)))
}

/// All documents without what the store says of itself.
pub(crate) async fn documents(store: &dyn Store) -> BTreeMap<String, serde_json::Value> {
    let mut all = BTreeMap::new();
    let mut options = ListOptions::default();
    loop {
        let page = store.list(&Prefix::all(), options).await.unwrap();
        for kv in &page.items {
            all.insert(kv.key.to_string(), kv.value.parse().unwrap());
        }
        match page.items.last().filter(|_| page.more) {
            Some(last) => options = ListOptions::default().with_after(last.key.clone()),
            None => break,
        }
    }
    all.retain(|key, _| !key.starts_with("cloud/"));
    all
}

pub(crate) async fn standing(store: &DynBackend) -> Standing {
    Standing::read(&**store).await.unwrap()
}

/// How a commit goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does not happen, nor does any other.
    Dead,
    /// Every one happens, and no answer says so.
    Deaf,
    /// Every other one does not happen, and no answer says so.
    Lost,
}

/// A store that goes wrong after so many commits.
pub(crate) struct Faulty {
    pub(crate) inner: DynBackend,
    pub(crate) left: AtomicUsize,
    pub(crate) fault: Fault,
    pub(crate) count: AtomicUsize,
}

impl Faulty {
    pub(crate) fn new(inner: &DynBackend, after: usize, fault: Fault) -> Self {
        Self {
            inner: inner.clone(),
            left: AtomicUsize::new(after),
            fault,
            count: AtomicUsize::new(0),
        }
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({:?})", self.fault)
    }
}

#[async_trait]
impl Store for Faulty {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.inner.list(prefix, options).await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        let less = |left: usize| left.checked_sub(1);
        if self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
            .is_ok()
        {
            return self.inner.commit(txn).await;
        }
        let unknown = || Error::new(ErrorKind::Unknown, "commit");
        match self.fault {
            Fault::Dead => Err(Error::new(ErrorKind::Unavailable, "commit")),
            Fault::Deaf => {
                self.inner.commit(txn).await?;
                Err(unknown())
            }
            Fault::Lost if self.count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) => Err(unknown()),
            Fault::Lost => self.inner.commit(txn).await,
        }
    }
    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

/// A store to which somebody writes after each page that is read of it.
#[derive(Debug)]
pub(crate) struct Busy(pub(crate) DynBackend, pub(crate) AtomicUsize);

#[async_trait]
impl Store for Busy {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.0.get(key).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        let page = self.0.list(prefix, options.with_limit(10)).await?;
        let n = self.1.fetch_add(1, Ordering::SeqCst);
        let key = Key::parse(&format!("busy/{n:05}")).unwrap();
        self.0
            .commit(Txn::new().put(key, Value::json(&n).unwrap()))
            .await?;
        Ok(page)
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.0.commit(txn).await
    }
    fn capability(&self) -> Capability {
        self.0.capability()
    }
}
