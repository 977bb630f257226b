//! What a guest may send at all: only as itself. Before connections are tracked, so that nothing forged leaves a trace.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use serde_json::{Value, json};
use skyloom_hypervisor::{PortWiring, Prefix};
use skyloom_model::{Family, MacAddr};

use super::expr::{accept, any_of, bits, compact, discard, field, is, is_not, named, put};
use super::{METADATA, PortRules};
use crate::names::SERVICE_MAC;

/// Router advertisement and redirect.
const ROUTERS_ONLY: [u8; 2] = [134, 137];
/// What is sent without an address of one's own: multicast reports, solicitations.
const UNSPECIFIED: [u8; 4] = [131, 133, 135, 143];
const NEIGHBOUR_ADVERT: u8 = 136;

/// The link-local address that a host makes of its MAC address.
pub(super) fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0.map(u16::from);
    let pair = |high: u16, low: u16| high << 8 | low;
    Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        pair(a ^ 2, b),
        pair(c, 0xff),
        pair(0xfe, d),
        pair(e, f),
    )
}

/// Whose addresses the guest may use: by MAC address.
fn identities(wiring: &PortWiring) -> BTreeMap<[u8; 6], Vec<Prefix>> {
    let mut all: BTreeMap<[u8; 6], Vec<Prefix>> = BTreeMap::new();
    let own = all.entry(wiring.mac.0).or_default();
    own.extend(wiring.addresses.iter().copied().map(Prefix::host));
    for pair in &wiring.pairs {
        let mac = pair.mac.unwrap_or(wiring.mac).0;
        all.entry(mac).or_default().push(pair.prefix);
    }
    for (mac, prefixes) in &mut all {
        prefixes.push(Prefix::host(IpAddr::V6(link_local(MacAddr(*mac)))));
    }
    all
}

fn mac(address: MacAddr) -> Value {
    json!(address)
}
fn numbers(all: &[u8]) -> Value {
    any_of(all.iter().map(|n| json!(n)).collect())
}

/// To the services it always speaks as itself, also when it may otherwise speak as anybody: they know it by its address.
fn to_services(wiring: &PortWiring, rules: &mut PortRules) {
    let own = compact(
        wiring
            .addresses
            .iter()
            .filter(|a| a.is_ipv4())
            .copied()
            .map(Prefix::host),
    );
    let set = rules.set("own", Family::Ipv4, own);
    let here = || is(field("ip", "daddr"), METADATA.to_string());
    let oneself = vec![
        is(field("ether", "saddr"), mac(wiring.mac)),
        here(),
        is(field("ip", "saddr"), named(&set)),
        // Whatever router it takes them for.
        put(field("ether", "daddr"), mac(SERVICE_MAC)),
        accept(),
    ];
    rules.guard.push(oneself);
    rules.guard.push(vec![here(), discard()]);
    let known = |protocol: &str| is(field("arp", protocol), mac(wiring.mac));
    let ask = || is(field("arp", "daddr ip"), METADATA.to_string());
    rules.guard.push(vec![
        ask(),
        known("saddr ether"),
        is(field("arp", "saddr ip"), named(&set)),
        accept(),
    ]);
    // Nobody else's question.
    rules.guard.push(vec![ask(), discard()]);
}

/// DHCP: asks for itself, and never answers.
fn dhcp(wiring: &PortWiring, rules: &mut PortRules) {
    let from_to = |from: u16, to: u16| [is(field("udp", "sport"), from), is(field("udp", "dport"), to)];
    let [_, _, c, d, e, f] = wiring.mac.0.map(u64::from);
    let [a, b, ..] = wiring.mac.0.map(u64::from);
    let number = a << 40 | b << 32 | c << 24 | d << 16 | e << 8 | f;
    // `chaddr` lies 28 bytes behind the UDP header's 8.
    let for_itself = || is(bits((8 + 28) * 8, 48), number);
    let own_mac = || is(field("ether", "saddr"), mac(wiring.mac));
    let mut first = vec![
        own_mac(),
        is(field("ip", "saddr"), "0.0.0.0"),
        is(field("ip", "daddr"), "255.255.255.255"),
    ];
    first.extend(from_to(68, 67));
    first.extend([for_itself(), accept()]);
    rules.guard.push(first);
}

