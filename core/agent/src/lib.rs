//! The agent process as a library: one host.
//!
//! ```text
//!  jobs/{host}/ ──mirror──> Worker ──> jobs ──> Hypervisor, HostStorage
//!                             │ result + VmObservation in one commit, under the host's lease
//!  Hypervisor::events ──> Reporter ──> vms/{host}/{server}
//!  queries/{host}/ ──> answers (console tail)
//!
//!  lease hosts/{host} ──> Admission: the store is ours, the journal has the epoch ──> all of them
//!  cloud/ ──> hold: nothing is begun, all guests are reported
//! ```
//!
//! The agent touches nothing in the store but its own host's areas ([`skyloom_model::paths::agent_areas`]) and acts only
//! on jobs bound to its host. Guests are not its children: it may die and come back at any time, and adopts them.

mod admit;
#[cfg(feature = "http")]
mod content;
mod journal;
mod report;

use std::sync::Arc;
use std::time::Duration;

use skyloom_flow::journal::Journal;
use skyloom_flow::{Fence, HoldFeed, JobRegistry, LeaseKeeper, Witness, Worker, WorkerParts};
use skyloom_hypervisor::{Hypervisor, Recovered};
use skyloom_model::{AgentStatus, Clock, HostId, Phase, Readiness, paths};
use skyloom_store::{DynBackend, Error, ErrorKind, Key, LeaseName, Outcome, Result, Txn, Value, latest};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "http")]
pub use content::{HttpContent, HttpContentConfig};
pub use journal::FileJournal;

use admit::Admission;
use report::Reporter;

/// How an agent works.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AgentConfig {
    /// Which host this is.
    pub host: HostId,
    /// Display name, for logs and the lease.
    pub name: String,
    /// How long the host's lease lasts without renewal: after that the host counts as unreachable.
    pub lease_ttl: Duration,
    /// Jobs at the same time (of different servers).
    pub concurrency: usize,
    /// What the host can do beside its hypervisor: told with the hypervisor's own traits.
    pub traits: Vec<String>,
}

impl AgentConfig {
    /// The agent of `host`: lease 10 s, 8 jobs at once.
    #[must_use]
    pub fn new(host: HostId, name: impl Into<String>) -> Self {
        Self {
            host,
            name: name.into(),
            lease_ttl: Duration::from_secs(10),
            concurrency: 8,
            traits: Vec::new(),
        }
    }

    /// With what the host can do beside its hypervisor.
    #[must_use]
    pub fn with_traits(mut self, traits: Vec<String>) -> Self {
        self.traits = traits;
        self
    }
}

/// What an agent is made of.
#[derive(Debug)]
pub struct AgentParts {
    /// Where everything is.
    pub backend: DynBackend,
    /// The host's virtual machines.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// The jobs that this host can do.
    pub jobs: JobRegistry,
    /// What it is about to do and what came of it, across its own death.
    pub journal: Arc<dyn Journal>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where it reports its boot phases.
    pub readiness: Readiness,
    /// How it works.
    pub config: AgentConfig,
}

/// An agent.
#[derive(Debug)]
pub struct Agent {
    parts: AgentParts,
    part: String,
}

impl Agent {
    /// An agent of these parts.
    #[must_use]
    pub fn new(parts: AgentParts) -> Self {
        let part = format!("agent {}", parts.config.name);
        parts.readiness.expect(&part);
        Self { parts, part }
    }

    /// Works until `shutdown`; guests run on. When the store has begun another history (it was restored, or moved), all that
    /// is remembered of the former one is dropped, and everything begins anew.
    ///
    /// # Errors
    /// Only when it cannot begin: the hypervisor cannot tell which guests it has. Everything later is retried.
    pub async fn run(self, shutdown: CancellationToken) -> Result<()> {
        let recovered = {
            let AgentParts {
                hypervisor, config, ..
            } = &self.parts;
            hypervisor.recover().await.map_err(|e| cannot_start(config, e))?
        };
        let witness = Witness::default();
        let mut guests = recovered;
        loop {
            let again = CancellationToken::new();
            self.live(&guests, &witness, &again, &shutdown).await?;
            if !again.is_cancelled() {
                return Ok(());
            }
            let AgentParts {
                hypervisor, config, ..
            } = &self.parts;
            guests = hypervisor.list().await.map_err(|e| cannot_start(config, e))?;
        }
    }

