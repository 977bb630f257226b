//! Hosts: machines that run servers.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_identity::{Holder, paths as identity_paths};
use skyloom_model::{
    Claim, Host, HostClosed, HostId, HostLedger, HostSpec, HostStatus, Meta, Name, Reason, Resource as _,
    Scope, paths,
};
use skyloom_store::{Guard, ListOptions, Txn, Versioned};

use super::Cloud;
use super::once::Change;
use super::records::{create, create_resource, key, precondition, prefix};
use crate::{
    Caller, CloudError, CreateHost, FieldError, HostAccepted, ListQuery, Listed, PatchHost, Result, checks,
};

impl Cloud {
    /// Registers a host and makes its agent's token.
    ///
    /// # Errors
    /// `host.name_taken`, `host.ratio_invalid`, `name.invalid`, `labels.invalid`, `auth.forbidden`.
    pub async fn create_host(&self, caller: &Caller, request: CreateHost) -> Result<HostAccepted> {
        caller.may_in_cloud("host:create")?;
        let mut errors = checks::host::ratios(request.cpu_ratio, request.memory_ratio, request.disk_ratio);
        errors.extend(checks::text::labels("labels", &request.labels));
        let name = checks::text::name("name", &request.name)
            .map_err(|e| errors.push(e))
            .ok();
        if let Some(error) = CloudError::fields(errors) {
            return Err(error);
        }
        let name = name.ok_or_else(|| CloudError::internal("a name without an error"))?;
        let default = HostSpec::default();
        let mut meta = Meta::new(self.parts.ids.uuid(), name.clone(), Scope::System, self.now());
        meta.labels = request.labels.clone();
        let host = Host {
            meta,
            spec: HostSpec {
                enabled: request.enabled.unwrap_or(default.enabled),
                cpu_ratio: request.cpu_ratio.unwrap_or(default.cpu_ratio),
                memory_ratio: request.memory_ratio.unwrap_or(default.memory_ratio),
                disk_ratio: request.disk_ratio.unwrap_or(default.disk_ratio),
                reserved: request.reserved.unwrap_or_default(),
                limit: request.limit,
                fenced: None,
                closed: None,
            },
            status: HostStatus::default(),
        };
        let id = host.id();
        let token_name = Name::new(format!("agent-{id}")).map_err(|e| CloudError::internal(e.to_string()))?;
        let token = self.new_token(&token_name, Holder::Agent { host: id }, None)?;
        // Its ledger is there from the start: removing the host and placing a server on it then meet in one record.
        let part = create_resource(&host)?
            .and(create(&paths::ledger(id), &HostLedger::default())?)
            .and(token.part);
        let done = self
            .once(caller, "hosts.create", json!(request), || {
                let (host, part) = (host.clone(), part.clone());
                async move {
                    let claim = self
                        .claim_name::<Host>("host", Scope::System, &host.meta.name, host.meta.id)
                        .await?;
                    let told = host.meta.clone();
                    let change = Change::new(part.and(claim), HostAccepted { host, token: None });
                    Ok(change.told("host:create", &told))
                }
                .boxed()
            })
            .await?;
        if done.fresh {
            self.wait_for_identity(&identity_paths::token(token.token.id), true)
                .await;
        }
        Ok(HostAccepted {
            token: done.fresh.then_some(token.secret),
            ..done.answer
        })
    }

