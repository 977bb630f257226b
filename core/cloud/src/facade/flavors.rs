//! Flavors: sizes of servers, the cloud's own.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_model::{Flavor, FlavorId, FlavorSpec, Meta, Resource as _, Resources, Scope, paths};
use skyloom_store::Versioned;

use super::Cloud;
use super::once::Change;
use super::records::{create_resource, precondition, prefix};
use crate::{Caller, CloudError, CreateFlavor, ListQuery, Listed, Result, checks};

impl Cloud {
    /// Makes a flavor. Administrators only.
    ///
    /// # Errors
    /// `flavor.name_taken`, `flavor.out_of_range`, `name.invalid`, `labels.invalid`, `role.denied`.
    pub async fn create_flavor(&self, caller: &Caller, request: CreateFlavor) -> Result<Flavor> {
        caller.may_operate()?;
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
                    Ok(Change::new(create_resource(&flavor)?.and(claim), flavor))
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
        caller.may_read()?;
        self.list_resources(&[prefix(&paths::scoped(Flavor::KIND, Scope::System))?], query)
            .await
    }

    /// One flavor.
    ///
    /// # Errors
    /// `flavor.not_found`.
    pub async fn get_flavor(&self, caller: &Caller, id: FlavorId) -> Result<Versioned<Flavor>> {
        caller.may_read()?;
        self.resource(Scope::System, id.uuid())
            .await?
            .ok_or_else(|| CloudError::not_found("flavor"))
    }

    /// Removes a flavor; servers made with it keep their size. Administrators only.
    ///
    /// # Errors
    /// `flavor.not_found`, `precondition.failed`, `role.denied`.
    pub async fn delete_flavor(&self, caller: &Caller, id: FlavorId) -> Result<()> {
        caller.may_operate()?;
        self.once(caller, "flavors.delete", json!(id), || {
            async move {
                let flavor = self.get_flavor(caller, id).await?;
                precondition(caller, flavor.modified)?;
                Ok(Change::new(self.remove_named(&flavor).await?, ()))
            }
            .boxed()
        })
        .await?;
        Ok(())
    }
}
