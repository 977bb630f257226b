//! Where the API is, how to prove who asks, and how long to wait.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use skyloom_model::{Clock, Secret};
use skyloom_pki::ReloadingClient;
use skyloom_store::{Error, ErrorKind, Result};

/// Most watches of one connection: half of the streams that the API allows on one.
const MAX_WATCHES: usize = 128;

/// Settings of a [`crate::RemoteStore`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RemoteConfig {
    /// The API's base address, such as `https://cloud.example.org:8700`.
    pub url: String,
    /// The bearer token; nothing for who shows a certificate instead.
    pub token: Option<Secret<String>>,
    /// Certificates (PEM) of the only authorities to believe; `None` believes the operating system's.
    pub ca_pem: Option<Vec<u8>>,
    /// Whom to believe and what to show, instead of `ca_pem`; exchanged while it is in use.
    pub tls: Option<LiveTls>,
    /// Speak plain HTTP to other machines too: only inside a network that is protected by other means.
    pub allow_plain: bool,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for a whole answer, connecting included.
    pub request_timeout: Duration,
    /// Longest silence of a watch. The API sends a line every few seconds, so a longer silence is a dead peer.
    pub silence_timeout: Duration,
    /// After the connection broke, the next one is made within this time: at a moment of this client's own, so that the
    /// clients of a server that restarts do not all come back in the same instant. Doubled once when that fails too.
    pub reconnect_spread: Duration,
    /// How often the far end is asked whether it lives, and how long it may take to say so.
    pub ping: Duration,
    /// Most open watches; each more ends at once as overloaded.
    pub max_watches: usize,
}

/// TLS whose roots and certificate may be exchanged: what is asked after that is asked on a new connection.
#[derive(Debug, Clone)]
pub struct LiveTls {
    /// Roots, and the certificate to show.
    pub client: Arc<ReloadingClient>,
    /// Whether a certificate counts now.
    pub clock: Arc<dyn Clock>,
}

impl RemoteConfig {
    /// The API at `url` with `token`: 5 s to connect, 30 s for an answer, 20 s of silence; back within 2 s; a ping every
    /// 5 s; 128 watches.
    #[must_use]
    pub fn new(url: impl Into<String>, token: Secret<String>) -> Self {
        Self {
            url: url.into(),
            token: Some(token),
            ca_pem: None,
            tls: None,
            allow_plain: false,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            silence_timeout: Duration::from_secs(20),
            reconnect_spread: Duration::from_secs(2),
            ping: Duration::from_secs(5),
            max_watches: MAX_WATCHES,
        }
    }

    /// Believing only the authorities in `pem`.
    #[must_use]
    pub fn with_ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_pem = Some(pem.into());
        self
    }

    /// The API at `url` for a host that shows its certificate: no token, otherwise as [`RemoteConfig::new`].
    #[must_use]
    pub fn by_certificate(url: impl Into<String>, tls: LiveTls) -> Self {
        let mut config = Self::new(url, Secret::new(String::new())).with_tls(tls);
        config.token = None;
        config
    }

    /// Believing and showing what `tls` has.
    #[must_use]
    pub fn with_tls(mut self, tls: LiveTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// With plain HTTP to other machines allowed or not.
    #[must_use]
    pub fn with_allow_plain(mut self, allow: bool) -> Self {
        self.allow_plain = allow;
        self
    }

    /// With another longest wait for a connection.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// With another longest wait for an answer.
    #[must_use]
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// With another longest silence of a watch.
    #[must_use]
    pub fn with_silence_timeout(mut self, timeout: Duration) -> Self {
        self.silence_timeout = timeout;
        self
    }

    /// With another time within which a broken connection is made anew.
    #[must_use]
    pub fn with_reconnect_spread(mut self, spread: Duration) -> Self {
        self.reconnect_spread = spread;
        self
    }

    /// With another time between pings, and for their answers.
    #[must_use]
    pub fn with_ping(mut self, every: Duration) -> Self {
        self.ping = every;
        self
    }

    /// With another number of open watches, up to 128.
    #[must_use]
    pub fn with_max_watches(mut self, watches: usize) -> Self {
        self.max_watches = watches.min(MAX_WATCHES);
        self
    }

    /// The base address, checked.
    pub(crate) fn base(&self) -> Result<Url> {
        let invalid = |what: &str| {
            Error::new(ErrorKind::Invalid, "open remote store")
                .with("url", masked(&self.url))
                .because(what.to_owned())
        };
        let url = Url::parse(&self.url).map_err(|e| invalid(&e.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid(
                "the address carries a user name or password; use the token",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("the address carries a query or fragment"));
        }
        match url.scheme() {
            "https" => Ok(url),
            "http" if self.allow_plain || url.host_str().is_some_and(loopback) => Ok(url),
            "http" => Err(invalid("plain http is for loopback addresses only; use https")),
            _ => Err(invalid("the scheme is neither https nor http")),
        }
    }
}

/// An address without what may be a password.
fn masked(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}…{}", &url[..scheme + 3], &url[at..]),
        _ => url.to_owned(),
    }
}

/// Whether packets to `host` stay on this machine. Other names are not resolved: what they mean may change.
fn loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(url: &str) -> Result<Url> {
        RemoteConfig::new(url, Secret::new("t".to_owned())).base()
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        for good in [
            "http://127.0.0.1:1",
            "http://127.9.9.9",
            "http://[::1]:80/",
            "http://localhost:8700",
            "https://api.example.org",
        ] {
            assert!(base(good).is_ok(), "{good}");
        }
        for bad in [
            "http://10.0.0.1",
            "http://api.example.org",
            "http://localhost.example.org",
            "http://127.0.0.1.example.org",
            "http://[::ffff:10.0.0.1]",
            "ftp://127.0.0.1",
            "127.0.0.1:80",
            "",
            "http://127.0.0.1/?x=1",
        ] {
            assert!(base(bad).is_err(), "{bad}");
        }
        let allowed = RemoteConfig::new("http://10.0.0.1", Secret::new(String::new())).with_allow_plain(true);
        assert!(allowed.base().is_ok());
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_repeated() {
        let error = base("https://user:hunter2@api.example.org").unwrap_err();
        assert!(!skyloom_model::report(&error).contains("hunter2"));
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
