//! What one document of each collection looks like.
//!
//! ```text
//! docs    { _id: key, value, text?, created, modified }
//! log     { _id: revision, batch, bytes, total, changes: [{ key, created, value, text? } | { key, deleted: true }] }
//! past    { _id: "until key", key, value, text?, created, modified, until }      a version, and the commit that ended it
//! ```

use mongodb::bson::{Bson, Document, doc};
use skyloom_store::feed::Commit;
use skyloom_store::{Change, Key, KeyValue, Result, Revision, Value};

use crate::error::damaged;
use crate::json::Stored;
use crate::space::{int, uint};

/// A version of a document, as the database has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Version {
    pub(crate) created: u64,
    pub(crate) modified: u64,
    pub(crate) stored: Stored,
}

impl Version {
    /// From a document of `docs`. Its value may be damaged; whoever overwrites it does not care.
    pub(crate) fn parse(mut document: Document) -> Result<(Key, Self)> {
        let key = key_of(&document, "_id", "commit")?;
        let number = |name| uint(&document, name).ok_or_else(|| damaged("commit", &key));
        let (created, modified) = (number("created")?, number("modified")?);
        let stored = Stored::take(&mut document).unwrap_or(Stored {
            value: None,
            text: None,
        });
        Ok((
            key,
            Self {
                created,
                modified,
                stored,
            },
        ))
    }

    /// As it stands in `docs`.
    pub(crate) fn present(self, key: &Key) -> Document {
        let mut document = doc! { "_id": key.as_str() };
        self.stored.put_into(&mut document);
        document.insert("created", int(self.created));
        document.insert("modified", int(self.modified));
        document
    }

    /// As it stands in `past` from the commit at `until` on.
    pub(crate) fn past(self, key: &Key, until: u64) -> Document {
        let mut document = self.present(key);
        document.insert("key", key.as_str());
        document.insert("until", int(until));
        document.insert("_id", past_id(until, key.as_str()));
        document
    }
}

/// In the order of the commits, then of the keys.
fn past_id(until: u64, key: &str) -> String {
    format!("{until:020} {key}")
}

/// The smallest id of versions that ended after `revision`.
pub(crate) fn past_after(revision: u64) -> String {
    past_id(revision.saturating_add(1), "")
}

fn key_of(document: &Document, field: &str, operation: &'static str) -> Result<Key> {
    let text = document.get_str(field).unwrap_or_default();
    Key::parse(text).map_err(|e| damaged(operation, text).because(e))
}

/// From a document of `docs` or `past`.
pub(crate) fn key_value(mut document: Document, field: &str, operation: &'static str) -> Result<KeyValue> {
    let key = key_of(&document, field, operation)?;
    let read = |document: &mut Document| {
        let value = Stored::take(document)?.into_json()?;
        Some((value, uint(document, "created")?, uint(document, "modified")?))
    };
    let (value, created, modified) = read(&mut document).ok_or_else(|| damaged(operation, &key))?;
    Ok(KeyValue {
        key,
        value: Value::from_json_bytes(value),
        created: Revision(created),
        modified: Revision(modified),
    })
}

/// One change as it stands in the log.
pub(crate) fn log_put(key: &Key, created: u64, stored: Stored) -> Bson {
    let mut change = doc! { "key": key.as_str(), "created": int(created) };
    stored.put_into(&mut change);
    change.into()
}

/// One removal as it stands in the log.
pub(crate) fn log_delete(key: &Key) -> Bson {
    doc! { "key": key.as_str(), "deleted": true }.into()
}

