//! The history: one row for each durable write, whose commits are written as lines that people can read.
//!
//! ```text
//! commit 12
//! put servers/a 5 18              the document after it: created at revision 5, 18 bytes follow
//! {"name":"example"}
//! was 5 10 14                     what it replaced: created, modified, bytes
//! {"name":"old"}
//! delete servers/b
//! was 3 3 2
//! {}
//! ```

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use skyloom_store::{Change, Key, KeyValue, Revision, Value};

use super::crc::Crc;

/// A document and its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Doc {
    pub(super) created: u64,
    pub(super) modified: u64,
    pub(super) value: Value,
}

impl Doc {
    pub(super) fn with_key(&self, key: &Key) -> KeyValue {
        KeyValue {
            key: key.clone(),
            value: self.value.clone(),
            created: Revision(self.created),
            modified: Revision(self.modified),
        }
    }

    /// Bytes that it takes under `key`, about.
    pub(super) fn weight(&self, key: &Key) -> usize {
        self.value.bytes().len() + key.as_str().len() + 128
    }
}

/// One row.
#[derive(Debug, Clone)]
pub(super) struct HistoryRow {
    pub(super) first: u64,
    pub(super) last: u64,
    /// Bytes of old and new values and keys.
    pub(super) bytes: u64,
    pub(super) commits: Arc<str>,
}

impl HistoryRow {
    pub(super) fn crc(&self) -> u32 {
        crc(self.first, self.last, self.bytes, &self.commits)
    }
}

pub(super) fn crc(first: u64, last: u64, bytes: u64, commits: &str) -> u32 {
    Crc::new()
        .int(first)
        .int(last)
        .int(bytes)
        .text(Some(commits))
        .finish()
}

/// Values are JSON, which is UTF-8; [`super::queue::Prepared`] has seen to it.
fn text(value: &Value) -> &str {
    std::str::from_utf8(value.bytes()).unwrap_or_default()
}

/// Builds the text of a row.
#[derive(Debug, Default)]
pub(super) struct Lines(pub(super) String);

impl Lines {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.0.write_fmt(line);
        self.0.push('\n');
    }

    fn value(&mut self, value: &Value) {
        self.0.push_str(text(value));
        self.0.push('\n');
    }

    pub(super) fn commit(&mut self, revision: u64) {
        self.line(format_args!("commit {revision}"));
    }

    /// `key` is `after` now and was `before`.
    pub(super) fn change(&mut self, key: &Key, after: Option<&Doc>, before: Option<&Doc>) {
        match after {
            Some(doc) => {
                let bytes = doc.value.bytes().len();
                self.line(format_args!("put {key} {} {bytes}", doc.created));
                self.value(&doc.value);
            }
            None => self.line(format_args!("delete {key}")),
        }
        if let Some(doc) = before {
            let bytes = doc.value.bytes().len();
            self.line(format_args!("was {} {} {bytes}", doc.created, doc.modified));
            self.value(&doc.value);
        }
    }
}

/// One change of the history.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) revision: u64,
    pub(super) key: Key,
    pub(super) after: Option<Doc>,
    pub(super) before: Option<Doc>,
}

impl Recorded {
    pub(super) fn change(self) -> Change {
        match self.after {
            Some(doc) => Change::Put(doc.with_key(&self.key)),
            None => Change::Delete(self.key),
        }
    }
}

/// The changes of a row to keys that begin with `prefix`, in their order. An error where the text is none.
#[derive(Debug)]
pub(super) struct Changes<'t> {
    text: &'t str,
    revision: u64,
    prefix: &'t str,
}

/// The text of a row is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Garbled;

impl<'t> Changes<'t> {
    pub(super) fn new(text: &'t str, prefix: &'t str) -> Self {
        Self {
            text,
            revision: 0,
            prefix,
        }
    }

