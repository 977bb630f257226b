//! Whether hosts report: their own status, and an overlay on the servers that live there. Nothing else follows from it.

use std::collections::BTreeMap;
use std::time::Duration;

use skyloom_model::{
    AgentStatus, EventKind, Host, HostFacts, HostId, HostStatus, Resource as _, Scope, Server, Timestamp,
    VmObservation, paths,
};
use skyloom_store::{Key, LeaseInfo, Mirror, Result, Txn};
use tokio::time::Instant;

use super::{Looker, TRIES};
use crate::prefix;

/// How long nothing is concluded from a lease that lapsed while nobody looked: no engine ran, or the store was away and no agent
/// could renew. Twice the life of a host's lease, so that every agent that is there has its lease again.
const GRACE: Duration = Duration::from_secs(20);

/// What is remembered from look to look.
#[derive(Debug, Default)]
struct Memory {
    told: Told,
    /// When a host's certificate was last seen expired.
    expired: BTreeMap<HostId, Instant>,
}

/// What an agent's report comes to.
struct Seen {
    reachable: bool,
    expired: bool,
    facts: HostFacts,
}

impl Seen {
    fn is(&self, status: &HostStatus) -> bool {
        status.reachable == self.reachable
            && status.certificate_expired == self.expired
            && status.facts.as_ref() == Some(&self.facts)
    }
}

/// Whether the host's certificate has run out.
fn expired(status: &HostStatus, now: Timestamp) -> bool {
    status.certificate_until.is_some_and(|until| until < now)
}

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
        let mut memory = Memory::default();
        let mut looked_on_since = Instant::now();
        loop {
            tokio::select! {
                biased;
                _ = tick.tick() => {}
                Some(_) = changes.next() => {}
            }
            let graced = looked_on_since.elapsed() < GRACE;
            if let Err(error) = self.look_at_hosts(agents, hosts, vms, &mut memory, graced).await {
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
        memory: &mut Memory,
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
            let expired = known
                .as_ref()
                .is_some_and(|h| expired(&h.value.status, self.clock.now()));
            if expired {
                memory.expired.insert(host, Instant::now());
            }
            // A host that cannot show who it is, or can again since just now, says nothing of whether it lives: what was last known stays.
            let silent = graced || memory.expired.get(&host).is_some_and(|at| at.elapsed() < GRACE);
            let reachable = reachable || silent && known.as_ref().is_some_and(|h| h.value.status.reachable);
            reachable_hosts.insert(host, reachable);
            let seen = Seen {
                reachable,
                expired,
                facts: agent.value.facts.clone(),
            };
            if known.is_none_or(|h| !seen.is(&h.value.status)) {
                self.fold_host(&path, &seen).await?;
            }
        }
        memory.expired.retain(|_, at| at.elapsed() < GRACE);
        let told = &mut memory.told;
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

    async fn fold_host(&self, path: &str, seen: &Seen) -> Result<()> {
        for _ in 0..TRIES {
            let Some(mut record) = self.read::<Host>(path).await? else {
                return Ok(());
            };
            let status = &record.value.status;
            if seen.is(status) {
                return Ok(());
            }
            if seen.expired && !expired(status, self.clock.now()) {
                // It was renewed meanwhile: to be looked at again.
                return Ok(());
            }
            let mut told = Txn::new();
            if status.reachable != seen.reachable {
                let (kind, what) = match seen.reachable {
                    true => (EventKind::HostReachable, "the host reports"),
                    false => (EventKind::HostUnreachable, "the host has ceased to report"),
                };
                tracing::info!(host = %record.value.meta.name, reachable = seen.reachable, "host observed");
                told = self.event(&record.value, kind, what.to_owned())?;
            }
            if seen.expired && !status.certificate_expired {
                tracing::warn!(host = %record.value.meta.name, "the host's certificate has expired: its agent has to renew it");
            }
            let status = &mut record.value.status;
            status.reachable = seen.reachable;
            status.facts = Some(seen.facts.clone());
            status.certificate_expired = seen.expired;
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
