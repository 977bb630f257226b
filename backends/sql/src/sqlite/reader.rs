//! Reading: what memory knows, or SQL on a small pool, each a snapshot of its own, every row checked against its checksum.
//!
//! `documents` is behind what stands in the store by what is dirty ([`Present`]). A list merges both; it waits where the file is
//! ahead of memory, as it is for the moment between a transaction and its being known. A list at an older revision is made from one snapshot of the file: `documents`, and
//! what the history says of what changed since, forward or back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use parking_lot::Mutex;
use skyloom_store::feed::{Commit, Past, Replay};
use skyloom_store::{Error, ErrorKind, Key, KeyValue, ListOptions, Page, Prefix, Result, Revision, Value};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{ConnectOptions as _, Row as _};
use tokio::sync::Notify;

use super::crc;
use super::history::{self, Changes, Doc, Garbled, HistoryRow};
use super::load::{position, stored_crc, unsigned};
use super::present::{Known, Present};
use crate::error::sql;

/// A page ends early when it holds this many bytes.
const PAGE_BYTES: usize = 8 << 20;
/// Follows every key: keys are ASCII.
const AFTER_ALL: &str = "\u{7f}";

const STATE: &str = "SELECT revision, floor, crc FROM state";

/// Rows of documents.
pub(super) const DOCUMENTS: &str = "SELECT key, created, modified, crc, value FROM documents";

/// Up to which revision `documents` is the truth, and the row.
const GET: &str = "SELECT s.revision, d.key, d.created, d.modified, d.crc, d.value FROM documents AS d, state AS s WHERE d.key = ?";

const LIST: &str = "
SELECT s.revision, s.floor, s.crc, d.key, d.created, d.modified, d.crc, d.value FROM state AS s LEFT JOIN
  (SELECT key, created, modified, crc, value FROM documents WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT ?3) AS d
ORDER BY d.key";

/// The history after a revision.
pub(super) const HISTORY: &str =
    "SELECT last, first, bytes, crc, commits FROM history WHERE last > ? ORDER BY last";

/// Who reads.
#[derive(Debug)]
pub(super) struct Reader {
    pool: SqlitePool,
    present: Arc<Mutex<Present>>,
    /// Told when memory has caught up with the file.
    moved: Arc<Notify>,
    wait: Duration,
}

/// Documents as they differ from `documents`: `None` is not there.
type Over = BTreeMap<Key, Option<KeyValue>>;

impl Reader {
    pub(super) async fn connect(
        path: &Path,
        connections: u32,
        wait: Duration,
        (present, moved): (Arc<Mutex<Present>>, Arc<Notify>),
    ) -> Result<Self> {
        let wait = wait.max(Duration::from_secs(1));
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .busy_timeout(Duration::from_secs(5))
            .pragma("trusted_schema", "OFF")
            .pragma("cell_size_check", "ON")
            .pragma("query_only", "ON")
            .pragma("cache_size", "-4096")
            .thread_name(|n| format!("sqlite-reader-{n}"))
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new()
            .max_connections(connections.max(1))
            .min_connections(1)
            .acquire_timeout(wait)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .map_err(sql("open database"))?;
        Ok(Self {
            pool,
            present,
            moved,
            wait,
        })
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    pub(super) async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        const OPERATION: &str = "get";
        if self.pool.is_closed() {
            return Err(sql(OPERATION)(sqlx::Error::PoolClosed));
        }
        if let Known::Yes(dirty) = self.present.lock().known(key) {
            return Ok(dirty.doc.map(|doc| doc.with_key(key)));
        }
        let row = sqlx::query(GET)
            .bind(key.as_str())
            .fetch_optional(&self.pool)
            .await;
        let Some(row) = row.map_err(sql(OPERATION))? else {
            return Ok(None);
        };
        let kv = document(&row, 1, OPERATION)?;
        let applied = unsigned(&row, 0).map_err(sql(OPERATION))?;
        let doc = Doc {
            created: kv.created.0,
            modified: kv.modified.0,
            value: kv.value.clone(),
        };
        self.present.lock().keep(key, &doc, applied);
        Ok(Some(kv))
    }

