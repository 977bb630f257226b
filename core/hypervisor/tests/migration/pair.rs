//! Two fake hosts on one wire that sit the exam, with one bug or none.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use skyloom_hypervisor::conformance::{MigrationExam, PairUnderExam, Side};
use skyloom_hypervisor::{
    Boot, Capability, Console, FakeHypervisor, FakeOptions, FakeWire, FakeWorld, GuestAgent, Half, Hotplug,
    Hypervisor, Incoming, Inspection, Migrating, Migration, Pause, Recovered, Result, Screen, Snapshots,
    StopMode, Stopped, Stream, Suspend, VmEvent, VmSpec,
};
use skyloom_model::{HostFacts, Ids, ManualClock, Name, PowerState, ProjectId, SeededIds, ServerId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    StartsWhatWaits,
    StartsWhatWaitedOnceStopped,
    StartsWhatIsHandedOver,
    ForgetsThatItIsHandedOver,
    TakesOverWhatIsNotThere,
    LosesTheMemory,
    HandsOverNothing,
    HandsOverWhatIsNotReady,
    CancelKills,
    CancelsWhatIsHandedOver,
    UnpauseLetsTheHeldGo,
    ForcesNothing,
    BreaksWithItsDestination,
    ObeysStaleOrders,
    RefusesRepeats,
}

/// Two hosts that number their effects in one order.
pub(crate) fn worlds() -> (FakeWorld, FakeWorld) {
    let (wire, sequence) = (FakeWire::default(), Arc::new(AtomicU64::new(1)));
    let host = |tag| {
        let options = FakeOptions::in_memory()
            .tag(tag)
            .sequence(sequence.clone())
            .wire(&wire);
        FakeWorld::open(options).unwrap()
    };
    (host(1), host(2))
}

pub(crate) fn spec(seed: u64) -> VmSpec {
    let ids = SeededIds::new(ManualClock::new(), seed);
    VmSpec {
        id: ServerId::from_uuid(ids.uuid()),
        project: ProjectId::from_uuid(ids.uuid()),
        name: Name::new("moves").unwrap(),
        generation: 1,
        vcpus: 1,
        memory_mib: 64,
        disks: Vec::new(),
        nics: Vec::new(),
        boot: Boot::FirstDisk,
    }
}

#[derive(Debug)]
pub(crate) struct FakePairs(pub(crate) Bug);

struct Pair {
    worlds: [FakeWorld; 2],
    bug: Bug,
    reopened: bool,
}

impl Pair {
    fn world(&self, side: Side) -> &FakeWorld {
        &self.worlds[usize::from(side == Side::Destination)]
    }
}

#[async_trait]
impl MigrationExam for FakePairs {
    async fn sit(&self) -> Box<dyn PairUnderExam> {
        let (source, destination) = worlds();
        Box::new(Pair {
            worlds: [source, destination],
            bug: self.0,
            reopened: false,
        })
    }
    fn patience(&self) -> Duration {
        Duration::from_millis(500)
    }
}

#[async_trait]
impl PairUnderExam for Pair {
    fn hypervisor(&self, side: Side) -> Arc<dyn Hypervisor> {
        Arc::new(Faulty(self.world(side).hypervisor(), self.bug, self.reopened))
    }
    async fn reopen(&mut self) {
        self.reopened = true;
        for side in [Side::Source, Side::Destination] {
            self.hypervisor(side).recover().await.unwrap();
        }
    }
    async fn spec(&self, busy: bool) -> VmSpec {
        let spec = spec(1);
        self.worlds[0].busy_guest(spec.id, busy).unwrap();
        spec
    }
    async fn executes(&self, side: Side, id: ServerId) -> bool {
        let domain = self.world(side).domain(id).unwrap();
        domain.is_some_and(|d| d.power == PowerState::Running)
    }
    async fn remember(&self, side: Side, id: ServerId, number: u64) {
        assert!(self.world(side).remember(id, number).unwrap());
    }
    async fn memory(&self, side: Side, id: ServerId) -> u64 {
        self.world(side).domain(id).unwrap().unwrap().memory
    }
    async fn crash(&self, side: Side, id: ServerId) {
        let world = self.world(side);
        if !world.crash_incoming(id).unwrap() {
            world.crash_guest(id).unwrap();
        }
        for world in &self.worlds {
            world.lose_stream(id).unwrap();
        }
        if self.bug == Bug::BreaksWithItsDestination {
            self.worlds[0].crash_guest(id).unwrap();
        }
    }
}

const NEWEST: u64 = u64::MAX;

/// The last part is whether it was opened again.
#[derive(Debug)]
struct Faulty(FakeHypervisor, Bug, bool);

impl Faulty {
    fn half(&self, id: ServerId) -> Option<Half> {
        self.0.world().domain(id).unwrap().map(|d| d.migration.half)
    }
    /// A guest process without asking anybody.
    async fn boot(&self, id: ServerId, generation: u64) -> Result<()> {
        let spec = self.0.world().domain(id).unwrap().unwrap().spec;
        self.0.undefine(id, NEWEST).await?;
        self.0.define(&VmSpec { generation, ..spec }).await?;
        self.0.start(id, generation).await
    }
    fn ordered(&self, generation: u64) -> u64 {
        if self.1 == Bug::ObeysStaleOrders {
            generation.max(2)
        } else {
            generation
        }
    }
}

