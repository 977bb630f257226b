//! Servers that are put away as images, to torture.

use skyloom_cloud::{CreateServer, StopOptions};
use skyloom_model::{ServerAction, ServerId, Task, TaskState};

use super::CloudWorld;
use crate::engine::Engine;

impl CloudWorld {
    /// Puts the server away as far as the case needs it: shelved, off its host, made again.
    pub(super) async fn prepare_shelf(&self, id: ServerId) {
        let (flow, name) = (self.case.flow, self.case.name);
        let unshelved = name == "of one that was unshelved";
        let away = unshelved || name.contains("put away");
        if !away && flow != "server.offload" {
            return;
        }
        self.to_the_end(self.shelve(id).await).await;
        if away {
            self.to_the_end(self.simply(id, ServerAction::Offload).await)
                .await;
        }
        if unshelved {
            self.to_the_end(self.simply(id, ServerAction::Unshelve).await)
                .await;
        }
    }

    pub(super) async fn ask_of_shelves(&self, id: ServerId) -> Task {
        match self.case.flow {
            "server.shelve" => self.shelve(id).await,
            "server.clone" => self.clone_of(id).await,
            "server.offload" => self.simply(id, ServerAction::Offload).await,
            _ => self.simply(id, ServerAction::Unshelve).await,
        }
    }

    async fn shelve(&self, id: ServerId) -> Task {
        let quick = StopOptions {
            force: false,
            timeout_seconds: Some(5),
        };
        let asked = self.world.cloud.shelve_server(&self.caller, id, quick).await;
        asked.unwrap().task
    }

    async fn clone_of(&self, id: ServerId) -> Task {
        let request = CreateServer {
            name: Some("new".to_owned()),
            clone_of: Some(id),
            ..CreateServer::default()
        };
        let asked = self.world.cloud.create_server(&self.caller, request).await;
        asked.unwrap().task
    }

    async fn simply(&self, id: ServerId, action: ServerAction) -> Task {
        let asked = self.world.cloud.simple_action(&self.caller, id, action).await;
        asked.unwrap().task
    }

    async fn to_the_end(&self, task: Task) {
        let ended = Engine::new(&self.world).await.carry(&task).await;
        assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    }
}
