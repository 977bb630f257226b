//! Reads what stands in the database: at the start, and after a commit of which nobody knows the outcome.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt as _;
use skyloom_model::Timestamp;
use skyloom_store::{Error, ErrorKind, Key, LeaseName, Result};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::batch::LeaseRow;
use super::crc;
use super::filter::Filter;
use super::history::{self, Changes, Doc};
use super::leases::{Held, LeaseTable, Now, Record};
use super::present::{Dirty, Present};
use super::reader;
use super::state::{Fetched, Retention, Rows, State};
use crate::error::sql;

const OPERATION: &str = "load database";

/// A number that may not be negative.
pub(super) fn unsigned(row: &SqliteRow, column: usize) -> sqlx::Result<u64> {
    let n: i64 = row.try_get(column)?;
    u64::try_from(n).map_err(|e| sqlx::Error::Decode(e.into()))
}

/// A checksum.
pub(super) fn stored_crc(row: &SqliteRow, column: usize) -> sqlx::Result<u32> {
    let n: i64 = row.try_get(column)?;
    u32::try_from(n).map_err(|e| sqlx::Error::Decode(e.into()))
}

/// Revision and floor, from the first three columns of a row that starts with those of `state`.
pub(super) fn position(row: &SqliteRow, operation: &'static str) -> Result<(u64, u64)> {
    let columns = || Ok((unsigned(row, 0)?, unsigned(row, 1)?, stored_crc(row, 2)?));
    let (revision, floor, stored) = columns().map_err(sql(operation))?;
    if stored != crc::of_state(revision, floor) || floor > revision {
        return Err(Error::new(ErrorKind::Corrupt, operation).with("row", "state"));
    }
    Ok((revision, floor))
}

/// Everything the writer must know. With `check`, every document is read and its checksum compared.
pub(super) async fn everything(
    conn: &mut SqliteConnection,
    now: Now,
    retention: Retention,
    check: bool,
) -> Result<(State, Present)> {
    let row = sqlx::raw_sql("SELECT revision, floor, crc FROM state")
        .fetch_one(&mut *conn)
        .await;
    let (applied, floor) = position(&row.map_err(sql(OPERATION))?, OPERATION)?;
    let row = sqlx::raw_sql("SELECT count(*) FROM documents")
        .fetch_one(&mut *conn)
        .await;
    let count = row.and_then(|row| unsigned(&row, 0)).map_err(sql(OPERATION))?;
    let keys = usize::try_from(count).unwrap_or(usize::MAX / 2);
    let mut filter = Filter::new(keys.saturating_mul(2));
    documents(conn, &mut filter, applied, check).await?;
    let mut present = Present::new(applied, floor, filter, count);
    let leases = leases(conn, now).await?;
    let rows = rows(conn, floor).await?;
    redo(conn, &mut present).await?;
    let mut state = State { leases, rows };
    present.floor = state.rows.retain(floor, present.revision, retention);
    Ok((state, present))
}

/// Puts all keys into the filter.
async fn documents(
    conn: &mut SqliteConnection,
    filter: &mut Filter,
    applied: u64,
    check: bool,
) -> Result<()> {
    let query = if check {
        "SELECT key, created, modified, crc, value FROM documents"
    } else {
        "SELECT key FROM documents"
    };
    let mut rows = sqlx::raw_sql(query).fetch(conn);
    while let Some(row) = rows.try_next().await.map_err(sql(OPERATION))? {
        let key: String = row.try_get(0).map_err(sql(OPERATION))?;
        if check {
            let document = reader::document(&row, 0, OPERATION);
            let sound = document.is_ok_and(|d| d.created <= d.modified && d.modified.0 <= applied);
            if !sound {
                return Err(Error::new(ErrorKind::Corrupt, OPERATION).with("key", key).with(
                    "hint",
                    "restore a backup, or open without check_on_open to save the other documents",
                ));
            }
        }
        filter.insert(&key);
    }
    Ok(())
}

/// The rows of the history after `floor`.
async fn rows(conn: &mut SqliteConnection, floor: u64) -> Result<Rows> {
    let floor = i64::try_from(floor).unwrap_or(i64::MAX);
    let mut stream = sqlx::query("SELECT last, bytes FROM history WHERE last > ? ORDER BY last")
        .bind(floor)
        .fetch(conn);
    let mut rows = Rows::default();
    while let Some(row) = stream.try_next().await.map_err(sql(OPERATION))? {
        let columns = || Ok((unsigned(&row, 0)?, unsigned(&row, 1)?));
        let (last, bytes) = columns().map_err(sql(OPERATION))?;
        rows.push(last, bytes);
    }
    Ok(rows)
}

