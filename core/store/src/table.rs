//! Typed documents under a prefix.
//!
//! A [`Table`] reads and writes single documents; commits over several records are put together from the parts that
//! [`Versioned`] gives:
//!
//! ```
//! # use skyloom_store::{Guard, LeaseName, Result, Txn, Versioned};
//! fn finish(server: &Versioned<String>, changed: &String, task: &Versioned<u8>, host: LeaseName, epoch: u64) -> Result<Txn> {
//!     Ok(Txn::new().and(server.replace(changed)?).and(task.delete()).guard(Guard::Lease(host, epoch)))
//! }
//! ```

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{
    DynBackend, Error, ErrorKind, Guard, Key, KeyValue, ListOptions, Outcome, Prefix, Result, Revision, Txn,
    Value,
};

/// Tries of [`Table::update`] before it gives up with [`ErrorKind::Conflict`].
const UPDATE_TRIES: usize = 16;

/// What can be kept in a [`Table`] or [`crate::Mirror`]: every owned serde type.
pub trait Document: Serialize + DeserializeOwned + Clone + fmt::Debug + Send + Sync + 'static {}
impl<T: Serialize + DeserializeOwned + Clone + fmt::Debug + Send + Sync + 'static> Document for T {}

/// A document as it was read, with its address and versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned<T> {
    /// Its key.
    pub key: Key,
    /// Its content.
    pub value: T,
    /// The commit that created it.
    pub created: Revision,
    /// The commit that last wrote it.
    pub modified: Revision,
}

impl<T: Document> Versioned<T> {
    /// Decodes what a store answered.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when it is no `T`.
    pub fn decode(kv: &KeyValue) -> Result<Self> {
        let value = kv.value.parse().map_err(|e| {
            Error::new(ErrorKind::Corrupt, "decode document")
                .with("key", &kv.key)
                .because(e)
        })?;
        Ok(Self {
            key: kv.key.clone(),
            value,
            created: kv.created,
            modified: kv.modified,
        })
    }

    /// The part of a transaction that writes `value` over this document, if it still is as it was read.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when serde refuses `value`.
    pub fn replace(&self, value: &T) -> Result<Txn> {
        Ok(Txn::new().replace(self.key.clone(), self.modified, Value::json(value)?))
    }
}

impl<T> Versioned<T> {
    /// The part of a transaction that removes this document, if it still is as it was read.
    #[must_use]
    pub fn delete(&self) -> Txn {
        Txn::new().guard(self.unchanged()).delete(self.key.clone())
    }

    /// The guard that this document still is as it was read.
    #[must_use]
    pub fn unchanged(&self) -> Guard {
        Guard::Revision(self.key.clone(), self.modified)
    }
}

/// A page of documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents<T> {
    /// The documents in key order.
    pub items: Vec<Versioned<T>>,
    /// The revision of which this is the truth.
    pub revision: Revision,
    /// Whether further documents follow.
    pub more: bool,
}

/// Typed documents below a prefix.
pub struct Table<T> {
    backend: DynBackend,
    prefix: Prefix,
    _documents: PhantomData<fn() -> T>,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self {
            backend: self.backend.clone(),
            prefix: self.prefix.clone(),
            _documents: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("prefix", &self.prefix)
            .field("backend", &self.backend)
            .finish()
    }
}

impl<T: Document> Table<T> {
    /// The documents of `backend` below `prefix`.
    #[must_use]
    pub fn new(backend: DynBackend, prefix: Prefix) -> Self {
        Self {
            backend,
            prefix,
            _documents: PhantomData,
        }
    }

    /// Below what all documents of this table lie.
    #[must_use]
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// The key below this table's prefix with the further path `rest`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when `rest` makes no key.
    pub fn key(&self, rest: &str) -> Result<Key> {
        self.prefix
            .key(rest)
            .map_err(|e| Error::new(ErrorKind::Invalid, "make key").because(e))
    }

