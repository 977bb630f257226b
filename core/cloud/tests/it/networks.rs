//! Networks, subnets, ports and security groups at the facade: what fits, what is refused, what is reserved and given back.

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures::future::join_all;
use skyloom_cloud::{
    AddRule, Caller, CreateNetwork, CreatePort, CreateSecurityGroup, CreateSubnet, ErrorKind, UpdateNetwork,
    UpdatePort, UpdateSecurityGroup, UpdateSubnet,
};
use skyloom_identity::{Owner, Slot};
use skyloom_model::{
    AddressRange, Direction, Family, Network, Port, Protocol, Remote, Resource as _, Subnet,
};

use crate::previews::{dry, previewed};
use crate::world::{World, list, with_key};

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn network(name: &str) -> CreateNetwork {
    CreateNetwork {
        name: name.to_owned(),
        ..CreateNetwork::default()
    }
}

pub(crate) fn subnet(cidr: &str) -> CreateSubnet {
    CreateSubnet {
        name: "v4".to_owned(),
        network: "backend".to_owned(),
        cidr: cidr.to_owned(),
        gateway: None,
        ..CreateSubnet::default()
    }
}

pub(crate) fn port() -> CreatePort {
    CreatePort {
        network: "backend".to_owned(),
        ..CreatePort::default()
    }
}

pub(crate) fn rule(direction: Direction) -> AddRule {
    AddRule {
        direction,
        family: None,
        protocol: None,
        port_min: None,
        port_max: None,
        remote_prefix: None,
        remote_group: None,
    }
}

/// A project with the network `backend` and one subnet of it.
pub(crate) async fn ready(cidr: &str) -> (World, Caller, Network, Subnet) {
    let world = World::new();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    let made = world
        .cloud
        .create_network(&member, network("backend"))
        .await
        .unwrap();
    let range = world.cloud.create_subnet(&member, subnet(cidr)).await.unwrap();
    (world, member, made, range)
}

pub(crate) async fn used(world: &World, member: &Caller) -> Vec<(String, u64)> {
    let slot = Slot::load(&world.store, Owner::Project(member.project))
        .await
        .unwrap();
    let used = slot
        .ledger()
        .map(|ledger| ledger.used.clone())
        .unwrap_or_default();
    let all = used.iter().filter(|(_, amount)| *amount > 0);
    all.map(|(name, amount)| (name.to_string(), amount)).collect()
}

pub(crate) async fn reservations(world: &World) -> usize {
    world.documents("addresses").await.len() + world.documents("macs").await.len()
}

#[tokio::test]
async fn networks_and_subnets_come_and_go_in_order() {
    let (world, member, made, range) = ready("10.1.0.0/24").await;
    let cloud = &world.cloud;
    let taken = cloud
        .create_network(&member, network("backend"))
        .await
        .unwrap_err();
    assert_eq!(taken.code(), "network.name_taken");
    let mtu = CreateNetwork {
        mtu: Some(100),
        ..network("small")
    };
    assert_eq!(
        cloud.create_network(&member, mtu).await.unwrap_err().code(),
        "mtu.invalid"
    );

    for (cidr, code) in [
        ("10.1.0.1/24", "cidr.invalid"),
        ("10.1.0.0/25", "subnet.overlaps"),
        ("10.0.0.0/8", "subnet.overlaps"),
    ] {
        assert_eq!(
            cloud
                .create_subnet(&member, subnet(cidr))
                .await
                .unwrap_err()
                .code(),
            code,
            "{cidr}"
        );
    }
    let nowhere = CreateSubnet {
        network: "other".to_owned(),
        ..subnet("10.2.0.0/24")
    };
    assert_eq!(
        cloud.create_subnet(&member, nowhere).await.unwrap_err().code(),
        "network.not_found"
    );

    let rename = UpdateNetwork {
        name: Some("front".to_owned()),
        ..UpdateNetwork::default()
    };
    let renamed = cloud.update_network(&member, made.id(), rename).await.unwrap();
    assert_eq!(renamed.meta.name.as_str(), "front");
    cloud.create_network(&member, network("backend")).await.unwrap();

    let pools = vec![AddressRange {
        first: ip("10.1.0.9"),
        last: ip("10.1.0.9"),
    }];
    let change = UpdateSubnet {
        pools: Some(pools.clone()),
        ..UpdateSubnet::default()
    };
    assert_eq!(
        cloud
            .update_subnet(&member, range.id(), change)
            .await
            .unwrap()
            .spec
            .pools,
        pools
    );
    let outside = vec![AddressRange {
        first: ip("10.2.0.9"),
        last: ip("10.2.0.9"),
    }];
    let change = UpdateSubnet {
        pools: Some(outside),
        ..UpdateSubnet::default()
    };
    let error = cloud
        .update_subnet(&member, range.id(), change)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "pool.invalid");

    let error = cloud.delete_network(&member, made.id()).await.unwrap_err();
    assert_eq!(
        (error.code(), error.kind()),
        ("network.in_use", ErrorKind::Conflict)
    );
    cloud.delete_subnet(&member, range.id()).await.unwrap();
    let now = cloud.get_network(&member, made.id()).await.unwrap().value;
    assert_eq!(now.spec.subnets, []);
    cloud.delete_network(&member, made.id()).await.unwrap();
    assert_eq!(used(&world, &member).await, [("networks".to_owned(), 1)]);
}

