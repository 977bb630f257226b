//! What watchers are fed with: one etcd watch of all documents per store handle, fanned out by the hub in the process.
//!
//! ```text
//!  etcd ── one watch of /PREFIX/docs* ──> Feed::run ──> ring of recent commits ──> replay for those who start a bit back
//!                                              └──────> Hub ──> watchers
//!  etcd ── a watch of its own ───────────────────────────────> replay for those who start far back
//! ```
//!
//! A broken stream is opened again where it broke, as long as etcd remembers what happened in this store since; watchers
//! notice nothing but the wait. When it does not, or the store has gone back (a restored backup), all watchers get a
//! gap.
//!
//! etcd never splits a revision between two messages of a watch, and a watch from revision `r` is refused when `r` is
//! below the compaction. Watches here start *at* the last revision that is known, not after it, and leave out what is
//! known: so the first revision wanted always lies above the compaction, where nothing of it can be missing. (Some
//! versions of etcd lose deletes of the very revision that was compacted.)

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{EventType, GetOptions, WatchOptions, WatchResponse, WatchStream};
use parking_lot::Mutex;
use skyloom_store::feed::{Commit, Hub, Past, Replay};
use skyloom_store::{Change, Error, ErrorKind, Key, KeyValue, Prefix, Result, Revision, Value};
use tokio::sync::watch;

use crate::commit::{get_keys_only, header, modified, native, revision, seen_head};
use crate::error::{Fate, Told, judge};
use crate::keys::Keys;
use crate::link::{At, Clients, Link};
use crate::ring::{Ring, below};

/// Commits in one step of a replay from etcd, about.
const PAGE_COMMITS: usize = 512;
/// First and longest wait before a broken watch is opened again.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Where a store stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stand {
    /// The store's revision.
    pub(crate) store: Revision,
    /// etcd's, at the same moment.
    pub(crate) etcd: Revision,
}

/// The revision of the store, read anew.
pub(crate) async fn stand(link: &Link, keys: &Keys, operation: &'static str) -> Result<Stand> {
    let read = |clients: Arc<Clients>| {
        let look = etcd_client::Txn::new().and_then([get_keys_only(keys.head().to_owned())]);
        async move { clients.kv.clone().txn(look).await }
    };
    let answer = link.call(operation, Fate::Nothing, read).await?;
    Ok(Stand {
        store: seen_head(&answer)?,
        etcd: header(&answer),
    })
}

/// The commits in one message of a watch, those after `after`; with the revision of the last event.
fn commits(keys: &Keys, message: &WatchResponse, after: Revision) -> (Vec<Commit>, Option<Revision>) {
    let mut found: BTreeMap<Revision, Vec<Change>> = BTreeMap::new();
    for event in message.events() {
        let Some(kv) = event.kv() else { continue };
        let at = revision(kv.mod_revision());
        if at <= after {
            continue;
        }
        let changes = found.entry(at).or_default();
        if kv.key() == keys.head().as_bytes() {
            continue;
        }
        let Some(key) = keys.path(kv.key()).and_then(|path| Key::parse(path).ok()) else {
            let key = String::from_utf8_lossy(kv.key());
            tracing::error!(%key, "a key among the documents that cannot be one; somebody wrote it by hand");
            continue;
        };
        changes.push(match event.event_type() {
            EventType::Put => Change::Put(KeyValue {
                key,
                value: Value::from_json_bytes(kv.value().to_vec()),
                created: revision(kv.create_revision()),
                modified: at,
            }),
            EventType::Delete => Change::Delete(key),
        });
    }
    let last = found.keys().next_back().copied();
    let commit = |(revision, mut changes): (Revision, Vec<Change>)| {
        changes.sort_by(|a, b| a.key().cmp(b.key()));
        Commit { revision, changes }
    };
    (found.into_iter().map(commit).collect(), last)
}

/// What the watchers of one store handle share.
#[derive(Debug)]
pub(crate) struct Feed {
    link: Arc<Link>,
    keys: Arc<Keys>,
    pub(crate) hub: Arc<Hub>,
    ring: Mutex<Ring>,
    /// Where the store stood at the last compaction that etcd told of: the oldest revision to watch from.
    floor: AtomicU64,
    /// Whether anybody has wanted to watch yet, and whether the hub has been brought to the present for that.
    stage: watch::Sender<Stage>,
}

/// What a feed does. Handles that nobody watches through cost etcd nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    Wanted,
    Live,
}

