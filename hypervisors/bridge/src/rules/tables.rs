//! What our two tables hold whatever the ports are.

use serde_json::{Value, json};
use skyloom_model::NetworkId;

use super::expr::{accept, by_map, discard, field, goto, is, is_not, meta, put};
use super::{ANSWER, METADATA, STRAY, add, in_bridge, object};
use crate::names::{self, BRIDGE, SERVICE, TAP};

/// Their name, in the families `bridge` and `inet`.
pub(super) const NAME: &str = "skyloom";

fn in_inet(kind: &str, body: Value) -> Value {
    object("inet", kind, body)
}
fn table(family: &str) -> Value {
    json!({ "table": { "family": family, "name": NAME } })
}

/// Takes both tables away, if they are there.
pub(super) fn none() -> Vec<Value> {
    let gone = |family| [add(table(family)), json!({ "delete": table(family) })];
    ["bridge", "inet"].into_iter().flat_map(gone).collect()
}

fn hooked(chain: &str, hook: &str, priority: i32) -> Value {
    json!({ "name": chain, "type": "filter", "hook": hook, "prio": priority, "policy": "accept" })
}

fn map(name: &str) -> Value {
    json!({ "name": name, "type": "ifname", "map": "verdict" })
}

fn like(prefix: &str) -> String {
    format!("{prefix}*")
}

/// Makes both tables, without ports and networks.
pub(super) fn base() -> Vec<Value> {
    let mut commands: Vec<Value> = ["bridge", "inet"].map(table).into_iter().map(add).collect();
    let mut bridge = |kind, body| commands.push(add(in_bridge(kind, body)));
    for name in ["guard", "sends", "receives"] {
        bridge("map", map(name));
    }
    bridge("chain", hooked("guard", "prerouting", -250));
    bridge("chain", hooked("traffic", "forward", -10));
    bridge("chain", hooked("host", "input", -10));
    bridge("chain", json!({ "name": "services" }));
    let mut rule = |chain: &str, expr: Vec<Value>| bridge("rule", json!({ "chain": chain, "expr": expr }));
    let from = |prefix| is(meta("iifname"), like(prefix));
    let to = |prefix| is(meta("oifname"), like(prefix));

    rule("guard", vec![by_map("iifname", "guard")]);
    // A tap without a wiring passes nothing.
    rule("guard", vec![from(TAP), discard()]);

    rule("traffic", vec![to(SERVICE), goto("services")]);
    rule("traffic", vec![from(SERVICE), to(TAP), accept()]);
    // The services are this host's: those of other hosts are for the guests there.
    rule("traffic", vec![from(SERVICE), discard()]);
    rule("traffic", vec![by_map("iifname", "sends")]);
    rule("traffic", vec![by_map("oifname", "receives")]);
    rule("traffic", vec![to(TAP), discard()]);

    rule("services", vec![is_not(meta("iifname"), like(TAP)), discard()]);
    rule(
        "services",
        vec![is(field("arp", "daddr ip"), METADATA.to_string()), accept()],
    );
    rule(
        "services",
        vec![
            is(field("udp", "sport"), 68),
            is(field("udp", "dport"), 67),
            accept(),
        ],
    );
    rule(
        "services",
        vec![
            is(field("ip", "daddr"), METADATA.to_string()),
            is(field("tcp", "dport"), 80),
            accept(),
        ],
    );
    rule("services", vec![discard()]);

    // The host itself is nobody's neighbour.
    rule("host", vec![from(TAP), discard()]);
    rule("host", vec![from(SERVICE), discard()]);

    let mut inet = |kind, body| commands.push(add(in_inet(kind, body)));
    inet("map", map("zones"));
    inet("chain", hooked("zones", "prerouting", -300));
    inet("chain", hooked("answers", "prerouting", -150));
    let mut rule = |chain: &str, expr: Vec<Value>| inet("rule", json!({ "chain": chain, "expr": expr }));
    let state = |state: &str| json!({ "match": { "op": "in", "left": { "ct": { "key": "state" } }, "right": state } });
    let ours = || is(meta("iifname"), like(BRIDGE));
    let reply = is(json!({ "ct": { "key": "direction" } }), "reply");
    rule("zones", vec![by_map("iifname", "zones")]);
    // Whatever mark it came with.
    rule("answers", vec![ours(), put(meta("mark"), 0)]);
    rule(
        "answers",
        vec![ours(), state("established"), reply, put(meta("mark"), ANSWER)],
    );
    rule(
        "answers",
        vec![ours(), state("related"), put(meta("mark"), ANSWER)],
    );
    rule(
        "answers",
        vec![ours(), state("invalid"), put(meta("mark"), STRAY)],
    );
    commands
}

fn zone(network: NetworkId, number: u16) -> (Value, Value, Value) {
    let name = format!("zone-{number}");
    let chain = in_inet("chain", json!({ "name": name }));
    let expr = vec![put(json!({ "ct": { "key": "zone" } }), number)];
    let rule = in_inet("rule", json!({ "chain": name, "expr": expr }));
    let to = json!([[names::bridge(network), goto(&name)]]);
    (
        chain,
        rule,
        in_inet("element", json!({ "name": "zones", "elem": to })),
    )
}

/// A network's connections are tracked by themselves.
pub(super) fn zone_added(network: NetworkId, number: u16, commands: &mut Vec<Value>) {
    let (chain, rule, element) = zone(network, number);
    commands.extend([chain, rule, element].map(add));
}

/// The opposite.
pub(super) fn zone_removed(network: NetworkId, number: u16, commands: &mut Vec<Value>) {
    let (chain, _, element) = zone(network, number);
    commands.push(json!({ "delete": element }));
    commands.push(json!({ "flush": chain }));
    commands.push(json!({ "delete": chain }));
}
