//! MAC addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A unicast, locally administered or vendor MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, example = "52:54:00:12:34:56"))]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// An address under QEMU's prefix `52:54:00` with three given bytes.
    #[must_use]
    pub const fn qemu(tail: [u8; 3]) -> Self {
        Self([0x52, 0x54, 0, tail[0], tail[1], tail[2]])
    }
}
impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
impl FromStr for MacAddr {
    type Err = &'static str;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 6];
        let mut parts = s.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte =
                u8::from_str_radix(part.ok_or("is no MAC address")?, 16).map_err(|_| "is no MAC address")?;
        }
        if parts.next().is_some() {
            return Err("is no MAC address");
        }
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err("is not a unicast MAC address");
        }
        Ok(Self(bytes))
    }
}
impl TryFrom<String> for MacAddr {
    type Error = &'static str;
    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}
impl From<MacAddr> for String {
    fn from(m: MacAddr) -> Self {
        m.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_unicast_and_exact() {
        assert_eq!(
            "52:54:00:aB:00:01".parse::<MacAddr>().unwrap().to_string(),
            "52:54:00:ab:00:01"
        );
        for bad in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            ";whoami",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "5:54:00:12:34:56",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }
}