    fn owned(&self, key: &Key, operation: &'static str) -> Result<()> {
        if self.prefix.covers(key) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Invalid, operation)
            .with("key", key)
            .with("is not below", &self.prefix))
    }

    /// The document under `key`.
    ///
    /// # Errors
    /// Those of the store; [`ErrorKind::Corrupt`] when it is no `T`.
    pub async fn get(&self, key: &Key) -> Result<Option<Versioned<T>>> {
        self.owned(key, "get document")?;
        self.backend
            .get(key)
            .await?
            .as_ref()
            .map(Versioned::decode)
            .transpose()
    }

    /// One page.
    ///
    /// # Errors
    /// Those of [`crate::Store::list`]; [`ErrorKind::Corrupt`] when a document is no `T`.
    pub async fn list(&self, options: ListOptions) -> Result<Documents<T>> {
        let page = self.backend.list(&self.prefix, options).await?;
        let items = page.items.iter().map(Versioned::decode).collect::<Result<_>>()?;
        Ok(Documents {
            items,
            revision: page.revision,
            more: page.more,
        })
    }

    /// All documents, as of one revision.
    ///
    /// # Errors
    /// As [`Table::list`].
    pub async fn list_all(&self) -> Result<Documents<T>> {
        let all = list_all(&*self.backend, &self.prefix, 0).await?;
        let items = all.items.iter().map(Versioned::decode).collect::<Result<_>>()?;
        Ok(Documents {
            items,
            revision: all.revision,
            more: false,
        })
    }

    /// Creates the document under `key`.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when there is one already, and those of the store.
    pub async fn create(&self, key: &Key, value: &T) -> Result<Versioned<T>> {
        self.owned(key, "create document")?;
        let txn = Txn::new().create(key.clone(), Value::json(value)?);
        let revision = self.commit(txn, key, "create document").await?;
        Ok(Versioned {
            key: key.clone(),
            value: value.clone(),
            created: revision,
            modified: revision,
        })
    }

    /// Writes `value` over a document that was read.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when it has changed since, and those of the store.
    pub async fn replace(&self, old: &Versioned<T>, value: T) -> Result<Versioned<T>> {
        self.owned(&old.key, "replace document")?;
        let revision = self
            .commit(old.replace(&value)?, &old.key, "replace document")
            .await?;
        Ok(Versioned {
            key: old.key.clone(),
            value,
            created: old.created,
            modified: revision,
        })
    }

    /// Reads the document, lets `change` change it and writes it back, again when somebody else was faster. `change`
    /// may be called several times, always on fresh contents; an error of it ends the update. A change that changes
    /// nothing is not written.
    ///
    /// # Errors
    /// That of `change`; [`ErrorKind::NotFound`] when there is no document; [`ErrorKind::Conflict`] when others were
    /// faster every time; and those of the store. After [`ErrorKind::Unknown`] read back before trying again.
    pub async fn update<E, F>(&self, key: &Key, mut change: F) -> Result<Versioned<T>, E>
    where
        E: From<Error>,
        F: FnMut(&mut T) -> Result<(), E>,
    {
        self.owned(key, "update document")?;
        for _ in 0..UPDATE_TRIES {
            let Some(kv) = self.backend.get(key).await? else {
                return Err(Error::new(ErrorKind::NotFound, "update document")
                    .with("key", key)
                    .into());
            };
            let mut document = Versioned::<T>::decode(&kv)?;
            change(&mut document.value)?;
            let value = Value::json(&document.value)?;
            if value == kv.value {
                return Ok(document);
            }
            let txn = Txn::new().replace(key.clone(), document.modified, value);
            if let Outcome::Committed { revision } = self.backend.commit(txn).await? {
                document.modified = revision;
                return Ok(document);
            }
        }
        Err(Error::new(ErrorKind::Conflict, "update document")
            .with("key", key)
            .with("tries", UPDATE_TRIES)
            .into())
    }

    /// Removes a document that was read.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when it has changed since, and those of the store.
    pub async fn delete(&self, document: &Versioned<T>) -> Result<Revision> {
        self.owned(&document.key, "delete document")?;
        self.commit(document.delete(), &document.key, "delete document")
            .await
    }

    async fn commit(&self, txn: Txn, key: &Key, operation: &'static str) -> Result<Revision> {
        match self.backend.commit(txn).await? {
            Outcome::Committed { revision } => Ok(revision),
            Outcome::Conflict { current, .. } => {
                let error = Error::new(ErrorKind::Conflict, operation).with("key", key);
                Err(match current {
                    Some(revision) => error.with("now at revision", revision),
                    None => error.with("now", "absent"),
                })
            }
        }
    }
}

/// A complete listing.
pub(crate) struct Listing {
    pub(crate) items: Vec<KeyValue>,
    pub(crate) revision: Revision,
}

/// Tries of a complete listing whose revision is compacted while its pages are read.
const LIST_TRIES: usize = 5;

/// Lists everything below `prefix` as of one revision, in pages; from the start again when that revision is compacted
/// on the way.
pub(crate) async fn list_all(backend: &dyn crate::Backend, prefix: &Prefix, page: usize) -> Result<Listing> {
    let mut tries = 0;
    loop {
        tries += 1;
        match list_once(backend, prefix, page).await {
            Err(e) if e.kind() == ErrorKind::Compacted && tries < LIST_TRIES => {}
            done => return done,
        }
    }
}

async fn list_once(backend: &dyn crate::Backend, prefix: &Prefix, limit: usize) -> Result<Listing> {
    let mut page = backend
        .list(prefix, ListOptions::default().with_limit(limit))
        .await?;
    let mut items = page.items;
    while page.more {
        let Some(last) = items.last() else { break };
        let next = ListOptions::default()
            .with_limit(limit)
            .with_at(page.revision)
            .with_after(last.key.clone());
        page = backend.list(prefix, next).await?;
        items.append(&mut page.items);
    }
    Ok(Listing {
        items,
        revision: page.revision,
    })
}
