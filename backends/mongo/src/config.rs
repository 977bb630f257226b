//! Settings, as plain data that a binary may read from its configuration file.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use skyloom_store::{Error, ErrorKind, Result};

const OPERATION: &str = "read store settings";

/// Settings of a [`crate::MongoStore`]. Make one with [`MongoConfig::new`] or [`MongoConfig::from_uri`] and change its
/// fields. `Debug` leaves the password out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MongoConfig {
    /// Where the servers are, and the driver's own options: `mongodb://user:password@host:port,…/?tls=true&…`.
    pub uri: String,
    /// The database.
    pub database: String,
    /// What the names of this cloud's collections begin with; several clouds may share one database.
    #[serde(default = "prefix")]
    pub prefix: String,
    /// Milliseconds for a connection to come about, and for a usable server to be found.
    #[serde(default = "connect_ms")]
    pub connect_ms: u64,
    /// Milliseconds that one call may take, its repetitions included.
    #[serde(default = "call_ms")]
    pub call_ms: u64,
    /// Milliseconds between two looks at the log while no change stream is open, and ten times that while one is.
    #[serde(default = "poll_ms")]
    pub poll_ms: u64,
    /// Most connections to one server.
    #[serde(default = "connections")]
    pub connections: u32,
    /// Commits that stay listable and watchable.
    #[serde(default = "max_history")]
    pub max_history: u64,
    /// Bytes of values that the log may hold, about; the oldest commits go first.
    #[serde(default = "max_history_bytes")]
    pub max_history_bytes: u64,
    /// Most commits of this process that share one database transaction.
    #[serde(default = "max_batch")]
    pub max_batch: usize,
    /// Kibibytes of commits that may wait; each counts at least one.
    #[serde(default = "max_queued_kib")]
    pub max_queued_kib: u32,
    /// Take settings under which acknowledged commits may vanish, and say that the store is not durable. For tests only.
    #[serde(default)]
    pub allow_unsafe: bool,
}

fn prefix() -> String {
    "skyloom_".to_owned()
}
fn connect_ms() -> u64 {
    3_000
}
fn call_ms() -> u64 {
    10_000
}
fn poll_ms() -> u64 {
    500
}
fn connections() -> u32 {
    32
}
fn max_history() -> u64 {
    100_000
}
fn max_history_bytes() -> u64 {
    256 << 20
}
fn max_batch() -> usize {
    256
}
fn max_queued_kib() -> u32 {
    64 << 10
}

fn invalid(what: &'static str, hint: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, OPERATION).with(what, hint)
}

impl MongoConfig {
    /// The defaults for `database` on the servers of `uri`.
    #[must_use]
    pub fn new(uri: impl Into<String>, database: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            database: database.into(),
            prefix: prefix(),
            connect_ms: connect_ms(),
            call_ms: call_ms(),
            poll_ms: poll_ms(),
            connections: connections(),
            max_history: max_history(),
            max_history_bytes: max_history_bytes(),
            max_batch: max_batch(),
            max_queued_kib: max_queued_kib(),
            allow_unsafe: false,
        }
    }

    /// The defaults for `mongodb://host:port/DATABASE?…`; the options are the driver's, and `prefix=…` is ours.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when that is no such address, or names no database.
    pub fn from_uri(uri: &str) -> Result<Self> {
        let rest = uri
            .strip_prefix("mongodb://")
            .or_else(|| uri.strip_prefix("mongodb+srv://"))
            .ok_or_else(|| invalid("scheme", "want mongodb://host:port/database"))?;
        let scheme = &uri[..uri.len() - rest.len()];
        let (servers, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (database, query) = path.split_once('?').unwrap_or((path, ""));
        if database.is_empty() {
            return Err(invalid("database", "none; want mongodb://host:port/database"));
        }
        let mut own = prefix();
        let mut options = Vec::new();
        for option in query.split('&').filter(|o| !o.is_empty()) {
            match option.split_once('=') {
                Some(("prefix", value)) => value.clone_into(&mut own),
                _ => options.push(option),
            }
        }
        // The driver takes the path for the database that knows the user, unless told otherwise.
        let known = options
            .iter()
            .any(|o| o.to_ascii_lowercase().starts_with("authsource="));
        let source = format!("authSource={database}");
        if servers.contains('@') && !known {
            options.push(&source);
        }
        let mut config = Self::new(format!("{scheme}{servers}/?{}", options.join("&")), database);
        config.prefix = own;
        config.check()?;
        Ok(config)
    }

    /// Refuses what cannot work, before any server is asked.
    pub(crate) fn check(&self) -> Result<()> {
        let plain = |name: &str| {
            name.bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        if self.database.is_empty() || self.database.len() > 63 || !plain(&self.database) {
            return Err(invalid(
                "database",
                "its name has up to 63 letters, digits, '_' or '-'",
            ));
        }
        if self.prefix.len() > 63 || !plain(&self.prefix) {
            return Err(invalid("prefix", "it has up to 63 letters, digits, '_' or '-'"));
        }
        for (name, value) in [
            ("connect_ms", self.connect_ms),
            ("call_ms", self.call_ms),
            ("poll_ms", self.poll_ms),
            ("connections", self.connections.into()),
            ("max_history", self.max_history),
        ] {
            if value == 0 {
                return Err(invalid("setting", format_args!("{name} must not be 0")));
            }
        }
        Ok(())
    }

    pub(crate) fn connect_time(&self) -> Duration {
        Duration::from_millis(self.connect_ms)
    }
    pub(crate) fn call_time(&self) -> Duration {
        Duration::from_millis(self.call_ms)
    }
    pub(crate) fn poll_time(&self) -> Duration {
        Duration::from_millis(self.poll_ms)
    }
}

/// The address without what stands before `@`.
fn redacted(uri: &str) -> String {
    let (scheme, rest) = uri.split_once("://").unwrap_or(("", uri));
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://***{}", &rest[at..]),
        None => uri.to_owned(),
    }
}

