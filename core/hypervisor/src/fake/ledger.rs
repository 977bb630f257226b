//! Where a fake host's state lives: plain values in memory, or small JSON records in a directory, each replaced as a
//! whole.
//!
//! ```text
//!  memory     script, a book per server, images, one list of all effects    nothing is ever encoded
//!  directory  script, servers/<id>, images/<sha256>, sequence, lock          a book holds its server's effects
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use skyloom_model::ServerId;

use super::book::{Book, Note};
use super::history::{Effect, EffectKind};
use super::script::Script;
use super::storage::FakeImage;
use crate::{Error, ErrorKind, Result};

const SCRIPT: &str = "script";
const SEQUENCE: &str = "sequence";
const SERVERS: &str = "servers";
const IMAGES: &str = "images";

/// All records of a host; one change at a time, in a directory also between processes.
pub(super) struct Ledger {
    records: Records,
    /// The host's tag in effects.
    pub(super) host: u32,
}

enum Records {
    Memory {
        sequence: Arc<AtomicU64>,
        values: Box<Mutex<Values>>,
        forgetful: bool,
    },
    Directory {
        root: PathBuf,
        lock: Mutex<File>,
    },
}

#[derive(Default)]
struct Values {
    script: Script,
    books: BTreeMap<ServerId, Book>,
    images: BTreeMap<String, FakeImage>,
    effects: Vec<Effect>,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.records {
            Records::Memory { .. } => f.write_str("Memory"),
            Records::Directory { root, .. } => f.debug_tuple("Directory").field(root).finish(),
        }
    }
}

impl Ledger {
    pub(super) fn memory(host: u32, sequence: Arc<AtomicU64>, forgetful: bool) -> Self {
        let values = Box::default();
        Self {
            records: Records::Memory {
                sequence,
                values,
                forgetful,
            },
            host,
        }
    }

