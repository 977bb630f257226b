//! MySQL and MariaDB: their SQL, and what their rows and errors mean.

mod setup;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use serde_json::json;
use skyloom_store::{ErrorKind, Result};
use sqlx::mysql::{MySqlConnection, MySqlDatabaseError, MySqlRow};
use sqlx::{AssertSqlSafe, Connection as _, Either, Row as _};

use super::batch::Batch;
use super::config::{Engine, ServerConfig};
use super::dialect::{
    Applied, Bell, Dialect, Failed, Fault, Fenced, Link, Position, Range, Read, Reading, StoredChange,
    StoredDocument, StoredLease, Written,
};
use super::leaser::{LeaseAnswer, LeaseCall};
use crate::Migrated;

/// MySQL and MariaDB as a kind of server.
#[derive(Debug)]
pub struct MySql {
    config: ServerConfig,
    sql: Sql,
}

/// Statements, with the names of the tables in them.
#[derive(Debug)]
struct Sql {
    version: Arc<str>,
    tidy: Arc<str>,
    register: Arc<str>,
    commit: Arc<str>,
    fence: Arc<str>,
    barrier: Arc<str>,
    lease: Arc<str>,
    position: Arc<str>,
    get: Arc<str>,
    list: Arc<str>,
    list_at: Arc<str>,
    log: Arc<str>,
    leases: Arc<str>,
    raise: Arc<str>,
    sweep: Arc<str>,
}

/// Where the store stands, as three columns of one row.
const HERE: &str = "(SELECT GREATEST(s.floor, COALESCE((SELECT MAX(m.revision) FROM {p}_history m), 0)) AS newest, \
                    s.floor, s.swept FROM {p}_state s WHERE s.id = 1)";

impl Sql {
    fn new(p: &str) -> Self {
        let text = |sql: &str| Arc::<str>::from(sql.replace("{here}", HERE).replace("{p}", p));
        Self {
            version: text("SELECT CAST(version AS SIGNED) FROM {p}_state WHERE id = 1"),
            tidy: text("DELETE FROM {p}_writers WHERE started_at < UTC_TIMESTAMP(6) - INTERVAL 30 DAY"),
            register: text("INSERT INTO {p}_writers (name, started_at) VALUES (?, UTC_TIMESTAMP(6))"),
            commit: text("CALL {p}_commit(?, ?, ?, ?, ?, ?, ?, ?)"),
            fence: text("CALL {p}_fence(?, ?, ?)"),
            barrier: text("UPDATE {p}_flushes SET flushes = flushes + 1 WHERE id = 1"),
            lease: text("CALL {p}_lease(?, ?)"),
            position: text("SELECT * FROM {here} AS here"),
            get: text(
                "SELECT here.*, d.* FROM {here} AS here LEFT JOIN (
                   SELECT `key`, created, modified, value FROM {p}_documents WHERE `key` = ?) AS d ON TRUE",
            ),
            list: text(
                "SELECT here.*, d.* FROM {here} AS here LEFT JOIN (
                   SELECT `key`, created, modified, value FROM {p}_documents
                    WHERE `key` > ? AND `key` < ? ORDER BY `key` LIMIT ?) AS d ON TRUE
                 ORDER BY d.`key`",
            ),
            // What stood at a revision: documents not touched since, and for the others what their first later change
            // replaced.
            list_at: text(
                "SELECT here.*, d.* FROM {here} AS here LEFT JOIN (
                   SELECT `key`, created, modified, value FROM {p}_documents
                    WHERE `key` > ? AND `key` < ? AND modified <= ?
                   UNION ALL
                   SELECT `key`, old_created, old_modified, old_value FROM {p}_history
                    WHERE `key` > ? AND `key` < ? AND revision > ? AND old_modified <= ?
                   ORDER BY `key` LIMIT ?) AS d ON TRUE
                 ORDER BY d.`key`",
            ),
            log: text(
                "SELECT here.*, h.* FROM {here} AS here LEFT JOIN (
                   SELECT revision, `key`, created, value FROM {p}_history
                    WHERE revision > ? AND revision <= ? AND `key` > ? AND `key` < ?
                    ORDER BY revision, `key` LIMIT ?) AS h ON TRUE
                 ORDER BY h.revision, h.`key`",
            ),
            leases: text(
                "SELECT name, epoch, holder, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', expires_at), expires_at <= SYSDATE(6)
                   FROM {p}_leases WHERE name > ? AND name < ? AND holder IS NOT NULL ORDER BY name",
            ),
            raise: text(
                "UPDATE {p}_state AS s JOIN {here} AS here SET s.swept = GREATEST(s.swept, ?),
                        s.floor = GREATEST(s.floor, LEAST(?, here.newest)) WHERE s.id = 1",
            ),
            sweep: text("DELETE FROM {p}_history WHERE revision > ? AND revision <= ?"),
        }
    }
}

