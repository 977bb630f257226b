//! Where disks of servers are: in the host's own directory, or in one that several hosts see at the same path.
//!
//! ```text
//!  <folder>/skyloom-disks    says the folder's id: without it the directory is not that folder (not mounted, say)
//!  <folder>/path             its path on the first host: on the others it is the same
//!  <folder>/images/          shared too: overlays name what is below them by its path
//!  <folder>/servers/
//!  <folder>/locks/00 … ff    who works on the disks of a server holds the file of its id's last byte
//! ```
//!
//! The lock on the host's own directory says that no other process sweeps and evicts there. In a shared one each host sweeps its own
//! temporary files alone, an image that a disk of any host lies on stays, and a server's files are changed by one host at a time.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use rustix::fs::FlockOperation;
use skyloom_hypervisor::{Error, ErrorKind};
use skyloom_model::{Name, ServerId};

use crate::beneath::{Dir, Temp};
use crate::pool::Failure;

/// The file that says which folder this is, and the one that says where.
const MARK: &str = "skyloom-disks";
const PATH: &str = "path";
/// Servers that are being removed.
pub(crate) const GONE: &str = ".gone-";

/// Disks of servers in a directory that several hosts see. It must hold a file `skyloom-disks` with the id.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedDisks {
    /// What tells the folder from others; the same on each host.
    pub id: Name,
    /// Where it is; the same on each host.
    pub path: PathBuf,
}

impl SharedDisks {
    /// The folder of that id at that path.
    #[must_use]
    pub fn new(id: Name, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { id, path }
    }
}

/// Images and servers' disks.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) images: Dir,
    pub(crate) servers: Dir,
    /// Where several hosts see it.
    locks: Option<Dir>,
}

/// Held while a server's files are changed.
pub(crate) struct Held(Option<File>);

impl Folder {
    /// The host's own: nobody else is in it.
    pub(crate) fn own(root: &Dir, mode: u32) -> io::Result<Self> {
        let images = root.make_sub("images", mode)?;
        let servers = root.make_sub("servers", mode)?;
        let locks = None;
        let folder = Self {
            images,
            servers,
            locks,
        };
        folder.sweep()?;
        Ok(folder)
    }

    /// One that other hosts see. `host` tells this host's temporary files from those of others.
    pub(crate) fn shared(wanted: &SharedDisks, host: &str, mode: u32) -> io::Result<Self> {
        let path = wanted.path.canonicalize()?;
        let root = Dir::open(&path)?.tagged(host);
        root.sweep()?;
        compare(&root, &path, wanted)?;
        let folder = Self {
            images: root.make_sub("images", mode)?,
            servers: root.make_sub("servers", mode)?,
            locks: Some(root.make_sub("locks", 0o700)?),
        };
        folder.sweep()?;
        Ok(folder)
    }

    /// Puts away what an earlier life of this host left half done.
    fn sweep(&self) -> io::Result<()> {
        self.images.sweep()?;
        for name in self.servers.names()? {
            let gone = name.strip_prefix(GONE);
            let Ok(server) = gone.unwrap_or(&name).parse::<ServerId>() else {
                continue;
            };
            // Where another host works on it, that host ends it.
            let Some(_held) = self.try_hold(server)? else {
                continue;
            };
            if gone.is_some() {
                self.servers.remove_sub(&name)?;
            } else if let Some(disks) = self.servers.sub(&name)? {
                disks.sweep()?;
            }
        }
        Ok(())
    }

    fn try_hold(&self, server: ServerId) -> io::Result<Option<Held>> {
        let Some(locks) = &self.locks else {
            return Ok(Some(Held(None)));
        };
        let [.., last] = *server.uuid().as_bytes();
        let file = locks.ensure_file(&format!("{last:02x}"))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Held(Some(file)))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// The server's files, which no other host changes while this is held.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] while another host does.
    pub(crate) fn hold(&self, operation: &'static str, server: ServerId) -> Result<Held, Failure> {
        self.try_hold(server)?.ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, operation)
                .with("server", server)
                .with("because", "another host works on its disks")
                .into()
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Closing it would, too, if nobody else had it open by inheritance.
        if let Some(file) = &self.0 {
            let _ = rustix::fs::flock(file, FlockOperation::Unlock);
        }
    }
}

/// Compares what the folder says of itself with what is wanted. The first host adds the path.
fn compare(root: &Dir, path: &Path, wanted: &SharedDisks) -> io::Result<()> {
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let shown = path.display();
    match said(root, MARK)? {
        None => {
            return Err(wrong(format!(
                "{shown} has no file {MARK}: it is no folder of disks"
            )));
        }
        Some(id) if id.trim() != wanted.id.as_str() => {
            let id = id.trim();
            return Err(wrong(format!("{shown} is the folder {id:?}, not {}", wanted.id)));
        }
        Some(_) => {}
    }
    let mine = path
        .to_str()
        .ok_or_else(|| wrong(format!("{shown} is no text")))?;
    if said(root, PATH)?.is_none() {
        let mut temp = Temp::create(root, &AtomicU64::new(0))?;
        temp.file.write_all(mine.as_bytes())?;
        temp.publish_first(PATH)?;
    }
    match said(root, PATH)? {
        Some(path) if path == mine => Ok(()),
        other => Err(wrong(format!(
            "the folder {} is at {} on other hosts, here at {shown}: disks name files by their path",
            wanted.id,
            other.unwrap_or_default()
        ))),
    }
}

fn said(root: &Dir, name: &str) -> io::Result<Option<String>> {
    let Some(file) = root.file(name)? else {
        return Ok(None);
    };
    let mut said = String::new();
    file.take(8192).read_to_string(&mut said)?;
    Ok(Some(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_says_its_id_and_is_at_one_path() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("disks");
        std::fs::create_dir(&folder).unwrap();
        let open = |id: &str, path: &Path| {
            let wanted = SharedDisks::new(Name::new(id).unwrap(), path);
            Folder::shared(&wanted, "a", 0o700).map(drop)
        };
        let error = open("one", &folder).unwrap_err();
        assert!(error.to_string().contains("no file skyloom-disks"), "{error}");
        assert_eq!(
            std::fs::read_dir(&folder).unwrap().count(),
            0,
            "nothing is made in it"
        );
        std::fs::write(folder.join(MARK), "one\n").unwrap();
        open("one", &folder).unwrap();
        open("one", &folder).unwrap();
        assert_eq!(
            open("two", &folder).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        let elsewhere = temp.path().join("elsewhere");
        std::fs::rename(&folder, &elsewhere).unwrap();
        let error = open("one", &elsewhere).unwrap_err();
        assert!(error.to_string().contains("by their path"), "{error}");
    }

    #[test]
    fn a_servers_files_are_one_hosts_at_a_time() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join(MARK), "one").unwrap();
        let wanted = SharedDisks::new(Name::new("one").unwrap(), temp.path());
        let open = |host| Folder::shared(&wanted, host, 0o700).unwrap();
        let (a, b) = (open("a"), open("b"));
        let server = ServerId::from_uuid(uuid::Uuid::from_u128(7));
        let held = a.try_hold(server).unwrap().unwrap();
        assert!(b.try_hold(server).unwrap().is_none());
        assert!(
            b.try_hold(ServerId::from_uuid(uuid::Uuid::from_u128(8)))
                .unwrap()
                .is_some()
        );
        drop(held);
        assert!(b.try_hold(server).unwrap().is_some());
    }
}
