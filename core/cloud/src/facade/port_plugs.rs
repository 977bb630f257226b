//! Ports that come to a server that is there, and go.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_model::{Port, PortId, Resource as _, Server};
use skyloom_store::Versioned;

use super::Cloud;
use super::once::Change;
use super::records::precondition;
use super::volumes::{activity, conflict, ready_server};
use crate::checks::networks::MAX_NICS;
use crate::flows::{NETWORKS, PlugParams};
use crate::{AttachPort, Caller, PortTask, Result};

impl Cloud {
    /// Gives a port to a server, running or not, as its last NIC.
    ///
    /// # Errors
    /// `port.not_found`, `port.in_use`, `server.not_found`, `server.busy`, `server.wrong_lifecycle`, `server.wrong_power_state`,
    /// `server.locked`, `server.rescued`, `server.too_many_ports`, `host.cannot`, `precondition.failed`, `auth.forbidden`.
    pub async fn attach_port(&self, caller: &Caller, id: PortId, request: AttachPort) -> Result<PortTask> {
        let done = self
            .once(caller, "ports.attach", json!([id, request]), || {
                async move {
                    let found = self.own::<Port>(caller, "port:attach", id.uuid()).await?;
                    precondition(caller, found.modified)?;
                    if found.value.spec.server.is_some() {
                        let message = "a server has the port";
                        return Err(conflict("port.in_use", message, "detach it first"));
                    }
                    let server = self
                        .own::<Server>(caller, "server:read", request.server.uuid())
                        .await?;
                    ready_server(caller, &server.value)?;
                    if server.value.spec.ports.len() >= MAX_NICS {
                        let message = format!("a server has at most {MAX_NICS} ports");
                        return Err(conflict("server.too_many_ports", message, "detach another one"));
                    }
                    if found.value.spec.network.is_some() {
                        self.able(&server.value, NETWORKS).await?;
                    }
                    let mut port = found.value.clone();
                    port.spec.server = Some(request.server);
                    self.plug(caller, "server.attach-port", "port:attach", (found, port), server)
                        .await
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// Takes a port from its server, running or not. It stays, with its addresses, also when it was made with the server.
    ///
    /// # Errors
    /// As [`Cloud::attach_port`]; `port.not_attached`.
    pub async fn detach_port(&self, caller: &Caller, id: PortId) -> Result<PortTask> {
        let done = self
            .once(caller, "ports.detach", json!(id), || {
                async move {
                    let found = self.own::<Port>(caller, "port:detach", id.uuid()).await?;
                    precondition(caller, found.modified)?;
                    let Some(of) = found.value.spec.server else {
                        let message = "no server has the port";
                        return Err(conflict("port.not_attached", message, "look at the port"));
                    };
                    let server = self.own::<Server>(caller, "server:read", of.uuid()).await?;
                    ready_server(caller, &server.value)?;
                    let port = found.value.clone();
                    self.plug(caller, "server.detach-port", "port:detach", (found, port), server)
                        .await
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// The commit of both: the port as it will be, the server busy with a task.
    async fn plug(
        &self,
        caller: &Caller,
        flow: &'static str,
        permission: &'static str,
        (found, mut port): (Versioned<Port>, Port),
        server: Versioned<Server>,
    ) -> Result<Change<PortTask>> {
        if server.value.status.power.may_execute() {
            self.able(&server.value, "hotplug").await?;
        }
        let params = PlugParams { port: port.id() };
        let task = self.task(caller, flow, &server.value, json!(params));
        port.meta.updated_at = self.now();
        let mut busy = server.value.clone();
        busy.status.activity = activity(&task);
        busy.meta.updated_at = self.now();
        let txn = found.replace(&port)?.and(server.replace(&busy)?);
        let answer = PortTask {
            port,
            task: task.clone(),
        };
        Ok(Change::new(txn, answer)
            .task(task)
            .told(permission, &found.value.meta))
    }
}
