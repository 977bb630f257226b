//! `postgres://user:password@host:port/database?prefix=cloud1&…` as settings.
//!
//! An own small parser, so that no error ever repeats the password.

use skyloom_model::Secret;
use skyloom_store::{Error, ErrorKind, Result};

use super::config::{Engine, ServerConfig, TlsMode};

/// Why a URI is refused. The texts are fixed; what is shown of the URI is named beside them.
fn refuse(why: &'static str) -> Error {
    Error::new(ErrorKind::Invalid, super::OPEN).with("uri", why).with(
        "wanted",
        "postgres://user:password@host:port/database?option=value, or mysql://…",
    )
}

pub(super) fn parse(uri: &str) -> Result<ServerConfig> {
    let (scheme, rest) = uri.split_once("://").ok_or_else(|| refuse("has no scheme"))?;
    let engine = match scheme {
        "postgres" | "postgresql" => Engine::Postgres,
        "mysql" | "mariadb" => Engine::MySql,
        _ => return Err(refuse("has an unknown scheme")),
    };
    if rest.contains('#') {
        return Err(refuse("has a #; write %23"));
    }
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = address
        .split_once('/')
        .ok_or_else(|| refuse("names no database"))?;
    // The last @: whoever forgot to escape one in the password is not sent to another host.
    let (login, place) = authority
        .rsplit_once('@')
        .ok_or_else(|| refuse("names no user"))?;
    if login.contains('@') {
        return Err(refuse("has an @ in the login; write %40"));
    }
    let (user, password) = match login.split_once(':') {
        Some((user, password)) => (user, Some(decoded(password)?)),
        None => (login, None),
    };
    let mut config = ServerConfig::new(engine, decoded(path)?, decoded(user)?);
    config.password = password.map(Secret::new);
    set_place(&mut config, place)?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| refuse("has an option without a value"))?;
        option(&mut config, name, decoded(value)?)?;
    }
    config.check(engine)?;
    Ok(config)
}

/// `host`, `host:port`, `[::1]:port`, or nothing.
fn set_place(config: &mut ServerConfig, place: &str) -> Result<()> {
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (host, port) = rest
            .split_once(']')
            .ok_or_else(|| refuse("has a [ without its ]"))?;
        match port.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if port.is_empty() => (host, None),
            None => return Err(refuse("has something between ] and the port")),
        }
    } else {
        match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        }
    };
    if !host.is_empty() {
        config.host = decoded(host)?;
    }
    config.port = match port {
        Some(port) => Some(port.parse().map_err(|_| refuse("has a port that is no number"))?),
        None => None,
    };
    Ok(())
}

fn option(config: &mut ServerConfig, name: &str, value: String) -> Result<()> {
    let number = || {
        value
            .parse::<u64>()
            .map_err(|_| refuse("has an option that is no number"))
    };
    let small = || {
        value
            .parse::<u32>()
            .map_err(|_| refuse("has an option that is no number"))
    };
    match name {
        "socket" => config.socket = Some(value.into()),
        "schema" => config.schema = Some(value),
        "prefix" => config.prefix = value,
        "name" => config.name = value,
        "tls" => {
            config.tls = match value.as_str() {
                "auto" => TlsMode::Auto,
                "off" => TlsMode::Off,
                "require" => TlsMode::Require,
                "verify-ca" => TlsMode::VerifyCa,
                "verify-full" => TlsMode::VerifyFull,
                _ => {
                    return Err(refuse(
                        "has tls other than auto, off, require, verify-ca, verify-full",
                    ));
                }
            }
        }
        "tls_ca" => config.tls_ca = Some(value.into()),
        "tls_cert" => config.tls_cert = Some(value.into()),
        "tls_key" => config.tls_key = Some(value.into()),
        "connections" => config.connections = small()?,
        "max_history" => config.max_history = number()?,
        "max_batch" => config.max_batch = usize::try_from(number()?).unwrap_or(usize::MAX),
        "max_queued_kib" => config.max_queued_kib = small()?,
        "max_wait_ms" => config.max_wait_ms = number()?,
        "statement_timeout_ms" => config.statement_timeout_ms = number()?,
        "stall_ms" => config.stall_ms = number()?,
        "allow_unsafe" => {
            config.allow_unsafe = match value.as_str() {
                "true" => true,
                "false" => false,
                _ => return Err(refuse("has allow_unsafe other than true, false")),
            }
        }
        _ => {
            return Err(refuse("has an unknown option").with("option", name));
        }
    }
    Ok(())
}

