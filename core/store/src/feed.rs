//! Watching for stores that keep a log: the past is read from the log, the present comes from a hub in the process.
//!
//! ```text
//!  whoever learns of commits ── publish, in order ──> Hub ──> Tail ──> one watcher's stream
//!  (a writer, or a reader of a shared log)                     ↑
//!                                        Past::replay ─────────┘ up to where the hub begins
//! ```
//!
//! A backend implements [`Past`] over its log, feeds a [`Hub`], and answers [`crate::Watch::watch`] with [`watch`]. It gets from
//! here: no gap and nothing twice between past and present, bounded buffers, and a [`crate::WatchEvent::Gap`] for whoever
//! asks for what is gone or does not keep up.

mod hub;
pub mod ring;
mod tail;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

pub use hub::{End, Head, Hub, Live, Subscription};
pub use tail::watch;

use crate::{Change, Prefix, Result, Revision};

/// One commit, shared by all watchers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its revision.
    pub revision: Revision,
    /// What it changed, in key order.
    pub changes: Vec<Change>,
}

/// Past commits for a watcher.
#[derive(Debug)]
pub enum Replay {
    /// All commits below the prefix up to and including `through`, each with its changes below the prefix.
    Commits {
        /// In the order of their revisions.
        commits: Vec<Commit>,
        /// How far this goes: beyond what was asked after, and at most as far as was asked.
        through: Revision,
    },
    /// The log no longer goes back that far.
    Lost {
        /// The oldest revision from which watching still works.
        floor: Revision,
    },
}

/// A log of commits that can be read from any revision that it still holds.
#[async_trait]
pub trait Past: Send + Sync + Debug + 'static {
    /// Commits after `after` and up to `through`, as many as fit into one answer.
    ///
    /// # Errors
    /// Of the store. [`crate::ErrorKind::Corrupt`] costs the watcher its position, everything else its stream.
    async fn replay(&self, prefix: &Prefix, after: Revision, through: Revision) -> Result<Replay>;

    /// Where the store stands. Asked when a watcher begins beyond what the hub has seen, which happens where the hub
    /// learns of commits later than those who made them.
    ///
    /// # Errors
    /// Of the store.
    async fn revision(&self) -> Result<Revision>;
}

/// A shared log.
pub type DynPast = Arc<dyn Past>;
