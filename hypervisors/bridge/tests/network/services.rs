//! DHCP by a real client, and metadata as guests ask for it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use skyloom_bridge::BridgeConfig;
use skyloom_hypervisor::conformance::exam_wiring;
use skyloom_hypervisor::{HostNetwork, PortWiring};
use skyloom_model::Secret;

use crate::flows::at;
use crate::world::{Guest, MOMENT, PATIENCE, World, here, run};

const SERVICE: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// What udhcpc is told.
pub(crate) fn lease(world: &World, guest: &Guest, more: &[&str]) -> Option<Value> {
    let file = world.dir.path().join("lease.json");
    let _ = std::fs::remove_file(&file);
    let mut command: Command = guest.command("busybox");
    command.args(["udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "10", "-T", "1"]);
    command.args([
        "-O",
        "staticroutes",
        "-O",
        "mtu",
        "-O",
        "dns",
        "-O",
        "router",
        "-O",
        "hostname",
    ]);
    command
        .args(["-s", &here("lease.py")])
        .args(more)
        .env("LEASE", &file);
    let ran = command.output().unwrap();
    let text = std::fs::read(&file).ok()?;
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    Some(serde_json::from_slice(&text).unwrap())
}

pub(crate) async fn dhcp_tells_each_port_its_own_address() {
    let world = World::new().await;
    let (one, two) = (exam_wiring(1, 1), exam_wiring(1, 2));
    let (a, b) = (world.bare_guest(&one).await, world.bare_guest(&two).await);
    let (first, second) = (lease(&world, &a, &[]).unwrap(), lease(&world, &b, &[]).unwrap());
    assert_eq!(first["ip"], "192.168.1.1");
    assert_eq!(second["ip"], "192.168.1.2");
    assert_eq!(first["subnet"], "255.255.255.0");
    assert_eq!(
        (&first["router"], &first["dns"]),
        (&"192.168.1.254".into(), &"192.168.1.253".into())
    );
    assert_eq!(
        (&first["mtu"], &first["hostname"]),
        (&"1400".into(), &"guest-1".into())
    );
    assert_eq!(first["serverid"], "169.254.169.254");
    let routes = first["staticroutes"].as_str().unwrap();
    assert_eq!(routes, "169.254.169.254/32 0.0.0.0 0.0.0.0/0 192.168.1.254");
    // Whatever it asks for, and with broadcast answers.
    assert_eq!(
        lease(&world, &a, &["-r", "192.168.1.2"]).unwrap()["ip"],
        "192.168.1.1"
    );
    assert_eq!(lease(&world, &a, &["-B"]).unwrap()["ip"], "192.168.1.1");

    // After a restart of the agent, and with another address.
    let world = world.reopened().await;
    assert_eq!(lease(&world, &b, &[]).unwrap()["ip"], "192.168.1.2");
    let moved = PortWiring {
        generation: 2,
        addresses: vec![at(1, 22).into()],
        ..two.clone()
    };
    world.wire(&moved).await;
    assert_eq!(lease(&world, &b, &[]).unwrap()["ip"], "192.168.1.22");

    // A subnet without DHCP has none.
    let mut quiet = PortWiring {
        generation: 3,
        ..moved
    };
    quiet.network.subnets[0].dhcp = false;
    world.wire(&quiet).await;
    assert!(lease(&world, &b, &["-t", "2"]).is_none());
    assert_eq!(lease(&world, &a, &[]).unwrap()["ip"], "192.168.1.1");
}

/// Attack 24: another's headers, and a request that somebody else hands on.
pub(crate) async fn metadata_is_told_by_port() {
    let world = World::new().await;
    let (one, two) = (exam_wiring(1, 1), exam_wiring(1, 2));
    let mut far = exam_wiring(2, 3);
    far.network.subnets.clone_from(&one.network.subnets);
    far.addresses.clone_from(&one.addresses);
    let guests = [
        world.guest(&one).await,
        world.guest(&two).await,
        world.guest(&far).await,
    ];
    for (guest, wiring) in guests.iter().zip([&one, &two, &far]) {
        let (status, id) = guest.get("/latest/meta-data/instance-id", "");
        assert_eq!((status, id), (200, wiring.server.to_string()));
    }
    let a = &guests[0];
    // What it says of itself counts for nothing; what comes by somebody else is refused.
    let lies = format!(
        "X-Instance-ID: {}\r\nX-Tenant-ID: x\r\nX-Real-IP: 192.168.1.2\r\nX-Instance-ID-Signature: 0\r\n",
        two.server
    );
    assert_eq!(
        a.get("/latest/meta-data/instance-id", &lies).1,
        one.server.to_string()
    );
    assert_eq!(
        a.get(
            "/latest/meta-data/instance-id",
            "X-Forwarded-For: 192.168.1.2\r\n"
        )
        .0,
        403
    );
    assert_eq!(a.get("/openstack/latest/user_data", "").1, "#!/bin/true\n");
    let about: Value = serde_json::from_str(&a.get("/openstack/latest/meta_data.json", "").1).unwrap();
    assert_eq!(about["uuid"], one.server.to_string());
    assert_eq!(a.get("/latest/../../etc/passwd", "").0, 404);
    assert_eq!(a.ask("PUT /latest/api/token HTTP/1.1\r\n\r\n").unwrap().0, 405);
    assert_eq!(a.ask("nonsense\r\n\r\n").unwrap().0, 400);

    // Also by way of a router that is not there: whatever it took for the next hop.
    a.ip(&["route", "delete", "169.254.169.254/32"]);
    a.ip(&["route", "add", "default", "via", "192.168.1.254"]);
    a.ip(&[
        "neighbour",
        "replace",
        "192.168.1.254",
        "lladdr",
        "52:54:00:00:00:fe",
        "dev",
        "eth0",
    ]);
    assert_eq!(
        a.get("/latest/meta-data/instance-id", "").1,
        one.server.to_string()
    );

    // Changes are told at once, and a port that is gone is told nothing.
    let mut changed = PortWiring {
        generation: 2,
        ..one.clone()
    };
    changed.metadata.values.insert("role".into(), "other".into());
    changed.metadata.user_data = None;
    world.wire(&changed).await;
    let about: Value = serde_json::from_str(&a.get("/openstack/latest/meta_data.json", "").1).unwrap();
    assert_eq!(about["meta"]["role"], "other");
    assert_eq!(a.get("/latest/user-data", "").0, 404);
    let world = world.reopened().await;
    assert_eq!(
        guests[1].get("/latest/user-data", "").1,
        "#!/bin/true\n",
        "kept over a restart"
    );
    world.network.remove_port(two.port, 1).await.unwrap();
    assert!(guests[1].connect((SERVICE, 80), MOMENT).is_none());
}

/// Attack 24: another's address.
pub(crate) async fn metadata_of_another_is_out_of_reach() {
    let world = World::new().await;
    let (mut one, two) = (exam_wiring(1, 1), exam_wiring(1, 2));
    let (a, b) = (world.guest(&one).await, world.guest(&two).await);
    a.ip(&["address", "add", "192.168.1.2/32", "dev", "eth0"]);
    // Its questions by ARP are dropped as well; it knows the answer.
    let services = "02:53:4b:a9:fe:fe";
    a.ip(&[
        "neighbour",
        "replace",
        "169.254.169.254",
        "lladdr",
        services,
        "dev",
        "eth0",
    ]);
    let as_other = |guest: &Guest, patience: Duration| {
        let mut command = guest.command("curl");
        command.args([
            "-s",
            "--interface",
            "192.168.1.2",
            "--max-time",
            &patience.as_secs_f64().to_string(),
        ]);
        let ran = command
            .arg("http://169.254.169.254/latest/meta-data/instance-id")
            .output()
            .unwrap();
        String::from_utf8(ran.stdout).unwrap()
    };
    assert_eq!(as_other(&b, PATIENCE), two.server.to_string());
    assert_eq!(as_other(&a, MOMENT), "");
    // Nor when it may otherwise speak as anybody.
    (one.generation, one.port_security) = (2, false);
    world.wire(&one).await;
    assert_eq!(as_other(&a, MOMENT), "");
    assert_eq!(
        a.get("/latest/meta-data/instance-id", "").1,
        one.server.to_string()
    );
    assert_eq!(as_other(&b, PATIENCE), two.server.to_string());
}

pub(crate) async fn slow_and_many_clients_starve_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let config = BridgeConfig::new(dir.path().join("net")).with_request_timeout(Duration::from_secs(2));
    let world = World::of(dir, config).await;
    let (a, b) = (
        world.guest(&exam_wiring(1, 1)).await,
        world.guest(&exam_wiring(1, 2)).await,
    );
    let service = SocketAddr::from((SERVICE, 80));
    let mut slow: Vec<_> = (0..40).map(|_| a.connect(service, PATIENCE).unwrap()).collect();
    for stream in &mut slow {
        // Those that are too many are closed already.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n");
    }
    assert_eq!(b.get("/latest/meta-data/mac", "").0, 200);
    for mut stream in slow {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut rest = Vec::new();
        // Cut, not waited for: the end or a reset, and no answer.
        let ended = stream.read_to_end(&mut rest);
        assert!(rest.is_empty());
        assert!(ended.is_ok() || ended.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset);
    }
    assert_eq!(a.get("/latest/meta-data/mac", "").0, 200);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(20_000));
    assert!(a.ask(&long).is_none_or(|(status, _)| status == 431));
}

pub(crate) async fn user_data_is_in_no_log() {
    let world = World::new().await;
    let mut wiring = exam_wiring(1, 1);
    wiring.metadata.user_data = Some(Secret::new(b"planted secret".to_vec()));
    world.wire(&wiring).await;
    assert!(!format!("{wiring:?} {:?}", world.network).contains("planted"));
    let record = world.config.dir.join(format!("ports/{}.json", wiring.port));
    assert!(!std::fs::read_to_string(record).unwrap().contains("planted"));
    let modes = run("find", &[world.config.dir.to_str().unwrap(), "-perm", "/077"]);
    assert_eq!(modes, "", "readable by nobody else");
    let error = world
        .network
        .ensure_port(&PortWiring {
            generation: 0,
            ..wiring
        })
        .await
        .unwrap_err();
    assert!(!format!("{error:?}").contains("planted"));
}
