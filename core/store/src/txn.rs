//! The one write primitive: an atomic batch of writes with preconditions; and what reads answer.

use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Error, ErrorKind, Key, LeaseName, Result};

/// A point in the history of one store. 0 is "before the first commit".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A JSON document in bytes. Backends may store it in any form that gives back an equal JSON document.
#[derive(Debug, Clone)]
pub struct Value {
    bytes: Bytes,
    /// Whether it is known to be JSON, so that [`Txn::check`] need not read it.
    known: bool,
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Value {}

/// Most documents are no longer.
const USUAL_LEN: usize = 512;

impl Value {
    /// Serialises `document`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when serde refuses it.
    pub fn json<T: Serialize + ?Sized>(document: &T) -> Result<Self> {
        let mut bytes = Vec::with_capacity(USUAL_LEN);
        serde_json::to_writer(&mut bytes, document)
            .map_err(|e| Error::new(ErrorKind::Invalid, "encode value").because(e))?;
        Ok(Self {
            // No longer than the document: stores keep it.
            bytes: bytes.into_boxed_slice().into(),
            known: true,
        })
    }

    /// Takes bytes that are already a JSON document; they are checked by [`Txn::check`], not here.
    #[must_use]
    pub fn from_json_bytes(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: bytes.into(),
            known: false,
        }
    }

    /// Reads the document as a `T`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when it is not one.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.bytes)
            .map_err(|e| Error::new(ErrorKind::Corrupt, "decode value").because(e))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// A document with its address and versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// Its key.
    pub key: Key,
    /// Its content.
    pub value: Value,
    /// The commit that created it (since its last deletion).
    pub created: Revision,
    /// The commit that last wrote it: what [`Guard::Revision`] compares.
    pub modified: Revision,
}

/// A precondition of a transaction. A Skyloom write without a guard on each key it overwrites is a bug.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// The key has no document.
    Absent(Key),
    /// The key's document was last written at exactly this revision.
    Revision(Key, Revision),
    /// The lease is held, at this epoch, and has not run out by the store's own clock.
    Lease(LeaseName, u64),
}

/// One change of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Create or replace.
    Put(Key, Value),
    /// Remove; removing what is absent is no error and no change.
    Delete(Key),
}

impl Write {
    /// The key it touches.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(k, _) | Self::Delete(k) => k,
        }
    }
}

/// An atomic batch: all guards hold and all writes happen at one revision, or nothing changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// Preconditions, in the order in which conflicts are reported.
    pub guards: Vec<Guard>,
    /// Changes; each key at most once.
    pub writes: Vec<Write>,
}

impl Txn {
    /// An empty transaction.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a guard.
    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }

    /// Adds a put.
    #[must_use]
    pub fn put(mut self, key: Key, value: Value) -> Self {
        self.writes.push(Write::Put(key, value));
        self
    }

    /// Adds a delete.
    #[must_use]
    pub fn delete(mut self, key: Key) -> Self {
        self.writes.push(Write::Delete(key));
        self
    }

    /// Adds "create `key`": a put guarded by absence.
    #[must_use]
    pub fn create(self, key: Key, value: Value) -> Self {
        self.guard(Guard::Absent(key.clone())).put(key, value)
    }

    /// Adds "replace `key` as read at `revision`".
    #[must_use]
    pub fn replace(self, key: Key, revision: Revision, value: Value) -> Self {
        self.guard(Guard::Revision(key.clone(), revision)).put(key, value)
    }

    /// Adds all guards and writes of `part`, after those that are there.
    #[must_use]
    pub fn and(mut self, part: Txn) -> Self {
        self.guards.extend(part.guards);
        self.writes.extend(part.writes);
        self
    }

    /// Checks what every backend must refuse before it starts: a key written twice, too many operations, a value that
    /// is too long or no JSON. Backends call it first, so that all of them refuse alike.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] or [`ErrorKind::TooLarge`].
    pub fn check(&self, capability: &crate::Capability) -> Result<()> {
        let ops = self.guards.len() + self.writes.len();
        if ops > capability.max_txn_ops {
            return Err(Error::new(ErrorKind::TooLarge, "commit")
                .with("operations", ops)
                .with("limit", capability.max_txn_ops));
        }
        if self.writes.len() > 1 {
            let mut keys: Vec<&Key> = self.writes.iter().map(Write::key).collect();
            keys.sort_unstable();
            if let Some(twice) = keys.windows(2).find(|w| w[0] == w[1]) {
                return Err(Error::new(ErrorKind::Invalid, "commit").with("key written twice", twice[0]));
            }
        }
        for write in &self.writes {
            let Write::Put(key, value) = write else { continue };
            if value.bytes().len() > capability.max_value_len {
                return Err(Error::new(ErrorKind::TooLarge, "commit")
                    .with("key", key)
                    .with("bytes", value.bytes().len())
                    .with("limit", capability.max_value_len));
            }
            if !value.known
                && let Err(e) = serde_json::from_slice::<&RawValue>(value.bytes())
            {
                return Err(Error::new(ErrorKind::Invalid, "commit")
                    .with("no JSON under key", key)
                    .because(e));
            }
        }
        Ok(())
    }
}

/// What became of a transaction whose fate is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All guards held; the writes are durable at this revision.
    Committed {
        /// The commit's revision; the current one if nothing was written.
        revision: Revision,
    },
    /// A guard did not hold; nothing changed.
    Conflict {
        /// Index into [`Txn::guards`] of the first guard that failed.
        guard: usize,
        /// What the key's modification revision is now; `None` when it is absent or the guard is a lease.
        current: Option<Revision>,
    },
}

impl Outcome {
    /// The revision if it was committed.
    #[must_use]
    pub fn committed(&self) -> Option<Revision> {
        match self {
            Self::Committed { revision } => Some(*revision),
            Self::Conflict { .. } => None,
        }
    }
}

/// How to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ListOptions {
    /// Only keys after this one (exclusive); the previous page's last key.
    pub after: Option<Key>,
    /// Most documents wanted; 0 means the backend's largest page.
    pub limit: usize,
    /// As of this revision; `None` is now. Further pages pass the first page's revision.
    pub at: Option<Revision>,
}

impl ListOptions {
    /// With at most `limit` documents.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }
    /// Continuing after `key`.
    #[must_use]
    pub fn with_after(mut self, key: Key) -> Self {
        self.after = Some(key);
        self
    }
    /// As of `revision`.
    #[must_use]
    pub fn with_at(mut self, revision: Revision) -> Self {
        self.at = Some(revision);
        self
    }
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The documents in key order.
    pub items: Vec<KeyValue>,
    /// The revision of which this is the truth.
    pub revision: Revision,
    /// Whether further documents follow.
    pub more: bool,
}
