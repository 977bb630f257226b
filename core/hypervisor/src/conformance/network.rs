//! The network's exam: ports come and go whole, old orders change nothing, nothing stays behind.
//!
//! What packets do is for the tests of each network; here is what every caller relies on.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use async_trait::async_trait;
use libtest_mimic::Trial;
use skyloom_model::{Direction, Family, Hostname, MacAddr, Protocol, Secret};

use super::domains::must_refuse;
use super::harness::{on_a_runtime, within};
use super::pool::{id, server};
use crate::{
    ErrorKind, FirewallRule, HostNetwork, InstanceMetadata, NetworkWiring, NicDevice, PortThere, PortWiring,
    Prefix, SubnetWiring,
};

/// What an implementer brings so that its network can be examined.
#[async_trait]
pub trait NetworkExam: Send + Sync + std::fmt::Debug + 'static {
    /// A fresh host without ports, on which [`HostNetwork::recover`] was called.
    async fn sit(&self) -> Box<dyn NetworkUnderExam>;
}

/// A network that takes the exam. When it is dropped, nothing may stay.
#[async_trait]
pub trait NetworkUnderExam: Send + Sync {
    /// The network, as last opened.
    fn network(&self) -> Arc<dyn HostNetwork>;
    /// Drops the network as if its agent had died, and opens another one on the same host. Does not call
    /// [`HostNetwork::recover`].
    async fn reopen(&mut self);
    /// All that there is because of ports (devices, rules, processes, files, …), found without asking the network.
    async fn things(&self) -> BTreeSet<String>;
}

type Desk = Box<dyn NetworkUnderExam>;

/// A case of the network's exam.
#[derive(Debug, Clone, Copy)]
pub struct NetworkCase {
    /// Its name.
    pub name: &'static str,
    run: for<'a> fn(&'a mut Desk) -> futures::future::BoxFuture<'a, ()>,
}

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

impl NetworkCase {
    /// Takes the case on a fresh host.
    ///
    /// # Panics
    /// When the network fails the case.
    pub async fn run(&self, exam: &dyn NetworkExam) {
        let mut desk = exam.sit().await;
        within(PATIENCE, (self.run)(&mut desk)).await;
    }
}

macro_rules! network_case {
    ($function:ident) => {
        NetworkCase {
            name: stringify!($function),
            run: |desk| Box::pin($function(desk)),
        }
    };
}

/// All cases of the network's exam.
#[must_use]
pub fn network_cases() -> Vec<NetworkCase> {
    vec![
        network_case!(fresh_host_has_no_ports),
        network_case!(port_is_there),
        network_case!(port_is_wired_once),
        network_case!(ports_have_devices_of_their_own),
        network_case!(newer_wiring_is_taken_on),
        network_case!(older_wiring_is_refused),
        network_case!(older_removal_is_refused),
        network_case!(absent_port_is_removed),
        network_case!(removed_port_leaves_nothing),
        network_case!(removed_port_leaves_others),
        network_case!(removed_port_comes_back),
        network_case!(ports_outlive_the_agent),
        network_case!(generation_outlives_the_agent),
        network_case!(port_of_an_earlier_agent_leaves_nothing),
        network_case!(taken_addresses_are_refused),
        network_case!(same_addresses_in_two_networks),
        network_case!(port_stays_in_its_network),
        network_case!(senseless_wirings_leave_nothing),
        network_case!(many_ports_at_once),
        network_case!(given_up_wiring_is_finished_by_the_next),
    ]
}

/// The network's exam as tests, named `network::<case>`.
#[must_use]
pub fn network_trials(exam: Arc<dyn NetworkExam>) -> Vec<Trial> {
    let trial = |case: NetworkCase| {
        let exam = exam.clone();
        Trial::test(format!("network::{}", case.name), move || {
            on_a_runtime(case.run(&*exam))
        })
    };
    network_cases().into_iter().map(trial).collect()
}

