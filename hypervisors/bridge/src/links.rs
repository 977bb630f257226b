//! Devices: a bridge, a namespace for the services and a way between them per network; a tap per port.
//!
//! Everything is looked at first and made only where it is missing or otherwise. So the same call makes, mends and adopts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde_json::Value;
use skyloom_hypervisor::{Error, ErrorKind, NetworkWiring, PortWiring, Prefix, Result};
use skyloom_model::{MacAddr, NetworkId, PortId};

use crate::command::Tools;
use crate::names::{self, INNER, SERVICE_MAC};
use crate::namespace;
use crate::rules::METADATA;

/// The host's devices by name.
#[derive(Debug)]
pub(crate) struct Links(BTreeMap<String, Value>);

impl Links {
    /// Looks.
    pub(crate) async fn look(tools: &Tools<'_>) -> Result<Self> {
        let all = tools.ip_json(None, &["-d", "link", "show"]).await?;
        let named = |link: Value| Some((link["ifname"].as_str()?.to_owned(), link));
        Ok(Self(all.into_iter().filter_map(named).collect()))
    }
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
    /// A device of this name that is another's. An alias that is missing is one that was not written any more.
    fn must_be_ours(&self, name: &str, alias: &str) -> Result<()> {
        match self.get(name).and_then(|link| link["ifalias"].as_str()) {
            Some(other) if other != alias => Err(Error::new(ErrorKind::Conflict, "use device")
                .with("device", name)
                .with("belongs to", other)),
            _ => Ok(()),
        }
    }
}

/// Deletes a device. The kernel may have been faster: it takes away what was in a namespace that is gone.
async fn delete(tools: &Tools<'_>, device: &str) -> Result<()> {
    match tools.ip(None, &["link", "delete", "dev", device]).await {
        Err(error) if Links::look(tools).await?.has(device) => Err(error),
        _ => Ok(()),
    }
}

fn is_up(link: &Value) -> bool {
    link["flags"]
        .as_array()
        .is_some_and(|flags| flags.iter().any(|f| f == "UP"))
}

/// Ensures a network's bridge, namespace and the way between them. Says whether the namespace is new, so that sockets in
/// an old one of this name are of no use any more.
pub(crate) async fn ensure_network(
    tools: &Tools<'_>,
    links: &Links,
    network: &NetworkWiring,
    uplink: Option<&str>,
) -> Result<bool> {
    let bridge = names::bridge(network.id);
    ensure_bridge(tools, links, network).await?;
    let made = ensure_services(tools, links, network).await?;
    if let Some(uplink) = uplink {
        let there = links
            .get(uplink)
            .is_some_and(|l| l["master"] == bridge && is_up(l));
        if !there {
            tools
                .ip(None, &["link", "set", "dev", uplink, "master", &bridge, "up"])
                .await?;
        }
    }
    Ok(made)
}

/// Whether a network's devices are there, seen from the host.
pub(crate) fn has_network(links: &Links, network: &NetworkWiring) -> bool {
    has_bridge(links, network)
        && has_service(links, network)
        && namespace::path(&names::namespace(network.id)).exists()
}

fn has_bridge(links: &Links, network: &NetworkWiring) -> bool {
    links.get(&names::bridge(network.id)).is_some_and(|link| {
        let data = &link["linkinfo"]["info_data"];
        link["mtu"] == network.mtu
            && link["address"] == names::bridge_mac(network.id).to_string()
            && link["ifalias"] == names::network_alias(network.id)
            && link["inet6_addr_gen_mode"] == "none"
            && data["nf_call_iptables"] == 1
            && data["nf_call_ip6tables"] == 1
            && is_up(link)
    })
}

fn has_service(links: &Links, network: &NetworkWiring) -> bool {
    links.get(&names::service(network.id)).is_some_and(|link| {
        link["master"] == names::bridge(network.id)
            && link["mtu"] == network.mtu
            && link["ifalias"] == names::network_alias(network.id)
            && is_up(link)
    })
}

async fn ensure_bridge(tools: &Tools<'_>, links: &Links, network: &NetworkWiring) -> Result<()> {
    let (name, alias) = (names::bridge(network.id), names::network_alias(network.id));
    let (mtu, mac) = (network.mtu.to_string(), names::bridge_mac(network.id).to_string());
    links.must_be_ours(&name, &alias)?;
    if has_bridge(links, network) {
        return Ok(());
    }
    if !links.has(&name) {
        tools
            .ip(None, &["link", "add", "name", &name, "type", "bridge"])
            .await?;
    }
    // Its packets pass the tracking of connections; the host has no address there and makes itself none.
    let kind = ["stp_state", "0", "forward_delay", "0", "mcast_snooping", "0"];
    let calls = [
        "nf_call_iptables",
        "1",
        "nf_call_ip6tables",
        "1",
        "nf_call_arptables",
        "0",
    ];
    let mut args = vec!["link", "set", "dev", &name, "type", "bridge"];
    args.extend(kind.into_iter().chain(calls));
    tools.ip(None, &args).await?;
    let mut args = vec![
        "link", "set", "dev", &name, "address", &mac, "mtu", &mtu, "alias", &alias,
    ];
    args.extend(["addrgenmode", "none", "up"]);
    tools.ip(None, &args).await
}

