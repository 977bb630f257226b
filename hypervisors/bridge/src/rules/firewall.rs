//! What a guest may reach and what may reach it: its wiring's rules, where packets go from one port of the bridge to another.

use serde_json::{Value, json};
use skyloom_hypervisor::{FirewallRule, PortWiring};
use skyloom_model::{Direction, Family, Protocol};

use super::expr::{accept, any_of, back, compact, discard, field, is, meta, named};
use super::{ANSWER, PortRules, STRAY};

/// Without these no neighbour is found: solicitations, adverts and multicast reports; adverts of routers only to the guest.
const NEIGHBOURS: [u8; 6] = [130, 131, 132, 135, 136, 143];
const SOLICIT_ROUTER: u8 = 133;
const ROUTER_ADVERT: u8 = 134;

/// Fills the chains of both directions.
pub(super) fn firewall(wiring: &PortWiring, rules: &mut PortRules) {
    if !wiring.port_security {
        rules.sends.push(vec![back()]);
        rules.receives.push(vec![accept()]);
        return;
    }
    rules.sends = always(SOLICIT_ROUTER, &back());
    rules.receives = always(ROUTER_ADVERT, &accept());
    for (at, rule) in wiring.rules.iter().enumerate() {
        let mut expression = allowed(at, rule, rules);
        match rule.direction {
            Direction::Ingress => {
                expression.push(accept());
                rules.receives.push(expression);
            }
            Direction::Egress => {
                expression.push(back());
                rules.sends.push(expression);
            }
        }
    }
    rules.sends.push(vec![discard()]);
    rules.receives.push(vec![discard()]);
}

fn always(router: u8, pass: &Value) -> Vec<Vec<Value>> {
    let mut icmp: Vec<Value> = NEIGHBOURS.iter().map(|n| json!(n)).collect();
    icmp.push(json!(router));
    vec![
        vec![is(field("ether", "type"), "arp"), pass.clone()],
        vec![is(field("icmpv6", "type"), any_of(icmp)), pass.clone()],
        vec![is(meta("mark"), ANSWER), pass.clone()],
        vec![is(meta("mark"), STRAY), discard()],
    ]
}

/// What a rule matches.
fn allowed(at: usize, rule: &FirewallRule, rules: &mut PortRules) -> Vec<Value> {
    let (ip, ethertype, icmp) = match rule.family {
        Family::Ipv4 => ("ip", "ip", "icmp"),
        Family::Ipv6 => ("ip6", "ip6", "icmpv6"),
    };
    let mut expression = vec![is(meta("protocol"), ethertype)];
    if let Some(remote) = &rule.remote {
        let side = match rule.direction {
            Direction::Ingress => "saddr",
            Direction::Egress => "daddr",
        };
        let set = rules.set(&format!("r{at}"), rule.family, compact(remote.iter().copied()));
        expression.push(is(field(ip, side), named(&set)));
    }
    let ports = |protocol: &str| match (rule.port_min, rule.port_max) {
        (Some(min), Some(max)) if min == max => is(field(protocol, "dport"), min),
        (Some(min), Some(max)) => is(field(protocol, "dport"), json!({ "range": [min, max] })),
        _ => is(meta("l4proto"), protocol),
    };
    match rule.protocol {
        None => {}
        Some(Protocol::Tcp) => expression.push(ports("tcp")),
        Some(Protocol::Udp) => expression.push(ports("udp")),
        Some(Protocol::Number(number)) => expression.push(is(meta("l4proto"), number)),
        Some(Protocol::Icmp) => match rule.port_min {
            None => expression.push(is(meta("l4proto"), if icmp == "icmp" { 1 } else { 58 })),
            Some(kind) => {
                expression.push(is(field(icmp, "type"), kind));
                if let Some(code) = rule.port_max {
                    expression.push(is(field(icmp, "code"), code));
                }
            }
        },
    }
    expression
}
