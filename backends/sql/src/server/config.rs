//! Settings of a store on a database server, as plain data, and their checks.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use skyloom_model::Secret;
use skyloom_store::{Error, ErrorKind, Result};

/// Which kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Engine {
    /// PostgreSQL 13 or later.
    Postgres,
    /// MySQL 8.0.19 or later, MariaDB 10.6 or later.
    MySql,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
        })
    }
}

/// How far the connection to the server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TlsMode {
    /// [`TlsMode::Off`] on unix sockets and loopback addresses, [`TlsMode::VerifyFull`] everywhere else.
    #[default]
    Auto,
    /// No TLS: passwords and documents are readable on the way.
    Off,
    /// TLS with whoever answers.
    Require,
    /// TLS with a server whose certificate comes from a known authority.
    VerifyCa,
    /// The same, and the certificate is made out to the host's name.
    VerifyFull,
}

/// Settings of a `PostgresStore` or a `MySqlStore`. Make one with [`ServerConfig::new`] or
/// [`ServerConfig::from_uri`] and change its fields.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Which kind of server.
    pub engine: Engine,
    /// The server's name or address.
    #[serde(default = "host")]
    pub host: String,
    /// Its port; the engine's usual one when left out.
    #[serde(default)]
    pub port: Option<u16>,
    /// A unix socket instead of `host`: for PostgreSQL the directory that it is in, for MySQL the socket itself.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// Who to log in as.
    pub user: String,
    /// The password, if one is needed.
    #[serde(default)]
    pub password: Option<Secret<String>>,
    /// The database, which must exist.
    pub database: String,
    /// PostgreSQL: the schema inside the database, which must exist; `public` when left out.
    #[serde(default)]
    pub schema: Option<String>,
    /// What the names of all tables begin with. Several clouds live in one database by different prefixes.
    #[serde(default = "prefix")]
    pub prefix: String,
    /// A name for this process, for operators who look at the server's list of sessions.
    #[serde(default = "name")]
    pub name: String,
    /// Protection of the connection.
    #[serde(default)]
    pub tls: TlsMode,
    /// Certificates (PEM file) of authorities to believe beside the usual ones.
    #[serde(default)]
    pub tls_ca: Option<PathBuf>,
    /// A client certificate (PEM file) to show.
    #[serde(default)]
    pub tls_cert: Option<PathBuf>,
    /// The key to it (PEM file).
    #[serde(default)]
    pub tls_key: Option<PathBuf>,
    /// Most connections for reading. Writing, leases and listening take up to three more.
    #[serde(default = "connections")]
    pub connections: u32,
    /// Commits that stay listable and watchable.
    #[serde(default = "max_history")]
    pub max_history: u64,
    /// Most commits that share one database transaction.
    #[serde(default = "max_batch")]
    pub max_batch: usize,
    /// Kibibytes of calls that may wait for the writer; each call counts at least one.
    #[serde(default = "max_queued_kib")]
    pub max_queued_kib: u32,
    /// Milliseconds that a call waits for room in the queue, for a connection, and for somebody else's lock.
    #[serde(default = "max_wait_ms")]
    pub max_wait_ms: u64,
    /// Milliseconds that one statement may run. A second more, and its connection is given up.
    #[serde(default = "statement_timeout_ms")]
    pub statement_timeout_ms: u64,
    /// Milliseconds after which a commit that still waits is a stall: who holds it is looked up and logged.
    #[serde(default = "stall_ms")]
    pub stall_ms: u64,
    /// Shortest and longest milliseconds between two looks for the commits of other processes. PostgreSQL wakes its
    /// watchers by itself and is looked at only at the longest; MySQL is looked at more often while something happens.
    #[serde(default = "poll_ms")]
    pub poll_ms: (u64, u64),
    /// Open also when the server's settings may lose acknowledged commits, and say that the store is not durable.
    #[serde(default)]
    pub allow_unsafe: bool,
}

fn host() -> String {
    "localhost".to_owned()
}
fn prefix() -> String {
    "skyloom".to_owned()
}
fn name() -> String {
    "skyloom".to_owned()
}
fn connections() -> u32 {
    8
}
fn max_history() -> u64 {
    100_000
}
fn max_batch() -> usize {
    512
}
fn max_queued_kib() -> u32 {
    64 << 10
}
fn max_wait_ms() -> u64 {
    5_000
}
fn statement_timeout_ms() -> u64 {
    30_000
}
fn stall_ms() -> u64 {
    1_000
}
fn poll_ms() -> (u64, u64) {
    (10, 200)
}

impl ServerConfig {
    /// The defaults for `database` on this machine's server, logging in as `user`.
    #[must_use]
    pub fn new(engine: Engine, database: impl Into<String>, user: impl Into<String>) -> Self {
        Self {
            engine,
            host: host(),
            port: None,
            socket: None,
            user: user.into(),
            password: None,
            database: database.into(),
            schema: None,
            prefix: prefix(),
            name: name(),
            tls: TlsMode::Auto,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            connections: connections(),
            max_history: max_history(),
            max_batch: max_batch(),
            max_queued_kib: max_queued_kib(),
            max_wait_ms: max_wait_ms(),
            statement_timeout_ms: statement_timeout_ms(),
            stall_ms: stall_ms(),
            poll_ms: poll_ms(),
            allow_unsafe: false,
        }
    }

    /// The settings that `uri` names. See [the README](https://docs.rs/skyloom-store-sql) for the parameters.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], without the password.
    pub fn from_uri(uri: &str) -> Result<Self> {
        super::uri::parse(uri)
    }

