//! The HostNetwork contract: the ports of one host's guests.
//!
//! ```text
//!  job ── ensure_port(PortWiring g3) ──> HostNetwork ──> NicDevice for the domain's NicSpec
//!                                            │ device, filter, addresses by DHCP, metadata: all of one port, by its id
//!  sweep ── ports() ────────────────────────>│
//! ```
//!
//! * A wiring is complete: what the port's network, addresses, rules and metadata are. Names of groups and the like are
//!   resolved by the control plane; a host knows nothing but its ports.
//! * Wirings carry a generation of their own, so that rules change without an order for the guest.
//! * Whatever a guest sends, and whatever became of the agent: a port never passes what its wiring does not allow.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fmt::Debug;
use std::net::IpAddr;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use skyloom_model::{
    Direction, Family, Hostname, MacAddr, NetworkId, NicKind, PortId, ProjectId, Protocol, Secret, ServerId,
};

use crate::{Error, ErrorKind, Result};

/// The ports of one host's guests.
#[async_trait]
pub trait HostNetwork: Send + Sync + Debug + 'static {
    /// What this network can do.
    fn capability(&self) -> NetworkCapability;

    /// Ensures that the port is there as `wiring` says: its device on its network, what it may send and receive, what
    /// it is told by DHCP and by the metadata service. A port of an older generation takes the new one on; one of the
    /// same generation is mended. A guest that is plugged in is not disturbed, and its connections that are still
    /// allowed go on.
    ///
    /// # Errors
    /// [`ErrorKind::Stale`] when the port is of a newer generation, [`ErrorKind::Invalid`] when the wiring makes no
    /// sense, [`ErrorKind::Conflict`] when another port of the network has its MAC or one of its addresses here, or when
    /// the port is in another network.
    async fn ensure_port(&self, wiring: &PortWiring) -> Result<NicDevice>;

    /// Ensures that nothing of the port is left; of its network neither, when it was the last one here.
    ///
    /// # Errors
    /// [`ErrorKind::Stale`] when the port is of a newer generation. An absent port is no error.
    async fn remove_port(&self, port: PortId, generation: u64) -> Result<()>;

    /// All ports of which anything is there, in id order: for the sweep of orphans.
    async fn ports(&self) -> Result<Vec<PortThere>>;

    /// After a restart of the agent, before any other verb: adopts what is there, mends what is not as it should be, and
    /// disturbs no guest.
    async fn recover(&self) -> Result<()>;
}

/// What a host's network can do: data for the scheduler, and checked before planning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetworkCapability {
    /// How its NICs are made.
    pub kind: NicKind,
    /// Guests are told their IPv4 addresses by DHCP.
    pub dhcp: bool,
    /// Guests are told their IPv6 addresses by the network.
    pub dhcp_v6: bool,
    /// Guests find the metadata service.
    pub metadata: bool,
    /// Rules and addresses may be of IPv6.
    pub ipv6: bool,
}

impl NetworkCapability {
    /// Devices of `kind`, without any service.
    #[must_use]
    pub const fn bare(kind: NicKind) -> Self {
        Self {
            kind,
            dhcp: false,
            dhcp_v6: false,
            metadata: false,
            ipv6: false,
        }
    }
}

/// A block of addresses such as `10.0.0.0/8`; a single address is a block, too. Bits behind the prefix are always zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    base: IpAddr,
    len: u8,
}

impl Prefix {
    /// The block of `len` bits that `address` lies in; `None` when an address has not that many bits.
    #[must_use]
    pub fn new(address: IpAddr, len: u8) -> Option<Self> {
        let base = match address {
            IpAddr::V4(a) => {
                let rest = 32_u32.checked_sub(u32::from(len))?;
                IpAddr::V4((u32::MAX.checked_shl(rest).unwrap_or(0) & a.to_bits()).into())
            }
            IpAddr::V6(a) => {
                let rest = 128_u32.checked_sub(u32::from(len))?;
                IpAddr::V6((u128::MAX.checked_shl(rest).unwrap_or(0) & a.to_bits()).into())
            }
        };
        Some(Self { base, len })
    }
    /// One address.
    #[must_use]
    pub const fn host(address: IpAddr) -> Self {
        let len = if address.is_ipv4() { 32 } else { 128 };
        Self { base: address, len }
    }
    /// The first address.
    #[must_use]
    pub const fn base(self) -> IpAddr {
        self.base
    }
    /// Bits that are the same in all addresses.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.len
    }
    /// Its family.
    #[must_use]
    pub const fn family(self) -> Family {
        family_of(self.base)
    }
    /// Whether all of `other` lies in it. Families never mix.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        other.len >= self.len && Self::new(other.base, self.len) == Some(self)
    }
    /// Whether `address` lies in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.covers(Self::host(address))
    }
}

