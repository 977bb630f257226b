//! What is kept on disk: a record per port and per network, each replaced as a whole.
//!
//! ```text
//!  <dir>/ports/<port>.json       the wiring without user data; written before anything is made, removed after all is gone
//!  <dir>/ports/<port>.data       user data, readable by the owner only
//!  <dir>/networks/<network>.json the network's zone of connection tracking
//!  <dir>/lock                    held by the one who works here
//! ```

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skyloom_hypervisor::{Error, ErrorKind, PortWiring, Result};
use skyloom_model::{NetworkId, PortId, Secret};

const PORTS: &str = "ports";
const NETWORKS: &str = "networks";

/// A port as it is on record.
#[derive(Debug, Clone)]
pub(crate) struct PortRecord {
    /// What is wanted.
    pub(crate) wiring: PortWiring,
    /// Whether all of it has been made by this agent. Not kept: the next one looks for itself.
    pub(crate) complete: bool,
}

/// A network's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    /// Its zone of connection tracking: networks may have the same addresses.
    pub(crate) zone: u16,
}

/// The directory.
#[derive(Debug)]
pub(crate) struct Records {
    dir: PathBuf,
    _lock: File,
}

impl Records {
    /// Opens the directory, alone.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        for folder in [dir.to_owned(), dir.join(PORTS), dir.join(NETWORKS)] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.map_err(|e| broken(&folder, e))?;
        }
        let path = dir.join("lock");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(&path).map_err(|e| broken(&path, e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                dir: dir.to_owned(),
                _lock: lock,
            }),
            Err(e) => Err(Error::new(ErrorKind::Conflict, "open network")
                .with("in use", path.display())
                .because(io::Error::from(e))),
        }
    }

    pub(crate) fn ports(&self) -> Result<BTreeMap<PortId, PortRecord>> {
        let good = |id: &PortId, wiring: &PortWiring| wiring.port == *id && wiring.check().is_ok();
        let mut all = BTreeMap::new();
        for (id, mut wiring) in self.all(PORTS, good)? {
            let path = self.data(id);
            match fs::read(&path) {
                Ok(data) => wiring.metadata.user_data = Some(Secret::new(data)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(broken(&path, e)),
            }
            let complete = false;
            all.insert(id, PortRecord { wiring, complete });
        }
        Ok(all)
    }
    pub(crate) fn networks(&self) -> Result<BTreeMap<NetworkId, NetworkRecord>> {
        self.all(NETWORKS, |_, _| true)
    }

    /// Keeps a port: its user data first, so that the record never lacks it.
    pub(crate) fn put_port(&self, wiring: &PortWiring) -> Result<()> {
        let (path, data) = (self.path(PORTS, &wiring.port), self.data(wiring.port));
        match &wiring.metadata.user_data {
            Some(secret) => replace(&data, secret.expose())?,
            None => remove(&data)?,
        }
        put(&path, wiring)?;
        sync_folder(&path)
    }
    pub(crate) fn remove_port(&self, port: PortId) -> Result<()> {
        let path = self.path(PORTS, &port);
        remove(&self.data(port))?;
        remove(&path)?;
        sync_folder(&path)
    }
    pub(crate) fn put_network(&self, network: NetworkId, record: NetworkRecord) -> Result<()> {
        let path = self.path(NETWORKS, &network);
        put(&path, &record)?;
        sync_folder(&path)
    }
    pub(crate) fn remove_network(&self, network: NetworkId) -> Result<()> {
        let path = self.path(NETWORKS, &network);
        remove(&path)?;
        sync_folder(&path)
    }

    fn path(&self, folder: &str, id: &impl std::fmt::Display) -> PathBuf {
        self.dir.join(folder).join(format!("{id}.json"))
    }
    fn data(&self, port: PortId) -> PathBuf {
        self.dir.join(PORTS).join(format!("{port}.data"))
    }

    /// All records of a folder. One that cannot be read, or is not good, is put aside and counts as absent: its port passes nothing until
    /// it is wired again.
    fn all<I: FromStr + Ord, T: DeserializeOwned>(
        &self,
        folder: &str,
        good: impl Fn(&I, &T) -> bool,
    ) -> Result<BTreeMap<I, T>> {
        let folder = self.dir.join(folder);
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(&folder).map_err(|e| broken(&folder, e))? {
            let path = entry.map_err(|e| broken(&folder, e))?.path();
            if path.extension().is_some_and(|e| e == "part") {
                remove(&path)?;
                continue;
            }
            let Some(stem) = path.file_name().and_then(|n| n.to_str()?.strip_suffix(".json")) else {
                continue;
            };
            let text = fs::read(&path).map_err(|e| broken(&path, e))?;
            match (I::from_str(stem), serde_json::from_slice(&text)) {
                (Ok(id), Ok(record)) if good(&id, &record) => {
                    all.insert(id, record);
                }
                (_, read) => {
                    let error = read.err().map(|e| e.to_string());
                    tracing::error!(path = %path.display(), error, "a record cannot be read and is put aside");
                    let aside = path.with_extension("bad");
                    fs::rename(&path, &aside).map_err(|e| broken(&aside, e))?;
                }
            }
        }
        Ok(all)
    }
}

fn broken(path: &Path, e: io::Error) -> Error {
    let kind = match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, "use network's records")
        .with("path", path.display())
        .because(e)
}

fn put<T: Serialize>(path: &Path, record: &T) -> Result<()> {
    let text =
        serde_json::to_vec(record).map_err(|e| Error::new(ErrorKind::Internal, "write record").because(e))?;
    replace(path, &text)
}

/// Replaces a file. The folder is to be synced by the caller, once for all that it changes there.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let part = path.with_extension("part");
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(0o600);
        let mut file = options.open(&part)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().map_err(|e| broken(path, e))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(broken(path, e)),
        _ => Ok(()),
    }
}

fn sync_folder(path: &Path) -> Result<()> {
    let synced = path.parent().map(|folder| File::open(folder)?.sync_all());
    synced.unwrap_or(Ok(())).map_err(|e| broken(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use skyloom_hypervisor::conformance::exam_wiring;

    #[test]
    fn records_come_back_and_damaged_ones_are_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (exam_wiring(1, 1), exam_wiring(1, 2));
        {
            let records = Records::open(dir.path()).unwrap();
            assert!(Records::open(dir.path()).is_err(), "one at a time");
            for wiring in [&one, &two] {
                records.put_port(wiring).unwrap();
            }
            records
                .put_network(one.network.id, NetworkRecord { zone: 7 })
                .unwrap();
        }
        let path = dir.path().join(format!("ports/{}.json", one.port));
        assert!(!fs::read_to_string(&path).unwrap().contains("user_data"));
        fs::write(&path, b"{").unwrap();
        let other = dir.path().join(format!("ports/{}.json", one.server));
        fs::copy(dir.path().join(format!("ports/{}.json", two.port)), &other).unwrap();
        let records = Records::open(dir.path()).unwrap();
        let ports = records.ports().unwrap();
        assert_eq!(ports.keys().collect::<Vec<_>>(), [&two.port]);
        assert_eq!(ports[&two.port].wiring, two, "with its user data");
        for path in [path, other] {
            assert!(path.with_extension("bad").exists() && !path.exists());
        }
        assert_eq!(
            records.networks().unwrap()[&one.network.id],
            NetworkRecord { zone: 7 }
        );
        records.remove_port(two.port).unwrap();
        records.remove_port(two.port).unwrap();
        records.remove_network(two.network.id).unwrap();
        assert!(records.ports().unwrap().is_empty() && records.networks().unwrap().is_empty());
    }
}
