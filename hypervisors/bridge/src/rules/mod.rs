//! What nftables is told: two tables of our own, changed by transactions only.
//!
//! ```text
//!  tap ─> bridge/guard ─> inet/zones ─> (tracking) ─> inet/answers ─> bridge/traffic ─> tap, uplink, services
//!         is it himself?  which network?              marks answers    sender's and receiver's rules
//! ```
//!
//! A connection's first direction is asked of the rules packet by packet, only its answers pass by themselves: what a rule
//! no longer allows stops at once, and what it still allows goes on whatever happens to the agent.

mod expr;
mod firewall;
mod guard;
mod tables;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::{Value, json};
use skyloom_hypervisor::{PortWiring, Prefix};
use skyloom_model::{Family, NetworkId, PortId};

use crate::names;

/// Where guests find the metadata service, and their DHCP server.
pub(crate) const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Mark of packets that answer what was allowed.
const ANSWER: u32 = 0x534b_0001;
/// Mark of packets that belong to nothing.
const STRAY: u32 = 0x534b_0002;

/// All that our tables hold. Cheap to copy: ports that do not change are shared.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Ruleset {
    ports: BTreeMap<PortId, Arc<PortRules>>,
    zones: BTreeMap<NetworkId, u16>,
}

/// The chains and sets of one port.
#[derive(Debug, Clone, Default, PartialEq)]
struct PortRules {
    tap: String,
    guard: Vec<Vec<Value>>,
    sends: Vec<Vec<Value>>,
    receives: Vec<Vec<Value>>,
    sets: BTreeMap<String, Addresses>,
}

/// A set of addresses, without overlaps.
#[derive(Debug, Clone, PartialEq)]
struct Addresses {
    family: Family,
    members: Vec<Prefix>,
}

impl PortRules {
    fn of(wiring: &PortWiring) -> Self {
        let mut rules = Self {
            tap: names::tap(wiring.port),
            ..Self::default()
        };
        guard::guard(wiring, &mut rules);
        firewall::firewall(wiring, &mut rules);
        rules
    }
    /// Adds a set, and says its name in the table.
    fn set(&mut self, name: &str, family: Family, members: Vec<Prefix>) -> String {
        let name = format!("{}-{name}", self.tap);
        self.sets.insert(name.clone(), Addresses { family, members });
        name
    }
    /// The chains, with the map that leads to each and how.
    fn chains(&self) -> [(&'static str, String, &Vec<Vec<Value>>); 3] {
        let chain = |kind: &'static str| format!("{kind}-{}", self.tap);
        [
            ("guard", chain("guard"), &self.guard),
            ("sends", chain("sends"), &self.sends),
            ("receives", chain("receives"), &self.receives),
        ]
    }
    fn element(&self, map: &str, chain: &str) -> Value {
        let verdict = match map {
            "sends" => expr::jump(chain),
            _ => expr::goto(chain),
        };
        in_bridge("element", json!({ "name": map, "elem": [[self.tap, verdict]] }))
    }
    fn added(&self, commands: &mut Vec<Value>) {
        for (name, set) in &self.sets {
            commands.push(add(set.declared(name)));
            commands.extend(set.filled(name));
        }
        for (map, chain, rules) in self.chains() {
            commands.push(add(in_bridge("chain", json!({ "name": chain }))));
            fill(&chain, rules, commands);
            commands.push(add(self.element(map, &chain)));
        }
    }
    fn removed(&self, commands: &mut Vec<Value>) {
        for (map, chain, _) in self.chains() {
            commands.push(json!({ "delete": self.element(map, &chain) }));
            let chain = in_bridge("chain", json!({ "name": chain }));
            commands.push(json!({ "flush": chain }));
            commands.push(json!({ "delete": chain }));
        }
        for (name, set) in &self.sets {
            commands.push(json!({ "delete": set.declared(name) }));
        }
    }
    /// From `self` to `new`, of the same port. Where only addresses changed nothing but their sets is touched.
    fn changed(&self, new: &Self, commands: &mut Vec<Value>) {
        let same_kind = |(name, set): (&String, &Addresses)| {
            self.sets.get(name).is_some_and(|old| old.family == set.family)
        };
        let same_sets = self.sets.len() == new.sets.len() && new.sets.iter().all(same_kind);
        let same_rules = self.chains() == new.chains();
        if !(same_sets && same_rules) {
            for (_, chain, _) in self.chains() {
                commands.push(json!({ "flush": in_bridge("chain", json!({ "name": chain })) }));
            }
        }
        for (name, set) in &self.sets {
            if new.sets.get(name).is_none_or(|n| n.family != set.family) {
                commands.push(json!({ "delete": set.declared(name) }));
            }
        }
        for (name, set) in &new.sets {
            match self.sets.get(name) {
                Some(old) if old == set => {}
                Some(old) if old.family == set.family => {
                    commands.push(json!({ "flush": in_bridge("set", json!({ "name": name })) }));
                    commands.extend(set.filled(name));
                }
                _ => {
                    commands.push(add(set.declared(name)));
                    commands.extend(set.filled(name));
                }
            }
        }
        if !(same_sets && same_rules) {
            for (_, chain, rules) in new.chains() {
                fill(&chain, rules, commands);
            }
        }
    }
}

impl Addresses {
    fn declared(&self, name: &str) -> Value {
        let kind = match self.family {
            Family::Ipv4 => "ipv4_addr",
            Family::Ipv6 => "ipv6_addr",
        };
        in_bridge(
            "set",
            json!({ "name": name, "type": kind, "flags": ["interval"] }),
        )
    }
    fn filled(&self, name: &str) -> Option<Value> {
        let members: Vec<Value> = self.members.iter().copied().map(expr::block).collect();
        (!members.is_empty()).then(|| add(in_bridge("element", json!({ "name": name, "elem": members }))))
    }
}

impl Ruleset {
    /// Adds a port, or wires it otherwise.
    pub(crate) fn wire(&mut self, wiring: &PortWiring) {
        let rules = PortRules::of(wiring);
        if self.ports.get(&wiring.port).is_none_or(|old| **old != rules) {
            self.ports.insert(wiring.port, Arc::new(rules));
        }
    }
    /// Takes a port away.
    pub(crate) fn unwire(&mut self, port: PortId) {
        self.ports.remove(&port);
    }
    /// Adds a network.
    pub(crate) fn network(&mut self, network: NetworkId, zone: u16) {
        self.zones.insert(network, zone);
    }
    /// Takes a network away.
    pub(crate) fn forget(&mut self, network: NetworkId) {
        self.zones.remove(&network);
    }
    fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.zones.is_empty()
    }

