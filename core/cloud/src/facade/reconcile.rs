//! Wanted against seen, for the whole cloud: what does not fit becomes a task or an event, never a change by itself.
//!
//! | seen | task, once per finding |
//! | --- | --- |
//! | a claim on a host of a server that is gone or lives elsewhere | `claim.release` |
//! | a domain of a server that is gone or lives elsewhere | `host.sweep`, which only names what it finds |
//! | a server that is wanted off and runs, two looks in a row | `server.stop` |
//! | a server whose time in the recycle bin is over | `server.delete` |
//! | a server with disks that it is no longer made of, or an image that it is no longer shelved as | `server.tidy` |
//! | a shelved server whose host still has something of it | `server.offload` |
//! | a server whose rescue is to end by itself | `server.stop-rescue` |
//! | a server that crashed and is to be restarted | `server.start` |
//!
//! By the rules of the engine the first two do not happen; whoever edits the store by hand, restores an old backup or starts a
//! guest behind the cloud's back is answered here. One look reads everything in pages: minutes apart, not seconds. Any number
//! of processes may look; each finding has one key.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::json;
use skyloom_model::{
    Claim, Host, HostId, Lifecycle, PowerState, Project, ProjectId, Scope, Server, ServerId, VmObservation,
    paths,
};
use skyloom_store::{Document, ListOptions, Versioned};
use tokio_util::sync::CancellationToken;

use super::Cloud;
use super::records::prefix;
use crate::{Caller, CloudError, Result, StopOptions};

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(600);

/// Who asks for the tasks.
const WHO: &str = "reconciler";

/// What a look found and asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Claims of servers that do not live there.
    pub claims: usize,
    /// Domains of servers that do not live there.
    pub domains: usize,
    /// Servers that run and should not.
    pub running: usize,
    /// Servers whose time in the recycle bin is over.
    pub due: usize,
    /// Servers that have disks of which they are no longer made.
    pub spare: usize,
}

/// What was odd at the last look and becomes a finding when it still is.
#[derive(Debug, Default)]
pub struct Suspects(BTreeSet<(ServerId, u64)>);

/// Where a server lives.
struct Home {
    host: Option<HostId>,
    /// A task is moving it, or its host does not report: what is seen may be old.
    unsettled: bool,
}

impl Cloud {
    /// Looks at everything every ten minutes, and at what is due every few seconds, until `shutdown`.
    pub async fn keep_reconciled(&self, shutdown: CancellationToken) {
        tokio::join!(
            self.look_at_everything(shutdown.clone()),
            self.keep_time(shutdown)
        );
    }

