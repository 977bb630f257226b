//! The engine process as a library.
//!
//! ```text
//!  active/ ──mirror──┐                      ┌──> Driver::step(task) ──> Store      one task, one step at a time
//!  jobs/   ──mirror──┼──> queue of task ids ┤
//!  tick    ──────────┘                      └──> Worker (jobs with place `engine`)
//!  vms/, agents/, leases ──> observers: what agents see becomes the status of servers and hosts
//! ```
//!
//! Any number of engines run side by side on one store: tasks are claimed under the engine's lease, commits compare
//! revisions. An engine that dies leaves nothing behind but its claims, which others take over when its lease is gone.

mod observe;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use skyloom_flow::{
    Driver, DriverParts, FlowRegistry, InventoryFeed, JobRegistry, LeaseKeeper, Worker, WorkerParts,
};
use skyloom_model::{Clock, Ids, Phase, Place, Readiness, paths};
use skyloom_scheduler::Scheduler;
use skyloom_store::{DynBackend, Error, ErrorKind, LeaseName, Prefix, Result};
use tokio_util::sync::CancellationToken;

/// How an engine works.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineConfig {
    /// Its name: unique among the engines of a cloud, kept over restarts, so that a restarted engine goes on with its
    /// own tasks at once.
    pub name: String,
    /// How long its lease lasts without renewal: after that, others take over its tasks.
    pub lease_ttl: Duration,
    /// Tasks stepped at the same time.
    pub concurrency: usize,
    /// How often everything is looked at again, whatever the watches said.
    pub resync: Duration,
}

impl EngineConfig {
    /// An engine of that name: lease 10 s, 64 tasks at once, everything looked at every 5 s.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            lease_ttl: Duration::from_secs(10),
            concurrency: 64,
            resync: Duration::from_secs(5),
        }
    }

    /// With another lease time.
    #[must_use]
    pub fn with_lease_ttl(mut self, ttl: Duration) -> Self {
        self.lease_ttl = ttl;
        self
    }

    /// With another resync period.
    #[must_use]
    pub fn with_resync(mut self, period: Duration) -> Self {
        self.resync = period;
        self
    }
}

/// What an engine is made of.
#[derive(Debug)]
pub struct EngineParts {
    /// Where everything is.
    pub backend: DynBackend,
    /// The flows that it plans.
    pub flows: FlowRegistry,
    /// The jobs that it runs itself.
    pub jobs: JobRegistry,
    /// Chooses hosts.
    pub scheduler: Arc<dyn Scheduler>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn Ids>,
    /// Where it reports its boot phases.
    pub readiness: Readiness,
    /// How it works.
    pub config: EngineConfig,
}

/// An engine.
#[derive(Debug)]
pub struct Engine {
    parts: EngineParts,
}

impl Engine {
    /// An engine of these parts.
    #[must_use]
    pub fn new(parts: EngineParts) -> Self {
        parts.readiness.expect("engine");
        Self { parts }
    }

    /// Works until `shutdown`.
    ///
    /// # Errors
    /// Only when it cannot begin: a name that is no lease name. Everything later is retried.
    pub async fn run(self, shutdown: CancellationToken) -> Result<()> {
        let EngineParts {
            backend,
            flows,
            jobs,
            scheduler,
            clock,
            ids,
            readiness,
            config,
        } = self.parts;
        let known = format!(
            "{} flows, {} engine jobs",
            flows.names().count(),
            jobs.kinds().count()
        );
        readiness.done("engine", Phase::Configuration, known);

        let lease = LeaseName::parse(&paths::engine_lease(&config.name)).map_err(|e| {
            Error::new(ErrorKind::Invalid, "start engine")
                .with("name", &config.name)
                .because(e)
        })?;
        let (keeper, fence) = LeaseKeeper::new(
            backend.clone(),
            clock.clone(),
            lease,
            &config.name,
            config.lease_ttl,
        );
        let (inventory, inventory_driver) = InventoryFeed::new(&backend)?;
        let driver = Driver::new(DriverParts {
            backend: backend.clone(),
            flows,
            scheduler,
            inventory: inventory.clone(),
            clock: clock.clone(),
            ids,
            engine: config.name.clone(),
        });
        let worker = Worker::new(WorkerParts {
            backend: backend.clone(),
            place: Place::Engine,
            jobs,
            clock: clock.clone(),
            fence: fence.clone(),
            journal: Arc::new(skyloom_flow::journal::NoJournal),
            companion: None,
            concurrency: config.concurrency,
        })?;
        let worker_ready = worker.mirror();
        let queue = queue::Queue::new(&backend, driver, fence.clone(), &config)?;
        let queue_ready = queue.mirrors();
        let observers =
            observe::Observers::new(&backend, clock, fence.clone(), inventory.hosts().clone(), &config)?;
        let observers_ready = observers.mirrors();

        let boot = async {
            let mut held = fence.clone();
            if held.wait_for(Option::is_some).await.is_err() {
                return;
            }
            readiness.done(
                "engine",
                Phase::Health,
                format!("holds the lease of engine {}", config.name),
            );
            let caches = async {
                inventory.ready().await?;
                worker_ready.ready().await?;
                queue_ready.0.ready().await?;
                queue_ready.1.ready().await?;
                observers_ready.0.ready().await?;
                observers_ready.1.ready().await
            };
            if caches.await.is_ok() {
                let hosts = inventory.with(|i| i.hosts().count());
                readiness.done(
                    "engine",
                    Phase::Caches,
                    format!("{hosts} hosts, {} open tasks", queue_ready.0.snapshot().len()),
                );
                readiness.done("engine", Phase::Watch, "following tasks, jobs and hosts");
                tracing::info!(engine = config.name, "engine ready");
            }
            std::future::pending::<()>().await;
        };
        // One future drives all parts: when the caller drops it, everything stops.
        tokio::select! {
            () = async { tokio::join!(
                keeper.run(shutdown.clone()),
                inventory_driver.run(shutdown.clone()),
                worker.run(shutdown.clone()),
                queue.run(shutdown.clone()),
                observers.run(shutdown.clone()),
            ); } => {}
            () = boot => {}
        }
        Ok(())
    }
}

fn prefix(path: &str) -> Result<Prefix> {
    Prefix::parse(path).map_err(|e| Error::new(ErrorKind::Internal, "start engine").because(e))
}