async fn ensure_services(tools: &Tools<'_>, links: &Links, network: &NetworkWiring) -> Result<bool> {
    let (outer, inside) = (names::service(network.id), names::namespace(network.id));
    let (bridge, alias) = (names::bridge(network.id), names::network_alias(network.id));
    let mtu = network.mtu.to_string();
    links.must_be_ours(&outer, &alias)?;
    let mut made = false;
    let mut inner = None;
    if namespace::path(&inside).exists() {
        match tools.ip_json(Some(&inside), &["address", "show"]).await {
            Ok(all) => inner = all.into_iter().find(|l| l["ifname"] == INNER),
            // The name without the namespace: the work was interrupted in between.
            Err(_) => tools.ip(None, &["netns", "delete", &inside]).await?,
        }
    }
    if !namespace::path(&inside).exists() {
        tools.ip(None, &["netns", "add", &inside]).await?;
        made = true;
    }
    let new_pair = inner.is_none() || !links.has(&outer);
    if new_pair {
        if links.has(&outer) {
            delete(tools, &outer).await?;
        }
        if inner.take().is_some() {
            tools.ip(Some(&inside), &["link", "delete", "dev", INNER]).await?;
        }
        let pair = [
            "link", "add", "name", &outer, "type", "veth", "peer", "name", INNER, "netns", &inside,
        ];
        tools.ip(None, &pair).await?;
    }
    if new_pair || !has_service(links, network) {
        let mut args = vec!["link", "set", "dev", &outer, "mtu", &mtu, "alias", &alias];
        args.extend(["addrgenmode", "none", "master", &bridge, "up"]);
        tools.ip(None, &args).await?;
    }
    ensure_place(tools, &outer, SERVICE_MAC).await?;
    let mac = SERVICE_MAC.to_string();
    let own = METADATA.to_string();
    let has_own = |l: &Value| {
        l["addr_info"]
            .as_array()
            .is_some_and(|all| all.iter().any(|a| a["local"] == own))
    };
    let good =
        inner.is_some_and(|l| l["mtu"] == network.mtu && l["address"] == mac && is_up(&l) && has_own(&l));
    if !good {
        tools
            .ip(Some(&inside), &["link", "set", "dev", "lo", "up"])
            .await?;
        let mut args = vec!["link", "set", "dev", INNER, "address", &mac, "mtu", &mtu];
        args.extend(["addrgenmode", "none", "up"]);
        tools.ip(Some(&inside), &args).await?;
        let own = format!("{own}/32");
        tools
            .ip(Some(&inside), &["address", "replace", &own, "dev", INNER])
            .await?;
    }
    ensure_routes(tools, network).await?;
    Ok(made)
}

/// The services reach the network's addresses, and everybody at once, and nothing else.
async fn ensure_routes(tools: &Tools<'_>, network: &NetworkWiring) -> Result<()> {
    let (inside, source) = (names::namespace(network.id), METADATA.to_string());
    let everybody = Ipv4Addr::BROADCAST.to_string();
    let prefixes = network
        .subnets
        .iter()
        .map(|s| s.prefix)
        .filter(|p| p.base().is_ipv4());
    // `ip` shows a single address without its length.
    let shown = |p: Prefix| {
        if p.bits() == 32 {
            p.base().to_string()
        } else {
            p.to_string()
        }
    };
    let mut wanted: BTreeSet<String> = prefixes.map(shown).collect();
    wanted.insert(everybody.clone());
    let there = tools
        .ip_json(Some(&inside), &["-4", "route", "show", "dev", INNER])
        .await?;
    let there: BTreeSet<String> = there
        .iter()
        .filter_map(|r| Some(r["dst"].as_str()?.to_owned()))
        .collect();
    for route in there.difference(&wanted) {
        tools
            .ip(Some(&inside), &["route", "delete", route, "dev", INNER])
            .await?;
    }
    for route in wanted.difference(&there) {
        let kind = if *route == everybody {
            "broadcast"
        } else {
            "unicast"
        };
        let args = [
            "route", "replace", kind, route, "dev", INNER, "table", "main", "src", &source,
        ];
        tools.ip(Some(&inside), &args).await?;
    }
    Ok(())
}

