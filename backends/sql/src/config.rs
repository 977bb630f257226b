//! Settings, as plain data that a binary may read from its configuration file.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Settings of a [`crate::SqliteStore`]. Make one with [`SqliteConfig::new`] and change its fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SqliteConfig {
    /// The database file. Beside it stand `-wal` and `-shm` (SQLite's) and `.lock` (names the owning process).
    pub path: PathBuf,
    /// Commits that stay listable and watchable.
    #[serde(default = "max_history")]
    pub max_history: u64,
    /// Bytes of old and new values that the history may hold, about; the oldest commits go first.
    #[serde(default = "max_history_bytes")]
    pub max_history_bytes: u64,
    /// Most calls that share one durable write.
    #[serde(default = "max_batch")]
    pub max_batch: usize,
    /// Kibibytes of calls that may wait for the writer; each call counts at least one.
    #[serde(default = "max_queued_kib")]
    pub max_queued_kib: u32,
    /// Milliseconds that a call waits for room in the queue, a read for a connection (at least a second), and the writer
    /// for somebody else's lock on the database. Then the call is refused.
    #[serde(default = "max_wait_ms")]
    pub max_wait_ms: u64,
    /// Connections for reading.
    #[serde(default = "readers")]
    pub readers: u32,
    /// Largest size of the database file in bytes; commits beyond it are refused as full.
    #[serde(default)]
    pub max_file_bytes: Option<u64>,
    /// Check the whole file and every document's checksum when opening, and refuse damaged ones. Without it a store
    /// with a damaged document opens, and reading that document fails.
    #[serde(default = "check_on_open")]
    pub check_on_open: bool,
    /// Do not wait for the disk. Acknowledged commits may then vanish at a power failure, and the store says that it is
    /// not durable. For tests only.
    #[serde(default)]
    pub allow_unsafe: bool,
}

fn max_history() -> u64 {
    100_000
}
fn max_history_bytes() -> u64 {
    256 << 20
}
fn max_batch() -> usize {
    512
}
fn max_queued_kib() -> u32 {
    64 << 10
}
fn max_wait_ms() -> u64 {
    5_000
}
fn readers() -> u32 {
    4
}
fn check_on_open() -> bool {
    true
}

impl SqliteConfig {
    /// The defaults for the database at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            max_history: max_history(),
            max_history_bytes: max_history_bytes(),
            max_batch: max_batch(),
            max_queued_kib: max_queued_kib(),
            max_wait_ms: max_wait_ms(),
            readers: readers(),
            max_file_bytes: None,
            check_on_open: check_on_open(),
            allow_unsafe: false,
        }
    }

    pub(crate) fn max_wait(&self) -> Duration {
        Duration::from_millis(self.max_wait_ms)
    }
}
