//! Connections that are what they must be, the tables and their versions, and who blocks whom.

use skyloom_store::{About, Error, ErrorKind, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _};

use super::Postgres;
use crate::Migrated;
use crate::server::config::{ServerConfig, TlsMode};
use crate::server::dialect::{Link, failed};
use crate::server::{VERSION, too_new};

/// The oldest version of the server that has all that is used.
const OLDEST: i32 = 13_00_00;
/// Largest request. The server's own limit is 1 GiB for any one parameter.
const MAX_REQUEST: usize = 512 << 20;

const SCHEMA: &str = include_str!("schema.sql");

const FACTS: &str = "SELECT pg_backend_pid(), current_setting('server_version_num')::integer, \
     pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean, \
     current_setting('server_encoding'), current_setting('fsync'), current_setting('full_page_writes'), \
     current_setting('synchronous_commit'), current_setting('server_version')";

pub(super) fn options(config: &ServerConfig) -> PgConnectOptions {
    let mode = match config.tls_mode() {
        TlsMode::Auto | TlsMode::Off => PgSslMode::Disable,
        TlsMode::Require => PgSslMode::Require,
        TlsMode::VerifyCa => PgSslMode::VerifyCa,
        TlsMode::VerifyFull => PgSslMode::VerifyFull,
    };
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&config.host)
        .port(config.port.unwrap_or(5432))
        .username(&config.user)
        .password(config.password.as_ref().map_or("", |p| p.expose()))
        .database(&config.database)
        .application_name(&config.name)
        .ssl_mode(mode)
        .disable_statement_logging();
    if let Some(directory) = &config.socket {
        options = options.socket(directory);
    }
    if let Some(ca) = &config.tls_ca {
        options = options.ssl_root_cert(ca);
    }
    if let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) {
        options = options.ssl_client_cert(cert).ssl_client_key(key);
    }
    options
}

pub(super) async fn connect(postgres: &Postgres) -> Result<Link<PgConnection>> {
    const OPERATION: &str = "connect";
    let config = &postgres.config;
    let sql = |e| failed(postgres, OPERATION, e);
    let mut raw = options(config).connect().await.map_err(sql)?;
    let ms = |n: u64| format!("{n}ms");
    let settings = [
        ("default_transaction_isolation", "read committed".to_owned()),
        ("lock_timeout", ms(config.max_wait_ms)),
        ("statement_timeout", ms(config.statement_timeout_ms)),
        (
            "idle_in_transaction_session_timeout",
            ms(config.statement_timeout_ms),
        ),
        ("tcp_keepalives_idle", "30".to_owned()),
        ("tcp_keepalives_interval", "10".to_owned()),
        ("tcp_keepalives_count", "3".to_owned()),
        // Every statement is a few rows by a key. Plans made while the tables are empty must not think otherwise later.
        ("plan_cache_mode", "force_generic_plan".to_owned()),
        ("enable_seqscan", "off".to_owned()),
        ("enable_hashjoin", "off".to_owned()),
        ("enable_mergejoin", "off".to_owned()),
        ("jit", "off".to_owned()),
    ];
    let (names, values): (Vec<&str>, Vec<String>) = settings.into_iter().unzip();
    sqlx::query(
        "SELECT set_config(s.name, s.value, false) FROM unnest($1::text[], $2::text[]) AS s(name, value)",
    )
    .bind(names)
    .bind(values)
    .fetch_all(&mut raw)
    .await
    .map_err(sql)?;
    let facts = sqlx::query(FACTS).fetch_one(&mut raw).await.map_err(sql)?;
    let text = |column: usize| facts.try_get::<String, _>(column).map_err(sql);
    let version: i32 = facts.try_get(1).map_err(sql)?;
    if version < OLDEST {
        return Err(Error::new(ErrorKind::Unsupported, OPERATION)
            .with("server version", version)
            .with("oldest", OLDEST));
    }
    if facts.try_get(2).map_err(sql)? {
        return Err(Error::new(ErrorKind::Unavailable, OPERATION).with(
            "state",
            "the server is read-only, or a standby that lags behind its primary",
        ));
    }
    if text(3)? != "UTF8" {
        return Err(Error::new(ErrorKind::Unsupported, OPERATION)
            .with("encoding of the database", text(3)?)
            .with("wanted", "UTF8"));
    }
    let mut about = About::new(format!("PostgreSQL {}", text(7)?));
    for (column, name) in [(4, "fsync"), (5, "full_page_writes"), (6, "synchronous_commit")] {
        let value = text(column)?;
        if value == "off" {
            about = about.with_risk(format!("{name} = off"));
        }
        about = about.with_setting(name, value);
    }
    Ok(Link {
        session: i64::from(facts.try_get::<i32, _>(0).map_err(sql)?),
        raw,
        max_request: MAX_REQUEST,
        dirty: false,
        visible_is_durable: true,
        about,
    })
}

