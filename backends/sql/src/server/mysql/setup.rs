//! Connections that are what they must be, the tables and their versions, and who blocks whom.

use std::collections::HashMap;

use skyloom_store::{About, Error, ErrorKind, Result};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _};

use super::MySql;
use crate::Migrated;
use crate::server::config::{ServerConfig, TlsMode};
use crate::server::dialect::{Link, failed};
use crate::server::{VERSION, too_new};

const SCHEMA: &str = include_str!("schema.sql");

/// With less than this, the largest document does not get through.
const SMALLEST_PACKET: usize = 4 << 20;

/// What of the server's settings is looked at. One that a server does not know is not among the answers.
const VARIABLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'read_only', 'super_read_only', \
     'innodb_read_only', 'innodb_flush_log_at_trx_commit', 'innodb_doublewrite', 'innodb_flush_method', 'log_bin', 'sync_binlog', \
     'binlog_format', 'max_allowed_packet', 'sysdate_is_now', 'wsrep_on', 'group_replication_single_primary_mode')";

/// Those of them that durability hangs on.
const DURABILITY: [&str; 5] = [
    "innodb_flush_log_at_trx_commit",
    "innodb_doublewrite",
    "innodb_flush_method",
    "log_bin",
    "sync_binlog",
];

fn options(config: &ServerConfig) -> MySqlConnectOptions {
    let mode = match config.tls_mode() {
        TlsMode::Auto | TlsMode::Off => MySqlSslMode::Disabled,
        TlsMode::Require => MySqlSslMode::Required,
        TlsMode::VerifyCa => MySqlSslMode::VerifyCa,
        TlsMode::VerifyFull => MySqlSslMode::VerifyIdentity,
    };
    let mut options = MySqlConnectOptions::new()
        .host(&config.host)
        .port(config.port.unwrap_or(3306))
        .username(&config.user)
        .database(&config.database)
        .ssl_mode(mode)
        // Set below, all of it.
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .disable_statement_logging();
    if let Some(password) = &config.password {
        options = options.password(password.expose());
    }
    if let Some(socket) = &config.socket {
        options = options.socket(socket);
    }
    if let Some(ca) = &config.tls_ca {
        options = options.ssl_ca(ca);
    }
    if let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) {
        options = options.ssl_client_cert(cert).ssl_client_key(key);
    }
    options
}

