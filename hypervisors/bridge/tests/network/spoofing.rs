//! Guests that say they are others, frame by frame: each is dropped where port security is on, and heard where it is off.

use std::net::Ipv4Addr;

use skyloom_hypervisor::conformance::exam_wiring;
use skyloom_hypervisor::{AddressPair, PortWiring, Prefix};
use skyloom_model::MacAddr;

use crate::flows::at;
use crate::world::{World, hex};

const END: &[u8] = b"here it ends";

fn ether(to: [u8; 6], from: [u8; 6], kind: u16, rest: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), rest].concat()
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// UDP over IPv4, without UDP's checksum.
fn udp(from: Ipv4Addr, to: Ipv4Addr, ports: [u16; 2], content: &[u8]) -> Vec<u8> {
    let length = (20 + 8 + content.len()) as u16;
    let mut head = [
        &[0x45, 0][..],
        &length.to_be_bytes(),
        &[0, 1, 0, 0, 64, 17, 0, 0],
        &from.octets(),
        &to.octets(),
    ]
    .concat();
    let sum = checksum(&head);
    head[10..12].copy_from_slice(&sum);
    let [source, target] = ports.map(u16::to_be_bytes);
    [
        &head[..],
        &source,
        &target,
        &(length - 20).to_be_bytes(),
        &[0, 0],
        content,
    ]
    .concat()
}

fn arp(operation: u8, mac: [u8; 6], address: Ipv4Addr, asked: Ipv4Addr) -> Vec<u8> {
    [
        &[0, 1, 8, 0, 6, 4, 0, operation][..],
        &mac,
        &address.octets(),
        &[0; 6],
        &asked.octets(),
    ]
    .concat()
}

/// ICMPv6 of a type.
fn icmp6(from: &str, to: &str, content: &[u8]) -> Vec<u8> {
    let [from, to] = [from, to].map(|a| a.parse::<std::net::Ipv6Addr>().unwrap().octets());
    let length = content.len() as u16;
    let pseudo = [
        &from[..],
        &to,
        &[0, 0],
        &length.to_be_bytes(),
        &[0, 0, 0, 58],
        content,
    ]
    .concat();
    let mut content = content.to_vec();
    content[2..4].copy_from_slice(&checksum(&pseudo));
    [
        &[0x60, 0, 0, 0][..],
        &length.to_be_bytes(),
        &[58, 255],
        &from,
        &to,
        &content,
    ]
    .concat()
}

fn marked(text: &str) -> Vec<u8> {
    format!("frame: {text}.").into_bytes()
}

/// Frames of the guest at `own` that pretend something, each with the words that it is known by.
fn forged(own: &PortWiring, to: [u8; 6]) -> Vec<(String, Vec<u8>)> {
    let (mac, other) = (own.mac.0, exam_wiring(1, 9).mac.0);
    let (address, victim, target) = (at(1, 1), at(1, 9), at(1, 2));
    let all = Ipv4Addr::BROADCAST;
    let mut frames = Vec::new();
    let mut add = |name: &str, frame: &dyn Fn(&[u8]) -> Vec<u8>| {
        frames.push((hex(&marked(name)), frame(&marked(name))));
    };
    add("another MAC", &|m| {
        ether(to, other, 0x800, &udp(address, target, [7, 7], m))
    });
    add("another address", &|m| {
        ether(to, mac, 0x800, &udp(victim, target, [7, 7], m))
    });
    add("a DHCP server", &|m| {
        ether(to, mac, 0x800, &udp(address, all, [67, 68], m))
    });
    add("a DHCP client at large", &|m| {
        ether(to, mac, 0x800, &udp(Ipv4Addr::UNSPECIFIED, target, [68, 67], m))
    });
    add("another DHCP client", &|m| {
        let asks = [&[1, 1, 6][..], &[0; 25], &other, &[0; 10], m].concat();
        ether(
            [255; 6],
            mac,
            0x800,
            &udp(Ipv4Addr::UNSPECIFIED, all, [68, 67], &asks),
        )
    });
    let pad = |mut arp: Vec<u8>, m: &[u8]| {
        arp.extend(m);
        arp
    };
    add("ARP of another address", &|m| {
        ether([255; 6], mac, 0x806, &pad(arp(2, mac, victim, target), m))
    });
    add("ARP of another MAC", &|m| {
        ether([255; 6], mac, 0x806, &pad(arp(2, other, address, target), m))
    });
    let advert = |kind: u8, rest: &[u8], m: &[u8]| [&[kind, 0, 0, 0, 64, 0, 0, 0][..], rest, m].concat();
    let everybody = "ff02::1";
    let local = link_local(own.mac);
    add("a router", &|m| {
        ether(
            to,
            mac,
            0x86dd,
            &icmp6(&local, everybody, &advert(134, &[0; 8], m)),
        )
    });
    let other_target = "fd00:1::9".parse::<std::net::Ipv6Addr>().unwrap().octets();
    add("another neighbour", &|m| {
        ether(
            to,
            mac,
            0x86dd,
            &icmp6(&local, everybody, &advert(136, &other_target, m)),
        )
    });
    add("another IPv6 address", &|m| {
        ether(
            to,
            mac,
            0x86dd,
            &icmp6("fd00:1::9", everybody, &advert(128, &[], m)),
        )
    });
    add("a protocol of its own", &|m| ether(to, mac, 0x88b5, m));
    frames
}

