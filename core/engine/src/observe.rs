//! What agents see becomes the status of servers and hosts.
//!
//! Level-based: each look compares what is recorded with what is seen and commits the difference, so events may be lost,
//! doubled or late. It never touches `spec` and never starts work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use skyloom_flow::Fence;
use skyloom_model::{
    AgentStatus, Clock, Host, HostId, HostStatus, PowerState, Resource, Scope, Server, VmObservation, paths,
};
use skyloom_store::{Changed, DynBackend, Key, LeaseInfo, Mirror, MirrorDriver, Outcome, Result, Versioned};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{EngineConfig, prefix};

/// Tries to commit one difference before it waits for the next look.
const TRIES: usize = 5;

#[derive(Debug)]
pub(crate) struct Observers {
    backend: DynBackend,
    clock: Arc<dyn Clock>,
    fence: watch::Receiver<Option<Fence>>,
    resync: Duration,
    vms: (Mirror<VmObservation>, MirrorDriver<VmObservation>),
    agents: (Mirror<AgentStatus>, MirrorDriver<AgentStatus>),
    hosts: Mirror<Host>,
}

/// What every look needs.
struct Looker {
    backend: DynBackend,
    clock: Arc<dyn Clock>,
    fence: watch::Receiver<Option<Fence>>,
}

impl Observers {
    pub(crate) fn new(
        backend: &DynBackend,
        clock: Arc<dyn Clock>,
        fence: watch::Receiver<Option<Fence>>,
        hosts: Mirror<Host>,
        config: &EngineConfig,
    ) -> Result<Self> {
        Ok(Self {
            hosts,
            backend: backend.clone(),
            clock,
            fence,
            resync: config.resync,
            vms: Mirror::new(backend.clone(), prefix(paths::VMS)?),
            agents: Mirror::new(backend.clone(), prefix(paths::AGENTS)?),
        })
    }

    pub(crate) fn mirrors(&self) -> (Mirror<VmObservation>, Mirror<AgentStatus>) {
        (self.vms.0.clone(), self.agents.0.clone())
    }

    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let Self {
            backend,
            clock,
            fence,
            resync,
            vms,
            agents,
            hosts,
        } = self;
        let looker = Looker {
            backend,
            clock,
            fence,
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = async { tokio::join!(vms.1.run(shutdown.clone()), agents.1.run(shutdown.clone())); } => {}
            () = looker.follow_vms(&vms.0, resync) => {}
            () = looker.follow_hosts(&agents.0, &hosts, resync) => {}
        }
    }
}

impl Looker {
    async fn follow_vms(&self, vms: &Mirror<VmObservation>, resync: Duration) {
        let mut changes = vms.changes();
        let mut tick = tokio::time::interval(resync);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut unsettled: BTreeSet<Key> = BTreeSet::new();
        loop {
            let keys: Vec<Key> = tokio::select! {
                Some(changed) = changes.next() => match changed {
                    Changed::Keys(keys) => keys,
                    Changed::Everything => vms.snapshot().iter().map(|v| v.key.clone()).collect(),
                },
                _ = tick.tick() => std::mem::take(&mut unsettled).into_iter().collect(),
            };
            for key in keys {
                let Some(seen) = vms.get(&key) else { continue };
                let Some(host) = key.segments().nth(1).and_then(|s| s.parse().ok()) else {
                    continue;
                };
                let settled = self.fold_vm(host, &seen.value).await.unwrap_or_else(|error| {
                    let error = skyloom_model::report(&error);
                    tracing::warn!(server = %seen.value.server, error, "a server's state is not recorded yet");
                    false
                });
                if !settled {
                    unsettled.insert(key);
                }
            }
        }
    }