impl fmt::Debug for MongoConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            uri,
            database,
            prefix,
            connect_ms,
            call_ms,
            poll_ms,
            connections,
            max_history,
            max_history_bytes,
            max_batch,
            max_queued_kib,
            allow_unsafe,
        } = self;
        f.debug_struct("MongoConfig")
            .field("uri", &redacted(uri))
            .field("database", database)
            .field("prefix", prefix)
            .field("connect_ms", connect_ms)
            .field("call_ms", call_ms)
            .field("poll_ms", poll_ms)
            .field("connections", connections)
            .field("max_history", max_history)
            .field("max_history_bytes", max_history_bytes)
            .field("max_batch", max_batch)
            .field("max_queued_kib", max_queued_kib)
            .field("allow_unsafe", allow_unsafe)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_servers_database_and_prefix() {
        let c = MongoConfig::from_uri("mongodb://a:1,b:2/cloud?replicaSet=rs&prefix=east_&tls=true").unwrap();
        assert_eq!(
            (&*c.uri, &*c.database, &*c.prefix),
            ("mongodb://a:1,b:2/?replicaSet=rs&tls=true", "cloud", "east_")
        );
        let c = MongoConfig::from_uri("mongodb://a/cloud").unwrap();
        assert_eq!((&*c.uri, &*c.prefix), ("mongodb://a/?", "skyloom_"));
    }

    #[test]
    fn users_are_known_to_the_named_database_unless_told_otherwise() {
        let c = MongoConfig::from_uri("mongodb://u:p@a/cloud").unwrap();
        assert_eq!(c.uri, "mongodb://u:p@a/?authSource=cloud");
        let c = MongoConfig::from_uri("mongodb://u:p@a/cloud?authSource=admin").unwrap();
        assert_eq!(c.uri, "mongodb://u:p@a/?authSource=admin");
    }

    #[test]
    fn other_addresses_are_refused() {
        for bad in [
            "postgres://a/b",
            "mongodb://a:1",
            "mongodb://a:1/",
            "mongodb://a/b$c",
            "mongodb://a/b?prefix=x.y",
            "mongodb://a/b?prefix=x%20",
        ] {
            let e = MongoConfig::from_uri(bad).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Invalid, "{bad}");
        }
    }

    #[test]
    fn the_password_is_never_shown() {
        for (uri, shown) in [
            ("mongodb://u:secret@a/cloud", "mongodb://***@a/?authSource=cloud"),
            (
                "mongodb://u:s%40ecret@a:1,b/cloud",
                "mongodb://***@a:1,b/?authSource=cloud",
            ),
        ] {
            let text = format!("{:?}", MongoConfig::from_uri(uri).unwrap());
            assert!(text.contains(shown) && !text.contains("ecret"), "{text}");
        }
    }

    #[test]
    fn settings_have_defaults_and_no_strangers() {
        let least = r#"{"uri":"mongodb://a","database":"d"}"#;
        let config: MongoConfig = serde_json::from_str(least).unwrap();
        assert_eq!(config, MongoConfig::new("mongodb://a", "d"));
        config.check().unwrap();
        assert!(serde_json::from_str::<MongoConfig>(r#"{"uri":"a","database":"d","fsync":false}"#).is_err());
        let zero = r#"{"uri":"mongodb://a","database":"d","call_ms":0}"#;
        let zero: MongoConfig = serde_json::from_str(zero).unwrap();
        assert_eq!(zero.check().unwrap_err().kind(), ErrorKind::Invalid);
    }
}
