//! What the metadata service knows: the same facts under Amazon's paths and under OpenStack's.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use skyloom_hypervisor::PortWiring;

use crate::rules::METADATA;

/// Versions of Amazon's tree.
const EC2: [&str; 2] = ["2009-04-04", "latest"];
/// Versions of OpenStack's tree.
const OPENSTACK: [&str; 2] = ["2018-08-27", "latest"];
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) kind: &'static str,
    pub(super) content: Vec<u8>,
}

fn text(content: impl Into<String>) -> Option<Found> {
    let content = content.into().into_bytes();
    Some(Found { kind: TEXT, content })
}
fn lines<'a>(all: impl IntoIterator<Item = &'a str>) -> Option<Found> {
    text(all.into_iter().collect::<Vec<_>>().join("\n"))
}
fn document(value: &Value) -> Option<Found> {
    Some(Found {
        kind: JSON,
        content: value.to_string().into_bytes(),
    })
}

/// What is at `path` for the guest of `own`; `ports` are all ports of its server.
pub(super) fn find(path: &str, own: &PortWiring, ports: &[Arc<PortWiring>]) -> Option<Found> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    match &parts[..] {
        [] => lines(EC2.into_iter().chain(["openstack"])),
        ["openstack"] => lines(OPENSTACK),
        ["openstack", version, rest @ ..] if OPENSTACK.contains(version) => openstack(rest, own, ports),
        [version, rest @ ..] if EC2.contains(version) => ec2(rest, own),
        _ => None,
    }
}

fn user_data(own: &PortWiring) -> Option<Found> {
    own.metadata.user_data.as_ref().map(|data| Found {
        kind: BYTES,
        content: data.expose().clone(),
    })
}

fn first_v4(own: &PortWiring) -> Option<IpAddr> {
    own.addresses.iter().copied().find(IpAddr::is_ipv4)
}

fn ec2(path: &[&str], own: &PortWiring) -> Option<Found> {
    let about = &own.metadata;
    let zone = about.availability_zone.as_deref();
    match path {
        [] => lines(
            ["meta-data/"]
                .into_iter()
                .chain(about.user_data.is_some().then_some("user-data")),
        ),
        ["user-data"] => user_data(own),
        ["meta-data"] => {
            let mut all = vec!["ami-launch-index", "hostname", "instance-id", "local-hostname"];
            all.extend(first_v4(own).map(|_| "local-ipv4"));
            all.push("mac");
            all.extend(zone.map(|_| "placement/"));
            all.extend((!about.keys.is_empty()).then_some("public-keys/"));
            lines(all)
        }
        ["meta-data", "ami-launch-index"] => text(about.launch_index.to_string()),
        ["meta-data", "hostname" | "local-hostname"] => text(own.hostname.as_str()),
        ["meta-data", "instance-id"] => text(own.server.to_string()),
        ["meta-data", "local-ipv4"] => text(first_v4(own)?.to_string()),
        ["meta-data", "mac"] => text(own.mac.to_string()),
        ["meta-data", "placement"] => zone.and_then(|_| text("availability-zone")),
        ["meta-data", "placement", "availability-zone"] => text(zone?),
        ["meta-data", "public-keys"] if !about.keys.is_empty() => {
            let names = about.keys.keys().enumerate();
            let all: Vec<String> = names.map(|(at, name)| format!("{at}={name}")).collect();
            lines(all.iter().map(String::as_str))
        }
        ["meta-data", "public-keys", at] => key(own, at).and_then(|_| text("openssh-key")),
        ["meta-data", "public-keys", at, "openssh-key"] => text(key(own, at)?),
        _ => None,
    }
}

fn key<'a>(own: &'a PortWiring, at: &str) -> Option<&'a str> {
    own.metadata
        .keys
        .values()
        .nth(at.parse().ok()?)
        .map(String::as_str)
}

