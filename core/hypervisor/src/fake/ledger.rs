//! Where a fake host's state lives: small JSON records, each replaced as a whole, in memory or in a directory.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, ErrorKind, Result};

/// Records by key (`servers/<id>`); one change at a time, also between processes.
pub(super) enum Ledger {
    Memory(Mutex<BTreeMap<String, Vec<u8>>>),
    Directory { root: PathBuf, lock: Mutex<File> },
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory(_) => f.write_str("Memory"),
            Self::Directory { root, .. } => f.debug_tuple("Directory").field(root).finish(),
        }
    }
}

/// The records, held for one change.
pub(super) enum Records<'a> {
    Memory(&'a mut BTreeMap<String, Vec<u8>>),
    Directory(&'a Path),
}

fn broken(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Error {
    move |e| {
        Error::new(ErrorKind::Internal, "use fake ledger")
            .with("record", what)
            .because(e)
    }
}

impl Ledger {
    pub(super) fn memory() -> Self {
        Self::Memory(Mutex::new(BTreeMap::new()))
    }

    pub(super) fn directory(root: PathBuf) -> Result<Self> {
        for folder in ["servers", "images"] {
            fs::create_dir_all(root.join(folder)).map_err(broken(folder))?;
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(root.join("lock"))
            .map_err(broken("lock"))?;
        Ok(Self::Directory {
            root,
            lock: Mutex::new(lock),
        })
    }

    /// Runs `change` alone. What it wrote stays, also when it fails.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Records<'_>) -> Result<T>) -> Result<T> {
        match self {
            Self::Memory(records) => change(&mut Records::Memory(&mut records.lock())),
            Self::Directory { root, lock } => {
                let file = lock.lock();
                file.lock().map_err(broken("lock"))?;
                let done = change(&mut Records::Directory(root));
                file.unlock().map_err(broken("lock"))?;
                done
            }
        }
    }
}

impl Records<'_> {
    pub(super) fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let bytes = match self {
            Self::Memory(records) => match records.get(key) {
                Some(bytes) => bytes.clone(),
                None => return Ok(None),
            },
            Self::Directory(root) => match fs::read(root.join(key)) {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(broken(key)(e)),
            },
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "read fake ledger")
                .with("record", key)
                .because(e)
        })
    }

    pub(super) fn put<T: Serialize>(&mut self, key: &str, value: &T) -> Result<()> {
        let bytes = serde_json::to_vec(value).map_err(|e| {
            Error::new(ErrorKind::Internal, "write fake ledger")
                .with("record", key)
                .because(e)
        })?;
        match self {
            Self::Memory(records) => {
                records.insert(key.to_owned(), bytes);
            }
            Self::Directory(root) => {
                let temporary = root.join("next");
                fs::write(&temporary, bytes).map_err(broken(key))?;
                fs::rename(&temporary, root.join(key)).map_err(broken(key))?;
            }
        }
        Ok(())
    }

    /// The keys in `folder`, in order.
    pub(super) fn keys(&self, folder: &str) -> Result<Vec<String>> {
        match self {
            Self::Memory(records) => {
                let prefix = format!("{folder}/");
                let from = records.range(prefix.clone()..);
                Ok(from
                    .map(|(k, _)| k)
                    .take_while(|k| k.starts_with(&prefix))
                    .cloned()
                    .collect())
            }
            Self::Directory(root) => {
                let mut keys = Vec::new();
                for entry in fs::read_dir(root.join(folder)).map_err(broken(folder))? {
                    let name = entry.map_err(broken(folder))?.file_name();
                    keys.push(format!("{folder}/{}", name.to_string_lossy()));
                }
                keys.sort();
                Ok(keys)
            }
        }
    }
}