    /// Works in one history of the store, until `shutdown` or until `again` is cancelled.
    async fn live(
        &self,
        recovered: &[Recovered],
        witness: &Witness,
        again: &CancellationToken,
        shutdown: &CancellationToken,
    ) -> Result<()> {
        let AgentParts {
            backend,
            hypervisor,
            jobs,
            journal,
            clock,
            readiness,
            config,
        } = &self.parts;
        let part = self.part.clone();
        readiness.done(
            &part,
            Phase::Configuration,
            format!("{} kinds of jobs", jobs.kinds().count()),
        );
        let mut facts = skyloom_hypervisor::facts_of(&**hypervisor)
            .await
            .map_err(|e| cannot_start(config, e))?;
        facts.traits.extend(config.traits.iter().cloned());
        tracing::info!(
            host = config.name,
            guests = recovered.len(),
            accelerator = facts.accelerator,
            "host looked at"
        );

        let lease = LeaseName::parse(&paths::host_lease(config.host))
            .map_err(|e| Error::new(ErrorKind::Internal, "start agent").because(e))?;
        let (keeper, granted) = LeaseKeeper::new(
            backend.clone(),
            clock.clone(),
            lease,
            &config.name,
            config.lease_ttl,
        );
        // Its journal is this process's alone.
        let keeper = keeper.alone();
        let (admitted, fence) = latest::channel(None);
        let give_back = shutdown.child_token();
        let admission = Admission {
            backend: backend.clone(),
            granted,
            admitted,
            journal: journal.clone(),
            readiness: readiness.clone(),
            part: part.clone(),
            witness: witness.clone(),
            give_back: give_back.clone(),
            again: again.clone(),
        };
        let (hold, held) = HoldFeed::new(backend)?;
        let status = AgentStatus {
            incarnation: 0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: clock.now(),
            facts: facts.clone(),
            kinds: jobs.kinds().map(str::to_owned).collect(),
        };
        let reporter = Arc::new(Reporter::new(
            backend.clone(),
            hypervisor.clone(),
            clock.clone(),
            config.host,
            fence.clone(),
            format!("{} ({})", facts.accelerator, facts.accelerator_reason),
            (witness.clone(), held.clone()),
        ));
        let worker = Worker::new(WorkerParts {
            backend: backend.clone(),
            host: config.host,
            jobs: jobs.clone(),
            clock: clock.clone(),
            fence: fence.clone(),
            journal: journal.clone(),
            companion: Some(reporter.clone()),
            concurrency: config.concurrency,
        })?
        .held_by(held);
        let jobs_ready = worker.mirror();
        let answers = skyloom_cloud::answer_queries(
            skyloom_cloud::ResponderParts {
                backend: backend.clone(),
                host: config.host,
                hypervisor: hypervisor.clone(),
                clock: clock.clone(),
                fence: fence.clone(),
            },
            shutdown.clone(),
        );
        let boot = async {
            let detail = format!(
                "{} guests, {} ({})",
                recovered.len(),
                facts.accelerator,
                facts.accelerator_reason
            );
            introduce(
                backend,
                config,
                status,
                fence.clone(),
                |epoch| {
                    readiness.done(&part, Phase::Health, format!("incarnation {epoch}: {detail}"));
                },
                async {
                    if jobs_ready.ready().await.is_ok() {
                        readiness.done(
                            &part,
                            Phase::Caches,
                            format!("{} open jobs", jobs_ready.snapshot().len()),
                        );
                        reporter.report_all(recovered).await;
                        reporter.report_guests().await;
                        readiness.done(&part, Phase::Watch, "following jobs and guests");
                        tracing::info!(host = config.name, "agent ready");
                    }
                },
            )
            .await;
        };
        tokio::select! {
            biased;
            () = again.cancelled() => {}
            () = async { tokio::join!(
                keeper.run(give_back),
                hold.run(shutdown.clone()),
                admission.run(shutdown.clone()),
                worker.run(shutdown.clone()),
                reporter.run(shutdown.clone()),
                async {
                    if let Err(error) = answers.await {
                        tracing::error!(error = %skyloom_model::report(&error), "questions are no longer answered");
                    }
                },
            ); } => {}
            () = boot => {}
        }
        Ok(())
    }
}

fn cannot_start(config: &AgentConfig, error: skyloom_hypervisor::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "start agent")
        .with("host", &config.name)
        .because(error)
}

/// Writes the agent's status under every new incarnation of its lease; runs `first` once after the first.
async fn introduce(
    backend: &DynBackend,
    config: &AgentConfig,
    mut status: AgentStatus,
    mut fence: latest::Receiver<Option<Fence>>,
    done: impl Fn(u64),
    first: impl Future<Output = ()>,
) {
    let mut first = Some(Box::pin(first));
    while let Ok(held) = fence.wait_for(Option::is_some).await.map(|f| f.clone()) {
        let Some(held) = held else { continue };
        status.incarnation = held.epoch;
        match write_status(backend, config.host, &status, &held).await {
            Ok(Outcome::Committed { .. }) => {
                done(held.epoch);
                if let Some(first) = first.take() {
                    first.await;
                }
                if fence.wait_for(|f| f.as_ref() != Some(&held)).await.is_err() {
                    return;
                }
            }
            Ok(Outcome::Conflict { .. }) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => {
                tracing::warn!(host = config.name, error = %skyloom_model::report(&error), "host status not written");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn write_status(
    backend: &DynBackend,
    host: HostId,
    status: &AgentStatus,
    fence: &Fence,
) -> Result<Outcome> {
    let key = Key::parse(&paths::agent_status(host))
        .map_err(|e| Error::new(ErrorKind::Internal, "write host status").because(e))?;
    backend
        .commit(Txn::new().guard(fence.guard()).put(key, Value::json(status)?))
        .await
}
