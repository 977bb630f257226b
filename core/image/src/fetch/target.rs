//! URLs that a user may name, checked as text before anything is resolved.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::Url;
use skyloom_model::Reason;

use super::FetchPolicy;
use super::address::permitted;

/// Longest URL.
const MAX_URL: usize = 2048;

/// Checks a URL as a user gave it: form, scheme, credentials, and a literal address against the policy. Names are
/// checked when they are resolved.
///
/// # Errors
/// `url.invalid`, `url.scheme`, `url.credentials`, `url.host`, `url.address_denied`.
pub fn check_url(text: &str, policy: &FetchPolicy) -> Result<Url, Reason> {
    if text.len() > MAX_URL
        || text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || c == '\\')
    {
        return Err(Reason::new(
            "url.invalid",
            "the URL is too long or has blanks, backslashes or control characters",
        ));
    }
    let url = Url::parse(text).map_err(|error| Reason::new("url.invalid", format!("no URL: {error}")))?;
    check(&url, written_host(text), policy)?;
    Ok(url)
}

/// Checks where a redirect from `base` leads.
pub(super) fn check_redirect(base: &Url, location: &str, policy: &FetchPolicy) -> Result<Url, Reason> {
    let absolute = location
        .split_once("//")
        .is_some_and(|(before, _)| before.is_empty() || before.ends_with(':'));
    if absolute && !location.starts_with("//") {
        return check_url(location, policy);
    }
    let odd = location.len() > MAX_URL || location.chars().any(|c| c.is_control() || c == '\\');
    let url = match base.join(location) {
        Ok(url) if !odd => url,
        _ => {
            return Err(Reason::new(
                "url.invalid",
                "the server redirects to something that is no URL",
            ));
        }
    };
    let host = if absolute {
        written_host(location)
    } else {
        base.host_str()
    };
    check(&url, host, policy)?;
    Ok(url)
}

fn check(url: &Url, written: Option<&str>, policy: &FetchPolicy) -> Result<(), Reason> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(
            Reason::new("url.scheme", format!("{}: is no accepted scheme", url.scheme()))
                .hint("Use http: or https:."),
        );
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Reason::new(
            "url.credentials",
            "the URL carries a user name or password",
        ));
    }
    let host = url.host_str().unwrap_or_default();
    // A parser takes 2130706433 and 0x7f.1 for 127.0.0.1. Whoever writes an address so means to deceive.
    if let Some(address) = literal(host) {
        if written.is_none_or(|w| !w.eq_ignore_ascii_case(host)) {
            return Err(Reason::new(
                "url.host",
                format!("the host is an odd spelling of {address}"),
            ));
        }
        if !permitted(address, &policy.allow) {
            return Err(denied(host));
        }
    }
    Ok(())
}

pub(super) fn denied(host: &str) -> Reason {
    Reason::new(
        "url.address_denied",
        format!("{host} is not in the public network"),
    )
    .hint("An operator can allow blocks of addresses for downloads.")
}

/// The address, if the (normalised) host is one.
fn literal(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// The host as it is written in the text, after `//` and before port or path.
fn written_host(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("//")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.find(']') {
        Some(end) => host.get(..=end),
        None => host.split(':').next(),
    }
}