    /// Replaces whatever our tables hold by this.
    pub(crate) fn whole(&self) -> Vec<Value> {
        let mut commands = tables::none();
        if !self.is_empty() {
            commands.extend(tables::base());
            for (network, zone) in &self.zones {
                tables::zone_added(*network, *zone, &mut commands);
            }
            for rules in self.ports.values() {
                rules.added(&mut commands);
            }
        }
        commands
    }

    /// What leads from this, which is there, to `new`.
    pub(crate) fn to(&self, new: &Self) -> Vec<Value> {
        if self.is_empty() != new.is_empty() {
            return new.whole();
        }
        let mut commands = Vec::new();
        for (port, old) in &self.ports {
            match new.ports.get(port) {
                None => old.removed(&mut commands),
                Some(now) if Arc::ptr_eq(now, old) => {}
                Some(now) => old.changed(now, &mut commands),
            }
        }
        for (network, zone) in &self.zones {
            if new.zones.get(network) != Some(zone) {
                tables::zone_removed(*network, *zone, &mut commands);
            }
        }
        for (network, zone) in &new.zones {
            if self.zones.get(network) != Some(zone) {
                tables::zone_added(*network, *zone, &mut commands);
            }
        }
        for (port, now) in &new.ports {
            if !self.ports.contains_key(port) {
                now.added(&mut commands);
            }
        }
        commands
    }
}

fn add(object: Value) -> Value {
    json!({ "add": object })
}

/// An object of our table of a family.
fn object(family: &str, kind: &str, mut body: Value) -> Value {
    body["family"] = json!(family);
    body["table"] = json!(tables::NAME);
    json!({ kind: body })
}
fn in_bridge(kind: &str, body: Value) -> Value {
    object("bridge", kind, body)
}

fn fill(chain: &str, rules: &[Vec<Value>], commands: &mut Vec<Value>) {
    let rule = |expr: &Vec<Value>| add(in_bridge("rule", json!({ "chain": chain, "expr": expr })));
    commands.extend(rules.iter().map(rule));
}

#[cfg(test)]
mod tests;
