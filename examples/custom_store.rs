//! A store of your own: an append-only file of JSON lines before the store in memory. It passes the whole exam.
//!
//! ```text
//! commit ─> guards hold? ─> one line: write, fdatasync ─> memory ─> readers, watchers     (one writer at a time)
//! open   ─> lock the file ─> every line ─> memory;  a last line without its end was never acknowledged: cut off
//! ```
//!
//! `cargo run --example custom_store` shows it, `cargo test --example custom_store` sits the exam. Left out on purpose:
//! group commit, rewriting a file that has become long, and more documents than fit into memory.

#![allow(clippy::print_stdout, reason = "a program of its own, not a library")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use skyloom::model::{Clock, Timestamp};
use skyloom::store::wire::CommitRequest;
use skyloom::store::{
    Capability, Error, ErrorKind, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases, ListOptions,
    MemoryConfig, MemoryStore, Outcome, Page, Prefix, Renewal, Result, Store, Txn, Watch, WatchEvent,
    WatchOptions,
};
use tokio::sync::{Mutex, MutexGuard};

#[cfg(test)]
#[path = "custom_store/exam.rs"]
mod exam;
#[cfg(not(test))]
#[path = "custom_store/show.rs"]
mod show;

#[cfg(test)]
fn main() -> std::process::ExitCode {
    exam::main()
}

#[cfg(not(test))]
fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    show::main()
}

/// One line of the file: what was done, in the order in which it was done.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// Writes whose guards held.
    Commit(CommitRequest),
    /// A grant, whose epoch is one more than that of the name's last; and when it runs out.
    Grant(LeaseName, String, Timestamp),
    Renew(LeaseName, u64, Timestamp),
    Revoke(LeaseName, u64),
}

/// For leases while a file is read: nothing runs out before all is known.
const READING: Duration = Duration::from_secs(86_400);

/// The store.
#[derive(Debug)]
struct LogStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    memory: MemoryStore,
    clock: Arc<dyn Clock>,
    file: Mutex<Log>,
}

/// The open file; None after a failed write, when nobody knows what is on the disk.
#[derive(Debug)]
struct Log(Option<File>);

fn unusable() -> Error {
    Error::new(ErrorKind::Unavailable, "write log").with("state", "a write failed; open the store again")
}

impl Log {
    /// Writes a line and waits until it is on the disk. Whoever calls this is on a thread that may wait.
    fn append(&mut self, line: &Line) -> Result<()> {
        let mut bytes = serde_json::to_vec(line)
            .map_err(|e| Error::new(ErrorKind::Internal, "encode line").because(e))?;
        // Line ends can stand between the parts of a document, where a blank says the same, never inside of them.
        for byte in bytes.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
            *byte = b' ';
        }
        bytes.push(b'\n');
        let file = self.0.as_mut().ok_or_else(unusable)?;
        let written = file.write_all(&bytes).and_then(|()| file.sync_data());
        written.map_err(|e| {
            self.0 = None;
            Error::new(ErrorKind::Unknown, "write log").because(e)
        })
    }
}

impl LogStore {
    /// Opens the file, or makes it; one process may have it at a time. It is read whole, into memory.
    async fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        let failed = |e| Error::new(ErrorKind::Unavailable, "open log").because(e);
        let mut options = File::options();
        let mut file = options
            .create(true)
            .read(true)
            .append(true)
            .open(path)
            .map_err(failed)?;
        file.try_lock()
            .map_err(|e| Error::new(ErrorKind::Denied, "lock log").because(e))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;

