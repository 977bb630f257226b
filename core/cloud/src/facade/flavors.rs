//! Flavors: sizes of servers, the cloud's own.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_model::{Flavor, FlavorId, FlavorSpec, Meta, Resources, Scope};
use skyloom_store::Versioned;

use super::Cloud;
use super::once::Change;
use super::records::{create_resource, precondition};
use crate::{Caller, CloudError, CreateFlavor, ListQuery, Listed, Result, checks};

impl Cloud {
    /// Makes a flavor.
    ///
    /// # Errors
    /// `flavor.name_taken`, `flavor.out_of_range`, `name.invalid`, `labels.invalid`, `auth.forbidden`.
    pub async fn create_flavor(&self, caller: &Caller, request: CreateFlavor) -> Result<Flavor> {
        caller.may_in_cloud("flavor:create")?;
        let mut errors = checks::flavor::check(&request);
        let name = checks::text::name("name", &request.name)
            .map_err(|e| errors.push(e))
            .ok();
        if let Some(error) = CloudError::fields(errors) {
            return Err(error);
        }
        let name = name.ok_or_else(|| CloudError::internal("a name without an error"))?;
        let resources = Resources {
            vcpus: request.vcpus,
            memory_mib: request.memory_mib,
            disk_gib: request.disk_gib,
        };
        let done = self
            .once(caller, "flavors.create", json!(request), || {
                let spec = FlavorSpec {
                    resources,
                    host_labels: request.host_labels.clone(),
                };
                let id = self.parts.ids.uuid();
                let flavor = Flavor {
                    meta: Meta::new(id, name.clone(), Scope::System, self.now()),
                    spec,
                };
                async move {
                    let claim = self
                        .claim_name::<Flavor>("flavor", Scope::System, &flavor.meta.name, id)
                        .await?;
                    let told = flavor.meta.clone();
                    let change = Change::new(create_resource(&flavor)?.and(claim), flavor);
                    Ok(change.told("flavor:create", &told))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }

    /// A page of all flavors.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`, `label.invalid`.
    pub async fn list_flavors(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Flavor>> {
        self.list_resources(caller, "flavor:read", &[Scope::System], query)
            .await
    }

    /// One flavor.
    ///
    /// # Errors
    /// `flavor.not_found`.
    pub async fn get_flavor(&self, caller: &Caller, id: FlavorId) -> Result<Versioned<Flavor>> {
        self.allowed(caller, "flavor:read", Scope::System, id.uuid())
            .await
    }

    /// Removes a flavor; servers made with it keep their size.
    ///
    /// # Errors
    /// `flavor.not_found`, `precondition.failed`, `auth.forbidden`.
    pub async fn delete_flavor(&self, caller: &Caller, id: FlavorId) -> Result<()> {
        self.once(caller, "flavors.delete", json!(id), || {
            async move {
                let flavor = self
                    .allowed::<Flavor>(caller, "flavor:delete", Scope::System, id.uuid())
                    .await?;
                precondition(caller, flavor.modified)?;
                let change = Change::new(self.remove_named(&flavor).await?, ());
                Ok(change.told("flavor:delete", &flavor.value.meta))
            }
            .boxed()
        })
        .await?;
        Ok(())
    }
}