/// The family of an address.
#[must_use]
pub const fn family_of(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::Ipv4,
        IpAddr::V6(_) => Family::Ipv6,
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.len)
    }
}
impl FromStr for Prefix {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (base, len) = text.split_once('/').ok_or("has no /PREFIX")?;
        let base: IpAddr = base.parse().map_err(|_| "has no IP address")?;
        let len = len.parse().map_err(|_| "has no prefix length")?;
        match Self::new(base, len) {
            Some(prefix) if prefix.base == base => Ok(prefix),
            Some(_) => Err("has bits behind its prefix"),
            None => Err("has no prefix length"),
        }
    }
}
impl TryFrom<String> for Prefix {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

/// All that a host must know of a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortWiring {
    /// Which port.
    pub port: PortId,
    /// Whose NIC it is.
    pub server: ServerId,
    /// Whose project.
    pub project: ProjectId,
    /// The wiring's generation: grows with every change.
    pub generation: u64,
    /// The network that it is plugged into.
    pub network: NetworkWiring,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its addresses, of either family; each lies in a subnet of the network.
    pub addresses: Vec<IpAddr>,
    /// Further addresses that its guest may use as its own.
    #[serde(default)]
    pub pairs: Vec<AddressPair>,
    /// Its name, told by DHCP.
    pub hostname: Hostname,
    /// What is allowed; all else is dropped. Answers to what was allowed pass.
    pub rules: Vec<FirewallRule>,
    /// Whether it drops what it does not own and what no rule allows. Without it the guest may be a router.
    pub port_security: bool,
    /// What the metadata service answers to its guest.
    pub metadata: InstanceMetadata,
}

/// A network as its ports need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkWiring {
    /// Which network.
    pub id: NetworkId,
    /// Largest packet in bytes.
    pub mtu: u16,
    /// Its subnets.
    pub subnets: Vec<SubnetWiring>,
}

/// A subnet as its ports need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetWiring {
    /// Its addresses.
    pub prefix: Prefix,
    /// The way out, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Name servers that guests are told.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// Further routes that guests are told.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Whether guests are told their addresses by DHCP.
    pub dhcp: bool,
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub to: Prefix,
    /// By which neighbour.
    pub via: IpAddr,
}

/// Addresses that a guest may use beside its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPair {
    /// With which MAC address; the port's own when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Which.
    pub prefix: Prefix,
}

/// One thing that is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallRule {
    /// Which way, as the guest sees it.
    pub direction: Direction,
    /// Which family.
    pub family: Family,
    /// Which protocol; all when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// First destination port (TCP, UDP) or the type (ICMP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_min: Option<u16>,
    /// Last destination port (TCP, UDP) or the code (ICMP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_max: Option<u16>,
    /// The other side; everybody when nothing is said, nobody when it is empty. Members of a group are sent as their
    /// addresses: where only these differ from what is there, nothing else is touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Vec<Prefix>>,
}

/// What the metadata service answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstanceMetadata {
    /// The server's name.
    pub name: String,
    /// Where it runs, as users know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// Its place among those that one request made.
    #[serde(default)]
    pub launch_index: u32,
    /// SSH keys by name.
    #[serde(default)]
    pub keys: BTreeMap<String, String>,
    /// Its owner's own values.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
    /// Its owner's user data. Never written with the rest.
    #[serde(default, skip_serializing)]
    pub user_data: Option<Secret<Vec<u8>>>,
}

impl PartialEq for InstanceMetadata {
    fn eq(&self, other: &Self) -> bool {
        let data = |m: &Self| m.user_data.as_ref().map(|d| d.expose().clone());
        self.name == other.name
            && self.availability_zone == other.availability_zone
            && self.launch_index == other.launch_index
            && self.keys == other.keys
            && self.values == other.values
            && data(self) == data(other)
    }
}
impl Eq for InstanceMetadata {}

/// A port's device, for the domain's [`crate::NicSpec`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicDevice {
    /// How the NIC is made.
    pub kind: NicKind,
    /// The host's device, of kinds that have one.
    pub device: Option<String>,
}

