//! Key-encryption keys in files: one key a file, 32 bytes as one line of base64url, readable by its owner alone.
//!
//! A key's name is made from the key, so a file can be renamed and two files cannot be mixed up. To rotate: make a new file, name it
//! as the current one and the former among the older ones, start, rewrap all records, take the older file away.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use skyloom_model::{Ids, Secret};
use skyloom_store::Key;

use super::{DataKey, KeyService, VaultError, VaultErrorKind, Wrapped, decrypt, encrypt};

/// Longest key file in bytes: the line, and some white space.
const MAX_FILE: u64 = 128;

/// Keys from files: the current one and older ones.
pub struct FileKeys {
    current: String,
    keys: BTreeMap<String, Secret<[u8; 32]>>,
    ids: Arc<dyn Ids>,
}

impl fmt::Debug for FileKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKeys")
            .field("current", &self.current)
            .field("known", &self.keys.keys())
            .finish_non_exhaustive()
    }
}

impl FileKeys {
    /// Reads the keys. Blocks for as long as that takes: for the start of a process.
    ///
    /// # Errors
    /// [`VaultErrorKind::KeyFile`] when a file is not there, others than its owner may read it, or it holds no key.
    pub fn read(current: &Path, older: &[&Path], ids: Arc<dyn Ids>) -> Result<Self, VaultError> {
        let (name, key) = read_key(current)?;
        let mut keys = BTreeMap::from([(name.clone(), key)]);
        for path in older {
            let (name, key) = read_key(path)?;
            keys.insert(name, key);
        }
        Ok(Self {
            current: name,
            keys,
            ids,
        })
    }

    /// Makes a new key file of mode 0600 and says its key's name. An existing file is never overwritten.
    ///
    /// # Errors
    /// [`VaultErrorKind::KeyFile`] when the file is there or cannot be written.
    pub fn generate(path: &Path, ids: &dyn Ids) -> Result<String, VaultError> {
        let mut key = [0; 32];
        ids.random(&mut key);
        let line = URL_SAFE_NO_PAD.encode(key) + "\n";
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            file.write_all(line.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|e: std::io::Error| {
            let what = format!("the key file {} was not written", path.display());
            VaultError::new(
                VaultErrorKind::KeyFile,
                what,
                "name a file that is not there, in a folder that may be written",
            )
            .with_source(e)
        })?;
        Ok(name_of(&key))
    }
}

#[async_trait]
impl KeyService for FileKeys {
    fn current(&self) -> String {
        self.current.clone()
    }

    async fn wrap(&self, place: &Key, key: &DataKey) -> Result<Wrapped, VaultError> {
        let kek = self.key(&self.current, place)?;
        Ok(Wrapped {
            kek: self.current.clone(),
            bytes: encrypt(kek.expose(), place, key.expose(), &*self.ids)?,
        })
    }

    async fn unwrap(&self, place: &Key, wrapped: &Wrapped) -> Result<DataKey, VaultError> {
        let kek = self.key(&wrapped.kek, place)?;
        let key = decrypt(kek.expose(), place, wrapped.bytes.clone())?;
        key.try_into().map(Secret::new).map_err(|_| super::damaged(place))
    }
}

impl FileKeys {
    fn key(&self, name: &str, place: &Key) -> Result<&Secret<[u8; 32]>, VaultError> {
        self.keys.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.keys.keys().map(String::as_str).collect();
            VaultError::new(
                VaultErrorKind::UnknownKey,
                format!(
                    "{place} is sealed with the key {name:?}, which is not here (known: {})",
                    known.join(", ")
                ),
                "name the file of that key among the older key files",
            )
        })
    }
}

fn read_key(path: &Path) -> Result<(String, Secret<[u8; 32]>), VaultError> {
    let unusable = |what: &str, hint: &str| {
        VaultError::new(
            VaultErrorKind::KeyFile,
            format!("the key file {} {what}", path.display()),
            hint,
        )
    };
    let unread = |e: std::io::Error| {
        let hint = "make it with `FileKeys::generate`, owned by the user of this process";
        unusable("cannot be read", hint).with_source(e)
    };
    let file = File::open(path).map_err(unread)?;
    // Of the open file: what was looked at is what is read.
    let facts = file.metadata().map_err(unread)?;
    if !facts.is_file() {
        return Err(unusable("is no plain file", "name a file with one key"));
    }
    let mode = facts.mode() & 0o7777;
    if mode & !0o600 != 0 {
        return Err(unusable(
            &format!("has mode {mode:04o}: others may get at the key"),
            "chmod 0600",
        ));
    }
    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(unread)?;
    let key: [u8; 32] = URL_SAFE_NO_PAD
        .decode(text.trim())
        .ok()
        .filter(|_| text.len() as u64 <= MAX_FILE)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| {
            unusable(
                "holds no key",
                "a key is 32 random bytes, written as 43 characters of base64url",
            )
        })?;
    Ok((name_of(&key), Secret::new(key)))
}

/// `file-` and 16 hex digits of a hash of the key.
fn name_of(key: &[u8; 32]) -> String {
    let hash = digest(
        &SHA256,
        &[b"skyloom key-encryption key 1 ", key.as_slice()].concat(),
    );
    let first = hash.as_ref().iter().take(8);
    first.fold("file-".to_owned(), |name, byte| name + &format!("{byte:02x}"))
}
