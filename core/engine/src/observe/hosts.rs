//! Whether hosts report: their own status, and an overlay on the servers that live there. Nothing else follows from it.

use std::collections::BTreeMap;
use std::time::Duration;

use skyloom_model::{
    AgentStatus, EventKind, Host, HostId, HostStatus, Resource as _, Scope, Server, VmObservation, paths,
};
use skyloom_store::{Key, LeaseInfo, Mirror, Result, Txn};
use tokio::time::Instant;

use super::{Looker, TRIES};
use crate::prefix;

/// How long nothing is concluded from a lease that lapsed while nobody looked: no engine ran, or the store was away and no agent
/// could renew. Twice the life of a host's lease, so that every agent that is there has its lease again.
const GRACE: Duration = Duration::from_secs(20);

/// What was last recorded of each virtual machine's host: reachable or not.
type Told = BTreeMap<Key, bool>;

impl Looker {
    pub(super) async fn follow_hosts(
        &self,
        agents: &Mirror<AgentStatus>,
        hosts: &Mirror<Host>,
        vms: &Mirror<VmObservation>,
        resync: Duration,
    ) {
        let mut changes = agents.changes();
        let mut tick = tokio::time::interval(resync.min(Duration::from_secs(3)));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // What is recorded must be known before anything is concluded from what is not there.
        if hosts.ready().await.is_err() {
            return;
        }
        let mut told = Told::new();
        let mut looked_on_since = Instant::now();
        loop {
            tokio::select! {
                biased;
                _ = tick.tick() => {}
                Some(_) = changes.next() => {}
            }
            let graced = looked_on_since.elapsed() < GRACE;
            if let Err(error) = self.look_at_hosts(agents, hosts, vms, &mut told, graced).await {
                tracing::warn!(error = %skyloom_model::report(&error), "hosts cannot be looked at now");
                looked_on_since = Instant::now();
            }
        }
    }

    async fn look_at_hosts(
        &self,
        agents: &Mirror<AgentStatus>,
        hosts: &Mirror<Host>,
        vms: &Mirror<VmObservation>,
        told: &mut Told,
        graced: bool,
    ) -> Result<()> {
        let leases = self.backend.leases(&prefix("hosts")?).await?;
        let leases: BTreeMap<&str, &LeaseInfo> = leases.iter().map(|l| (l.name.as_key().last(), l)).collect();
        let mut reachable_hosts: BTreeMap<HostId, bool> = BTreeMap::new();
        for agent in agents.snapshot().iter() {
            let Some(id) = agent.key.segments().nth(1) else {
                continue;
            };
            let Ok(host) = id.parse::<HostId>() else { continue };
            // Reachable: the agent that reported holds the host's lease, or a later life of it that has yet to report.
            let reachable = leases
                .get(id)
                .is_some_and(|l| !l.expired && l.epoch >= agent.value.incarnation);
            let path = paths::resource(Host::KIND, Scope::System, host.uuid());
            let known = Key::parse(&path).ok().and_then(|key| hosts.get(&key));
            let reachable = reachable || graced && known.as_ref().is_some_and(|h| h.value.status.reachable);
            reachable_hosts.insert(host, reachable);
            let status = HostStatus {
                reachable,
                facts: Some(agent.value.facts.clone()),
            };
            if known.is_none_or(|h| h.value.status != status) {
                self.fold_host(&path, &status).await?;
            }
        }
        let seen = vms.snapshot();
        told.retain(|key, _| seen.get(key).is_some());
        for vm in seen.iter() {
            let host = vm.key.segments().nth(1).and_then(|s| s.parse().ok());
            let Some((host, reachable)) = host.and_then(|h| Some((h, *reachable_hosts.get(&h)?))) else {
                continue;
            };
            if told.get(&vm.key) != Some(&reachable) && self.overlay(host, &vm.value, reachable).await? {
                told.insert(vm.key.clone(), reachable);
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
            let mut told = Txn::new();
            if record.value.status.reachable != status.reachable {
                let (kind, what) = match status.reachable {
                    true => (EventKind::HostReachable, "the host reports"),
                    false => (EventKind::HostUnreachable, "the host has ceased to report"),
                };
                tracing::info!(host = %record.value.meta.name, reachable = status.reachable, "host observed");
                told = self.event(&record.value, kind, what.to_owned())?;
            }
            record.value.status = status.clone();
            record.value.meta.updated_at = self.clock.now();
            if self.write(&record, told).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Notes on a server whether its host reports; the other axes stay what was last known. `false`: not yet.
    async fn overlay(&self, host: HostId, vm: &VmObservation, reachable: bool) -> Result<bool> {
        let path = paths::resource(Server::KIND, Scope::Project(vm.project), vm.server.uuid());
        for _ in 0..TRIES {
            let Some(mut server) = self.read::<Server>(&path).await? else {
                return Ok(true);
            };
            let here = server
                .value
                .status
                .placement
                .as_ref()
                .is_some_and(|p| p.host == host);
            if !here || server.value.status.overlays.host_unreachable != reachable {
                return Ok(true);
            }
            server.value.status.overlays.host_unreachable = !reachable;
            server.value.meta.updated_at = self.clock.now();
            if self.write(&server, Txn::new()).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