pub(super) async fn connect(mysql: &MySql) -> Result<Link<MySqlConnection>> {
    const OPERATION: &str = "connect";
    let config = &mysql.config;
    let sql = |e| failed(mysql, OPERATION, e);
    let mut raw = options(config).connect().await.map_err(sql)?;
    let seconds = config.max_wait_ms.div_ceil(1000);
    sqlx::query(
        "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION', innodb_lock_wait_timeout = ?, \
             lock_wait_timeout = ?, group_concat_max_len = 67108864",
    )
    .bind(seconds)
    .bind(seconds)
    .execute(&mut raw)
    .await
    .map_err(sql)?;
    // Not bound: the two servers have different names for the variable.
    sqlx::raw_sql("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        .execute(&mut raw)
        .await
        .map_err(sql)?;
    let session: i64 = sqlx::query_scalar("SELECT CAST(CONNECTION_ID() AS SIGNED)")
        .fetch_one(&mut raw)
        .await
        .map_err(sql)?;
    let rows = sqlx::query(VARIABLES).fetch_all(&mut raw).await.map_err(sql)?;
    let mut variables = HashMap::new();
    for row in rows {
        let name: String = row.try_get(0).map_err(sql)?;
        let value: String = row.try_get(1).map_err(sql)?;
        variables.insert(name, value);
    }
    let is = |name: &str, value: &str| variables.get(name).is_some_and(|v| v.eq_ignore_ascii_case(value));
    let version = variables.get("version").cloned().unwrap_or_default();
    if !new_enough(&version) {
        return Err(Error::new(ErrorKind::Unsupported, OPERATION)
            .with("server version", version)
            .with("oldest", "MySQL 8.0.19, MariaDB 10.6"));
    }
    if is("read_only", "ON") || is("super_read_only", "ON") || is("innodb_read_only", "ON") {
        return Err(Error::new(ErrorKind::Unavailable, OPERATION).with(
            "state",
            "the server is read-only, or a replica that lags behind its primary",
        ));
    }
    for (name, value, why) in [
        (
            "wsrep_on",
            "ON",
            "locks do not reach the other nodes of a Galera cluster",
        ),
        (
            "group_replication_single_primary_mode",
            "OFF",
            "locks do not reach the other primaries of a group",
        ),
        (
            "sysdate_is_now",
            "ON",
            "leases would be compared with the time at which a call began to wait",
        ),
    ] {
        if is(name, value) {
            return Err(Error::new(ErrorKind::Unsupported, OPERATION)
                .with(name, value)
                .with("reason", why));
        }
    }
    if is("log_bin", "ON") && is("binlog_format", "STATEMENT") {
        return Err(Error::new(ErrorKind::Unsupported, OPERATION)
            .with("binlog_format", "STATEMENT")
            .with("hint", "set it to ROW or MIXED"));
    }
    let synced_log = is("log_bin", "ON") && is("sync_binlog", "1");
    let about = about(&variables, &version, is("log_bin", "ON") && !synced_log);
    let max_request = variables.get("max_allowed_packet").and_then(|v| v.parse().ok());
    let max_request = max_request.unwrap_or(1 << 20);
    if max_request < SMALLEST_PACKET {
        return Err(Error::new(ErrorKind::Unsupported, OPERATION)
            .with("max_allowed_packet", max_request)
            .with("least", SMALLEST_PACKET));
    }
    Ok(Link {
        session,
        raw,
        max_request,
        dirty: false,
        // The binary log is synced before the engine commits. Without it the engine shows a commit before it is on disk.
        visible_is_durable: synced_log,
        about,
    })
}

/// What the server is, and what may be lost by its settings.
fn about(variables: &HashMap<String, String>, version: &str, lazy_binlog: bool) -> About {
    let product = if version.contains("MariaDB") {
        "MariaDB"
    } else {
        "MySQL"
    };
    let mut about = About::new(format!("{product} {version}"));
    for name in DURABILITY {
        if let Some(value) = variables.get(name) {
            about = about.with_setting(name, value);
        }
    }
    let is = |name: &str, value: &str| variables.get(name).is_some_and(|v| v.eq_ignore_ascii_case(value));
    let risks = [
        (
            !is("innodb_flush_log_at_trx_commit", "1"),
            "innodb_flush_log_at_trx_commit is not 1",
        ),
        (lazy_binlog, "sync_binlog is not 1"),
        (
            is("innodb_doublewrite", "OFF") || is("innodb_doublewrite", "0"),
            "innodb_doublewrite is off",
        ),
        (
            is("innodb_flush_method", "nosync") || is("innodb_flush_method", "littlesync"),
            "innodb_flush_method does not sync",
        ),
    ];
    let found = risks.into_iter().filter(|(found, _)| *found);
    found.fold(about, |about, (_, why)| about.with_risk(why))
}

/// Whether a server of this version has all that is used. MariaDB's own number may follow `5.5.5-`.
fn new_enough(version: &str) -> bool {
    let maria = version.contains("MariaDB");
    let version = version.strip_prefix("5.5.5-").unwrap_or(version);
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    let found = (next(), next(), next());
    found >= if maria { (10, 6, 0) } else { (8, 0, 19) }
}

/// The version of the tables; `None` when there are none.
pub(super) async fn version(mysql: &MySql, raw: &mut MySqlConnection) -> sqlx::Result<Option<i64>> {
    let tables: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?",
    )
    .bind(format!("{}_state", mysql.config.prefix))
    .fetch_one(&mut *raw)
    .await?;
    if tables == 0 {
        return Ok(None);
    }
    let query = sqlx::query_scalar(super::safe(&mysql.sql.version));
    query.fetch_optional(raw).await
}