/// Does again in memory what `documents` does not have yet.
async fn redo(conn: &mut SqliteConnection, present: &mut Present) -> Result<()> {
    let applied = i64::try_from(present.applied).unwrap_or(i64::MAX);
    let mut changed: BTreeMap<Key, Dirty> = BTreeMap::new();
    let mut stream = sqlx::query(reader::HISTORY).bind(applied).fetch(&mut *conn);
    while let Some(row) = stream.try_next().await.map_err(sql(OPERATION))? {
        let row = reader::history_row(&row, OPERATION)?;
        let damaged = || Error::new(ErrorKind::Corrupt, OPERATION).with("history", row.last);
        if row.first > present.revision + 1 {
            return Err(damaged().with("missing after", present.revision));
        }
        for change in Changes::new(&row.commits, "") {
            let history::Recorded {
                revision,
                key,
                after,
                before,
            } = change.map_err(|_| damaged())?;
            if revision <= present.applied {
                continue;
            }
            match (&before, &after) {
                (None, Some(_)) => present.documents += 1,
                (Some(_), None) => present.documents = present.documents.saturating_sub(1),
                _ => {}
            }
            // What its first change since then replaced stands there.
            let stored = changed.get(&key).map_or(before.is_some(), |dirty| dirty.stored);
            changed.insert(key, Dirty { doc: after, stored });
        }
        present.revision = row.last;
    }
    for (key, dirty) in changed {
        present.change(key, dirty);
    }
    Ok(())
}

/// Most keys asked for at once.
const CHUNK: usize = 128;

/// What `documents` has of `keys`.
pub(super) async fn fetch(conn: &mut SqliteConnection, keys: Vec<Key>) -> sqlx::Result<Fetched> {
    let mut fetched = Fetched::with_capacity(keys.len());
    for chunk in keys.chunks(CHUNK) {
        // Few texts, so that their prepared statements are reused; spare places are NULL, which no key equals.
        let places = vec!["?"; chunk.len().next_power_of_two()];
        let text = format!("{} WHERE key IN ({})", reader::DOCUMENTS, places.join(","));
        let mut query = sqlx::query(sqlx::AssertSqlSafe(text));
        for n in 0..places.len() {
            query = query.bind(chunk.get(n).map(|key| key.as_str()));
        }
        let mut rows = query.fetch(&mut *conn);
        while let Some(row) = rows.try_next().await? {
            let Ok(key) = row.try_get::<String, _>(0)?.parse::<Key>() else {
                continue; // it is none that was asked for
            };
            let doc = match reader::document(&row, 0, "get") {
                Ok(kv) => Some(Doc {
                    created: kv.created.0,
                    modified: kv.modified.0,
                    value: kv.value,
                }),
                // It can be written anew.
                Err(e) => {
                    tracing::error!(
                        error = &e as &dyn std::error::Error,
                        "a stored document is damaged"
                    );
                    None
                }
            };
            fetched.insert(key, Dirty { doc, stored: true });
        }
    }
    for key in keys {
        let absent = Dirty {
            doc: None,
            stored: false,
        };
        fetched.entry(key).or_insert(absent);
    }
    Ok(fetched)
}

async fn leases(conn: &mut SqliteConnection, now: Now) -> Result<LeaseTable> {
    let mut table = LeaseTable::default();
    let mut rows =
        sqlx::raw_sql("SELECT name, epoch, holder, expires_at, ttl_ms, crc FROM leases").fetch(conn);
    while let Some(row) = rows.try_next().await.map_err(sql(OPERATION))? {
        let columns = || {
            let lease = LeaseRow {
                name: row.try_get(0)?,
                epoch: unsigned(&row, 1)?,
                holder: row.try_get(2)?,
                expires_at: row.try_get(3)?,
                ttl_ms: unsigned(&row, 4)?,
            };
            Ok((lease, stored_crc(&row, 5)?))
        };
        let (lease, stored) = columns().map_err(sql(OPERATION))?;
        let damaged = || Error::new(ErrorKind::Corrupt, OPERATION).with("lease", &lease.name);
        let name = LeaseName::parse(&lease.name).map_err(|e| damaged().because(e))?;
        if stored != lease.crc() {
            return Err(damaged());
        }
        let held = match (&lease.holder, &lease.expires_at) {
            (Some(holder), Some(expires_at)) => {
                let expires_at: Timestamp = expires_at.parse().map_err(|_| damaged())?;
                let ttl = Duration::from_millis(lease.ttl_ms);
                Some(Held::resumed(holder.clone(), ttl, expires_at, now))
            }
            _ => None,
        };
        table.set(
            name,
            Some(Record {
                epoch: lease.epoch,
                held,
            }),
        );
    }
    Ok(table)
}