#[tokio::test]
async fn two_subnets_at_once_do_not_overlap() {
    let (world, member, made, _) = ready("10.9.0.0/24").await;
    let asked = (0..8).map(|_| world.cloud.create_subnet(&member, subnet("10.1.0.0/24")));
    let done = join_all(asked).await;
    assert_eq!(done.iter().filter(|made| made.is_ok()).count(), 1);
    let now = world.cloud.get_network(&member, made.id()).await.unwrap().value;
    assert_eq!(now.spec.subnets.len(), 2);
}

#[tokio::test]
async fn ports_get_addresses_of_their_own_until_there_are_none() {
    // Six addresses of hosts, one of them the gateway's.
    let (world, member, _, range) = ready("10.1.0.0/29").await;
    let cloud = &world.cloud;
    let first = cloud.create_port(&member, port()).await.unwrap();
    assert_eq!(first.spec.server, None);
    assert_eq!(first.spec.subnet, Some(range.id()));
    let fixed = CreatePort {
        fixed_address: Some(first.spec.address),
        ..port()
    };
    assert_eq!(
        cloud.create_port(&member, fixed).await.unwrap_err().code(),
        "address.in_use"
    );
    for wrong in ["10.1.0.0", "10.1.0.7", "10.2.0.1"] {
        let asked = CreatePort {
            fixed_address: Some(ip(wrong)),
            ..port()
        };
        assert_eq!(
            cloud.create_port(&member, asked).await.unwrap_err().code(),
            "address.invalid",
            "{wrong}"
        );
    }
    let same_mac = CreatePort {
        mac: Some(first.spec.mac),
        ..port()
    };
    assert_eq!(
        cloud.create_port(&member, same_mac).await.unwrap_err().code(),
        "mac.in_use"
    );

    let rest = join_all((0..5).map(|_| cloud.create_port(&member, port()))).await;
    let mut all: Vec<Port> = rest.into_iter().map(|made| made.unwrap()).collect();
    all.push(first);
    let addresses: BTreeSet<IpAddr> = all.iter().map(|p| p.spec.address).collect();
    assert_eq!(addresses.len(), 6);
    let full = cloud.create_port(&member, port()).await.unwrap_err();
    assert_eq!(full.code(), "subnet.exhausted");
    assert_eq!(reservations(&world).await, 12);

    let in_use = cloud.delete_subnet(&member, range.id()).await.unwrap_err();
    assert_eq!(in_use.code(), "subnet.in_use");
    cloud.delete_port(&member, all[0].id()).await.unwrap();
    let again = cloud.create_port(&member, port()).await.unwrap();
    assert_eq!(
        again.spec.address, all[0].spec.address,
        "the only one that is free"
    );
    for made in all[1..].iter().chain([&again]) {
        cloud.delete_port(&member, made.id()).await.unwrap();
    }
    assert_eq!(reservations(&world).await, 0);
    cloud.delete_subnet(&member, range.id()).await.unwrap();
}

#[tokio::test]
async fn a_port_and_the_end_of_its_subnet_do_not_both_happen() {
    for _ in 0..8 {
        let (world, member, _, range) = ready("10.1.0.0/24").await;
        let (made, gone) = futures::join!(
            world.cloud.create_port(&member, port()),
            world.cloud.delete_subnet(&member, range.id())
        );
        assert!(made.is_err() || gone.is_err(), "{made:?} {gone:?}");
        assert_eq!(reservations(&world).await, if made.is_ok() { 2 } else { 0 });
    }
}

#[tokio::test]
async fn a_subnet_that_was_left_closed_can_be_deleted() {
    let (world, member, made, range) = ready("10.1.0.0/24").await;
    let mut closed = world.cloud.get_subnet(&member, range.id()).await.unwrap();
    let found = closed.clone();
    closed.value.spec.closed = true;
    let txn = found.replace(&closed.value).unwrap();
    assert!(world.store.commit(txn).await.unwrap().committed().is_some());
    let refused = world.cloud.create_port(&member, port()).await.unwrap_err();
    assert_eq!(refused.code(), "network.no_subnet");
    world.cloud.delete_subnet(&member, range.id()).await.unwrap();
    world.cloud.delete_network(&member, made.id()).await.unwrap();
}

