//! Servers in networks: what is reserved, and what their hosts are told.

use std::collections::BTreeSet;

use skyloom_cloud::{AddRule, Caller, CreateServer, NETWORKS, NetworkRequest};
use skyloom_hypervisor::{HostNetwork as _, Prefix};
use skyloom_model::{
    Direction, Family, Host, HostId, ImageId, Protocol, Resource as _, Scope, Task, TaskState, paths,
};
use skyloom_store::{Txn, Value, Versioned};

use crate::engine::{Engine, active_image};
use crate::world::{World, key, list, server};

use crate::networks::{ip, port, ready, reservations, rule, used};

fn on(networks: Vec<NetworkRequest>, image: ImageId) -> CreateServer {
    CreateServer {
        networks: Some(networks),
        ..server("web", image)
    }
}

pub(crate) fn in_network() -> NetworkRequest {
    NetworkRequest {
        network: Some("backend".to_owned()),
        ..NetworkRequest::default()
    }
}

#[tokio::test]
async fn a_server_reserves_in_its_create_and_gives_back_in_its_delete() {
    let (mut world, member, _, range) = ready("10.1.0.0/24").await;
    let admin = world.admin().await;
    world.host(&admin, "h").await;
    let image = active_image(&world, &member).await;
    let kept = world.cloud.create_port(&member, port()).await.unwrap();
    let before = used(&world, &member).await;
    let fixed = NetworkRequest {
        fixed_address: Some(ip("10.1.0.77")),
        ..in_network()
    };
    let own = NetworkRequest {
        port: Some(kept.id()),
        ..NetworkRequest::default()
    };
    let asked = on(vec![fixed.clone(), own.clone(), in_network()], image);
    let made = world.cloud.create_server(&member, asked).await.unwrap();
    let ports = world.cloud.list_ports(&member, &list()).await.unwrap().items;
    assert_eq!(ports.len(), 3);
    assert!(ports.iter().all(|p| p.spec.server == Some(made.server.id())));
    let first = ports
        .iter()
        .find(|p| p.id() == made.server.spec.ports[0])
        .unwrap();
    assert_eq!(first.spec.address, ip("10.1.0.77"));
    assert_eq!(reservations(&world).await, 6);
    let amount =
        |all: &[(String, u64)], name: &str| all.iter().find(|(n, _)| n == name).map_or(0, |(_, a)| *a);
    assert_eq!(amount(&used(&world, &member).await, "ports"), 3);

    let error = world
        .cloud
        .create_server(&member, on(vec![fixed], image))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "address.in_use");
    assert_eq!(error.wrong_fields()[0].field, "networks[0].fixed_address");
    let error = world
        .cloud
        .create_server(&member, on(vec![own], image))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "port.in_use");
    let error = world.cloud.delete_port(&member, kept.id()).await.unwrap_err();
    assert_eq!(error.code(), "port.in_use");

    // No host here can plug guests into networks.
    let ended = Engine::new(&world).await.carry(&made.task).await;
    assert_eq!(ended.state, TaskState::Failed);
    assert_eq!(world.cloud.recount_quotas(&admin).await.unwrap(), []);
    let deleted = world
        .cloud
        .delete_server(&member, made.server.id())
        .await
        .unwrap();
    let ended = Engine::new(&world).await.carry(&deleted.task).await;
    assert_eq!(ended.state, TaskState::Done);
    let left = world.cloud.list_ports(&member, &list()).await.unwrap().items;
    assert_eq!(
        left.iter().map(|p| (p.id(), p.spec.server)).collect::<Vec<_>>(),
        [(kept.id(), None)]
    );
    assert_eq!(reservations(&world).await, 2);
    assert_eq!(used(&world, &member).await, before);
    assert_eq!(world.cloud.recount_quotas(&admin).await.unwrap(), []);
    world.cloud.delete_port(&member, kept.id()).await.unwrap();
    world.cloud.delete_subnet(&member, range.id()).await.unwrap();
}

/// A host that can plug guests into networks.
pub(crate) async fn networked(world: &mut World, admin: &Caller) -> HostId {
    let id = world.host(admin, "h").await;
    let at = key(&paths::resource(Host::KIND, Scope::System, id.uuid()));
    let found = world.store.get(&at).await.unwrap().unwrap();
    let mut host: Versioned<Host> = Versioned::decode(&found).unwrap();
    host.value
        .status
        .facts
        .as_mut()
        .unwrap()
        .traits
        .push(NETWORKS.to_owned());
    let txn = Txn::new().replace(at, host.modified, Value::json(&host.value).unwrap());
    assert!(world.store.commit(txn).await.unwrap().committed().is_some());
    id
}