/// A sensible wiring: port `number` of network `network`, with `192.168.<network>.<number>`.
///
/// # Panics
/// When `number` is 0.
#[must_use]
pub fn exam_wiring(network: u8, number: u8) -> PortWiring {
    assert!(number > 0, "ports are numbered from 1");
    let at = |host| IpAddr::V4(Ipv4Addr::new(192, 168, network, host));
    let whole = Prefix::new(at(0), 24).expect("a prefix");
    let seed = u64::from(network) << 8 | u64::from(number);
    let rule = |direction, protocol, remote| FirewallRule {
        direction,
        family: Family::Ipv4,
        protocol,
        port_min: None,
        port_max: None,
        remote,
    };
    PortWiring {
        port: id(0x1_0000 | seed),
        server: server(0x2_0000 | seed),
        project: id(0x3_0000),
        generation: 1,
        network: NetworkWiring {
            id: id(0x4_0000 | u64::from(network)),
            mtu: 1400,
            subnets: vec![SubnetWiring {
                prefix: whole,
                gateway: Some(at(254)),
                dns: vec![at(253)],
                routes: vec![],
                dhcp: true,
            }],
        },
        mac: MacAddr::qemu([network, 0, number]),
        addresses: vec![at(number)],
        pairs: vec![],
        hostname: Hostname::new(format!("guest-{number}")).expect("a host name"),
        rules: vec![
            rule(Direction::Egress, None, None),
            rule(Direction::Ingress, Some(Protocol::Icmp), Some(vec![whole])),
        ],
        port_security: true,
        metadata: InstanceMetadata {
            name: format!("guest {number}"),
            availability_zone: None,
            launch_index: 0,
            keys: [("key".to_owned(), "ssh-ed25519 AAAA someone".to_owned())].into(),
            values: [("role".to_owned(), "exam".to_owned())].into(),
            user_data: Some(Secret::new(b"#!/bin/true\n".to_vec())),
        },
    }
}

fn at(wiring: &PortWiring, generation: u64) -> PortWiring {
    PortWiring {
        generation,
        ..wiring.clone()
    }
}

fn there(wiring: &PortWiring) -> PortThere {
    PortThere {
        port: wiring.port,
        server: wiring.server,
        network: wiring.network.id,
        generation: wiring.generation,
        complete: true,
    }
}

async fn ensured(desk: &Desk, wiring: &PortWiring) -> NicDevice {
    desk.network().ensure_port(wiring).await.expect("ensure port")
}
async fn removed(desk: &Desk, wiring: &PortWiring) {
    let done = desk.network().remove_port(wiring.port, wiring.generation).await;
    done.expect("remove port");
}
async fn must_be(desk: &Desk, wirings: &[&PortWiring]) {
    let mut wanted: Vec<PortThere> = wirings.iter().map(|w| there(w)).collect();
    wanted.sort_by_key(|p| p.port);
    assert_eq!(desk.network().ports().await.expect("ports"), wanted);
}
async fn restarted(desk: &mut Desk) {
    desk.reopen().await;
    desk.network().recover().await.expect("recover");
}

async fn fresh_host_has_no_ports(desk: &mut Desk) {
    must_be(desk, &[]).await;
    assert_eq!(desk.things().await, BTreeSet::new());
}

async fn port_is_there(desk: &mut Desk) {
    let wiring = exam_wiring(1, 1);
    let device = ensured(desk, &wiring).await;
    assert_eq!(device.kind, desk.network().capability().kind);
    must_be(desk, &[&wiring]).await;
    assert_ne!(desk.things().await, BTreeSet::new(), "a port is something");
}

async fn port_is_wired_once(desk: &mut Desk) {
    let wiring = exam_wiring(1, 1);
    let device = ensured(desk, &wiring).await;
    let things = desk.things().await;
    assert_eq!(ensured(desk, &wiring).await, device);
    assert_eq!(desk.things().await, things);
    must_be(desk, &[&wiring]).await;
}

async fn ports_have_devices_of_their_own(desk: &mut Desk) {
    let (one, two) = (exam_wiring(1, 1), exam_wiring(1, 2));
    assert_ne!(ensured(desk, &one).await.device, ensured(desk, &two).await.device);
    must_be(desk, &[&one, &two]).await;
}

