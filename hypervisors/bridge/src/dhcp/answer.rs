//! What a port is told by DHCP: its own address, or that another one is none of it.

use std::net::{IpAddr, Ipv4Addr};

use skyloom_hypervisor::{PortWiring, Prefix, Route, SubnetWiring};

use super::packet::{Kind, Reply, Request};
use crate::rules::METADATA;

/// How long a client may go on without asking again: a day. It asks when half of it is over.
const LEASE: u32 = 86_400;

/// The answer and where it goes, if there is one.
pub(crate) fn answer(request: &Request, wiring: &PortWiring) -> Option<(Vec<u8>, Ipv4Addr)> {
    let (address, subnet) = served(wiring)?;
    if request.server.is_some_and(|server| server != METADATA) {
        return None;
    }
    let asked = request.wanted.or(request.current);
    let (kind, given) = match request.kind {
        Kind::Discover => (Reply::OFFER, Some(address)),
        Kind::Request if asked == Some(address) => (Reply::ACK, Some(address)),
        Kind::Request => (Reply::NAK, None),
        Kind::Inform => (Reply::ACK, None),
    };
    let mut reply = Reply::to(request, kind, given, METADATA);
    if kind == Reply::NAK {
        return Some((reply.done(), Ipv4Addr::BROADCAST));
    }
    if given.is_some() {
        for (code, seconds) in [(51, LEASE), (58, LEASE / 2), (59, LEASE / 8 * 7)] {
            reply.option(code, &seconds.to_be_bytes());
        }
    }
    configure(&mut reply, wiring, subnet);
    // Its neighbour entry is there already, so that it hears us before it has the address.
    let to = if request.broadcast() && request.current.is_none() {
        Ipv4Addr::BROADCAST
    } else {
        address
    };
    Some((reply.done(), to))
}

/// The first address that the port is told by DHCP.
fn served(wiring: &PortWiring) -> Option<(Ipv4Addr, &SubnetWiring)> {
    wiring.addresses.iter().find_map(|address| {
        let subnet = wiring
            .network
            .subnets
            .iter()
            .find(|s| s.prefix.contains(*address))?;
        match address {
            IpAddr::V4(address) if subnet.dhcp => Some((*address, subnet)),
            _ => None,
        }
    })
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn configure(reply: &mut Reply, wiring: &PortWiring, subnet: &SubnetWiring) {
    let mask = u32::MAX
        .checked_shl(32 - u32::from(subnet.prefix.bits()))
        .unwrap_or(0);
    reply.option(1, &mask.to_be_bytes());
    let gateway = subnet.gateway.and_then(v4);
    if let Some(gateway) = gateway {
        reply.option(3, &gateway.octets());
    }
    let dns: Vec<u8> = subnet
        .dns
        .iter()
        .filter_map(|a| v4(*a))
        .flat_map(|a| a.octets())
        .collect();
    reply.option(6, &dns);
    reply.option(12, wiring.hostname.as_str().as_bytes());
    reply.option(26, &wiring.network.mtu.to_be_bytes());
    // Who reads this does not read the gateway above (RFC 3442), so that it is said again.
    let mut routes = route(Prefix::host(IpAddr::V4(METADATA)), Ipv4Addr::UNSPECIFIED);
    for Route { to, via } in &subnet.routes {
        if let Some(via) = v4(*via) {
            routes.extend(route(*to, via));
        }
    }
    if let (Some(gateway), Some(all)) = (gateway, Prefix::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)) {
        routes.extend(route(all, gateway));
    }
    reply.option(121, &routes);
}

