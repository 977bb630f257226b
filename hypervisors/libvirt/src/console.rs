//! Logs of the guests' serial consoles.
//!
//! ```text
//!  <dir>/<server uuid>/run/serial.log    what libvirt's QEMU appends to; run/ belongs to the daemon's user
//!                      serial.log.1      what was there before, ours
//! ```
//!
//! libvirt can rotate no file of a QEMU that writes it itself. It is opened for appending, so we copy it and cut it off;
//! what the guest writes in the instant between is lost.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags};
use skyloom_hypervisor::Result;
use skyloom_model::ServerId;
use tokio::time::MissedTickBehavior;

use crate::config::DaemonUser;
use crate::errors::{self, blocking};

const RUN: &str = "run";
const SERIAL: &str = "serial.log";
const SERIAL_OLD: &str = "serial.log.1";

/// The directory of all logs, locked: one hypervisor at a time.
#[derive(Debug)]
pub(crate) struct Logs {
    dir: PathBuf,
    owner: Option<DaemonUser>,
    lock: File,
}

impl Logs {
    pub(crate) fn open(dir: &Path, owner: Option<DaemonUser>) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        // Everybody may pass: what lies in it is named by ids, and private.
        fs::set_permissions(dir, Permissions::from_mode(0o711))?;
        let lock = File::open(dir)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self {
            dir: dir.canonicalize()?,
            owner,
            lock,
        })
    }

    /// Gives the directory free.
    pub(crate) fn unlock(&self) {
        if let Err(e) = rustix::fs::flock(&self.lock, FlockOperation::Unlock) {
            tracing::warn!(error = %e, "cannot give the directory of logs free");
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of one domain.
    pub(crate) fn of(&self, id: ServerId) -> PathBuf {
        self.dir.join(id.to_string())
    }

    /// What a guest's serial port writes to.
    pub(crate) fn path(&self, id: ServerId) -> PathBuf {
        self.of(id).join(RUN).join(SERIAL)
    }

    /// Ensures that the directories of a domain exist.
    pub(crate) async fn prepare(self: &Arc<Self>, id: ServerId) -> Result<()> {
        let logs = Arc::clone(self);
        let made = blocking(move || {
            let of = logs.of(id);
            make_dir(&of, 0o711)?;
            let run = of.join(RUN);
            make_dir(&run, 0o700)?;
            match logs.owner {
                Some(user) => chown(&run, Some(user.uid), Some(user.gid)),
                None => Ok(()),
            }
        });
        made.await
            .map_err(|e| errors::file("make the console's log", e).with("server", id))
    }

    /// Removes the logs of a domain.
    pub(crate) async fn remove(self: &Arc<Self>, id: ServerId) -> Result<()> {
        let of = self.of(id);
        let removed = blocking(move || match fs::remove_dir_all(of) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        });
        removed
            .await
            .map_err(|e| errors::file("remove the console's log", e).with("server", id))
    }

    fn servers(&self) -> io::Result<Vec<ServerId>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let name = name.to_str().unwrap_or_default();
            found.extend(name.parse::<ServerId>().ok().filter(|id| id.to_string() == name));
        }
        Ok(found)
    }

    /// Removes the logs of domains that are not there any more; a directory with anything else in it stays.
    pub(crate) fn sweep(&self, known: &BTreeSet<ServerId>) -> io::Result<()> {
        let there = |done: io::Result<()>| match done {
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                Ok(())
            }
            done => done,
        };
        for id in self.servers()? {
            if !known.contains(&id) {
                let of = self.of(id);
                there(fs::remove_dir_all(of.join(RUN)))?;
                there(fs::remove_file(of.join(SERIAL_OLD)))?;
                there(fs::remove_dir(of))?;
            }
        }
        Ok(())
    }

    /// The last `max` bytes over the rotation; `None` when there never was such a domain.
    pub(crate) fn tail(&self, id: ServerId, max: usize) -> io::Result<Option<Vec<u8>>> {
        if !self.of(id).is_dir() {
            return Ok(None);
        }
        let mut tail = last(open(&self.path(id), false)?, max)?;
        if tail.len() < max {
            let mut older = last(open(&self.of(id).join(SERIAL_OLD), false)?, max - tail.len())?;
            older.append(&mut tail);
            tail = older;
        }
        Ok(Some(tail))
    }

    /// Keeps the logs bounded, now and then, for ever.
    pub(crate) async fn keep_bounded(self: Arc<Self>, limit: u64, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let logs = Arc::clone(&self);
            let done = blocking(move || {
                for id in logs.servers()? {
                    if let Err(e) = logs.rotate(id, limit) {
                        tracing::warn!(server = %id, error = %e, "cannot rotate a console's log");
                    }
                }
                Ok(())
            });
            if let Err(e) = done.await {
                tracing::warn!(error = %e, "cannot look at the consoles' logs");
            }
        }
    }

    fn rotate(&self, id: ServerId, limit: u64) -> io::Result<()> {
        let Some(mut log) = open(&self.path(id), true)? else {
            return Ok(());
        };
        let len = log.metadata()?.len();
        if len <= limit {
            return Ok(());
        }
        let old = self.of(id).join(SERIAL_OLD);
        let temp = old.with_extension("part");
        let mut copy = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temp)?;
        // A flood is not kept whole: its last `limit` bytes and what comes while we copy.
        log.seek(SeekFrom::Start(len.saturating_sub(limit.saturating_mul(2))))?;
        io::copy(&mut log, &mut copy)?;
        log.set_len(0)?;
        fs::rename(temp, old)
    }
}