#[async_trait]
impl Hypervisor for Faulty {
    fn capability(&self) -> Capability {
        self.0.capability()
    }
    async fn facts(&self) -> Result<HostFacts> {
        self.0.facts().await
    }
    async fn define(&self, spec: &VmSpec) -> Result<()> {
        self.0.define(spec).await
    }
    async fn start(&self, id: ServerId, generation: u64) -> Result<()> {
        match (self.1, self.half(id)) {
            (Bug::StartsWhatWaits, Some(Half::Receiving))
            | (Bug::StartsWhatIsHandedOver, Some(Half::HandedOver)) => self.boot(id, generation).await,
            (Bug::ForgetsThatItIsHandedOver, Some(Half::HandedOver)) if self.2 => {
                self.boot(id, generation).await
            }
            _ => self.0.start(id, generation).await,
        }
    }
    async fn stop(&self, id: ServerId, generation: u64, mode: StopMode) -> Result<Stopped> {
        if (self.1, self.half(id)) == (Bug::StartsWhatWaitedOnceStopped, Some(Half::Receiving)) {
            let spec = self.0.world().domain(id).unwrap().unwrap().spec;
            self.0.undefine(id, NEWEST).await?;
            self.0.define(&spec).await?;
        }
        self.0.stop(id, generation, mode).await
    }
    async fn undefine(&self, id: ServerId, generation: u64) -> Result<()> {
        self.0.undefine(id, generation).await
    }
    async fn inspect(&self, id: ServerId) -> Result<Inspection> {
        self.0.inspect(id).await
    }
    async fn recover(&self) -> Result<Vec<Recovered>> {
        self.0.recover().await
    }
    async fn list(&self) -> Result<Vec<Recovered>> {
        self.0.list().await
    }
    fn events(&self) -> BoxStream<'static, VmEvent> {
        self.0.events()
    }
    fn as_console(&self) -> Option<&dyn Console> {
        self.0.as_console()
    }
    fn as_pause(&self) -> Option<&dyn Pause> {
        Some(self)
    }
    fn as_suspend(&self) -> Option<&dyn Suspend> {
        self.0.as_suspend()
    }
    fn as_snapshots(&self) -> Option<&dyn Snapshots> {
        self.0.as_snapshots()
    }
    fn as_hotplug(&self) -> Option<&dyn Hotplug> {
        self.0.as_hotplug()
    }
    fn as_screen(&self) -> Option<&dyn Screen> {
        self.0.as_screen()
    }
    fn as_guest_agent(&self) -> Option<&dyn GuestAgent> {
        self.0.as_guest_agent()
    }
    fn as_migration(&self) -> Option<&dyn Migration> {
        Some(self)
    }
}

#[async_trait]
impl Pause for Faulty {
    async fn pause(&self, id: ServerId, generation: u64) -> Result<()> {
        Pause::pause(&self.0, id, generation).await
    }
    async fn unpause(&self, id: ServerId, generation: u64) -> Result<()> {
        if (self.1, self.half(id)) == (Bug::UnpauseLetsTheHeldGo, Some(Half::Sending)) {
            return self.0.cancel(id, generation).await;
        }
        self.0.unpause(id, generation).await
    }
}

#[async_trait]
impl Migration for Faulty {
    async fn receive(&self, spec: &VmSpec) -> Result<Incoming> {
        let generation = self.ordered(spec.generation);
        self.0
            .receive(&VmSpec {
                generation,
                ..spec.clone()
            })
            .await
    }
    async fn send(&self, id: ServerId, generation: u64, address: &str) -> Result<()> {
        self.0.send(id, self.ordered(generation), address).await
    }
    async fn migration(&self, id: ServerId) -> Result<Migrating> {
        self.0.migration(id).await
    }
    async fn cancel(&self, id: ServerId, generation: u64) -> Result<()> {
        match (self.1, self.half(id)) {
            (Bug::CancelKills, Some(Half::Sending)) => {
                self.0.stop(id, generation, StopMode::Force).await.map(|_| ())
            }
            (Bug::CancelsWhatIsHandedOver, Some(Half::HandedOver)) => self.boot(id, generation).await,
            _ => self.0.cancel(id, self.ordered(generation)).await,
        }
    }
    async fn force(&self, id: ServerId, generation: u64, downtime: Duration) -> Result<()> {
        if self.1 == Bug::ForcesNothing {
            return Ok(());
        }
        self.0.force(id, self.ordered(generation), downtime).await
    }
    async fn hand_over(&self, id: ServerId, generation: u64) -> Result<Stream> {
        match (self.1, self.half(id)) {
            (Bug::HandsOverNothing, Some(Half::Sending)) => Ok(Stream::Complete),
            (Bug::HandsOverWhatIsNotReady, Some(Half::Sending)) => {
                self.0.force(id, generation, Duration::ZERO).await?;
                self.0.hand_over(id, generation).await
            }
            (Bug::RefusesRepeats, Some(Half::HandedOver)) => {
                self.0.cancel(id, generation).await.map(|()| Stream::Broken)
            }
            _ => self.0.hand_over(id, self.ordered(generation)).await,
        }
    }
    async fn take_over(&self, id: ServerId, generation: u64) -> Result<()> {
        let waits = self.half(id) == Some(Half::Receiving);
        if self.1 == Bug::TakesOverWhatIsNotThere && waits {
            return self.boot(id, generation).await;
        }
        self.0.take_over(id, self.ordered(generation)).await?;
        if self.1 == Bug::LosesTheMemory && waits {
            self.0.world().remember(id, 0)?;
        }
        Ok(())
    }
}