async fn newer_wiring_is_taken_on(desk: &mut Desk) {
    let wiring = exam_wiring(1, 1);
    let device = ensured(desk, &wiring).await;
    let mut newer = at(&wiring, 2);
    newer.rules.clear();
    assert_eq!(ensured(desk, &newer).await, device, "a guest is plugged in there");
    must_be(desk, &[&newer]).await;
    let less = desk.things().await;
    let newest = at(&wiring, 3);
    ensured(desk, &newest).await;
    ensured(
        desk,
        &PortWiring {
            generation: 4,
            ..newer
        },
    )
    .await;
    assert_eq!(
        desk.things().await,
        less,
        "what the rules were made of goes with them"
    );
}

async fn older_wiring_is_refused(desk: &mut Desk) {
    let wiring = at(&exam_wiring(1, 1), 5);
    ensured(desk, &wiring).await;
    let things = desk.things().await;
    let mut older = at(&wiring, 4);
    older.rules.clear();
    must_refuse(desk.network().ensure_port(&older).await, ErrorKind::Stale);
    must_be(desk, &[&wiring]).await;
    assert_eq!(desk.things().await, things);
}

async fn older_removal_is_refused(desk: &mut Desk) {
    let wiring = at(&exam_wiring(1, 1), 5);
    ensured(desk, &wiring).await;
    must_refuse(desk.network().remove_port(wiring.port, 4).await, ErrorKind::Stale);
    must_be(desk, &[&wiring]).await;
}

async fn absent_port_is_removed(desk: &mut Desk) {
    removed(desk, &exam_wiring(1, 1)).await;
    assert_eq!(desk.things().await, BTreeSet::new());
}

async fn removed_port_leaves_nothing(desk: &mut Desk) {
    let wiring = exam_wiring(1, 1);
    ensured(desk, &wiring).await;
    removed(desk, &wiring).await;
    removed(desk, &wiring).await;
    must_be(desk, &[]).await;
    assert_eq!(desk.things().await, BTreeSet::new());
}

async fn removed_port_leaves_others(desk: &mut Desk) {
    let (one, two, far) = (exam_wiring(1, 1), exam_wiring(1, 2), exam_wiring(2, 1));
    ensured(desk, &one).await;
    ensured(desk, &far).await;
    let things = desk.things().await;
    ensured(desk, &two).await;
    removed(desk, &two).await;
    must_be(desk, &[&one, &far]).await;
    assert_eq!(desk.things().await, things);
}

async fn removed_port_comes_back(desk: &mut Desk) {
    let wiring = exam_wiring(1, 1);
    ensured(desk, &wiring).await;
    let things = desk.things().await;
    removed(desk, &wiring).await;
    ensured(desk, &wiring).await;
    assert_eq!(desk.things().await, things);
}

async fn ports_outlive_the_agent(desk: &mut Desk) {
    let (one, two) = (exam_wiring(1, 1), exam_wiring(2, 2));
    let device = ensured(desk, &one).await;
    ensured(desk, &two).await;
    let things = desk.things().await;
    restarted(desk).await;
    must_be(desk, &[&one, &two]).await;
    assert_eq!(desk.things().await, things);
    assert_eq!(ensured(desk, &one).await, device);
    assert_eq!(desk.things().await, things);
}

async fn generation_outlives_the_agent(desk: &mut Desk) {
    let wiring = at(&exam_wiring(1, 1), 5);
    ensured(desk, &wiring).await;
    restarted(desk).await;
    must_refuse(
        desk.network().ensure_port(&at(&wiring, 4)).await,
        ErrorKind::Stale,
    );
    must_refuse(desk.network().remove_port(wiring.port, 4).await, ErrorKind::Stale);
    must_be(desk, &[&wiring]).await;
}

async fn port_of_an_earlier_agent_leaves_nothing(desk: &mut Desk) {
    let wiring = exam_wiring(1, 1);
    ensured(desk, &wiring).await;
    restarted(desk).await;
    removed(desk, &wiring).await;
    assert_eq!(desk.things().await, BTreeSet::new());
    restarted(desk).await;
    must_be(desk, &[]).await;
}

async fn taken_addresses_are_refused(desk: &mut Desk) {
    let one = exam_wiring(1, 1);
    ensured(desk, &one).await;
    let things = desk.things().await;
    let other = exam_wiring(1, 2);
    let same_mac = PortWiring {
        mac: one.mac,
        ..other.clone()
    };
    let same_address = PortWiring {
        addresses: one.addresses.clone(),
        ..other
    };
    for wiring in [same_mac, same_address] {
        must_refuse(desk.network().ensure_port(&wiring).await, ErrorKind::Conflict);
    }
    must_be(desk, &[&one]).await;
    assert_eq!(desk.things().await, things);
}

