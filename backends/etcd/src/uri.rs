//! `etcd://` addresses as settings.

use skyloom_model::Secret;
use skyloom_store::{Error, ErrorKind, Result};

use crate::config::{EtcdConfig, EtcdTls};

impl EtcdConfig {
    /// Reads `etcd://[user:password@]host[:port][,host[:port]…][/prefix][?option=value&…]`.
    ///
    /// User, password and option values may be percent-encoded. The options:
    ///
    /// | option | meaning |
    /// | --- | --- |
    /// | `ca` | file with the authorities to believe (PEM); turns TLS on |
    /// | `cert`, `key` | files with the client's certificate and key (PEM) |
    /// | `server_name` | the name in the server's certificate |
    /// | `connect_timeout_ms`, `request_timeout_ms`, `max_request_bytes`, `allow_unsafe` | as the field |
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when it cannot be read, or a file it names cannot be. The password is not repeated.
    pub fn from_uri(uri: &str) -> Result<Self> {
        let invalid = |what: String| Error::new(ErrorKind::Invalid, "read etcd address").because(what);
        let rest = uri
            .strip_prefix("etcd://")
            .ok_or_else(|| invalid("it does not begin with etcd://".to_owned()))?;
        if rest.contains('#') {
            return Err(invalid(
                "it has a fragment (#); write %23 in a password".to_owned(),
            ));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (place, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = match place.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, place),
        };
        let mut config = Self::new(hosts.split(','));
        if let Some(credentials) = credentials {
            let (user, password) = credentials
                .split_once(':')
                .ok_or_else(|| invalid("there is a user without a password".to_owned()))?;
            let user = decoded(user).ok_or_else(|| invalid("the user is badly encoded".to_owned()))?;
            let password =
                decoded(password).ok_or_else(|| invalid("the password is badly encoded".to_owned()))?;
            config = config.with_user(user, Secret::new(password));
        }
        if !prefix.is_empty() {
            prefix
                .strip_suffix('/')
                .unwrap_or(prefix)
                .clone_into(&mut config.prefix);
        }
        let mut tls = Files::default();
        for option in query.split('&').filter(|o| !o.is_empty()) {
            let (name, value) = option
                .split_once('=')
                .and_then(|(name, value)| Some((name, decoded(value)?)))
                .ok_or_else(|| invalid(format!("the option {option} is not name=value")))?;
            let bad = || invalid(format!("{name}={value} is not a value of that option"));
            match name {
                "ca" => tls.ca = Some(value),
                "cert" => tls.cert = Some(value),
                "key" => tls.key = Some(value),
                "server_name" => tls.server_name = Some(value),
                "connect_timeout_ms" => config.connect_timeout_ms = value.parse().map_err(|_| bad())?,
                "request_timeout_ms" => config.request_timeout_ms = value.parse().map_err(|_| bad())?,
                "max_request_bytes" => config.max_request_bytes = value.parse().map_err(|_| bad())?,
                "allow_unsafe" => config.allow_unsafe = value.parse().map_err(|_| bad())?,
                _ => {
                    return Err(invalid(format!(
                        "there is no option {name}; there are ca, cert, key, server_name, connect_timeout_ms, \
                         request_timeout_ms, max_request_bytes and allow_unsafe"
                    )));
                }
            }
        }
        config.tls = tls.read()?;
        config.check()?;
        Ok(config)
    }
}

/// The TLS options of an address: names of files.
#[derive(Debug, Default)]
struct Files {
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    server_name: Option<String>,
}

impl Files {
    fn read(self) -> Result<Option<EtcdTls>> {
        let Some(ca) = self.ca else {
            if self.cert.is_some() || self.key.is_some() || self.server_name.is_some() {
                return Err(Error::new(ErrorKind::Invalid, "read etcd address")
                    .because("TLS options without ca: name the file with the authorities to believe"));
            }
            return Ok(None);
        };
        let mut tls = EtcdTls::new(file(&ca)?);
        tls.cert_pem = self.cert.as_deref().map(file).transpose()?;
        tls.key_pem = self.key.as_deref().map(file).transpose()?.map(Secret::new);
        tls.server_name = self.server_name;
        Ok(Some(tls))
    }
}

fn file(path: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| {
        Error::new(ErrorKind::Invalid, "read etcd address")
            .with("file", path)
            .because(e)
    })
}

/// Without percent-encoding; `None` when it is broken or no UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            let digit = |d: u8| char::from(d).to_digit(16);
            bytes.push(u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_whole_address() {
        let config = EtcdConfig::from_uri(
            "etcd://sky:p%40ss%2Fw%3Ard@127.0.0.1:1,[::1]:2,localhost/clouds/a/?request_timeout_ms=7000&allow_unsafe=true",
        )
        .unwrap();
        assert_eq!(config.endpoints, ["127.0.0.1:1", "[::1]:2", "localhost"]);
        assert_eq!(config.prefix, "clouds/a");
        assert_eq!(config.user.as_deref(), Some("sky"));
        assert_eq!(config.password.unwrap().expose(), "p@ss/w:rd");
        assert_eq!((config.request_timeout_ms, config.allow_unsafe), (7000, true));
        assert!(config.tls.is_none());
    }

    #[test]
    fn the_shortest_address() {
        let config = EtcdConfig::from_uri("etcd://h").unwrap();
        assert_eq!(
            (config.endpoints, config.prefix),
            (vec!["h".to_owned()], "skyloom".to_owned())
        );
    }

    #[test]
    fn files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, name).unwrap();
            path.display().to_string()
        };
        let (ca, cert, key) = (write("ca"), write("cert"), write("key"));
        let uri = format!("etcd://10.0.0.1?ca={ca}&cert={cert}&key={key}&server_name=etcd.example");
        let tls = EtcdConfig::from_uri(&uri).unwrap().tls.unwrap();
        assert_eq!(
            (tls.ca_pem.as_str(), tls.cert_pem.as_deref()),
            ("ca", Some("cert"))
        );
        assert_eq!(tls.key_pem.unwrap().expose(), "key");
        assert_eq!(tls.server_name.as_deref(), Some("etcd.example"));
        let missing = EtcdConfig::from_uri("etcd://h?ca=/no/such/file").unwrap_err();
        assert!(skyloom_model::report(&missing).contains("/no/such/file"));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for bad in [
            "etcd:",
            "http://h",
            "etcd://",
            "etcd://,",
            "etcd://u@h",
            "etcd://u:hunter2%@h",
            "etcd://u:hunter2@h:x",
            "etcd://u:hunter2@10.0.0.1",
            "etcd://h?x=1",
            "etcd://h?ca",
            "etcd://h?request_timeout_ms=soon",
            "etcd://h?allow_unsafe=1",
            "etcd://h?cert=/x",
            "etcd://h/a b",
            "etcd://h/docs",
            "etcd://u:hunter2#@h",
        ] {
            let error = EtcdConfig::from_uri(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
            assert!(!skyloom_model::report(&error).contains("hunter2"), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_password_can_be_written(password in "\\PC{1,20}") {
            let mut encoded = String::new();
            for byte in password.bytes() {
                write!(encoded, "%{byte:02X}").unwrap();
            }
            let config = EtcdConfig::from_uri(&format!("etcd://u:{encoded}@localhost/p")).unwrap();
            prop_assert_eq!(config.password.map(|p| p.expose().clone()), Some(password));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            let _ = EtcdConfig::from_uri(&text);
            let _ = EtcdConfig::from_uri(&format!("etcd://{text}"));
        }
    }
}