/// From a document of `log`: the commit and its size. Only changes that `wanted` covers are read.
pub(crate) fn commit(
    mut document: Document,
    wanted: impl Fn(&Key) -> bool,
    operation: &'static str,
) -> Result<(Commit, usize)> {
    let id = document.get("_id").cloned().unwrap_or_default();
    let broken = || damaged(operation, format_args!("{id} of the log"));
    let revision = uint(&document, "_id").ok_or_else(broken)?;
    let size = uint(&document, "bytes").and_then(|n| usize::try_from(n).ok());
    let Some(Bson::Array(entries)) = document.remove("changes") else {
        return Err(broken());
    };
    let mut changes = Vec::with_capacity(entries.len());
    for entry in entries {
        let Bson::Document(mut entry) = entry else {
            return Err(broken());
        };
        let key = key_of(&entry, "key", operation)?;
        if !wanted(&key) {
            continue;
        }
        if entry.get_bool("deleted").unwrap_or(false) {
            changes.push(Change::Delete(key));
            continue;
        }
        let created = uint(&entry, "created").ok_or_else(broken)?;
        let value = Stored::take(&mut entry).and_then(Stored::into_json);
        changes.push(Change::Put(KeyValue {
            value: Value::from_json_bytes(value.ok_or_else(broken)?),
            key,
            created: Revision(created),
            modified: Revision(revision),
        }));
    }
    let commit = Commit {
        revision: Revision(revision),
        changes,
    };
    Ok((commit, size.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use skyloom_store::ErrorKind;

    use super::*;

    fn version() -> (Key, Version) {
        let version = Version {
            created: 3,
            modified: 7,
            stored: Stored::new(r#"{"n":1}"#),
        };
        (Key::parse("servers/a").unwrap(), version)
    }

    #[test]
    fn a_version_reads_as_it_was_written() {
        let (key, version) = version();
        let present = version.clone().present(&key);
        assert_eq!(
            Version::parse(present.clone()).unwrap(),
            (key.clone(), version.clone())
        );
        let kv = key_value(present, "_id", "get").unwrap();
        assert_eq!((kv.created, kv.modified), (Revision(3), Revision(7)));
        assert_eq!(kv.value.bytes(), &br#"{"n":1}"#[..]);
        let past = version.past(&key, 9);
        assert_eq!(past.get_str("_id").unwrap(), "00000000000000000009 servers/a");
        assert_eq!(key_value(past, "key", "list").unwrap(), kv);
    }

    #[test]
    fn versions_are_found_by_the_commit_that_ended_them() {
        let (key, version) = version();
        for (revision, found) in [(8, true), (9, false), (10, false)] {
            let past = version.clone().past(&key, 9);
            let id = past.get_str("_id").unwrap();
            assert_eq!(id >= &*past_after(revision), found, "ended after {revision}");
        }
    }

    #[test]
    fn a_commit_reads_as_it_was_written() {
        let (key, gone) = (Key::parse("a").unwrap(), Key::parse("b").unwrap());
        let written = doc! { "_id": 5_i64, "bytes": 10_i64, "changes": [
            log_put(&key, 4, Stored::new(" 1")), log_delete(&gone),
        ] };
        let (read, size) = commit(written.clone(), |_| true, "watch").unwrap();
        assert_eq!(size, 10);
        assert_eq!(read.revision, Revision(5));
        let [Change::Put(kv), Change::Delete(b)] = &read.changes[..] else {
            panic!("{read:?}");
        };
        assert_eq!(
            (&kv.key, b, kv.created, kv.modified),
            (&key, &gone, Revision(4), Revision(5))
        );
        assert_eq!(kv.value.bytes(), &b" 1"[..]);
        let (read, _) = commit(written, |k| *k == gone, "watch").unwrap();
        assert_eq!(read.changes, [Change::Delete(gone)]);
    }

    #[test]
    fn what_was_edited_by_hand_is_said_to_be_damaged() {
        for document in [
            doc! { "_id": "a", "value": 1 },
            doc! { "_id": "a", "created": 1, "modified": 1 },
            doc! { "_id": "a b", "value": 1, "created": 1, "modified": 1 },
            doc! { "_id": "a", "value": Bson::MinKey, "created": 1, "modified": 1 },
            doc! { "_id": "a", "value": 1, "created": 1, "modified": "1" },
        ] {
            let e = key_value(document.clone(), "_id", "get").unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Corrupt, "{document}");
        }
        for document in [
            doc! { "_id": "5", "changes": [] },
            doc! { "_id": 5 },
            doc! { "_id": 5, "changes": [1] },
            doc! { "_id": 5, "changes": [{ "key": "a", "value": 1 }] },
            doc! { "_id": 5, "changes": [{ "key": "a", "created": 1 }] },
        ] {
            let e = commit(document.clone(), |_| true, "watch").unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Corrupt, "{document}");
        }
    }
}