    /// The value of so many bytes, and its line's end. A copy: who keeps it must not keep the row.
    fn value(&mut self, bytes: &str) -> Result<Value, Garbled> {
        let (value, rest) = self.text.split_at_checked(number(bytes)?).ok_or(Garbled)?;
        self.text = rest.strip_prefix('\n').ok_or(Garbled)?;
        Ok(Value::from_json_bytes(Bytes::copy_from_slice(value.as_bytes())))
    }

    fn read(&mut self) -> Result<Option<Recorded>, Garbled> {
        while !self.text.is_empty() {
            let (line, rest) = self.text.split_once('\n').ok_or(Garbled)?;
            self.text = rest;
            let mut words = line.split(' ');
            let (key, put) = match (words.next(), words.next(), words.next(), words.next()) {
                (Some("commit"), Some(revision), None, None) => {
                    self.revision = number(revision)?;
                    continue;
                }
                (Some("put"), Some(key), Some(created), Some(bytes)) => {
                    (key, Some((number(created)?, bytes)))
                }
                (Some("delete"), Some(key), None, None) => (key, None),
                _ => return Err(Garbled),
            };
            let after = match put {
                Some((created, bytes)) => Some(Doc {
                    created,
                    modified: self.revision,
                    value: self.value(bytes)?,
                }),
                None => None,
            };
            let before = self.before()?;
            if key.starts_with(self.prefix) {
                return Ok(Some(Recorded {
                    revision: self.revision,
                    key: Key::parse(key).map_err(|_| Garbled)?,
                    after,
                    before,
                }));
            }
        }
        Ok(None)
    }

    fn before(&mut self) -> Result<Option<Doc>, Garbled> {
        if !self.text.starts_with("was ") {
            return Ok(None);
        }
        let (line, rest) = self.text.split_once('\n').ok_or(Garbled)?;
        self.text = rest;
        let mut words = line.split(' ').skip(1);
        let (Some(created), Some(modified), Some(bytes)) = (words.next(), words.next(), words.next()) else {
            return Err(Garbled);
        };
        Ok(Some(Doc {
            created: number(created)?,
            modified: number(modified)?,
            value: self.value(bytes)?,
        }))
    }
}

fn number<N: std::str::FromStr>(word: &str) -> Result<N, Garbled> {
    word.parse().map_err(|_| Garbled)
}

impl Iterator for Changes<'_> {
    type Item = Result<Recorded, Garbled>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.read();
        if read.is_err() {
            self.text = ""; // nothing more can be made of it
        }
        read.transpose()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn doc() -> impl Strategy<Value = Doc> {
        (1..50u64, 1..50u64, "[ -~\n]{0,30}").prop_map(|(created, modified, text)| Doc {
            created,
            modified,
            value: Value::json(&text).unwrap(),
        })
    }

    fn change() -> impl Strategy<Value = Recorded> {
        let key = "[ab]{1,2}(/[a-c]{1,3}){0,2}";
        let docs = (proptest::option::of(doc()), proptest::option::of(doc()));
        (1..9u64, key, docs).prop_map(|(revision, key, (after, before))| Recorded {
            revision,
            key: Key::parse(&key).unwrap(),
            after: after.map(|doc| Doc {
                modified: revision,
                ..doc
            }),
            before,
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(changes in proptest::collection::vec(change(), 0..8), prefix in "(a/)?") {
            let mut lines = Lines::default();
            for c in &changes {
                lines.commit(c.revision);
                lines.change(&c.key, c.after.as_ref(), c.before.as_ref());
            }
            let read: Vec<_> = Changes::new(&lines.0, &prefix).map(Result::unwrap).collect();
            let ours: Vec<_> = changes.into_iter().filter(|c| c.key.as_str().starts_with(&prefix)).collect();
            prop_assert_eq!(read, ours);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "((put|was|delete|commit) [a 0-9\n]{0,12}\n?){0,6}") {
            let _: Vec<_> = Changes::new(&text, "").collect();
        }
    }
}
