//! The archive: what has ended leaves the hot store for another one, and stays to be searched.
//!
//! ```text
//!  hot store                                        archive: any store, by default the hot one itself
//!  tasks/ plans/ runs/ ── 1 create, once per identity ──> archive/task/{scope}/{end}/{id} + archive/task-id/{id}
//!         │                                                    │
//!         └── 3 removed in one commit, as they were read <── 2 acknowledged, or found equal
//!  events/ ────────────── the same, a week old ─────────> archive/event/{scope}/{id}
//! ```
//!
//! * **Exactly once by construction.** The address of a copy is made of what it is (scope, end, id) and is only ever
//!   created. What has ended never changes, so a copy that is there already is equal: then a former pass died between 1
//!   and 3, or somebody else does the same now, and the rest is done. A copy that differs is reported and nothing is
//!   removed.
//! * At every moment a finished task is in the hot store, in the archive, or in both.
//! * Any number of processes may do this side by side; one is enough. Nothing is remembered but where a pass goes on.
//! * A copy is one document: the records as they were, not as this build understands them. Where that is more than the
//!   archive takes in one document, plan and jobs go before it in parts of text.

mod copy;
mod document;
mod keep;
mod search;
mod sweep;
mod walk;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skyloom_model::{Clock, Phase, Readiness, Reason, TaskId, Timestamp};
use skyloom_store::{Capability, DynBackend, Store};

use crate::{CloudError, ErrorKind, Result};

pub(crate) use document::Archived;
pub use sweep::Moved;

/// The part of a process under which readiness reports speak of the archive.
const PART: &str = "archive";

/// When what goes to the archive, and for how long it stays there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArchiveConfig {
    /// Tasks that ended longer ago than this are moved. Zero: nothing is moved, and events are forgotten after a week.
    pub after: Duration,
    /// What ended longer ago than this is removed from the archive too. `None`: it stays for ever.
    pub keep: Option<Duration>,
}

impl Default for ArchiveConfig {
    /// Moved after a day, kept for ever.
    fn default() -> Self {
        Self {
            after: Duration::from_secs(24 * 3600),
            keep: None,
        }
    }
}

impl ArchiveConfig {
    /// With another time before tasks are moved.
    #[must_use]
    pub fn with_after(mut self, after: Duration) -> Self {
        self.after = after;
        self
    }

    /// With a bound on how long the archive keeps things.
    #[must_use]
    pub fn with_keep(mut self, keep: Option<Duration>) -> Self {
        self.keep = keep;
        self
    }
}

/// What an archive is made of.
#[derive(Debug, Clone)]
pub struct ArchiveParts {
    /// Where tasks and events are while they are young.
    pub hot: DynBackend,
    /// Where they go: any store, also `hot` itself.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where it tells how far it is.
    pub readiness: Option<Readiness>,
    /// When and for how long.
    pub config: ArchiveConfig,
}

/// The archive of a cloud. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Archive(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: ArchiveParts,
    /// Tasks that could not be moved, and were reported.
    reported: Mutex<BTreeSet<TaskId>>,
    /// The end of the oldest task that waits because the archive does not work.
    waits: Mutex<Option<Timestamp>>,
}

impl Archive {
    /// An archive of these parts.
    ///
    /// # Errors
    /// `archive.not_durable`: the archive would forget what the hot store keeps. `archive.keep_too_short`: things would
    /// leave the archive before they come to it.
    pub fn new(parts: ArchiveParts) -> Result<Self> {
        let config = parts.config;
        if parts.hot.capability().durable && !parts.store.capability().durable {
            let reason = Reason::new(
                "archive.not_durable",
                "the archive does not survive a restart, the store does: finished tasks would be lost",
            );
            return Err(CloudError::new(
                ErrorKind::Invalid,
                reason.hint("name a store that is kept on disk"),
            ));
        }
        if config
            .keep
            .is_some_and(|keep| keep < config.after.max(EVENTS_AFTER))
        {
            let message = "the archive must keep things longer than they stay in the store: a week for events, and \
                           for tasks as long as is configured";
            return Err(CloudError::invalid(Reason::new(
                "archive.keep_too_short",
                message,
            )));
        }
        Ok(Self::of(parts))
    }

    /// The archive of a cloud that has no other: its own store, with the usual times.
    #[must_use]
    pub fn within(hot: DynBackend, clock: Arc<dyn Clock>) -> Self {
        let store: Arc<dyn Store> = hot.clone();
        Self::of(ArchiveParts {
            hot,
            store,
            clock,
            readiness: None,
            config: ArchiveConfig::default(),
        })
    }

    fn of(parts: ArchiveParts) -> Self {
        let archive = Self(Arc::new(Inner {
            parts,
            reported: Mutex::default(),
            waits: Mutex::default(),
        }));
        if archive.moves() {
            archive.tell("has not looked for finished tasks yet");
        }
        archive
    }

    /// When and for how long.
    #[must_use]
    pub fn config(&self) -> ArchiveConfig {
        self.0.parts.config
    }

    /// Whether anything is moved at all.
    pub(crate) fn moves(&self) -> bool {
        !self.config().after.is_zero()
    }

    fn hot(&self) -> &DynBackend {
        &self.0.parts.hot
    }

    fn store(&self) -> &dyn Store {
        &*self.0.parts.store
    }

    fn now(&self) -> Timestamp {
        self.0.parts.clock.now()
    }

    /// Whether something is older than `age` now.
    fn older(&self, than: Duration, at: Timestamp) -> bool {
        jiff::SignedDuration::try_from(than).is_ok_and(|age| self.now().duration_since(at) > age)
    }

    /// Says in the readiness report how things are. Never makes a process unready: hot work goes on without the archive.
    fn tell(&self, detail: impl Into<String>) {
        if let Some(readiness) = &self.0.parts.readiness {
            readiness.done(PART, Phase::Watch, detail);
        }
    }
}

/// How long events stay in the hot store.
pub(crate) const EVENTS_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// Writes that may be in one commit to this store, each with a guard.
fn at_once(capability: Capability) -> usize {
    (capability.max_txn_ops.min(Capability::PORTABLE.max_txn_ops) / 2 - 1).max(1)
}

/// The longest document that is written to this store.
fn longest(capability: Capability) -> usize {
    capability.max_value_len.min(Capability::PORTABLE.max_value_len)
}
