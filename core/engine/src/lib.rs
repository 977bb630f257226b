//! The engine process as a library.
//!
//! ```text
//!  active/ ──mirror──┐
//!  jobs/   ──mirror──┼──> fair queue of task ids ──> Driver::drive(task) ──> Store      jobs of the engine run inside
//!  timers, tick ─────┘
//!  vms/, agents/, leases ──> observers: what agents see becomes the status of servers and hosts
//! ```
//!
//! Any number of engines run side by side on one store: tasks are claimed under the engine's lease, commits compare
//! revisions. An engine that dies leaves nothing behind but its claims, which others take over when its lease is gone.

mod admit;
mod fair;
mod observe;
mod queue;
mod rooms;

use std::sync::Arc;
use std::time::Duration;

use skyloom_flow::{
    Driver, DriverParts, FlowRegistry, HoldFeed, InventoryFeed, JobRegistry, LeaseKeeper, Witness,
};
use skyloom_model::{Clock, Ids, Phase, Readiness, paths};
use skyloom_scheduler::Scheduler;
use skyloom_store::{DynBackend, Error, ErrorKind, LeaseName, Prefix, Result, latest};
use tokio_util::sync::CancellationToken;

use self::admit::Admission;

/// How an engine works.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineConfig {
    /// Its name: unique among the engines of a cloud, kept over restarts, so that a restarted engine goes on with its
    /// own tasks.
    pub name: String,
    /// How long its lease lasts without renewal: after that, others take over its tasks.
    pub lease_ttl: Duration,
    /// Whether no former life of it can go on, for the caller holds a lock that ends with the process: then it goes on with its
    /// own tasks at once. Else it waits for the end of its former life's lease, unless that life has given it back.
    pub alone: bool,
    /// Tasks looked at at the same time. Those that only wait do not count.
    pub concurrency: usize,
    /// Jobs of the engine run at the same time.
    pub job_slots: usize,
    /// How often everything is looked at again, whatever the watches said.
    pub resync: Duration,
}

impl EngineConfig {
    /// An engine of that name: lease 10 s, 64 tasks and 64 jobs of its own at once, everything looked at every 5 s.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            lease_ttl: Duration::from_secs(10),
            alone: false,
            concurrency: 64,
            job_slots: 64,
            resync: Duration::from_secs(5),
        }
    }

    /// With another lease time.
    #[must_use]
    pub fn with_lease_ttl(mut self, ttl: Duration) -> Self {
        self.lease_ttl = ttl;
        self
    }

    /// For a caller with a lock that ends with the process: see [`EngineConfig::alone`].
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
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

    /// Works until `shutdown`. When the store has begun another history (it was restored, or moved), all caches are dropped
    /// and everything begins anew.
    ///
    /// # Errors
    /// Only when it cannot begin: a name that is no lease name. Everything later is retried.
    pub async fn run(self, shutdown: CancellationToken) -> Result<()> {
        let witness = Witness::default();
        loop {
            let again = CancellationToken::new();
            self.live(&witness, &again, &shutdown).await?;
            if !again.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// Works in one history of the store, until `shutdown` or until `again` is cancelled.
    async fn live(
        &self,
        witness: &Witness,
        again: &CancellationToken,
        shutdown: &CancellationToken,
    ) -> Result<()> {
        let EngineParts {
            backend,
            flows,
            jobs,
            scheduler,
            clock,
            ids,
            readiness,
            config,
        } = &self.parts;
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
        let (keeper, granted) = LeaseKeeper::new(
            backend.clone(),
            clock.clone(),
            lease,
            &config.name,
            config.lease_ttl,
        );
        let keeper = if config.alone { keeper.alone() } else { keeper };
        let (admitted, fence) = latest::channel(None);
        let give_back = shutdown.child_token();
        let admission = Admission {
            backend: backend.clone(),
            granted,
            admitted,
            readiness: readiness.clone(),
            witness: witness.clone(),
            give_back: give_back.clone(),
            again: again.clone(),
        };
        let (hold, held) = HoldFeed::new(backend)?;
        let (inventory, inventory_driver) = InventoryFeed::new(backend)?;
        let driver = Driver::new(DriverParts {
            backend: backend.clone(),
            flows: flows.clone(),
            jobs: jobs.clone(),
            scheduler: scheduler.clone(),
            inventory: inventory.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
            engine: config.name.clone(),
            job_slots: config.job_slots,
        });
        let queue = queue::Queue::new(backend, driver, clock.clone(), (fence.clone(), held), config)?;
        let queue_ready = queue.ready();
        let observers = observe::Observers::new(
            backend,
            clock.clone(),
            ids.clone(),
            fence.clone(),
            inventory.hosts().clone(),
            config,
        )?;
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
                observers_ready.0.ready().await?;
                observers_ready.1.ready().await?;
                queue_ready.await
            };
            if let Ok(open) = caches.await {
                let hosts = inventory.with(|i| i.hosts().count());
                readiness.done(
                    "engine",
                    Phase::Caches,
                    format!("{hosts} hosts, {open} open tasks"),
                );
                readiness.done("engine", Phase::Watch, "following tasks, jobs and hosts");
                tracing::info!(engine = config.name, "engine ready");
            }
            std::future::pending::<()>().await;
        };
        // One future drives all parts: when the caller drops it, everything stops.
        tokio::select! {
            biased;
            () = again.cancelled() => {}
            () = async { tokio::join!(
                keeper.run(give_back),
                admission.run(shutdown.clone()),
                hold.run(shutdown.clone()),
                inventory_driver.run(shutdown.clone()),
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
