//! Many watchers of one prefix: each event is read from the store and written as a line once, and the bytes are shared.
//!
//! ```text
//! first watcher ──────────────── its own watch of the store ──> lines
//! second watcher ─> Fan { one watch ──> Ring of lines } ──> every watcher that has caught up, the first one too
//! ```
//!
//! A watcher begins with a watch of its own, which reads the past at the watcher's own pace and judges its position. It
//! moves to the fan where nothing has been written there after its position: so it misses nothing and is sent nothing
//! twice. A prefix with one watcher has no fan: an agent's own costs nothing here.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;
use skyloom_store::feed::End;
use skyloom_store::feed::ring::{Reader, Ring};
use skyloom_store::wire::WatchLine;
use skyloom_store::{DynBackend, ListOptions, Prefix, Revision, WatchEvent, WatchOptions};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Most bytes of lines that wait for the watchers of one prefix.
const MAX_BYTES: usize = 16 << 20;

/// One line, shared by all its readers.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) bytes: Bytes,
    pub(crate) revision: Revision,
    /// Nothing comes after it.
    pub(crate) last: bool,
}

impl Line {
    /// The line of one item of a watch; `position` is where the watch stood before. None when it cannot be written.
    pub(crate) fn of(item: &skyloom_store::Result<WatchEvent>, position: Revision) -> Option<Self> {
        let revision = match item {
            Ok(WatchEvent::Commit { revision, .. } | WatchEvent::Progress(revision)) => {
                position.max(*revision)
            }
            Ok(WatchEvent::Gap { .. }) | Err(_) => position,
        };
        Self::written(&WatchLine::from_item(item), revision)
    }

    /// What shows the client that this end lives, and where it is.
    pub(crate) fn heartbeat(revision: Revision) -> Option<Self> {
        Self::written(&WatchLine::Progress { revision }, revision)
    }

    fn written(line: &WatchLine, revision: Revision) -> Option<Self> {
        match line.encode() {
            Ok((bytes, last)) => Some(Self {
                bytes,
                revision,
                last,
            }),
            Err(e) => {
                tracing::error!(error = %skyloom_model::report(&e), "a watch line cannot be written");
                None
            }
        }
    }
}

/// The fans of one server.
#[derive(Debug, Default)]
pub(crate) struct Fans(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    prefixes: HashMap<Prefix, Entry>,
    /// The fans' own watches; they end with the server's state.
    tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Entry {
    watchers: usize,
    fan: Option<Arc<Fan>>,
}

#[derive(Debug)]
struct Fan {
    /// Present as soon as it is known where the fan begins, and until it ends.
    ring: Mutex<Option<Arc<Ring<Line>>>>,
    unused: CancellationToken,
}

/// One watcher's membership; dropping it leaves.
#[derive(Debug)]
pub(crate) struct Member {
    fans: Arc<Fans>,
    prefix: Prefix,
}

impl Fans {
    /// Counts a watcher of `prefix`. The second one starts the fan.
    pub(crate) fn join(self: &Arc<Self>, prefix: &Prefix, backend: &DynBackend) -> Member {
        let mut table = self.0.lock();
        let table = &mut *table;
        while table.tasks.try_join_next().is_some() {}
        let entry = table.prefixes.entry(prefix.clone()).or_default();
        entry.watchers += 1;
        let ended = |fan: &Arc<Fan>| fan.unused.is_cancelled();
        if entry.watchers > 1 && entry.fan.as_ref().is_none_or(ended) {
            let fan = Arc::new(Fan {
                ring: Mutex::new(None),
                unused: CancellationToken::new(),
            });
            entry.fan = Some(Arc::clone(&fan));
            table.tasks.spawn(fan.run(prefix.clone(), Arc::clone(backend)));
        }
        Member {
            fans: Arc::clone(self),
            prefix: prefix.clone(),
        }
    }
}

impl Member {
    pub(crate) fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// A reader of the shared lines, if there are any and none was written after `position`, where the watcher has been.
    pub(crate) fn share(&self, position: Revision, buffer: usize) -> Option<Reader<Line>> {
        self.ring()?.join_at(position, buffer)
    }

    /// As [`Member::share`], of a position that nobody has looked at: one that the store has not reached is not shared.
    pub(crate) fn share_known(&self, position: Revision, buffer: usize) -> Option<Reader<Line>> {
        let ring = self.ring()?;
        (position <= ring.reached()).then(|| ring.join_at(position, buffer))?
    }

    fn ring(&self) -> Option<Arc<Ring<Line>>> {
        let fan = self.fans.0.lock().prefixes.get(&self.prefix)?.fan.clone()?;
        fan.ring.lock().clone()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut table = self.fans.0.lock();
        let Some(entry) = table.prefixes.get_mut(&self.prefix) else {
            return;
        };
        entry.watchers -= 1;
        if entry.watchers == 0 {
            if let Some(fan) = &entry.fan {
                fan.unused.cancel();
            }
            table.prefixes.remove(&self.prefix);
        }
    }
}

impl Fan {
    /// Feeds the ring until nobody is there any more or the watch ends.
    async fn run(self: Arc<Self>, prefix: Prefix, backend: DynBackend) {
        let feeding = self.feed(&prefix, &backend);
        let _: Option<()> = self.unused.run_until_cancelled(feeding).await;
        let ring = self.ring.lock().take();
        self.unused.cancel();
        if let Some(ring) = ring {
            ring.end(End::Closed);
            ring.wake();
        }
    }

    async fn feed(&self, prefix: &Prefix, backend: &DynBackend) {
        let one = ListOptions::default().with_limit(1);
        let Ok(page) = backend.list(prefix, one).await else {
            return;
        };
        let mut position = page.revision;
        let ring = Ring::new(position, MAX_BYTES);
        *self.ring.lock() = Some(Arc::clone(&ring));
        let mut events = backend.watch(prefix, WatchOptions::after(position).with_buffer(1 << 16));
        while let Some(item) = events.next().await {
            match item {
                Ok(WatchEvent::Progress(revision)) => {
                    position = position.max(revision);
                    ring.progress(position);
                }
                // The watchers that come back ask the store themselves, and are told what there is to tell.
                Ok(WatchEvent::Gap { .. }) | Err(_) => return,
                commit => {
                    let Some(line) = Line::of(&commit, position) else {
                        return;
                    };
                    position = line.revision;
                    let weight = line.bytes.len();
                    ring.push_after(&line, position, weight);
                }
            }
            ring.wake();
        }
    }
}