    pub(super) async fn list(&self, prefix: &Prefix, options: &ListOptions, limit: usize) -> Result<Page> {
        const OPERATION: &str = "list";
        loop {
            let moved = self.moved.notified();
            let (revision, floor, over, hidden) = {
                let present = self.present.lock();
                let most = limit.saturating_add(1);
                let (over, hidden) = present.dirty_below(prefix, options.after.as_ref(), most);
                (present.revision, present.floor, over, hidden)
            };
            if let Some(at) = options.at
                && at.0 != revision
            {
                if at.0 > revision {
                    return Err(Error::new(ErrorKind::Invalid, OPERATION)
                        .with("revision", at)
                        .with("newest", revision));
                }
                if at.0 < floor {
                    return Err(compacted(at, floor));
                }
                return self.list_at(prefix, options.after.as_ref(), at, limit).await;
            }
            let mut conn = self.pool.acquire().await.map_err(sql(OPERATION))?;
            let (mut page, applied) = self
                .merged(&mut conn, prefix, options.after.as_ref(), over, limit, hidden)
                .await?;
            // What was dirty lies over all that may have been flushed meanwhile; only what came later may not be there.
            if applied <= revision {
                page.revision = Revision(revision);
                return Ok(page);
            }
            drop(conn);
            if tokio::time::timeout(self.wait, moved).await.is_err() {
                return Err(
                    Error::new(ErrorKind::Unavailable, OPERATION).with("state", "the writer does not answer")
                );
            }
        }
    }

    /// A page of `documents` with `over` over it, which hides at most `hidden` rows; and up to where `documents` is the truth.
    async fn merged(
        &self,
        conn: &mut SqliteConnection,
        prefix: &Prefix,
        after: Option<&Key>,
        over: Over,
        limit: usize,
        hidden: usize,
    ) -> Result<(Page, u64)> {
        const OPERATION: &str = "list";
        let (from, end) = range(prefix, after);
        let rows = limit.saturating_add(1).saturating_add(hidden);
        let mut stream = sqlx::query(LIST)
            .bind(from)
            .bind(end)
            .bind(i64::try_from(rows).unwrap_or(i64::MAX))
            .fetch(conn);
        let mut page = Page {
            items: Vec::new(),
            revision: Revision(0),
            more: false,
        };
        let mut over = over.into_iter().peekable();
        let (mut bytes, mut applied, mut read) = (0, 0, 0);
        // `false` when the page is full.
        let mut take = |page: &mut Page, item: KeyValue| {
            if page.items.len() >= limit || bytes >= PAGE_BYTES {
                page.more = true;
                return false;
            }
            bytes += item.value.bytes().len();
            page.items.push(item);
            true
        };
        while let Some(row) = stream.try_next().await.map_err(sql(OPERATION))? {
            applied = position(&row, OPERATION)?.0;
            if is_null(&row, 3).map_err(sql(OPERATION))? {
                continue;
            }
            read += 1;
            let key: String = row.try_get(3).map_err(sql(OPERATION))?;
            let mut replaced = false;
            while let Some((at, item)) = over.next_if(|(at, _)| at.as_str() <= key.as_str()) {
                replaced |= at.as_str() == key;
                if let Some(item) = item
                    && !take(&mut page, item)
                {
                    return Ok((page, applied));
                }
            }
            if !replaced && !take(&mut page, document(&row, 3, OPERATION)?) {
                return Ok((page, applied));
            }
        }
        if read >= rows {
            // All rows that were asked for, and no page full: `over` says nothing of what lies behind them.
            page.more = true;
            return Ok((page, applied));
        }
        for item in over.filter_map(|(_, item)| item) {
            if !take(&mut page, item) {
                break;
            }
        }
        Ok((page, applied))
    }

    /// What stood at `at`.
    async fn list_at(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        at: Revision,
        limit: usize,
    ) -> Result<Page> {
        const OPERATION: &str = "list";
        // One snapshot for all of it.
        let mut snapshot = self.pool.begin().await.map_err(sql(OPERATION))?;
        let row = sqlx::query(STATE)
            .fetch_one(&mut *snapshot)
            .await
            .map_err(sql(OPERATION))?;
        let (applied, _) = position(&row, OPERATION)?;
        let since = at.0.min(applied);
        let mut over: Over = BTreeMap::new();
        let mut next = since + 1;
        {
            let mut rows = sqlx::query(HISTORY)
                .bind(i64::try_from(since).unwrap_or(i64::MAX))
                .fetch(&mut *snapshot);
            while let Some(row) = rows.try_next().await.map_err(sql(OPERATION))? {
                let row = history_row(&row, OPERATION)?;
                if row.first > next {
                    return Err(compacted(at, row.first));
                }
                next = row.last + 1;
                let last = row.last;
                for change in Changes::new(&row.commits, prefix.as_str()) {
                    let change = change.map_err(|Garbled| garbled(last))?;
                    if change.revision <= since || after.is_some_and(|after| change.key <= *after) {
                        continue;
                    }
                    let key = change.key;
                    if change.revision <= at.0 {
                        let item = change.after.map(|doc| doc.with_key(&key));
                        over.insert(key, item);
                    } else {
                        let before = change.before;
                        over.entry(key)
                            .or_insert_with_key(|key| before.map(|doc| doc.with_key(key)));
                    }
                }
            }
        }
        // What has changed since and is not in the history any more cannot be told.
        if next <= applied {
            return Err(compacted(at, applied));
        }
        let hidden = over.len();
        let (mut page, _) = self
            .merged(&mut snapshot, prefix, after, over, limit, hidden)
            .await?;
        page.revision = at;
        Ok(page)
    }
}