    /// Refuses what cannot work, before anybody is asked.
    pub(crate) fn check(&self, engine: Engine) -> Result<()> {
        let invalid = |field: &'static str, value: &str, wanted: &'static str| {
            Error::new(ErrorKind::Invalid, super::OPEN)
                .with(field, format!("{value:?}"))
                .with("wanted", wanted)
        };
        if self.engine != engine {
            return Err(Error::new(ErrorKind::Invalid, super::OPEN)
                .with("settings are for", self.engine)
                .with("wanted", engine));
        }
        if !identifier(&self.prefix, 24) {
            return Err(invalid("prefix", &self.prefix, IDENTIFIER));
        }
        if let Some(schema) = &self.schema {
            if engine != Engine::Postgres {
                return Err(invalid(
                    "schema",
                    schema,
                    "none: it is the database on this engine",
                ));
            }
            if !identifier(schema, 32) {
                return Err(invalid("schema", schema, IDENTIFIER));
            }
        }
        let texts = [
            ("host", &self.host),
            ("user", &self.user),
            ("database", &self.database),
            ("name", &self.name),
        ];
        for (field, text) in texts {
            if text.is_empty() || text.len() > 255 || text.contains(char::is_control) {
                return Err(invalid(field, text, "1 to 255 bytes of text"));
            }
        }
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return Err(
                Error::new(ErrorKind::Invalid, super::OPEN).with("wanted", "tls_cert and tls_key together")
            );
        }
        let numbers = [
            ("connections", u64::from(self.connections), 1, 1_000),
            ("max_history", self.max_history, 1, 1 << 40),
            ("max_batch", self.max_batch as u64, 1, 4_096),
            ("max_queued_kib", u64::from(self.max_queued_kib), 1, 1 << 28),
            ("max_wait_ms", self.max_wait_ms, 1, 3_600_000),
            ("statement_timeout_ms", self.statement_timeout_ms, 1, 3_600_000),
            ("stall_ms", self.stall_ms, 1, 3_600_000),
            ("poll_ms", self.poll_ms.0, 1, self.poll_ms.1),
            ("poll_ms", self.poll_ms.1, 1, 60_000),
        ];
        for (field, value, least, most) in numbers {
            if value < least || value > most {
                return Err(Error::new(ErrorKind::Invalid, super::OPEN)
                    .with(field, value)
                    .with("least", least)
                    .with("most", most));
            }
        }
        Ok(())
    }

    /// The mode of TLS that is meant: never [`TlsMode::Auto`].
    pub(crate) fn tls_mode(&self) -> TlsMode {
        match self.tls {
            TlsMode::Auto if self.socket.is_some() || loopback(&self.host) => TlsMode::Off,
            TlsMode::Auto => TlsMode::VerifyFull,
            mode => mode,
        }
    }

    pub(crate) fn max_wait(&self) -> Duration {
        Duration::from_millis(self.max_wait_ms)
    }

    /// After this long without an answer a connection is given up.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_millis(self.statement_timeout_ms) + Duration::from_secs(1)
    }
}

const IDENTIFIER: &str = "a lower-case letter, then lower-case letters, digits and _";

/// Whether `name` can stand in SQL as it is, and is at most `most` bytes long.
fn identifier(name: &str, most: usize) -> bool {
    name.len() <= most
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Whether packets to `host` stay on this machine. Other names are not resolved: what they mean may change.
fn loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ServerConfig {
        ServerConfig::new(Engine::Postgres, "db", "me")
    }

    #[test]
    fn names_that_go_into_sql_are_plain() {
        for good in ["a", "cloud_1", "skyloom"] {
            let mut config = config();
            config.prefix = good.to_owned();
            assert!(config.check(Engine::Postgres).is_ok(), "{good}");
        }
        for bad in [
            "",
            "A",
            "1a",
            "_a",
            "a-b",
            "a b",
            "a;drop",
            "a\"",
            "ä",
            &"a".repeat(25),
        ] {
            let mut config = config();
            config.prefix = bad.to_owned();
            assert_eq!(
                config.check(Engine::Postgres).unwrap_err().kind(),
                ErrorKind::Invalid,
                "{bad}"
            );
            config.prefix = prefix();
            config.schema = Some(bad.repeat(2));
            assert!(config.check(Engine::Postgres).is_err(), "{bad}");
        }
    }

    #[test]
    fn settings_for_the_other_engine_are_refused() {
        assert!(config().check(Engine::MySql).is_err());
        let mut mysql = ServerConfig::new(Engine::MySql, "db", "me");
        assert!(mysql.check(Engine::MySql).is_ok());
        mysql.schema = Some("public".to_owned());
        assert!(mysql.check(Engine::MySql).is_err());
    }

    #[test]
    fn tls_is_on_wherever_others_may_listen() {
        let mode = |host: &str| {
            let mut config = config();
            config.host = host.to_owned();
            config.tls_mode()
        };
        for near in ["localhost", "127.0.0.1", "::1", "[::1]"] {
            assert_eq!(mode(near), TlsMode::Off, "{near}");
        }
        for far in ["10.0.0.1", "db.example.org", "localhost.example.org"] {
            assert_eq!(mode(far), TlsMode::VerifyFull, "{far}");
        }
    }

    #[test]
    fn the_password_is_not_shown() {
        let mut config = config();
        config.password = Some(Secret::new("hunter2".to_owned()));
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