        let memory = MemoryStore::new(clock.clone(), MemoryConfig::default());
        let (mut leases, mut whole) = (BTreeMap::new(), 0);
        for line in bytes
            .split_inclusive(|b| *b == b'\n')
            .filter(|line| line.ends_with(b"\n"))
        {
            let damaged = |e| {
                Error::new(ErrorKind::Corrupt, "read log")
                    .with("byte", whole)
                    .because(e)
            };
            match serde_json::from_slice(line).map_err(damaged)? {
                Line::Commit(writes) => {
                    memory.commit(writes.into()).await?;
                }
                Line::Grant(name, holder, until) => {
                    if let Grant::Granted { epoch } =
                        memory.grant(&name, &holder, READING, LeaseMode::TakeOver).await?
                    {
                        leases.insert(name, (epoch, until));
                    }
                }
                Line::Renew(name, epoch, until) => {
                    leases.insert(name, (epoch, until));
                }
                Line::Revoke(name, epoch) => memory.revoke(&name, epoch).await?,
            }
            whole += line.len();
        }
        for (name, (epoch, until)) in leases {
            let left = Duration::try_from(until.duration_since(clock.now())).unwrap_or_default();
            memory.renew(&name, epoch, left).await?;
        }
        file.set_len(whole as u64)
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        // The file's name must be as durable as its content.
        let folder = File::open(path.parent().unwrap_or(path)).map_err(failed)?;
        folder.sync_all().map_err(failed)?;
        let file = Mutex::new(Log(Some(file)));
        Ok(Self(Arc::new(Inner { memory, clock, file })))
    }

    /// Does `work` on a thread that may wait. Once begun it is done to its end, also when the caller goes away: what is
    /// in the file must get into memory.
    async fn to_the_end<T: Send + 'static, W: Future<Output = Result<T>> + Send + 'static>(
        &self,
        work: impl FnOnce(Arc<Inner>) -> W,
    ) -> Result<T> {
        let work = work(Arc::clone(&self.0));
        let done = tokio::task::spawn_blocking(move || futures::executor::block_on(work)).await;
        done.map_err(|e| Error::new(ErrorKind::Unknown, "write log").because(e))?
    }
}

impl Inner {
    /// The file, for whoever may write now.
    async fn log(&self) -> Result<MutexGuard<'_, Log>> {
        let log = self.file.lock().await;
        if log.0.is_some() { Ok(log) } else { Err(unusable()) }
    }

    fn end(&self, ttl: Duration) -> Timestamp {
        self.clock.now().checked_add(ttl).unwrap_or(Timestamp::MAX)
    }
}

#[async_trait]
impl Store for LogStore {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.0.memory.get(key).await
    }

    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.0.memory.list(prefix, options).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        txn.check(&self.capability())?;
        self.to_the_end(|inner| async move {
            // Nobody else writes until this is released, so guards that hold now hold for the writes.
            let mut log = inner.log().await?;
            let guards = Txn {
                guards: txn.guards,
                writes: Vec::new(),
            };
            let outcome = inner.memory.commit(guards).await?;
            if outcome.committed().is_none() || txn.writes.is_empty() {
                return Ok(outcome);
            }
            let writes = Txn {
                guards: Vec::new(),
                writes: txn.writes,
            };
            log.append(&Line::Commit(CommitRequest::try_from(&writes)?))?;
            inner.memory.commit(writes).await
        })
        .await
    }

    fn capability(&self) -> Capability {
        self.0.memory.capability().with_durable(true)
    }
}

impl Watch for LogStore {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        self.0.memory.watch(prefix, options)
    }
}

/// Leases change in memory first, where it is known whether they are held, but nobody can see it before it is on the disk:
/// every call, reading too, waits for the file.
#[async_trait]
impl Leases for LogStore {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        let (name, holder) = (name.clone(), holder.to_owned());
        self.to_the_end(|inner| async move {
            let mut log = inner.log().await?;
            let end = inner.end(ttl);
            let grant = inner.memory.grant(&name, &holder, ttl, mode).await?;
            if matches!(grant, Grant::Granted { .. }) {
                log.append(&Line::Grant(name, holder, end))?;
            }
            Ok(grant)
        })
        .await
    }

    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        let name = name.clone();
        self.to_the_end(|inner| async move {
            let mut log = inner.log().await?;
            let end = inner.end(ttl);
            let renewal = inner.memory.renew(&name, epoch, ttl).await?;
            if renewal == Renewal::Held {
                log.append(&Line::Renew(name, epoch, end))?;
            }
            Ok(renewal)
        })
        .await
    }

    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        let name = name.clone();
        self.to_the_end(|inner| async move {
            let mut log = inner.log().await?;
            inner.memory.revoke(&name, epoch).await?;
            log.append(&Line::Revoke(name, epoch))
        })
        .await
    }

    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        let _log = self.0.file.lock().await;
        self.0.memory.leases(prefix).await
    }
}
