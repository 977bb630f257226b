//! What a new cloud needs before anybody can use it.

use skyloom_model::{
    Flavor, FlavorSpec, Meta, Name, Project, ProjectSpec, Resource, Resources, Role, Scope, Token,
};
use skyloom_store::{Txn, Value};

use super::Cloud;
use super::records::{create, create_resource, key, name_path};
use crate::{Bootstrapped, CloudError, Result};

/// The name of the first project.
const PROJECT: &str = "default";
/// The name of the first token, claimed so that of several processes one makes it.
const TOKEN: &str = "admin";
/// Name, CPUs, MiB, GiB of the first flavors.
const FLAVORS: [(&str, u32, u64, u64); 4] = [
    ("m1.tiny", 1, 256, 1),
    ("m1.small", 1, 1024, 10),
    ("m1.medium", 2, 4096, 20),
    ("m1.large", 4, 8192, 40),
];

impl Cloud {
    /// Makes what is missing of the default project, the default flavors and a first administrator's token. Any number
    /// of processes may call it at once, at each start.
    ///
    /// A first start makes everything in one commit, and says which cloud this is. Flavors that were deleted later do not come back.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn bootstrap(&self) -> Result<Bootstrapped> {
        for _ in 0..8 {
            let incarnation = self.incarnate().await?;
            if let Some(project) = self.by_id_or_name::<Project>(Scope::System, PROJECT).await? {
                // A cloud of an earlier version, which did not say which it is.
                if !incarnation.writes.is_empty() && !self.commit(incarnation).await? {
                    continue;
                }
                return self.first_token(project.value).await;
            }
            let project = Project {
                meta: self.system_meta(PROJECT)?,
                spec: ProjectSpec {
                    description: "The first project.".to_owned(),
                    ..ProjectSpec::default()
                },
            };
            let mut txn = self.named(&project)?.and(incarnation);
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

    /// A token for the default project if no administrator's token is there.
    async fn first_token(&self, project: Project) -> Result<Bootstrapped> {
        let is_admin = |t: &Token| matches!(t.spec.role, Role::Admin { .. });
        let claim_path = name_path::<Token>(Scope::System, TOKEN);
        for _ in 0..8 {
            // Read before the tokens: who makes one meanwhile changes this record, and the commit below does not pass.
            let claim = self.read::<uuid::Uuid>(&claim_path).await?;
            if !self.tokens_where(is_admin).await?.is_empty() {
                return Ok(Bootstrapped { project, token: None });
            }
            let name = Name::new(TOKEN).map_err(|e| CloudError::internal(e.to_string()))?;
            let (token, secret, part) = self.new_token(
                name,
                Role::Admin {
                    project: project.id(),
                },
                None,
            )?;
            let txn = match claim {
                None => part.and(create(&claim_path, &token.meta.id)?),
                Some(claim) => part.and(Txn::new().replace(
                    key(&claim_path)?,
                    claim.modified,
                    Value::json(&token.meta.id)?,
                )),
            };
            if self.commit(txn).await? {
                return Ok(Bootstrapped {
                    project,
                    token: Some(secret),
                });
            }
        }
        Err(CloudError::internal("the first token cannot be made"))
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