/// A port that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortThere {
    /// Which.
    pub port: PortId,
    /// Whose NIC it is.
    pub server: ServerId,
    /// In which network.
    pub network: NetworkId,
    /// The generation of its wiring.
    pub generation: u64,
    /// Whether it was wired to the end. If not, it passes nothing that its wiring does not allow, either.
    pub complete: bool,
}

impl PortWiring {
    /// Most addresses and pairs of a port.
    pub const MAX_ADDRESSES: usize = 64;
    /// Most rules of a port.
    pub const MAX_RULES: usize = 1000;
    /// Most blocks that all its rules name together.
    pub const MAX_REMOTES: usize = 50_000;
    /// Most subnets, and most routes and name servers of each.
    pub const MAX_SUBNETS: usize = 32;
    /// Most bytes of user data.
    pub const MAX_USER_DATA: usize = 64 * 1024;

    /// Whether the wiring makes sense; every network checks it before it does anything.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] with what is wrong.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: &str| {
            Err(Error::new(ErrorKind::Invalid, "wire port")
                .with("port", self.port)
                .with("because", what))
        };
        if !(576..=65_000).contains(&self.network.mtu) {
            return wrong("its network's MTU is not 576 to 65000");
        }
        if self.network.subnets.len() > Self::MAX_SUBNETS {
            return wrong("its network has too many subnets");
        }
        for subnet in &self.network.subnets {
            let other = |address: &IpAddr| family_of(*address) != subnet.prefix.family();
            let route_wrong = |r: &Route| r.to.family() != subnet.prefix.family() || other(&r.via);
            if subnet.routes.len().max(subnet.dns.len()) > Self::MAX_SUBNETS {
                return wrong("a subnet has too many routes or name servers");
            }
            if subnet.gateway.iter().any(other) || subnet.routes.iter().any(route_wrong) {
                return wrong("a subnet's gateway or route is of another family");
            }
        }
        if self.addresses.len() + self.pairs.len() > Self::MAX_ADDRESSES {
            return wrong("it has too many addresses");
        }
        let mut seen = HashSet::new();
        for address in &self.addresses {
            if !seen.insert(address) {
                return wrong("it has an address twice");
            }
            if !self.network.subnets.iter().any(|s| s.prefix.contains(*address)) {
                return wrong("an address of it is in no subnet of its network");
            }
            if address.is_multicast() || address.is_unspecified() || address.is_loopback() {
                return wrong("an address of it is no host's");
            }
        }
        let remotes: usize = self.rules.iter().flat_map(|r| &r.remote).map(Vec::len).sum();
        if self.rules.len() > Self::MAX_RULES || remotes > Self::MAX_REMOTES {
            return wrong("it has too many rules");
        }
        for rule in &self.rules {
            if let Err(because) = rule.check() {
                return wrong(because);
            }
        }
        self.metadata.check().or_else(wrong)
    }
}

impl FirewallRule {
    fn check(&self) -> Result<(), &'static str> {
        match (self.protocol, self.port_min, self.port_max) {
            (_, None, None) => {}
            (Some(Protocol::Tcp | Protocol::Udp), Some(min), Some(max)) if min <= max => {}
            (Some(Protocol::Icmp), Some(kind), code) if kind.max(code.unwrap_or(0)) < 256 => {}
            _ => return Err("a rule has ports that are none"),
        }
        let foreign = |prefix: &Prefix| prefix.family() != self.family;
        if self.remote.iter().flatten().any(foreign) {
            return Err("a rule names addresses of another family");
        }
        Ok(())
    }
}

impl InstanceMetadata {
    fn check(&self) -> Result<(), &'static str> {
        let plain = |text: &String, most: usize| text.len() <= most && !text.chars().any(char::is_control);
        let keys = self
            .keys
            .iter()
            .all(|(name, key)| plain(name, 255) && plain(key, 16_384));
        let values = self
            .values
            .iter()
            .all(|(name, value)| plain(name, 255) && value.len() <= 65_535);
        if !plain(&self.name, 255) || !self.availability_zone.iter().all(|z| plain(z, 255)) {
            return Err("its metadata has a name that is none");
        }
        if self.keys.len() > 64 || self.values.len() > 256 || !keys || !values {
            return Err("its metadata has too many or wrong keys or values");
        }
        match &self.user_data {
            Some(data) if data.expose().len() > PortWiring::MAX_USER_DATA => Err("its user data is too long"),
            _ => Ok(()),
        }
    }
}
