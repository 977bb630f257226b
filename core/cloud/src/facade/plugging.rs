//! Plugging ports into networks: what one commit needs for all the ports that it makes or removes.
//!
//! ```text
//!  CreatePort ──> Plugging ──┬── the port, whose address and MAC address are reserved where nobody has them (guard: absent)
//!                            ├── members/{group} of its security groups; `default` is made with the first port
//!                            └── guards: network, subnet and groups are what they were
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use skyloom_identity::Amounts;
use skyloom_model::{
    GroupMembers, MacAddr, Meta, Name, Network, NicKind, Port, PortId, PortSpec, PortStatus, Reserved,
    Resource as _, SecurityGroup, SecurityGroupId, ServerId, Subnet, SubnetId, paths,
};
use skyloom_store::{Guard, Key, Txn, Versioned};

use super::Cloud;
use super::records::{create, create_resource, key};
use super::security_groups::DEFAULT;
use crate::checks::addresses;
use crate::{Caller, CloudError, CreatePort, FieldError, Result, amounts};

/// Most security groups of a port.
const MAX_GROUPS: usize = 16;

/// A group's members as they are to be.
struct Members {
    /// What is there now; nothing for a group that this commit makes.
    found: Option<Versioned<GroupMembers>>,
    wanted: GroupMembers,
}

/// The writes of one commit around ports.
pub(super) struct Plugging<'a> {
    cloud: &'a Cloud,
    caller: &'a Caller,
    txn: Txn,
    amounts: Amounts,
    guards: BTreeMap<Key, Guard>,
    members: BTreeMap<SecurityGroupId, Members>,
    addresses: BTreeSet<(SubnetId, IpAddr)>,
    /// The group `default`, if this commit makes it.
    made: Option<SecurityGroup>,
}

fn wrong(at: &str, field: &str, code: &str, message: impl Into<String>) -> CloudError {
    CloudError::field(FieldError::new(format!("{at}{field}"), code, message))
}

impl<'a> Plugging<'a> {
    pub(super) fn new(cloud: &'a Cloud, caller: &'a Caller) -> Self {
        Self {
            cloud,
            caller,
            txn: Txn::new(),
            amounts: Amounts::new(),
            guards: BTreeMap::new(),
            members: BTreeMap::new(),
            addresses: BTreeSet::new(),
            made: None,
        }
    }

    fn add(&mut self, part: Txn) {
        self.txn = std::mem::take(&mut self.txn).and(part);
    }

    fn unchanged<T>(&mut self, found: &Versioned<T>) {
        self.guards.insert(found.key.clone(), found.unchanged());
    }

    /// A new port. `at` is what the fields of the request lie below, such as `networks[0].`.
    pub(super) async fn port(
        &mut self,
        at: &str,
        asked: &CreatePort,
        name: Option<Name>,
        server: Option<ServerId>,
    ) -> Result<Port> {
        let cloud = self.cloud;
        let network = cloud
            .network_of(self.caller, &format!("{at}network"), &asked.network)
            .await?;
        self.unchanged(&network);
        let id = cloud.parts.ids.uuid();
        let groups = self
            .groups(at, &network.value, asked.security_groups.as_deref())
            .await?;
        let (subnet, address) = self.address(at, &network.value, asked).await?;
        let mac = self.mac(at, &network.value, asked.mac).await?;
        let name = match name {
            Some(name) => name,
            None => Name::new(format!("port-{}", &id.simple().to_string()[24..]))
                .map_err(|e| CloudError::internal(format!("port name {e}")))?,
        };
        let mut meta = Meta::new(id, name, self.caller.scope(), cloud.now());
        meta.labels = asked.labels.clone();
        let port = Port {
            meta,
            spec: PortSpec {
                server,
                goes_with_server: server.is_some(),
                network: Some(network.value.id()),
                subnet: Some(subnet.id()),
                security_groups: groups,
                kind: NicKind::Tap,
                mac,
                address,
                prefix_len: subnet.spec.prefix_len,
                gateway: subnet.spec.gateway,
                dns: subnet.spec.dns.clone(),
            },
            status: PortStatus { bound: false },
        };
        let reserved = Reserved {
            port: port.id(),
            scope: port.meta.scope,
        };
        self.add(create_resource(&port)?);
        self.add(create(&paths::address(subnet.id(), address), &reserved)?);
        self.add(create(&paths::mac(network.value.id(), mac), &reserved)?);
        self.join(port.id(), address, &port.spec.security_groups).await?;
        self.amounts = self.amounts.clone().plus(&amounts::of_ports(1));
        Ok(port)
    }