fn openstack(path: &[&str], own: &PortWiring, ports: &[Arc<PortWiring>]) -> Option<Found> {
    match path {
        [] => {
            let data = own.metadata.user_data.as_ref().map(|_| "user_data");
            let all = [
                "meta_data.json",
                "network_data.json",
                "vendor_data.json",
                "vendor_data2.json",
            ];
            lines(all.into_iter().chain(data))
        }
        ["user_data"] => user_data(own),
        ["meta_data.json"] => document(&meta_data(own)),
        ["network_data.json"] => document(&network_data(ports)),
        ["vendor_data.json" | "vendor_data2.json"] => document(&json!({})),
        _ => None,
    }
}

fn meta_data(own: &PortWiring) -> Value {
    let about = &own.metadata;
    let keys = about.keys.iter();
    let keys: Vec<Value> = keys
        .map(|(name, data)| json!({ "name": name, "type": "ssh", "data": data }))
        .collect();
    json!({
        "uuid": own.server,
        "name": about.name,
        "hostname": own.hostname.as_str(),
        "project_id": own.project,
        "launch_index": about.launch_index,
        "availability_zone": about.availability_zone,
        "meta": about.values,
        "public_keys": about.keys,
        "keys": keys,
        "devices": [],
    })
}

/// The networks as OpenStack's `network_data.json` says them: all of the server's ports.
fn network_data(ports: &[Arc<PortWiring>]) -> Value {
    let (mut links, mut networks, mut services) = (Vec::new(), Vec::new(), Vec::<IpAddr>::new());
    for port in ports {
        let link = crate::names::tap(port.port);
        links.push(json!({
            "id": link, "vif_id": port.port, "type": "bridge", "mtu": port.network.mtu,
            "ethernet_mac_address": port.mac,
        }));
        for address in &port.addresses {
            let Some(subnet) = port.network.subnets.iter().find(|s| s.prefix.contains(*address)) else {
                continue;
            };
            let id = format!("network{}", networks.len());
            let (family, whole) = if address.is_ipv4() {
                ("ipv4", 32)
            } else {
                ("ipv6", 128)
            };
            if address.is_ipv4() && subnet.dhcp {
                networks.push(json!({
                    "id": id, "type": "ipv4_dhcp", "link": link, "network_id": port.network.id,
                }));
                continue;
            }
            let mut routes = Vec::new();
            if address.is_ipv4() {
                routes.push(json!({
                    "network": METADATA, "netmask": mask(true, whole), "gateway": "0.0.0.0",
                }));
            }
            for route in &subnet.routes {
                let netmask = mask(address.is_ipv4(), route.to.bits());
                routes.push(json!({ "network": route.to.base(), "netmask": netmask, "gateway": route.via }));
            }
            if let Some(gateway) = subnet.gateway {
                let all = if address.is_ipv4() { "0.0.0.0" } else { "::" };
                routes.push(
                    json!({ "network": all, "netmask": mask(address.is_ipv4(), 0), "gateway": gateway }),
                );
            }
            networks.push(json!({
                "id": id, "type": family, "link": link, "network_id": port.network.id, "ip_address": address,
                "netmask": mask(address.is_ipv4(), subnet.prefix.bits()), "routes": routes,
            }));
            for server in &subnet.dns {
                if !services.contains(server) {
                    services.push(*server);
                }
            }
        }
    }
    let services: Vec<Value> = services
        .iter()
        .map(|a| json!({ "type": "dns", "address": a }))
        .collect();
    json!({ "links": links, "networks": networks, "services": services })
}