/// The version of the tables; `None` when there are none.
pub(super) async fn version(postgres: &Postgres, raw: &mut PgConnection) -> sqlx::Result<Option<i64>> {
    let table: Option<String> = sqlx::query_scalar("SELECT to_regclass($1)::text")
        .bind(format!("{}_state", name(postgres)))
        .fetch_one(&mut *raw)
        .await?;
    if table.is_none() {
        return Ok(None);
    }
    let query = sqlx::query_scalar(super::safe(&postgres.sql.version));
    query.fetch_optional(raw).await
}

/// `schema.prefix`, both plain identifiers.
pub(super) fn name(postgres: &Postgres) -> String {
    let schema = postgres.config.schema.as_deref().unwrap_or("public");
    format!("{schema}.{}", postgres.config.prefix)
}

pub(super) async fn migrate(postgres: &Postgres, raw: &mut PgConnection) -> Result<Migrated> {
    let sql = |e| failed(postgres, "migrate", e);
    sqlx::raw_sql("BEGIN").execute(&mut *raw).await.map_err(sql)?;
    // Whoever comes second waits here and then finds everything done.
    sqlx::query("SELECT pg_advisory_xact_lock(1397447501, hashtext($1))")
        .bind(name(postgres))
        .execute(&mut *raw)
        .await
        .map_err(sql)?;
    let found = version(postgres, raw).await.map_err(sql)?.unwrap_or(0);
    if found > VERSION {
        return Err(too_new("migrate", found)); // the connection ends, and the transaction with it
    }
    if found < 1 {
        let schema = SCHEMA.replace("{p}", &name(postgres));
        sqlx::raw_sql(AssertSqlSafe(schema))
            .execute(&mut *raw)
            .await
            .map_err(sql)?;
        let insert = format!(
            "INSERT INTO {}_state (id, version, floor, swept) VALUES (1, $1, 0, 0)",
            name(postgres)
        );
        sqlx::query(AssertSqlSafe(insert))
            .bind(i32::try_from(VERSION).unwrap_or(i32::MAX))
            .execute(&mut *raw)
            .await
            .map_err(sql)?;
    }
    sqlx::raw_sql("COMMIT").execute(raw).await.map_err(sql)?;
    Ok(Migrated {
        from: u32::try_from(found).unwrap_or(0),
        to: u32::try_from(VERSION).unwrap_or(0),
    })
}

/// Who keeps `waiting` from going on.
pub(super) async fn holder(raw: &mut PgConnection, waiting: i64) -> sqlx::Result<Option<String>> {
    let rows = sqlx::query(
        "SELECT a.pid, a.application_name, a.state, extract(epoch FROM clock_timestamp() - a.xact_start)::bigint \
           FROM pg_stat_activity a WHERE a.pid = ANY (pg_blocking_pids($1)) ORDER BY a.xact_start LIMIT 4",
    )
    .bind(i32::try_from(waiting).unwrap_or(0))
    .fetch_all(raw)
    .await?;
    let mut shown = Vec::new();
    for row in rows {
        let pid: i32 = row.try_get(0)?;
        let program: Option<String> = row.try_get(1)?;
        let state: Option<String> = row.try_get(2)?;
        let seconds: Option<i64> = row.try_get(3)?;
        shown.push(format!(
            "session {pid} ({}, {}, transaction open for {} s)",
            program
                .filter(|p| !p.is_empty())
                .unwrap_or_else(|| "no name".to_owned()),
            state.as_deref().unwrap_or("state not visible"),
            seconds.map_or_else(|| "?".to_owned(), |s| s.to_string()),
        ));
    }
    Ok((!shown.is_empty()).then(|| shown.join(", ")))
}
