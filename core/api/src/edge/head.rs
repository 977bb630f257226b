//! Heads of requests: what different programs on the way could read differently is refused, and what only proxies and
//! parts of a cloud may say is taken out.
//!
//! Much of it never gets here: hyper refuses two lengths, folded lines, bare line feeds, spaces before colons, more than 100
//! headers (431), and paths that are none, with an answer of its own and the end of the connection. Of a length together
//! with `Transfer-Encoding` it forgets the length, and ends the connection after that request, so nothing can hide behind it.

use axum::extract::Request;
use http::header::{CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode, Uri, Version};
use skyloom_model::Reason;

use super::EdgeConfig;
use crate::problem::ApiError;

/// What clients of a cloud may say of those that begin with `x-skyloom-`.
const OURS: [&str; 1] = ["x-skyloom-project"];

/// Beginnings of headers by which proxies tell what they saw, frameworks whom they let in, and parts of a cloud talk.
const INTERNAL_STARTS: [&str; 14] = [
    "x-forwarded-",
    "x-skyloom-",
    "x-ssl-",
    "x-client-",
    "x-original-",
    "x-user-",
    "x-role",
    "x-project-",
    "x-domain-",
    "x-tenant",
    "x-is-admin",
    "x-identity-",
    "x-remote-",
    "x-envoy-",
];

/// The same, whole.
const INTERNAL: [&str; 17] = [
    "forwarded",
    "via",
    "x-real-ip",
    "x-user",
    "x-host",
    "x-rewrite-url",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-cluster-client-ip",
    "x-system-scope",
    "x-service-catalog",
    "x-service-roles",
    "true-client-ip",
    "cf-connecting-ip",
    "remote-user",
    "client-cert",
];

fn refusal(status: StatusCode, code: &'static str, message: String) -> ApiError {
    ApiError::new(status, Reason::new(code, message))
}

/// Refuses what is too much or ambiguous. `wire`: the request came through a listener of ours, not from within.
pub(super) fn check(config: &EdgeConfig, request: &Request, wire: bool) -> Result<(), ApiError> {
    let uri = request.uri();
    let target = uri.path().len() + uri.query().map_or(0, |query| query.len() + 1);
    if target > config.max_target {
        let message = format!("path and query are longer than {} bytes", config.max_target);
        return Err(refusal(
            StatusCode::URI_TOO_LONG,
            "request.target_too_long",
            message,
        ));
    }
    let headers = request.headers();
    let too_large = |message| {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Err(refusal(status, "request.headers_too_large", message))
    };
    if headers.len() > config.max_headers {
        return too_large(format!("there are more than {} headers", config.max_headers));
    }
    let long = |(name, value): (&HeaderName, &http::HeaderValue)| {
        name.as_str().len() + value.len() > config.max_header
    };
    if headers.iter().any(long) {
        return too_large(format!("a header is longer than {} bytes", config.max_header));
    }
    let wrong = |code, message: &str| Err(refusal(StatusCode::BAD_REQUEST, code, message.to_owned()));
    let lengths = headers.get_all(CONTENT_LENGTH).iter().count();
    if lengths > 1 || (lengths == 1 && headers.contains_key(TRANSFER_ENCODING)) {
        return wrong("request.length", "the length of the body is told in two ways");
    }
    if !host_is_clear(uri, headers, wire && request.version() == Version::HTTP_11) {
        return wrong(
            "request.host",
            "the host is missing, malformed, or told in two ways",
        );
    }
    Ok(())
}

/// Whether there is one host at most, of good form, in the target and the header `Host`; one at least, if it is `needed`.
fn host_is_clear(uri: &Uri, headers: &HeaderMap, needed: bool) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match hosts.next().map(http::HeaderValue::to_str) {
        Some(Ok(host)) => Some(host),
        Some(Err(_)) => return false,
        None => None,
    };
    let authority = uri.authority().map(http::uri::Authority::as_str);
    if hosts.next().is_some() || (needed && host.is_none()) {
        return false;
    }
    if let (Some(host), Some(authority)) = (host, authority)
        && !host.eq_ignore_ascii_case(authority)
    {
        return false;
    }
    host.is_none_or(well_formed) && authority.is_none_or(well_formed)
}