fn safe(sql: &Arc<str>) -> AssertSqlSafe<Arc<str>> {
    AssertSqlSafe(Arc::clone(sql))
}

fn position(row: &MySqlRow) -> sqlx::Result<Position> {
    Ok(Position {
        revision: row.try_get(0)?,
        floor: row.try_get(1)?,
        swept: row.try_get(2)?,
    })
}

/// The document in the four columns after the position; `None` when there is none.
fn document(row: &MySqlRow) -> sqlx::Result<Option<StoredDocument>> {
    let Some(key) = row.try_get::<Option<String>, _>(3)? else {
        return Ok(None);
    };
    Ok(Some(StoredDocument {
        key,
        created: row.try_get(4)?,
        modified: row.try_get(5)?,
        value: row.try_get(6)?,
    }))
}

fn change(row: &MySqlRow) -> sqlx::Result<Option<StoredChange>> {
    let Some(revision) = row.try_get::<Option<i64>, _>(3)? else {
        return Ok(None);
    };
    Ok(Some(StoredChange {
        revision,
        key: row.try_get(4)?,
        created: row.try_get(5)?,
        value: row.try_get(6)?,
    }))
}

fn index(n: i32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn decode<T: serde::de::DeserializeOwned>(text: &str) -> sqlx::Result<T> {
    serde_json::from_str(text).map_err(|e| sqlx::Error::Decode(e.into()))
}

/// A call of a routine, as rows per answer. The connection is left alone when it fails: it may be inside a transaction.
async fn call(
    link: &mut Link<MySqlConnection>,
    query: sqlx::query::Query<'_, sqlx::MySql, sqlx::mysql::MySqlArguments>,
) -> sqlx::Result<Vec<Vec<MySqlRow>>> {
    link.dirty = true;
    let mut answers = vec![Vec::new()];
    let mut stream = sqlx::Executor::fetch_many(&mut link.raw, query);
    while let Some(item) = stream.try_next().await? {
        match item {
            Either::Left(_) => answers.push(Vec::new()),
            Either::Right(row) => {
                if let Some(rows) = answers.last_mut() {
                    rows.push(row);
                }
            }
        }
    }
    link.dirty = false;
    Ok(answers)
}

/// The batch's lists as JSON, and its values in one piece.
fn lists(batch: &Batch) -> (String, String, String, Vec<u8>) {
    let guards: Vec<_> = batch
        .guards
        .iter()
        .map(|g| {
            json!([
                g.level,
                g.txn,
                g.index,
                batch.guard_text(g.txn, g.index),
                g.revision
            ])
        })
        .collect();
    let leases: Vec<_> = batch
        .leases
        .iter()
        .map(|g| json!([g.level, g.txn, g.index, batch.guard_text(g.txn, g.index), g.epoch]))
        .collect();
    let mut values = Vec::new();
    let writes: Vec<_> = batch
        .writes
        .iter()
        .map(|w| {
            let write = batch.write(w);
            let start = values.len();
            let bytes = write.text().map(|text| {
                values.extend_from_slice(text.as_bytes());
                text.len()
            });
            json!([w.level, w.txn, w.place, write.key.as_str(), start, bytes])
        })
        .collect();
    let text = |list: Vec<serde_json::Value>| serde_json::Value::from(list).to_string();
    (text(guards), text(leases), text(writes), values)
}

#[async_trait]
impl Dialect for MySql {
    type Raw = MySqlConnection;
    const ENGINE: Engine = Engine::MySql;
    const RINGS: bool = false;

    fn new(config: &ServerConfig) -> Self {
        Self {
            sql: Sql::new(&config.prefix),
            config: config.clone(),
        }
    }

    async fn connect(&self) -> Result<Link<MySqlConnection>> {
        setup::connect(self).await
    }

    async fn disconnect(&self, link: Link<MySqlConnection>) {
        let _ = link.raw.close().await;
    }

    async fn migrate(&self, link: &mut Link<MySqlConnection>) -> Result<Migrated> {
        setup::migrate(self, &mut link.raw).await
    }

    async fn version(&self, link: &mut Link<MySqlConnection>) -> sqlx::Result<Option<i64>> {
        setup::version(self, &mut link.raw).await
    }

    async fn register(&self, link: &mut Link<MySqlConnection>) -> sqlx::Result<i64> {
        sqlx::query(safe(&self.sql.tidy)).execute(&mut link.raw).await?;
        let query = sqlx::query(safe(&self.sql.register)).bind(&self.config.name);
        let done = query.execute(&mut link.raw).await?;
        Ok(i64::try_from(done.last_insert_id()).unwrap_or(0))
    }

    async fn commit(
        &self,
        link: &mut Link<MySqlConnection>,
        writer: i64,
        batch_number: i64,
        batch: &Batch,
    ) -> sqlx::Result<Applied> {
        let (guards, leases, writes, values) = lists(batch);
        let query = sqlx::query(safe(&self.sql.commit))
            .bind(writer)
            .bind(batch_number)
            .bind(batch.levels)
            .bind(batch.deletes)
            .bind(guards)
            .bind(leases)
            .bind(writes)
            .bind(values);
        let answers = call(link, query).await?;
        let [first, done, ..] = &answers[..] else {
            return Err(sqlx::Error::RowNotFound);
        };
        let head = first.first().ok_or(sqlx::Error::RowNotFound)?;
        let conflicts: Vec<(i32, i32, Option<i64>)> = decode(head.try_get(4)?)?;
        let mut rows = Vec::with_capacity(done.len());
        for row in done {
            let txn: i32 = row.try_get(0)?;
            let key: &str = row.try_get(1)?;
            rows.push(Written {
                row: batch.row(index(txn), key).ok_or(sqlx::Error::RowNotFound)?,
                revision: row.try_get(2)?,
                created: row.try_get(3)?,
            });
        }
        Ok(Applied {
            base: head.try_get(0)?,
            head: head.try_get(1)?,
            floor: head.try_get(2)?,
            ends: decode(head.try_get(3)?)?,
            conflicts: conflicts
                .into_iter()
                .map(|(txn, guard, current)| Failed {
                    txn: index(txn),
                    guard: index(guard),
                    current,
                })
                .collect(),
            rows,
        })
    }

    async fn fence(
        &self,
        link: &mut Link<MySqlConnection>,
        writer: i64,
        batch: i64,
        after: i64,
    ) -> sqlx::Result<Fenced> {
        let query = sqlx::query(safe(&self.sql.fence))
            .bind(writer)
            .bind(batch)
            .bind(after);
        let answers = call(link, query).await?;
        let [floor, found, ..] = &answers[..] else {
            return Err(sqlx::Error::RowNotFound);
        };
        let found = found
            .iter()
            .map(|row| Ok((index(row.try_get(0)?), row.try_get(1)?)))
            .collect::<sqlx::Result<_>>()?;
        Ok(Fenced {
            floor: floor.first().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?,
            found,
        })
    }

    async fn barrier(&self, link: &mut Link<MySqlConnection>) -> sqlx::Result<()> {
        let query = sqlx::query(safe(&self.sql.barrier));
        query.execute(&mut link.raw).await.map(drop)
    }

    async fn lease(
        &self,
        link: &mut Link<MySqlConnection>,
        calls: &[LeaseCall],
    ) -> sqlx::Result<Vec<LeaseAnswer>> {
        let list: Vec<_> = calls
            .iter()
            .map(|c| json!([c.name.as_key().as_str(), c.code(), c.epoch(), c.holder(), c.ttl()]))
            .collect();
        let query = sqlx::query(safe(&self.sql.lease))
            .bind(calls.iter().any(LeaseCall::moves))
            .bind(serde_json::Value::from(list).to_string());
        let answers = call(link, query).await?;
        let answer = |(rows, call): (&Vec<MySqlRow>, &LeaseCall)| {
            let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
            Ok(
                match (row.try_get::<i32, _>(0)? == 1, row.try_get::<Option<i64>, _>(1)?) {
                    (true, Some(epoch)) => LeaseAnswer::Granted(epoch),
                    (false, Some(epoch)) => LeaseAnswer::Held(StoredLease {
                        name: call.name.to_string(),
                        epoch,
                        holder: row.try_get(2)?,
                        expires_at: row.try_get(3)?,
                        expired: false,
                    }),
                    (done, None) => LeaseAnswer::Done(done),
                },
            )
        };
        answers.iter().zip(calls).map(answer).collect()
    }

    async fn position(&self, link: &mut Link<MySqlConnection>) -> sqlx::Result<Position> {
        let query = sqlx::query(safe(&self.sql.position));
        position(&query.fetch_one(&mut link.raw).await?)
    }

    async fn get(&self, link: &mut Link<MySqlConnection>, key: String) -> sqlx::Result<Read<StoredDocument>> {
        let query = sqlx::query(safe(&self.sql.get)).bind(key);
        let rows = query.fetch_all(&mut link.raw).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        Ok(Read {
            position: position(row)?,
            rows: document(row)?.into_iter().collect(),
            cut: false,
        })
    }

    async fn list(
        &self,
        link: &mut Link<MySqlConnection>,
        range: Range,
        at: Option<i64>,
    ) -> sqlx::Result<Read<StoredDocument>> {
        let query = match at {
            None => sqlx::query(safe(&self.sql.list)).bind(range.from).bind(range.end),
            Some(at) => sqlx::query(safe(&self.sql.list_at))
                .bind(range.from.clone())
                .bind(range.end.clone())
                .bind(at)
                .bind(range.from)
                .bind(range.end)
                .bind(at)
                .bind(at),
        };
        let mut read = Reading::new(range.bytes);
        let mut rows = query.bind(range.rows).fetch(&mut link.raw);
        while let Some(row) = rows.try_next().await? {
            read.seen(position(&row)?);
            let Some(document) = document(&row)? else { continue };
            let bytes = document.value.len();
            if !read.take(document, bytes, true) {
                link.dirty = true;
                return read.end(true);
            }
        }
        read.end(false)
    }

    async fn log(
        &self,
        link: &mut Link<MySqlConnection>,
        range: Range,
        after: i64,
        through: i64,
    ) -> sqlx::Result<Read<StoredChange>> {
        let query = sqlx::query(safe(&self.sql.log))
            .bind(after)
            .bind(through)
            .bind(range.from)
            .bind(range.end)
            .bind(range.rows);
        let mut read = Reading::new(range.bytes);
        let mut rows = query.fetch(&mut link.raw);
        let mut last = None;
        while let Some(row) = rows.try_next().await? {
            read.seen(position(&row)?);
            let Some(change) = change(&row)? else { continue };
            let bytes = change.value.as_ref().map_or(0, String::len);
            let between = last.replace(change.revision) != Some(change.revision);
            if !read.take(change, bytes, between) {
                link.dirty = true;
                return read.end(true);
            }
        }
        read.end(false)
    }

    async fn leases(
        &self,
        link: &mut Link<MySqlConnection>,
        from: String,
        end: String,
    ) -> sqlx::Result<Vec<StoredLease>> {
        let query = sqlx::query(safe(&self.sql.leases)).bind(from).bind(end);
        let rows = query.fetch_all(&mut link.raw).await?;
        rows.iter()
            .map(|row| {
                Ok(StoredLease {
                    name: row.try_get(0)?,
                    epoch: row.try_get(1)?,
                    holder: row.try_get(2)?,
                    expires_at: row.try_get(3)?,
                    expired: row.try_get(4)?,
                })
            })
            .collect()
    }

    async fn raise(
        &self,
        link: &mut Link<MySqlConnection>,
        floor: i64,
        swept: i64,
    ) -> sqlx::Result<Position> {
        let query = sqlx::query(safe(&self.sql.raise)).bind(swept).bind(floor);
        query.execute(&mut link.raw).await?;
        self.position(link).await
    }

    async fn sweep(&self, link: &mut Link<MySqlConnection>, from: i64, to: i64) -> sqlx::Result<()> {
        let query = sqlx::query(safe(&self.sql.sweep)).bind(from).bind(to);
        query.execute(&mut link.raw).await.map(drop)
    }

    async fn holder(&self, link: &mut Link<MySqlConnection>, waiting: i64) -> sqlx::Result<Option<String>> {
        setup::holder(&mut link.raw, waiting).await
    }

    async fn bell(&self, _writer: Arc<AtomicI64>) -> Result<Option<Box<dyn Bell>>> {
        Ok(None)
    }

    fn fault(&self, e: &sqlx::Error) -> Fault {
        fault(e)
    }
}

/// What an error of MySQL or MariaDB means.
fn fault(e: &sqlx::Error) -> Fault {
    let sqlx::Error::Database(database) = e else {
        return super::dialect::driver_fault(e);
    };
    let Some(mysql) = database.try_downcast_ref::<MySqlDatabaseError>() else {
        return Fault::Lost(ErrorKind::Internal);
    };
    if mysql.code() == Some("45S01") {
        return Fault::Fenced;
    }
    Fault::Rejected(match mysql.number() {
        // Lock wait, deadlock, read-only servers, no memory, no table or routine.
        1205 | 1213 | 1290 | 1792 | 1836 | 1037 | 1038 | 1041 | 1146 | 1305 => ErrorKind::Unavailable,
        // Too many connections.
        1040 | 1203 | 1226 => ErrorKind::Overloaded,
        // Disk or table space full.
        1021 | 1114 | 3675 => ErrorKind::Full,
        // A statement's own time limit.
        1969 | 3024 => ErrorKind::Timeout,
        1044 | 1045 | 1142 | 1227 | 1370 | 1698 => ErrorKind::Denied,
        1049 => ErrorKind::Invalid,
        1105 | 1153 | 1301 | 1406 => ErrorKind::TooLarge,
        1712 | 1194 | 1034 | 1877 => ErrorKind::Corrupt,
        // Servers that end, killed sessions, and whatever else may have come at the commit itself.
        1053 | 1077 | 1079 | 1317 | 1927 => return Fault::Lost(ErrorKind::Unavailable),
        _ => return Fault::Lost(ErrorKind::Internal),
    })
}
