//! What a host must know of a server's ports in networks: computed from the records, whole, for every definition.
//!
//! ```text
//! Port ──> Network ──> Subnets ─────────────────────────┐
//!      └─> SecurityGroups ──> members of groups they name ┴──> PortWiring, of the newest revision of all of these
//! ```
//!
//! The generation of a wiring is the newest revision of what it is made of, so it grows with every change of any of it, and nobody
//! has to count.

use std::net::IpAddr;

use skyloom_flow::Records;
use skyloom_hypervisor::{
    FirewallRule, InstanceMetadata, NetworkWiring, PortWiring, Prefix, SubnetWiring, family_of,
};
use skyloom_model::{
    GroupMembers, Network, Port, ProjectId, Reason, Remote, Resource, Scope, SecurityGroup, SecurityGroupId,
    SecurityRule, Server, Subnet, Task, paths,
};
use skyloom_store::Key;
use uuid::Uuid;

use super::records::{key, port_key};

fn resource_key<R: Resource>(task: &Task, id: Uuid) -> Result<Key, Reason> {
    key(&paths::resource(R::KIND, task.scope, id))
}

pub(super) fn members_key(group: SecurityGroupId) -> Result<Key, Reason> {
    key(&paths::members(group))
}

/// The server's ports that are in networks, as far as they are read.
fn plugged(task: &Task, server: &Server, records: &Records) -> Result<Vec<Port>, Reason> {
    let mut ports = Vec::new();
    for id in &server.spec.ports {
        let port = records.get::<Port>(&port_key(task, *id)?)?;
        ports.extend(port.filter(|port| port.spec.network.is_some()));
    }
    Ok(ports)
}

/// What the wirings are made of beside the ports, as far as what is read says where it is.
pub(super) fn wiring_reads(task: &Task, have: &Records, server: &Server) -> Result<Vec<Key>, Reason> {
    let mut keys = Vec::new();
    for port in plugged(task, server, have)? {
        if let Some(network) = port.spec.network {
            let at = resource_key::<Network>(task, network.uuid())?;
            if let Some(network) = have.get::<Network>(&at)? {
                for subnet in &network.spec.subnets {
                    keys.push(resource_key::<Subnet>(task, subnet.uuid())?);
                }
            }
            keys.push(at);
        }
        for group in &port.spec.security_groups {
            let at = resource_key::<SecurityGroup>(task, group.uuid())?;
            if let Some(group) = have.get::<SecurityGroup>(&at)? {
                for rule in &group.spec.rules {
                    if let Some(Remote::Group { group }) = rule.remote {
                        keys.push(members_key(group)?);
                    }
                }
            }
            keys.push(at);
        }
    }
    Ok(keys)
}

/// The wirings of a server's ports that are in networks.
pub(super) fn wirings(task: &Task, server: &Server, records: &Records) -> Result<Vec<PortWiring>, Reason> {
    let ports = plugged(task, server, records)?;
    ports
        .iter()
        .map(|port| wiring(task, server, port, records))
        .collect()
}

/// The wiring of one port, which is in a network.
pub(super) fn wiring(
    task: &Task,
    server: &Server,
    port: &Port,
    records: &Records,
) -> Result<PortWiring, Reason> {
    let mut made = Newest { records, revision: 0 };
    made.see(&resource_key::<Server>(task, server.id().uuid())?);
    made.see(&port_key(task, port.id())?);
    let Some(id) = port.spec.network else {
        return Err(Reason::new(
            "port.user_network",
            "a port of no network has no wiring",
        ));
    };
    let network: Network = made.need(&resource_key::<Network>(task, id.uuid())?)?;
    let mut subnets = Vec::with_capacity(network.spec.subnets.len());
    for id in &network.spec.subnets {
        if let Some(subnet) = made.get::<Subnet>(&resource_key::<Subnet>(task, id.uuid())?)? {
            subnets.extend(of_subnet(&subnet));
        }
    }
    let mut rules = Vec::new();
    for group in &port.spec.security_groups {
        let group = made.get::<SecurityGroup>(&resource_key::<SecurityGroup>(task, group.uuid())?)?;
        for rule in group.iter().flat_map(|group| &group.spec.rules) {
            rules.push(of_rule(rule, &mut made)?);
        }
    }
    let keys = server.spec.ssh_keys.iter().enumerate();
    Ok(PortWiring {
        port: port.id(),
        server: server.id(),
        project: match server.meta.scope {
            Scope::Project(project) => project,
            Scope::System => ProjectId::from_uuid(Uuid::nil()),
        },
        generation: made.revision,
        network: NetworkWiring {
            id,
            mtu: network.spec.mtu,
            subnets,
        },
        mac: port.spec.mac,
        addresses: vec![port.spec.address],
        pairs: Vec::new(),
        hostname: server.spec.hostname.clone(),
        rules,
        port_security: network.spec.port_security,
        metadata: InstanceMetadata {
            name: server.meta.name.to_string(),
            availability_zone: None,
            launch_index: 0,
            keys: keys.map(|(n, key)| (format!("key-{n}"), key.clone())).collect(),
            values: server.spec.metadata.clone(),
            user_data: None,
        },
    })
}

fn of_subnet(subnet: &Subnet) -> Option<SubnetWiring> {
    Some(SubnetWiring {
        prefix: Prefix::new(subnet.spec.base, subnet.spec.prefix_len)?,
        gateway: subnet.spec.gateway,
        dns: subnet.spec.dns.clone(),
        routes: Vec::new(),
        dhcp: subnet.spec.dhcp,
    })
}

fn of_rule(rule: &SecurityRule, made: &mut Newest<'_>) -> Result<FirewallRule, Reason> {
    let remote = match &rule.remote {
        None => None,
        Some(Remote::Prefix { base, prefix_len }) => {
            Some(Prefix::new(*base, *prefix_len).into_iter().collect())
        }
        Some(Remote::Group { group }) => {
            let members: Option<GroupMembers> = made.get(&members_key(*group)?)?;
            let addresses = members.unwrap_or_default().ports.into_values();
            let of_family = |address: &IpAddr| family_of(*address) == rule.family;
            Some(addresses.filter(of_family).map(Prefix::host).collect())
        }
    };
    Ok(FirewallRule {
        direction: rule.direction,
        family: rule.family,
        protocol: rule.protocol,
        port_min: rule.port_min,
        port_max: rule.port_max,
        remote,
    })
}

/// Records, and the newest revision of those that were looked at.
struct Newest<'a> {
    records: &'a Records,
    revision: u64,
}

impl Newest<'_> {
    fn see(&mut self, key: &Key) {
        let revision = self.records.revision(key).map_or(0, |revision| revision.0);
        self.revision = self.revision.max(revision);
    }
    fn get<T: serde::de::DeserializeOwned>(&mut self, key: &Key) -> Result<Option<T>, Reason> {
        self.see(key);
        self.records.get(key)
    }
    fn need<T: serde::de::DeserializeOwned>(&mut self, key: &Key) -> Result<T, Reason> {
        self.see(key);
        self.records.need(key)
    }
}
