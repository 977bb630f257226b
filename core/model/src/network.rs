//! Networks of projects: what a port is plugged into, which addresses it has, and what may reach it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Meta, NetworkId, PortId, Resource, Scope, SecurityGroupId, SubnetId};

/// An Ethernet segment of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Network {
    /// Identity.
    pub meta: Meta,
    /// Content.
    pub spec: NetworkSpec,
}

/// Content of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NetworkSpec {
    /// Largest packet in bytes.
    pub mtu: u16,
    /// Whether its ports drop what they do not own, and what no rule allows.
    pub port_security: bool,
    /// Its subnets, oldest first. They lie here so that two of them never overlap.
    #[serde(default)]
    pub subnets: Vec<SubnetId>,
    /// Text of its owner.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A range of addresses of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Subnet {
    /// Identity.
    pub meta: Meta,
    /// Content.
    pub spec: SubnetSpec,
}

/// Content of a subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SubnetSpec {
    /// Whose.
    pub network: NetworkId,
    /// First address of the prefix.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "192.168.10.0"))]
    pub base: IpAddr,
    /// Length of the prefix.
    pub prefix_len: u8,
    /// The way out, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub gateway: Option<IpAddr>,
    /// What addresses are given from; the whole prefix without its ends and gateway when nothing is said.
    #[serde(default)]
    pub pools: Vec<AddressRange>,
    /// Name servers that guests are told.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub dns: Vec<IpAddr>,
    /// Whether guests are told their addresses by DHCP.
    pub dhcp: bool,
    /// Whether it is being removed: nobody gets an address of it any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
}

/// Addresses from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AddressRange {
    /// The first.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "192.168.10.10"))]
    pub first: IpAddr,
    /// The last.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "192.168.10.250"))]
    pub last: IpAddr,
}

/// What may reach ports, and what they may reach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SecurityGroup {
    /// Identity.
    pub meta: Meta,
    /// Content.
    pub spec: SecurityGroupSpec,
}

/// Content of a security group. What no rule allows is dropped; answers to what was allowed pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SecurityGroupSpec {
    /// Its rules, in no order.
    #[serde(default)]
    pub rules: Vec<SecurityRule>,
    /// Text of its owner.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// One thing that is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SecurityRule {
    /// Its id.
    pub id: uuid::Uuid,
    /// Which way.
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
    /// The other side; everybody when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
}

/// Which way packets go, as the port sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Direction {
    /// To the guest.
    Ingress,
    /// From the guest.
    Egress,
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// A protocol over IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP, or ICMPv6 with IPv6.
    Icmp,
    /// Another, by its number.
    Number(u8),
}

/// The other side of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Remote {
    /// A prefix.
    Prefix {
        /// First address.
        #[cfg_attr(feature = "openapi", schema(value_type = String, example = "10.0.0.0"))]
        base: IpAddr,
        /// Length.
        prefix_len: u8,
    },
    /// All ports that are in a group.
    Group {
        /// Which.
        group: SecurityGroupId,
    },
}

/// Who has an address or a MAC address. Written in the commit that makes the port, only where nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// Which port.
    pub port: PortId,
    /// Whose it is: with the id, the address of its record.
    pub scope: Scope,
}

/// The ports that are in a security group, with their addresses. Written in the commits that put them in and take them out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMembers {
    /// By port.
    #[serde(default)]
    pub ports: BTreeMap<PortId, IpAddr>,
    /// The groups of which rules name this one: their members are to learn who is in it. Some may name it no more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub named_by: BTreeSet<SecurityGroupId>,
}

macro_rules! resource {
    ($type:ident, $kind:literal) => {
        impl Resource for $type {
            const KIND: &'static str = $kind;
            fn meta(&self) -> &Meta {
                &self.meta
            }
            fn meta_mut(&mut self) -> &mut Meta {
                &mut self.meta
            }
        }
    };
}
resource!(Network, "networks");
resource!(Subnet, "subnets");
resource!(SecurityGroup, "security-groups");
