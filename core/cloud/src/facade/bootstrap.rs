//! What a new cloud needs before anybody can use it.

use skyloom_model::{Flavor, FlavorSpec, Meta, Name, Project, ProjectSpec, Resource, Resources, Scope};
use skyloom_store::Txn;

use super::Cloud;
use super::records::{create, create_resource, name_path};
use crate::{Bootstrapped, CloudError, Result};

/// The name of the first project.
pub(super) const DEFAULT_PROJECT: &str = "default";
/// Name, CPUs, MiB, GiB of the first flavors.
const FLAVORS: [(&str, u32, u64, u64); 4] = [
    ("m1.tiny", 1, 256, 1),
    ("m1.small", 1, 1024, 10),
    ("m1.medium", 2, 4096, 20),
    ("m1.large", 4, 8192, 40),
];

impl Cloud {
    /// Makes what is missing of the default project and the default flavors. Any number of processes may call it at once, at each
    /// start. The first administrator is made by identity.
    ///
    /// A first start makes everything in one commit, and says which cloud this is. Flavors that were deleted later do not come back.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn bootstrap(&self) -> Result<Bootstrapped> {
        for _ in 0..8 {
            let incarnation = self.incarnate().await?;
            if let Some(project) = self
                .by_id_or_name::<Project>(Scope::System, DEFAULT_PROJECT)
                .await?
            {
                // A cloud of an earlier version, which did not say which it is.
                if !incarnation.writes.is_empty() && !self.commit(incarnation).await? {
                    continue;
                }
                return Ok(Bootstrapped {
                    project: project.value,
                });
            }
            let project = Project {
                meta: self.system_meta(DEFAULT_PROJECT)?,
                spec: ProjectSpec {
                    description: "The first project.".to_owned(),
                    ..ProjectSpec::default()
                },
            };
            let mut txn = self
                .named(&project)?
                .and(self.claim_in_domain(&project).await?)
                .and(incarnation);
            for (name, vcpus, memory_mib, disk_gib) in FLAVORS {
                if self.id_of_name::<Flavor>(Scope::System, name).await?.is_none() {
                    let resources = Resources {
                        vcpus,
                        memory_mib,
                        disk_gib,
                    };
                    let spec = FlavorSpec {
                        resources,
                        host_labels: Default::default(),
                    };
                    txn = txn.and(self.named(&Flavor {
                        meta: self.system_meta(name)?,
                        spec,
                    })?);
                }
            }
            self.commit(txn).await?;
        }
        Err(CloudError::internal("the default project cannot be made"))
    }

    fn system_meta(&self, name: &str) -> Result<Meta> {
        let name = Name::new(name).map_err(|e| CloudError::internal(e.to_string()))?;
        Ok(Meta::new(self.parts.ids.uuid(), name, Scope::System, self.now()))
    }

    /// The part of a commit that creates a resource and claims its name.
    fn named<R: Resource>(&self, resource: &R) -> Result<Txn> {
        let meta = resource.meta();
        let claim = create(&name_path::<R>(meta.scope, meta.name.as_str()), &meta.id)?;
        Ok(create_resource(resource)?.and(claim))
    }
}
