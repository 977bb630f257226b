//! Cases of ports that come and go, and what must be true of ports when nothing is under way.

use std::collections::{BTreeMap, BTreeSet};

use skyloom_cloud::AttachPort;
use skyloom_hypervisor::{FakeDomain, HostNetwork as _};
use skyloom_model::{Port, PortId, Resource as _, Server, ServerId, Task, TaskState};

use super::CloudWorld;
use crate::engine::Engine;
use crate::networks::{network, port, subnet};

impl CloudWorld {
    /// A network, with nothing in it.
    pub(super) async fn prepare_network(&self) {
        let cloud = &self.world.cloud;
        cloud
            .create_network(&self.caller, network("backend"))
            .await
            .unwrap();
        cloud
            .create_subnet(&self.caller, subnet("10.1.0.0/24"))
            .await
            .unwrap();
    }

    /// A port of its own, which the server has where it is to go.
    pub(super) async fn prepare_ports(&mut self, server: ServerId) {
        if !self.case.flow.ends_with("tach-port") {
            return;
        }
        let made = self.world.cloud.create_port(&self.caller, port()).await.unwrap();
        self.port = Some(made.id());
        if self.case.flow == "server.detach-port" {
            let asked = self.attach_port(made.id(), server).await;
            let ended = Engine::new(&self.world).await.carry(&asked).await;
            assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
        }
    }

    async fn attach_port(&self, port: PortId, server: ServerId) -> Task {
        let request = AttachPort { server };
        let asked = self.world.cloud.attach_port(&self.caller, port, request).await;
        asked.unwrap().task
    }

    pub(super) async fn ask_of_ports(&self, server: ServerId) -> Task {
        let port = self.port.unwrap();
        if self.case.flow == "server.attach-port" {
            return self.attach_port(port, server).await;
        }
        let asked = self.world.cloud.detach_port(&self.caller, port).await;
        asked.unwrap().task
    }

    /// What is plugged in, for a comparison of before and after.
    pub(super) fn tell_ports(&self, things: &mut BTreeMap<String, Vec<String>>) {
        for (_, fake) in self.hosts() {
            for domain in fake.domains().unwrap() {
                let what = format!("{} with {} NICs", domain.spec.name, domain.spec.nics.len());
                things.entry("nics".to_owned()).or_default().push(what);
            }
            let wired = futures::executor::block_on(fake.network().ports()).unwrap();
            things
                .entry("wired".to_owned())
                .or_default()
                .push(wired.len().to_string());
        }
    }

    /// A port is of at most one server, and both say so; its NIC is in that one's domain.
    pub(super) async fn check_ports(&self, servers: &BTreeMap<ServerId, Server>, left: &mut Vec<String>) {
        for port in self.all::<Port>("r/ports").await.into_values() {
            let has = |server: &&Server| server.spec.ports.contains(&port.id());
            let holders: Vec<ServerId> = servers.values().filter(has).map(|s| s.id()).collect();
            let said: Vec<ServerId> = port.spec.server.into_iter().collect();
            let name = &port.meta.name;
            if holders != said {
                left.push(format!("port {name} is of {said:?}, and {holders:?} have it"));
            }
            let all = self.hosts().flat_map(|(_, fake)| fake.domains().unwrap());
            let domains: Vec<_> = all.collect();
            let plugged = |domain: &&FakeDomain| domain.spec.nics.iter().any(|nic| nic.mac == port.spec.mac);
            let with: BTreeSet<ServerId> = domains.iter().filter(plugged).map(|d| d.spec.id).collect();
            let of_those = |domain: &&FakeDomain| said.contains(&domain.spec.id);
            let wanted: BTreeSet<ServerId> = domains.iter().filter(of_those).map(|d| d.spec.id).collect();
            if with != wanted {
                left.push(format!(
                    "port {name} is in domains of {with:?}, not of {wanted:?}"
                ));
            }
        }
    }
}
