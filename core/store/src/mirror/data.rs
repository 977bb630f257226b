//! The copy itself: documents, their indexes and the undecodable ones, as of one revision.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::Undecodable;
use crate::{Change, Document, Key, KeyValue, Prefix, Revision, Versioned};

pub(super) type IndexFn<T> = Box<dyn Fn(&T) -> Vec<String> + Send + Sync>;
pub(super) type Indexes<T> = [(&'static str, IndexFn<T>)];

pub(super) struct Data<T> {
    pub(super) revision: Revision,
    /// Of the last listing: all commits up to it are in, whatever a watch tells of them later.
    pub(super) listed: Revision,
    pub(super) items: BTreeMap<Key, Arc<Versioned<T>>>,
    pub(super) quarantine: BTreeMap<Key, Undecodable>,
    /// In the order of declaration: value → keys.
    indexes: Vec<BTreeMap<String, BTreeSet<Key>>>,
}

impl<T> Clone for Data<T> {
    fn clone(&self) -> Self {
        Self {
            revision: self.revision,
            listed: self.listed,
            items: self.items.clone(),
            quarantine: self.quarantine.clone(),
            indexes: self.indexes.clone(),
        }
    }
}

impl<T> Data<T> {
    pub(super) fn empty(indexes: usize) -> Self {
        Self {
            revision: Revision(0),
            listed: Revision(0),
            items: BTreeMap::new(),
            quarantine: BTreeMap::new(),
            indexes: vec![BTreeMap::new(); indexes],
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Versioned<T>>> {
        self.items.get(key)
    }

    pub(super) fn under<'a>(&'a self, prefix: &'a Prefix) -> impl Iterator<Item = &'a Arc<Versioned<T>>> {
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        self.items
            .range::<str, _>(from)
            .take_while(|(key, _)| prefix.covers(key))
            .map(|(_, document)| document)
    }

    pub(super) fn by_index(&self, index: usize, value: &str) -> impl Iterator<Item = &Arc<Versioned<T>>> {
        let keys = self.indexes.get(index).and_then(|filed| filed.get(value));
        keys.into_iter().flatten().filter_map(|key| self.items.get(key))
    }

    /// What key holds: its revision, whether or not it could be decoded.
    fn modified(&self, key: &Key) -> Option<Revision> {
        let quarantined = || self.quarantine.get(key).map(|u| u.modified);
        self.items.get(key).map(|d| d.modified).or_else(quarantined)
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        self.items.keys().chain(self.quarantine.keys())
    }

    /// Whether a commit that comes again, or late, is in already.
    pub(super) fn has(&self, revision: Revision, changes: &[Change]) -> bool {
        revision <= self.listed
            || changes.iter().all(|change| match change {
                Change::Put(kv) => self.modified(&kv.key).is_some_and(|m| m >= kv.modified),
                Change::Delete(key) => self.modified(key).is_none_or(|m| m > revision),
            })
    }

    /// What must be changed here to have what a later listing has.
    pub(super) fn behind(&self, items: &[KeyValue]) -> Vec<Change> {
        let there: BTreeSet<&Key> = items.iter().map(|kv| &kv.key).collect();
        let gone = self.keys().filter(|key| !there.contains(key)).cloned();
        let mut changes: Vec<Change> = gone.map(Change::Delete).collect();
        let new = items
            .iter()
            .filter(|kv| self.modified(&kv.key) != Some(kv.modified));
        changes.extend(new.cloned().map(Change::Put));
        changes
    }

    /// The keys that are not the same in both.
    pub(super) fn difference(&self, other: &Self) -> BTreeSet<Key> {
        let mut keys: BTreeSet<Key> = self
            .keys()
            .filter(|key| other.modified(key) != self.modified(key))
            .cloned()
            .collect();
        keys.extend(other.keys().filter(|key| self.modified(key).is_none()).cloned());
        keys
    }
}

impl<T: Document> Data<T> {
    /// A whole listing.
    pub(super) fn listed(revision: Revision, items: &[KeyValue], indexes: &Indexes<T>) -> Self {
        let mut data = Self::empty(indexes.len());
        (data.revision, data.listed) = (revision, revision);
        for kv in items {
            data.put(kv, indexes);
        }
        data
    }

    /// All changes of one commit.
    pub(super) fn apply(&mut self, revision: Revision, changes: &[Change], indexes: &Indexes<T>) {
        for change in changes {
            match change {
                Change::Put(kv) => self.put(kv, indexes),
                Change::Delete(key) => self.remove(key, indexes),
            }
        }
        self.revision = revision;
    }

    fn put(&mut self, kv: &KeyValue, indexes: &Indexes<T>) {
        self.remove(&kv.key, indexes);
        match Versioned::<T>::decode(kv) {
            Ok(document) => {
                for ((_, values), filed) in indexes.iter().zip(&mut self.indexes) {
                    for value in values(&document.value) {
                        filed.entry(value).or_default().insert(kv.key.clone());
                    }
                }
                self.items.insert(kv.key.clone(), Arc::new(document));
            }
            Err(e) => {
                let error = skyloom_model::report(&e);
                tracing::error!(key = %kv.key, modified = %kv.modified, error, "undecodable document set aside");
                let set_aside = Undecodable {
                    key: kv.key.clone(),
                    modified: kv.modified,
                    error,
                };
                self.quarantine.insert(kv.key.clone(), set_aside);
            }
        }
    }

    fn remove(&mut self, key: &Key, indexes: &Indexes<T>) {
        self.quarantine.remove(key);
        let Some(old) = self.items.remove(key) else { return };
        for ((_, values), filed) in indexes.iter().zip(&mut self.indexes) {
            for value in values(&old.value) {
                if let Some(keys) = filed.get_mut(&value) {
                    keys.remove(key);
                    if keys.is_empty() {
                        filed.remove(&value);
                    }
                }
            }
        }
    }
}