/// A route as RFC 3442 writes it; by nobody is by the network itself.
fn route(to: Prefix, via: Ipv4Addr) -> Vec<u8> {
    let IpAddr::V4(base) = to.base() else {
        return Vec::new();
    };
    let significant = usize::from(to.bits().div_ceil(8));
    let mut bytes = vec![to.bits()];
    bytes.extend(&base.octets()[..significant]);
    bytes.extend(via.octets());
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::{message, option};
    use super::*;
    use skyloom_hypervisor::conformance::exam_wiring;

    fn request(kind: Kind, wiring: &PortWiring) -> Request {
        let request = Request {
            kind,
            xid: [1, 2, 3, 4],
            flags: [0; 2],
            mac: wiring.mac,
            current: None,
            wanted: None,
            server: None,
        };
        Request::parse(&message(&request)).unwrap()
    }

    #[test]
    fn a_port_is_offered_its_own_address_and_all_it_needs() {
        let mut wiring = exam_wiring(1, 7);
        let via = "192.168.1.9".parse().unwrap();
        let to = "10.128.0.0/9".parse().unwrap();
        wiring.network.subnets[0].routes.push(Route { to, via });
        let (reply, to) = answer(&request(Kind::Discover, &wiring), &wiring).unwrap();
        assert_eq!(to, Ipv4Addr::new(192, 168, 1, 7));
        assert_eq!(
            (&reply[4..8], &reply[16..20]),
            (&[1, 2, 3, 4][..], &[192, 168, 1, 7][..])
        );
        assert_eq!(option(&reply, 53), [Reply::OFFER]);
        assert_eq!(option(&reply, 1), [255, 255, 255, 0]);
        assert_eq!(option(&reply, 3), [192, 168, 1, 254]);
        assert_eq!(option(&reply, 6), [192, 168, 1, 253]);
        assert_eq!(option(&reply, 12), b"guest-7");
        assert_eq!(option(&reply, 26), 1400_u16.to_be_bytes());
        assert_eq!(option(&reply, 51), LEASE.to_be_bytes());
        let routes = [
            &[32, 169, 254, 169, 254, 0, 0, 0, 0][..],
            &[9, 10, 128, 192, 168, 1, 9],
            &[0, 192, 168, 1, 254],
        ];
        assert_eq!(option(&reply, 121), routes.concat());
    }

    #[test]
    fn only_its_own_address_is_confirmed() {
        let wiring = exam_wiring(1, 7);
        let mut asks = request(Kind::Request, &wiring);
        asks.wanted = Some(Ipv4Addr::new(192, 168, 1, 7));
        let (reply, _) = answer(&asks, &wiring).unwrap();
        assert_eq!(option(&reply, 53), [Reply::ACK]);
        asks.server = Some(METADATA);
        assert!(answer(&asks, &wiring).is_some());
        asks.server = Some(Ipv4Addr::new(192, 168, 1, 254));
        assert!(answer(&asks, &wiring).is_none(), "it has chosen another server");
        asks.server = None;
        asks.wanted = Some(Ipv4Addr::new(192, 168, 1, 8));
        let (reply, to) = answer(&asks, &wiring).unwrap();
        assert_eq!((option(&reply, 53), to), (vec![Reply::NAK], Ipv4Addr::BROADCAST));
        assert_eq!(reply[16..20], [0; 4]);
        (asks.wanted, asks.current) = (None, Some(Ipv4Addr::new(192, 168, 1, 7)));
        let (reply, to) = answer(&asks, &wiring).unwrap();
        assert_eq!(option(&reply, 53), [Reply::ACK], "renewed");
        assert_eq!(to, Ipv4Addr::new(192, 168, 1, 7));
    }

    #[test]
    fn who_cannot_hear_yet_is_answered_by_broadcast_and_who_needs_no_dhcp_not_at_all() {
        let mut wiring = exam_wiring(1, 7);
        let mut asks = request(Kind::Discover, &wiring);
        asks.flags = [0x80, 0];
        assert_eq!(answer(&asks, &wiring).unwrap().1, Ipv4Addr::BROADCAST);
        let (reply, _) = answer(&request(Kind::Inform, &wiring), &wiring).unwrap();
        assert_eq!(
            (option(&reply, 51).len(), &reply[16..20]),
            (0, &[0; 4][..]),
            "no lease"
        );
        wiring.network.subnets[0].dhcp = false;
        assert!(answer(&asks, &wiring).is_none());
    }

    #[test]
    fn long_lists_of_routes_are_parted() {
        let mut wiring = exam_wiring(1, 7);
        let route = |n: u8| Route {
            to: Prefix::host(IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))),
            via: wiring.addresses[0],
        };
        wiring.network.subnets[0].routes = (0..32).map(route).collect();
        let (reply, _) = answer(&request(Kind::Discover, &wiring), &wiring).unwrap();
        assert_eq!(option(&reply, 121).len(), 9 + 32 * 9 + 5);
    }
}