pub(super) async fn migrate(mysql: &MySql, raw: &mut MySqlConnection) -> Result<Migrated> {
    const OPERATION: &str = "migrate";
    let sql = |e| failed(mysql, OPERATION, e);
    let prefix = &mysql.config.prefix;
    // Whoever comes second waits here and then finds everything done. The lock goes with the connection.
    let lock: Option<i64> =
        sqlx::query_scalar("SELECT GET_LOCK(SHA2(CONCAT('skyloom ', DATABASE(), '.', ?), 224), ?)")
            .bind(prefix)
            .bind(i64::try_from(mysql.config.patience().as_secs()).unwrap_or(i64::MAX))
            .fetch_one(&mut *raw)
            .await
            .map_err(sql)?;
    if lock != Some(1) {
        return Err(Error::new(ErrorKind::Unavailable, OPERATION).with("state", "somebody else is at it"));
    }
    let found = version(mysql, raw).await.map_err(sql)?.unwrap_or(0);
    if found > VERSION {
        return Err(too_new(OPERATION, found));
    }
    if found < 1 {
        for statement in SCHEMA.split("\n//\n").map(str::trim).filter(|s| !s.is_empty()) {
            sqlx::raw_sql(AssertSqlSafe(statement.replace("{p}", prefix)))
                .execute(&mut *raw)
                .await
                .map_err(sql)?;
        }
        // Last: tables are current only when all of them are there.
        let insert = format!("INSERT INTO {prefix}_state (id, version, floor, swept) VALUES (1, ?, 0, 0)");
        sqlx::query(AssertSqlSafe(insert))
            .bind(VERSION)
            .execute(&mut *raw)
            .await
            .map_err(sql)?;
    }
    Ok(Migrated {
        from: u32::try_from(found).unwrap_or(0),
        to: u32::try_from(VERSION).unwrap_or(0),
    })
}

/// Who keeps `waiting` from going on: MariaDB's tables, then MySQL's. Both need the PROCESS privilege.
pub(super) async fn holder(raw: &mut MySqlConnection, waiting: i64) -> sqlx::Result<Option<String>> {
    const MARIA: &str = "SELECT CAST(b.trx_mysql_thread_id AS SIGNED), CAST(TIMESTAMPDIFF(SECOND, b.trx_started, SYSDATE()) AS SIGNED) \
         FROM information_schema.innodb_lock_waits w \
         JOIN information_schema.innodb_trx r ON r.trx_id = w.requesting_trx_id \
         JOIN information_schema.innodb_trx b ON b.trx_id = w.blocking_trx_id \
         WHERE r.trx_mysql_thread_id = ? ORDER BY b.trx_started LIMIT 4";
    const ORACLE: &str = "SELECT CAST(b.trx_mysql_thread_id AS SIGNED), CAST(TIMESTAMPDIFF(SECOND, b.trx_started, SYSDATE()) AS SIGNED) \
         FROM performance_schema.data_lock_waits w \
         JOIN information_schema.innodb_trx r ON r.trx_id = w.requesting_engine_transaction_id \
         JOIN information_schema.innodb_trx b ON b.trx_id = w.blocking_engine_transaction_id \
         WHERE r.trx_mysql_thread_id = ? ORDER BY b.trx_started LIMIT 4";
    let rows = match sqlx::query(MARIA).bind(waiting).fetch_all(&mut *raw).await {
        Ok(rows) => rows,
        Err(_) => sqlx::query(ORACLE).bind(waiting).fetch_all(&mut *raw).await?,
    };
    let mut shown = Vec::new();
    for row in rows {
        let (thread, seconds): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        shown.push(format!("session {thread} (transaction open for {seconds} s)"));
    }
    Ok((!shown.is_empty()).then(|| shown.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::new_enough;

    #[test]
    fn versions_are_read() {
        for good in [
            "10.11.19-MariaDB-0+deb12u1",
            "5.5.5-10.6.0-MariaDB",
            "11.4.2-MariaDB",
            "8.0.19",
            "8.4.0-commercial",
            "9.0.1",
        ] {
            assert!(new_enough(good), "{good}");
        }
        for bad in [
            "10.5.29-MariaDB",
            "5.5.5-10.3.1-MariaDB",
            "8.0.18",
            "5.7.44-log",
            "",
            "strange",
        ] {
            assert!(!new_enough(bad), "{bad}");
        }
    }
}
