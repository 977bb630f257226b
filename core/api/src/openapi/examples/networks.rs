//! The records of networks that examples show.

use std::net::{IpAddr, Ipv4Addr};

use skyloom_model::{
    AddressRange, Direction, Family, Id, Network, NetworkSpec, Protocol, Remote, SecurityGroup,
    SecurityGroupSpec, SecurityRule, Subnet, SubnetSpec,
};

use super::records::{id, meta, own};

const fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 168, 10, last))
}

pub(super) fn network() -> Network {
    Network {
        meta: meta(17, "backend", own()),
        spec: NetworkSpec {
            mtu: 1500,
            port_security: true,
            subnets: vec![Id::from_uuid(id(18))],
            description: "Behind the web servers.".to_owned(),
        },
    }
}

pub(super) fn subnet() -> Subnet {
    Subnet {
        meta: meta(18, "backend-v4", own()),
        spec: SubnetSpec {
            network: Id::from_uuid(id(17)),
            base: ip(0),
            prefix_len: 24,
            gateway: Some(ip(1)),
            pools: vec![AddressRange {
                first: ip(10),
                last: ip(250),
            }],
            dns: vec![ip(2)],
            dhcp: true,
            closed: false,
        },
    }
}

pub(super) fn security_group() -> SecurityGroup {
    let rule = |n, direction| SecurityRule {
        id: id(n),
        direction,
        family: Family::Ipv4,
        protocol: None,
        port_min: None,
        port_max: None,
        remote: None,
    };
    let https = SecurityRule {
        protocol: Some(Protocol::Tcp),
        port_min: Some(443),
        port_max: Some(443),
        remote: Some(Remote::Prefix {
            base: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            prefix_len: 0,
        }),
        ..rule(21, Direction::Ingress)
    };
    SecurityGroup {
        meta: meta(19, "web", own()),
        spec: SecurityGroupSpec {
            rules: vec![rule(20, Direction::Egress), https],
            description: "What the world may ask.".to_owned(),
        },
    }
}
