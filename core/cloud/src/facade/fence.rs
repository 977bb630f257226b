//! Hosts that are off for good or for long: an operator says so, and what lived there comes back to life elsewhere.
//!
//! ```text
//! fence ──> `spec.fenced`: nothing is placed there ──> evacuate: a task for each server, which asks that host for nothing
//! unfence ──> the mark is gone, the host is disabled; a sweep removes what is left there of servers that live elsewhere ──> enable
//! ```
//!
//! Nobody but the operator can know that a host is off: one that still reports is not taken for one, and QEMU's and the folder's locks
//! refuse a second guest over the same disks where they can.

use futures::FutureExt as _;
use serde_json::{Value as Json, json};
use skyloom_model::{
    Claim, Host, HostFenced, HostId, Project, Reason, Resource as _, Scope, Server, ServerAction, ServerId,
    paths,
};
use skyloom_store::Versioned;

use super::Cloud;
use super::once::Change;
use super::records::precondition;
use super::server_actions::Ask;
use super::server_batch::{answer, nothing, one_of, refused};
use crate::flows::{EvacuateParams, not_fenced};
use crate::{
    BatchAnswer, BatchItem, Caller, CloudError, EvacuateServer, FenceHost, FieldError, Result, ServerTask,
    TaskAccepted, checks,
};

impl Cloud {
    /// Notes that a host is off, as its operator has made sure of: nothing is placed there, and its servers may be evacuated or purged
    /// without it. A drain of it ends: it can be asked for nothing.
    ///
    /// # Errors
    /// `host.not_found`, `why.invalid`, `fence.not_confirmed`, `host.reports` when its agent still does, `precondition.failed`,
    /// `auth.forbidden`.
    pub async fn fence_host(&self, caller: &Caller, id: HostId, request: FenceHost) -> Result<Host> {
        let why = &checks::host::why(&request.why, 1)?;
        if !request.is_off {
            let message = "make sure that the host is off and stays off, and say so: two guests over one disk destroy it";
            let error = FieldError::new("is_off", "fence.not_confirmed", message);
            return Err(CloudError::field(error));
        }
        let request = &request;
        let done = self
            .once(caller, "hosts.fence", json!([id, request]), || {
                async move {
                    let found = self
                        .allowed::<Host>(caller, "host:fence", Scope::System, id.uuid())
                        .await?;
                    precondition(caller, found.modified)?;
                    let mut host = found.value.clone();
                    if host.status.reachable {
                        let reason = Reason::new("host.reports", "its agent reports: it is not off")
                            .hint("turn it off, or `skyloom host drain` it");
                        return Err(CloudError::conflict(reason));
                    }
                    host.spec.fenced = Some(HostFenced {
                        why: why.clone(),
                        by: caller.actor.name.clone(),
                        since: self.now(),
                    });
                    host.meta.generation += 1;
                    host.meta.updated_at = self.now();
                    let txn = found.replace(&host)?.and(self.no_drain(id).await?);
                    Ok(Change::new(txn, host).told("host:fence", &found.value.meta))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// Takes a host back that was fenced: disabled, and swept of what lives elsewhere by now as soon as its agent reports.
    ///
    /// # Errors
    /// `host.not_found`, `host.not_fenced`, `precondition.failed`, `auth.forbidden`.
    pub async fn unfence_host(&self, caller: &Caller, id: HostId) -> Result<TaskAccepted> {
        let done = self
            .once(caller, "hosts.unfence", json!([id]), || {
                async move {
                    let found = self
                        .allowed::<Host>(caller, "host:fence", Scope::System, id.uuid())
                        .await?;
                    precondition(caller, found.modified)?;
                    let mut host = found.value.clone();
                    if host.spec.fenced.take().is_none() {
                        let reason = Reason::new("host.not_fenced", "it is not fenced");
                        return Err(CloudError::conflict(reason));
                    }
                    host.spec.enabled = false;
                    host.meta.generation += 1;
                    host.meta.updated_at = self.now();
                    let task = self.task(caller, "host.sweep", &host, json!({ "remove": true }));
                    let answer = TaskAccepted { task: task.clone() };
                    Ok(Change::new(found.replace(&host)?, answer)
                        .task(task)
                        .told("host:unfence", &found.value.meta))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// Brings a server back to life on another host, because its own is fenced.
    ///
    /// # Errors
    /// As [`Cloud::simple_action`]; `host.not_fenced`, `host.not_found`, `server.disk_local`, `server.has_snapshots`.
    pub async fn evacuate_server(
        &self,
        caller: &Caller,
        id: ServerId,
        request: EvacuateServer,
    ) -> Result<ServerTask> {
        let params = EvacuateParams {
            host: self.destination(caller, id, request.host.as_deref()).await?,
        };
        let ask = Ask {
            action: ServerAction::Evacuate,
            flow: None,
            params: json!(params),
            request: json!(request),
            want: |_| {},
        };
        self.ask(caller, id, ask).await
    }

    /// Asks for the evacuation of each server on a fenced host. What is refused for one does not keep it from the others.
    ///
    /// # Errors
    /// `host.not_found`, `host.not_fenced`, `auth.forbidden`. What goes wrong with single servers stands in the answer.
    pub async fn evacuate_host(&self, caller: &Caller, id: HostId) -> Result<BatchAnswer> {
        let host = self
            .allowed::<Host>(caller, "host:fence", Scope::System, id.uuid())
            .await?;
        if host.value.spec.fenced.is_none() {
            let reason = Reason::new("host.not_fenced", "it is not fenced: its guests may run")
                .hint("make sure that it is off, then `skyloom host fence` it");
            return Err(CloudError::conflict(reason));
        }
        let claims: Vec<Versioned<Claim>> = self.everything(&paths::claims(id)).await?;
        let mut items = Vec::with_capacity(claims.len());
        for claim in claims {
            let (server, Some(Scope::Project(project))) = (claim.value.server, claim.value.scope) else {
                continue;
            };
            let Some(project) = self.resource::<Project>(Scope::System, project.uuid()).await? else {
                continue;
            };
            let there = Caller {
                project: project.value.id(),
                lineage: self.lineage(&project.value).await?,
                ..one_of(caller, &server.to_string())
            };
            let asked = self
                .act_on_server(&there, server, ServerAction::Evacuate, Json::Null)
                .await;
            let item = nothing(Some(server));
            items.push(match asked {
                Ok(done) => BatchItem {
                    name: Some(done.server.meta.name.to_string()),
                    server: Some(done.server),
                    task: done.task,
                    ..item
                },
                Err(error) => refused(item, &error),
            });
        }
        Ok(answer(items))
    }

    /// Refuses what is only done on a fenced host.
    pub(super) async fn home_fenced(&self, server: &Server) -> Result<()> {
        let Some(placement) = &server.status.placement else {
            return Ok(());
        };
        let host = self
            .resource::<Host>(Scope::System, placement.host.uuid())
            .await?;
        if host.is_some_and(|host| host.value.spec.fenced.is_some()) {
            return Ok(());
        }
        Err(CloudError::conflict(not_fenced(server)))
    }
}
