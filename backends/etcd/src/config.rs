//! Settings, as plain data that a binary may read from its configuration file.

use std::time::Duration;

use serde::Deserialize;
use skyloom_model::Secret;
use skyloom_store::{Error, ErrorKind, Key, Result};

use crate::keys::RESERVED;

/// The port of an endpoint that names none.
const PORT: u16 = 2379;
/// Longest prefix in bytes.
const MAX_PREFIX: usize = 128;

/// Settings of an [`crate::EtcdStore`]. Make one with [`EtcdConfig::new`] or [`EtcdConfig::from_uri`] and change its
/// fields.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct EtcdConfig {
    /// Members of one etcd cluster, as `host:port` (the port is 2379 if not said). The first that answers is used until
    /// it fails, then the next.
    pub endpoints: Vec<String>,
    /// The path below which this cloud's keys stand, so that several share a cluster: `cloud-a`, `skyloom/cloud-a`.
    #[serde(default = "prefix")]
    pub prefix: String,
    /// The etcd user. None where authentication is off.
    #[serde(default)]
    pub user: Option<String>,
    /// Its password.
    #[serde(default)]
    pub password: Option<Secret<String>>,
    /// Speak TLS. Without it the connection is plain.
    #[serde(default)]
    pub tls: Option<EtcdTls>,
    /// Milliseconds that a connection may take.
    #[serde(default = "connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// Milliseconds that an answer may take, beside the connection. etcd itself gives up after 7 s by default, so less
    /// than that makes more commits end as unknown.
    #[serde(default = "request_timeout_ms")]
    pub request_timeout_ms: u64,
    /// The server's `--max-request-bytes`: larger commits are refused without being sent.
    #[serde(default = "max_request_bytes")]
    pub max_request_bytes: usize,
    /// Work with a server that may lose what it has acknowledged, and send passwords over plain connections. The store
    /// then says that it is not durable. For tests only.
    #[serde(default)]
    pub allow_unsafe: bool,
}

/// Whom to believe, and how to prove who asks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct EtcdTls {
    /// Certificates (PEM) of the only authorities to believe.
    pub ca_pem: String,
    /// The client's certificate chain (PEM), where the server asks for one.
    #[serde(default)]
    pub cert_pem: Option<String>,
    /// The key (PEM) of that certificate.
    #[serde(default)]
    pub key_pem: Option<Secret<String>>,
    /// The name that the server's certificate must be for, where it is not the endpoint's host.
    #[serde(default)]
    pub server_name: Option<String>,
}

fn prefix() -> String {
    "skyloom".to_owned()
}
fn connect_timeout_ms() -> u64 {
    3_000
}
fn request_timeout_ms() -> u64 {
    10_000
}
fn max_request_bytes() -> usize {
    3 << 19 // 1.5 MiB
}

impl EtcdTls {
    /// TLS that believes the authorities in `ca_pem`.
    #[must_use]
    pub fn new(ca_pem: impl Into<String>) -> Self {
        Self {
            ca_pem: ca_pem.into(),
            cert_pem: None,
            key_pem: None,
            server_name: None,
        }
    }
}

impl EtcdConfig {
    /// The defaults for the cluster at `endpoints`.
    #[must_use]
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: prefix(),
            user: None,
            password: None,
            tls: None,
            connect_timeout_ms: connect_timeout_ms(),
            request_timeout_ms: request_timeout_ms(),
            max_request_bytes: max_request_bytes(),
            allow_unsafe: false,
        }
    }

    /// With another prefix.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// As this user.
    #[must_use]
    pub fn with_user(mut self, user: impl Into<String>, password: Secret<String>) -> Self {
        self.user = Some(user.into());
        self.password = Some(password);
        self
    }

    /// Over TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: EtcdTls) -> Self {
        self.tls = Some(tls);
        self
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }
    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// Whether everything makes sense: the addresses to connect to, with their scheme.
    pub(crate) fn check(&self) -> Result<Vec<String>> {
        let invalid = |name, value: &str, what: &str| {
            Err(Error::new(ErrorKind::Invalid, "open etcd store")
                .with(name, value)
                .because(what.to_owned()))
        };
        if self.endpoints.is_empty() {
            return invalid("endpoints", "(none)", "no endpoint is given");
        }
        if self.connect_timeout_ms == 0 || self.request_timeout_ms == 0 {
            return invalid("timeout", "0", "a timeout of nothing leaves no time to answer");
        }
        if let Err(e) = Key::parse(&self.prefix) {
            return invalid("prefix", &self.prefix, &e.to_string());
        }
        if self.prefix.len() > MAX_PREFIX {
            return invalid("prefix", &self.prefix, "it is longer than 128 characters");
        }
        if let Some(word) = self.prefix.split('/').find(|s| RESERVED.contains(s)) {
            let what = format!("{word} is a word of the layout and cannot be a part of a prefix");
            return invalid("prefix", &self.prefix, &what);
        }
        if self.user.is_some() != self.password.is_some() {
            return invalid(
                "user",
                self.user.as_deref().unwrap_or("(none)"),
                "a user and a password go together",
            );
        }
        if let Some(tls) = &self.tls
            && tls.cert_pem.is_some() != tls.key_pem.is_some()
        {
            return invalid("tls", "cert_pem", "a client certificate and its key go together");
        }
        self.endpoints.iter().map(|e| self.address(e)).collect()
    }

    /// The address of one endpoint with scheme and port.
    fn address(&self, endpoint: &str) -> Result<String> {
        let invalid = |what: &str| {
            Error::new(ErrorKind::Invalid, "open etcd store")
                .with("endpoint", endpoint)
                .because(what.to_owned())
        };
        let secure = self.tls.is_some();
        let bare = match endpoint.split_once("://") {
            None => endpoint,
            Some(("http", bare)) if !secure => bare,
            Some(("https", bare)) if secure => bare,
            Some(("http", _)) => return Err(invalid("it is plain http, but TLS is configured")),
            Some(("https", _)) => return Err(invalid("it is https, but no TLS is configured")),
            Some(_) => return Err(invalid("the scheme is neither http nor https")),
        };
        let (host, port) = host_and_port(bare.strip_suffix('/').unwrap_or(bare)).map_err(&invalid)?;
        if self.user.is_some() && !secure && !loopback(host) && !self.allow_unsafe {
            return Err(invalid("a password goes to other machines over TLS only"));
        }
        let scheme = if secure { "https" } else { "http" };
        Ok(format!("{scheme}://{host}:{port}"))
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn host_and_port(text: &str) -> Result<(&str, u16), &'static str> {
    let (host, port) = match text.rfind(']') {
        Some(end) => (&text[..=end], &text[end + 1..]),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => PORT,
        None => return Err("it is not host:port"),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits
            .parse()
            .map_err(|_| "the port is not a number up to 65535")?,
        Some(_) => return Err("the port is not a number up to 65535"),
    };
    let good = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        }
    };
    if good {
        Ok((host, port))
    } else {
        Err("the host is no name and no address")
    }
}