async fn same_addresses_in_two_networks(desk: &mut Desk) {
    let one = exam_wiring(1, 1);
    let mut two = exam_wiring(2, 1);
    two.network.subnets.clone_from(&one.network.subnets);
    two.addresses.clone_from(&one.addresses);
    two.mac = one.mac;
    ensured(desk, &one).await;
    ensured(desk, &two).await;
    must_be(desk, &[&one, &two]).await;
}

async fn port_stays_in_its_network(desk: &mut Desk) {
    let wiring = exam_wiring(1, 1);
    ensured(desk, &wiring).await;
    let moved = PortWiring {
        port: wiring.port,
        generation: 2,
        ..exam_wiring(2, 1)
    };
    must_refuse(desk.network().ensure_port(&moved).await, ErrorKind::Conflict);
    must_be(desk, &[&wiring]).await;
}

async fn senseless_wirings_leave_nothing(desk: &mut Desk) {
    type Change = fn(&mut PortWiring);
    let changes: [Change; 11] = [
        |w| w.network.mtu = 68,
        |w| w.addresses.push(w.addresses[0]),
        |w| w.addresses[0] = IpAddr::V4(Ipv4Addr::new(10, 9, 8, 7)),
        |w| w.network.subnets[0].gateway = Some("fd00::1".parse().expect("an address")),
        |w| w.rules[1].family = Family::Ipv6,
        |w| w.rules[0].port_min = Some(22),
        |w| (w.rules[1].port_min, w.rules[1].port_max) = (Some(256), None),
        |w| w.rules = vec![w.rules[0].clone(); PortWiring::MAX_RULES + 1],
        |w| w.metadata.user_data = Some(Secret::new(vec![0; PortWiring::MAX_USER_DATA + 1])),
        |w| w.metadata.keys = [("key".to_owned(), "ssh-rsa AAAA\nssh-rsa BBBB".to_owned())].into(),
        |w| w.metadata.name = "a\nb".to_owned(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut wiring = exam_wiring(1, 1);
        change(&mut wiring);
        let done = desk.network().ensure_port(&wiring).await;
        assert!(done.is_err(), "senseless wiring {number} is accepted");
        must_refuse(done, ErrorKind::Invalid);
    }
    assert_eq!(desk.things().await, BTreeSet::new());
}

async fn many_ports_at_once(desk: &mut Desk) {
    let wirings: Vec<PortWiring> = (1..=6).map(|n| exam_wiring(1 + n % 2, n)).collect();
    let network = desk.network();
    let all = wirings.iter().chain(&wirings).map(|w| network.ensure_port(w));
    for done in futures::future::join_all(all).await {
        done.expect("ensure port");
    }
    must_be(desk, &wirings.iter().collect::<Vec<_>>()).await;
    let all = wirings.iter().map(|w| network.remove_port(w.port, 1));
    for done in futures::future::join_all(all).await {
        done.expect("remove port");
    }
    assert_eq!(desk.things().await, BTreeSet::new());
}

/// The caller gives up after one more poll each time: wherever that is, the next order finishes the work.
async fn given_up_wiring_is_finished_by_the_next(desk: &mut Desk) {
    let wiring = exam_wiring(1, 1);
    ensured(desk, &wiring).await;
    let whole = desk.things().await;
    removed(desk, &wiring).await;
    for polls in 1..=24 {
        give_up(desk.network().ensure_port(&wiring), polls).await;
        ensured(desk, &wiring).await;
        assert_eq!(desk.things().await, whole, "given up after {polls} polls");
        give_up(desk.network().remove_port(wiring.port, 1), polls).await;
        removed(desk, &wiring).await;
        assert_eq!(
            desk.things().await,
            BTreeSet::new(),
            "given up after {polls} polls"
        );
    }
}

async fn give_up<F: Future>(verb: F, polls: usize) {
    let mut verb = Box::pin(verb);
    let mut left = polls;
    std::future::poll_fn(|cx| {
        left -= 1;
        let done = verb.as_mut().poll(cx).is_ready();
        if done || left == 0 {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}
