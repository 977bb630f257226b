//! One process owns a database: an exclusive `flock` on a side file that names the owner, and file modes.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use skyloom_store::{Error, ErrorKind, Result};

const OPERATION: &str = "open database";

/// Held as long as any connection may write. The kernel lets go of it when the process dies.
#[derive(Debug)]
pub(super) struct Owner {
    lock: File,
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Closing alone would leave the lock with a child process that is just being started and has not yet dropped its
        // copy of the descriptor.
        let _ = self.lock.unlock();
    }
}

fn io_error(path: &Path, e: io::Error) -> Error {
    let kind = match e.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        io::ErrorKind::StorageFull => ErrorKind::Full,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, OPERATION)
        .with("path", path.display())
        .because(e)
}

/// The one true path of the database, so that two spellings cannot be locked apart.
pub(super) fn resolve(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(Error::new(ErrorKind::Invalid, OPERATION)
            .with("path", path.display())
            .with("hint", "name a file"));
    };
    if let Ok(existing) = path.canonicalize() {
        return Ok(existing);
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match parent.canonicalize() {
        Ok(parent) => Ok(parent.join(name)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()), // its folder is yet to be made
        Err(e) => Err(io_error(path, e)),
    }
}

/// Makes the folder (0700) and an empty database file (0600) where there is none.
pub(super) fn create(path: &Path) -> Result<PathBuf> {
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|e| io_error(parent, e))?;
    }
    let path = resolve(path)?;
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
    {
        Ok(_) => {
            let parent = path.parent().unwrap_or(&path);
            File::open(parent)
                .and_then(|dir| dir.sync_all())
                .map_err(|e| io_error(parent, e))?;
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(io_error(&path, e)),
    }
    Ok(path)
}

impl Owner {
    /// Takes the database at `path`, or says who has it.
    pub(super) fn take(path: &Path) -> Result<Self> {
        let mut side = path.as_os_str().to_owned();
        side.push(".lock");
        let side = PathBuf::from(side);
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&side);
        let mut lock = opened.map_err(|e| io_error(&side, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = lock.read_to_string(&mut owner);
                let owner = if owner.trim().is_empty() {
                    "unknown"
                } else {
                    owner.trim()
                };
                return Err(Error::new(ErrorKind::Unavailable, OPERATION)
                    .with("path", path.display())
                    .with("already open in process", owner)
                    .with(
                        "hint",
                        "one process owns the file; others reach it by the remote backend",
                    ));
            }
            Err(TryLockError::Error(e)) => return Err(io_error(&side, e)),
        }
        let named = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        named.map_err(|e| io_error(&side, e))?;
        Ok(Self { lock })
    }
}

/// Shuts group and others out of the database file.
pub(super) fn make_private(path: &Path) -> Result<()> {
    let mode = path
        .metadata()
        .map_err(|e| io_error(path, e))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|e| io_error(path, e))?;
    }
    Ok(())
}
