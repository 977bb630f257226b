//! What somebody breaks is mended, what is somebody else's stays as it is.

use std::collections::BTreeSet;

use skyloom_bridge::{BridgeConfig, BridgeNetwork};
use skyloom_hypervisor::conformance::exam_wiring;
use skyloom_hypervisor::{AddressPair, ErrorKind, FirewallRule, HostNetwork, PortWiring, Prefix};
use skyloom_model::{Direction, Family, MacAddr, Protocol};

use crate::flows::at;
use crate::world::{MOMENT, PATIENCE, Talk, World, json, run, things};

/// What can be broken without the guest's NIC going away.
fn breakages(wiring: &PortWiring) -> Vec<(&'static str, Vec<String>)> {
    let network = wiring.network.id;
    let digits = |id: String| id.replace('-', "")[20..].to_owned();
    let (tap, net) = (digits(wiring.port.to_string()), digits(network.to_string()));
    let words = |text: String| text.split(' ').map(str::to_owned).collect();
    vec![
        ("nft", words("delete table bridge skyloom".into())),
        ("nft", words("delete table inet skyloom".into())),
        ("ip", words(format!("link set dev skt{tap} nomaster"))),
        ("ip", words(format!("link set dev skt{tap} down"))),
        (
            "bridge",
            words(format!("fdb delete {} dev skt{tap} master", wiring.mac)),
        ),
        ("ip", words(format!("link set dev skb{net} down"))),
        (
            "ip",
            words(format!("link set dev skb{net} type bridge nf_call_iptables 0")),
        ),
        ("ip", words(format!("link delete dev skb{net}"))),
        ("ip", words(format!("link delete dev skv{net}"))),
        ("ip", words(format!("netns delete skyloom-{network}"))),
        ("ip", words(format!("-n skyloom-{network} route flush dev eth0"))),
        (
            "ip",
            words(format!(
                "-n skyloom-{network} neighbour flush nud permanent dev eth0"
            )),
        ),
    ]
}

fn must_be(world: &World, whole: &BTreeSet<String>, after: &str) {
    let now = things(&world.config.dir);
    let differs: Vec<&String> = now.symmetric_difference(whole).collect();
    assert!(differs.is_empty(), "after {after}: {differs:#?}");
}

pub(crate) async fn what_somebody_broke_is_mended() {
    let mut world = World::new().await;
    let (one, two) = (exam_wiring(1, 1), exam_wiring(1, 2));
    let (a, b) = (world.guest(&one).await, world.guest(&two).await);
    a.must_reach(at(1, 2));
    let whole = things(&world.config.dir);
    for (tool, args) in breakages(&one) {
        run(tool, &args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_ne!(things(&world.config.dir), whole, "{args:?} broke nothing");
        world = world.reopened().await;
        must_be(&world, &whole, &args.join(" "));
        a.must_reach(at(1, 2));
        assert_eq!(b.get("/latest/meta-data/mac", "").1, two.mac.to_string());
        assert!(a.connect((at(1, 2), 22), MOMENT).is_none());
    }
    // Nor must the agent be restarted for it: the next order mends.
    for (tool, args) in breakages(&one).into_iter().filter(|(tool, _)| *tool == "ip") {
        run(tool, &args.iter().map(String::as_str).collect::<Vec<_>>());
        for wiring in [&one, &two] {
            world.wire(wiring).await;
        }
        must_be(&world, &whole, &args.join(" "));
        assert_eq!(b.get("/latest/meta-data/mac", "").1, two.mac.to_string());
    }
    // Not even when all of it has gone, as after a restart of the host; but the guests are gone as well.
    drop((a, b));
    let (dir, config) = world.die().await;
    for link in json("ip", &["-j", "link", "show"]) {
        let name = link["ifname"].as_str().unwrap();
        if name.starts_with("sk") {
            run("ip", &["link", "delete", "dev", name]);
        }
    }
    run("ip", &["-all", "netns", "delete"]);
    run("nft", &["flush", "ruleset"]);
    let world = World::of(dir, config).await;
    assert_eq!(things(&world.config.dir), whole);
    for wiring in [&one, &two] {
        world.network.remove_port(wiring.port, 1).await.unwrap();
    }
    assert!(things(&world.config.dir).is_empty());
}

pub(crate) async fn foreign_rules_and_devices_stay_as_they_are() {
    let world = World::new().await;
    run("nft", &["add table inet other"]);
    run(
        "nft",
        &["add chain inet other in { type filter hook input priority 0; policy accept; }"],
    );
    run("nft", &["add table bridge other"]);
    run("ip", &["link", "add", "name", "br0", "type", "bridge"]);
    let look = || {
        let rules = ["inet", "bridge"].map(|f| run("nft", &["list", "table", f, "other"]));
        let flag = run("ip", &["-d", "-o", "link", "show", "dev", "br0"]);
        (rules, flag)
    };
    let (before, foreign) = (look(), things(&world.config.dir));
    let wiring = exam_wiring(1, 1);
    world.wire(&wiring).await;
    let world = world.reopened().await;
    world.network.remove_port(wiring.port, 1).await.unwrap();
    assert_eq!(look(), before);

    // A device of the name that a port would have, but of somebody else.
    let tap = world.wire(&wiring).await;
    world.network.remove_port(wiring.port, 1).await.unwrap();
    run(
        "ip",
        &[
            "link", "add", "name", &tap, "type", "veth", "peer", "name", "peer0",
        ],
    );
    run("ip", &["link", "set", "dev", &tap, "alias", "somebody's"]);
    let refused = world.network.ensure_port(&wiring).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    assert!(!world.network.ports().await.unwrap()[0].complete);
    assert!(run("ip", &["link", "show", "dev", &tap]).contains("somebody's"));
    run("ip", &["link", "delete", "dev", &tap]);
    world.wire(&wiring).await;
    world.network.remove_port(wiring.port, 1).await.unwrap();
    assert_eq!(things(&world.config.dir), foreign);
}

pub(crate) async fn a_network_of_another_process_is_not_entered() {
    let world = World::new().await;
    let second = BridgeNetwork::open(world.config.clone()).await;
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Conflict);
    let mut config = BridgeConfig::new(world.dir.path().join("other"));
    config.nft = "/nowhere/nft".into();
    let missing = BridgeNetwork::open(config).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Unsupported);
    assert!(missing.to_string().contains("nftables"), "{missing}");
    // After a proper end the sockets are free at once.
    let wiring = exam_wiring(1, 1);
    let a = world.guest(&wiring).await;
    world.network.close().await;
    assert!(
        a.connect((std::net::Ipv4Addr::new(169, 254, 169, 254), 80), MOMENT)
            .is_none()
    );
    let world = world.reopened().await;
    assert_eq!(a.get("/latest/meta-data/mac", "").0, 200);
    drop(world);
}

