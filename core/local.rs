//! A whole cloud in one process: engine and agents over any store, with the facade in hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use skyloom_agent::{Agent, AgentConfig, AgentParts};
use skyloom_cloud::{
    AgentScoped, Archive, Bootstrapped, Caller, Cloud, CloudError, CloudParts, CreateHost,
    EngineParts as EngineJobParts, HostParts as HostJobParts, ImageFetch, ImageRepo, ListQuery, RepoContent,
    cloud_flows, engine_jobs, host_jobs,
};
use skyloom_engine::{Engine, EngineConfig, EngineParts};
use skyloom_flow::journal::{Journal, NoJournal};
use skyloom_hypervisor::{HostNetwork, HostStorage, Hypervisor};
use skyloom_identity::{Identity, Rights};
use skyloom_image::Limits;
use skyloom_model::{Clock, HostId, Ids, Phase, Readiness, Resource as _};
use skyloom_scheduler::FleetScheduler;
use skyloom_store::{DynBackend, Result};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a local cloud is made of.
#[derive(Debug)]
pub struct LocalParts {
    /// Where everything is.
    pub backend: DynBackend,
    /// Where image content is.
    pub images: Arc<dyn ImageRepo>,
    /// The hosts.
    pub hosts: Vec<LocalHost>,
    /// Fetches images by URL.
    pub fetch: Arc<dyn ImageFetch>,
    /// What an image may be at most.
    pub limits: Limits,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ids and secrets.
    pub ids: Arc<dyn Ids>,
}

/// A host inside this process.
#[derive(Debug)]
pub struct LocalHost {
    /// Its name; registered when no host of that name is.
    pub name: String,
    /// Its labels when it is registered.
    pub labels: BTreeMap<String, String>,
    /// Its virtual machines.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// Its disks.
    pub storage: Arc<dyn HostStorage>,
    /// Its networks; without one its guests have QEMU's user network alone.
    pub network: Option<Arc<dyn HostNetwork>>,
    /// Its agent's journal.
    pub journal: Arc<dyn Journal>,
}

impl LocalHost {
    /// A host without labels and without a journal: for guests that end with this process.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        hypervisor: Arc<dyn Hypervisor>,
        storage: Arc<dyn HostStorage>,
    ) -> Self {
        Self {
            name: name.into(),
            labels: BTreeMap::new(),
            hypervisor,
            storage,
            network: None,
            journal: Arc::new(NoJournal),
        }
    }

    /// The same with a journal: for guests that run on without this process.
    #[must_use]
    pub fn with_journal(mut self, journal: Arc<dyn Journal>) -> Self {
        self.journal = journal;
        self
    }
}

/// A host that is known to the cloud.
#[derive(Debug)]
pub struct Registered {
    /// Its id.
    pub id: HostId,
    /// The host.
    pub host: LocalHost,
}

/// A whole cloud: call [`LocalCloud::cloud`], and keep [`LocalCloud::run`] running.
#[derive(Debug)]
pub struct LocalCloud {
    cloud: Arc<Cloud>,
    admin: Caller,
    bootstrapped: Bootstrapped,
    readiness: Readiness,
    fetch: Arc<dyn ImageFetch>,
    limits: Limits,
    hosts: Vec<Registered>,
    alone: bool,
}

impl LocalCloud {
    /// Prepares a cloud in `parts.backend`, or takes up the one that is there: default project, flavors, hosts.
    ///
    /// # Errors
    /// Those of the facade.
    pub async fn open(parts: LocalParts) -> Result<Self, CloudError> {
        let LocalParts {
            backend,
            images,
            hosts,
            fetch,
            limits,
            clock,
            ids,
        } = parts;
        let cloud = Arc::new(Cloud::new(CloudParts {
            backend,
            clock,
            ids,
            images,
        }));
        let bootstrapped = cloud.bootstrap().await?;
        let project = bootstrapped.project.id();
        let rights = Rights::of_the_cloud().map_err(|e| CloudError::internal(e.to_string()))?;
        let admin = Caller::internal("local", rights, project);
        let mut registered = Vec::with_capacity(hosts.len());
        for host in hosts {
            registered.push(Registered {
                id: register(&cloud, &admin, &host).await?,
                host,
            });
        }
        let readiness = Readiness::new();
        Ok(Self {
            cloud,
            admin,
            bootstrapped,
            readiness,
            fetch,
            limits,
            hosts: registered,
            alone: false,
        })
    }

