//! All records of a store as of one revision, page by page.

use skyloom_flow::Standing;
use skyloom_model::{Incarnation, paths};
use skyloom_store::{Error, ErrorKind, Key, KeyValue, ListOptions, Prefix, Result, Revision, Store};

/// A reading of a whole store.
pub(super) struct Snapshot<'s> {
    store: &'s dyn Store,
    at: Revision,
    after: Option<Key>,
    ended: bool,
}

/// What a store says of itself, for whoever reads a whole cloud from it.
pub(super) struct Source {
    pub(super) standing: Standing,
    pub(super) incarnation: Incarnation,
}

/// What `store` says of itself.
///
/// # Errors
/// [`ErrorKind::Invalid`] when a copy into it has not ended, or it says no cloud.
pub(super) async fn source(store: &dyn Store, operation: &'static str) -> Result<Source> {
    let standing = Standing::read(store).await?;
    standing.whole()?;
    let incarnation = standing.incarnation().ok_or_else(|| {
        Error::new(ErrorKind::Invalid, operation)
            .with("the source names", "no cloud")
            .with("what to do", "start an API of this version on it once")
    })?;
    Ok(Source {
        standing,
        incarnation,
    })
}

impl<'s> Snapshot<'s> {
    /// The store as it is now.
    pub(super) async fn now(store: &'s dyn Store) -> Result<Self> {
        let page = store
            .list(&Prefix::all(), ListOptions::default().with_limit(1))
            .await?;
        Ok(Self::at(store, page.revision))
    }

    /// The store as it was at `at`.
    pub(super) fn at(store: &'s dyn Store, at: Revision) -> Self {
        Self {
            store,
            at,
            after: None,
            ended: false,
        }
    }

    pub(super) fn revision(&self) -> Revision {
        self.at
    }

    /// The next records in the order of their keys, without what the store says of itself; `None` at the end.
    pub(super) async fn page(&mut self) -> Result<Option<Vec<KeyValue>>> {
        if self.ended {
            return Ok(None);
        }
        // A store without a commit has no revision to ask for.
        let mut options = ListOptions::default();
        if self.at > Revision(0) {
            options = options.with_at(self.at);
        }
        if let Some(after) = &self.after {
            options = options.with_after(after.clone());
        }
        let page = self
            .store
            .list(&Prefix::all(), options)
            .await
            .map_err(|e| match e.kind() {
                ErrorKind::Compacted => Error::new(ErrorKind::Compacted, "read the source")
                    .with("its revision", self.at)
                    .with(
                        "what to do",
                        "the source forgot that revision while it was read: begin again with an empty target while less is \
                         written, or let the source keep more history",
                    )
                    .because(e),
                _ => e,
            })?;
        self.after = page.items.last().map(|kv| kv.key.clone());
        self.ended = !page.more || page.items.is_empty();
        let records = page.items.into_iter();
        Ok(Some(records.filter(|kv| !of_cloud(&kv.key)).collect()))
    }
}

/// Whether a key is something that a store says of itself.
pub(super) fn of_cloud(key: &Key) -> bool {
    key.segments().next() == Some(paths::CLOUD)
}
