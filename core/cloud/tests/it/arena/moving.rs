//! Servers on their way to another host, to torture.

use std::collections::BTreeSet;

use skyloom_cloud::{EvacuateServer, FenceHost, LiveMigrateServer, MigrateServer};
use skyloom_flow::harness::Case;
use skyloom_model::{PowerState, Resource as _, Server, ServerId, Task, paths};

use super::CloudWorld;

impl CloudWorld {
    pub(super) async fn ask_to_move(&self, id: ServerId) -> Task {
        let (cloud, operator) = (&self.world.cloud, self.operator());
        let asked = match self.case.flow {
            "server.live-migrate" => {
                let request = LiveMigrateServer::default();
                cloud.live_migrate_server(&operator, id, request).await
            }
            "server.evacuate" => {
                let request = EvacuateServer::default();
                cloud.evacuate_server(&operator, id, request).await
            }
            _ => {
                let quick = MigrateServer {
                    timeout_seconds: Some(5),
                    ..MigrateServer::default()
                };
                cloud.migrate_server(&operator, id, quick).await
            }
        };
        asked.unwrap().task
    }

    /// The guest is gone with its host, which is fenced. What the host had of it stays there.
    pub(super) async fn prepare_fence(&mut self, id: ServerId) {
        if !fenced(&self.case) {
            return;
        }
        let server = self.servers().await.remove(&id).unwrap();
        let home = server.status.placement.as_ref().unwrap().host;
        self.world.hosts[&home].fake.crash_guest(id).unwrap();
        let at = paths::resource(Server::KIND, server.meta.scope, id.uuid());
        self.world
            .edit(&at, |server: &mut Server| {
                server.status.power = PowerState::Crashed
            })
            .await;
        self.world.lose(home).await;
        let request = FenceHost {
            why: "its cord is pulled".to_owned(),
            is_off: true,
        };
        self.world
            .cloud
            .fence_host(&self.admin, home, request)
            .await
            .unwrap();
        self.planted = Some((home, BTreeSet::from([id])));
    }
}

/// Whether the case is of a server whose host is off.
pub(super) fn fenced(case: &Case) -> bool {
    case.flow == "server.evacuate" || case.name == "on a fenced host"
}

/// A disk's name without the number of the order that it was made by, or the id of its volume.
pub(super) fn unnumbered(disk: &str) -> &str {
    if disk.starts_with("root-") {
        "another root"
    } else if disk.starts_with("vol-") {
        "a volume"
    } else {
        disk
    }
}
