//! Who is who in each network: what the services ask.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::RwLock;
use skyloom_hypervisor::PortWiring;
use skyloom_model::{MacAddr, NetworkId, PortId, ServerId};

/// All ports of the host. Readers see each change as a whole.
#[derive(Debug, Default)]
pub(crate) struct Directory(RwLock<Entries>);

#[derive(Debug, Default)]
struct Entries {
    ports: BTreeMap<PortId, Arc<PortWiring>>,
    macs: HashMap<(NetworkId, MacAddr), PortId>,
    addresses: HashMap<(NetworkId, IpAddr), PortId>,
}

impl Entries {
    fn remove(&mut self, port: PortId) {
        let Some(old) = self.ports.remove(&port) else {
            return;
        };
        self.macs.remove(&(old.network.id, old.mac));
        for address in &old.addresses {
            self.addresses.remove(&(old.network.id, *address));
        }
    }
}

impl Directory {
    /// Enters a port, also in place of what it was before.
    pub(crate) fn put(&self, wiring: &PortWiring) {
        let mut entries = self.0.write();
        entries.remove(wiring.port);
        entries.macs.insert((wiring.network.id, wiring.mac), wiring.port);
        for address in &wiring.addresses {
            entries
                .addresses
                .insert((wiring.network.id, *address), wiring.port);
        }
        entries.ports.insert(wiring.port, Arc::new(wiring.clone()));
    }
    pub(crate) fn remove(&self, port: PortId) {
        self.0.write().remove(port);
    }
    /// The port with this MAC address.
    pub(crate) fn by_mac(&self, network: NetworkId, mac: MacAddr) -> Option<Arc<PortWiring>> {
        let entries = self.0.read();
        entries.ports.get(entries.macs.get(&(network, mac))?).cloned()
    }
    /// The port with this address.
    pub(crate) fn by_address(&self, network: NetworkId, address: IpAddr) -> Option<Arc<PortWiring>> {
        let entries = self.0.read();
        entries
            .ports
            .get(entries.addresses.get(&(network, address))?)
            .cloned()
    }
    /// All ports of a server, in id order.
    pub(crate) fn of_server(&self, server: ServerId) -> Vec<Arc<PortWiring>> {
        let entries = self.0.read();
        entries
            .ports
            .values()
            .filter(|w| w.server == server)
            .cloned()
            .collect()
    }
}
