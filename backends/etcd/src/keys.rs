//! Where things stand in etcd.
//!
//! | key | value |
//! | --- | --- |
//! | `/PREFIX/docs/KEY` | a document: the JSON itself |
//! | `/PREFIX/docs.head` | written by every commit, so that its modification revision is the store's revision |
//! | `/PREFIX/leases/NAME` | who was granted the lease; its modification revision is the epoch |
//! | `/PREFIX/held/NAME` | there as long as the lease is held: bound to an etcd lease, which removes it |

use skyloom_store::{Key, LeaseName, Prefix};

/// Words that cannot be a part of a prefix, so that no cloud's keys stand among another one's.
pub(crate) const RESERVED: [&str; 4] = ["docs", "docs.head", "leases", "held"];

/// A range of etcd keys: from the first on, up to and without the second.
pub(crate) type Range = (String, String);

/// The keys of one cloud.
#[derive(Debug)]
pub(crate) struct Keys {
    docs: String,
    leases: String,
    held: String,
    head: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        let below = |word: &str| format!("/{prefix}/{word}");
        Self {
            docs: below("docs/"),
            leases: below("leases/"),
            held: below("held/"),
            head: below("docs.head"),
        }
    }

    pub(crate) fn head(&self) -> &str {
        &self.head
    }
    pub(crate) fn doc(&self, key: &Key) -> String {
        format!("{}{key}", self.docs)
    }
    pub(crate) fn lease(&self, name: &LeaseName) -> String {
        format!("{}{name}", self.leases)
    }
    pub(crate) fn held(&self, name: &LeaseName) -> String {
        format!("{}{name}", self.held)
    }

    /// The path of a document's key; `None` for the head.
    pub(crate) fn path<'k>(&self, key: &'k [u8]) -> Option<&'k str> {
        std::str::from_utf8(key).ok()?.strip_prefix(&self.docs)
    }
    /// The name in the key of a lease's record.
    pub(crate) fn lease_name<'k>(&self, key: &'k [u8]) -> Option<&'k str> {
        std::str::from_utf8(key).ok()?.strip_prefix(&self.leases)
    }
    /// The name in the key of a held lease.
    pub(crate) fn held_name<'k>(&self, key: &'k [u8]) -> Option<&'k str> {
        std::str::from_utf8(key).ok()?.strip_prefix(&self.held)
    }

    /// The head and all documents: what one watch covers.
    pub(crate) fn watched(&self) -> Range {
        (self.head.clone(), end(&self.docs))
    }

    /// The documents below `prefix` after `after`; `None` when there can be none.
    pub(crate) fn docs_after(&self, prefix: &Prefix, after: Option<&Key>) -> Option<Range> {
        range(&self.docs, prefix, after.map(Key::as_str))
    }
    /// The records of leases below `prefix` after `after`.
    pub(crate) fn leases_after(&self, prefix: &Prefix, after: Option<&str>) -> Option<Range> {
        range(&self.leases, prefix, after)
    }
    /// The held leases below `prefix` after `after`.
    pub(crate) fn held_after(&self, prefix: &Prefix, after: Option<&str>) -> Option<Range> {
        range(&self.held, prefix, after)
    }
}

/// Everything below `base`, which ends in `/`.
fn end(base: &str) -> String {
    format!("{}0", base.strip_suffix('/').unwrap_or(base)) // '0' follows '/' in ASCII
}

fn range(base: &str, prefix: &Prefix, after: Option<&str>) -> Option<Range> {
    let first = format!("{base}{}", prefix.as_str());
    let end = prefix.end().map_or_else(|| end(base), |e| format!("{base}{e}"));
    let first = match after {
        // The smallest text after a text is that text and a zero byte.
        Some(after) => first.max(format!("{base}{after}\0")),
        None => first,
    };
    (first < end).then_some((first, end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_watched_range_is_the_head_and_the_documents() {
        let keys = Keys::new("a/b");
        let (first, end) = keys.watched();
        let inside = |key: &str| first.as_str() <= key && key < end.as_str();
        for key in ["/a/b/docs.head", "/a/b/docs/x", "/a/b/docs/~/~"] {
            assert!(inside(key), "{key}");
        }
        for key in [
            "/a/b/held/x",
            "/a/b/leases/x",
            "/a/b2/docs/x",
            "/a/docs/x",
            "/a/b/c/docs/x",
        ] {
            assert!(!inside(key), "{key}");
        }
        assert_eq!(keys.path(b"/a/b/docs/x/y"), Some("x/y"));
        assert_eq!(keys.path(b"/a/b/docs.head"), None);
    }

    proptest! {
        #[test]
        fn ranges_are_what_lists_want(
            p in "[a0/~-]{0,4}", after in proptest::option::of("[a0~-]{1,3}(/[a0~-]{1,3}){0,2}"),
            k in "[a0~-]{1,3}(/[a0~-]{1,3}){0,3}",
        ) {
            let Ok(prefix) = Prefix::parse(&p) else { return Ok(()) };
            let keys = Keys::new("c");
            let (after, key) = (after.map(|a| Key::parse(&a).unwrap()), Key::parse(&k).unwrap());
            let wanted = prefix.covers(&key) && after.as_ref().is_none_or(|a| key > *a);
            let there = keys.docs_after(&prefix, after.as_ref()).is_some_and(|(first, end)| {
                let at = keys.doc(&key);
                first <= at && at < end
            });
            prop_assert_eq!(there, wanted);
        }
    }
}
