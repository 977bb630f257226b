//! Servers that go to another host: what an operator asks for.

use serde_json::json;
use skyloom_model::{Host, HostId, Resource as _, Scope, Server, ServerAction, ServerId, Volume};

use super::Cloud;
use super::server_actions::Ask;
use crate::flows::{LiveParams, MigrateParams, Sees, StopParams};
use crate::{Caller, CloudError, LiveMigrateServer, MigrateServer, Result, ServerTask, checks};

impl Cloud {
    /// Moves a server to another host, off meanwhile.
    ///
    /// # Errors
    /// As [`Cloud::simple_action`]; `host.not_found`, `server.disk_local`, `server.has_snapshots`, `timeout.invalid`.
    pub async fn migrate_server(
        &self,
        caller: &Caller,
        id: ServerId,
        request: MigrateServer,
    ) -> Result<ServerTask> {
        let params = MigrateParams {
            host: self.destination(caller, id, request.host.as_deref()).await?,
            stop: StopParams {
                force: request.force,
                timeout_seconds: checks::server::stop_timeout(request.timeout_seconds)?,
            },
        };
        let ask = Ask {
            action: ServerAction::Migrate,
            flow: None,
            params: json!(params),
            request: json!(request),
            want: |_| {},
        };
        self.ask(caller, id, ask).await
    }

    /// Moves a server to another host while it runs.
    ///
    /// # Errors
    /// As [`Cloud::simple_action`]; `host.not_found`, `server.disk_local`, `server.has_snapshots`.
    pub async fn live_migrate_server(
        &self,
        caller: &Caller,
        id: ServerId,
        request: LiveMigrateServer,
    ) -> Result<ServerTask> {
        let params = LiveParams {
            host: self.destination(caller, id, request.host.as_deref()).await?,
        };
        let ask = Ask {
            action: ServerAction::LiveMigrate,
            flow: None,
            params: json!(params),
            request: json!(request),
            want: |_| {},
        };
        self.ask(caller, id, ask).await
    }

    /// The host of that id or name, for who may move the server: hosts are not told of to others.
    pub(super) async fn destination(
        &self,
        caller: &Caller,
        id: ServerId,
        wanted: Option<&str>,
    ) -> Result<Option<HostId>> {
        let Some(wanted) = wanted else { return Ok(None) };
        self.own::<Server>(caller, ServerAction::Migrate.permission(), id.uuid())
            .await?;
        let host = self.by_id_or_name::<Host>(Scope::System, wanted).await?;
        Ok(Some(checks::found("host", "host", wanted, host)?.value.id()))
    }

    /// Refuses a server with disks that no other host sees.
    pub(super) async fn seen_elsewhere(&self, server: &Server) -> Result<()> {
        let Some(placement) = &server.status.placement else {
            return Ok(());
        };
        let mut volumes = Vec::new();
        for id in &server.status.volumes {
            let volume = self.resource::<Volume>(server.meta.scope, id.uuid()).await?;
            volumes.extend(volume.map(|found| found.value));
        }
        let host = self
            .resource::<Host>(Scope::System, placement.host.uuid())
            .await?;
        let facts = host.and_then(|host| host.value.status.facts);
        let sees = Sees::all(server, &volumes, facts.as_ref());
        sees.map(|_| ()).map_err(CloudError::conflict)
    }
}
