//! Arithmetic of subnets: prefixes, pools, and which address a port gets.
//!
//! An address is a number here. A candidate is probed from the port's own random bits, so nothing is listed and nothing is written
//! that all ports of a subnet would share.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use skyloom_hypervisor::Prefix;
use skyloom_model::{AddressRange, SubnetSpec};

use crate::{CloudError, FieldError, Result};

/// Most candidates that are probed for one port. Where a subnet has no more, all of them are.
pub(crate) const MOST_PROBES: u128 = 512;
/// Most pools of a subnet.
const MAX_POOLS: usize = 16;
/// Most name servers of a subnet.
const MAX_DNS: usize = 8;

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

/// The address of a number, of the family of `like`.
fn address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX))),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

fn wrong(field: &str, code: &str, message: impl Into<String>) -> CloudError {
    CloudError::field(FieldError::new(field, code, message))
}

/// A canonical prefix that a subnet can be of, such as `192.168.10.0/24`: `cidr.invalid`.
pub(crate) fn subnet(text: &str) -> Result<Prefix> {
    let prefix = prefix("cidr", text)?;
    let most = if prefix.base().is_ipv4() { 30 } else { 126 };
    let odd = prefix.base().is_loopback() || prefix.base().is_multicast() || prefix.base().is_unspecified();
    if !(8..=most).contains(&prefix.bits()) || odd {
        let message = format!("a subnet is of 8 to {most} bits, and of addresses that hosts can have");
        return Err(wrong("cidr", "cidr.invalid", message));
    }
    Ok(prefix)
}

/// Any canonical prefix: `cidr.invalid`.
pub(crate) fn prefix(field: &str, text: &str) -> Result<Prefix> {
    text.parse().map_err(|what| {
        let message = format!("{text:?} {what}; give it like 192.168.10.0/24 or 2001:db8::/64");
        wrong(field, "cidr.invalid", message)
    })
}

/// Whether two prefixes have an address in common.
pub(crate) fn overlap(a: Prefix, b: Prefix) -> bool {
    a.covers(b) || b.covers(a)
}

/// The prefix of a subnet that is kept.
pub(crate) fn prefix_of(subnet: &SubnetSpec) -> Prefix {
    Prefix::new(subnet.base, subnet.prefix_len).unwrap_or(Prefix::host(subnet.base))
}

/// The addresses of a prefix that hosts can have, as numbers: neither its first, nor the last of IPv4.
fn usable(prefix: Prefix) -> (u128, u128) {
    let first = number(prefix.base());
    let bits = if prefix.base().is_ipv4() { 32 } else { 128 } - u32::from(prefix.bits());
    let last = first | 1_u128.checked_shl(bits).map_or(u128::MAX, |size| size - 1);
    let end = u128::from(prefix.base().is_ipv4());
    (first + 1, last - end)
}

/// Whether a host can have that address of a prefix.
pub(crate) fn is_usable(prefix: Prefix, address: IpAddr) -> bool {
    let (first, last) = usable(prefix);
    prefix.contains(address) && (first..=last).contains(&number(address))
}

/// Gateway, pools and name servers fit the prefix: `gateway.invalid`, `pool.invalid`, `dns.invalid`.
pub(crate) fn fit(
    prefix: Prefix,
    gateway: Option<IpAddr>,
    pools: &[AddressRange],
    dns: &[IpAddr],
) -> Result<()> {
    if gateway.is_some_and(|gateway| !is_usable(prefix, gateway)) {
        let message = format!("the gateway is no host's address in {prefix}");
        return Err(wrong("gateway", "gateway.invalid", message));
    }
    if dns.len() > MAX_DNS || dns.iter().any(|a| a.is_unspecified() || a.is_multicast()) {
        let message = format!("at most {MAX_DNS} name servers, and addresses that hosts can have");
        return Err(wrong("dns", "dns.invalid", message));
    }
    if pools.len() > MAX_POOLS {
        return Err(wrong(
            "pools",
            "pool.invalid",
            format!("at most {MAX_POOLS} pools"),
        ));
    }
    for (i, pool) in pools.iter().enumerate() {
        let field = format!("pools[{i}]");
        let (first, last) = (number(pool.first), number(pool.last));
        if !is_usable(prefix, pool.first) || !is_usable(prefix, pool.last) || first > last {
            let message = format!("it is not from a first to a last address of hosts in {prefix}");
            return Err(wrong(&field, "pool.invalid", message));
        }
        if gateway.is_some_and(|g| (first..=last).contains(&number(g))) {
            return Err(wrong(&field, "pool.invalid", "the gateway lies in it"));
        }
        let meets = |other: &AddressRange| first <= number(other.last) && number(other.first) <= last;
        if pools[..i].iter().any(meets) {
            return Err(wrong(&field, "pool.invalid", "it overlaps one before it"));
        }
    }
    Ok(())
}

/// What addresses are given from, as numbers: the pools, or all but the gateway.
fn ranges(subnet: &SubnetSpec) -> Vec<(u128, u128)> {
    if !subnet.pools.is_empty() {
        let pools = subnet.pools.iter();
        return pools
            .map(|pool| (number(pool.first), number(pool.last)))
            .collect();
    }
    let (first, last) = usable(prefix_of(subnet));
    match subnet.gateway.map(number) {
        Some(gateway) => [(first, gateway.saturating_sub(1)), (gateway + 1, last)]
            .into_iter()
            .filter(|(first, last)| first <= last)
            .collect(),
        None => vec![(first, last)],
    }
}