    async fn look_at_everything(&self, shutdown: CancellationToken) {
        let mut suspects = Suspects::default();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            match self.reconcile(&mut suspects).await {
                Ok(found) if found == Reconciled::default() => tracing::debug!("nothing to reconcile"),
                Ok(found) => tracing::warn!(?found, "the world is not as recorded: tasks were asked for"),
                Err(error) => tracing::warn!(%error, "the world cannot be compared with the records now"),
            }
        }
    }

    /// Looks once, unless the fleet is held. What only a second look confirms is kept in `suspects`.
    ///
    /// # Errors
    /// Those of the store; what was found before stays asked for.
    pub async fn reconcile(&self, suspects: &mut Suspects) -> Result<Reconciled> {
        let mut found = Reconciled::default();
        if self.refuse_held().await.is_err() {
            suspects.0.clear();
            return Ok(found);
        }
        // Claims and domains first: a server that is made meanwhile is then known.
        let claims: Vec<Versioned<Claim>> = self.everything("claims").await?;
        let domains: Vec<Versioned<VmObservation>> = self.everything(paths::VMS).await?;
        let hosts: Vec<Versioned<Host>> = self
            .everything(&paths::scoped(
                <Host as skyloom_model::Resource>::KIND,
                Scope::System,
            ))
            .await?;
        let hosts: BTreeMap<HostId, Host> = hosts
            .into_iter()
            .map(|h| (skyloom_model::Resource::id(&h.value), h.value))
            .collect();
        let servers: Vec<Versioned<Server>> = self
            .everything(&paths::kind(<Server as skyloom_model::Resource>::KIND))
            .await?;
        let mut homes: BTreeMap<ServerId, Home> = BTreeMap::new();
        let before = std::mem::take(&mut suspects.0);
        for server in servers {
            let (meta, status) = (&server.value.meta, &server.value.status);
            let id = ServerId::from_uuid(meta.id);
            let unsettled = status.activity.is_some() || status.overlays.host_unreachable;
            let odd = !unsettled
                && status.lifecycle == Lifecycle::Active
                && status.power == PowerState::Running
                && !server.value.spec.running;
            if odd {
                suspects.0.insert((id, meta.generation));
                if before.contains(&(id, meta.generation))
                    && let Scope::Project(project) = meta.scope
                {
                    let key = format!("server.stop/{id}/{}", meta.generation);
                    self.stop_server(&self.asks(project, key).await?, id, StopOptions::default())
                        .await?;
                    found.running += 1;
                }
            }
            if self.see_to(&server.value).await? {
                found.due += 1;
            }
            if !unsettled && self.tidy_up(&server).await? {
                found.spare += 1;
            }
            let host = status.placement.as_ref().map(|p| p.host);
            // Of a migration that was abandoned nobody knows where it is.
            let unsettled = unsettled || status.migration.is_some();
            homes.insert(id, Home { host, unsettled });
        }
        let elsewhere = |server: ServerId, host: HostId| {
            homes
                .get(&server)
                .is_none_or(|home| !home.unsettled && home.host != Some(host))
        };
        for claim in claims {
            let Some(host) = host_of(&claim) else { continue };
            if let Some(record) = hosts.get(&host).filter(|_| elsewhere(claim.value.server, host)) {
                let key = format!("claim.release/{host}/{}/{}", claim.value.server, claim.created);
                let params = json!({ "servers": [claim.value.server] });
                let task = self.own_task(WHO, "claim.release", record, params);
                self.submit_once(&key, task).await?;
                found.claims += 1;
            }
        }
        for domain in domains {
            let Some(host) = host_of(&domain) else { continue };
            if let Some(record) = hosts.get(&host).filter(|_| elsewhere(domain.value.server, host)) {
                let key = format!(
                    "host.sweep/{host}/{}/{}",
                    domain.value.server, domain.value.generation
                );
                let task = self.own_task(WHO, "host.sweep", record, json!({ "remove": false }));
                self.submit_once(&key, task).await?;
                found.domains += 1;
            }
        }
        Ok(found)
    }

    /// The cloud itself, asking on behalf of a project, once for each key.
    pub(super) async fn asks(&self, id: ProjectId, key: String) -> Result<Caller> {
        let project = self.resource::<Project>(Scope::System, id.uuid()).await?;
        let project = project.ok_or_else(|| CloudError::not_found("project"))?;
        Ok(Caller {
            request_id: format!("{WHO}-{key}"),
            idempotency_key: Some(key),
            lineage: self.lineage(&project.value).await?,
            ..Caller::internal(WHO, self.own_rights()?, id)
        })
    }

    /// All documents below a path, in pages. What cannot be decoded is left out.
    pub(super) async fn everything<T: Document + DeserializeOwned>(
        &self,
        below: &str,
    ) -> Result<Vec<Versioned<T>>> {
        let below = prefix(below)?;
        let mut all = Vec::new();
        let mut options = ListOptions::default();
        loop {
            let page = self.parts.backend.list(&below, options).await?;
            all.extend(page.items.iter().filter_map(|kv| Versioned::decode(kv).ok()));
            match page.items.last().filter(|_| page.more) {
                Some(last) => options = ListOptions::default().with_after(last.key.clone()),
                None => return Ok(all),
            }
        }
    }
}

/// `claims/{host}/{server}` and `vms/{host}/{server}` both name the host.
fn host_of<T>(found: &Versioned<T>) -> Option<HostId> {
    found.key.segments().nth(1)?.parse().ok()
}
