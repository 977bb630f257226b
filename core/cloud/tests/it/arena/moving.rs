//! Servers on their way to another host, to torture.

use skyloom_cloud::{LiveMigrateServer, MigrateServer};
use skyloom_model::{ServerId, Task};

use super::CloudWorld;

impl CloudWorld {
    pub(super) async fn ask_to_move(&self, id: ServerId) -> Task {
        let (cloud, operator) = (&self.world.cloud, self.operator());
        let asked = match self.case.flow {
            "server.live-migrate" => {
                let request = LiveMigrateServer::default();
                cloud.live_migrate_server(&operator, id, request).await
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
