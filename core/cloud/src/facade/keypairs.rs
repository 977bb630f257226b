//! Keypairs: public SSH keys of a project.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_model::{Keypair, KeypairId, Meta};
use skyloom_store::Versioned;

use super::Cloud;
use super::once::Change;
use super::records::{create_resource, precondition};
use crate::{Caller, CloudError, CreateKeypair, ListQuery, Listed, Result, amounts, checks};

impl Cloud {
    /// Stores a public key.
    ///
    /// # Errors
    /// `keypair.name_taken`, `keypair.invalid_key`, `name.invalid`, `auth.forbidden`.
    pub async fn create_keypair(&self, caller: &Caller, request: CreateKeypair) -> Result<Keypair> {
        caller.may_here("keypair:create")?;
        let name = checks::text::name("name", &request.name).map_err(CloudError::field)?;
        let spec = checks::keypair::parse(&request.public_key)?;
        let done = self
            .once(caller, "keypairs.create", json!(request), || {
                let id = self.parts.ids.uuid();
                let meta = Meta::new(id, name.clone(), caller.scope(), self.now());
                let keypair = Keypair {
                    meta,
                    spec: spec.clone(),
                };
                async move {
                    let claim = self
                        .claim_name::<Keypair>("keypair", caller.scope(), &keypair.meta.name, id)
                        .await?;
                    let told = keypair.meta.clone();
                    let change = Change::new(create_resource(&keypair)?.and(claim), keypair);
                    Ok(change.charge(amounts::of_keypair()).told("keypair:create", &told))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// A page of the project's keypairs.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`, `label.invalid`.
    pub async fn list_keypairs(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Keypair>> {
        self.list_resources(caller, "keypair:read", &[caller.scope()], query)
            .await
    }

    /// One keypair.
    ///
    /// # Errors
    /// `keypair.not_found`.
    pub async fn get_keypair(&self, caller: &Caller, id: KeypairId) -> Result<Versioned<Keypair>> {
        self.own(caller, "keypair:read", id.uuid()).await
    }

    /// Removes a keypair; servers made with it keep the key.
    ///
    /// # Errors
    /// `keypair.not_found`, `precondition.failed`, `auth.forbidden`.
    pub async fn delete_keypair(&self, caller: &Caller, id: KeypairId) -> Result<()> {
        self.once(caller, "keypairs.delete", json!(id), || {
            async move {
                let keypair = self.own::<Keypair>(caller, "keypair:delete", id.uuid()).await?;
                precondition(caller, keypair.modified)?;
                let change = Change::new(self.remove_named(&keypair).await?, ());
                Ok(change
                    .give_back(amounts::of_keypair())
                    .told("keypair:delete", &keypair.value.meta))
            }
            .boxed()
        })
        .await?;
        Ok(())
    }
}
