//! Rows of networks, subnets and security groups.

use skyloom_model::{Direction, Network, SecurityGroup, Subnet, Timestamp};

use super::Row;
use crate::text::age;

impl Row for Network {
    const HEAD: &'static [&'static str] = &["NAME", "SUBNETS", "MTU", "SECURITY", "AGE"];
    const WIDE: &'static [&'static str] = &["DESCRIPTION", "ID"];
    fn cells(&self, now: Timestamp) -> Vec<String> {
        vec![
            self.meta.name.to_string(),
            self.spec.subnets.len().to_string(),
            self.spec.mtu.to_string(),
            if self.spec.port_security { "yes" } else { "no" }.to_owned(),
            age(now, self.meta.created_at),
            self.spec.description.clone(),
            self.meta.id.to_string(),
        ]
    }
    fn name(&self) -> String {
        self.meta.name.to_string()
    }
}

impl Row for Subnet {
    const HEAD: &'static [&'static str] = &["NAME", "ADDRESSES", "GATEWAY", "DHCP", "AGE"];
    const WIDE: &'static [&'static str] = &["POOLS", "DNS", "NETWORK", "ID"];
    fn cells(&self, now: Timestamp) -> Vec<String> {
        let spec = &self.spec;
        let pools: Vec<String> = spec
            .pools
            .iter()
            .map(|p| format!("{}-{}", p.first, p.last))
            .collect();
        let dns: Vec<String> = spec.dns.iter().map(ToString::to_string).collect();
        vec![
            self.meta.name.to_string(),
            format!("{}/{}", spec.base, spec.prefix_len),
            spec.gateway
                .map_or_else(|| "-".to_owned(), |gateway| gateway.to_string()),
            if spec.dhcp { "yes" } else { "no" }.to_owned(),
            age(now, self.meta.created_at),
            pools.join(","),
            dns.join(","),
            spec.network.to_string(),
            self.meta.id.to_string(),
        ]
    }
    fn name(&self) -> String {
        self.meta.name.to_string()
    }
}

impl Row for SecurityGroup {
    const HEAD: &'static [&'static str] = &["NAME", "IN", "OUT", "AGE"];
    const WIDE: &'static [&'static str] = &["DESCRIPTION", "ID"];
    fn cells(&self, now: Timestamp) -> Vec<String> {
        let rules = |way| {
            self.spec
                .rules
                .iter()
                .filter(|rule| rule.direction == way)
                .count()
        };
        vec![
            self.meta.name.to_string(),
            rules(Direction::Ingress).to_string(),
            rules(Direction::Egress).to_string(),
            age(now, self.meta.created_at),
            self.spec.description.clone(),
            self.meta.id.to_string(),
        ]
    }
    fn name(&self) -> String {
        self.meta.name.to_string()
    }
}
