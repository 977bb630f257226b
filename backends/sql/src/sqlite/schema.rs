//! The tables, their versions, and connections that are what they must be.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use skyloom_store::{About, Error, ErrorKind, Result};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::owner::{self, Owner};
use crate::error::sql;
use crate::{Migrated, SqliteConfig};

/// `SKYL`: says in the file's header whose it is.
const APPLICATION_ID: i64 = 0x534b_594c;

/// Page size of new databases; others keep theirs. A commit of many documents is fewer and larger writes than with
/// SQLite's 4096, one of few documents is hardly more.
const PAGE_BYTES: u32 = 8192;

/// Upgrades in order: step `i` turns version `i` into `i + 1`, inside one transaction.
const STEPS: &[&str] = &[V1, V2];

/// `crc` columns hold a CRC-32 of the row, so text edited by hand is refused as damaged.
/// A lease with `holder` NULL has been revoked; its epoch stays.
const V1: &str = "
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL,
    floor INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
CREATE TABLE documents (
    key TEXT NOT NULL PRIMARY KEY,
    created INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE history (
    revision INTEGER NOT NULL,
    key TEXT NOT NULL,
    created INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    value TEXT,
    old_created INTEGER,
    old_modified INTEGER,
    old_crc INTEGER,
    old_value TEXT,
    PRIMARY KEY (revision, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    epoch INTEGER NOT NULL,
    holder TEXT,
    expires_at TEXT,
    ttl_ms INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA application_id = 0x534b594c;
PRAGMA user_version = 1;
";

/// A history row is one durable write: its commits as lines of text. `state.revision` is how far `documents` has come; what
/// follows is in the history. The history of version 1 is dropped: whoever watches lists again.
const V2: &str = "
DROP TABLE history;
CREATE TABLE history (
    last INTEGER PRIMARY KEY,
    first INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    commits TEXT NOT NULL
) STRICT;
PRAGMA user_version = 2;
";

const OPERATION: &str = "open database";
const HINT_MIGRATE: &str = "run migrate";

/// Creates the database at `config.path`, or upgrades its schema to what this program needs. Nobody else may have it
/// open.
///
/// # Errors
/// [`ErrorKind::TooNew`] when a newer program wrote it, [`ErrorKind::Invalid`] when the file is something else,
/// [`ErrorKind::Unavailable`] when another process has it open.
pub async fn migrate(config: &SqliteConfig) -> Result<Migrated> {
    let path = owner::create(&config.path)?;
    let lock = Arc::new(Owner::take(&path)?);
    owner::make_private(&path)?;
    let mut conn = connect(&path, &lock, config.max_wait()).await?;
    let migrated = upgrade(&mut conn).await;
    conn.close().await.map_err(sql("migrate"))?;
    migrated
}

async fn upgrade(conn: &mut SqliteConnection) -> Result<Migrated> {
    let found = version(conn).await?;
    set_modes(conn, false).await?;
    if found < STEPS.len() {
        let run = async {
            sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut *conn).await?;
            let revision: i64 = match found {
                0 => 0,
                _ => {
                    let row = sqlx::raw_sql("SELECT revision FROM state")
                        .fetch_one(&mut *conn)
                        .await?;
                    row.try_get(0)?
                }
            };
            for step in STEPS.iter().skip(found) {
                sqlx::raw_sql(*step).execute(&mut *conn).await?;
            }
            // No version has brought its history along so far.
            let floor = u64::try_from(revision).map_err(|e| sqlx::Error::Decode(e.into()))?;
            sqlx::query("REPLACE INTO state (id, revision, floor, crc) VALUES (1, ?, ?, ?)")
                .bind(revision)
                .bind(revision)
                .bind(i64::from(super::crc::of_state(floor, floor)))
                .execute(&mut *conn)
                .await?;
            sqlx::raw_sql("COMMIT").execute(&mut *conn).await
        };
        run.await.map_err(sql("migrate"))?;
    }
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Ok(Migrated {
        from: number(found),
        to: number(STEPS.len()),
    })
}

/// A writing connection. It holds `lock` until it is really closed, also when its last command outlives its user.
pub(super) async fn connect(path: &Path, lock: &Arc<Owner>, busy: Duration) -> Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .page_size(PAGE_BYTES)
        .busy_timeout(busy)
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        .pragma("temp_store", "MEMORY")
        .pragma("cache_size", "-16384")
        .pragma("journal_size_limit", "67108864")
        .pragma("wal_autocheckpoint", "0") // the writer does it when all have their answers
        .statement_cache_capacity(64)
        .thread_name(|_| "sqlite-writer".to_owned())
        .disable_statement_logging();
    let mut conn = options.connect().await.map_err(sql(OPERATION))?;
    let lock = Arc::clone(lock);
    let mut handle = conn.lock_handle().await.map_err(sql(OPERATION))?;
    handle.set_commit_hook(move || {
        let _held = &lock;
        true
    });
    drop(handle);
    Ok(conn)
}

async fn number(conn: &mut SqliteConnection, query: &'static str) -> Result<i64> {
    let row = sqlx::raw_sql(query)
        .fetch_one(conn)
        .await
        .map_err(sql(OPERATION))?;
    row.try_get(0).map_err(sql(OPERATION))
}

/// The schema version; 0 for an empty file.
async fn version(conn: &mut SqliteConnection) -> Result<usize> {
    let application = number(conn, "PRAGMA application_id").await?;
    let version = number(conn, "PRAGMA user_version").await?;
    let tables = number(conn, "SELECT count(*) FROM sqlite_schema").await?;
    if application == 0 && version == 0 && tables == 0 {
        return Ok(0);
    }
    if application != APPLICATION_ID {
        return Err(Error::new(ErrorKind::Invalid, OPERATION)
            .with("application id", application)
            .with(
                "hint",
                "this database belongs to another program; choose another path",
            ));
    }
    match usize::try_from(version) {
        Ok(version) if version <= STEPS.len() => Ok(version),
        _ => Err(Error::new(ErrorKind::TooNew, OPERATION)
            .with("schema version", version)
            .with("newest known", STEPS.len())
            .with(
                "hint",
                "run the newer program again, or restore a backup made before its upgrade",
            )),
    }
}

/// Refuses a schema that is not exactly the one that this program works with.
pub(super) async fn require_current(conn: &mut SqliteConnection) -> Result<()> {
    let version = version(conn).await?;
    if version == STEPS.len() {
        return Ok(());
    }
    let state = if version == 0 {
        "there is no schema"
    } else {
        "the schema is older than this program"
    };
    Err(missing(state)
        .with("schema version", version)
        .with("needed", STEPS.len()))
}

pub(super) fn missing(state: &str) -> Error {
    Error::new(ErrorKind::Unavailable, OPERATION)
        .class_is(skyloom_store::Class::Permanent)
        .with("state", state)
        .with("hint", HINT_MIGRATE)
}

/// Sets WAL and the sync mode, and believes only what it reads back.
pub(super) async fn set_modes(conn: &mut SqliteConnection, allow_unsafe: bool) -> Result<()> {
    let (set, wanted) = if allow_unsafe {
        ("PRAGMA synchronous = OFF", 0)
    } else {
        ("PRAGMA synchronous = FULL", 2)
    };
    let row = sqlx::raw_sql("PRAGMA journal_mode = WAL")
        .fetch_one(&mut *conn)
        .await
        .map_err(sql(OPERATION))?;
    let journal: String = row.try_get(0).map_err(sql(OPERATION))?;
    sqlx::raw_sql(set)
        .execute(&mut *conn)
        .await
        .map_err(sql(OPERATION))?;
    let sync = number(conn, "PRAGMA synchronous").await?;
    if journal != "wal" || sync != wanted {
        return Err(Error::new(ErrorKind::Unsupported, OPERATION)
            .with("journal mode", journal)
            .with("synchronous", sync)
            .with("hint", "WAL on a local file system is needed"));
    }
    Ok(())
}

/// The library, the schema, and the modes as [`set_modes`] has left them.
pub(super) async fn about(conn: &mut SqliteConnection, allow_unsafe: bool) -> Result<About> {
    let row = sqlx::raw_sql("SELECT sqlite_version()")
        .fetch_one(&mut *conn)
        .await
        .map_err(sql(OPERATION))?;
    let version: String = row.try_get(0).map_err(sql(OPERATION))?;
    let about = About::new(format!("SQLite {version}"))
        .with_schema(STEPS.len() as u64)
        .with_setting("journal_mode", "wal");
    Ok(match allow_unsafe {
        false => about.with_setting("synchronous", "FULL"),
        true => about
            .with_setting("synchronous", "OFF")
            .with_risk("synchronous = OFF: the last commits go with the machine's power"),
    })
}

/// Bounds the file.
pub(super) async fn limit_size(conn: &mut SqliteConnection, bytes: u64) -> Result<()> {
    let page = number(conn, "PRAGMA page_size").await?;
    let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
    let statement = sqlx::AssertSqlSafe(format!(
        "PRAGMA max_page_count = {}",
        pages.clamp(1, 4_294_967_294)
    ));
    sqlx::raw_sql(statement)
        .execute(conn)
        .await
        .map_err(sql(OPERATION))?;
    Ok(())
}

/// SQLite's own check of the whole file's structure.
pub(super) async fn quick_check(conn: &mut SqliteConnection) -> Result<()> {
    let row = sqlx::raw_sql("PRAGMA quick_check(1)")
        .fetch_one(conn)
        .await
        .map_err(sql(OPERATION))?;
    let verdict: String = row.try_get(0).map_err(sql(OPERATION))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Corrupt, OPERATION)
        .with("finding", verdict)
        .with("hint", "the database file is damaged; restore it from a backup"))
}