    /// The port that was made before, as the NIC of a server.
    pub(super) async fn adopt(&mut self, at: &str, id: PortId, server: ServerId) -> Result<Port> {
        let found = self
            .cloud
            .own::<Port>(self.caller, "port:update", id.uuid())
            .await?;
        if found.value.spec.server.is_some() {
            let message = "the port is another server's";
            return Err(wrong(at, "port", "port.in_use", message));
        }
        let mut port = found.value.clone();
        port.spec.server = Some(server);
        port.meta.updated_at = self.cloud.now();
        self.add(found.replace(&port)?);
        Ok(port)
    }

    /// The port is gone, with its reservations.
    pub(super) async fn remove(&mut self, found: &Versioned<Port>) -> Result<()> {
        let spec = &found.value.spec;
        self.add(found.delete());
        if let Some(subnet) = spec.subnet {
            self.add(Txn::new().delete(key(&paths::address(subnet, spec.address))?));
        }
        if let Some(network) = spec.network {
            self.add(Txn::new().delete(key(&paths::mac(network, spec.mac))?));
        }
        self.leave(found.value.id(), &spec.security_groups).await
    }

    /// The port is in these groups and no others.
    pub(super) async fn regroup(&mut self, port: &mut Port, asked: &[String]) -> Result<()> {
        let Some(network) = port.spec.network else {
            let message = "a port of the user network has no security groups";
            return Err(wrong("", "security_groups", "port.user_network", message));
        };
        let network = self
            .cloud
            .resource::<Network>(port.meta.scope, network.uuid())
            .await?;
        let network = network.ok_or_else(|| CloudError::internal("a port's network is gone"))?;
        let groups = self.groups("", &network.value, Some(asked)).await?;
        let id = port.id();
        let left: Vec<_> = port
            .spec
            .security_groups
            .iter()
            .filter(|g| !groups.contains(g))
            .copied()
            .collect();
        self.leave(id, &left).await?;
        self.join(id, port.spec.address, &groups).await?;
        port.spec.security_groups = groups;
        Ok(())
    }

    /// All of it, and what it takes of the quota.
    pub(super) fn finish(mut self) -> Result<(Txn, Amounts)> {
        for (group, members) in std::mem::take(&mut self.members) {
            let part = match members.found {
                Some(found) if found.value == members.wanted => Txn::new(),
                Some(found) => found.replace(&members.wanted)?,
                None => create(&paths::members(group), &members.wanted)?,
            };
            self.add(part);
        }
        let txn = self.guards.into_values().fold(self.txn, Txn::guard);
        Ok((txn, self.amounts))
    }

    async fn groups(
        &mut self,
        at: &str,
        network: &Network,
        asked: Option<&[String]>,
    ) -> Result<Vec<SecurityGroupId>> {
        let field = format!("{at}security_groups");
        if !network.spec.port_security {
            return match asked {
                None | Some([]) => Ok(Vec::new()),
                Some(_) => {
                    let message = "the network lets everything pass";
                    Err(wrong(at, "security_groups", "network.no_port_security", message))
                }
            };
        }
        let Some(asked) = asked else {
            return Ok(vec![self.default_group().await?]);
        };
        if asked.len() > MAX_GROUPS {
            let message = format!("at most {MAX_GROUPS} security groups");
            return Err(wrong(at, "security_groups", "security-group.too_many", message));
        }
        let mut groups = Vec::with_capacity(asked.len());
        for asked in asked {
            let id = if asked == DEFAULT {
                self.default_group().await?
            } else {
                let found = self.cloud.group_of(self.caller, &field, asked).await?;
                self.unchanged(&found);
                found.value.id()
            };
            if !groups.contains(&id) {
                groups.push(id);
            }
        }
        Ok(groups)
    }

    /// The project's `default`; made if there is none.
    async fn default_group(&mut self) -> Result<SecurityGroupId> {
        if let Some(made) = &self.made {
            return Ok(made.id());
        }
        let (cloud, scope) = (self.cloud, self.caller.scope());
        if let Some(found) = cloud.by_id_or_name::<SecurityGroup>(scope, DEFAULT).await? {
            self.unchanged(&found);
            return Ok(found.value.id());
        }
        let name = Name::new(DEFAULT).map_err(|e| CloudError::internal(e.to_string()))?;
        let (group, claim) = cloud.new_group(self.caller, &name, "").await?;
        self.add(create_resource(&group)?.and(claim));
        let rules = group.spec.rules.len();
        self.amounts = self.amounts.clone().plus(&amounts::of_security_group(rules));
        let id = group.id();
        self.members.insert(
            id,
            Members {
                found: None,
                wanted: GroupMembers {
                    named_by: [id].into(),
                    ..GroupMembers::default()
                },
            },
        );
        self.made = Some(group);
        Ok(id)
    }

