//! Directories by handle: every name is one component, no link is followed, nothing outside can be reached.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::pool::Owner;

/// Names of files that are not whole yet.
const TEMP: &str = ".tmp-";

/// An open directory.
#[derive(Debug, Clone)]
pub(crate) struct Dir {
    fd: Arc<OwnedFd>,
    path: PathBuf,
    /// What the names of files begin with that are not whole yet.
    temp: Arc<str>,
}

fn one_component(name: &str) -> io::Result<&str> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    Ok(name)
}

fn absent<T>(error: Errno) -> io::Result<Option<T>> {
    if error == Errno::NOENT {
        Ok(None)
    } else {
        Err(error.into())
    }
}

impl Dir {
    /// Opens the directory at an absolute path.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self {
            fd: Arc::new(fd),
            path: path.to_owned(),
            temp: Arc::from(TEMP),
        })
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The same directory, in which temporary files bear a host's name.
    pub(crate) fn tagged(self, host: &str) -> Self {
        let temp = Arc::from(format!("{TEMP}{host}-"));
        Self { temp, ..self }
    }

    pub(crate) fn is_parent_of(&self, path: &Path) -> bool {
        path.parent() == Some(&self.path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The directory of this name, if it is there.
    pub(crate) fn sub(&self, name: &str) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, one_component(name)?, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self {
                fd: Arc::new(fd),
                path: self.path.join(name),
                temp: Arc::clone(&self.temp),
            })),
            Err(e) => absent(e),
        }
    }

    /// Ensures that the directory of this name exists and survives a power cut.
    pub(crate) fn make_sub(&self, name: &str, mode: u32) -> io::Result<Self> {
        match rustix::fs::mkdirat(&self.fd, one_component(name)?, Mode::from_raw_mode(mode)) {
            Ok(()) => self.sync()?,
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        let sub = self
            .sub(name)?
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        rustix::fs::fchmod(&sub.fd, Mode::from_raw_mode(mode))?;
        Ok(sub)
    }

    /// Opens the regular file of this name for reading, if it is there.
    pub(crate) fn file(&self, name: &str) -> io::Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.fd, one_component(name)?, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(e) => return absent(e),
        };
        if file.metadata()?.is_file() {
            Ok(Some(file))
        } else {
            Err(io::Error::from(io::ErrorKind::InvalidData))
        }
    }

    /// Opens the file of this name, made empty where it is not there.
    pub(crate) fn ensure_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, one_component(name)?, flags, Mode::from_raw_mode(0o600))?;
        Ok(File::from(fd))
    }

    /// All names in it, sorted; those that are not UTF-8 are not ours.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            if let Ok(name) = entry?.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Ensures that no file of this name is there.
    pub(crate) fn unlink(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.fd, one_component(name)?, AtFlags::empty()) {
            Ok(()) => self.sync(),
            Err(e) => absent(e).map(|_: Option<()>| ()),
        }
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        rustix::fs::renameat(&self.fd, one_component(from)?, &self.fd, one_component(to)?)?;
        self.sync()
    }

    /// Removes the directory of this name with the files in it. A directory in it is not ours: an error.
    pub(crate) fn remove_sub(&self, name: &str) -> io::Result<()> {
        let Some(sub) = self.sub(name)? else { return Ok(()) };
        for file in sub.names()? {
            sub.unlink(&file)?;
        }
        rustix::fs::unlinkat(&self.fd, one_component(name)?, AtFlags::REMOVEDIR)?;
        self.sync()
    }

    /// Removes temporary files of earlier lives: a number behind what they begin with, so that host `a` leaves those of `a-b`.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        let number = |rest: &str| rest.bytes().all(|b| b.is_ascii_digit());
        let ours = |name: &&String| name.strip_prefix(&*self.temp).is_some_and(number);
        for name in self.names()?.iter().filter(ours) {
            tracing::info!(file = %self.path(name).display(), "sweeping a temporary file");
            self.unlink(name)?;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }
}