/// Whether packets to `host` stay on this machine. Other names are not resolved: what they mean may change.
fn loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(config: &EtcdConfig) -> Result<Vec<String>> {
        config.check()
    }

    #[test]
    fn endpoints_become_addresses() {
        let plain = |endpoint: &str| addresses(&EtcdConfig::new([endpoint])).map(|a| a.concat());
        for (given, wanted) in [
            ("h", "http://h:2379"),
            ("h:1", "http://h:1"),
            ("http://h:1/", "http://h:1"),
            ("[::1]", "http://[::1]:2379"),
            ("[::1]:7", "http://[::1]:7"),
            ("10.0.0.1:65535", "http://10.0.0.1:65535"),
        ] {
            assert_eq!(plain(given).unwrap(), wanted, "{given}");
        }
        for bad in [
            "",
            ":1",
            "h:",
            "h:x",
            "h:65536",
            "h:+1",
            "https://h",
            "ftp://h",
            "h/a",
            "u@h",
            "[::1",
            "[x]:1",
            "h:1:2",
            "::1",
        ] {
            assert_eq!(plain(bad).unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
        }
        let secure = EtcdConfig::new(["h", "https://i:3"]).with_tls(EtcdTls::new("pem"));
        assert_eq!(addresses(&secure).unwrap(), ["https://h:2379", "https://i:3"]);
        let mixed = EtcdConfig::new(["http://h"]).with_tls(EtcdTls::new("pem"));
        assert!(addresses(&mixed).is_err());
        assert!(addresses(&EtcdConfig::new(Vec::<String>::new())).is_err());
    }

    #[test]
    fn passwords_stay_off_the_wire() {
        let secret = || Secret::new("hunter2".to_owned());
        let far = EtcdConfig::new(["10.0.0.1"]).with_user("u", secret());
        assert_eq!(far.check().unwrap_err().kind(), ErrorKind::Invalid);
        let mut allowed = far.clone();
        allowed.allow_unsafe = true;
        assert!(allowed.check().is_ok());
        assert!(far.with_tls(EtcdTls::new("pem")).check().is_ok());
        for near in ["127.0.0.1", "localhost:1", "[::1]:1"] {
            assert!(
                EtcdConfig::new([near]).with_user("u", secret()).check().is_ok(),
                "{near}"
            );
        }
    }

    #[test]
    fn prefixes_cannot_reach_into_each_other() {
        for good in ["a", "skyloom/cloud-a", "docs2", "a.b"] {
            assert!(EtcdConfig::new(["h"]).with_prefix(good).check().is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "a//b",
            "a b",
            "a/docs",
            "docs/a",
            "a/held/b",
            "leases",
            "a/docs.head",
            &"a".repeat(129),
        ] {
            assert!(EtcdConfig::new(["h"]).with_prefix(bad).check().is_err(), "{bad}");
        }
    }

    #[test]
    fn half_of_a_pair_is_refused() {
        let mut config = EtcdConfig::new(["h"]);
        config.user = Some("u".to_owned());
        assert!(config.check().is_err());
        let mut tls = EtcdTls::new("ca");
        tls.cert_pem = Some("cert".to_owned());
        assert!(EtcdConfig::new(["h"]).with_tls(tls).check().is_err());
        let mut config = EtcdConfig::new(["h"]);
        config.request_timeout_ms = 0;
        assert!(config.check().is_err());
    }

    #[test]
    fn settings_are_read_with_defaults_and_unknown_ones_refused() {
        let read = |text: &str| serde_json::from_str::<EtcdConfig>(text);
        let config = read(r#"{"endpoints": ["h"], "user": "u", "password": "hunter2"}"#).unwrap();
        assert_eq!(
            (config.prefix.as_str(), config.request_timeout_ms),
            ("skyloom", 10_000)
        );
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(read(r#"{"endpoints": ["h"], "pasword": "x"}"#).is_err());
        assert!(read("{}").is_err());
    }
}
