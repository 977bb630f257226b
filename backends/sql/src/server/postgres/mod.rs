//! PostgreSQL: its SQL, and what its rows and errors mean.

mod bell;
mod setup;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use skyloom_store::{ErrorKind, Result};
use sqlx::postgres::{PgConnection, PgDatabaseError, PgRow, PgSeverity};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::batch::Batch;
use super::config::{Engine, ServerConfig};
use super::dialect::{
    Applied, Bell, Dialect, Failed, Fault, Fenced, Link, Position, Range, Read, Reading, StoredChange,
    StoredDocument, StoredLease, Written,
};
use super::leaser::{LeaseAnswer, LeaseCall};
use crate::Migrated;

/// PostgreSQL as a kind of server.
#[derive(Debug)]
pub struct Postgres {
    config: ServerConfig,
    sql: Sql,
}

/// Statements, with the names of the tables in them.
#[derive(Debug)]
struct Sql {
    version: Arc<str>,
    /// Held by every process that may have watchers.
    present: Arc<str>,
    register: Arc<str>,
    commit: Arc<str>,
    fence: Arc<str>,
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
const HERE: &str = "(SELECT greatest(s.floor, coalesce((SELECT h.revision FROM {p}_history h ORDER BY h.revision DESC LIMIT 1), 0)) \
                    AS revision, s.floor, s.swept FROM {p}_state s WHERE s.id = 1)";

impl Sql {
    fn new(p: &str) -> Self {
        let text = |sql: &str| Arc::<str>::from(sql.replace("{here}", HERE).replace("{p}", p));
        Self {
            version: text("SELECT version::bigint FROM {p}_state WHERE id = 1"),
            present: text("SELECT pg_advisory_lock_shared(1397447502, '{p}_state'::regclass::oid::integer)"),
            register: text(
                "WITH old AS (DELETE FROM {p}_writers WHERE started_at < clock_timestamp() - interval '30 days') \
                 INSERT INTO {p}_writers (name) VALUES ($1) RETURNING id",
            ),
            commit: text(
                "SELECT * FROM {p}_commit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)",
            ),
            fence: text("SELECT * FROM {p}_fence($1, $2, $3)"),
            lease: text("SELECT * FROM {p}_lease($1, $2, $3, $4, $5, $6)"),
            position: text("SELECT * FROM {here} AS here"),
            get: text("SELECT key, created, modified, value::text FROM {p}_documents WHERE key = $1"),
            list: text(
                "SELECT here.*, d.* FROM {here} AS here LEFT JOIN (
                   SELECT key, created, modified, value::text FROM {p}_documents
                    WHERE key > $1 AND key < $2 ORDER BY key LIMIT $3) AS d ON true
                 ORDER BY d.key",
            ),
            // What stood at revision $4: documents not touched since, and for the others what their first later change
            // replaced.
            list_at: text(
                "SELECT here.*, d.* FROM {here} AS here LEFT JOIN (
                   SELECT key, created, modified, value::text FROM {p}_documents
                    WHERE key > $1 AND key < $2 AND modified <= $4
                   UNION ALL
                   SELECT key, old_created, old_modified, old_value::text FROM {p}_history
                    WHERE revision > $4 AND key > $1 AND key < $2 AND old_modified <= $4
                   ORDER BY key LIMIT $3) AS d ON true
                 ORDER BY d.key",
            ),
            log: text(
                "SELECT here.*, h.* FROM {here} AS here LEFT JOIN (
                   SELECT revision, key, created, value::text FROM {p}_history
                    WHERE revision > $4 AND revision <= $5 AND key > $1 AND key < $2
                    ORDER BY revision, key LIMIT $3) AS h ON true
                 ORDER BY h.revision, h.key",
            ),
            leases: text(
                "SELECT name, epoch, holder, (extract(epoch FROM expires_at) * 1000000)::bigint, expires_at <= clock_timestamp()
                   FROM {p}_leases WHERE name > $1 AND name < $2 AND holder IS NOT NULL ORDER BY name",
            ),
            raise: text(
                "UPDATE {p}_state AS s SET floor = greatest(s.floor, least($1, here.revision)), swept = greatest(s.swept, $2)
                   FROM {here} AS here WHERE s.id = 1 RETURNING here.revision, s.floor, s.swept",
            ),
            sweep: text("DELETE FROM {p}_history WHERE revision > $1 AND revision <= $2"),
        }
    }
}