/// Every combination of a rule's parts, at once, beside a talk that must not notice.
pub(crate) async fn rules_of_any_kind_are_taken_by_nftables() {
    let world = World::new().await;
    let two = exam_wiring(1, 2);
    let ssh = FirewallRule {
        direction: Direction::Ingress,
        family: Family::Ipv4,
        protocol: Some(Protocol::Tcp),
        port_min: Some(22),
        port_max: Some(22),
        remote: None,
    };
    let mut rules = vec![two.rules[0].clone(), ssh];
    for family in [Family::Ipv4, Family::Ipv6] {
        let blocks: &[&str] = match family {
            Family::Ipv4 => &["0.0.0.0/0", "10.0.0.0/9", "10.1.2.3/32", "10.1.2.0/24"],
            Family::Ipv6 => &["::/0", "2001:db8::/33", "fd00::1/128", "fd00::/127"],
        };
        let blocks: Vec<Prefix> = blocks.iter().map(|b| b.parse().unwrap()).collect();
        let remotes = [
            None,
            Some(vec![]),
            Some(blocks[..1].to_vec()),
            Some(blocks[1..].to_vec()),
            Some(blocks.clone()),
        ];
        let ports = [
            (None, None),
            (Some(0), Some(65_535)),
            (Some(80), Some(80)),
            (Some(1), Some(9)),
        ];
        let mut kinds = vec![(None, (None, None)), (Some(Protocol::Number(112)), (None, None))];
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            kinds.extend(ports.map(|p| (Some(protocol), p)));
        }
        kinds.extend(
            [
                (None, None),
                (Some(8), None),
                (Some(3), Some(4)),
                (Some(255), Some(255)),
            ]
            .map(|p| (Some(Protocol::Icmp), p)),
        );
        for remote in &remotes {
            for (protocol, (port_min, port_max)) in &kinds {
                for direction in [Direction::Ingress, Direction::Egress] {
                    rules.push(FirewallRule {
                        direction,
                        family,
                        protocol: *protocol,
                        port_min: *port_min,
                        port_max: *port_max,
                        remote: remote.clone(),
                    });
                }
            }
        }
    }
    let few = PortWiring {
        rules: rules[..2].to_vec(),
        ..two
    };
    let (a, b) = (world.guest(&exam_wiring(1, 1)).await, world.guest(&few).await);
    let mut talk = Talk::begin(&a, &b, (at(1, 2), 22));
    let pairs = ["192.168.1.128/25", "fd00:1:2::/61", "::/0", "10.0.0.0/8"];
    let mut pairs: Vec<AddressPair> = pairs
        .map(|p| AddressPair {
            mac: None,
            prefix: p.parse().unwrap(),
        })
        .into();
    pairs.push(AddressPair {
        mac: Some(MacAddr([0, 0, 0x5e, 0, 1, 7])),
        ..pairs[0]
    });
    let many = PortWiring {
        rules,
        pairs,
        generation: 2,
        ..few.clone()
    };
    world.wire(&many).await;
    assert!(talk.goes_on(PATIENCE));
    let whole = things(&world.config.dir);
    let world = world.reopened().await;
    assert_eq!(
        things(&world.config.dir),
        whole,
        "the changes led to what is written anew"
    );
    assert!(talk.goes_on(PATIENCE));
    world.wire(&PortWiring { generation: 3, ..few }).await;
    assert!(talk.goes_on(PATIENCE));
    let less = things(&world.config.dir);
    let world = world.reopened().await;
    assert_eq!(things(&world.config.dir), less);
}
