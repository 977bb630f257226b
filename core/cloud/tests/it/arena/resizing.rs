//! Servers of another size, to torture.

use skyloom_cloud::{CreateFlavor, ResizeServer, StopOptions};
use skyloom_model::{ServerAction, ServerId, Task, TaskState};

use super::CloudWorld;
use crate::engine::Engine;

impl CloudWorld {
    /// What the case needs of a resize: a flavor, and a server that waits to be confirmed.
    pub(super) async fn prepare_resize(&self, id: ServerId) {
        if !matches!(
            self.case.flow,
            "server.resize" | "server.confirm-resize" | "server.revert-resize"
        ) {
            return;
        }
        let larger = CreateFlavor {
            name: "m1.other".to_owned(),
            vcpus: 2,
            memory_mib: 256,
            disk_gib: 7,
            host_labels: Default::default(),
        };
        self.world.cloud.create_flavor(&self.admin, larger).await.unwrap();
        if self.case.flow != "server.resize" {
            let asked = self.resize(id).await;
            let ended = Engine::new(&self.world).await.carry(&asked).await;
            assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
        }
    }

    async fn resize(&self, id: ServerId) -> Task {
        let quick = ResizeServer {
            flavor: "m1.other".to_owned(),
            timeout_seconds: Some(5),
            ..ResizeServer::default()
        };
        let asked = self.world.cloud.resize_server(&self.caller, id, quick).await;
        asked.unwrap().task
    }

    pub(super) async fn ask_of_resize(&self, id: ServerId) -> Task {
        let cloud = &self.world.cloud;
        match self.case.flow {
            "server.resize" => self.resize(id).await,
            "server.confirm-resize" => {
                let action = ServerAction::ConfirmResize;
                cloud.simple_action(&self.caller, id, action).await.unwrap().task
            }
            _ => {
                let quick = StopOptions {
                    force: false,
                    timeout_seconds: Some(5),
                };
                cloud.revert_resize(&self.caller, id, quick).await.unwrap().task
            }
        }
    }
}