#[tokio::test]
async fn the_default_group_comes_with_the_first_port_and_once() {
    let (world, member, _, _) = ready("10.1.0.0/24").await;
    let cloud = &world.cloud;
    assert!(
        cloud
            .list_security_groups(&member, &list())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let made = join_all((0..4).map(|_| cloud.create_port(&member, port()))).await;
    let groups = cloud.list_security_groups(&member, &list()).await.unwrap().items;
    let [group] = &groups[..] else {
        panic!("{groups:?}");
    };
    assert_eq!(group.meta.name.as_str(), "default");
    let of = |direction| group.spec.rules.iter().filter(move |r| r.direction == direction);
    assert!(of(Direction::Egress).all(|r| r.remote.is_none()));
    let own = Some(Remote::Group { group: group.id() });
    assert!(of(Direction::Ingress).all(|r| r.remote == own));
    assert_eq!(
        (of(Direction::Egress).count(), of(Direction::Ingress).count()),
        (2, 2)
    );
    for port in &made {
        assert_eq!(port.as_ref().unwrap().spec.security_groups, [group.id()]);
    }
    let wanted = [
        ("networks", 1),
        ("ports", 4),
        ("security_group_rules", 4),
        ("security_groups", 1),
        ("subnets", 1),
    ];
    let wanted = wanted.map(|(name, amount)| (name.to_owned(), amount));
    assert_eq!(used(&world, &member).await, wanted);
    assert_eq!(cloud.recount_quotas(&world.admin().await).await.unwrap(), []);
    let kept = cloud
        .delete_security_group(&member, group.id())
        .await
        .unwrap_err();
    assert_eq!(kept.code(), "security-group.is_default");
}

#[tokio::test]
async fn groups_are_kept_while_ports_are_in_them() {
    let (world, member, _, _) = ready("10.1.0.0/24").await;
    let cloud = &world.cloud;
    let web = CreateSecurityGroup {
        name: "web".to_owned(),
        ..CreateSecurityGroup::default()
    };
    let web = cloud.create_security_group(&member, web).await.unwrap();
    let asked = CreatePort {
        security_groups: Some(vec!["web".to_owned()]),
        ..port()
    };
    let made = cloud.create_port(&member, asked).await.unwrap();
    assert_eq!(made.spec.security_groups, [web.id()]);
    let kept = cloud.delete_security_group(&member, web.id()).await.unwrap_err();
    assert_eq!(kept.code(), "security-group.in_use");
    let unknown = UpdatePort {
        security_groups: Some(vec!["db".to_owned()]),
        ..UpdatePort::default()
    };
    let error = cloud.update_port(&member, made.id(), unknown).await.unwrap_err();
    assert_eq!(error.code(), "security-group.not_found");
    let out = UpdatePort {
        security_groups: Some(Vec::new()),
        ..UpdatePort::default()
    };
    let port = cloud.update_port(&member, made.id(), out).await.unwrap();
    assert_eq!(
        (port.spec.security_groups.len(), port.meta.generation),
        (0, made.meta.generation + 1)
    );
    let rename = UpdateSecurityGroup {
        name: Some("www".to_owned()),
        ..UpdateSecurityGroup::default()
    };
    cloud
        .update_security_group(&member, web.id(), rename)
        .await
        .unwrap();
    cloud.delete_security_group(&member, web.id()).await.unwrap();
    assert!(world.documents("members").await.is_empty());
}

#[tokio::test]
async fn rules_are_checked_added_once_and_taken_out() {
    let (world, member, _, _) = ready("10.1.0.0/24").await;
    let cloud = &world.cloud;
    let web = CreateSecurityGroup {
        name: "web".to_owned(),
        ..CreateSecurityGroup::default()
    };
    let web = cloud.create_security_group(&member, web).await.unwrap();
    let tcp = AddRule {
        protocol: Some(Protocol::Tcp),
        port_min: Some(443),
        port_max: Some(443),
        ..rule(Direction::Ingress)
    };
    for (bad, code) in [
        (
            AddRule {
                port_max: None,
                ..tcp.clone()
            },
            "rule.invalid",
        ),
        (
            AddRule {
                port_max: Some(80),
                ..tcp.clone()
            },
            "rule.invalid",
        ),
        (
            AddRule {
                protocol: None,
                ..tcp.clone()
            },
            "rule.invalid",
        ),
        (
            AddRule {
                protocol: Some(Protocol::Icmp),
                ..tcp.clone()
            },
            "rule.invalid",
        ),
        (
            AddRule {
                remote_prefix: Some("10.0.0.1/8".to_owned()),
                ..tcp.clone()
            },
            "cidr.invalid",
        ),
        (
            AddRule {
                remote_prefix: Some("::/0".to_owned()),
                family: Some(Family::Ipv4),
                ..tcp.clone()
            },
            "rule.invalid",
        ),
        (
            AddRule {
                remote_group: Some("db".to_owned()),
                ..tcp.clone()
            },
            "security-group.not_found",
        ),
        (
            AddRule {
                remote_group: Some("web".to_owned()),
                remote_prefix: Some("::/0".to_owned()),
                ..tcp.clone()
            },
            "rule.invalid",
        ),
    ] {
        assert_eq!(
            cloud
                .add_rule(&member, web.id(), bad.clone())
                .await
                .unwrap_err()
                .code(),
            code,
            "{bad:?}"
        );
    }
    let now = cloud.add_rule(&member, web.id(), tcp.clone()).await.unwrap();
    assert_eq!(now.spec.rules.len(), 3);
    assert_eq!(
        cloud.add_rule(&member, web.id(), tcp).await.unwrap_err().code(),
        "rule.exists"
    );
    let own = AddRule {
        remote_group: Some("web".to_owned()),
        ..rule(Direction::Ingress)
    };
    let now = cloud.add_rule(&member, web.id(), own).await.unwrap();
    assert_eq!(now.spec.rules[3].remote, Some(Remote::Group { group: web.id() }));
    let v6 = AddRule {
        remote_prefix: Some("::/0".to_owned()),
        ..rule(Direction::Ingress)
    };
    let now = cloud.add_rule(&member, web.id(), v6).await.unwrap();
    assert_eq!(now.spec.rules[4].family, Family::Ipv6);
    let out = now.spec.rules[2].id;
    assert_eq!(
        cloud
            .remove_rule(&member, web.id(), out)
            .await
            .unwrap()
            .spec
            .rules
            .len(),
        4
    );
    assert_eq!(
        cloud
            .remove_rule(&member, web.id(), out)
            .await
            .unwrap_err()
            .code(),
        "rule.not_found"
    );
}

#[tokio::test]
async fn a_network_without_port_security_has_no_groups() {
    let (world, member, _, _) = ready("10.1.0.0/24").await;
    let open = CreateNetwork {
        port_security: Some(false),
        ..network("open")
    };
    world.cloud.create_network(&member, open).await.unwrap();
    let range = CreateSubnet {
        network: "open".to_owned(),
        ..subnet("10.2.0.0/24")
    };
    world.cloud.create_subnet(&member, range).await.unwrap();
    let plain = CreatePort {
        network: "open".to_owned(),
        ..CreatePort::default()
    };
    let grouped = CreatePort {
        security_groups: Some(vec!["default".to_owned()]),
        ..plain.clone()
    };
    let error = world.cloud.create_port(&member, grouped).await.unwrap_err();
    assert_eq!(error.code(), "network.no_port_security");
    let made = world.cloud.create_port(&member, plain).await.unwrap();
    assert!(made.spec.security_groups.is_empty());
}

#[tokio::test]
async fn others_see_nothing_and_use_nothing() {
    let (world, member, made, range) = ready("10.1.0.0/24").await;
    let port = world.cloud.create_port(&member, port()).await.unwrap();
    let admin = world.admin().await;
    let other = world.member(&admin, "rival").await;
    let cloud = &world.cloud;
    assert_eq!(
        cloud.get_network(&other, made.id()).await.unwrap_err().code(),
        "network.not_found"
    );
    assert_eq!(
        cloud.get_subnet(&other, range.id()).await.unwrap_err().code(),
        "subnet.not_found"
    );
    assert_eq!(
        cloud.get_port(&other, port.id()).await.unwrap_err().code(),
        "port.not_found"
    );
    let group = port.spec.security_groups[0];
    assert_eq!(
        cloud.get_security_group(&other, group).await.unwrap_err().code(),
        "security-group.not_found"
    );
    let asked = CreatePort {
        network: made.meta.id.to_string(),
        ..CreatePort::default()
    };
    assert_eq!(
        cloud.create_port(&other, asked).await.unwrap_err().code(),
        "network.not_found"
    );
}

#[tokio::test]
async fn the_same_key_makes_one_port_and_a_dry_run_makes_none() {
    let (world, member, _, _) = ready("10.1.0.0/24").await;
    let keyed = with_key(&member, "k");
    let once = world.cloud.create_port(&keyed, port()).await.unwrap();
    let again = world.cloud.create_port(&keyed, port()).await.unwrap();
    assert_eq!(once, again);
    let before = world.documents("").await;
    previewed(world.cloud.create_port(&dry(&member), port()).await);
    assert_eq!(world.documents("").await, before);
}
