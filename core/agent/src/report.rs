//! What this host's virtual machines are doing, for everybody else.
//!
//! Every report is looked up anew ([`Hypervisor::inspect`]): events only say where to look.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use skyloom_flow::{Companion, Fence, Held, Witness};
use skyloom_hypervisor::{Hypervisor, Inspection, Recovered, VmEventKind};
use skyloom_model::{
    Clock, Guest, GuestReport, HostId, Id, JobRecord, PowerState, ProjectId, Resource as _, Scope, Server,
    ServerId, VmObservation, paths,
};
use skyloom_store::{
    DynBackend, Error, ErrorKind, Key, ListOptions, Outcome, Prefix, Result, Txn, Value, Versioned, latest,
};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// Guests of one report: as many as fit into a document.
const MOST_GUESTS: usize = 5000;
/// Wait before a report that failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// How often all guests are looked at, whatever the events said: an event may be lost, and what a job saw at its end may
/// reach the store after something newer.
const RESYNC: Duration = Duration::from_secs(60);

/// Reports virtual machines.
#[derive(Debug)]
pub(crate) struct Reporter {
    backend: DynBackend,
    hypervisor: Arc<dyn Hypervisor>,
    clock: Arc<dyn Clock>,
    host: HostId,
    fence: latest::Receiver<Option<Fence>>,
    accelerator: String,
    witness: Witness,
    held: latest::Receiver<Held>,
}

impl Reporter {
    pub(crate) fn new(
        backend: DynBackend,
        hypervisor: Arc<dyn Hypervisor>,
        clock: Arc<dyn Clock>,
        host: HostId,
        fence: latest::Receiver<Option<Fence>>,
        accelerator: String,
        (witness, held): (Witness, latest::Receiver<Held>),
    ) -> Self {
        Self {
            backend,
            hypervisor,
            clock,
            host,
            fence,
            accelerator,
            witness,
            held,
        }
    }

