//! Networks: Ethernet segments of a project.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_identity::Object;
use skyloom_model::{Meta, Name, Network, NetworkId, NetworkSpec, Resource, Scope};
use skyloom_store::{Txn, Versioned};

use super::Cloud;
use super::once::Change;
use super::records::{create_resource, precondition};
use super::volumes::conflict;
use crate::{
    Caller, CloudError, CreateNetwork, FieldError, ListQuery, Listed, Result, UpdateNetwork, amounts, checks,
};

/// Largest packet where nothing is said.
const MTU: u16 = 1500;

/// Name, labels and description of a change, if they are given.
pub(super) fn check_texts(
    name: Option<&str>,
    labels: Option<&std::collections::BTreeMap<String, String>>,
    description: Option<&str>,
) -> Result<Option<Name>> {
    let mut errors = Vec::new();
    let mut good = None;
    match name.map(|name| checks::text::name("name", name)) {
        Some(Ok(name)) => good = Some(name),
        Some(Err(error)) => errors.push(error),
        None => {}
    }
    errors.extend(
        labels
            .iter()
            .flat_map(|labels| checks::text::labels("labels", labels)),
    );
    if let Some(error) = CloudError::fields(errors) {
        return Err(error);
    }
    checks::volume::description(description.unwrap_or_default())?;
    Ok(good)
}

/// The same of what is made, which has a name.
pub(super) fn check_new(
    name: &str,
    labels: &std::collections::BTreeMap<String, String>,
    description: &str,
) -> Result<Name> {
    let missing = || CloudError::internal("a name that was given is not there");
    check_texts(Some(name), Some(labels), Some(description))?.ok_or_else(missing)
}

impl Cloud {
    /// Makes a network.
    ///
    /// # Errors
    /// `name.invalid`, `labels.invalid`, `description.too_long`, `mtu.invalid`, `network.name_taken`, `quota.exceeded`, `auth.forbidden`.
    pub async fn create_network(&self, caller: &Caller, request: CreateNetwork) -> Result<Network> {
        let place = caller.here()?;
        caller.may(
            "network:create",
            &Object::all("network", place).labelled(&request.labels),
        )?;
        let name = check_new(&request.name, &request.labels, &request.description)?;
        let mtu = request.mtu.unwrap_or(MTU);
        if !(576..=65_000).contains(&mtu) {
            let message = format!("{mtu} bytes; 576 to 65000 are allowed");
            return Err(CloudError::field(FieldError::new("mtu", "mtu.invalid", message)));
        }
        let (request, name) = (&request, &name);
        let done = self
            .once(caller, "networks.create", json!(request), || {
                async move {
                    let mut meta = Meta::new(self.parts.ids.uuid(), name.clone(), caller.scope(), self.now());
                    meta.labels = request.labels.clone();
                    let claim = self
                        .claim_name::<Network>("network", caller.scope(), name, meta.id)
                        .await?;
                    let network = Network {
                        meta,
                        spec: NetworkSpec {
                            mtu,
                            port_security: request.port_security.unwrap_or(true),
                            subnets: Vec::new(),
                            description: request.description.clone(),
                        },
                    };
                    let told = network.meta.clone();
                    let change = Change::new(create_resource(&network)?.and(claim), network);
                    Ok(change.charge(amounts::of_network()).told("network:create", &told))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// A page of the project's networks.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`, `label.invalid`.
    pub async fn list_networks(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Network>> {
        self.list_resources(caller, "network:read", &[caller.scope()], query)
            .await
    }

    /// One network.
    ///
    /// # Errors
    /// `network.not_found`.
    pub async fn get_network(&self, caller: &Caller, id: NetworkId) -> Result<Versioned<Network>> {
        self.own(caller, "network:read", id.uuid()).await
    }

    /// Changes name, description and labels of a network; what is absent stays.
    ///
    /// # Errors
    /// `network.not_found`, `name.invalid`, `labels.invalid`, `description.too_long`, `network.name_taken`, `precondition.failed`,
    /// `auth.forbidden`.
    pub async fn update_network(
        &self,
        caller: &Caller,
        id: NetworkId,
        request: UpdateNetwork,
    ) -> Result<Network> {
        let name = check_texts(
            request.name.as_deref(),
            request.labels.as_ref(),
            request.description.as_deref(),
        )?;
        let (request, name) = (&request, &name);
        let done = self
            .once(caller, "networks.update", json!([id, request]), || {
                async move {
                    let found = self.own::<Network>(caller, "network:update", id.uuid()).await?;
                    precondition(caller, found.modified)?;
                    let claims = self.renaming("network", &found, name.as_ref()).await?;
                    let mut network = found.value.clone();
                    if let Some(name) = name {
                        network.meta.name = name.clone();
                    }
                    if let Some(labels) = &request.labels {
                        network.meta.labels = labels.clone();
                    }
                    if let Some(description) = &request.description {
                        network.spec.description = description.clone();
                    }
                    network.meta.updated_at = self.now();
                    let txn = found.replace(&network)?.and(claims);
                    Ok(Change::new(txn, network).told("network:update", &found.value.meta))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// Removes a network that has no subnets, and so no ports.
    ///
    /// # Errors
    /// `network.not_found`, `network.in_use`, `precondition.failed`, `auth.forbidden`.
    pub async fn delete_network(&self, caller: &Caller, id: NetworkId) -> Result<()> {
        self.once(caller, "networks.delete", json!(id), || {
            async move {
                let found = self.own::<Network>(caller, "network:delete", id.uuid()).await?;
                precondition(caller, found.modified)?;
                let subnets = found.value.spec.subnets.len();
                if subnets > 0 {
                    let message = format!("the network has {subnets} subnets");
                    return Err(conflict("network.in_use", message, "delete them first"));
                }
                let change = Change::new(self.remove_named(&found).await?, ());
                Ok(change
                    .give_back(amounts::of_network())
                    .told("network:delete", &found.value.meta))
            }
            .boxed()
        })
        .await?;
        Ok(())
    }

    /// The network with that id or name, if the caller may see it.
    pub(super) async fn network_of(
        &self,
        caller: &Caller,
        field: &str,
        asked: &str,
    ) -> Result<Versioned<Network>> {
        let found = self.by_id_or_name::<Network>(caller.scope(), asked).await?;
        let found = found.filter(|network| caller.may_to("network:read", &network.value.meta).is_ok());
        checks::found(field, "network", asked, found)
    }

    /// The part of a commit that claims a new unique name and lets go of the old one.
    pub(super) async fn renaming<R: Resource>(
        &self,
        what: &str,
        found: &Versioned<R>,
        name: Option<&Name>,
    ) -> Result<Txn> {
        let meta = found.value.meta();
        let scope: Scope = meta.scope;
        let Some(name) = name.filter(|name| **name != meta.name) else {
            return Ok(Txn::new());
        };
        let claim = self.claim_name::<R>(what, scope, name, meta.id).await?;
        match self.id_of_name::<R>(scope, meta.name.as_str()).await? {
            Some(old) if old.value == meta.id => Ok(claim.and(old.delete())),
            _ => Ok(claim),
        }
    }
}
