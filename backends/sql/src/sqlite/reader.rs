//! Reading: single SQL statements on a small pool, each a snapshot of its own, every row checked against its checksum.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use skyloom_store::feed::{Commit, Past, Replay};
use skyloom_store::{
    Change, Error, ErrorKind, Key, KeyValue, ListOptions, Page, Prefix, Result, Revision, Value,
};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{ConnectOptions as _, Row as _};

use super::crc;
use super::load::{position, stored_crc, unsigned};
use crate::error::sql;

/// A page ends early when it holds this many bytes.
const PAGE_BYTES: usize = 8 << 20;
/// Most changes read at once for a watcher. More than one commit can hold.
const REPLAY_ROWS: usize = 1_000;
/// Follows every key: keys are ASCII.
const AFTER_ALL: &str = "\u{7f}";

const STATE: &str = "SELECT revision, floor, crc FROM state";

const GET: &str = "SELECT key, created, modified, crc, value FROM documents WHERE key = ?";

const LIST_NOW: &str = "
SELECT s.revision, s.floor, s.crc, d.key, d.created, d.modified, d.crc, d.value FROM state AS s LEFT JOIN
  (SELECT key, created, modified, crc, value FROM documents WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT ?3) AS d
ORDER BY d.key";

/// What stood at revision ?4: documents not touched since, and for the others what their first later change replaced.
const LIST_AT: &str = "
SELECT s.revision, s.floor, s.crc, d.key, d.created, d.modified, d.crc, d.value FROM state AS s LEFT JOIN (
  SELECT key, created, modified, crc, value FROM documents WHERE key > ?1 AND key < ?2 AND modified <= ?4
  UNION ALL
  SELECT key, old_created, old_modified, old_crc, old_value FROM history
    WHERE revision > ?4 AND key > ?1 AND key < ?2 AND old_modified <= ?4
  ORDER BY key LIMIT ?3) AS d
ORDER BY d.key";

const REPLAY: &str = "
SELECT s.revision, s.floor, s.crc, h.revision, h.key, h.created, h.crc, h.value FROM state AS s LEFT JOIN (
  SELECT revision, key, created, crc, value FROM history
    WHERE revision > ?1 AND revision <= ?2 AND key > ?3 AND key < ?4 ORDER BY revision, key LIMIT ?5) AS h
ORDER BY h.revision, h.key";

/// The read pool.
#[derive(Debug)]
pub(super) struct Reader {
    pool: SqlitePool,
}

impl Reader {
    pub(super) async fn connect(path: &Path, connections: u32, wait: Duration) -> Result<Self> {
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
            .acquire_timeout(wait.max(Duration::from_secs(1)))
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .map_err(sql("open database"))?;
        Ok(Self { pool })
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    pub(super) async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        let row = sqlx::query(GET)
            .bind(key.as_str())
            .fetch_optional(&self.pool)
            .await;
        row.map_err(sql("get"))?
            .map(|row| document(&row, 0, "get"))
            .transpose()
    }

    pub(super) async fn list(&self, prefix: &Prefix, options: &ListOptions, limit: usize) -> Result<Page> {
        const OPERATION: &str = "list";
        let (from, end) = range(prefix, options.after.as_ref());
        let rows = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
        let query = sqlx::query(if options.at.is_some() { LIST_AT } else { LIST_NOW })
            .bind(from)
            .bind(end)
            .bind(rows);
        let query = match options.at {
            Some(at) => query.bind(i64::try_from(at.0).unwrap_or(i64::MAX)),
            None => query,
        };
        let mut stream = query.fetch(&self.pool);
        let mut page = Page {
            items: Vec::new(),
            revision: Revision(0),
            more: false,
        };
        let mut bytes = 0;
        while let Some(row) = stream.try_next().await.map_err(sql(OPERATION))? {
            let (revision, floor) = position(&row, OPERATION)?;
            let at = options.at.unwrap_or(Revision(revision));
            if at.0 > revision {
                return Err(Error::new(ErrorKind::Invalid, OPERATION)
                    .with("revision", at)
                    .with("newest", revision));
            }
            if at.0 < floor {
                return Err(Error::new(ErrorKind::Compacted, OPERATION)
                    .with("revision", at)
                    .with("oldest", floor));
            }
            page.revision = at;
            if is_null(&row, 3).map_err(sql(OPERATION))? {
                continue;
            }
            if page.items.len() >= limit || bytes >= PAGE_BYTES {
                page.more = true;
                break;
            }
            let item = document(&row, 3, OPERATION)?;
            bytes += item.value.bytes().len();
            page.items.push(item);
        }
        Ok(page)
    }
}

