//! What rules let pass between guests that really send.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use skyloom_hypervisor::conformance::exam_wiring;
use skyloom_hypervisor::{FirewallRule, HostNetwork, PortWiring, Prefix, SubnetWiring};
use skyloom_model::{Direction, Family, Protocol};

use crate::services::lease;
use crate::world::{Ear, Guest, MOMENT, PATIENCE, Talk, World, json, run};

pub(crate) fn at(network: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, network, host)
}

pub(crate) fn ingress(protocol: Protocol, port: Option<u16>, remote: Option<Vec<Prefix>>) -> FirewallRule {
    FirewallRule {
        direction: Direction::Ingress,
        family: Family::Ipv4,
        protocol: Some(protocol),
        port_min: port,
        // Of ICMP only the type.
        port_max: port.filter(|_| protocol != Protocol::Icmp),
        remote,
    }
}

/// The wiring with other rules beside those of the exam (out: all; in: ICMP from the network).
pub(crate) fn with(wiring: &PortWiring, more: Vec<FirewallRule>) -> PortWiring {
    let mut new = wiring.clone();
    new.generation += 1;
    new.rules.truncate(2);
    new.rules.extend(more);
    new
}

pub(crate) async fn what_a_rule_allows_passes_and_nothing_else() {
    let world = World::new().await;
    let (one, two) = (exam_wiring(1, 1), exam_wiring(1, 2));
    let (a, b) = (world.guest(&one).await, world.guest(&two).await);
    a.must_reach(at(1, 2));
    b.must_reach(at(1, 1));

    // TCP is allowed nowhere; then to one port of one guest, by one other.
    let listener = b.listen(2222);
    let here = SocketAddr::from((at(1, 2), 2222));
    assert!(a.connect(here, MOMENT).is_none(), "no rule allows it");
    let by_a = vec![Prefix::host(at(1, 1).into())];
    let two = with(&two, vec![ingress(Protocol::Tcp, Some(2222), Some(by_a))]);
    world.wire(&two).await;
    assert!(a.connect(here, PATIENCE).is_some(), "now one does");
    let _other = b.listen(2223);
    assert!(a.connect((at(1, 2), 2223), MOMENT).is_none(), "another port");
    let third = exam_wiring(1, 3);
    let c = world.guest(&third).await;
    c.must_reach(at(1, 2));
    assert!(c.connect(here, MOMENT).is_none(), "another guest");
    drop(listener);

    // What may not go out is stopped where it begins, whatever the other side allows.
    let mut third = with(&third, vec![]);
    third.rules.remove(0);
    world.wire(&third).await;
    c.must_not_reach(at(1, 2));
    a.must_reach(at(1, 3));

    // An empty group is nobody; nothing said is everybody.
    let nobody = with(&two, vec![ingress(Protocol::Tcp, Some(2222), Some(vec![]))]);
    world.wire(&nobody).await;
    let listener = b.listen(2222);
    assert!(a.connect(here, MOMENT).is_none());
    let everybody = with(&nobody, vec![ingress(Protocol::Tcp, Some(2222), None)]);
    world.wire(&everybody).await;
    assert!(a.connect(here, PATIENCE).is_some());
    drop(listener);

    // Only what kind of ICMP is named.
    let mut pings = with(&everybody, vec![ingress(Protocol::Icmp, Some(8), None)]);
    pings.rules.remove(1);
    world.wire(&pings).await;
    a.must_reach(at(1, 2));
    let mut stamps = with(&pings, vec![]);
    stamps.rules = vec![one.rules[0].clone(), ingress(Protocol::Icmp, Some(13), None)];
    world.wire(&stamps).await;
    a.must_not_reach(at(1, 2));
}

pub(crate) async fn connections_outlive_the_agent_and_end_with_their_rule() {
    let world = World::new().await;
    let ssh = || vec![ingress(Protocol::Tcp, Some(22), None)];
    let (one, two) = (exam_wiring(1, 1), with(&exam_wiring(1, 2), ssh()));
    let (a, b) = (world.guest(&one).await, world.guest(&two).await);
    let mut talk = Talk::begin(&a, &b, (at(1, 2), 22));
    assert!(talk.goes_on(PATIENCE));

    // Other rules, the same, and a mending do not disturb it.
    let mut two = with(
        &two,
        [ssh(), vec![ingress(Protocol::Udp, Some(53), None)]].concat(),
    );
    world.wire(&two).await;
    world.wire(&two).await;
    assert!(talk.goes_on(PATIENCE));

    // The agent dies: what was allowed goes on, what was denied stays denied.
    let (dir, config) = world.die().await;
    assert!(talk.goes_on(PATIENCE));
    assert!(a.connect((at(1, 2), 23), MOMENT).is_none());
    let world = World::of(dir, config).await;
    assert!(talk.goes_on(PATIENCE), "adopted");
    a.must_reach(at(1, 2));
    assert!(a.connect((at(1, 2), 23), MOMENT).is_none());

    // Without its rule it ends, though it was established.
    two = with(&two, vec![]);
    world.wire(&two).await;
    assert!(!talk.goes_on(MOMENT));
    a.must_reach(at(1, 2));
    world.wire(&with(&two, ssh())).await;
    assert!(talk.0.write_all(b"still").is_ok());
}