    async fn members(&mut self, group: SecurityGroupId) -> Result<&mut GroupMembers> {
        if !self.members.contains_key(&group) {
            let found = self.cloud.read::<GroupMembers>(&paths::members(group)).await?;
            let wanted = found
                .as_ref()
                .map(|found| found.value.clone())
                .unwrap_or_default();
            self.members.insert(group, Members { found, wanted });
        }
        let members = self.members.get_mut(&group);
        Ok(&mut members.ok_or_else(CloudError::contended)?.wanted)
    }

    async fn join(&mut self, port: PortId, address: IpAddr, groups: &[SecurityGroupId]) -> Result<()> {
        for group in groups {
            self.members(*group).await?.ports.insert(port, address);
        }
        Ok(())
    }

    async fn leave(&mut self, port: PortId, groups: &[SecurityGroupId]) -> Result<()> {
        for group in groups {
            self.members(*group).await?.ports.remove(&port);
        }
        Ok(())
    }

    /// A subnet of the network, and an address of it that nobody has.
    async fn address(&mut self, at: &str, network: &Network, asked: &CreatePort) -> Result<(Subnet, IpAddr)> {
        let mut open = Vec::new();
        for id in &network.spec.subnets {
            if asked.subnet.is_some_and(|subnet| subnet != *id) {
                continue;
            }
            let found = self
                .cloud
                .resource::<Subnet>(network.meta.scope, id.uuid())
                .await?;
            open.extend(found.filter(|subnet| !subnet.value.spec.closed));
        }
        if open.is_empty() {
            let (field, message) = match asked.subnet {
                Some(_) => ("subnet", "the network has no such subnet"),
                None => ("network", "the network has no subnet"),
            };
            return Err(wrong(at, field, "network.no_subnet", message));
        }
        if let Some(address) = asked.fixed_address {
            let fits =
                |s: &&Versioned<Subnet>| addresses::is_usable(addresses::prefix_of(&s.value.spec), address);
            let Some(subnet) = open.iter().find(fits) else {
                let message = format!("{address} is no host's address in a subnet of the network");
                return Err(wrong(at, "fixed_address", "address.invalid", message));
            };
            if subnet.value.spec.gateway == Some(address) {
                return Err(wrong(
                    at,
                    "fixed_address",
                    "address.invalid",
                    "it is the gateway's",
                ));
            }
            if !self.take(subnet.value.id(), address).await? {
                let message = format!("another port has the address {address}");
                return Err(wrong(at, "fixed_address", "address.in_use", message));
            }
            self.unchanged(subnet);
            return Ok((subnet.value.clone(), address));
        }
        let mut random = [0; 16];
        self.cloud.parts.ids.random(&mut random);
        for subnet in &open {
            for address in addresses::candidates(&subnet.value.spec, u128::from_le_bytes(random)) {
                if self.take(subnet.value.id(), address).await? {
                    self.unchanged(subnet);
                    return Ok((subnet.value.clone(), address));
                }
            }
        }
        let message = "no free address was found in the network's subnets";
        Err(wrong(at, "network", "subnet.exhausted", message).hint("delete ports, or make another subnet"))
    }

    /// Whether nobody has the address, neither in the store nor in this commit; then it is taken.
    async fn take(&mut self, subnet: SubnetId, address: IpAddr) -> Result<bool> {
        if self.addresses.contains(&(subnet, address)) {
            return Ok(false);
        }
        let reserved = self
            .cloud
            .read::<Reserved>(&paths::address(subnet, address))
            .await?;
        Ok(reserved.is_none() && self.addresses.insert((subnet, address)))
    }

    async fn mac(&self, at: &str, network: &Network, asked: Option<MacAddr>) -> Result<MacAddr> {
        let Some(mac) = asked else {
            let mut tail = [0; 3];
            self.cloud.parts.ids.random(&mut tail);
            return Ok(MacAddr::qemu(tail));
        };
        let path = paths::mac(network.id(), mac);
        if self.cloud.read::<Reserved>(&path).await?.is_some() {
            let message = format!("another port of the network has the MAC address {mac}");
            return Err(wrong(at, "mac", "mac.in_use", message));
        }
        Ok(mac)
    }
}