/// All that the guest may not send is dropped here.
pub(super) fn guard(wiring: &PortWiring, rules: &mut PortRules) {
    // Tags would hide what is behind them.
    let tags = any_of(vec![json!(0x8100), json!(0x88a8)]);
    rules
        .guard
        .push(vec![is(field("ether", "type"), tags), discard()]);
    // Nobody is the services, whatever his addresses are.
    let theirs = mac(SERVICE_MAC);
    rules
        .guard
        .push(vec![is(field("ether", "saddr"), theirs), discard()]);
    for (protocol, sender) in [("ip", "saddr"), ("arp", "saddr ip")] {
        rules
            .guard
            .push(vec![is(field(protocol, sender), METADATA.to_string()), discard()]);
    }
    if !wiring.port_security {
        to_services(wiring, rules);
        return;
    }
    for serving in [67, 547] {
        rules
            .guard
            .push(vec![is(field("udp", "sport"), serving), discard()]);
    }
    rules.guard.push(vec![
        is(field("icmpv6", "type"), numbers(&ROUTERS_ONLY)),
        discard(),
    ]);
    to_services(wiring, rules);
    dhcp(wiring, rules);
    for (at, (address, prefixes)) in identities(wiring).into_iter().enumerate() {
        let address = MacAddr(address);
        let own = || is(field("ether", "saddr"), mac(address));
        let of = |family| compact(prefixes.iter().copied().filter(|p| p.family() == family));
        let (v4, v6) = (of(Family::Ipv4), of(Family::Ipv6));
        let v4 = rules.set(&format!("id{at}v4"), Family::Ipv4, v4);
        // A question whether an address is free names no sender.
        for sender in [named(&v4), json!("0.0.0.0")] {
            rules.guard.push(vec![
                own(),
                is(field("arp", "saddr ether"), mac(address)),
                is(field("arp", "saddr ip"), sender),
                accept(),
            ]);
        }
        rules
            .guard
            .push(vec![own(), is(field("ip", "saddr"), named(&v4)), accept()]);
        let free = is(field("icmpv6", "type"), numbers(&UNSPECIFIED));
        rules
            .guard
            .push(vec![own(), is(field("ip6", "saddr"), "::"), free, accept()]);
        for prefix in v6.iter().filter_map(|p| Prefix::new(p.base(), p.bits() / 8 * 8)) {
            // The target lies 8 bytes behind the ICMPv6 header's begin; of it whole bytes are compared.
            let known = match prefix.bits() {
                0 => is_not(field("ip6", "hoplimit"), 0),
                len => is(bits(64, u32::from(len)), high_bits(prefix)),
            };
            let answer = is(field("icmpv6", "type"), NEIGHBOUR_ADVERT);
            let source = is_not(field("ip6", "saddr"), "::");
            rules.guard.push(vec![own(), answer, source, known, accept()]);
        }
        let others = is_not(field("icmpv6", "type"), NEIGHBOUR_ADVERT);
        let v6 = rules.set(&format!("id{at}v6"), Family::Ipv6, v6);
        let whole = is(field("ip6", "saddr"), named(&v6));
        rules.guard.push(vec![
            own(),
            whole.clone(),
            is_not(meta_l4(), "ipv6-icmp"),
            accept(),
        ]);
        rules.guard.push(vec![own(), whole, others, accept()]);
    }
    rules.guard.push(vec![discard()]);
}

fn meta_l4() -> Value {
    super::expr::meta("l4proto")
}

/// The prefix's bits as nftables writes a number of more than 64 bits.
fn high_bits(prefix: Prefix) -> Value {
    match prefix.base() {
        IpAddr::V6(base) => json!(format!(
            "{:#x}",
            base.to_bits() >> (128 - u32::from(prefix.bits()))
        )),
        IpAddr::V4(base) => json!(base.to_bits()),
    }
}
