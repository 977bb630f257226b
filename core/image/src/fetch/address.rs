//! Which addresses a download may connect to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A block of addresses: `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    base: IpAddr,
    prefix: u8,
}

impl Cidr {
    const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Self {
        Self {
            base: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            prefix,
        }
    }
    const fn v6(first: u128, prefix: u8) -> Self {
        Self {
            base: IpAddr::V6(Ipv6Addr::from_bits(first)),
            prefix,
        }
    }
    /// Whether `address` lies in the block. IPv4 and IPv6 never mix: `::ffff:10.0.0.1` is not in `10.0.0.0/8`.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.prefix);
                let cut = |a: Ipv4Addr| a.to_bits().checked_shr(shift).unwrap_or(0);
                cut(base) == cut(address)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.prefix);
                let cut = |a: Ipv6Addr| a.to_bits().checked_shr(shift).unwrap_or(0);
                cut(base) == cut(address)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}
impl FromStr for Cidr {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (base, prefix) = text.split_once('/').ok_or("has no /PREFIX")?;
        let base: IpAddr = base.parse().map_err(|_| "has no IP address")?;
        let longest = if base.is_ipv4() { 32 } else { 128 };
        match prefix.parse() {
            Ok(prefix) if prefix <= longest => Ok(Self { base, prefix }),
            _ => Err("has no prefix length"),
        }
    }
}
impl TryFrom<String> for Cidr {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

/// Everything that is not the public Internet (IANA's special-purpose registries), and IPv6 forms that carry an IPv4
/// address to somewhere else.
const NOT_PUBLIC: &[Cidr] = &[
    Cidr::v4(0, 0, 0, 0, 8),
    Cidr::v4(10, 0, 0, 0, 8),
    Cidr::v4(100, 64, 0, 0, 10),
    Cidr::v4(127, 0, 0, 0, 8),
    Cidr::v4(169, 254, 0, 0, 16),
    Cidr::v4(172, 16, 0, 0, 12),
    Cidr::v4(192, 0, 0, 0, 24),
    Cidr::v4(192, 0, 2, 0, 24),
    Cidr::v4(192, 88, 99, 0, 24),
    Cidr::v4(192, 168, 0, 0, 16),
    Cidr::v4(198, 18, 0, 0, 15),
    Cidr::v4(198, 51, 100, 0, 24),
    Cidr::v4(203, 0, 113, 0, 24),
    Cidr::v4(224, 0, 0, 0, 4),
    Cidr::v4(240, 0, 0, 0, 4),
    // ::, ::1, IPv4-compatible and IPv4-mapped addresses.
    Cidr::v6(0, 80),
    // NAT64, discard, Teredo and other protocol assignments, documentation, 6to4.
    Cidr::v6(0x0064_ff9b << 96, 96),
    Cidr::v6(0x0064_ff9b_0001 << 80, 48),
    Cidr::v6(0x0100 << 112, 64),
    Cidr::v6(0x2001 << 112, 23),
    Cidr::v6(0x2001_0db8 << 96, 32),
    Cidr::v6(0x2002 << 112, 16),
    Cidr::v6(0x3fff << 112, 20),
    Cidr::v6(0x5f00 << 112, 16),
    // Unique local, link-local, site-local, multicast.
    Cidr::v6(0xfc00 << 112, 7),
    Cidr::v6(0xfe80 << 112, 10),
    Cidr::v6(0xfec0 << 112, 10),
    Cidr::v6(0xff00 << 112, 8),
];

/// Whether a download may connect to `address`: public, or in `allow`.
pub(super) fn permitted(address: IpAddr, allow: &[Cidr]) -> bool {
    allow.iter().any(|block| block.contains(address))
        || !NOT_PUBLIC.iter().any(|block| block.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(address: &str, allow: &[&str]) -> bool {
        let allow: Vec<Cidr> = allow.iter().map(|a| a.parse().unwrap()).collect();
        permitted(address.parse().unwrap(), &allow)
    }

    #[test]
    fn only_public_addresses_pass() {
        for good in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "9.255.255.255",
            "2606:4700::1111",
            "2a00::1",
        ] {
            assert!(open(good, &[]), "{good}");
        }
        for bad in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:1.1.1.1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
        ] {
            assert!(!open(bad, &[]), "{bad}");
        }
    }

    #[test]
    fn a_block_opens_itself_and_no_more() {
        assert!(open("127.0.0.1", &["127.0.0.0/8"]));
        assert!(!open("::ffff:127.0.0.1", &["127.0.0.0/8"]));
        assert!(!open("10.0.0.1", &["127.0.0.0/8"]));
        assert!(open("10.0.0.1", &["0.0.0.0/0"]));
        assert!(!open("fe80::1", &["0.0.0.0/0"]));
        assert!(open("fe80::1", &["::/0"]));
        assert!(open("10.0.0.7", &["10.0.0.7/32"]));
        assert!(!open("10.0.0.8", &["10.0.0.7/32"]));
    }

    #[test]
    fn blocks_are_parsed_strictly() {
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "a/8",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
        assert_eq!("fd00::/8".parse::<Cidr>().unwrap().to_string(), "fd00::/8");
    }
}
