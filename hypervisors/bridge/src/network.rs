//! The network of a host: what is wanted is on record first, then the filter, then devices, then what the services say.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use skyloom_hypervisor::{
    Error, ErrorKind, HostNetwork, NetworkCapability, NetworkWiring, NicDevice, PortThere, PortWiring, Result,
};
use skyloom_model::{MacAddr, NetworkId, NicKind, PortId};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::command::Tools;
use crate::directory::Directory;
use crate::links::{self, Links};
use crate::records::{NetworkRecord, PortRecord, Records};
use crate::rules::Ruleset;
use crate::{BridgeConfig, dhcp, metadata, names, namespace};

/// Zones of connection tracking begin here: 0 is the host's own.
const FIRST_ZONE: u16 = 1;
/// How often and how long to wait for sockets that an earlier agent of this process has not closed yet.
const SOCKET_TRIES: u32 = 40;
const SOCKET_REST: Duration = Duration::from_millis(50);

/// The ports of a host's guests on Linux bridges.
pub struct BridgeNetwork {
    config: BridgeConfig,
    directory: Arc<Directory>,
    // One change at a time: devices and rules of a host are changed one after the other by the kernel, too.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    records: Records,
    ports: BTreeMap<PortId, PortRecord>,
    networks: BTreeMap<NetworkId, NetworkRecord>,
    services: BTreeMap<NetworkId, JoinSet<()>>,
    /// Networks that this agent has made or adopted, and how.
    made: BTreeMap<NetworkId, NetworkWiring>,
    rules: Ruleset,
    /// Whether our tables hold `rules`. If not, or if nobody knows, the next change writes all of them.
    known: bool,
}

impl fmt::Debug for BridgeNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BridgeNetwork")
            .field("dir", &self.config.dir)
            .finish_non_exhaustive()
    }
}

impl BridgeNetwork {
    /// Opens the records, and looks whether the host has what is needed. Changes nothing on the host before
    /// [`HostNetwork::recover`].
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the host lacks something, [`ErrorKind::Conflict`] when another network works in the
    /// directory.
    pub async fn open(config: BridgeConfig) -> Result<Self> {
        let needed = [
            (config.ip.as_path(), "install iproute2"),
            (config.bridge.as_path(), "install iproute2"),
            (config.nft.as_path(), "install nftables"),
            (Path::new("/dev/net/tun"), "load the kernel module tun"),
            (
                Path::new("/proc/sys/net/bridge"),
                "load the kernel module br_netfilter",
            ),
        ];
        for (path, hint) in needed {
            if !path.exists() {
                return Err(Error::new(ErrorKind::Unsupported, "open network")
                    .with("missing", path.display())
                    .with("hint", hint));
            }
        }
        let records = Records::open(&config.dir)?;
        let (ports, networks) = (records.ports()?, records.networks()?);
        let mut rules = Ruleset::default();
        for (network, record) in &networks {
            rules.network(*network, record.zone);
        }
        let directory = Arc::new(Directory::default());
        for record in ports.values() {
            rules.wire(&record.wiring);
            directory.put(&record.wiring);
        }
        let state = State {
            records,
            ports,
            networks,
            services: BTreeMap::new(),
            made: BTreeMap::new(),
            rules,
            known: false,
        };
        Ok(Self {
            config,
            directory,
            state: Mutex::new(state),
        })
    }

    /// Ends the services (DHCP and metadata). Devices, rules and records stay: guests go on.
    pub async fn close(&self) {
        let mut state = self.state.lock().await;
        for mut service in std::mem::take(&mut state.services).into_values() {
            service.shutdown().await;
        }
    }

    /// Makes a port, and looks at all of its network too, unless that is known to be as it should.
    async fn make(&self, state: &mut State, wiring: &PortWiring, again: bool) -> Result<()> {
        let (tools, network) = (Tools(&self.config), &wiring.network);
        let mut rules = state.rules.clone();
        if let Some(record) = state.networks.get(&network.id) {
            rules.network(network.id, record.zone);
        }
        rules.wire(wiring);
        state.filter(&tools, rules).await?;
        let links = Links::look(&tools).await?;
        let known = !again && state.made.get(&network.id) == Some(network);
        if !(known && links::has_network(&links, network)) {
            self.make_network(state, &links, network).await?;
        }
        links::ensure_neighbours(&tools, network.id, &state.neighbours(network.id)).await?;
        links::ensure_tap(&tools, &links, wiring).await?;
        self.directory.put(wiring);
        Ok(())
    }

    async fn make_network(&self, state: &mut State, links: &Links, network: &NetworkWiring) -> Result<()> {
        let tools = Tools(&self.config);
        let uplink = self.config.uplinks.get(&network.id).map(String::as_str);
        state.made.remove(&network.id);
        if links::ensure_network(&tools, links, network, uplink).await? {
            state.services.remove(&network.id);
        }
        self.serve(state, network.id).await?;
        state.made.insert(network.id, network.clone());
        Ok(())
    }