fn mask(v4: bool, bits: u8) -> String {
    if v4 {
        let mask = u32::MAX
            .checked_shl(32_u32.saturating_sub(u32::from(bits)))
            .unwrap_or(0);
        std::net::Ipv4Addr::from(mask).to_string()
    } else {
        let mask = u128::MAX
            .checked_shl(128_u32.saturating_sub(u32::from(bits)))
            .unwrap_or(0);
        std::net::Ipv6Addr::from(mask).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skyloom_hypervisor::conformance::exam_wiring;

    fn get(path: &str, wiring: &PortWiring) -> Option<String> {
        let found = find(path, wiring, &[Arc::new(wiring.clone())]);
        found.map(|f| String::from_utf8(f.content).unwrap())
    }

    /// Every name that a listing tells is there, down to the leaves.
    fn walk(path: &str, wiring: &PortWiring, leaves: &mut Vec<String>) {
        let listed = get(path, wiring).unwrap_or_else(|| panic!("{path}"));
        for name in listed.lines() {
            let name = match (path.ends_with("public-keys/"), name.split_once('=')) {
                (true, Some((at, _))) => format!("{at}/"),
                _ => name.to_owned(),
            };
            let below = format!("{path}{name}");
            if name.ends_with('/') {
                walk(&below, wiring, leaves);
            } else {
                assert!(get(&below, wiring).is_some(), "{below}");
                leaves.push(below);
            }
        }
    }

    #[test]
    fn all_that_is_listed_is_there() {
        let mut wiring = exam_wiring(1, 7);
        wiring.metadata.availability_zone = Some("north".into());
        let mut leaves = Vec::new();
        walk("/latest/", &wiring, &mut leaves);
        walk("/openstack/latest/", &wiring, &mut leaves);
        assert_eq!(leaves.len(), 14, "{leaves:?}");
        assert_eq!(
            get("/latest/meta-data/local-ipv4", &wiring).unwrap(),
            "192.168.1.7"
        );
        assert_eq!(get("/latest/meta-data/public-keys/", &wiring).unwrap(), "0=key");
        assert_eq!(
            get("/2009-04-04/meta-data/instance-id", &wiring).unwrap(),
            wiring.server.to_string()
        );
        assert_eq!(
            get("/openstack/2018-08-27/user_data", &wiring).unwrap(),
            "#!/bin/true\n"
        );
        for absent in [
            "/latest/meta-data/public-keys/1/openssh-key",
            "/1999-01-01/",
            "/openstack/latest/password",
        ] {
            assert_eq!(get(absent, &wiring), None, "{absent}");
        }
        wiring.metadata.user_data = None;
        assert_eq!(get("/latest/user-data", &wiring), None);
    }

    #[test]
    fn openstacks_documents_are_as_its_clients_read_them() {
        let mut wiring = exam_wiring(1, 7);
        let about: Value =
            serde_json::from_str(&get("/openstack/latest/meta_data.json", &wiring).unwrap()).unwrap();
        assert_eq!(about["uuid"], json!(wiring.server));
        assert_eq!(about["hostname"], "guest-7");
        assert_eq!(about["public_keys"]["key"], "ssh-ed25519 AAAA someone");
        assert_eq!(about["meta"]["role"], "exam");
        let networks = |wiring: &PortWiring| -> Value {
            serde_json::from_str(&get("/openstack/latest/network_data.json", wiring).unwrap()).unwrap()
        };
        assert_eq!(networks(&wiring)["networks"][0]["type"], "ipv4_dhcp");
        wiring.network.subnets[0].dhcp = false;
        let all = networks(&wiring);
        assert_eq!(all["networks"][0]["ip_address"], "192.168.1.7");
        assert_eq!(all["networks"][0]["netmask"], "255.255.255.0");
        assert_eq!(all["networks"][0]["routes"][1]["gateway"], "192.168.1.254");
        assert_eq!(all["links"][0]["ethernet_mac_address"], json!(wiring.mac));
        assert_eq!(all["services"][0]["address"], "192.168.1.253");
    }

    proptest! {
        #[test]
        fn any_path_is_answered_without_harm(path in "[/a-z0-9._-]{0,60}", at in 0..3_usize) {
            let wiring = exam_wiring(1, 7);
            let _ = get(&path, &wiring);
            let below = ["/latest/meta-data/", "/openstack/latest/", "/latest/meta-data/public-keys/"][at];
            let _ = get(&format!("{below}{path}"), &wiring);
        }
    }
}
