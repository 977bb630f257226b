//! What agents see becomes the status of servers and hosts.
//!
//! Level-based: each look compares what is recorded with what is seen and commits the difference, so events may be lost,
//! doubled or late. It never touches `spec` and never starts work; of a crash it leaves a mark to look at the server later.

mod hosts;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use skyloom_flow::{Fence, compose};
use skyloom_model::ablation::{Rule, kept};
use skyloom_model::{
    AgentStatus, Clock, Crashes, Event, EventId, EventKind, FORMAT, Host, HostId, Id, Ids, OnCrash,
    PowerState, Resource, Scope, Server, Subject, Timer, Timestamp, VmObservation, paths,
};
use skyloom_store::{
    Changed, DynBackend, Key, Mirror, MirrorDriver, Outcome, Result, Txn, Value, Versioned, latest,
};
use tokio_util::sync::CancellationToken;

use crate::{EngineConfig, prefix};

/// Tries to commit one difference before it waits for the next look.
const TRIES: usize = 5;

/// Counts a crash, and has the server looked at when it is to run again.
fn crashed(server: &mut Server, now: Timestamp) -> Result<Txn> {
    let status = &mut server.status;
    let on_crash = if server.spec.running {
        server.spec.on_crash
    } else {
        OnCrash::Leave
    };
    let crashes = Crashes::after(status.crashes.as_ref(), status.launched_at, now, on_crash);
    status.crashes = Some(crashes);
    let Some(at) = crashes.restart_at else {
        return Ok(Txn::new());
    };
    let (scope, server) = (server.meta.scope, Id::from_uuid(server.meta.id));
    let key = compose::key(&paths::timer(at, scope, server))?;
    Ok(Txn::new().put(key, Value::json(&Timer { at, scope, server })?))
}

#[derive(Debug)]
pub(crate) struct Observers {
    backend: DynBackend,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    fence: latest::Receiver<Option<Fence>>,
    resync: Duration,
    vms: (Mirror<VmObservation>, MirrorDriver<VmObservation>),
    agents: (Mirror<AgentStatus>, MirrorDriver<AgentStatus>),
    hosts: Mirror<Host>,
}

/// What every look needs.
struct Looker {
    backend: DynBackend,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    fence: latest::Receiver<Option<Fence>>,
}

impl Observers {
    pub(crate) fn new(
        backend: &DynBackend,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
        fence: latest::Receiver<Option<Fence>>,
        hosts: Mirror<Host>,
        config: &EngineConfig,
    ) -> Result<Self> {
        Ok(Self {
            hosts,
            backend: backend.clone(),
            clock,
            ids,
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
            ids,
            fence,
            resync,
            vms,
            agents,
            hosts,
        } = self;
        let looker = Looker {
            backend,
            clock,
            ids,
            fence,
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = async { tokio::join!(vms.1.run(shutdown.clone()), agents.1.run(shutdown.clone())); } => {}
            () = looker.follow_vms(&vms.0, resync) => {}
            () = looker.follow_hosts(&agents.0, &hosts, &vms.0, resync) => {}
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
                biased;
                _ = tick.tick() => std::mem::take(&mut unsettled).into_iter().collect(),
                Some(changed) = changes.next() => match changed {
                    Changed::Keys(keys) => keys,
                    Changed::Everything => vms.snapshot().iter().map(|v| v.key.clone()).collect(),
                },
            };
            for key in keys {
                let Some(seen) = vms.get(&key) else { continue };
                let Some(host) = key.segments().nth(1).and_then(|s| s.parse().ok()) else {
                    continue;
                };
                let settled = self.fold_vm(host, &seen).await.unwrap_or_else(|error| {
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

    /// Records a virtual machine's power state in its server, if the server lives there and is of that generation; or of a
    /// newer one whose order was given up before it reached the domain. `false`: to be tried again.
    async fn fold_vm(&self, host: HostId, look: &Versioned<VmObservation>) -> Result<bool> {
        let seen = &look.value;
        let path = paths::resource(Server::KIND, Scope::Project(seen.project), seen.server.uuid());
        for _ in 0..TRIES {
            let Some(mut server) = self.read::<Server>(&path).await? else {
                return Ok(true);
            };
            let status = &mut server.value.status;
            let here = status.placement.as_ref().is_some_and(|p| p.host == host);
            let same = status.power == seen.power
                && (seen.accelerator.is_none() || status.accelerator == seen.accelerator);
            let current = here && server.value.meta.generation == seen.generation;
            let older = here && server.value.meta.generation > seen.generation;
            if same || (kept(Rule::ObservedGeneration) && !current && !older) {
                return Ok(true);
            }
            if kept(Rule::ObservedGeneration) && older && status.activity.is_some() {
                return Ok(false); // Its task reports under its own order, or ends without.
            }
            let now = self.clock.now();
            if seen.power == PowerState::Running && status.power != PowerState::Running {
                status.launched_at = Some(now);
            }
            let turned = status.power != seen.power && status.activity.is_none();
            status.power = seen.power;
            status.accelerator = seen.accelerator.clone().or(status.accelerator.take());
            server.value.meta.updated_at = now;
            // A look that is not the last one says nothing of now.
            let mut told = Txn::new().guard(look.unchanged());
            if turned {
                let cause = seen.cause.as_deref().unwrap_or("no task did it");
                let power = serde_json::to_value(seen.power).unwrap_or_default();
                let message = format!("now {} ({cause})", power.as_str().unwrap_or_default());
                told = told.and(self.event(&server.value, EventKind::ServerPower, message)?);
                if seen.power == PowerState::Crashed {
                    told = told.and(crashed(&mut server.value, now)?);
                }
            }
            if self.write(&server, told).await? {
                tracing::info!(server = %seen.server, power = ?seen.power, cause = seen.cause, "server observed");
                return Ok(true);
            }
        }
        Ok(false)
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

    /// The part of a commit that tells what was seen.
    fn event<R: Resource>(&self, subject: &R, kind: EventKind, message: String) -> Result<Txn> {
        let meta = subject.meta();
        let event = Event {
            format: FORMAT,
            id: EventId::fresh(&*self.ids),
            at: self.clock.now(),
            scope: meta.scope,
            kind,
            subject: Subject {
                kind: R::KIND.to_owned(),
                id: meta.id,
                name: meta.name.clone(),
            },
            task: None,
            request_id: None,
            message,
            reason: None,
        };
        let at = compose::key(&paths::event(event.scope, event.id))?;
        Ok(Txn::new().put(at, Value::json(&event)?))
    }

    /// Whether it was written: not when another was faster, or when this engine has no lease now.
    async fn write<T: Resource>(&self, record: &Versioned<T>, told: Txn) -> Result<bool> {
        let Some(fence) = self.fence.borrow().clone() else {
            return Ok(false);
        };
        let txn = record.replace(&record.value)?.guard(fence.guard()).and(told);
        Ok(matches!(
            self.backend.commit(txn).await?,
            Outcome::Committed { .. }
        ))
    }
}
