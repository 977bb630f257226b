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
