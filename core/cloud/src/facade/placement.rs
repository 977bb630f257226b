//! Why a server is where it is.

use skyloom_model::{Plan, Server, ServerId, Task, paths};
use skyloom_store::ListOptions;
use uuid::Uuid;

use super::Cloud;
use super::records::{key, prefix};
use super::tasks::rendered;
use crate::{Caller, PlacementAnswer, Result};

/// Tasks that are looked at.
const MAX_SCAN: usize = 1000;

/// Whether a flow makes servers.
pub(crate) fn makes(flow: &str) -> bool {
    matches!(flow, "server.create" | "server.clone")
}

impl Cloud {
    /// Why the server's host was chosen, or why none was.
    ///
    /// # Errors
    /// `server.not_found`.
    pub async fn server_placement(&self, caller: &Caller, id: ServerId) -> Result<PlacementAnswer> {
        let server = self
            .own::<Server>(caller, "server:placement", id.uuid())
            .await?
            .value;
        // Who chose the host where it lives; of one that lives nowhere, who would have.
        let chosen = server.status.placement.as_ref().and_then(|placed| placed.by);
        let task = match chosen {
            Some(task) => Some(task),
            None => self.creation_of(&server).await?.map(|task| task.id),
        };
        let Some(task) = task else {
            return Ok(PlacementAnswer {
                task: None,
                placement: None,
            });
        };
        let plan = match self.read::<Plan>(&paths::plan(task)).await? {
            Some(plan) => Some(plan.value),
            None => self.archive.find(task).await?.and_then(|(_, found)| found.plan),
        };
        let placement = rendered(caller, plan.and_then(|p| p.placement));
        Ok(PlacementAnswer {
            task: Some(task),
            placement,
        })
    }

    /// The task that made a server. Ids are ordered by time and the task's is made right after the server's record, so it
    /// is among the first tasks from that moment on. (The server's own id may be older: a shown plan's.)
    async fn creation_of(&self, server: &Server) -> Result<Option<Task>> {
        let below = paths::tasks(server.meta.scope);
        let moment = u128::try_from(server.meta.created_at.as_millisecond()).unwrap_or_default();
        let behind = key(&format!("{below}/{}", Uuid::from_u128(moment << 80)))?;
        let options = ListOptions::default().with_after(behind).with_limit(MAX_SCAN);
        let page = self.parts.backend.list(&prefix(&below)?, options).await?;
        let tasks = page.items.iter().filter_map(|kv| kv.value.parse::<Task>().ok());
        let mut made = tasks.filter(|t| t.subject.id == server.meta.id && makes(&t.flow));
        match made.next() {
            Some(task) => Ok(Some(task)),
            None => self.archive.creation_of(server).await,
        }
    }
}
