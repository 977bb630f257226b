//! Starting, stopping, rebooting and deleting servers.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_model::{Activity, Lifecycle, Server, ServerAction, ServerId};

use super::Cloud;
use super::once::Change;
use super::records::precondition;
use crate::flows::StopParams;
use crate::{Caller, CloudError, Result, ServerTask, StopOptions, checks};

impl Cloud {
    /// Turns a server on.
    ///
    /// # Errors
    /// `server.not_found`, `server.busy`, `server.wrong_power_state`, …: those of [`ServerAction::allowed`];
    /// `precondition.failed`, `auth.forbidden`.
    pub async fn start_server(&self, caller: &Caller, id: ServerId) -> Result<ServerTask> {
        self.act(caller, id, ServerAction::Start, StopOptions::default())
            .await
    }

    /// Turns a server off.
    ///
    /// # Errors
    /// As [`Cloud::start_server`]; `timeout.invalid`.
    pub async fn stop_server(
        &self,
        caller: &Caller,
        id: ServerId,
        options: StopOptions,
    ) -> Result<ServerTask> {
        self.act(caller, id, ServerAction::Stop, options).await
    }

    /// Turns a server off and on again.
    ///
    /// # Errors
    /// As [`Cloud::stop_server`].
    pub async fn reboot_server(
        &self,
        caller: &Caller,
        id: ServerId,
        options: StopOptions,
    ) -> Result<ServerTask> {
        self.act(caller, id, ServerAction::Reboot, options).await
    }

    /// Removes a server with its disks and ports.
    ///
    /// # Errors
    /// As [`Cloud::start_server`]; `server.protected`.
    pub async fn delete_server(&self, caller: &Caller, id: ServerId) -> Result<ServerTask> {
        self.act(caller, id, ServerAction::Delete, StopOptions::default())
            .await
    }

    async fn act(
        &self,
        caller: &Caller,
        id: ServerId,
        action: ServerAction,
        options: StopOptions,
    ) -> Result<ServerTask> {
        let timeout_seconds = checks::server::stop_timeout(options.timeout_seconds)?;
        let stop = StopParams {
            force: options.force,
            timeout_seconds,
        };
        let done = self
            .once(caller, action.flow(), json!([id, options]), || {
                async move {
                    let found = self.own::<Server>(caller, permission(action), id.uuid()).await?;
                    precondition(caller, found.modified)?;
                    action
                        .allowed(&found.value.status)
                        .map_err(CloudError::conflict)?;
                    let params = match action {
                        ServerAction::Start | ServerAction::Delete => json!({}),
                        ServerAction::Stop | ServerAction::Reboot => json!(stop),
                    };
                    let task = self.task(caller, action.flow(), &found.value, params);
                    let mut server: Server = found.value.clone();
                    server.status.activity = Some(Activity {
                        task: task.id,
                        flow: task.flow.clone(),
                    });
                    match action {
                        ServerAction::Start | ServerAction::Reboot => server.spec.running = true,
                        ServerAction::Stop => server.spec.running = false,
                        ServerAction::Delete => server.status.lifecycle = Lifecycle::Deleting,
                    }
                    server.meta.updated_at = self.now();
                    let txn = found.replace(&server)?;
                    let answer = ServerTask {
                        server,
                        task: task.clone(),
                    };
                    Ok(Change::new(txn, answer)
                        .task(task)
                        .told(permission(action), &found.value.meta))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }
}

/// What an action takes.
const fn permission(action: ServerAction) -> &'static str {
    match action {
        ServerAction::Start => "server:start",
        ServerAction::Stop => "server:stop",
        ServerAction::Reboot => "server:reboot",
        ServerAction::Delete => "server:delete",
    }
}