fn link_local(mac: MacAddr) -> String {
    let [a, b, c, d, e, f] = mac.0;
    format!("fe80::{:02x}{b:02x}:{c:02x}ff:fe{d:02x}:{e:02x}{f:02x}", a ^ 2)
}

pub(crate) async fn a_guest_speaks_only_as_itself() {
    let world = World::new().await;
    let (mut one, mut two) = (exam_wiring(1, 1), exam_wiring(1, 2));
    two.port_security = false; // it hears everything
    one.port_security = false;
    let (a, b) = (world.guest(&one).await, world.guest(&two).await);
    let (mac, to) = (one.mac.0, two.mac.0);
    let honest = |content: &[u8]| ether(to, mac, 0x800, &udp(at(1, 1), at(1, 2), [7, 7], content));
    let forged = forged(&one, to);
    let mut frames: Vec<Vec<u8>> = forged.iter().map(|(_, frame)| frame.clone()).collect();
    // What nobody may be, with or without port security.
    let services = [0x02, 0x53, 0x4b, 0xa9, 0xfe, 0xfe];
    let service = Ipv4Addr::new(169, 254, 169, 254);
    let never = [
        "behind a tag",
        "the services' MAC",
        "the services' address",
        "the services' ARP",
    ];
    let tag = never[0];
    let tagged = [&[0, 5, 8, 0][..], &udp(at(1, 1), at(1, 2), [7, 7], &marked(tag))].concat();
    frames.push(ether(to, mac, 0x8100, &tagged));
    frames.push(ether(
        to,
        services,
        0x800,
        &udp(at(1, 1), at(1, 2), [7, 7], &marked(never[1])),
    ));
    frames.push(ether(
        to,
        mac,
        0x800,
        &udp(service, at(1, 2), [80, 7], &marked(never[2])),
    ));
    let answer = [arp(2, mac, service, at(1, 2)), marked(never[3])].concat();
    frames.push(ether([255; 6], mac, 0x806, &answer));
    frames.push(ether([255; 6], mac, 0x806, &arp(1, mac, at(1, 1), at(1, 2))));
    frames.push(honest(&marked("honest")));
    frames.push(honest(END));

    // Without port security all of them pass but tags: so they are frames that somebody would hear.
    let ear = b.hear(END);
    a.send(&frames);
    let heard = ear.heard().join("\n");
    for (known_by, _) in &forged {
        assert!(heard.contains(known_by), "{}", text(known_by));
    }
    for name in never {
        assert!(!heard.contains(&hex(&marked(name))), "{name}");
    }

    (one.generation, one.port_security) = (2, true);
    world.wire(&one).await;
    let ear = b.hear(END);
    a.send(&frames);
    let heard = ear.heard().join("\n");
    let never = never.map(|name| hex(&marked(name)));
    for known_by in forged.iter().map(|(k, _)| k.clone()).chain(never) {
        assert!(!heard.contains(&known_by), "{}", text(&known_by));
    }
    assert!(heard.contains(&hex(&marked("honest"))));
    assert!(
        heard.contains(&hex(&arp(1, mac, at(1, 1), at(1, 2)))),
        "its own ARP"
    );
    b.must_reach(at(1, 1));
}

fn text(digits: &str) -> String {
    let bytes = (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap());
    String::from_utf8(bytes.collect()).unwrap()
}

pub(crate) async fn pairs_are_a_guests_own_addresses() {
    let world = World::new().await;
    let (one, mut two) = (exam_wiring(1, 1), exam_wiring(1, 2));
    two.port_security = false;
    let (a, b) = (world.guest(&one).await, world.guest(&two).await);
    let shared = MacAddr([0, 0, 0x5e, 0, 1, 7]);
    let from = |mac: MacAddr, address, name: &str| {
        ether(
            two.mac.0,
            mac.0,
            0x800,
            &udp(address, at(1, 2), [7, 7], &marked(name)),
        )
    };
    let frames = [
        from(one.mac, at(1, 100), "in the block"),
        from(one.mac, at(1, 130), "beside the block"),
        from(shared, at(1, 200), "the shared one"),
        from(shared, at(1, 1), "a mixture"),
        from(one.mac, at(1, 200), "the other mixture"),
        from(one.mac, at(1, 1), std::str::from_utf8(END).unwrap()),
    ];
    let pair = |mac, prefix: &str| AddressPair {
        mac,
        prefix: prefix.parse::<Prefix>().unwrap(),
    };
    let pairs = vec![
        pair(None, "192.168.1.96/28"),
        pair(Some(shared), "192.168.1.200/32"),
    ];
    world
        .wire(&PortWiring {
            pairs,
            generation: 2,
            ..one
        })
        .await;
    let ear = b.hear(END);
    a.send(&frames);
    let heard = ear.heard().join("\n");
    for (name, own) in [
        ("in the block", true),
        ("beside the block", false),
        ("the shared one", true),
        ("a mixture", false),
        ("the other mixture", false),
    ] {
        assert_eq!(heard.contains(&hex(&marked(name))), own, "{name}");
    }
}