    /// Writes down all guests of the host, known to the cloud or not, until it is written.
    pub(crate) async fn report_guests(&self) {
        let mut fence = self.fence.clone();
        loop {
            let Ok(Some(held)) = fence.wait_for(Option::is_some).await.map(|f| f.clone()) else {
                return;
            };
            match self.try_guests(&held).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(error = %skyloom_model::report(&error), "the guests of the host are not reported")
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn try_guests(&self, fence: &Fence) -> Result<bool> {
        let hold = self.held.borrow().by();
        let found = self
            .hypervisor
            .list()
            .await
            .map_err(|e| Error::new(ErrorKind::Unavailable, "report guests").because(e))?;
        let more = found.len() > MOST_GUESTS;
        let guests = found.into_iter().take(MOST_GUESTS).filter_map(|found| {
            let (generation, power) = match found.inspection {
                Inspection::Found { generation, power } => (Some(generation), power),
                Inspection::CannotTell { .. } => (None, PowerState::Unknown),
                Inspection::Absent => return None,
            };
            Some(Guest {
                server: found.id,
                generation,
                power,
            })
        });
        let report = GuestReport {
            incarnation: self.witness.known(),
            hold,
            at: self.clock.now(),
            guests: guests.collect(),
            more,
        };
        let key = Key::parse(&paths::guests(self.host))
            .map_err(|e| Error::new(ErrorKind::Internal, "report guests").because(e))?;
        let txn = Txn::new().guard(fence.guard()).put(key, Value::json(&report)?);
        Ok(matches!(
            self.backend.commit(txn).await?,
            Outcome::Committed { .. }
        ))
    }

    /// Reports every virtual machine that was found at start, and those that were reported before and are not found.
    pub(crate) async fn report_all(&self, recovered: &[Recovered]) {
        for found in recovered {
            self.report(found.id, None).await;
        }
        match self.known().await {
            Ok(known) => {
                for gone in known
                    .iter()
                    .filter(|k| !recovered.iter().any(|r| r.id == k.value.server))
                {
                    self.report(gone.value.server, None).await;
                }
            }
            Err(error) => {
                tracing::warn!(error = %skyloom_model::report(&error), "former reports cannot be read")
            }
        }
    }

    /// Follows the hypervisor's events until `shutdown`.
    pub(crate) async fn run(&self, shutdown: CancellationToken) {
        let mut events = self.hypervisor.events();
        let mut resync = tokio::time::interval_at(Instant::now() + RESYNC, RESYNC);
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut held = self.held.clone();
        loop {
            let event = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Ok(()) = held.changed() => {
                    let on_hold = held.borrow_and_update().by().is_some();
                    if on_hold {
                        self.report_guests().await;
                    }
                    continue;
                }
                _ = resync.tick() => {
                    self.report_known().await;
                    let on_hold = held.borrow().by().is_some();
                    if on_hold {
                        self.report_guests().await;
                    }
                    continue;
                }
                event = events.next() => event,
            };
            match event {
                Some(event) => match (event.id, event.kind) {
                    (Some(id), VmEventKind::Power { cause, .. }) => self.report(id, cause).await,
                    (_, VmEventKind::Lost) | (None, _) => self.report_known().await,
                    (Some(id), _) => self.report(id, None).await,
                },
                None => {
                    // The stream ended with the hypervisor's own life: nothing more will come.
                    shutdown.cancelled().await;
                    return;
                }
            }
        }
    }

    /// Looks at every virtual machine that was reported before.
    async fn report_known(&self) {
        match self.known().await {
            Ok(known) => {
                for vm in known {
                    self.report(vm.value.server, None).await;
                }
            }
            Err(error) => {
                tracing::warn!(error = %skyloom_model::report(&error), "former reports cannot be read")
            }
        }
    }

    /// Looks at one virtual machine and writes what is, until it is written.
    async fn report(&self, id: ServerId, cause: Option<String>) {
        let mut fence = self.fence.clone();
        loop {
            let Ok(Some(held)) = fence.wait_for(Option::is_some).await.map(|f| f.clone()) else {
                return;
            };
            match self.try_report(id, cause.as_deref(), &held).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(server = %id, error = %skyloom_model::report(&error), "report not written")
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn try_report(&self, id: ServerId, cause: Option<&str>, fence: &Fence) -> Result<bool> {
        let Some(before) = self.read(id).await? else {
            // Never reported: its first job will, for only that knows the project.
            return Ok(true);
        };
        let txn = self.look(id, before.value.project, Some(&before), cause).await;
        if txn.writes.is_empty() {
            return Ok(true);
        }
        let outcome = self
            .backend
            .commit(txn.guard(before.unchanged()).guard(fence.guard()))
            .await?;
        Ok(matches!(outcome, Outcome::Committed { .. }))
    }

    /// The write that brings the record up to date, if there is a difference.
    async fn look(
        &self,
        id: ServerId,
        project: ProjectId,
        before: Option<&Versioned<VmObservation>>,
        cause: Option<&str>,
    ) -> Txn {
        let Ok(key) = Key::parse(&paths::host_vm(self.host, id)) else {
            return Txn::new();
        };
        match self.hypervisor.inspect(id).await {
            Ok(Inspection::Found { generation, power }) => {
                let same =
                    |v: &Versioned<VmObservation>| v.value.power == power && v.value.generation == generation;
                if before.is_some_and(same) {
                    return Txn::new();
                }
                let seen = VmObservation {
                    server: id,
                    project,
                    generation,
                    power,
                    cause: cause.map(str::to_owned),
                    accelerator: power.may_execute().then(|| self.accelerator.clone()),
                    observed_at: self.clock.now(),
                };
                match Value::json(&seen) {
                    Ok(value) => Txn::new().put(key, value),
                    Err(error) => {
                        tracing::error!(%error, "an observation cannot be written");
                        Txn::new()
                    }
                }
            }
            Ok(Inspection::Absent) => Txn::new().delete(key),
            // Nobody knows: what was last known stays.
            Ok(Inspection::CannotTell { reason }) => {
                tracing::warn!(server = %id, reason, "cannot tell what a guest is doing");
                Txn::new()
            }
            Err(error) => {
                tracing::warn!(server = %id, error = %skyloom_model::report(&error), "cannot look at a guest");
                Txn::new()
            }
        }
    }

    /// The server that a job of the host itself is about, if it was reported before: only that tells its project.
    async fn named(&self, record: &JobRecord) -> Option<(ServerId, ProjectId)> {
        let id: ServerId = record.spec.input.get("server")?.as_str()?.parse().ok()?;
        let before = self.read(id).await.ok()??;
        Some((id, before.value.project))
    }

    async fn read(&self, id: ServerId) -> Result<Option<Versioned<VmObservation>>> {
        let key = Key::parse(&paths::host_vm(self.host, id))
            .map_err(|e| Error::new(ErrorKind::Internal, "report").because(e))?;
        self.backend
            .get(&key)
            .await?
            .map(|kv| Versioned::decode(&kv))
            .transpose()
    }

    async fn known(&self) -> Result<Vec<Versioned<VmObservation>>> {
        let prefix = Prefix::parse(&paths::host_vms(self.host))
            .map_err(|e| Error::new(ErrorKind::Internal, "report").because(e))?;
        let mut known = Vec::new();
        let mut options = ListOptions::default();
        loop {
            let page = self.backend.list(&prefix, options.clone()).await?;
            for kv in &page.items {
                known.push(Versioned::decode(kv)?);
            }
            match page.items.last() {
                Some(last) if page.more => {
                    options = options.with_after(last.key.clone()).with_at(page.revision)
                }
                _ => return Ok(known),
            }
        }
    }
}

#[async_trait]
impl Companion for Reporter {
    async fn writes(&self, record: &JobRecord) -> Txn {
        let looked_at = match record.scope {
            Scope::Project(project) if record.subject.kind == Server::KIND => {
                Some((Id::from_uuid(record.subject.id), project))
            }
            _ => self.named(record).await,
        };
        match looked_at {
            Some((id, project)) => self.look(id, project, None, None).await,
            None => Txn::new(),
        }
    }
}