#[async_trait]
impl Past for Reader {
    async fn replay(&self, prefix: &Prefix, after: Revision, to: Revision) -> Result<Replay> {
        const OPERATION: &str = "watch";
        let (from, end) = range(prefix, None);
        let mut stream = sqlx::query(REPLAY)
            .bind(i64::try_from(after.0).unwrap_or(i64::MAX))
            .bind(i64::try_from(to.0).unwrap_or(i64::MAX))
            .bind(from)
            .bind(end)
            .bind(i64::try_from(REPLAY_ROWS).unwrap_or(i64::MAX))
            .fetch(&self.pool);
        let mut commits: Vec<Commit> = Vec::new();
        let (mut rows, mut bytes) = (0, 0);
        while let Some(row) = stream.try_next().await.map_err(sql(OPERATION))? {
            let (_, floor) = position(&row, OPERATION)?;
            if after.0 < floor {
                return Ok(Replay::Lost {
                    floor: Revision(floor),
                });
            }
            if is_null(&row, 3).map_err(sql(OPERATION))? {
                continue;
            }
            let (revision, change, size) = change(&row)?;
            match commits.last_mut() {
                Some(last) if last.revision == revision => last.changes.push(change),
                Some(last) if bytes >= PAGE_BYTES => {
                    let through = last.revision;
                    return Ok(Replay::Commits { commits, through });
                }
                _ => commits.push(Commit {
                    revision,
                    changes: vec![change],
                }),
            }
            rows += 1;
            bytes += size;
        }
        if rows < REPLAY_ROWS {
            return Ok(Replay::Commits { commits, through: to });
        }
        // The last commit may have been cut off.
        commits.pop();
        match commits.last() {
            Some(last) => Ok(Replay::Commits {
                through: last.revision,
                commits,
            }),
            None => {
                Err(Error::new(ErrorKind::Internal, OPERATION).with("state", "a commit of too many changes"))
            }
        }
    }

    async fn revision(&self) -> Result<Revision> {
        const OPERATION: &str = "watch";
        let row = sqlx::query(STATE)
            .fetch_one(&self.pool)
            .await
            .map_err(sql(OPERATION))?;
        Ok(Revision(position(&row, OPERATION)?.0))
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
fn document(row: &SqliteRow, first: usize, operation: &'static str) -> Result<KeyValue> {
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

/// The change in the columns revision, key, created, crc, value from the fourth on, and its size.
fn change(row: &SqliteRow) -> Result<(Revision, Change, usize)> {
    const OPERATION: &str = "watch";
    let key: String = row.try_get(4).map_err(sql(OPERATION))?;
    let columns = || {
        let value: Option<String> = row.try_get(7)?;
        Ok((unsigned(row, 3)?, unsigned(row, 5)?, stored_crc(row, 6)?, value))
    };
    let (revision, created, stored, value) =
        columns().map_err(|e: sqlx::Error| damaged(OPERATION, &key).because(e))?;
    if stored != crc::of_document(&key, value.as_deref(), created, revision) {
        return Err(damaged(OPERATION, &key));
    }
    let parsed = Key::parse(&key).map_err(|e| damaged(OPERATION, &key).because(e))?;
    let modified = Revision(revision);
    let Some(value) = value else {
        return Ok((modified, Change::Delete(parsed), key.len()));
    };
    let size = value.len();
    let value = Value::from_json_bytes(value);
    Ok((
        modified,
        Change::Put(KeyValue {
            key: parsed,
            value,
            created: Revision(created),
            modified,
        }),
        size,
    ))
}

fn damaged(operation: &'static str, key: &str) -> Error {
    Error::new(ErrorKind::Corrupt, operation).with("key", key).with(
        "hint",
        "the stored document fails its checksum; restore it from a backup or write it anew",
    )
}

/// Shared by the store and its watches.
pub(super) type SharedReader = Arc<Reader>;