    async fn serve(&self, state: &mut State, network: NetworkId) -> Result<()> {
        if state.services.contains_key(&network) {
            return Ok(());
        }
        let name = names::namespace(network);
        let mut tries = 0;
        let sockets = loop {
            match namespace::open(&name).await {
                Err(_) if tries < SOCKET_TRIES => tries += 1,
                opened => break opened?,
            }
            tokio::time::sleep(SOCKET_REST).await;
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(dhcp::serve(sockets.dhcp, network, self.directory.clone()));
        let patience = self.config.request_timeout;
        tasks.spawn(metadata::serve(
            sockets.metadata,
            network,
            self.directory.clone(),
            patience,
        ));
        state.services.insert(network, tasks);
        Ok(())
    }

    /// Takes a network away of which no port is left.
    async fn unmake_network(&self, state: &mut State, network: NetworkId) -> Result<()> {
        let tools = Tools(&self.config);
        if let Some(mut service) = state.services.remove(&network) {
            service.shutdown().await;
        }
        let links = Links::look(&tools).await?;
        links::remove_network(&tools, &links, network).await?;
        let mut rules = state.rules.clone();
        rules.forget(network);
        state.filter(&tools, rules).await?;
        state.records.remove_network(network)?;
        state.networks.remove(&network);
        state.made.remove(&network);
        Ok(())
    }

    /// Adopts all ports of a network: what it is by the newest of them.
    async fn adopt(&self, state: &mut State, links: &Links, network: NetworkId) -> Result<()> {
        let tools = Tools(&self.config);
        let mut records: Vec<PortRecord> = state.ports.values().cloned().collect();
        records.retain(|r| r.wiring.network.id == network);
        if let Some(newest) = records.iter().max_by_key(|r| r.wiring.generation) {
            self.make_network(state, links, &newest.wiring.network).await?;
            links::ensure_neighbours(&tools, network, &state.neighbours(network)).await?;
        }
        for record in records {
            links::ensure_tap(&tools, links, &record.wiring).await?;
            state.mark(record.wiring.port, true);
        }
        Ok(())
    }
}

impl State {
    /// Brings our tables to `rules`: all of it or nothing.
    async fn filter(&mut self, tools: &Tools<'_>, rules: Ruleset) -> Result<()> {
        let commands = if self.known {
            self.rules.to(&rules)
        } else {
            rules.whole()
        };
        if commands.is_empty() {
            return Ok(());
        }
        self.known = false;
        tools.nft(commands).await?;
        self.rules = rules;
        self.known = true;
        Ok(())
    }

    fn keep(&mut self, wiring: PortWiring) -> Result<()> {
        self.records.put_port(&wiring)?;
        let complete = false;
        self.ports.insert(wiring.port, PortRecord { wiring, complete });
        Ok(())
    }

    fn mark(&mut self, port: PortId, complete: bool) {
        if let Some(record) = self.ports.get_mut(&port) {
            record.complete = complete;
        }
    }

    /// Keeps a network, with a zone of its own.
    fn keep_network(&mut self, network: NetworkId) -> Result<()> {
        if self.networks.contains_key(&network) {
            return Ok(());
        }
        let taken = |zone: &u16| self.networks.values().any(|n| n.zone == *zone);
        let Some(zone) = (FIRST_ZONE..u16::MAX).find(|zone| !taken(zone)) else {
            return Err(Error::new(ErrorKind::Full, "wire port").with("because", "all zones are taken"));
        };
        let record = NetworkRecord { zone };
        self.records.put_network(network, record)?;
        self.networks.insert(network, record);
        Ok(())
    }

    fn of_network(&self, network: NetworkId) -> impl Iterator<Item = &PortWiring> {
        let all = self.ports.values().map(|r| &r.wiring);
        all.filter(move |w| w.network.id == network)
    }

    fn neighbours(&self, network: NetworkId) -> BTreeMap<Ipv4Addr, MacAddr> {
        let mut all = BTreeMap::new();
        for wiring in self.of_network(network) {
            for address in &wiring.addresses {
                if let IpAddr::V4(address) = address {
                    all.insert(*address, wiring.mac);
                }
            }
        }
        all
    }

