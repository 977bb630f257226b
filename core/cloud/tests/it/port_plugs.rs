//! Ports that come to servers that are there, and go.

use skyloom_cloud::{AddRule, AttachPort, CreateServer};
use skyloom_hypervisor::HostNetwork as _;
use skyloom_model::{Direction, PortId, Protocol, Resource as _, ServerId, TaskState};

use crate::engine::{Engine, active_image};
use crate::networked::{in_network, networked, under_way};
use crate::networks::{port, ready, rule};
use crate::world::server;

#[tokio::test]
async fn a_running_server_gets_a_port_and_gives_it_back() {
    let (mut world, member, _, _) = ready("10.1.0.0/24").await;
    let admin = world.admin().await;
    let host = networked(&mut world, &admin).await;
    let request = CreateServer {
        networks: Some(vec![in_network()]),
        ..server("web", active_image(&world, &member).await)
    };
    let made = world.cloud.create_server(&member, request).await.unwrap();
    let mut engine = Engine::new(&world).await;
    assert_eq!(engine.carry(&made.task).await.state, TaskState::Done);
    let (id, first) = (made.server.id(), made.server.spec.ports[0]);
    let fake = world.hosts[&host].fake.clone();
    let second = world.cloud.create_port(&member, port()).await.unwrap().id();
    let attach = async |port: PortId, server: ServerId| {
        world
            .cloud
            .attach_port(&member, port, AttachPort { server })
            .await
    };

    let asked = attach(second, id).await.unwrap();
    assert_eq!(asked.port.spec.server, Some(id));
    assert_eq!(attach(first, id).await.unwrap_err().code(), "port.in_use");
    let third = world.cloud.create_port(&member, port()).await.unwrap().id();
    assert_eq!(attach(third, id).await.unwrap_err().code(), "server.busy");
    let error = world.cloud.delete_port(&member, second).await.unwrap_err();
    assert_eq!(error.code(), "port.in_use");

    // Rules that change meanwhile wait for it, so that the new port does not miss them.
    let group = asked.port.spec.security_groups[0];
    let icmp = AddRule {
        protocol: Some(Protocol::Icmp),
        ..rule(Direction::Ingress)
    };
    world.cloud.add_rule(&member, group, icmp).await.unwrap();
    assert_eq!(engine.carry(&asked.task).await.state, TaskState::Done);
    for rewire in under_way(&world, "port.rewire").await {
        assert_eq!(engine.carry(&rewire).await.state, TaskState::Done);
    }
    let told = fake.wiring(second).unwrap().unwrap();
    assert_eq!(told.rules.len(), fake.wiring(first).unwrap().unwrap().rules.len());

    let now = world.cloud.get_server(&member, id).await.unwrap().value;
    assert_eq!(now.spec.ports, [first, second]);
    assert_eq!(now.pending_restart(), [""; 0]);
    let domain = fake.domain(id).unwrap().unwrap();
    assert_eq!(domain.spec.nics.len(), 2);
    assert_eq!(domain.guest.unwrap().nics.len(), 2, "the guest has it, too");

    let asked = world.cloud.detach_port(&member, first).await.unwrap();
    assert_eq!(engine.carry(&asked.task).await.state, TaskState::Done);
    let now = world.cloud.get_server(&member, id).await.unwrap().value;
    assert_eq!(
        (now.spec.ports.clone(), now.pending_restart()),
        (vec![second], vec![])
    );
    let wired: Vec<PortId> = fake
        .network()
        .ports()
        .await
        .unwrap()
        .iter()
        .map(|p| p.port)
        .collect();
    assert_eq!(wired, [second]);
    let error = world.cloud.detach_port(&member, first).await.unwrap_err();
    assert_eq!(error.code(), "port.not_attached");
    // It was made with the server, and is one's own now.
    let left = world.cloud.get_port(&member, first).await.unwrap().value;
    assert!(!left.spec.goes_with_server && !left.status.bound);
    world.cloud.delete_port(&member, first).await.unwrap();
    assert_eq!(world.cloud.recount_quotas(&admin).await.unwrap(), []);
}

#[tokio::test]
async fn a_host_without_networks_is_not_asked() {
    let (mut world, member, _, _) = ready("10.1.0.0/24").await;
    let admin = world.admin().await;
    world.host(&admin, "h").await;
    let request = server("web", active_image(&world, &member).await);
    let made = world.cloud.create_server(&member, request).await.unwrap();
    let mut engine = Engine::new(&world).await;
    assert_eq!(engine.carry(&made.task).await.state, TaskState::Done);
    let port = world.cloud.create_port(&member, port()).await.unwrap().id();
    let request = AttachPort {
        server: made.server.id(),
    };
    let error = world.cloud.attach_port(&member, port, request).await.unwrap_err();
    assert_eq!(error.code(), "host.cannot");
    let error = world.cloud.detach_port(&member, port).await.unwrap_err();
    assert_eq!(error.code(), "port.not_attached");
}
