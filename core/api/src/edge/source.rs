//! Where a request comes from.
//!
//! It is the other end of the connection, unless that is a proxy on the list. Then it is the right-most address of
//! `X-Forwarded-For` that is no proxy on the list: each proxy appends who spoke to it, so what stands left of that one was
//! written by the client itself. Text that is no address ends the search; the last proxy is the source then.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request};
use http::HeaderMap;
use skyloom_identity::source_of;

use super::{Network, Wire};

/// Said of a request of which nobody knows where it comes from.
const UNKNOWN: &str = "unknown";

/// Where a request comes from. Handlers find it in the request's extensions.
#[derive(Debug, Clone)]
pub struct Source {
    address: Option<IpAddr>,
    name: Arc<str>,
    secure: bool,
}

impl Source {
    /// The client's address; `None`: nobody said.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }
    /// What it counts as where guessing is held back, and what an audit shows: see [`skyloom_identity::source_of`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Whether the client speaks TLS, to this server or to a proxy on the list.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    pub(super) fn of(request: &Request, wire: Option<Wire>, trusted: &[Network]) -> Self {
        let told = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let peer = wire.map(|wire| wire.peer).or(told.map(|told| told.0));
        let mut secure = wire.is_some_and(|wire| wire.tls);
        let address = peer.map(|peer| {
            let peer = peer.ip().to_canonical();
            if is_in(trusted, peer) {
                secure |= last(request.headers(), "x-forwarded-proto") == Some("https");
                client_behind(request.headers(), peer, trusted)
            } else {
                peer
            }
        });
        Self {
            address,
            name: address.map_or_else(|| Arc::from(UNKNOWN), |address| Arc::from(source_of(address))),
            secure,
        }
    }
}

fn is_in(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// The right-most word of a list header.
fn last<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let value = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    value.rsplit(',').next().map(str::trim)
}

fn client_behind(headers: &HeaderMap, peer: IpAddr, trusted: &[Network]) -> IpAddr {
    let mut nearest = peer;
    for value in headers.get_all("x-forwarded-for").iter().rev() {
        let Ok(value) = value.to_str() else { break };
        for hop in value.rsplit(',') {
            let Some(hop) = address(hop.trim()) else {
                return nearest;
            };
            nearest = hop;
            if !is_in(trusted, hop) {
                return hop;
            }
        }
    }
    nearest
}

/// An address as proxies write it: with or without a port, IPv6 with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match bracketed {
        Some(text) => text.parse().ok().filter(IpAddr::is_ipv6),
        None => text.parse().ok(),
    };
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|with_port| with_port.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use proptest::prelude::*;

    fn source(peer: &str, headers: &[(&str, &str)]) -> Source {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let wire = Wire {
            peer: peer.parse().unwrap(),
            tls: false,
        };
        let trusted = ["10.0.0.0/8", "fd00::1"].map(|network| network.parse().unwrap());
        Source::of(&request, Some(wire), &trusted)
    }

    #[test]
    fn only_proxies_on_the_list_say_who_is_behind_them() {
        let forwarded = |peer: &str, values: &[&str]| {
            let headers: Vec<_> = values.iter().map(|value| ("x-forwarded-for", *value)).collect();
            source(peer, &headers).name().to_owned()
        };
        for (peer, values, name) in [
            ("192.0.2.1:5", &[][..], "192.0.2.1"),
            ("192.0.2.1:5", &["198.51.100.9"], "192.0.2.1"),
            ("10.0.0.1:5", &["198.51.100.9"], "198.51.100.9"),
            // The client wrote the first one itself.
            ("10.0.0.1:5", &["10.0.0.7, 1.1.1.1, 198.51.100.9"], "198.51.100.9"),
            (
                "10.0.0.1:5",
                &["1.1.1.1", "198.51.100.9, 10.0.0.2"],
                "198.51.100.9",
            ),
            ("10.0.0.1:5", &["10.0.0.3,10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1:5", &["198.51.100.9, unknown"], "10.0.0.1"),
            ("10.0.0.1:5", &["198.51.100.9, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1:5", &[""], "10.0.0.1"),
            ("10.0.0.1:5", &["198.51.100.9:4711"], "198.51.100.9"),
            ("10.0.0.1:5", &["[2001:db8::1]:4711"], "2001:db8::/64"),
            ("10.0.0.1:5", &["[2001:db8::1]"], "2001:db8::/64"),
            ("10.0.0.1:5", &["[1.2.3.4]"], "10.0.0.1"),
            ("10.0.0.1:5", &["::ffff:10.0.0.9"], "10.0.0.9"),
            ("[::ffff:10.0.0.1]:5", &["198.51.100.9"], "198.51.100.9"),
            ("[fd00::1]:5", &["198.51.100.9"], "198.51.100.9"),
            ("[fd00::2]:5", &["198.51.100.9"], "fd00::/64"),
        ] {
            assert_eq!(forwarded(peer, values), name, "{peer} {values:?}");
        }
    }

    #[test]
    fn tls_is_believed_of_proxies_on_the_list_alone() {
        for (peer, proto, secure) in [
            ("10.0.0.1:5", "https", true),
            ("10.0.0.1:5", "http, https", true),
            ("10.0.0.1:5", "https, http", false),
            ("192.0.2.1:5", "https", false),
        ] {
            let source = source(peer, &[("x-forwarded-proto", proto)]);
            assert_eq!(source.is_secure(), secure, "{peer} {proto}");
        }
    }

    #[test]
    fn servers_of_products_tell_by_connect_info() {
        let mut request = Request::new(Body::empty());
        assert_eq!(Source::of(&request, None, &[]).name(), UNKNOWN);
        let peer: SocketAddr = "192.0.2.1:5".parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        let source = Source::of(&request, None, &[]);
        assert_eq!((source.name(), source.address()), ("192.0.2.1", Some(peer.ip())));
    }

    proptest! {
        /// Whatever a client writes, what its proxy adds at the right is what counts.
        #[test]
        fn a_client_cannot_choose_its_source(lie in "[0-9a-f:., \\[\\]x]{0,60}") {
            let value = format!("{lie}, 198.51.100.9");
            let source = source("10.0.0.1:5", &[("x-forwarded-for", &value)]);
            prop_assert_eq!(source.name(), "198.51.100.9");
        }
    }
}