    /// For a process that alone can have the store open, as with SQLite: a former life cannot go on, and its lease is not waited
    /// for.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// With another archive than the store itself. To be called before [`LocalCloud::cloud`].
    #[must_use]
    pub fn with_archive(mut self, archive: Archive) -> Self {
        self.cloud = Arc::new((*self.cloud).clone().with_archive(archive));
        self
    }

    /// With the identity that lets users in, where there is one. To be called before [`LocalCloud::cloud`].
    #[must_use]
    pub fn with_identity(mut self, identity: &Identity) -> Self {
        let cloud = (*self.cloud).clone();
        let cloud = cloud.with_directory(identity.directory().clone());
        self.cloud = Arc::new(cloud.with_audit(identity.audit().clone()));
        self
    }

    /// The API without HTTP.
    #[must_use]
    pub fn cloud(&self) -> Arc<Cloud> {
        self.cloud.clone()
    }

    /// An administrator in the default project, for calls from this process.
    #[must_use]
    pub fn admin(&self) -> Caller {
        self.admin.clone()
    }

    /// What the first start made.
    #[must_use]
    pub fn bootstrapped(&self) -> &Bootstrapped {
        &self.bootstrapped
    }

    /// The boot phases of all parts.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Runs engine and agents until `shutdown`. Guests of real hypervisors run on.
    ///
    /// # Errors
    /// When a part cannot begin.
    pub async fn run(self, shutdown: CancellationToken) -> Result<()> {
        let Self {
            cloud,
            readiness,
            fetch,
            limits,
            hosts,
            alone,
            ..
        } = self;
        let CloudParts {
            backend,
            clock,
            ids,
            images,
        } = cloud.parts().clone();
        let mut parts: JoinSet<Result<()>> = JoinSet::new();
        let engine = Engine::new(EngineParts {
            backend: backend.clone(),
            flows: cloud_flows(),
            jobs: engine_jobs(&EngineJobParts {
                images: images.clone(),
                fetch,
                limits,
            }),
            scheduler: Arc::new(FleetScheduler::default()),
            clock: clock.clone(),
            ids,
            readiness: readiness.clone(),
            config: if alone {
                EngineConfig::new("local").alone()
            } else {
                EngineConfig::new("local")
            },
        });
        let (tidy, stop) = (cloud.clone(), shutdown.clone());
        parts.spawn(async move {
            tokio::join!(tidy.keep_tidy(stop.clone()), tidy.keep_reconciled(stop));
            Ok(())
        });
        // Each announces its phases when it is made: all are made before any begins, so that no part that is quick makes the
        // whole look ready.
        let mut agents = Vec::with_capacity(hosts.len());
        for Registered { id, host } in hosts {
            // As over HTTP: an agent touches its own host's areas and nothing else.
            let backend: DynBackend = Arc::new(AgentScoped::new(backend.clone(), id));
            let jobs = host_jobs(&HostJobParts {
                host: id,
                hypervisor: host.hypervisor.clone(),
                storage: host.storage,
                network: host.network.clone(),
                content: Arc::new(RepoContent(images.clone())),
                backend: backend.clone(),
            });
            let agent = Agent::new(AgentParts {
                backend,
                hypervisor: host.hypervisor,
                jobs,
                journal: host.journal,
                clock: clock.clone(),
                readiness: readiness.clone(),
                config: AgentConfig::new(id, host.name),
            });
            agents.push(agent);
        }
        parts.spawn(engine.run(shutdown.clone()));
        for agent in agents {
            parts.spawn(agent.run(shutdown.clone()));
        }
        while let Some(ended) = parts.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(error),
                Err(error) => {
                    readiness.pending("engine", Phase::Watch, "a part of the process panicked");
                    tracing::error!(%error, "a part of the process panicked");
                }
            }
        }
        Ok(())
    }
}

/// The id of the host of that name, registered now if there is none.
async fn register(cloud: &Cloud, admin: &Caller, host: &LocalHost) -> Result<HostId, CloudError> {
    let query = ListQuery {
        name: Some(host.name.clone()),
        ..ListQuery::default()
    };
    if let Some(known) = cloud.list_hosts(admin, &query).await?.items.first() {
        return Ok(known.id());
    }
    let request = CreateHost {
        name: host.name.clone(),
        labels: host.labels.clone(),
        ..CreateHost::default()
    };
    Ok(cloud.create_host(admin, request).await?.host.id())
}
