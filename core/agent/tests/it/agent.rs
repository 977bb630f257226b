//! An agent over a store in memory and simulated guests.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use serde_json::Value;
use skyloom_agent::{Agent, AgentConfig, AgentParts};
use skyloom_flow::journal::{Journal, MemoryDisk, MemoryJournal};
use skyloom_flow::{Job, JobContext, JobError, JobRegistry, Undo};
use skyloom_hypervisor::{FakeOptions, FakeWorld};
use skyloom_model::{AgentStatus, Clock, HostId, Phase, PhaseState, Readiness, SystemClock, paths};
use skyloom_store::{
    DynBackend, Grant, Key, LeaseMode, LeaseName, MemoryConfig, MemoryStore, Prefix, Revision, WatchOptions,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

#[derive(Debug)]
struct Nothing(&'static str);

#[async_trait]
impl Job for Nothing {
    fn kind(&self) -> &'static str {
        self.0
    }
    async fn run(&self, _: &JobContext<'_>) -> Result<Value, JobError> {
        Ok(Value::Null)
    }
    async fn undo(&self, _: &JobContext<'_>) -> Result<Undo, JobError> {
        Ok(Undo::Undone)
    }
}

struct Host {
    id: HostId,
    store: DynBackend,
    clock: Arc<dyn Clock>,
    readiness: Readiness,
    shutdown: CancellationToken,
}

impl Host {
    fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Self {
            id: HostId::from_uuid(Uuid::from_u128(7)),
            store: Arc::new(MemoryStore::new(clock.clone(), MemoryConfig::default())),
            clock,
            readiness: Readiness::new(),
            shutdown: CancellationToken::new(),
        }
    }

    fn lease(&self) -> LeaseName {
        LeaseName::parse(&paths::host_lease(self.id)).unwrap()
    }

    fn live(&self, journal: MemoryJournal) -> JoinSet<skyloom_store::Result<()>> {
        let world = FakeWorld::open(FakeOptions::in_memory()).unwrap();
        let agent = Agent::new(AgentParts {
            backend: self.store.clone(),
            hypervisor: Arc::new(world.hypervisor()),
            jobs: JobRegistry::new().with(Nothing("b")).with(Nothing("a")),
            journal: Arc::new(journal),
            clock: self.clock.clone(),
            readiness: self.readiness.clone(),
            config: AgentConfig::new(self.id, "h"),
        });
        let mut running = JoinSet::new();
        running.spawn(agent.run(self.shutdown.clone()));
        running
    }

    fn status_key(&self) -> Key {
        Key::parse(&paths::agent_status(self.id)).unwrap()
    }
}

#[tokio::test]
async fn an_agent_writes_down_its_epoch_before_it_shows_itself() {
    let host = Host::new();
    let disk = MemoryDisk::new();
    let mut running = host.live(MemoryJournal::open(&disk).unwrap());
    let mut changes = host.store.watch(&Prefix::all(), WatchOptions::after(Revision(0)));
    let status = loop {
        if let Some(kv) = host.store.get(&host.status_key()).await.unwrap() {
            break kv.value.parse::<AgentStatus>().unwrap();
        }
        changes.next().await.unwrap().unwrap();
    };
    assert_eq!(status.kinds, ["a", "b"]);
    assert!(
        disk.durable()
            .grant(&host.lease(), status.incarnation)
            .1
            .is_some()
    );
    assert!(
        disk.durable()
            .grant(&host.lease(), status.incarnation + 1)
            .1
            .is_none()
    );
    host.shutdown.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn an_agent_does_not_act_under_an_epoch_older_than_it_has_held() {
    let host = Host::new();
    let disk = MemoryDisk::new();
    let journal = MemoryJournal::open(&disk).unwrap();
    journal.hold(&host.lease(), 100).await.unwrap();
    let mut running = host.live(journal);
    // It takes the lease, sees the epoch, and gives the lease back.
    let said = loop {
        let report = host.readiness.report();
        let health = report.into_iter().find(|r| r.phase == Phase::Health).unwrap();
        assert_eq!(health.state, PhaseState::Pending);
        if !health.detail.is_empty() {
            break health.detail;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(said.contains("epoch 1,") && said.contains("epoch 100"), "{said}");
    while !host.store.leases(&Prefix::all()).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(host.store.get(&host.status_key()).await.unwrap().is_none());
    host.shutdown.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
    let granted = host
        .store
        .grant(&host.lease(), "x", Duration::from_secs(1), LeaseMode::Acquire)
        .await;
    assert_eq!(granted.unwrap(), Grant::Granted { epoch: 2 }, "asked for once");
}