/// The unfinished tasks of a flow.
pub(crate) async fn under_way(world: &World, flow: &str) -> Vec<Task> {
    let all = world.documents("tasks").await.into_values();
    let all = all.map(|text| serde_json::from_str::<Task>(&text).unwrap());
    all.filter(|task| task.flow == flow && !task.state.ended())
        .collect()
}

#[tokio::test]
async fn a_guest_is_plugged_in_and_learns_of_others_and_of_rules() {
    let (mut world, member, made, _) = ready("10.1.0.0/24").await;
    let admin = world.admin().await;
    let host = networked(&mut world, &admin).await;
    let image = active_image(&world, &member).await;
    let fake = world.hosts[&host].fake.clone();
    let network = fake.network();
    let first = world
        .cloud
        .create_server(&member, on(vec![in_network()], image))
        .await
        .unwrap();
    let ended = Engine::new(&world).await.carry(&first.task).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    let port = first.server.spec.ports[0];
    let there = network.ports().await.unwrap();
    assert_eq!(
        there.iter().map(|p| (p.port, p.network)).collect::<Vec<_>>(),
        [(port, made.id())]
    );
    let domain = fake.domain(first.server.id()).unwrap().unwrap();
    assert!(domain.spec.nics[0].device.is_some(), "{:?}", domain.spec.nics);
    let wiring = fake.wiring(port).unwrap().unwrap();
    let own = Prefix::host(wiring.addresses[0]);
    let members = |wiring: &skyloom_hypervisor::PortWiring| {
        let v4 = wiring
            .rules
            .iter()
            .find(|r| r.direction == Direction::Ingress && r.family == Family::Ipv4);
        v4.unwrap().remote.clone().unwrap()
    };
    assert_eq!(members(&wiring), [own], "the default group lets its own ports in");

    // A second one: the first is told, by a task of its own and without an order for the guest.
    let second = world
        .cloud
        .create_server(&member, on(vec![in_network()], image))
        .await
        .unwrap();
    let rewires = under_way(&world, "port.rewire").await;
    assert_eq!(rewires.len(), 1);
    let mut engine = Engine::new(&world).await;
    assert_eq!(engine.carry(&second.task).await.state, TaskState::Done);
    assert_eq!(engine.carry(&rewires[0]).await.state, TaskState::Done);
    let other = fake.wiring(second.server.spec.ports[0]).unwrap().unwrap();
    let now = fake.wiring(port).unwrap().unwrap();
    let both = BTreeSet::from([own, Prefix::host(other.addresses[0])]);
    for wiring in [&now, &other] {
        assert_eq!(members(wiring).into_iter().collect::<BTreeSet<_>>(), both);
    }
    assert!(now.generation > wiring.generation);
    let unchanged = fake.domain(first.server.id()).unwrap().unwrap();
    assert_eq!(unchanged.spec.generation, domain.spec.generation);

    // A rule more.
    let group = world
        .cloud
        .get_port(&member, port)
        .await
        .unwrap()
        .value
        .spec
        .security_groups[0];
    let rules = now.rules.len();
    let icmp = AddRule {
        protocol: Some(Protocol::Icmp),
        ..rule(Direction::Ingress)
    };
    world.cloud.add_rule(&member, group, icmp).await.unwrap();
    let rewires = under_way(&world, "port.rewire").await;
    assert_eq!(
        Engine::new(&world).await.carry(&rewires[0]).await.state,
        TaskState::Done
    );
    assert_eq!(fake.wiring(port).unwrap().unwrap().rules.len(), rules + 1);

    for made in [&second, &first] {
        let deleted = world
            .cloud
            .delete_server(&member, made.server.id())
            .await
            .unwrap();
        let ended = Engine::new(&world).await.carry(&deleted.task).await;
        assert_eq!(ended.state, TaskState::Done);
        // The other forgets the address, which is anybody's now, by a task of the deletion's own commit. The last one has no others.
        let rewires = under_way(&world, "port.rewire").await;
        assert_eq!(rewires.len(), usize::from(made.server.id() == second.server.id()));
        for rewire in &rewires {
            assert_eq!(members(&fake.wiring(port).unwrap().unwrap()).len(), 2);
            assert_eq!(
                Engine::new(&world).await.carry(rewire).await.state,
                TaskState::Done
            );
            assert_eq!(members(&fake.wiring(port).unwrap().unwrap()), [own]);
        }
    }
    assert_eq!(network.ports().await.unwrap(), []);
    assert_eq!(reservations(&world).await, 0);
}
