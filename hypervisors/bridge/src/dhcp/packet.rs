//! DHCP's messages (RFC 2131, 2132): what of a request matters, and how a reply is written.

use std::net::Ipv4Addr;

use skyloom_model::MacAddr;

const FIXED: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Least length of a reply: some clients want BOOTP's.
const LEAST: usize = 300;

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Is anybody there?
    Discover,
    /// I take, or keep, an address.
    Request,
    /// I have an address; tell me the rest.
    Inform,
}

/// A client's message, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) kind: Kind,
    pub(crate) xid: [u8; 4],
    pub(crate) flags: [u8; 2],
    pub(crate) mac: MacAddr,
    /// The address that it uses already.
    pub(crate) current: Option<Ipv4Addr>,
    /// The address that it asks for.
    pub(crate) wanted: Option<Ipv4Addr>,
    /// The server that it has chosen.
    pub(crate) server: Option<Ipv4Addr>,
}

fn four(bytes: &[u8]) -> Option<[u8; 4]> {
    bytes.try_into().ok()
}

impl Request {
    /// Whether the client cannot be answered at its address yet.
    pub(crate) fn broadcast(&self) -> bool {
        self.flags[0] & 0x80 != 0
    }

    /// Reads a client's message. What is no request of an Ethernet client directly on the network is nothing.
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let fixed = message.get(..FIXED)?;
        let request_over_ethernet = fixed[..3] == [1, 1, 6];
        if !request_over_ethernet || fixed[24..28] != [0; 4] || message.get(FIXED..FIXED + 4)? != COOKIE {
            return None;
        }
        let mac: [u8; 6] = fixed[28..34].try_into().ok()?;
        let current = Ipv4Addr::from(four(&fixed[12..16])?);
        let (mut kind, mut wanted, mut server) = (None, None, None);
        for (code, value) in Options(&message[FIXED + 4..]) {
            match (code, value) {
                (53, [1]) => kind = Some(Kind::Discover),
                (53, [3]) => kind = Some(Kind::Request),
                (53, [8]) => kind = Some(Kind::Inform),
                (50, address) => wanted = Some(four(address)?.into()),
                (54, address) => server = Some(four(address)?.into()),
                _ => {}
            }
        }
        Some(Self {
            kind: kind?,
            xid: four(&fixed[4..8])?,
            flags: fixed[10..12].try_into().ok()?,
            mac: MacAddr(mac),
            current: (!current.is_unspecified()).then_some(current),
            wanted,
            server,
        })
    }
}

/// Options one after the other; ends where they end, or make no sense.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u8, &'a [u8]);
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (code, rest) = self.0.split_first()?;
            match code {
                0 => self.0 = rest,
                255 => return None,
                code => {
                    let (length, rest) = rest.split_first()?;
                    let (value, rest) = rest.split_at_checked(usize::from(*length))?;
                    self.0 = rest;
                    return Some((*code, value));
                }
            }
        }
    }
}

/// A server's message.
#[derive(Debug)]
pub(super) struct Reply(Vec<u8>);

impl Reply {
    pub(super) const OFFER: u8 = 2;
    pub(super) const ACK: u8 = 5;
    pub(super) const NAK: u8 = 6;

    /// Begins an answer of `kind` to `request`, which gives `address`.
    pub(super) fn to(request: &Request, kind: u8, address: Option<Ipv4Addr>, server: Ipv4Addr) -> Self {
        let mut message = vec![0; FIXED];
        message[..3].copy_from_slice(&[2, 1, 6]);
        message[4..8].copy_from_slice(&request.xid);
        message[10..12].copy_from_slice(&request.flags);
        if let (Some(current), true) = (request.current, kind == Self::ACK) {
            message[12..16].copy_from_slice(&current.octets());
        }
        if let Some(address) = address {
            message[16..20].copy_from_slice(&address.octets());
        }
        message[28..34].copy_from_slice(&request.mac.0);
        message.extend(COOKIE);
        let mut reply = Self(message);
        reply.option(53, &[kind]);
        reply.option(54, &server.octets());
        reply
    }
    /// Adds an option; a long one in several parts (RFC 3396).
    pub(super) fn option(&mut self, code: u8, value: &[u8]) {
        for part in value.chunks(255) {
            // A part has at most 255 bytes.
            self.0.extend([code, part.len() as u8]);
            self.0.extend(part);
        }
    }
    pub(super) fn done(mut self) -> Vec<u8> {
        self.0.push(255);
        if self.0.len() < LEAST {
            self.0.resize(LEAST, 0);
        }
        self.0
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message as clients send it.
    pub(in crate::dhcp) fn message(request: &Request) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[4..8].copy_from_slice(&request.xid);
        bytes[10..12].copy_from_slice(&request.flags);
        if let Some(current) = request.current {
            bytes[12..16].copy_from_slice(&current.octets());
        }
        bytes[28..34].copy_from_slice(&request.mac.0);
        bytes.extend(COOKIE);
        let kind = match request.kind {
            Kind::Discover => 1,
            Kind::Request => 3,
            Kind::Inform => 8,
        };
        bytes.extend([0, 53, 1, kind, 55, 3, 1, 3, 6]);
        for (code, address) in [(50, request.wanted), (54, request.server)] {
            if let Some(address) = address {
                bytes.extend([code, 4]);
                bytes.extend(address.octets());
            }
        }
        bytes.push(255);
        bytes
    }

    /// Options of a reply, the parts of long ones joined.
    pub(in crate::dhcp) fn option(reply: &[u8], code: u8) -> Vec<u8> {
        let all = Options(&reply[FIXED + 4..]).filter(|(c, _)| *c == code);
        all.flat_map(|(_, value)| value.to_vec()).collect()
    }

    proptest! {
        #[test]
        fn requests_are_read_as_they_were_written(
            xid: [u8; 4], flags: [u8; 2], mac: [u8; 6], which in 0..3_u8,
            current: Option<u32>, wanted: Option<u32>, server: Option<u32>,
        ) {
            let address = |a: Option<u32>| a.map(Ipv4Addr::from);
            let kind = [Kind::Discover, Kind::Request, Kind::Inform][usize::from(which)];
            let request = Request {
                kind, xid, flags, mac: MacAddr(mac),
                current: address(current).filter(|a| !a.is_unspecified()),
                wanted: address(wanted), server: address(server),
            };
            let bytes = message(&request);
            prop_assert_eq!(Request::parse(&bytes), Some(request));
            for length in 0..FIXED + 8 {
                prop_assert_eq!(Request::parse(&bytes[..length]), None);
            }
        }

        #[test]
        fn anything_else_is_read_without_harm(
            mut start in proptest::collection::vec(any::<u8>(), 0..300), rest in proptest::collection::vec(any::<u8>(), 0..300),
            like in any::<bool>(),
        ) {
            if like {
                start.resize(FIXED, 0);
                start[..3].copy_from_slice(&[1, 1, 6]);
                start[24..28].fill(0);
                start.extend(COOKIE);
            }
            start.extend(rest);
            let _ = Request::parse(&start);
        }
    }

    #[test]
    fn relayed_and_foreign_messages_are_nothing() {
        let request = Request {
            kind: Kind::Discover,
            xid: [1; 4],
            flags: [0; 2],
            mac: MacAddr([2; 6]),
            current: None,
            wanted: None,
            server: None,
        };
        let good = message(&request);
        for (at, byte) in [(0, 2), (1, 6), (2, 8), (24, 1), (FIXED, 1)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(Request::parse(&bad), None, "byte {at}");
        }
    }
}
