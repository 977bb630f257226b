//! Subnets: ranges of addresses of a network.
//!
//! A subnet that is deleted is closed first, in a commit of its own: whoever takes an address of it has read it open, so after
//! that commit nobody takes one, and what is found then is all there is.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_identity::Object;
use skyloom_model::{Meta, Network, Subnet, SubnetId, SubnetSpec, paths};
use skyloom_store::{ListOptions, Versioned};

use super::Cloud;
use super::networks::{check_new, check_texts};
use super::once::Change;
use super::records::{create_resource, precondition, prefix};
use super::volumes::conflict;
use crate::checks::addresses;
use crate::{Caller, CloudError, CreateSubnet, FieldError, ListQuery, Listed, Result, UpdateSubnet, amounts};

/// Most subnets of a network: a wiring has room for no more.
const MAX_SUBNETS: usize = 32;

impl Cloud {
    /// Makes a subnet of a network.
    ///
    /// # Errors
    /// `name.invalid`, `labels.invalid`, `cidr.invalid`, `gateway.invalid`, `pool.invalid`, `dns.invalid`, `network.not_found`,
    /// `subnet.too_many`, `subnet.overlaps`, `quota.exceeded`, `auth.forbidden`.
    pub async fn create_subnet(&self, caller: &Caller, request: CreateSubnet) -> Result<Subnet> {
        let place = caller.here()?;
        caller.may(
            "subnet:create",
            &Object::all("subnet", place).labelled(&request.labels),
        )?;
        let name = check_new(&request.name, &request.labels, "")?;
        let cidr = addresses::subnet(&request.cidr)?;
        addresses::fit(cidr, request.gateway, &request.pools, &request.dns)?;
        let (request, name) = (&request, &name);
        let done = self
            .once(caller, "subnets.create", json!(request), || {
                async move {
                    let found = self.network_of(caller, "network", &request.network).await?;
                    if found.value.spec.subnets.len() >= MAX_SUBNETS {
                        let message = format!("a network has at most {MAX_SUBNETS} subnets");
                        return Err(conflict("subnet.too_many", message, "make another network"));
                    }
                    for id in &found.value.spec.subnets {
                        let other = self.resource::<Subnet>(caller.scope(), id.uuid()).await?;
                        let Some(other) = other.map(|other| other.value) else {
                            continue;
                        };
                        if addresses::overlap(addresses::prefix_of(&other.spec), cidr) {
                            let message = format!("it has addresses of the subnet {}", other.meta.name);
                            let field = FieldError::new("cidr", "subnet.overlaps", message);
                            return Err(CloudError::field(field));
                        }
                    }
                    let mut meta = Meta::new(self.parts.ids.uuid(), name.clone(), caller.scope(), self.now());
                    meta.labels = request.labels.clone();
                    let mut network = found.value.clone();
                    network.spec.subnets.push(SubnetId::from_uuid(meta.id));
                    network.meta.generation += 1;
                    network.meta.updated_at = self.now();
                    let subnet = Subnet {
                        meta,
                        spec: SubnetSpec {
                            network: skyloom_model::NetworkId::from_uuid(network.meta.id),
                            base: cidr.base(),
                            prefix_len: cidr.bits(),
                            gateway: request.gateway,
                            pools: request.pools.clone(),
                            dns: request.dns.clone(),
                            dhcp: request.dhcp.unwrap_or(true),
                            closed: false,
                        },
                    };
                    let told = subnet.meta.clone();
                    let txn = create_resource(&subnet)?.and(found.replace(&network)?);
                    let change = Change::new(txn, subnet).charge(amounts::of_subnet());
                    Ok(change.told("subnet:create", &told))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// A page of the project's subnets.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`, `label.invalid`.
    pub async fn list_subnets(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Subnet>> {
        self.list_resources(caller, "subnet:read", &[caller.scope()], query)
            .await
    }

    /// One subnet.
    ///
    /// # Errors
    /// `subnet.not_found`.
    pub async fn get_subnet(&self, caller: &Caller, id: SubnetId) -> Result<Versioned<Subnet>> {
        self.own(caller, "subnet:read", id.uuid()).await
    }

    /// Changes name, pools, name servers and labels of a subnet; what is absent stays.
    ///
    /// # Errors
    /// `subnet.not_found`, `name.invalid`, `labels.invalid`, `pool.invalid`, `dns.invalid`, `precondition.failed`, `auth.forbidden`.
    pub async fn update_subnet(
        &self,
        caller: &Caller,
        id: SubnetId,
        request: UpdateSubnet,
    ) -> Result<Subnet> {
        let name = check_texts(request.name.as_deref(), request.labels.as_ref(), None)?;
        let (request, name) = (&request, &name);
        let done = self
            .once(caller, "subnets.update", json!([id, request]), || {
                async move {
                    let found = self.own::<Subnet>(caller, "subnet:update", id.uuid()).await?;
                    precondition(caller, found.modified)?;
                    let mut subnet = found.value.clone();
                    if let Some(name) = name {
                        subnet.meta.name = name.clone();
                    }
                    if let Some(labels) = &request.labels {
                        subnet.meta.labels = labels.clone();
                    }
                    if let Some(pools) = &request.pools {
                        subnet.spec.pools = pools.clone();
                    }
                    if let Some(dns) = &request.dns {
                        subnet.spec.dns = dns.clone();
                    }
                    let spec = &subnet.spec;
                    addresses::fit(addresses::prefix_of(spec), spec.gateway, &spec.pools, &spec.dns)?;
                    if subnet.spec != found.value.spec {
                        subnet.meta.generation += 1;
                    }
                    subnet.meta.updated_at = self.now();
                    let txn = found.replace(&subnet)?;
                    Ok(Change::new(txn, subnet).told("subnet:update", &found.value.meta))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// Removes a subnet of which nobody has an address.
    ///
    /// # Errors
    /// `subnet.not_found`, `subnet.in_use`, `precondition.failed`, `auth.forbidden`.
    pub async fn delete_subnet(&self, caller: &Caller, id: SubnetId) -> Result<()> {
        self.once(caller, "subnets.delete", json!(id), || {
            async move {
                let mut found = self.own::<Subnet>(caller, "subnet:delete", id.uuid()).await?;
                if !found.value.spec.closed {
                    precondition(caller, found.modified)?;
                    self.refuse_used(id).await?;
                    if !caller.dry_run {
                        self.close(&found, true).await?;
                        found = self.own::<Subnet>(caller, "subnet:delete", id.uuid()).await?;
                    }
                }
                if let Err(used) = self.refuse_used(id).await {
                    if found.value.spec.closed {
                        self.close(&found, false).await?;
                    }
                    return Err(used);
                }
                if !found.value.spec.closed && !caller.dry_run {
                    return Err(CloudError::contended());
                }
                let mut txn = found.delete();
                let of = found.value.spec.network;
                if let Some(network) = self.resource::<Network>(caller.scope(), of.uuid()).await? {
                    let mut changed = network.value.clone();
                    changed.spec.subnets.retain(|subnet| *subnet != id);
                    changed.meta.generation += 1;
                    changed.meta.updated_at = self.now();
                    txn = txn.and(network.replace(&changed)?);
                }
                let change = Change::new(txn, ()).give_back(amounts::of_subnet());
                Ok(change.told("subnet:delete", &found.value.meta))
            }
            .boxed()
        })
        .await?;
        Ok(())
    }

    /// Closes a subnet, or opens it again. Somebody faster is no error: what it is then is looked at.
    async fn close(&self, found: &Versioned<Subnet>, closed: bool) -> Result<()> {
        let mut subnet = found.value.clone();
        subnet.spec.closed = closed;
        let txn = found.replace(&subnet)?.guard(skyloom_flow::not_held()?);
        self.commit(txn).await?;
        self.refuse_held().await
    }

    /// `subnet.in_use` while anybody has an address of it.
    async fn refuse_used(&self, id: SubnetId) -> Result<()> {
        let below = prefix(&paths::addresses(id))?;
        let found = self
            .parts
            .backend
            .list(&below, ListOptions::default().with_limit(1))
            .await?;
        if found.items.is_empty() {
            return Ok(());
        }
        Err(conflict(
            "subnet.in_use",
            "ports have addresses of the subnet",
            "delete them first",
        ))
    }
}
