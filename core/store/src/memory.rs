//! A store in memory: really stores, forgets at the end of the process.
//!
//! One mutex guards everything and is never held across an await. A commit checks its guards, changes the current map,
//! is appended to the bounded history as one shared record, and that record is handed to the watchers whose prefix it
//! touches. So a commit costs what it writes, plus the watchers that want it; neither the length of the history nor
//! the number of other keys or watchers matters.
//!
//! ```text
//! commit ─> guards ─> current (BTreeMap) ─> history (last N commits) ─> watchers by prefix (bounded queues) ─> streams
//! ```

mod history;
mod leases;
mod watchers;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use skyloom_model::Clock;

use self::history::{History, Recorded};
use self::leases::LeaseTable;
use self::watchers::{MemoryWatch, Watchers};
use crate::{
    Capability, Change, Error, ErrorKind, Grant, Guard, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName,
    Leases, ListOptions, Outcome, Page, Prefix, Renewal, Result, Revision, Store, Txn, Watch, WatchEvent,
    WatchOptions, Write, check_grant,
};

/// Settings of a [`MemoryStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// Commits that are remembered for watchers that resume and for listing at an older revision.
    pub history: usize,
    /// The limits that this store keeps.
    pub capability: Capability,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            history: 10_000,
            capability: Capability::PORTABLE,
        }
    }
}

impl MemoryConfig {
    /// With another length of history.
    #[must_use]
    pub fn with_history(mut self, commits: usize) -> Self {
        self.history = commits;
        self
    }
    /// With other limits.
    #[must_use]
    pub fn with_capability(mut self, capability: Capability) -> Self {
        self.capability = capability;
        self
    }
}

/// A [`crate::Backend`] in memory, for tests, simulations and one-process clouds that may forget.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    capability: Capability,
    state: Arc<Mutex<State>>,
}

/// Everything behind the mutex.
#[derive(Debug)]
struct State {
    current: BTreeMap<Key, KeyValue>,
    history: History,
    watchers: Watchers,
    leases: LeaseTable,
}

impl MemoryStore {
    /// An empty store whose leases run by `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, config: MemoryConfig) -> Self {
        let state = State {
            current: BTreeMap::new(),
            history: History::new(config.history),
            watchers: Watchers::default(),
            leases: LeaseTable::default(),
        };
        Self {
            clock,
            capability: config.capability.with_durable(false),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The revision of the last commit.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.state.lock().history.revision()
    }