/// A file that is not whole yet. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Temp {
    dir: Dir,
    name: String,
    pub(crate) file: File,
}

impl Temp {
    pub(crate) fn create(dir: &Dir, counter: &AtomicU64) -> io::Result<Self> {
        let name = format!("{}{}", dir.temp, counter.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir.fd(), name.as_str(), flags, Mode::from_raw_mode(0o600))?;
        Ok(Self {
            dir: dir.clone(),
            name,
            file: File::from(fd),
        })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path(&self.name)
    }

    /// Gives it to a user or group.
    pub(crate) fn give(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        Ok(rustix::fs::fchown(
            &self.file,
            uid.map(Uid::from_raw),
            gid.map(Gid::from_raw),
        )?)
    }

    /// Gives it to the owner of disks, if there is one.
    pub(crate) fn give_to(&self, owner: Option<Owner>) -> io::Result<()> {
        owner.map_or(Ok(()), |o| self.give(Some(o.uid), Some(o.gid)))
    }

    pub(crate) fn mode(&self, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode))?)
    }

    /// Makes it the file `name` in one step that survives a power cut.
    pub(crate) fn publish(self, name: &str) -> io::Result<()> {
        self.file.sync_all()?;
        self.dir.rename(&self.name, name)
    }

    /// Makes it the file `name` unless there is one.
    pub(crate) fn publish_first(self, name: &str) -> io::Result<()> {
        self.file.sync_all()?;
        let (fd, name) = (self.dir.fd(), one_component(name)?);
        match rustix::fs::linkat(fd, self.name.as_str(), fd, name, AtFlags::empty()) {
            Ok(()) => self.dir.sync(),
            Err(Errno::EXIST) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        // After `publish` there is no such name. What cannot be removed now is swept at the next opening.
        let _ = rustix::fs::unlinkat(self.dir.fd(), self.name.as_str(), AtFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    #[test]
    fn names_with_more_than_one_component_reach_nothing() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("in")).unwrap();
        std::fs::write(temp.path().join("out"), b"x").unwrap();
        let dir = Dir::open(&temp.path().join("in")).unwrap();
        for name in ["../out", "..", ".", "", "/etc/passwd", "a/b", "a\0b"] {
            assert!(dir.file(name).is_err(), "{name:?}");
            assert!(dir.unlink(name).is_err(), "{name:?}");
            assert!(dir.sub(name).is_err(), "{name:?}");
        }
        assert!(temp.path().join("out").exists());
    }

    #[test]
    fn links_are_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let outside = temp.path().join("outside");
        std::fs::create_dir_all(temp.path().join("in")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("f"), b"x").unwrap();
        symlink(&outside, temp.path().join("in/dir")).unwrap();
        symlink(outside.join("f"), temp.path().join("in/file")).unwrap();
        let dir = Dir::open(&temp.path().join("in")).unwrap();
        assert!(dir.sub("dir").is_err());
        assert!(dir.make_sub("dir", 0o700).is_err());
        assert!(dir.remove_sub("dir").is_err());
        assert!(dir.file("file").is_err());
        dir.unlink("file").unwrap();
        assert!(outside.join("f").exists());
    }

    #[test]
    fn a_temporary_file_is_whole_or_gone() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let counter = AtomicU64::new(0);
        drop(Temp::create(&dir, &counter).unwrap());
        assert!(dir.names().unwrap().is_empty());
        let mut whole = Temp::create(&dir, &counter).unwrap();
        whole.file.write_all(b"whole").unwrap();
        whole.publish("f").unwrap();
        assert_eq!(dir.names().unwrap(), ["f"]);
        std::mem::forget(Temp::create(&dir, &counter).unwrap());
        assert_eq!(dir.names().unwrap().len(), 2);
        dir.sweep().unwrap();
        assert_eq!(dir.names().unwrap(), ["f"]);
    }
}