/// The candidates for a port, each once, in the order of its random bits. No more than [`MOST_PROBES`].
pub(crate) fn candidates(subnet: &SubnetSpec, random: u128) -> impl Iterator<Item = IpAddr> {
    let ranges = ranges(subnet);
    let like = subnet.base;
    let total = ranges
        .iter()
        .fold(0_u128, |sum, (first, last)| sum.saturating_add(last - first + 1));
    // All steps that have no divisor in common with the total come by every address.
    let small = total.clamp(1, 1 << 64);
    let mut step = (random >> 64) % small;
    while greatest_common_divisor(step, small) != 1 {
        step = (step + 1) % small.max(2);
    }
    let start = random % small;
    (0..small.min(MOST_PROBES).min(total)).map(move |n| {
        let mut place = (start + (n * step) % small) % small;
        for (first, last) in &ranges {
            let size = last - first + 1;
            if place < size {
                return address(first + place, like);
            }
            place -= size;
        }
        like
    })
}

fn greatest_common_divisor(a: u128, b: u128) -> u128 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use skyloom_model::NetworkId;
    use uuid::Uuid;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn spec(cidr: &str, gateway: Option<&str>, pools: &[(&str, &str)]) -> SubnetSpec {
        let prefix = subnet(cidr).unwrap();
        let pools = pools.iter().map(|(first, last)| AddressRange {
            first: ip(first),
            last: ip(last),
        });
        SubnetSpec {
            network: NetworkId::from_uuid(Uuid::nil()),
            base: prefix.base(),
            prefix_len: prefix.bits(),
            gateway: gateway.map(ip),
            pools: pools.collect(),
            dns: Vec::new(),
            dhcp: true,
            closed: false,
        }
    }

    fn fits(spec: &SubnetSpec) -> Result<()> {
        fit(prefix_of(spec), spec.gateway, &spec.pools, &spec.dns)
    }

    #[test]
    fn subnets_are_canonical_and_of_hosts() {
        for good in [
            "10.0.0.0/8",
            "192.168.10.0/24",
            "192.168.10.4/30",
            "2001:db8::/64",
        ] {
            assert_eq!(subnet(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.1/24",
            "10.0.0.0/33",
            "10.0.0.0/31",
            "0.0.0.0/0",
            "127.0.0.0/8",
            "224.0.0.0/8",
            "x/24",
            "fe80::1/64",
        ] {
            assert_eq!(subnet(bad).unwrap_err().code(), "cidr.invalid", "{bad}");
        }
        let p = |text: &str| subnet(text).unwrap();
        assert!(overlap(p("10.0.0.0/8"), p("10.1.0.0/16")) && overlap(p("10.1.0.0/16"), p("10.0.0.0/8")));
        assert!(!overlap(p("10.0.0.0/16"), p("10.1.0.0/16")));
    }

    #[test]
    fn gateways_and_pools_lie_inside_and_apart() {
        assert!(
            fits(&spec(
                "10.0.0.0/24",
                Some("10.0.0.1"),
                &[("10.0.0.10", "10.0.0.20"), ("10.0.0.21", "10.0.0.21")]
            ))
            .is_ok()
        );
        for (gateway, pools, code) in [
            (Some("10.0.0.0"), vec![], "gateway.invalid"),
            (Some("10.0.0.255"), vec![], "gateway.invalid"),
            (Some("10.0.1.1"), vec![], "gateway.invalid"),
            (Some("2001:db8::1"), vec![], "gateway.invalid"),
            (None, vec![("10.0.0.20", "10.0.0.10")], "pool.invalid"),
            (None, vec![("10.0.0.0", "10.0.0.10")], "pool.invalid"),
            (None, vec![("10.0.0.10", "10.0.1.10")], "pool.invalid"),
            (
                Some("10.0.0.15"),
                vec![("10.0.0.10", "10.0.0.20")],
                "pool.invalid",
            ),
            (
                None,
                vec![("10.0.0.10", "10.0.0.20"), ("10.0.0.20", "10.0.0.30")],
                "pool.invalid",
            ),
        ] {
            let error = fits(&spec("10.0.0.0/24", gateway, &pools)).unwrap_err();
            assert_eq!(error.code(), code, "{gateway:?} {pools:?}");
        }
    }

    #[test]
    fn a_whole_subnet_is_given_without_its_ends_and_gateway() {
        let all: BTreeSet<IpAddr> = candidates(&spec("10.0.0.0/29", Some("10.0.0.3"), &[]), 77).collect();
        let wanted = ["10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"].map(ip);
        assert_eq!(all, BTreeSet::from(wanted));
        let one: Vec<IpAddr> =
            candidates(&spec("10.0.0.0/24", None, &[("10.0.0.9", "10.0.0.9")]), 5).collect();
        assert_eq!(one, [ip("10.0.0.9")]);
    }

    proptest! {
        #[test]
        fn candidates_are_different_and_fit(random: u128, len in 20_u8..=30, gateway in 1_u32..3) {
            let base = Ipv4Addr::new(10, 0, 0, 0);
            let gateway = IpAddr::V4(Ipv4Addr::from_bits(base.to_bits() + gateway));
            let spec = spec(&format!("10.0.0.0/{len}"), Some(&gateway.to_string()), &[]);
            let all: Vec<IpAddr> = candidates(&spec, random).collect();
            let hosts = (1_u128 << (32 - len)) - 3;
            prop_assert_eq!(all.len() as u128, hosts.min(MOST_PROBES));
            prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
            prop_assert!(all.iter().all(|a| is_usable(prefix_of(&spec), *a) && *a != gateway));
        }

        #[test]
        fn large_subnets_are_no_work(random: u128, len in 8_u8..=126) {
            let spec = SubnetSpec { base: ip("2000::"), prefix_len: len, ..spec("2000::/64", None, &[]) };
            prop_assert!(candidates(&spec, random).all(|a| is_usable(prefix_of(&spec), a)));
        }
    }
}