    /// Forgets the history up to and including `revision`: older positions can no longer be listed or watched from.
    /// The current documents stay.
    pub fn compact(&self, revision: Revision) {
        self.state.lock().history.compact(revision);
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

impl State {
    /// The first guard that does not hold.
    fn conflict(&self, guards: &[Guard], now: Duration) -> Option<Outcome> {
        guards.iter().enumerate().find_map(|(guard, g)| {
            let modified = |key: &Key| self.current.get(key).map(|kv| kv.modified);
            let (holds, current) = match g {
                Guard::Absent(key) => {
                    let current = modified(key);
                    (current.is_none(), current)
                }
                Guard::Revision(key, revision) => {
                    let current = modified(key);
                    (current == Some(*revision), current)
                }
                Guard::Lease(name, epoch) => (self.leases.holds(name, *epoch, now), None),
            };
            (!holds).then_some(Outcome::Conflict { guard, current })
        })
    }

    /// Applies writes whose guards hold.
    fn apply(&mut self, mut writes: Vec<Write>) -> Revision {
        writes.sort_unstable_by(|a, b| a.key().cmp(b.key()));
        let revision = Revision(self.history.revision().0 + 1);
        let mut records = Vec::with_capacity(writes.len());
        for write in writes {
            match write {
                Write::Put(key, value) => {
                    let created = self.current.get(&key).map_or(revision, |old| old.created);
                    let kv = KeyValue {
                        key: key.clone(),
                        value,
                        created,
                        modified: revision,
                    };
                    let before = self.current.insert(key, kv.clone());
                    records.push(Recorded {
                        change: Change::Put(kv),
                        before,
                    });
                }
                Write::Delete(key) => {
                    if let Some(before) = self.current.remove(&key) {
                        records.push(Recorded {
                            change: Change::Delete(key),
                            before: Some(before),
                        });
                    }
                }
            }
        }
        if records.is_empty() {
            return self.history.revision();
        }
        let commit = self.history.push(records);
        self.watchers.publish(&commit);
        revision
    }
}

/// The text range of the keys below `prefix` and after `after`; `None` when it is empty.
fn range<'a>(
    prefix: &'a Prefix,
    after: Option<&'a Key>,
    end: Option<&'a str>,
) -> Option<(Bound<&'a str>, Bound<&'a str>)> {
    let start = match after {
        Some(after) if after.as_str() >= prefix.as_str() => Bound::Excluded(after.as_str()),
        _ => Bound::Included(prefix.as_str()),
    };
    let (Bound::Included(from) | Bound::Excluded(from)) = start else {
        return None;
    };
    match end {
        Some(end) if from >= end => None,
        Some(end) => Some((start, Bound::Excluded(end))),
        None => Some((start, Bound::Unbounded)),
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        Ok(self.state.lock().current.get(key).cloned())
    }

    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        let most = self.capability.max_page;
        let limit = if options.limit == 0 {
            most
        } else {
            options.limit.min(most)
        };
        let end = prefix.end();
        let range = range(prefix, options.after.as_ref(), end.as_deref());

        let state = self.state.lock();
        let now = state.history.revision();
        let at = options.at.unwrap_or(now);
        if at > now {
            return Err(Error::new(ErrorKind::Invalid, "list")
                .with("revision", at)
                .with("newest", now));
        }
        if at < state.history.floor() {
            return Err(Error::new(ErrorKind::Compacted, "list")
                .with("revision", at)
                .with("oldest", state.history.floor()));
        }
        let Some(range) = range else {
            return Ok(Page {
                items: Vec::new(),
                revision: at,
                more: false,
            });
        };
        let newest = state.current.range::<str, _>(range).map(|(_, kv)| kv);
        let mut items: Vec<KeyValue> = if at == now {
            newest.take(limit.saturating_add(1)).cloned().collect()
        } else {
            let undo = state.history.undo(at, prefix);
            let mut undo = undo
                .range::<str, _>(range)
                .map(|(key, kv)| (*key, *kv))
                .peekable();
            let mut newest = newest.peekable();
            let mut items = Vec::new();
            while items.len() <= limit {
                // Merge by key; where both have the key, the older state wins.
                let old_first = match (undo.peek(), newest.peek()) {
                    (None, None) => break,
                    (Some(_), None) => true,
                    (None, Some(_)) => false,
                    (Some((old, _)), Some(new)) => {
                        if *old == new.key.as_str() {
                            newest.next();
                            true
                        } else {
                            *old < new.key.as_str()
                        }
                    }
                };
                if old_first {
                    items.extend(undo.next().and_then(|(_, kv)| kv.cloned()));
                } else {
                    items.extend(newest.next().cloned());
                }
            }
            items
        };
        drop(state);
        let more = items.len() > limit;
        items.truncate(limit);
        Ok(Page {
            items,
            revision: at,
            more,
        })
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        txn.check(&self.capability)?;
        let now = self.clock.monotonic();
        let mut state = self.state.lock();
        if let Some(conflict) = state.conflict(&txn.guards, now) {
            return Ok(conflict);
        }
        Ok(Outcome::Committed {
            revision: state.apply(txn.writes),
        })
    }

    fn capability(&self) -> Capability {
        self.capability
    }
}

impl Watch for MemoryStore {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        let mut state = self.state.lock();
        let (floor, now) = (state.history.floor(), state.history.revision());
        if options.after < floor || options.after > now {
            return futures::stream::iter([Ok(WatchEvent::Gap { floor })]).boxed();
        }
        let missed = state.history.after(options.after, prefix);
        let (queue, id) = state.watchers.add(prefix, options.buffer);
        drop(state);
        MemoryWatch::new(prefix.clone(), missed, queue, id, Arc::downgrade(&self.state)).boxed()
    }
}

#[async_trait]
impl Leases for MemoryStore {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        check_grant(holder, ttl)?;
        Ok(self
            .state
            .lock()
            .leases
            .grant(name, holder, ttl, mode, &*self.clock))
    }

    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        Ok(self.state.lock().leases.renew(name, epoch, ttl, &*self.clock))
    }

    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.state.lock().leases.revoke(name, epoch);
        Ok(())
    }

    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        Ok(self.state.lock().leases.below(prefix, self.clock.monotonic()))
    }
}
