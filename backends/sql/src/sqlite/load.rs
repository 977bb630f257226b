//! Reads the writer's state from the database: at the start, and after a commit of which nobody knows the outcome.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use skyloom_model::Timestamp;
use skyloom_store::{Error, ErrorKind, Key, LeaseName, Result};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::batch::LeaseRow;
use super::crc;
use super::leases::{Held, LeaseTable, Now, Record};
use super::state::{Entry, State};
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
pub(super) async fn state(conn: &mut SqliteConnection, now: Now, check: bool) -> Result<State> {
    let row = sqlx::raw_sql("SELECT revision, floor, crc FROM state")
        .fetch_one(&mut *conn)
        .await;
    let (revision, floor) = position(&row.map_err(sql(OPERATION))?, OPERATION)?;
    let index = documents(conn, revision, check).await?;
    let leases = leases(conn, now).await?;
    let history = history(conn, floor).await?;
    let history_bytes = history.iter().map(|(_, bytes)| bytes).sum();
    // Rows below the floor that a former process did not get around to sweep are swept first.
    let oldest = sqlx::raw_sql("SELECT coalesce(min(revision), 0) FROM history")
        .fetch_one(&mut *conn)
        .await;
    let oldest = oldest.and_then(|row| unsigned(&row, 0)).map_err(sql(OPERATION))?;
    let swept = floor.min(oldest.saturating_sub(1));
    Ok(State {
        revision,
        floor,
        swept,
        index,
        leases,
        history,
        history_bytes,
    })
}

async fn documents(
    conn: &mut SqliteConnection,
    revision: u64,
    check: bool,
) -> Result<HashMap<Arc<str>, Entry>> {
    let query = if check {
        "SELECT key, created, modified, crc, octet_length(value), value FROM documents"
    } else {
        "SELECT key, created, modified, crc, octet_length(value), NULL FROM documents"
    };
    let mut index = HashMap::new();
    let mut rows = sqlx::raw_sql(query).fetch(conn);
    while let Some(row) = rows.try_next().await.map_err(sql(OPERATION))? {
        let key: String = row.try_get(0).map_err(sql(OPERATION))?;
        match entry(&row, &key, revision, check) {
            Ok(entry) => {
                index.insert(key.into(), entry);
            }
            Err(e) if check => return Err(e),
            Err(e) => tracing::error!(
                error = &e as &dyn std::error::Error,
                "a stored document is damaged"
            ),
        }
    }
    Ok(index)
}

fn entry(row: &SqliteRow, key: &str, revision: u64, check: bool) -> Result<Entry> {
    let damaged = || {
        Error::new(ErrorKind::Corrupt, OPERATION).with("key", key).with(
            "hint",
            "restore a backup, or open without check_on_open to save the other documents",
        )
    };
    let columns = || {
        let len = u32::try_from(unsigned(row, 4)?).map_err(|e| sqlx::Error::Decode(e.into()))?;
        Ok(Entry {
            created: unsigned(row, 1)?,
            modified: unsigned(row, 2)?,
            crc: stored_crc(row, 3)?,
            len,
        })
    };
    let entry: Entry = columns().map_err(|e: sqlx::Error| damaged().because(e))?;
    Key::parse(key).map_err(|e| damaged().because(e))?;
    if check {
        let value: String = row.try_get(5).map_err(|e| damaged().because(e))?;
        if crc::of_document(key, Some(&value), entry.created, entry.modified) != entry.crc {
            return Err(damaged());
        }
    }
    if entry.created > entry.modified || entry.modified > revision {
        return Err(damaged());
    }
    Ok(entry)
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

async fn history(conn: &mut SqliteConnection, floor: u64) -> Result<VecDeque<(u64, u64)>> {
    let floor = i64::try_from(floor).unwrap_or(i64::MAX);
    let query =
        "SELECT revision, sum(bytes) FROM history WHERE revision > ? GROUP BY revision ORDER BY revision";
    let mut rows = sqlx::query(query).bind(floor).fetch(conn);
    let mut history = VecDeque::new();
    while let Some(row) = rows.try_next().await.map_err(sql(OPERATION))? {
        history.push_back((
            unsigned(&row, 0).map_err(sql(OPERATION))?,
            unsigned(&row, 1).map_err(sql(OPERATION))?,
        ));
    }
    Ok(history)
}