    /// Records a virtual machine's power state in its server, if the server lives there and is of that generation.
    /// `false`: to be tried again.
    async fn fold_vm(&self, host: HostId, seen: &VmObservation) -> Result<bool> {
        let path = paths::resource(Server::KIND, Scope::Project(seen.project), seen.server.uuid());
        for _ in 0..TRIES {
            let Some(mut server) = self.read::<Server>(&path).await? else {
                return Ok(true);
            };
            let status = &mut server.value.status;
            let here = status.placement.as_ref().is_some_and(|p| p.host == host);
            let same = status.power == seen.power
                && (seen.accelerator.is_none() || status.accelerator == seen.accelerator);
            if !here || same || server.value.meta.generation != seen.generation {
                return Ok(true);
            }
            let now = self.clock.now();
            if seen.power == PowerState::Running && status.power != PowerState::Running {
                status.launched_at = Some(now);
            }
            status.power = seen.power;
            status.accelerator = seen.accelerator.clone().or(status.accelerator.take());
            server.value.meta.updated_at = now;
            if self.write(&server).await? {
                tracing::info!(server = %seen.server, power = ?seen.power, cause = seen.cause, "server observed");
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn follow_hosts(&self, agents: &Mirror<AgentStatus>, hosts: &Mirror<Host>, resync: Duration) {
        let mut changes = agents.changes();
        let mut tick = tokio::time::interval(resync.min(Duration::from_secs(3)));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(_) = changes.next() => {}
                _ = tick.tick() => {}
            }
            if let Err(error) = self.look_at_hosts(agents, hosts).await {
                tracing::warn!(error = %skyloom_model::report(&error), "hosts cannot be looked at now");
            }
        }
    }

    async fn look_at_hosts(&self, agents: &Mirror<AgentStatus>, hosts: &Mirror<Host>) -> Result<()> {
        let leases = self.backend.leases(&prefix("hosts")?).await?;
        let leases: BTreeMap<&str, &LeaseInfo> = leases.iter().map(|l| (l.name.as_key().last(), l)).collect();
        for agent in agents.snapshot().iter() {
            let Some(id) = agent.key.segments().nth(1) else {
                continue;
            };
            let Ok(host) = id.parse::<HostId>() else { continue };
            // Reachable: the agent that reported holds the host's lease, or a later life of it that has yet to report.
            let reachable = leases
                .get(id)
                .is_some_and(|l| !l.expired && l.epoch >= agent.value.incarnation);
            let status = HostStatus {
                reachable,
                facts: Some(agent.value.facts.clone()),
            };
            let path = paths::resource(Host::KIND, Scope::System, host.uuid());
            let known = Key::parse(&path).ok().and_then(|key| hosts.get(&key));
            if known.is_none_or(|h| h.value.status != status) {
                self.fold_host(&path, &status).await?;
            }
        }
        Ok(())
    }

    async fn fold_host(&self, path: &str, status: &HostStatus) -> Result<()> {
        for _ in 0..TRIES {
            let Some(mut record) = self.read::<Host>(path).await? else {
                return Ok(());
            };
            if record.value.status == *status {
                return Ok(());
            }
            if record.value.status.reachable != status.reachable {
                tracing::info!(host = %record.value.meta.name, reachable = status.reachable, "host observed");
            }
            record.value.status = status.clone();
            record.value.meta.updated_at = self.clock.now();
            if self.write(&record).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn read<T: Resource>(&self, path: &str) -> Result<Option<Versioned<T>>> {
        let Ok(key) = Key::parse(path) else {
            return Ok(None);
        };
        self.backend
            .get(&key)
            .await?
            .map(|kv| Versioned::decode(&kv))
            .transpose()
    }

    /// Whether it was written: not when another was faster, or when this engine has no lease now.
    async fn write<T: Resource>(&self, record: &Versioned<T>) -> Result<bool> {
        let Some(fence) = self.fence.borrow().clone() else {
            return Ok(false);
        };
        let txn = record.replace(&record.value)?.guard(fence.guard());
        Ok(matches!(
            self.backend.commit(txn).await?,
            Outcome::Committed { .. }
        ))
    }
}