    /// Whether the order is to be carried out.
    fn admit(&self, wiring: &PortWiring) -> Result<()> {
        wiring.check()?;
        let refuse = |kind| Error::new(kind, "wire port").with("port", wiring.port);
        if wiring.mac == names::SERVICE_MAC {
            return Err(refuse(ErrorKind::Invalid).with("because", "its MAC address is the services' own"));
        }
        if let Some(there) = self.ports.get(&wiring.port).map(|r| &r.wiring) {
            if there.generation > wiring.generation {
                return Err(stale(
                    "wire port",
                    wiring.port,
                    wiring.generation,
                    there.generation,
                ));
            }
            if there.network.id != wiring.network.id || there.server != wiring.server {
                return Err(
                    refuse(ErrorKind::Conflict).with("because", "it is another server's or network's")
                );
            }
        }
        let others = self
            .of_network(wiring.network.id)
            .filter(|w| w.port != wiring.port);
        for other in others {
            if other.mac == wiring.mac || other.addresses.iter().any(|a| wiring.addresses.contains(a)) {
                return Err(refuse(ErrorKind::Conflict).with("its addresses are those of", other.port));
            }
        }
        Ok(())
    }
}

fn stale(operation: &'static str, port: PortId, order: u64, there: u64) -> Error {
    Error::new(ErrorKind::Stale, operation)
        .with("port", port)
        .with("order", order)
        .with("there", there)
}

#[async_trait]
impl HostNetwork for BridgeNetwork {
    fn capability(&self) -> NetworkCapability {
        let mut capability = NetworkCapability::bare(NicKind::Tap);
        capability.dhcp = true;
        capability.metadata = true;
        capability.ipv6 = true;
        capability
    }

    async fn ensure_port(&self, wiring: &PortWiring) -> Result<NicDevice> {
        let mut state = self.state.lock().await;
        state.admit(wiring)?;
        state.keep_network(wiring.network.id)?;
        let before = state.ports.get(&wiring.port);
        let again = before.is_some_and(|r| r.complete && r.wiring == *wiring);
        if before.is_none_or(|r| r.wiring != *wiring) {
            state.keep(wiring.clone())?;
        }
        // Also when the caller gives up.
        state.mark(wiring.port, false);
        let made = self.make(&mut state, wiring, again).await;
        state.mark(wiring.port, made.is_ok());
        made?;
        Ok(NicDevice {
            kind: NicKind::Tap,
            device: Some(names::tap(wiring.port)),
        })
    }

    async fn remove_port(&self, port: PortId, generation: u64) -> Result<()> {
        let mut state = self.state.lock().await;
        let Some(mut record) = state.ports.get(&port).cloned() else {
            return Ok(());
        };
        let network = record.wiring.network.id;
        if record.wiring.generation > generation {
            return Err(stale("remove port", port, generation, record.wiring.generation));
        }
        if record.wiring.generation < generation {
            record.wiring.generation = generation;
            state.keep(record.wiring)?;
        }
        state.mark(port, false);
        let tools = Tools(&self.config);
        self.directory.remove(port);
        let links = Links::look(&tools).await?;
        links::remove_tap(&tools, &links, port).await?;
        let mut rules = state.rules.clone();
        rules.unwire(port);
        state.filter(&tools, rules).await?;
        if state.of_network(network).any(|w| w.port != port) {
            let mut left = state.neighbours(network);
            let addresses = state.ports.get(&port).map(|r| r.wiring.addresses.clone());
            left.retain(|address, _| !addresses.iter().flatten().any(|a| a == address));
            if namespace::path(&names::namespace(network)).exists() {
                links::ensure_neighbours(&tools, network, &left).await?;
            }
        } else {
            self.unmake_network(&mut state, network).await?;
        }
        state.records.remove_port(port)?;
        state.ports.remove(&port);
        Ok(())
    }

    async fn ports(&self) -> Result<Vec<PortThere>> {
        let state = self.state.lock().await;
        let there = |r: &PortRecord| PortThere {
            port: r.wiring.port,
            server: r.wiring.server,
            network: r.wiring.network.id,
            generation: r.wiring.generation,
            complete: r.complete,
        };
        Ok(state.ports.values().map(there).collect())
    }

    async fn recover(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        let networks: Vec<NetworkId> = state.ports.values().map(|r| r.wiring.network.id).collect();
        for network in networks {
            state.keep_network(network)?;
        }
        let mut rules = state.rules.clone();
        for (network, record) in &state.networks {
            rules.network(*network, record.zone);
        }
        state.known = false;
        state.filter(&Tools(&self.config), rules).await?;
        let unused: Vec<NetworkId> = state.networks.keys().copied().collect();
        for network in unused {
            if state.of_network(network).next().is_none() {
                self.unmake_network(&mut state, network).await?;
            }
        }
        let links = Links::look(&Tools(&self.config)).await?;
        let networks: Vec<NetworkId> = state.networks.keys().copied().collect();
        for network in networks {
            if let Err(error) = self.adopt(&mut state, &links, network).await {
                tracing::error!(%network, %error, "a network cannot be adopted; the next order for a port of it tries again");
                let ports: Vec<PortId> = state.of_network(network).map(|w| w.port).collect();
                for port in ports {
                    state.mark(port, false);
                }
            }
        }
        Ok(())
    }
}