#[async_trait]
impl Past for Reader {
    async fn replay(&self, prefix: &Prefix, after: Revision, to: Revision) -> Result<Replay> {
        const OPERATION: &str = "watch";
        let lost = || Replay::Lost {
            floor: Revision(self.present.lock().floor),
        };
        if after.0 < self.present.lock().floor {
            return Ok(lost());
        }
        let mut rows = sqlx::query(HISTORY)
            .bind(i64::try_from(after.0).unwrap_or(i64::MAX))
            .fetch(&self.pool);
        let mut commits: Vec<Commit> = Vec::new();
        let (mut through, mut bytes) = (after, 0);
        while let Some(row) = rows.try_next().await.map_err(sql(OPERATION))? {
            let row = history_row(&row, OPERATION)?;
            if row.first > through.0 + 1 {
                return Ok(lost()); // swept meanwhile
            }
            let last = row.last;
            bytes += row.commits.len();
            for change in Changes::new(&row.commits, prefix.as_str()) {
                let change = change.map_err(|Garbled| garbled(last))?;
                let revision = Revision(change.revision);
                if revision <= after || revision > to {
                    continue;
                }
                let change = change.change();
                match commits.last_mut() {
                    Some(commit) if commit.revision == revision => commit.changes.push(change),
                    _ => commits.push(Commit {
                        revision,
                        changes: vec![change],
                    }),
                }
            }
            through = Revision(last).min(to);
            if through == to || bytes >= PAGE_BYTES {
                break;
            }
        }
        if through == after {
            return Ok(lost());
        }
        Ok(Replay::Commits { commits, through })
    }

    async fn revision(&self) -> Result<Revision> {
        Ok(Revision(self.present.lock().revision))
    }
}

/// The open range of the keys below `prefix` and after `after`.
fn range(prefix: &Prefix, after: Option<&Key>) -> (String, String) {
    let from = after.map_or("", Key::as_str).max(prefix.as_str()).to_owned();
    (from, prefix.end().unwrap_or_else(|| AFTER_ALL.to_owned()))
}

fn is_null(row: &SqliteRow, column: usize) -> sqlx::Result<bool> {
    use sqlx::ValueRef as _;
    Ok(row.try_get_raw(column)?.is_null())
}

/// The document in the columns key, created, modified, crc, value from `first` on.
pub(super) fn document(row: &SqliteRow, first: usize, operation: &'static str) -> Result<KeyValue> {
    let key: String = row.try_get(first).map_err(sql(operation))?;
    let columns = || {
        let value: String = row.try_get(first + 4)?;
        Ok((
            unsigned(row, first + 1)?,
            unsigned(row, first + 2)?,
            stored_crc(row, first + 3)?,
            value,
        ))
    };
    let (created, modified, stored, value) =
        columns().map_err(|e: sqlx::Error| damaged(operation, &key).because(e))?;
    if stored != crc::of_document(&key, Some(&value), created, modified) {
        return Err(damaged(operation, &key));
    }
    let parsed = Key::parse(&key).map_err(|e| damaged(operation, &key).because(e))?;
    let value = Value::from_json_bytes(value);
    Ok(KeyValue {
        key: parsed,
        value,
        created: Revision(created),
        modified: Revision(modified),
    })
}

/// A row of [`HISTORY`].
pub(super) fn history_row(row: &SqliteRow, operation: &'static str) -> Result<HistoryRow> {
    let columns = || {
        Ok((
            HistoryRow {
                last: unsigned(row, 0)?,
                first: unsigned(row, 1)?,
                bytes: unsigned(row, 2)?,
                commits: row.try_get::<String, _>(4)?.into(),
            },
            stored_crc(row, 3)?,
        ))
    };
    let (found, stored) = columns().map_err(|e: sqlx::Error| {
        Error::new(ErrorKind::Corrupt, operation)
            .with("table", "history")
            .because(e)
    })?;
    if stored != history::crc(found.first, found.last, found.bytes, &found.commits) {
        return Err(garbled(found.last));
    }
    Ok(found)
}

fn garbled(last: u64) -> Error {
    Error::new(ErrorKind::Corrupt, "read history")
        .with("revision", last)
        .with(
            "hint",
            "the stored history fails its checksum; the documents are not concerned",
        )
}

fn compacted(at: Revision, oldest: u64) -> Error {
    Error::new(ErrorKind::Compacted, "list")
        .with("revision", at)
        .with("oldest", oldest)
}

fn damaged(operation: &'static str, key: &str) -> Error {
    Error::new(ErrorKind::Corrupt, operation).with("key", key).with(
        "hint",
        "the stored document fails its checksum; restore it from a backup or write it anew",
    )
}

/// Shared by the store and its watches.
pub(super) type SharedReader = Arc<Reader>;