impl Feed {
    pub(crate) fn new(link: Arc<Link>, keys: Arc<Keys>, start: Stand) -> Self {
        Self {
            link,
            keys,
            hub: Arc::new(Hub::new(start.store, Revision(0))),
            ring: Mutex::new(Ring::new(start.store)),
            floor: AtomicU64::new(0),
            stage: watch::Sender::new(Stage::Idle),
        }
    }

    /// Until the hub may be joined, or the store is closed.
    pub(crate) async fn ready(&self) {
        self.stage.send_if_modified(|stage| {
            let first = *stage == Stage::Idle;
            if first {
                *stage = Stage::Wanted;
            }
            first
        });
        // The sender lives as long as this.
        let _ = self.stage.subscribe().wait_for(|s| *s == Stage::Live).await;
    }

    /// Lets go of all who wait or watch.
    pub(crate) fn close(&self) {
        self.hub.close();
        self.stage.send_replace(Stage::Live);
    }

    fn floor(&self) -> Revision {
        Revision(self.floor.load(Ordering::Relaxed)).min(self.hub.head().revision)
    }

    /// etcd has forgotten everything before `at`, and so does this handle.
    pub(crate) fn forget(&self, at: Revision) {
        self.ring.lock().forget(at);
    }

    /// Follows etcd for ever, once somebody wants to watch: the store handle aborts it.
    pub(crate) async fn run(self: Arc<Self>) {
        let _ = self.stage.subscribe().wait_for(|s| *s != Stage::Idle).await;
        // Everything up to here has been published; etcd's own revision may be far beyond the store's.
        let mut seen = Revision(0);
        let mut wait = FIRST_WAIT;
        loop {
            let before = seen;
            if let Err(e) = self.follow(&mut seen).await {
                let error = skyloom_model::report(&e);
                tracing::warn!(error, "the watch of etcd broke; opening it again");
            }
            if seen > before {
                wait = FIRST_WAIT;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// One etcd watch, until it breaks.
    async fn follow(&self, seen: &mut Revision) -> Result<()> {
        let now = stand(&self.link, &self.keys, "watch").await?;
        let published = self.hub.head().revision;
        if *self.stage.borrow() != Stage::Live {
            // Nobody watches yet, so nothing need be caught up with.
            self.lose(now, seen);
            self.stage.send_replace(Stage::Live);
        } else if now.store < published {
            tracing::error!(
                published = published.0,
                now = now.store.0,
                "the store has gone back, as after a restore"
            );
            self.lose(now, seen);
        } else if now.store == published {
            // Nothing was missed, whatever etcd has forgotten meanwhile.
            *seen = now.etcd.max(*seen);
        }
        let (mut stream, mut at) = open(&self.link, &self.keys, *seen).await?;
        loop {
            let message = next(&self.link, &mut stream, &at).await?;
            if message.canceled() {
                match self.beyond(&message, self.hub.head().revision).await? {
                    Some(start) => *seen = start.max(*seen),
                    None => {
                        let now = stand(&self.link, &self.keys, "watch").await?;
                        self.lose(now, seen);
                    }
                }
                (stream, at) = open(&self.link, &self.keys, *seen).await?;
                continue;
            }
            self.publish(&message, seen);
        }
    }

    fn publish(&self, message: &WatchResponse, seen: &mut Revision) {
        let (found, last) = commits(&self.keys, message, *seen);
        let Some(last) = last else {
            // A mark of progress. Other messages say where etcd is, not how far this watch has come.
            if !message.created()
                && message.events().is_empty()
                && let Some(header) = message.header()
            {
                *seen = revision(header.revision()).max(*seen);
            }
            return;
        };
        *seen = last;
        let found: Vec<Arc<Commit>> = found
            .into_iter()
            .filter(|c| !c.changes.is_empty())
            .map(Arc::new)
            .collect();
        // Into the ring first: whoever joins the hub afterwards finds everything before in the ring.
        let mut ring = self.ring.lock();
        for commit in &found {
            ring.push(Arc::clone(commit));
        }
        drop(ring);
        self.hub.publish(&found, last, self.floor());
    }

    /// All watchers must list again.
    fn lose(&self, now: Stand, seen: &mut Revision) {
        *seen = now.etcd;
        *self.ring.lock() = Ring::new(now.store);
        self.hub.lose(
            now.store,
            Revision(self.floor.load(Ordering::Relaxed)).min(now.store),
        );
    }

    /// etcd ended a watch of everything after `after`. If that was because it has forgotten so much, and nothing
    /// happened in this store in what it has forgotten, a watch can begin there.
    async fn beyond(&self, end: &WatchResponse, after: Revision) -> Result<Option<Revision>> {
        let compacted = revision(end.compact_revision());
        if compacted == Revision(0) {
            return Err(cancelled(end));
        }
        let read = |clients: Arc<Clients>| {
            let options = GetOptions::new()
                .with_keys_only()
                .with_revision(native(compacted.0));
            let head = self.keys.head();
            async move { clients.kv.clone().get(head, Some(options)).await }
        };
        match self.link.call("watch", Fate::Nothing, read).await {
            Ok(head) => {
                // Absent: the store was made later.
                let then = modified(&head).unwrap_or_default();
                self.floor.fetch_max(then.0, Ordering::Relaxed);
                Ok((then <= after).then_some(compacted))
            }
            // It has forgotten even more by now.
            Err(e) if e.kind() == ErrorKind::Compacted => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// A stretch of the past from etcd itself.
    async fn read(&self, prefix: &Prefix, after: Revision, through: Revision) -> Result<Replay> {
        let (mut stream, mut at) = open(&self.link, &self.keys, after).await?;
        let patience = self.link.config().request_timeout();
        let mut page = Vec::new();
        let mut seen = after;
        loop {
            let message = match tokio::time::timeout(patience, next(&self.link, &mut stream, &at)).await {
                Ok(message) => message?,
                Err(_) => {
                    return Err(Error::new(ErrorKind::Timeout, "watch")
                        .with("after", seen)
                        .with("through", through));
                }
            };
            if message.canceled() {
                let Some(start) = self.beyond(&message, seen).await? else {
                    return Ok(Replay::Lost { floor: self.floor() });
                };
                (stream, at) = open(&self.link, &self.keys, start).await?;
                continue;
            }
            let (found, last) = commits(&self.keys, &message, seen);
            page.extend(
                found
                    .iter()
                    .take_while(|c| c.revision <= through)
                    .filter_map(|c| below(prefix, c)),
            );
            seen = last.unwrap_or(seen);
            if seen >= through || page.len() >= PAGE_COMMITS {
                return Ok(Replay::Commits {
                    commits: page,
                    through: seen.min(through),
                });
            }
        }
    }
}

/// Opens a watch of all documents that delivers everything after `after`, and perhaps what is at it.
async fn open(link: &Link, keys: &Keys, after: Revision) -> Result<(WatchStream, At)> {
    let (first, end) = keys.watched();
    let options = WatchOptions::new()
        .with_range(end)
        // For etcd 0 is the present.
        .with_start_revision(native(after.0).max(1))
        .with_progress_notify();
    let begin = |clients: Arc<Clients>| {
        let (first, options) = (first.clone(), options.clone());
        async move { clients.watch.clone().watch(first, Some(options)).await }
    };
    link.reach("watch", Fate::Nothing, begin).await
}

/// The next message; the end of the stream is an error.
async fn next(link: &Link, stream: &mut WatchStream, at: &At) -> Result<WatchResponse> {
    match stream.message().await {
        Ok(Some(message)) => Ok(message),
        Ok(None) => {
            link.give_up(at);
            Err(Error::new(ErrorKind::Unavailable, "watch").because("etcd ended the stream"))
        }
        Err(e) => {
            link.give_up(at);
            let told = Told::of(&e, judge(&e, Fate::Nothing));
            Err(told.at("watch", link.address(at)))
        }
    }
}

fn cancelled(message: &WatchResponse) -> Error {
    let denied = message.cancel_reason().contains("permission denied");
    let kind = if denied {
        ErrorKind::Denied
    } else {
        ErrorKind::Unavailable
    };
    Error::new(kind, "watch").because(format!("etcd ended the watch: {}", message.cancel_reason()))
}

#[async_trait]
impl Past for Feed {
    async fn replay(&self, prefix: &Prefix, after: Revision, through: Revision) -> Result<Replay> {
        let recent = self.ring.lock().between(prefix, after, through);
        match recent {
            Some(commits) => Ok(Replay::Commits { commits, through }),
            None => self.read(prefix, after, through).await,
        }
    }

    async fn revision(&self) -> Result<Revision> {
        Ok(stand(&self.link, &self.keys, "watch").await?.store)
    }
}
