//! What callers ask for of networks, subnets, ports and security groups. Unknown fields are refused.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use skyloom_model::{AddressRange, Direction, Family, MacAddr, Protocol, ServerId, SubnetId};

/// Makes a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateNetwork {
    /// Display name, unique in the project.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "backend", min_length = 1, max_length = 255)
    )]
    pub name: String,
    /// Largest packet in bytes; by default 1500.
    #[cfg_attr(feature = "openapi", schema(example = 1500, minimum = 576, maximum = 65_000))]
    pub mtu: Option<u16>,
    /// Whether its ports drop what they do not own, and what no rule allows; by default they do.
    pub port_security: Option<bool>,
    /// Free text, at most 1024 bytes.
    #[cfg_attr(feature = "openapi", schema(max_length = 1024))]
    pub description: String,
    /// Free marks.
    pub labels: BTreeMap<String, String>,
}

/// Changes a network; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UpdateNetwork {
    /// Display name, unique in the project.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "backend-2", min_length = 1, max_length = 255)
    )]
    pub name: Option<String>,
    /// Free text, at most 1024 bytes.
    #[cfg_attr(feature = "openapi", schema(max_length = 1024))]
    pub description: Option<String>,
    /// Free marks.
    pub labels: Option<BTreeMap<String, String>>,
}

/// Makes a subnet of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateSubnet {
    /// Display name.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "backend-v4", min_length = 1, max_length = 255)
    )]
    pub name: String,
    /// Id or name of its network.
    #[cfg_attr(feature = "openapi", schema(example = "backend"))]
    pub network: String,
    /// Its addresses. Subnets of one network do not overlap.
    #[cfg_attr(feature = "openapi", schema(example = "192.168.10.0/24"))]
    pub cidr: String,
    /// The way out; by default none.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "192.168.10.1"))]
    pub gateway: Option<IpAddr>,
    /// What addresses are given from; by default all but the ends and the gateway.
    pub pools: Vec<AddressRange>,
    /// Name servers that guests are told, at most 8.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub dns: Vec<IpAddr>,
    /// Whether guests are told their addresses by DHCP; by default they are.
    pub dhcp: Option<bool>,
    /// Free marks.
    pub labels: BTreeMap<String, String>,
}

/// Changes a subnet; what is absent stays. Addresses that ports have stay with them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UpdateSubnet {
    /// Display name.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "backend-v4", min_length = 1, max_length = 255)
    )]
    pub name: Option<String>,
    /// What addresses are given from.
    pub pools: Option<Vec<AddressRange>>,
    /// Name servers that guests are told from their next start on, at most 8.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<String>>))]
    pub dns: Option<Vec<IpAddr>>,
    /// Free marks.
    pub labels: Option<BTreeMap<String, String>>,
}

/// Makes a port: a NIC to be, with its addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatePort {
    /// Display name; by default made of its id.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "web-vip", min_length = 1, max_length = 255)
    )]
    pub name: Option<String>,
    /// Id or name of the network that it is plugged into.
    #[cfg_attr(feature = "openapi", schema(example = "backend"))]
    pub network: String,
    /// Id of the subnet that its address is of; by default the one that has the fixed address, or the network's first.
    pub subnet: Option<SubnetId>,
    /// Its address; by default a free one of the subnet's pools.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "192.168.10.20"))]
    pub fixed_address: Option<IpAddr>,
    /// Its MAC address; by default one is made.
    pub mac: Option<MacAddr>,
    /// Ids or names of its security groups; by default `default`.
    pub security_groups: Option<Vec<String>>,
    /// Free marks.
    pub labels: BTreeMap<String, String>,
}

/// Changes a port; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UpdatePort {
    /// Display name.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "web-vip", min_length = 1, max_length = 255)
    )]
    pub name: Option<String>,
    /// Ids or names of all its security groups.
    pub security_groups: Option<Vec<String>>,
    /// Free marks.
    pub labels: Option<BTreeMap<String, String>>,
}

/// Gives a port to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttachPort {
    /// Which server.
    pub server: ServerId,
}

/// Makes a security group that lets everything out and nothing in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateSecurityGroup {
    /// Display name, unique in the project.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "web", min_length = 1, max_length = 255)
    )]
    pub name: String,
    /// Free text, at most 1024 bytes.
    #[cfg_attr(feature = "openapi", schema(max_length = 1024))]
    pub description: String,
    /// Free marks.
    pub labels: BTreeMap<String, String>,
}

/// Changes a security group; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UpdateSecurityGroup {
    /// Display name, unique in the project.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "web", min_length = 1, max_length = 255)
    )]
    pub name: Option<String>,
    /// Free text, at most 1024 bytes.
    #[cfg_attr(feature = "openapi", schema(max_length = 1024))]
    pub description: Option<String>,
    /// Free marks.
    pub labels: Option<BTreeMap<String, String>>,
}

/// Allows one thing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AddRule {
    /// Which way.
    pub direction: Direction,
    /// Which family; by default that of the remote prefix, or IPv4.
    #[serde(default)]
    pub family: Option<Family>,
    /// Which protocol; by default all.
    #[serde(default)]
    pub protocol: Option<Protocol>,
    /// First destination port (TCP, UDP) or the type (ICMP).
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(example = 443))]
    pub port_min: Option<u16>,
    /// Last destination port (TCP, UDP) or the code (ICMP).
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(example = 443))]
    pub port_max: Option<u16>,
    /// The other side as a prefix; by default everybody.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(example = "0.0.0.0/0"))]
    pub remote_prefix: Option<String>,
    /// The other side as all ports in a security group, by id or name.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(example = "default"))]
    pub remote_group: Option<String>,
}
