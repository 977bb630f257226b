//! Reading: single statements, each a snapshot of its own.
//!
//! Some servers show a commit before it is on disk. Whoever has seen such a commit may never see it again after a crash, so
//! nothing is handed out before [`Durable`](super::Durable) has it.

use std::sync::Arc;

use async_trait::async_trait;
use skyloom_store::feed::{Commit, Past, Replay};
use skyloom_store::{
    Change, Error, ErrorKind, Key, KeyValue, LeaseInfo, LeaseName, ListOptions, Page as Listing, Prefix,
    Result, Revision, Value,
};

use super::Durable;
use super::batch::unsigned;
use super::dialect::{Dialect, Position, Range, StoredChange, StoredDocument};
use super::pool::Pool;

/// A page ends early when it holds this many bytes.
const PAGE_BYTES: usize = 8 << 20;
/// Most changes read at once for a watcher. More than one commit can hold.
const LOG_ROWS: i64 = 1_000;
/// Follows every key: keys are ASCII.
const AFTER_ALL: &str = "\u{7f}";

#[derive(Debug)]
pub(super) struct Reader<D: Dialect> {
    pub(super) pool: Arc<Pool<D>>,
    pub(super) durable: Arc<Durable>,
}

/// Past commits.
pub(super) enum Page {
    Commits {
        commits: Vec<Commit>,
        /// How far this goes.
        through: Revision,
        floor: Revision,
    },
    Lost {
        floor: Revision,
    },
}

impl<D: Dialect> Reader<D> {
    /// Comes back when `revision` is on disk.
    async fn settle(&self, revision: i64) -> Result<()> {
        self.durable.wait_for(&self.pool, revision).await
    }

    /// The newest revision and the floor.
    pub(super) async fn position(&self, operation: &'static str) -> Result<(Revision, Revision)> {
        let position = self.pool.run(operation, |d, link| d.position(link)).await?;
        self.settle(position.revision).await?;
        Ok((unsigned(position.revision), unsigned(position.floor)))
    }

    pub(super) async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        let text = key.as_str();
        let read = self
            .pool
            .run("get", |d, link| d.get(link, text.to_owned()))
            .await?;
        match read.rows.into_iter().next() {
            Some(row) => {
                self.settle(row.modified).await?;
                document(row, "get").map(Some)
            }
            None => {
                self.settle(read.position.revision).await?;
                Ok(None)
            }
        }
    }

    pub(super) async fn list(&self, prefix: &Prefix, options: &ListOptions, limit: usize) -> Result<Listing> {
        const OPERATION: &str = "list";
        let at = options.at.map(|at| i64::try_from(at.0).unwrap_or(i64::MAX));
        let range = range(
            prefix,
            options.after.as_ref(),
            i64::try_from(limit).unwrap_or(i64::MAX - 1) + 1,
        );
        let read = self
            .pool
            .run(OPERATION, |d, link| d.list(link, range.clone(), at))
            .await?;
        let Position { revision, floor, .. } = read.position;
        let as_of = at.unwrap_or(revision);
        if as_of > revision {
            return Err(Error::new(ErrorKind::Invalid, OPERATION)
                .with("revision", as_of)
                .with("newest", revision));
        }
        if as_of < floor {
            return Err(Error::new(ErrorKind::Compacted, OPERATION)
                .with("revision", as_of)
                .with("oldest", floor));
        }
        self.settle(revision).await?;
        let more = read.cut || read.rows.len() > limit;
        let items = read
            .rows
            .into_iter()
            .take(limit)
            .map(|row| document(row, OPERATION))
            .collect::<Result<_>>()?;
        Ok(Listing {
            items,
            revision: unsigned(as_of),
            more,
        })
    }

    /// Commits after `after` and up to `through`, as many as fit.
    pub(super) async fn read(&self, prefix: &Prefix, after: Revision, through: Revision) -> Result<Page> {
        const OPERATION: &str = "watch";
        let signed = |r: Revision| i64::try_from(r.0).unwrap_or(i64::MAX);
        let range = range(prefix, None, LOG_ROWS);
        let read = self
            .pool
            .run(OPERATION, |d, link| {
                d.log(link, range.clone(), signed(after), signed(through))
            })
            .await?;
        let floor = unsigned(read.position.floor);
        if after < floor {
            return Ok(Page::Lost { floor });
        }
        // Cut by bytes: between two commits. Cut by rows: anywhere.
        let full = read.rows.len() >= usize::try_from(LOG_ROWS).unwrap_or(usize::MAX);
        let mut commits: Vec<Commit> = Vec::new();
        for row in read.rows {
            let (revision, change) = change(row)?;
            match commits.last_mut() {
                Some(last) if last.revision == revision => last.changes.push(change),
                _ => commits.push(Commit {
                    revision,
                    changes: vec![change],
                }),
            }
        }
        if full && !read.cut {
            commits.pop();
        }
        let through = match commits.last() {
            _ if !full && !read.cut => through,
            Some(last) => last.revision,
            None => {
                return Err(
                    Error::new(ErrorKind::Internal, OPERATION).with("state", "a commit of too many changes")
                );
            }
        };
        Ok(Page::Commits {
            commits,
            through,
            floor,
        })
    }

    pub(super) async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        const OPERATION: &str = "list leases";
        let Range { from, end, .. } = range(prefix, None, 0);
        let rows = self
            .pool
            .run(OPERATION, |d, link| d.leases(link, from.clone(), end.clone()))
            .await?;
        rows.into_iter()
            .map(|row| {
                let name =
                    LeaseName::parse(&row.name).map_err(|e| foreign(OPERATION, &row.name).because(e))?;
                Ok(super::leaser::info(name, row))
            })
            .collect()
    }
}

#[async_trait]
impl<D: Dialect> Past for Reader<D> {
    async fn replay(&self, prefix: &Prefix, after: Revision, through: Revision) -> Result<Replay> {
        Ok(match self.read(prefix, after, through).await? {
            Page::Commits { commits, through, .. } => Replay::Commits { commits, through },
            Page::Lost { floor } => Replay::Lost { floor },
        })
    }

    async fn revision(&self) -> Result<Revision> {
        Ok(self.position("watch").await?.0)
    }
}

/// The open range of the keys below `prefix` and after `after`.
fn range(prefix: &Prefix, after: Option<&Key>, rows: i64) -> Range {
    Range {
        from: after.map_or("", Key::as_str).max(prefix.as_str()).to_owned(),
        end: prefix.end().unwrap_or_else(|| AFTER_ALL.to_owned()),
        rows,
        bytes: PAGE_BYTES,
    }
}

fn foreign(operation: &'static str, key: &str) -> Error {
    Error::new(ErrorKind::Corrupt, operation)
        .with("key", key)
        .with("hint", "somebody else wrote into the tables")
}

fn document(row: StoredDocument, operation: &'static str) -> Result<KeyValue> {
    Ok(KeyValue {
        key: Key::parse(&row.key).map_err(|e| foreign(operation, &row.key).because(e))?,
        value: Value::from_json_bytes(row.value),
        created: unsigned(row.created),
        modified: unsigned(row.modified),
    })
}

fn change(row: StoredChange) -> Result<(Revision, Change)> {
    let revision = unsigned(row.revision);
    let change = match row.value {
        Some(value) => Change::Put(document(
            StoredDocument {
                key: row.key,
                created: row.created,
                modified: row.revision,
                value,
            },
            "watch",
        )?),
        None => Change::Delete(Key::parse(&row.key).map_err(|e| foreign("watch", &row.key).because(e))?),
    };
    Ok((revision, change))
}