fn safe(sql: &Arc<str>) -> AssertSqlSafe<Arc<str>> {
    AssertSqlSafe(Arc::clone(sql))
}

fn position(row: &PgRow) -> sqlx::Result<Position> {
    Ok(Position {
        revision: row.try_get(0)?,
        floor: row.try_get(1)?,
        swept: row.try_get(2)?,
    })
}

/// The document in the four columns from `first` on; `None` when there is none.
fn document(row: &PgRow, first: usize) -> sqlx::Result<Option<StoredDocument>> {
    let Some(key) = row.try_get::<Option<String>, _>(first)? else {
        return Ok(None);
    };
    Ok(Some(StoredDocument {
        key,
        created: row.try_get(first + 1)?,
        modified: row.try_get(first + 2)?,
        value: row.try_get(first + 3)?,
    }))
}

fn change(row: &PgRow) -> sqlx::Result<Option<StoredChange>> {
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

fn number(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[async_trait]
impl Dialect for Postgres {
    type Raw = PgConnection;
    const ENGINE: Engine = Engine::Postgres;
    const RINGS: bool = true;

    fn new(config: &ServerConfig) -> Self {
        let schema = config.schema.as_deref().unwrap_or("public");
        Self {
            sql: Sql::new(&format!("{schema}.{}", config.prefix)),
            config: config.clone(),
        }
    }

    async fn connect(&self) -> Result<Link<PgConnection>> {
        setup::connect(self).await
    }

    async fn disconnect(&self, link: Link<PgConnection>) {
        let _ = link.raw.close().await;
    }

    async fn migrate(&self, link: &mut Link<PgConnection>) -> Result<Migrated> {
        setup::migrate(self, &mut link.raw).await
    }

    async fn version(&self, link: &mut Link<PgConnection>) -> sqlx::Result<Option<i64>> {
        setup::version(self, &mut link.raw).await
    }

    async fn register(&self, link: &mut Link<PgConnection>) -> sqlx::Result<i64> {
        // The session keeps it. From now on others tell of their commits.
        sqlx::query(safe(&self.sql.present))
            .execute(&mut link.raw)
            .await?;
        let query = sqlx::query_scalar(safe(&self.sql.register)).bind(&self.config.name);
        query.fetch_one(&mut link.raw).await
    }

    async fn commit(
        &self,
        link: &mut Link<PgConnection>,
        writer: i64,
        batch_number: i64,
        batch: &Batch,
    ) -> sqlx::Result<Applied> {
        let guards = &batch.guards;
        let leases = &batch.leases;
        let writes = &batch.writes;
        let guard_keys: Vec<&str> = guards.iter().map(|g| batch.guard_text(g.txn, g.index)).collect();
        let names: Vec<&str> = leases.iter().map(|g| batch.guard_text(g.txn, g.index)).collect();
        let keys: Vec<&str> = writes.iter().map(|w| batch.write(w).key.as_str()).collect();
        let values: Vec<Option<&str>> = writes.iter().map(|w| batch.write(w).text()).collect();
        let row = sqlx::query(safe(&self.sql.commit))
            .bind(writer)
            .bind(batch_number)
            .bind(batch.levels)
            .bind(batch.deletes)
            .bind(guards.iter().map(|g| g.level).collect::<Vec<_>>())
            .bind(guards.iter().map(|g| number(g.txn)).collect::<Vec<_>>())
            .bind(guards.iter().map(|g| number(g.index)).collect::<Vec<_>>())
            .bind(guard_keys)
            .bind(guards.iter().map(|g| g.revision).collect::<Vec<_>>())
            .bind(leases.iter().map(|g| g.level).collect::<Vec<_>>())
            .bind(leases.iter().map(|g| number(g.txn)).collect::<Vec<_>>())
            .bind(leases.iter().map(|g| number(g.index)).collect::<Vec<_>>())
            .bind(names)
            .bind(leases.iter().map(|g| g.epoch).collect::<Vec<_>>())
            .bind(writes.iter().map(|w| w.level).collect::<Vec<_>>())
            .bind(writes.iter().map(|w| number(w.txn)).collect::<Vec<_>>())
            .bind(writes.iter().map(|w| w.place).collect::<Vec<_>>())
            .bind(keys)
            .bind(values)
            .fetch_one(&mut link.raw)
            .await?;
        let txns: Vec<i32> = row.try_get::<Option<_>, _>(4)?.unwrap_or_default();
        let failed: Vec<i32> = row.try_get::<Option<_>, _>(5)?.unwrap_or_default();
        let currents: Vec<Option<i64>> = row.try_get::<Option<_>, _>(6)?.unwrap_or_default();
        let rows: Vec<i32> = row.try_get::<Option<_>, _>(7)?.unwrap_or_default();
        let revisions: Vec<i64> = row.try_get::<Option<_>, _>(8)?.unwrap_or_default();
        let created: Vec<i64> = row.try_get::<Option<_>, _>(9)?.unwrap_or_default();
        Ok(Applied {
            base: row.try_get(0)?,
            head: row.try_get(1)?,
            floor: row.try_get(2)?,
            ends: row.try_get(3)?,
            conflicts: (txns.into_iter().zip(failed).zip(currents))
                .map(|((txn, guard), current)| Failed {
                    txn: index(txn),
                    guard: index(guard),
                    current,
                })
                .collect(),
            rows: (rows.into_iter().zip(revisions).zip(created))
                .map(|((row, revision), created)| Written {
                    row: index(row - 1),
                    revision,
                    created,
                })
                .collect(),
        })
    }

    async fn fence(
        &self,
        link: &mut Link<PgConnection>,
        writer: i64,
        batch: i64,
        after: i64,
    ) -> sqlx::Result<Fenced> {
        let row = sqlx::query(safe(&self.sql.fence))
            .bind(writer)
            .bind(batch)
            .bind(after)
            .fetch_one(&mut link.raw)
            .await?;
        let txns: Vec<i32> = row.try_get::<Option<_>, _>(1)?.unwrap_or_default();
        let revisions: Vec<i64> = row.try_get::<Option<_>, _>(2)?.unwrap_or_default();
        Ok(Fenced {
            floor: row.try_get(0)?,
            found: txns.into_iter().map(index).zip(revisions).collect(),
        })
    }

    async fn barrier(&self, _link: &mut Link<PgConnection>) -> sqlx::Result<()> {
        Ok(()) // a commit is flushed before anybody sees it
    }

    async fn lease(
        &self,
        link: &mut Link<PgConnection>,
        calls: &[LeaseCall],
    ) -> sqlx::Result<Vec<LeaseAnswer>> {
        let names: Vec<&str> = calls.iter().map(|c| c.name.as_key().as_str()).collect();
        let holders: Vec<&str> = calls.iter().map(LeaseCall::holder).collect();
        let rows = sqlx::query(safe(&self.sql.lease))
            .bind(calls.iter().any(LeaseCall::moves))
            .bind(calls.iter().map(LeaseCall::code).collect::<Vec<_>>())
            .bind(&names)
            .bind(calls.iter().map(LeaseCall::epoch).collect::<Vec<_>>())
            .bind(&holders)
            .bind(calls.iter().map(LeaseCall::ttl).collect::<Vec<_>>())
            .fetch_all(&mut link.raw)
            .await?;
        let answer = |(row, call): (&PgRow, &LeaseCall)| {
            Ok(match (row.try_get(0)?, row.try_get::<Option<i64>, _>(1)?) {
                (true, Some(epoch)) => LeaseAnswer::Granted(epoch),
                (false, Some(epoch)) => LeaseAnswer::Held(StoredLease {
                    name: call.name.to_string(),
                    epoch,
                    holder: row.try_get(2)?,
                    expires_at: row.try_get(3)?,
                    expired: false,
                }),
                (done, None) => LeaseAnswer::Done(done),
            })
        };
        rows.iter().zip(calls).map(answer).collect()
    }

    async fn position(&self, link: &mut Link<PgConnection>) -> sqlx::Result<Position> {
        let query = sqlx::query(safe(&self.sql.position));
        position(&query.fetch_one(&mut link.raw).await?)
    }

    async fn get(&self, link: &mut Link<PgConnection>, key: String) -> sqlx::Result<Read<StoredDocument>> {
        let query = sqlx::query(safe(&self.sql.get)).bind(key);
        let row = query.fetch_optional(&mut link.raw).await?;
        let found = row.map(|row| document(&row, 0)).transpose()?;
        Ok(Read {
            // What is visible here is durable, so nobody asks where the store stood.
            position: Position {
                revision: 0,
                floor: 0,
                swept: 0,
            },
            rows: found.into_iter().flatten().collect(),
            cut: false,
        })
    }

    async fn list(
        &self,
        link: &mut Link<PgConnection>,
        range: Range,
        at: Option<i64>,
    ) -> sqlx::Result<Read<StoredDocument>> {
        let sql = if at.is_some() {
            &self.sql.list_at
        } else {
            &self.sql.list
        };
        let query = sqlx::query(safe(sql))
            .bind(range.from)
            .bind(range.end)
            .bind(range.rows);
        let query = match at {
            Some(at) => query.bind(at),
            None => query,
        };
        let mut read = Reading::new(range.bytes);
        let mut rows = query.fetch(&mut link.raw);
        while let Some(row) = rows.try_next().await? {
            read.seen(position(&row)?);
            let Some(document) = document(&row, 3)? else {
                continue;
            };
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
        link: &mut Link<PgConnection>,
        range: Range,
        after: i64,
        through: i64,
    ) -> sqlx::Result<Read<StoredChange>> {
        let query = sqlx::query(safe(&self.sql.log))
            .bind(range.from)
            .bind(range.end)
            .bind(range.rows)
            .bind(after)
            .bind(through);
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
        link: &mut Link<PgConnection>,
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

    async fn raise(&self, link: &mut Link<PgConnection>, floor: i64, swept: i64) -> sqlx::Result<Position> {
        let query = sqlx::query(safe(&self.sql.raise)).bind(floor).bind(swept);
        position(&query.fetch_one(&mut link.raw).await?)
    }

    async fn sweep(&self, link: &mut Link<PgConnection>, from: i64, to: i64) -> sqlx::Result<()> {
        let query = sqlx::query(safe(&self.sql.sweep)).bind(from).bind(to);
        query.execute(&mut link.raw).await.map(drop)
    }

    async fn holder(&self, link: &mut Link<PgConnection>, waiting: i64) -> sqlx::Result<Option<String>> {
        setup::holder(&mut link.raw, waiting).await
    }

    async fn bell(&self, writer: Arc<AtomicI64>) -> Result<Option<Box<dyn Bell>>> {
        bell::hang(self, writer).await.map(Some)
    }

    fn fault(&self, e: &sqlx::Error) -> Fault {
        fault(e)
    }
}

/// What an error of PostgreSQL means. <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn fault(e: &sqlx::Error) -> Fault {
    let sqlx::Error::Database(database) = e else {
        return super::dialect::driver_fault(e);
    };
    let code = database.code().unwrap_or_default();
    let fatal = database
        .try_downcast_ref::<PgDatabaseError>()
        .is_some_and(|e| matches!(e.severity(), PgSeverity::Fatal | PgSeverity::Panic));
    let kind = match &*code {
        "SKY01" => return Fault::Fenced,
        "53100" => ErrorKind::Full,
        "53300" => ErrorKind::Overloaded,
        "57014" => ErrorKind::Timeout,
        // Locks, deadlocks, read-only servers, no memory, servers that start or end.
        "55P03" | "40001" | "40P01" | "25006" | "53000" | "53200" | "58030" => ErrorKind::Unavailable,
        // No tables, no routine.
        "42P01" | "42883" => ErrorKind::Unavailable,
        "42501" => ErrorKind::Denied,
        "3D000" | "3F000" => ErrorKind::Invalid,
        "XX001" | "XX002" => ErrorKind::Corrupt,
        _ => match code.get(..2).unwrap_or_default() {
            "28" => ErrorKind::Denied,
            "54" => ErrorKind::TooLarge,
            "22" => ErrorKind::Invalid,
            "08" | "57" => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        },
    };
    // A session that is ended may have ended after its commit.
    if fatal || code.starts_with("08") {
        Fault::Lost(kind)
    } else {
        Fault::Rejected(kind)
    }
}