/// The services find each port at its own MAC address, whatever somebody says of it.
pub(crate) async fn ensure_neighbours(
    tools: &Tools<'_>,
    network: NetworkId,
    wanted: &BTreeMap<Ipv4Addr, MacAddr>,
) -> Result<()> {
    let inside = names::namespace(network);
    let there = tools
        .ip_json(
            Some(&inside),
            &["-4", "neighbour", "show", "dev", INNER, "nud", "permanent"],
        )
        .await?;
    let entry = |n: &Value| {
        Some((
            n["dst"].as_str()?.parse().ok()?,
            n["lladdr"].as_str()?.parse().ok()?,
        ))
    };
    let there: BTreeMap<Ipv4Addr, MacAddr> = there.iter().filter_map(entry).collect();
    for address in there.keys().filter(|a| !wanted.contains_key(a)) {
        let address = address.to_string();
        tools
            .ip(Some(&inside), &["neighbour", "delete", &address, "dev", INNER])
            .await?;
    }
    for (address, mac) in wanted.iter().filter(|(a, m)| there.get(a) != Some(m)) {
        let (address, mac) = (address.to_string(), mac.to_string());
        let args = [
            "neighbour",
            "replace",
            &address,
            "lladdr",
            &mac,
            "dev",
            INNER,
            "nud",
            "permanent",
        ];
        tools.ip(Some(&inside), &args).await?;
    }
    Ok(())
}

/// Ensures that nothing of a network's devices is left. The uplink stays where it is, plugged into nothing.
pub(crate) async fn remove_network(tools: &Tools<'_>, links: &Links, network: NetworkId) -> Result<()> {
    let (outer, inside, bridge) = (
        names::service(network),
        names::namespace(network),
        names::bridge(network),
    );
    let alias = names::network_alias(network);
    for device in [&outer, &bridge] {
        links.must_be_ours(device, &alias)?;
        if links.has(device) {
            delete(tools, device).await?;
        }
    }
    if namespace::path(&inside).exists() {
        tools.ip(None, &["netns", "delete", &inside]).await?;
    }
    Ok(())
}

/// Ensures a port's tap on its bridge.
pub(crate) async fn ensure_tap(tools: &Tools<'_>, links: &Links, wiring: &PortWiring) -> Result<()> {
    let (name, alias) = (names::tap(wiring.port), names::tap_alias(wiring.port));
    let (bridge, mac) = (
        names::bridge(wiring.network.id),
        names::tap_mac(wiring.mac).to_string(),
    );
    let mtu = wiring.network.mtu.to_string();
    links.must_be_ours(&name, &alias)?;
    let good = links.get(&name).is_some_and(|link| {
        link["mtu"] == wiring.network.mtu
            && link["ifalias"] == alias
            && link["address"] == mac
            && link["master"] == bridge
            && is_up(link)
    });
    if !links.has(&name) {
        let user = tools.0.tap_user.map(|user| user.to_string());
        let mut args = vec!["tuntap", "add", "dev", &name, "mode", "tap"];
        if let Some(user) = &user {
            args.extend(["user", user]);
        }
        tools.ip(None, &args).await?;
    }
    if !good {
        let mut args = vec!["link", "set", "dev", &name, "address", &mac, "mtu", &mtu];
        args.extend(["alias", &alias, "addrgenmode", "none", "master", &bridge, "up"]);
        tools.ip(None, &args).await?;
    }
    if links.has(&name) {
        ensure_place(tools, &name, wiring.mac).await
    } else {
        place(tools, &name, wiring.mac).await
    }
}

/// The bridge knows the one place of a MAC address: nobody else can draw its packets to himself.
async fn ensure_place(tools: &Tools<'_>, device: &str, mac: MacAddr) -> Result<()> {
    let wanted = mac.to_string();
    let entries = tools.bridge_json(&["fdb", "show", "dev", device]).await?;
    let sticky = |e: &&Value| {
        e["flags"]
            .as_array()
            .is_some_and(|f| f.iter().any(|f| f == "sticky"))
    };
    let mut there = false;
    for mac in entries.iter().filter(sticky).filter_map(|e| e["mac"].as_str()) {
        there |= mac == wanted;
        if mac != wanted {
            tools
                .bridge(&["fdb", "delete", mac, "dev", device, "master"])
                .await?;
        }
    }
    if there {
        Ok(())
    } else {
        place(tools, device, mac).await
    }
}

async fn place(tools: &Tools<'_>, device: &str, mac: MacAddr) -> Result<()> {
    let mac = mac.to_string();
    let args = [
        "fdb", "replace", &mac, "dev", device, "master", "static", "sticky",
    ];
    tools.bridge(&args).await
}

/// Ensures that a port has no tap.
pub(crate) async fn remove_tap(tools: &Tools<'_>, links: &Links, port: PortId) -> Result<()> {
    let name = names::tap(port);
    links.must_be_ours(&name, &names::tap_alias(port))?;
    if links.has(&name) {
        delete(tools, &name).await?;
    }
    Ok(())
}
