//! What stands in the store now, as far as it is not in `documents` yet or was asked for lately. Shared by the writer and all
//! who read; nothing is in here before it is durable.
//!
//! ```text
//! durable write ─> history (file)      documents (file): the truth as of `applied`
//!        └──────> dirty (memory) ──────────────^ written over now and then, many commits at once
//!                 clean (memory, bounded): copies of rows
//! ```
//!
//! What is in neither of the two maps stands in `documents`, or nowhere: the [`Filter`] knows most of what stands nowhere.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use skyloom_store::{Key, KeyValue, Prefix, Revision};

use super::filter::Filter;
use super::history::Doc;

/// Bytes of rows that are kept in memory, about.
const CLEAN_BYTES: usize = 16 << 20;

/// A key that has changed since `applied`.
#[derive(Debug, Clone)]
pub(super) struct Dirty {
    /// `None`: removed.
    pub(super) doc: Option<Doc>,
    /// Whether `documents` has a row for the key.
    pub(super) stored: bool,
}

/// What memory knows of a key.
#[derive(Debug, Clone)]
pub(super) enum Known {
    Yes(Dirty),
    /// Ask the database.
    No,
}

#[derive(Debug)]
pub(super) struct Present {
    pub(super) revision: u64,
    /// The oldest revision that can be listed at and watched from.
    pub(super) floor: u64,
    /// Up to here everything is in `documents`.
    pub(super) applied: u64,
    pub(super) dirty: BTreeMap<Key, Dirty>,
    pub(super) dirty_bytes: usize,
    clean: Clean,
    filter: Filter,
    pub(super) documents: u64,
}

/// Copies of rows. The older half is dropped when the younger is full; who is asked for becomes young.
#[derive(Debug, Default)]
struct Clean {
    young: HashMap<Key, Doc>,
    old: HashMap<Key, Doc>,
    bytes: usize,
}

impl Clean {
    fn get(&mut self, key: &Key) -> Option<&Doc> {
        if !self.old.is_empty()
            && let Some((key, doc)) = self.old.remove_entry(key)
        {
            self.insert(key, doc);
        }
        self.young.get(key)
    }

    fn insert(&mut self, key: Key, doc: Doc) {
        self.bytes += doc.weight(&key);
        if self.bytes > CLEAN_BYTES / 2 {
            self.bytes = doc.weight(&key);
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, doc);
    }

    fn remove(&mut self, key: &Key) {
        if let Some(doc) = self.young.remove(key) {
            self.bytes = self.bytes.saturating_sub(doc.weight(key));
        }
        self.old.remove(key);
    }
}

impl Present {
    pub(super) fn new(revision: u64, floor: u64, filter: Filter, documents: u64) -> Self {
        Self {
            revision,
            floor,
            applied: revision,
            dirty: BTreeMap::new(),
            dirty_bytes: 0,
            clean: Clean::default(),
            filter,
            documents,
        }
    }

    /// What memory knows of `key`.
    pub(super) fn known(&mut self, key: &Key) -> Known {
        if let Some(dirty) = self.dirty.get(key) {
            return Known::Yes(dirty.clone());
        }
        if let Some(doc) = self.clean.get(key) {
            return Known::Yes(Dirty {
                doc: Some(doc.clone()),
                stored: true,
            });
        }
        if self.filter.may_have(key.as_str()) {
            return Known::No;
        }
        Known::Yes(Dirty {
            doc: None,
            stored: false,
        })
    }

    /// When `key` was last written; `None` where memory does not know.
    pub(super) fn modified(&mut self, key: &Key) -> Option<Option<Revision>> {
        let revision = |doc: &Doc| Revision(doc.modified);
        if let Some(dirty) = self.dirty.get(key) {
            return Some(dirty.doc.as_ref().map(revision));
        }
        if let Some(doc) = self.clean.get(key) {
            return Some(Some(revision(doc)));
        }
        (!self.filter.may_have(key.as_str())).then_some(None)
    }

    /// Keeps a copy of a row that was read while everything up to `applied` was in `documents`.
    pub(super) fn keep(&mut self, key: &Key, doc: &Doc, applied: u64) {
        if applied == self.applied && !self.dirty.contains_key(key) {
            self.clean.insert(key.clone(), doc.clone());
        }
    }

    /// A durable change.
    pub(super) fn change(&mut self, key: Key, dirty: Dirty) {
        self.clean.remove(&key);
        if let Some(before) = self.dirty.remove(&key) {
            self.dirty_bytes = self.dirty_bytes.saturating_sub(weight(&key, &before));
        }
        // What came and went since `applied` needs no row, and has left none.
        if dirty.doc.is_some() || dirty.stored {
            self.dirty_bytes += weight(&key, &dirty);
            self.dirty.insert(key, dirty);
        }
    }

    /// All that was dirty is in `documents`.
    pub(super) fn flushed(&mut self) {
        self.applied = self.revision;
        self.dirty_bytes = 0;
        for (key, dirty) in std::mem::take(&mut self.dirty) {
            if let Some(doc) = dirty.doc {
                self.filter.insert(key.as_str());
                self.clean.insert(key, doc);
            }
        }
    }

    /// What is dirty below `prefix` and after `after`, up to the `most`th document; and how many rows of `documents` that hides.
    pub(super) fn dirty_below(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        most: usize,
    ) -> (BTreeMap<Key, Option<KeyValue>>, usize) {
        let from = after.map_or("", Key::as_str).max(prefix.as_str());
        let range = (Bound::Excluded(from), Bound::Unbounded);
        let (mut found, mut puts, mut hidden) = (BTreeMap::new(), 0, 0);
        for (key, dirty) in self.dirty.range::<str, _>(range) {
            if puts >= most || !prefix.covers(key) {
                break;
            }
            match &dirty.doc {
                Some(_) => puts += 1,
                None => hidden += 1,
            }
            found.insert(key.clone(), dirty.doc.as_ref().map(|doc| doc.with_key(key)));
        }
        (found, hidden)
    }
}

fn weight(key: &Key, dirty: &Dirty) -> usize {
    dirty
        .doc
        .as_ref()
        .map_or(key.as_str().len() + 128, |doc| doc.weight(key))
}