    /// A page of all hosts.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`, `label.invalid`, `auth.forbidden`.
    pub async fn list_hosts(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Host>> {
        self.list_resources(caller, "host:read", &[Scope::System], query)
            .await
    }

    /// One host.
    ///
    /// # Errors
    /// `host.not_found`, `auth.forbidden`.
    pub async fn get_host(&self, caller: &Caller, id: HostId) -> Result<Versioned<Host>> {
        self.allowed(caller, "host:read", Scope::System, id.uuid()).await
    }

    /// Changes what the operator wants of a host. Servers that run there stay.
    ///
    /// # Errors
    /// `host.not_found`, `host.ratio_invalid`, `labels.invalid`, `why.invalid`, `precondition.failed`, `auth.forbidden`.
    pub async fn patch_host(&self, caller: &Caller, id: HostId, request: PatchHost) -> Result<Host> {
        let mut errors = checks::host::ratios(request.cpu_ratio, request.memory_ratio, request.disk_ratio);
        errors.extend(
            request
                .labels
                .iter()
                .flat_map(|l| checks::text::labels("labels", l)),
        );
        if let Some(error) = CloudError::fields(errors) {
            return Err(error);
        }
        let why = checks::host::why(request.why.as_deref().unwrap_or_default(), 0)?;
        if request.why.is_some() && request.enabled != Some(false) {
            let message = "it says why a host is disabled: with enabled false";
            return Err(CloudError::field(FieldError::new("why", "why.invalid", message)));
        }
        let (request, why) = (&request, &why);
        let done = self
            .once(caller, "hosts.patch", json!([id, request]), || {
                let request = request.clone();
                async move {
                    let found = self
                        .allowed::<Host>(caller, "host:update", Scope::System, id.uuid())
                        .await?;
                    precondition(caller, found.modified)?;
                    let mut host = found.value.clone();
                    let spec = &mut host.spec;
                    if let Some(enabled) = request.enabled {
                        spec.enabled = enabled;
                        spec.closed = (!enabled).then(|| HostClosed {
                            why: why.clone(),
                            by: caller.actor.name.clone(),
                            since: self.now(),
                            drain: false,
                        });
                    }
                    spec.cpu_ratio = request.cpu_ratio.unwrap_or(spec.cpu_ratio);
                    spec.memory_ratio = request.memory_ratio.unwrap_or(spec.memory_ratio);
                    spec.disk_ratio = request.disk_ratio.unwrap_or(spec.disk_ratio);
                    spec.reserved = request.reserved.unwrap_or(spec.reserved);
                    if let Some(labels) = request.labels {
                        host.meta.labels = labels;
                    }
                    host.meta.generation += 1;
                    host.meta.updated_at = self.now();
                    let mut txn = found.replace(&host)?;
                    if request.enabled.is_some() {
                        txn = txn.and(self.no_drain(id).await?);
                    }
                    Ok(Change::new(txn, host).told("host:update", &found.value.meta))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// Removes a host that holds no server, with its agent's tokens, its certificates and its reports.
    ///
    /// # Errors
    /// `host.not_found`, `host.not_empty`, `precondition.failed`, `auth.forbidden`.
    pub async fn delete_host(&self, caller: &Caller, id: HostId) -> Result<()> {
        self.once(caller, "hosts.delete", json!(id), || {
            async move {
                let host = self
                    .allowed::<Host>(caller, "host:delete", Scope::System, id.uuid())
                    .await?;
                precondition(caller, host.modified)?;
                let mut txn = self.remove_named(&host).await?.and(self.empty_ledger(id).await?);
                txn = txn.and(self.no_drain(id).await?);
                let tokens = self.tokens_of_host(id).await?;
                for token in tokens.iter().take(32) {
                    txn = txn.and(token.delete());
                }
                let ended = self.end_certificates(id, "the host was removed").await?;
                let txn = txn
                    .and(ended)
                    .delete(key(&paths::agent_status(id))?)
                    .delete(key(&paths::guests(id))?);
                Ok(Change::new(txn, ()).told("host:delete", &host.value.meta))
            }
            .boxed()
        })
        .await?;
        self.wait_for_directory(|now| now.tokens_of_host(id).next().is_none())
            .await;
        Ok(())
    }

    /// The part of a commit that removes a host's ledger, if nothing is claimed there.
    async fn empty_ledger(&self, id: HostId) -> Result<Txn> {
        let ledger = self.read::<HostLedger>(&paths::ledger(id)).await?;
        let page = self
            .parts
            .backend
            .list(&prefix(&paths::claims(id))?, ListOptions::default().with_limit(5))
            .await?;
        let claimed = ledger.as_ref().is_some_and(|l| l.value.servers > 0);
        if claimed || !page.items.is_empty() {
            let servers: Vec<String> = page
                .items
                .iter()
                .filter_map(|kv| kv.value.parse::<Claim>().ok())
                .map(|c| c.server.to_string())
                .collect();
            let message = format!(
                "it holds servers: {}{}",
                servers.join(", "),
                if page.more { ", …" } else { "" }
            );
            let reason = Reason::new("host.not_empty", message).hint("drain it, or delete its servers");
            return Err(CloudError::conflict(reason));
        }
        if let Some(gib) = ledger.as_ref().map(|l| l.value.volume_gib).filter(|gib| *gib > 0) {
            let message = format!("it holds volumes of {gib} GiB");
            let reason = Reason::new("host.not_empty", message).hint("delete its volumes first");
            return Err(CloudError::conflict(reason));
        }
        Ok(match ledger {
            Some(ledger) => ledger.delete(),
            None => Txn::new().guard(Guard::Absent(key(&paths::ledger(id))?)),
        })
    }
}