/// `name`, `name:port`, `[::1]:port`; no user, no path, no list.
fn well_formed(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inner, rest)) => {
            if inner.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            (None, rest.strip_prefix(':').or(rest.is_empty().then_some("")))
        }
        None => match host.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(host), Some("")),
        },
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let name_fits = name.is_none_or(|name| (1..=255).contains(&name.len()) && name.bytes().all(plain));
    let port_fits = port.is_some_and(|port| {
        port.is_empty() || (port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok())
    });
    name_fits && port_fits
}

/// Takes out what clients may not say.
pub(super) fn strip(headers: &mut HeaderMap) {
    let internal: Vec<HeaderName> = headers.keys().filter(|name| is_internal(name)).cloned().collect();
    for name in internal {
        headers.remove(name);
    }
}

fn is_internal(name: &HeaderName) -> bool {
    let name = name.as_str();
    // The bytes that any of them begins with.
    if !name.starts_with(['x', 'f', 'v', 't', 'c', 'r']) || OURS.contains(&name) {
        return false;
    }
    INTERNAL.contains(&name) || INTERNAL_STARTS.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use proptest::prelude::*;

    #[test]
    fn hosts_have_one_form() {
        for good in [
            "x",
            "cloud.example",
            "cloud.example:8780",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:8780",
            "x:",
            "a_b.c",
        ] {
            assert!(well_formed(good), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a,b",
            "user@x",
            "x/y",
            "x:99999",
            "x:-1",
            "x:8o",
            "[::1",
            "::1",
            "[x]",
            "[::1]x",
            "x\\y",
            "x?y",
            "x#y",
            "é",
            "[::1]:8:9",
            "x:8:9",
            "<x>",
        ] {
            assert!(!well_formed(bad), "{bad}");
        }
        assert!(!well_formed(&"x".repeat(256)));
    }

    fn clear(uri: &str, hosts: &[&str], needed: bool) -> bool {
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let request = request.body(Body::empty()).unwrap();
        host_is_clear(request.uri(), request.headers(), needed)
    }

    #[test]
    fn one_host_is_told_and_in_one_way() {
        assert!(clear("/", &["x"], true) && clear("/", &[], false) && !clear("/", &[], true));
        assert!(!clear("/", &["x", "x"], true) && !clear("/", &["x", "y"], true));
        assert!(clear("http://X:1/", &["x:1"], true) && clear("http://x/", &[], false));
        assert!(!clear("http://x/", &["y"], true) && !clear("http://x:1/", &["x"], true));
        assert!(!clear("http://user@x/", &["user@x"], true));
    }

    #[test]
    fn what_only_others_may_say_is_taken_out_and_nothing_else() {
        let told = [
            "x-forwarded-for",
            "x-forwarded-host",
            "forwarded",
            "x-real-ip",
            "x-user-id",
            "x-roles",
            "x-is-admin-project",
            "x-project-id",
            "x-http-method-override",
            "x-skyloom-host",
            "x-client-cert",
            "x-tenant",
            "x-domain-name",
        ];
        let kept = [
            "x-skyloom-project",
            "x-request-id",
            "x-auth-token",
            "x-subject-token",
            "x-service-token",
            "authorization",
            "host",
            "idempotency-key",
            "if-match",
            "content-type",
            "traceparent",
            "range",
            "x-requested-with",
            "cookie",
            "te",
        ];
        let mut headers = HeaderMap::new();
        for name in told.into_iter().chain(kept) {
            headers.append(HeaderName::from_static(name), http::HeaderValue::from_static("1"));
            headers.append(HeaderName::from_static(name), http::HeaderValue::from_static("2"));
        }
        strip(&mut headers);
        assert_eq!(headers.keys_len(), kept.len(), "{headers:?}");
        assert!(kept.iter().all(|name| headers.get_all(*name).iter().count() == 2));
    }

    #[test]
    fn the_short_way_knows_all_first_bytes() {
        for name in INTERNAL.into_iter().chain(INTERNAL_STARTS) {
            let whole = format!("{name}{}", if name.ends_with('-') { "x" } else { "" });
            assert!(is_internal(&whole.parse().unwrap()), "{name}");
        }
        assert!(
            OURS.iter()
                .all(|name| !is_internal(&HeaderName::from_static(name)))
        );
    }

    proptest! {
        #[test]
        fn a_host_that_is_clear_is_an_authority(host in "[a-zA-Z0-9.:@/\\[\\]_ ,%-]{0,20}") {
            if well_formed(&host) {
                let authority: http::uri::Authority = host.parse().unwrap();
                prop_assert!(!authority.as_str().contains('@'));
                prop_assert!(!authority.host().is_empty());
            }
        }
    }
}