    pub(super) fn directory(host: u32, root: PathBuf) -> Result<Self> {
        for folder in [SERVERS, IMAGES] {
            fs::create_dir_all(root.join(folder)).map_err(broken(folder))?;
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(root.join("lock"))
            .map_err(broken("lock"))?;
        let lock = Mutex::new(lock);
        Ok(Self {
            records: Records::Directory { root, lock },
            host,
        })
    }

    /// Looks at the script, and changes it if `change` says `true`.
    pub(super) fn script<T>(&self, change: impl FnOnce(&mut Script) -> (bool, T)) -> Result<T> {
        match &self.records {
            Records::Memory { values, .. } => Ok(change(&mut values.lock().script).1),
            Records::Directory { root, lock } => alone(lock, || {
                let mut script = get::<Script>(root, SCRIPT)?.unwrap_or_default();
                let (changed, done) = change(&mut script);
                if changed {
                    put(root, SCRIPT, &script)?;
                }
                Ok(done)
            }),
        }
    }

    /// One server's book as it is.
    pub(super) fn read<T>(&self, server: ServerId, look: impl FnOnce(&Book) -> T) -> Result<T> {
        match &self.records {
            Records::Memory { values, .. } => match values.lock().books.get(&server) {
                Some(book) => Ok(look(book)),
                None => Ok(look(&Book::default())),
            },
            Records::Directory { root, lock } => alone(lock, || {
                Ok(look(&get::<Book>(root, &book_key(server))?.unwrap_or_default()))
            }),
        }
    }

    /// All books, in order.
    pub(super) fn each(&self, mut look: impl FnMut(ServerId, &Book)) -> Result<()> {
        match &self.records {
            Records::Memory { values, .. } => {
                values.lock().books.iter().for_each(|(id, book)| look(*id, book));
                Ok(())
            }
            Records::Directory { root, lock } => alone(lock, || {
                let mut ids: Vec<ServerId> = names(root, SERVERS)?
                    .iter()
                    .filter_map(|name| name.parse().ok())
                    .collect();
                ids.sort_unstable();
                for id in ids {
                    if let Some(book) = get::<Book>(root, &book_key(id))? {
                        look(id, &book);
                    }
                }
                Ok(())
            }),
        }
    }

    /// Changes one server's book; the effects that `change` notes are numbered and kept together with it.
    pub(super) fn book<T>(
        &self,
        server: ServerId,
        change: impl FnOnce(&mut Book, &mut Note) -> T,
    ) -> Result<T> {
        let mut note = Note::default();
        let effect = |at, (generation, kind): (u64, EffectKind)| Effect {
            at,
            host: self.host,
            server: Some(server),
            generation,
            kind,
        };
        match &self.records {
            Records::Memory {
                sequence,
                values,
                forgetful,
            } => {
                let mut values = values.lock();
                let book = values.books.entry(server).or_default();
                let done = change(book, &mut note);
                if *forgetful && book.is_forgettable() {
                    values.books.remove(&server);
                }
                for noted in note.effects {
                    let at = sequence.fetch_add(1, Ordering::Relaxed);
                    if !forgetful {
                        values.effects.push(effect(at, noted));
                    }
                }
                Ok(done)
            }
            Records::Directory { root, lock } => alone(lock, || {
                let key = book_key(server);
                let mut book = get::<Book>(root, &key)?.unwrap_or_default();
                let done = change(&mut book, &mut note);
                let changed = note.changed || !note.effects.is_empty();
                for noted in note.effects {
                    book.history.push(effect(next(root)?, noted));
                }
                if changed {
                    put(root, &key, &book)?;
                }
                Ok(done)
            }),
        }
    }

    pub(super) fn image(&self, sha256: &str) -> Result<Option<FakeImage>> {
        match &self.records {
            Records::Memory { values, .. } => Ok(values.lock().images.get(sha256).cloned()),
            Records::Directory { root, lock } => alone(lock, || get(root, &format!("{IMAGES}/{sha256}"))),
        }
    }

    /// The digests of all images, in order.
    pub(super) fn images(&self) -> Result<Vec<String>> {
        match &self.records {
            Records::Memory { values, .. } => Ok(values.lock().images.keys().cloned().collect()),
            Records::Directory { root, lock } => alone(lock, || names(root, IMAGES)),
        }
    }

    /// Keeps an image, with its effect, if it is not there.
    pub(super) fn put_image(&self, sha256: &str, make: impl FnOnce(Effect) -> FakeImage) -> Result<()> {
        let effect = |at| Effect {
            at,
            host: self.host,
            server: None,
            generation: 0,
            kind: EffectKind::ImageCached {
                sha256: sha256.to_owned(),
            },
        };
        match &self.records {
            Records::Memory { sequence, values, .. } => {
                let mut values = values.lock();
                if values.images.contains_key(sha256) {
                    return Ok(());
                }
                let effect = effect(sequence.fetch_add(1, Ordering::Relaxed));
                values.effects.push(effect.clone());
                values.images.insert(sha256.to_owned(), make(effect));
                Ok(())
            }
            Records::Directory { root, lock } => alone(lock, || {
                let key = format!("{IMAGES}/{sha256}");
                if get::<FakeImage>(root, &key)?.is_some() {
                    return Ok(());
                }
                put(root, &key, &make(effect(next(root)?)))
            }),
        }
    }

    /// The number that the next effect gets, at least.
    pub(super) fn position(&self) -> Result<u64> {
        match &self.records {
            Records::Memory { sequence, .. } => Ok(sequence.load(Ordering::Relaxed)),
            Records::Directory { root, lock } => {
                alone(lock, || Ok(get::<u64>(root, SEQUENCE)?.unwrap_or_default() + 1))
            }
        }
    }

    /// The effects from number `from` on, in order, of one server or of all and the images.
    pub(super) fn effects(&self, from: u64, of: Option<ServerId>) -> Result<Vec<Effect>> {
        let wanted = |e: &&Effect| e.at >= from && (of.is_none() || e.server == of);
        match &self.records {
            Records::Memory { values, .. } => {
                let values = values.lock();
                let first = values.effects.partition_point(|e| e.at < from);
                Ok(values.effects[first..].iter().filter(wanted).cloned().collect())
            }
            Records::Directory { root, lock } => alone(lock, || {
                let mut all = Vec::new();
                for name in names(root, SERVERS)? {
                    let book = get::<Book>(root, &format!("{SERVERS}/{name}"))?.unwrap_or_default();
                    all.extend(book.history.iter().filter(wanted).cloned());
                }
                for name in names(root, IMAGES)? {
                    let image = get::<FakeImage>(root, &format!("{IMAGES}/{name}"))?;
                    all.extend(image.iter().map(|i| &i.effect).filter(wanted).cloned());
                }
                all.sort_unstable_by_key(|e| e.at);
                Ok(all)
            }),
        }
    }
}

// Directories.

fn book_key(server: ServerId) -> String {
    format!("{SERVERS}/{server}")
}

fn broken(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Error {
    move |e| {
        Error::new(ErrorKind::Internal, "use fake ledger")
            .with("record", what)
            .because(e)
    }
}

/// Runs `change` alone. What it wrote stays, also when it fails.
fn alone<T>(lock: &Mutex<File>, change: impl FnOnce() -> Result<T>) -> Result<T> {
    let file = lock.lock();
    file.lock().map_err(broken("lock"))?;
    let done = change();
    file.unlock().map_err(broken("lock"))?;
    done
}

fn get<T: DeserializeOwned>(root: &Path, key: &str) -> Result<Option<T>> {
    let bytes = match fs::read(root.join(key)) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(broken(key)(e)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| {
        Error::new(ErrorKind::Corrupt, "read fake ledger")
            .with("record", key)
            .because(e)
    })
}

fn put<T: Serialize>(root: &Path, key: &str, value: &T) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|e| {
        Error::new(ErrorKind::Internal, "write fake ledger")
            .with("record", key)
            .because(e)
    })?;
    let temporary = root.join("next");
    fs::write(&temporary, bytes).map_err(broken(key))?;
    fs::rename(&temporary, root.join(key)).map_err(broken(key))
}

fn next(root: &Path) -> Result<u64> {
    let at = get::<u64>(root, SEQUENCE)?.unwrap_or_default() + 1;
    put(root, SEQUENCE, &at)?;
    Ok(at)
}

/// The names in `folder`, in order.
fn names(root: &Path, folder: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join(folder)).map_err(broken(folder))? {
        let name = entry.map_err(broken(folder))?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}
