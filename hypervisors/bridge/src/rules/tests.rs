//! Whatever a wiring says, nftables is told well-formed things about our own tables.

use std::net::IpAddr;

use proptest::prelude::*;
use serde_json::Value;
use skyloom_hypervisor::conformance::exam_wiring;
use skyloom_hypervisor::{AddressPair, FirewallRule, PortWiring, Prefix};
use skyloom_model::{Direction, Family, MacAddr, Protocol};

use super::Ruleset;
use super::expr::compact;

fn prefix(family: Family) -> impl Strategy<Value = Prefix> {
    (any::<u128>(), 0..=128_u8).prop_filter_map("a prefix", move |(bits, len)| match family {
        Family::Ipv4 => Prefix::new(IpAddr::V4((bits as u32).into()), len % 33),
        Family::Ipv6 => Prefix::new(IpAddr::V6(bits.into()), len),
    })
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)]
}

fn protocol() -> impl Strategy<Value = (Option<Protocol>, Option<u16>, Option<u16>)> {
    let ports = (any::<u16>(), any::<u16>()).prop_map(|(a, b)| (Some(a.min(b)), Some(a.max(b))));
    let ports = prop_oneof![Just((None, None)), ports];
    let transport = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let icmp = proptest::option::of((any::<u8>(), proptest::option::of(any::<u8>())));
    prop_oneof![
        Just((None, None, None)),
        any::<u8>().prop_map(|n| (Some(Protocol::Number(n)), None, None)),
        (transport, ports).prop_map(|(p, (min, max))| (Some(p), min, max)),
        icmp.prop_map(|i| {
            let kind = i.map(|(kind, _)| u16::from(kind));
            (
                Some(Protocol::Icmp),
                kind,
                i.and_then(|(_, code)| code).map(u16::from),
            )
        }),
    ]
}

fn rule() -> impl Strategy<Value = FirewallRule> {
    let way = prop_oneof![Just(Direction::Ingress), Just(Direction::Egress)];
    (way, family(), protocol()).prop_flat_map(|(direction, family, (protocol, port_min, port_max))| {
        let remote = proptest::option::of(proptest::collection::vec(prefix(family), 0..5));
        remote.prop_map(move |remote| FirewallRule {
            direction,
            family,
            protocol,
            port_min,
            port_max,
            remote,
        })
    })
}

pub(crate) fn wiring() -> impl Strategy<Value = PortWiring> {
    let pair = (any::<Option<[u8; 6]>>(), family()).prop_flat_map(|(mac, family)| {
        let mac = mac.map(|[_, b, c, d, e, f]| MacAddr([2, b, c, d, e, f]));
        prefix(family).prop_map(move |prefix| AddressPair { mac, prefix })
    });
    let pairs = proptest::collection::vec(pair, 0..4);
    (
        1..4_u8,
        any::<bool>(),
        proptest::collection::vec(rule(), 0..8),
        pairs,
    )
        .prop_map(|(number, port_security, rules, pairs)| PortWiring {
            rules,
            pairs,
            port_security,
            ..exam_wiring(1, number)
        })
}

fn ruleset(wirings: &[PortWiring]) -> Ruleset {
    let mut all = Ruleset::default();
    for wiring in wirings {
        all.network(wiring.network.id, 1);
        all.wire(wiring);
    }
    all
}

fn must_be_ours(commands: &[Value]) {
    for command in commands {
        let (verb, object) = command.as_object().unwrap().iter().next().unwrap();
        assert!(["add", "delete", "flush"].contains(&verb.as_str()), "{command}");
        let (kind, body) = object.as_object().unwrap().iter().next().unwrap();
        let table = if kind == "table" {
            &body["name"]
        } else {
            &body["table"]
        };
        assert_eq!(table, "skyloom", "{command}");
        assert!(
            body["family"] == "bridge" || body["family"] == "inet",
            "{command}"
        );
    }
}

proptest! {
    #[test]
    fn only_our_tables_are_spoken_of(before in proptest::collection::vec(wiring(), 0..4), after in proptest::collection::vec(wiring(), 0..4)) {
        let (before, after) = (ruleset(&before), ruleset(&after));
        must_be_ours(&before.whole());
        must_be_ours(&before.to(&after));
        prop_assert_eq!(before.to(&before), Vec::<Value>::new());
    }

    #[test]
    fn compacted_blocks_hold_the_same_and_never_overlap(
        blocks in proptest::collection::vec(prefix(Family::Ipv4), 0..20), probe: u32,
    ) {
        let kept = compact(blocks.iter().copied());
        let probes = blocks.iter().map(|b| b.base()).chain([IpAddr::V4(probe.into())]);
        for address in probes {
            let holds = |all: &[Prefix]| all.iter().filter(|b| b.contains(address)).count();
            prop_assert_eq!(holds(&blocks) > 0, holds(&kept) > 0);
            prop_assert!(holds(&kept) <= 1);
        }
    }
}

#[test]
fn a_new_member_of_a_group_touches_only_its_set() {
    let old = exam_wiring(1, 1);
    let mut new = old.clone();
    let member = Prefix::host("192.168.9.9".parse().unwrap());
    new.rules[1].remote.as_mut().unwrap().push(member);
    let commands = ruleset(std::slice::from_ref(&old)).to(&ruleset(&[new]));
    assert_eq!(commands.len(), 2, "{commands:?}");
    let set = commands[0]["flush"]["set"]["name"].as_str().unwrap();
    assert!(set.ends_with("-r1"), "{set}");
    assert_eq!(commands[1]["add"]["element"]["name"], set);
    assert_eq!(commands[1]["add"]["element"]["elem"].as_array().unwrap().len(), 2);
}

#[test]
fn without_ports_there_are_no_tables() {
    let none = Ruleset::default();
    let some = ruleset(&[exam_wiring(1, 1)]);
    let gone = some.to(&none);
    assert_eq!(gone, none.whole());
    assert!(
        gone.iter()
            .all(|c| c["add"]["table"].is_object() || c["delete"]["table"].is_object())
    );
}
