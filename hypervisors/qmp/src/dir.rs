//! The directory of one domain.
//!
//! ```text
//!  <dir>/<server uuid>/  desc.json live.json             ours, 0600, each replaced in one step
//!                        serial.log serial.log.1 qemu.log qemu.log.1
//!                        snapshots.json memory.state
//!                        run/qmp.sock run/agent.sock     run/ belongs to the user that QEMU runs as
//! ```
//!
//! QEMU works in this directory and names everything in it by relative paths. Unix socket addresses end at 107 bytes:
//! we reach the socket through a directory handle.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::RunAs;

pub(crate) const DESC: &str = "desc.json";
pub(crate) const LIVE: &str = "live.json";
pub(crate) const SERIAL: &str = "serial.log";
pub(crate) const SERIAL_OLD: &str = "serial.log.1";
pub(crate) const QEMU_LOG: &str = "qemu.log";
/// The memory of a suspended guest; whole under this name.
pub(crate) const MEMORY: &str = "memory.state";
pub(crate) const MEMORY_PART: &str = "memory.part";
pub(crate) const SNAPSHOTS: &str = "snapshots.json";
/// The last picture of the screen, as QEMU names it.
pub(crate) const PICTURE: &str = "run/screen.png";
const QEMU_LOG_OLD: &str = "qemu.log.1";
const RUN: &str = "run";
/// The monitor socket, as QEMU names it.
pub(crate) const SOCKET: &str = "run/qmp.sock";

/// The line to the agent in the guest, as QEMU names it.
pub(crate) const AGENT: &str = "run/agent.sock";

/// Longest JSON file that is read.
const MAX_JSON: u64 = 4 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct VmDir {
    path: PathBuf,
    fd: OwnedFd,
}

