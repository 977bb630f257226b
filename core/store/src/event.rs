//! What a watch delivers.

use serde::{Deserialize, Serialize};

use crate::{Key, KeyValue, Revision};

/// One change inside a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Created or replaced; `created == modified` means created.
    Put(KeyValue),
    /// Removed.
    Delete(Key),
}

impl Change {
    /// The key it touches.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(kv) => &kv.key,
            Self::Delete(key) => key,
        }
    }
}

/// One item of a watch stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// All changes below the prefix that one commit made.
    Commit {
        /// The commit's revision, greater than any delivered before.
        revision: Revision,
        /// At least one change, in key order.
        changes: Vec<Change>,
    },
    /// Everything up to this revision has been delivered; resume from here.
    Progress(Revision),
    /// The position is lost; the stream ends. List again, then watch from the list's revision.
    Gap {
        /// The oldest revision from which watching still works.
        floor: Revision,
    },
}

/// How to watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WatchOptions {
    /// Deliver commits after this revision (exclusive). 0 is the whole history (mostly a [`WatchEvent::Gap`]).
    pub after: Revision,
    /// Commits that may wait for this consumer before it is told [`WatchEvent::Gap`].
    pub buffer: usize,
}

impl WatchOptions {
    /// Commits after `revision`, with a buffer of 1024 commits.
    #[must_use]
    pub fn after(revision: Revision) -> Self {
        Self {
            after: revision,
            buffer: 1024,
        }
    }
    /// With another buffer.
    #[must_use]
    pub fn with_buffer(mut self, commits: usize) -> Self {
        self.buffer = commits;
        self
    }
}