/// Opens a log of a directory that QEMU's user may write in: a plain file with one name, or none.
fn open(path: &Path, write: bool) -> io::Result<Option<File>> {
    let opened = OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let meta = file.metadata()?;
    if !meta.is_file() || meta.nlink() > 1 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the log is no plain file",
        ));
    }
    Ok(Some(file))
}

fn last(file: Option<File>, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut file) = file {
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(max as u64)))?;
        file.take(max as u64).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn logs(dir: &Path, id: ServerId) -> Arc<Logs> {
        let logs = Arc::new(Logs::open(dir, None).unwrap());
        logs.prepare(id).await.unwrap();
        logs
    }

    #[tokio::test]
    async fn the_tail_goes_over_rotations_and_files_stay_bounded() {
        let temp = tempfile::tempdir().unwrap();
        let id = ServerId::from_uuid(uuid::Uuid::from_u128(1));
        let logs = logs(temp.path(), id).await;
        assert_eq!(logs.tail(id, 10).unwrap(), Some(vec![]));
        let other = ServerId::from_uuid(uuid::Uuid::from_u128(2));
        assert_eq!(logs.tail(other, 10).unwrap(), None);
        fs::write(logs.path(id), b"abc").unwrap();
        logs.rotate(id, 3).unwrap();
        assert_eq!(logs.tail(id, 2).unwrap().unwrap(), b"bc");
        logs.rotate(id, 2).unwrap();
        assert_eq!(fs::metadata(logs.path(id)).unwrap().len(), 0);
        fs::write(logs.path(id), b"defg").unwrap();
        assert_eq!(logs.tail(id, 6).unwrap().unwrap(), b"bcdefg");
        fs::write(logs.path(id), vec![b'x'; 1000]).unwrap();
        logs.rotate(id, 10).unwrap();
        assert_eq!(logs.tail(id, 1000).unwrap().unwrap(), vec![b'x'; 20]);
        logs.sweep(&BTreeSet::from([id])).unwrap();
        assert!(logs.of(id).exists());
        let other = logs.of(id).join("snapshots.json");
        fs::write(&other, b"{}").unwrap();
        logs.sweep(&BTreeSet::new()).unwrap();
        assert!(other.exists() && !logs.path(id).exists());
        fs::remove_file(other).unwrap();
        logs.sweep(&BTreeSet::new()).unwrap();
        assert!(!logs.of(id).exists());
    }

    #[tokio::test]
    async fn links_are_neither_read_nor_cut() {
        let temp = tempfile::tempdir().unwrap();
        let id = ServerId::from_uuid(uuid::Uuid::from_u128(1));
        let logs = logs(&temp.path().join("logs"), id).await;
        let secret = temp.path().join("secret");
        for link in [
            |to: &Path, at: &Path| std::os::unix::fs::symlink(to, at),
            |to: &Path, at: &Path| fs::hard_link(to, at),
        ] {
            fs::write(&secret, vec![b's'; 100]).unwrap();
            link(&secret, &logs.path(id)).unwrap();
            assert!(logs.tail(id, 10).is_err());
            assert!(logs.rotate(id, 1).is_err());
            assert_eq!(fs::metadata(&secret).unwrap().len(), 100);
            fs::remove_file(logs.path(id)).unwrap();
        }
    }

    #[test]
    fn a_directory_is_used_by_one() {
        let temp = tempfile::tempdir().unwrap();
        let logs = Logs::open(temp.path(), None).unwrap();
        let second = Logs::open(temp.path(), None).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        logs.unlock();
        Logs::open(temp.path(), None).unwrap();
    }
}
