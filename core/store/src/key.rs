//! Keys and prefixes with real delimiters, so that `hosts/host1/` never covers `hosts/host10`.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest key in bytes.
pub const MAX_KEY_LEN: usize = 512;

/// The address of a document: one or more non-empty segments, written with `/` between them.
///
/// Segments hold `A-Z a-z 0-9 . _ ~ : @ + = -` only, so a key needs no escaping in any backend, URL or shell listing.
/// The order of keys is the byte order of the written form. A clone shares the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(Arc<str>);

/// All keys below one path, never a part of a segment. The empty prefix covers everything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(String); // "" or "a/b/"

/// Why a string is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A segment is empty, or there is none.
    #[error("key {0:?} has an empty segment")]
    EmptySegment(String),
    /// A character outside the alphabet.
    #[error("key {0:?} has the character {1:?}; allowed are letters, digits and . _ ~ : @ + = -")]
    BadCharacter(String, char),
    /// Longer than 512 bytes.
    #[error("key of {0} bytes is longer than 512")]
    TooLong(usize),
}

fn check(path: &str) -> Result<(), KeyError> {
    if path.len() > MAX_KEY_LEN {
        return Err(KeyError::TooLong(path.len()));
    }
    for segment in path.split('/') {
        if segment.is_empty() {
            return Err(KeyError::EmptySegment(path.to_owned()));
        }
        let bad = segment
            .chars()
            .find(|c| !(c.is_ascii_alphanumeric() || "._~:@+=-".contains(*c)));
        if let Some(c) = bad {
            return Err(KeyError::BadCharacter(path.to_owned(), c));
        }
    }
    Ok(())
}

impl Key {
    /// Parses a written key such as `hosts/h1/status`.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn parse(path: &str) -> Result<Self, KeyError> {
        check(path)?;
        Ok(Self(path.into()))
    }

    /// The written form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments in order.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The last segment.
    #[must_use]
    pub fn last(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl Prefix {
    /// The prefix of everything.
    #[must_use]
    pub const fn all() -> Self {
        Self(String::new())
    }

    /// Parses a path such as `hosts/h1` (a trailing `/` is allowed); the empty string is [`Prefix::all`].
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn parse(path: &str) -> Result<Self, KeyError> {
        let path = path.strip_suffix('/').unwrap_or(path);
        if path.is_empty() {
            return Ok(Self::all());
        }
        check(path)?;
        Ok(Self(format!("{path}/")))
    }

    /// Whether `key` lies below this prefix.
    #[must_use]
    pub fn covers(&self, key: &Key) -> bool {
        key.0.starts_with(&self.0)
    }

    /// Whether every key below `other` lies below this prefix.
    #[must_use]
    pub fn includes(&self, other: &Prefix) -> bool {
        other.0.starts_with(&self.0)
    }

    /// The key below this prefix with the further path `rest`.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn key(&self, rest: &str) -> Result<Key, KeyError> {
        Key::parse(&format!("{}{rest}", self.0))
    }

    /// The narrower prefix with the further path `rest`.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn join(&self, rest: &str) -> Result<Self, KeyError> {
        Self::parse(&format!("{}{rest}", self.0))
    }

    /// The rest of `key` after this prefix.
    #[must_use]
    pub fn strip<'k>(&self, key: &'k Key) -> Option<&'k str> {
        key.0.strip_prefix(&self.0)
    }

    /// The written form: empty, or ending in `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The smallest string greater than every key below this prefix; `None` for [`Prefix::all`].
    /// Backends use it as the end of a range scan.
    #[must_use]
    pub fn end(&self) -> Option<String> {
        let body = self.0.strip_suffix('/')?;
        Some(format!("{body}0")) // '0' follows '/' in ASCII
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(all)" } else { &self.0 })
    }
}
// The derived order, equality and hash of a key are those of its text, so maps of keys can be searched by text.
impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}
impl FromStr for Key {
    type Err = KeyError;
    fn from_str(s: &str) -> Result<Self, KeyError> {
        Self::parse(s)
    }
}
impl TryFrom<String> for Key {
    type Error = KeyError;
    fn try_from(s: String) -> Result<Self, KeyError> {
        check(&s)?;
        Ok(Self(s.into()))
    }
}
impl From<Key> for String {
    fn from(k: Key) -> Self {
        k.as_str().to_owned()
    }
}
impl TryFrom<String> for Prefix {
    type Error = KeyError;
    fn try_from(s: String) -> Result<Self, KeyError> {
        Self::parse(&s)
    }
}
impl From<Prefix> for String {
    fn from(p: Prefix) -> Self {
        p.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_prefix_never_covers_half_a_segment() {
        let p = Prefix::parse("hosts/host1").unwrap();
        assert!(p.covers(&Key::parse("hosts/host1/a").unwrap()));
        assert!(!p.covers(&Key::parse("hosts/host10/a").unwrap()));
        assert!(!p.covers(&Key::parse("hosts/host1").unwrap()));
        assert!(Prefix::all().covers(&Key::parse("x").unwrap()));
    }

    #[test]
    fn bad_keys_are_refused() {
        for bad in ["", "/", "a//b", "a/", "/a", "a b", "a\0", "ä", "a/../\n"] {
            assert!(Key::parse(bad).is_err(), "{bad:?}");
        }
        assert!(matches!(
            Key::parse(&"a".repeat(513)),
            Err(KeyError::TooLong(513))
        ));
    }

    proptest! {
        #[test]
        fn end_bounds_exactly_the_covered_keys(p in "[a-z0-9~-]{1,4}(/[a-z0-9~-]{1,4}){0,2}", k in "[a-z0-9~-]{1,4}(/[a-z0-9~-]{1,4}){0,4}") {
            let prefix = Prefix::parse(&p).unwrap();
            let key = Key::parse(&k).unwrap();
            let in_range = key.as_str() >= prefix.as_str() && key.as_str() < prefix.end().unwrap().as_str();
            prop_assert_eq!(prefix.covers(&key), in_range);
        }
    }
}