pub(crate) async fn networks_with_the_same_addresses_are_apart() {
    let world = World::new().await;
    let same = |number: u8| {
        let mut far = exam_wiring(2, number);
        far.network.subnets = exam_wiring(1, number).network.subnets;
        far.addresses = vec![at(1, number).into()];
        far.rules = exam_wiring(1, number).rules;
        far
    };
    let ssh = |w: &PortWiring| with(w, vec![ingress(Protocol::Tcp, Some(22), None)]);
    let near = [
        world.guest(&exam_wiring(1, 1)).await,
        world.guest(&ssh(&exam_wiring(1, 2))).await,
    ];
    let far = [world.guest(&same(1)).await, world.guest(&ssh(&same(2))).await];
    // Connections of the same five numbers in both.
    let begin = |guests: &[Guest; 2]| Talk::begin(&guests[0], &guests[1], (at(1, 2), 22));
    let (mut one, mut two) = (begin(&near), begin(&far));
    assert!(one.goes_on(PATIENCE) && two.goes_on(PATIENCE));
    // What answers in one is a stranger in the other.
    let ask = |w: &PortWiring, generation| {
        let rules = vec![
            ingress(Protocol::Tcp, Some(22), None),
            ingress(Protocol::Udp, Some(5353), None),
        ];
        PortWiring {
            generation,
            ..with(w, rules)
        }
    };
    world.wire(&ask(&exam_wiring(1, 2), 8)).await;
    let bind = |guest: &Guest, port| {
        let socket = guest.inside(move || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let asker = [bind(&near[0], 4000), bind(&far[0], 4000)];
    let asked = [bind(&near[1], 5353), bind(&far[1], 5353)];
    let mut word = [0; 8];
    asker[0].send_to(b"question", (at(1, 2), 5353)).unwrap();
    asked[0].recv(&mut word).unwrap();
    asked[0].send_to(b"answered", (at(1, 1), 4000)).unwrap();
    asker[0].recv(&mut word).unwrap();
    assert_eq!(&word, b"answered");
    asked[1].send_to(b"intrudes", (at(1, 1), 4000)).unwrap();
    asker[1].set_read_timeout(Some(MOMENT)).unwrap();
    assert!(asker[1].recv(&mut word).is_err());
    // What is allowed in one is not in the other.
    let mut closed = with(&same(2), vec![]);
    closed.generation = 9;
    world.wire(&closed).await;
    assert!(one.goes_on(PATIENCE) && !two.goes_on(MOMENT));
    let lonely = exam_wiring(2, 9);
    let lonely = PortWiring {
        network: same(1).network,
        addresses: vec![at(1, 9).into()],
        rules: same(1).rules,
        ..lonely
    };
    let c = world.guest(&lonely).await;
    c.must_reach(at(1, 1));
    near[0].must_not_reach(at(1, 9));
}

pub(crate) async fn a_group_grows_while_its_members_talk() {
    let world = World::new().await;
    let members = |hosts: &[u8]| {
        let all = hosts.iter().map(|h| Prefix::host(at(1, *h).into())).collect();
        vec![ingress(Protocol::Tcp, Some(22), Some(all))]
    };
    let two = with(&exam_wiring(1, 2), members(&[1]));
    let (a, b) = (world.guest(&exam_wiring(1, 1)).await, world.guest(&two).await);
    let c = world.guest(&exam_wiring(1, 3)).await;
    let mut talk = Talk::begin(&a, &b, (at(1, 2), 22));
    let handles = || -> Vec<String> {
        let said = run("nft", &["-a", "list", "table", "bridge", "skyloom"]);
        let rules = said
            .lines()
            .filter(|l| l.contains("handle") && !l.contains("element"));
        rules.map(str::to_owned).collect()
    };
    let (before, _listener) = (handles(), b.listen(22));
    assert!(c.connect((at(1, 2), 22), MOMENT).is_none());
    let two = with(&two, members(&[1, 3]));
    world.wire(&two).await;
    assert!(c.connect((at(1, 2), 22), PATIENCE).is_some());
    assert!(talk.goes_on(PATIENCE));
    assert_eq!(handles(), before, "no rule was touched");
    world.wire(&with(&two, members(&[3]))).await;
    assert!(!talk.goes_on(MOMENT), "who has left the group is a stranger");
}

pub(crate) async fn ipv6_follows_its_own_rules() {
    let world = World::new().await;
    let prefix: Prefix = "fd00:1::/64".parse().unwrap();
    let six = |number: u8, rules: Vec<FirewallRule>| {
        let mut wiring = exam_wiring(1, number);
        wiring.network.subnets.push(SubnetWiring {
            prefix,
            gateway: None,
            dns: vec![],
            routes: vec![],
            dhcp: false,
        });
        wiring
            .addresses
            .push(format!("fd00:1::{number}").parse().unwrap());
        wiring.rules.extend(rules);
        wiring
    };
    let rule = |direction, protocol, remote| FirewallRule {
        direction,
        family: Family::Ipv6,
        protocol,
        port_min: None,
        port_max: None,
        remote,
    };
    let out = || rule(Direction::Egress, None, None);
    let pings = rule(Direction::Ingress, Some(Protocol::Icmp), Some(vec![prefix]));
    let open = six(2, vec![out(), pings]);
    let (a, b) = (world.guest(&six(1, vec![out()])).await, world.guest(&open).await);
    let (one, two): (IpAddr, IpAddr) = ("fd00:1::1".parse().unwrap(), "fd00:1::2".parse().unwrap());
    a.must_reach(two);
    b.must_not_reach(one);
    b.must_reach(at(1, 1));
    // An address that is not its own finds nobody, neither to answer nor to ask.
    a.ip(&["address", "add", "fd00:1::99/64", "dev", "eth0", "nodad"]);
    a.ip(&["address", "delete", "fd00:1::1/64", "dev", "eth0"]);
    a.must_not_reach(two);
    a.ip(&["address", "add", "fd00:1::1/64", "dev", "eth0", "nodad"]);
    a.ip(&["address", "delete", "fd00:1::99/64", "dev", "eth0"]);
    a.must_reach(two);
}

pub(crate) async fn the_host_is_out_of_reach() {
    let world = World::new().await;
    run("ip", &["address", "add", "10.99.0.1/32", "dev", "lo"]);
    let a = world.guest(&exam_wiring(1, 1)).await;
    let b = world.guest(&exam_wiring(1, 2)).await;
    a.ip(&["route", "add", "10.99.0.1/32", "dev", "eth0"]);
    // The host would answer: it knows the way back, and hears what its bridge hears.
    let bridge = json("ip", &["-j", "link", "show", "type", "bridge"])[0]["ifname"].clone();
    let way = [
        "route",
        "add",
        "192.168.1.0/24",
        "dev",
        bridge.as_str().unwrap(),
        "src",
        "10.99.0.1",
    ];
    run("ip", &way);
    a.must_not_reach(Ipv4Addr::new(10, 99, 0, 1));
    // Nor when the guest knows the bridge's own MAC address.
    let bridges = json("ip", &["-j", "link", "show", "type", "bridge"]);
    let mac = bridges[0]["address"].as_str().unwrap();
    a.ip(&["neighbour", "replace", "10.99.0.1", "lladdr", mac, "dev", "eth0"]);
    a.must_not_reach(Ipv4Addr::new(10, 99, 0, 1));
    a.must_reach(at(1, 2));
    // Of the services only DHCP and metadata can be reached.
    let service = Ipv4Addr::new(169, 254, 169, 254);
    a.must_not_reach(service);
    assert!(a.connect((service, 81), MOMENT).is_none());
    assert!(a.connect((service, 80), PATIENCE).is_some());
    drop(b);
}

pub(crate) async fn an_uplink_carries_the_network_and_no_services() {
    let dir = tempfile::tempdir().unwrap();
    let wiring = exam_wiring(1, 1);
    let config =
        skyloom_bridge::BridgeConfig::new(dir.path().join("net")).with_uplink(wiring.network.id, "up0");
    run("ip", &["netns", "add", "far"]);
    run(
        "ip",
        &[
            "link", "add", "name", "up0", "type", "veth", "peer", "name", "eth0", "netns", "far",
        ],
    );
    run(
        "ip",
        &["-n", "far", "address", "add", "192.168.1.77/24", "dev", "eth0"],
    );
    run(
        "ip",
        &["-n", "far", "link", "set", "dev", "eth0", "mtu", "1400", "up"],
    );
    run(
        "ip",
        &["-n", "far", "route", "add", "169.254.169.254/32", "dev", "eth0"],
    );
    let world = World::of(dir, config).await;
    let a = world.guest(&wiring).await;
    a.must_reach(at(1, 77));
    // Another host's guests have services of their own.
    let far = |to: &str| {
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", "far", "ping", "-c", "1", "-W", "1", to]);
        command.output().unwrap().status.success()
    };
    assert!(far("192.168.1.1"));
    let near = run("ip", &["-n", "far", "neighbour", "show", "169.254.169.254"]);
    assert!(!far("169.254.169.254") && !near.contains("lladdr"), "{near}");
    // What they say to everybody is for everybody here.
    let ear = Ear::in_namespace("far", b"here it ends");
    assert!(lease(&world, &a, &["-B"]).is_some());
    let end = a.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9)).unwrap());
    end.send_to(b"here it ends", (at(1, 77), 9)).unwrap();
    let heard = ear.heard();
    let services = heard
        .iter()
        .filter(|f| f[12..].starts_with("02534ba9fefe"))
        .count();
    assert_eq!((services, heard.is_empty()), (0, false));
    world.network.remove_port(wiring.port, 1).await.unwrap();
    let left = &json("ip", &["-j", "link", "show", "dev", "up0"])[0];
    assert!(left["master"].is_null(), "{left}");
}