impl VmDir {
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::empty())?;
        Ok(Self { path, fd })
    }

    /// Ensures that the directory exists and survives a power cut.
    pub(crate) fn create(path: PathBuf, run_as: Option<RunAs>) -> io::Result<Self> {
        make_dir(&path, if run_as.is_some() { 0o711 } else { 0o700 })?;
        if let Some(parent) = path.parent() {
            sync_dir(parent)?;
        }
        Self::open(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A socket, short enough wherever the directory is.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd()))
    }

    /// Ensures that a file is gone.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// An empty file for a guest's memory.
    pub(crate) fn new_memory(&self) -> io::Result<File> {
        self.remove(MEMORY)?;
        self.remove(MEMORY_PART)?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.join(MEMORY_PART))
    }

    /// The memory is whole: gives the file its name, in one step that survives a power cut.
    pub(crate) fn keep_memory(&self, file: &File) -> io::Result<()> {
        file.sync_all()?;
        fs::rename(self.join(MEMORY_PART), self.join(MEMORY))?;
        sync_dir(&self.path)
    }

    /// Whether hardly anything more can be written.
    pub(crate) fn is_full(&self) -> bool {
        rustix::fs::statvfs(&self.path).is_ok_and(|s| s.f_bavail.saturating_mul(s.f_frsize) < 1 << 20)
    }

    /// Forgets a guest's memory, whole or not.
    pub(crate) fn drop_memory(&self) -> io::Result<()> {
        self.remove(MEMORY)?;
        self.remove(MEMORY_PART)
    }

    /// A file that QEMU has written, of at most `limit` bytes: it is no link, and it is removed.
    pub(crate) fn take(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
            .open(self.join(name))?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file"));
        }
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes)?;
        self.remove(name)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too long"));
        }
        Ok(bytes)
    }

    /// Makes what a new QEMU needs; returns its standard error.
    pub(crate) fn prepare(&self, run_as: Option<RunAs>) -> io::Result<File> {
        let run = self.join(RUN);
        make_dir(&run, 0o700)?;
        give(&run, run_as)?;
        self.remove(SOCKET)?;
        self.remove(AGENT)?;
        self.create_serial(run_as)?;
        append(&self.join(QEMU_LOG))
    }

    /// Ensures that `serial.log` is there for QEMU to append to.
    pub(crate) fn create_serial(&self, run_as: Option<RunAs>) -> io::Result<()> {
        append(&self.join(SERIAL))?;
        give(&self.join(SERIAL), run_as)
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let Some(file) = open(&self.join(name))? else {
            return Ok(None);
        };
        let mut text = Vec::new();
        file.take(MAX_JSON).read_to_end(&mut text)?;
        Ok(Some(serde_json::from_slice(&text)?))
    }

    /// Replaces the file in one step that survives a power cut.
    pub(crate) fn write<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let temp = self.join(&format!(".{name}.tmp"));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temp)?;
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temp, self.join(name))?;
        sync_dir(&self.path)
    }

    pub(crate) fn len(&self, name: &str) -> u64 {
        fs::metadata(self.join(name)).map_or(0, |m| m.len())
    }

    /// What the file holds from `offset` on, at most `limit` bytes, as text.
    pub(crate) fn text_from(&self, name: &str, offset: u64, limit: u64) -> String {
        let read = || {
            let mut file = File::open(self.join(name))?;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            file.take(limit).read_to_end(&mut bytes)?;
            io::Result::Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        read().unwrap_or_default()
    }

    /// Keeps QEMU's own messages bounded. It appends to the file, so that cutting it off is safe.
    pub(crate) fn rotate_qemu_log(&self, limit: u64) -> io::Result<()> {
        if self.len(QEMU_LOG) > limit {
            fs::copy(self.join(QEMU_LOG), self.join(QEMU_LOG_OLD))?;
            OpenOptions::new()
                .write(true)
                .open(self.join(QEMU_LOG))?
                .set_len(0)?;
        }
        Ok(())
    }

    /// The last `max` bytes of the serial log over its rotation.
    pub(crate) fn serial_tail(&self, max: usize) -> io::Result<Vec<u8>> {
        let (new, old) = loop {
            let (new, old) = (open(&self.join(SERIAL))?, open(&self.join(SERIAL_OLD))?);
            let inode = |file: &Option<File>| {
                file.as_ref()
                    .map(File::metadata)
                    .transpose()
                    .map(|m| m.map(|m| m.ino()))
            };
            // One file under both names: it was rotated in between.
            if old.is_none() || inode(&new)? != inode(&old)? {
                break (new, old);
            }
        };
        let mut tail = last(new, max)?;
        if tail.len() < max {
            let mut older = last(old, max - tail.len())?;
            older.append(&mut tail);
            tail = older;
        }
        Ok(tail)
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
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

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(path)
}

fn give(path: &Path, run_as: Option<RunAs>) -> io::Result<()> {
    match run_as {
        Some(user) => chown(path, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    }
}

/// Ensures that a directory of this mode exists.
pub(crate) fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_replaced_whole_and_private() {
        let temp = tempfile::tempdir().unwrap();
        let dir = VmDir::create(temp.path().join("vm"), None).unwrap();
        assert_eq!(dir.read::<Vec<u32>>(DESC).unwrap(), None);
        dir.write(DESC, &vec![1, 2]).unwrap();
        dir.write(DESC, &vec![3]).unwrap();
        assert_eq!(dir.read::<Vec<u32>>(DESC).unwrap(), Some(vec![3]));
        assert_eq!(
            fs::metadata(dir.join(DESC)).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777,
            0o700
        );
        fs::write(dir.join(DESC), b"{\"half").unwrap();
        assert!(dir.read::<Vec<u32>>(DESC).is_err());
    }

    #[test]
    fn the_tail_goes_over_the_rotation() {
        let temp = tempfile::tempdir().unwrap();
        let dir = VmDir::create(temp.path().join("vm"), None).unwrap();
        assert_eq!(dir.serial_tail(10).unwrap(), b"");
        fs::write(dir.join(SERIAL), b"defg").unwrap();
        assert_eq!(dir.serial_tail(3).unwrap(), b"efg");
        fs::write(dir.join(SERIAL_OLD), b"abc").unwrap();
        assert_eq!(dir.serial_tail(6).unwrap(), b"bcdefg");
        assert_eq!(dir.serial_tail(100).unwrap(), b"abcdefg");
    }

    #[test]
    fn a_directory_that_is_a_link_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", temp.path().join("vm")).unwrap();
        assert!(VmDir::open(temp.path().join("vm")).is_err());
    }
}