/// Resolves `%41`.
fn decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
            _ => return Err(refuse("has a % without two hexadecimal digits")),
        }
    }
    String::from_utf8(bytes).map_err(|_| refuse("has escapes that are no UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn everything_that_can_be_said() {
        let c = parse("postgres://me:p%40ss%2Fw@db.example.org:5433/cloud?prefix=c1&schema=sky&tls=require&max_wait_ms=7&allow_unsafe=true")
            .unwrap();
        assert_eq!(
            (c.engine, c.host.as_str(), c.port),
            (Engine::Postgres, "db.example.org", Some(5433))
        );
        assert_eq!((c.user.as_str(), c.database.as_str()), ("me", "cloud"));
        assert_eq!(c.password.unwrap().expose(), "p@ss/w");
        assert_eq!((c.prefix.as_str(), c.schema.as_deref()), ("c1", Some("sky")));
        assert_eq!(
            (c.tls, c.max_wait_ms, c.allow_unsafe),
            (TlsMode::Require, 7, true)
        );
        let c = parse("mariadb://me@[::1]:3307/cloud").unwrap();
        assert_eq!(
            (c.engine, c.host.as_str(), c.port),
            (Engine::MySql, "::1", Some(3307))
        );
        let c = parse("mysql://me@/cloud?socket=/run/mysqld/mysqld.sock").unwrap();
        assert_eq!(c.socket.unwrap().to_str(), Some("/run/mysqld/mysqld.sock"));
        assert_eq!(c.host, "localhost");
    }

    #[test]
    fn what_is_wrong_is_refused_without_the_password() {
        for bad in [
            "",
            "postgres:me:hunter2@h/db",
            "oracle://me:hunter2@h/db",
            "postgres://h/db",
            "postgres://me:hunter2@h",
            "postgres://me:hunter2@h/",
            "postgres://me:hunter2@h:x/db",
            "postgres://me:hunter2@[::1/db",
            "postgres://me:hunter2@[::1]x/db",
            "postgres://me:hunter2@evil@h/db",
            "postgres://me:hunter2#@h/db",
            "postgres://me:hunter2%4@h/db",
            "postgres://me:hunter2%ff@h/db",
            "postgres://me:hunter2@h/db?prefix",
            "postgres://me:hunter2@h/db?colour=red",
            "postgres://me:hunter2@h/db?prefix=A",
            "postgres://me:hunter2@h/db?tls=maybe",
            "postgres://me:hunter2@h/db?max_batch=many",
            "postgres://me:hunter2@h/db?max_batch=0",
            "postgres://me:hunter2@h/db?allow_unsafe=yes",
            "mysql://me:hunter2@h/db?schema=public",
        ] {
            let error = parse(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
            let shown = format!("{} {error:?}", skyloom_model::report(&error));
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    fn encoded(text: &str) -> String {
        text.bytes().map(|b| format!("%{b:02X}")).collect()
    }

    proptest! {
        #[test]
        fn any_text_comes_through_escaped(user in "[^\\p{Cc}]{1,20}", password in ".{0,20}", database in "[^\\p{Cc}]{1,20}") {
            let uri = format!("mysql://{}:{}@h:1/{}", encoded(&user), encoded(&password), encoded(&database));
            let config = parse(&uri).unwrap();
            prop_assert_eq!(config.user, user);
            let found = config.password.map(|p| p.expose().clone());
            prop_assert_eq!(found, Some(password));
            prop_assert_eq!(config.database, database);
        }

        #[test]
        fn no_text_makes_it_panic_or_show_a_password(tail in ".{0,60}") {
            if let Err(error) = parse(&format!("postgres://me:hunter2@{tail}")) {
                let shown = format!("{error:?}");
                prop_assert!(!shown.contains("hunter2"), "{}", shown);
            }
        }
    }
}
