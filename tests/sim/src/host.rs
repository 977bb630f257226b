//! A host's hypervisor and disks as one process sees them: each verb takes its time, and stops at the process's gate.
//!
//! What a verb did is reported to the bed at once, so that the checker sees effects in the order in which they happen.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use skyloom_flow::journal::MemoryDisk;
use skyloom_hypervisor::{
    CachedImage, Capability, Console, DiskInfo, FakeHypervisor, FakeOptions, FakeStorage, FakeWorld,
    HostStorage, HostVolumes, Hypervisor, ImageSpec, Incoming, Inspection, Migrating, Migration, OverlaySpec,
    ProgressFn, Recovered, Result, StopMode, Stopped, Stream, VmEvent, VmSpec, VolumeAt, VolumeFile,
    VolumeInfo, VolumeOrder, VolumeSnapshot,
};
use skyloom_model::{HostFacts, HostId, ServerId, SnapshotId};
use tokio_util::sync::CancellationToken;

use crate::bed::Bed;
use crate::checker::HostSeen;
use crate::gate::Gate;
use crate::rng::Rng;

/// A host, whoever works on it.
#[derive(Debug)]
pub(crate) struct HostBed {
    pub(crate) id: HostId,
    pub(crate) name: String,
    pub(crate) fake: FakeWorld,
    /// Where its agent's journal is.
    pub(crate) disk: MemoryDisk,
    bed: Arc<Bed>,
    /// The number up to which effects were reported.
    told: Mutex<u64>,
}

impl HostBed {
    pub(crate) fn new(bed: Arc<Bed>, id: HostId, name: String, options: FakeOptions) -> Result<Self> {
        Ok(Self {
            id,
            name,
            fake: FakeWorld::open(options)?,
            disk: MemoryDisk::new(),
            bed,
            told: Mutex::new(0),
        })
    }

    /// Reports what has happened since the last time.
    pub(crate) fn report(&self) {
        let Ok(now) = self.fake.position() else { return };
        let before = std::mem::replace(&mut *self.told.lock(), now);
        if before == now {
            return;
        }
        for effect in self.fake.history_since(before).unwrap_or_default() {
            self.bed.effect(&self.name, &effect);
        }
    }

    /// Polls `work` and reports what happened meanwhile, also when it never ends.
    async fn reporting<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        std::future::poll_fn(|cx| {
            let polled = work.as_mut().poll(cx);
            self.report();
            polled
        })
        .await
    }

    /// Lets late operations happen, for ever.
    pub(crate) async fn run_late(&self) {
        self.reporting(self.fake.run_late(CancellationToken::new())).await;
    }

    /// A guest ends by itself, if there is one.
    pub(crate) fn end_guest(&self, pick: u64, crash: bool) -> Option<ServerId> {
        let running = self.running();
        let server = *running.get(usize::try_from(pick % running.len().max(1) as u64).ok()?)?;
        if crash {
            self.fake.crash_guest(server).ok()?;
        } else {
            self.fake.power_off_guest(server).ok()?;
        }
        self.report();
        Some(server)
    }

    /// An order that is older than what was carried out comes once more. `false` when there is none.
    pub(crate) fn replay_old_order(&self, pick: u64) -> bool {
        let domains = self.fake.domains().unwrap_or_default();
        let from = (pick % domains.len().max(1) as u64) as usize;
        let servers = domains.iter().cycle().skip(from).take(domains.len());
        let came = servers
            .map(|d| self.fake.replay_old_order(d.spec.id))
            .any(|answer| matches!(answer, Ok(Some(_))));
        self.report();
        came
    }

    /// The servers whose guests run here.
    pub(crate) fn running(&self) -> Vec<ServerId> {
        let domains = self.fake.domains().unwrap_or_default();
        let running = domains.iter().filter(|d| d.power.may_execute());
        running.map(|d| d.spec.id).collect()
    }

    /// A guest dies.
    pub(crate) fn crash_guest(&self, server: ServerId) {
        let _ = self.fake.crash_guest(server);
        self.report();
    }

    /// All guests die at once.
    pub(crate) fn lose_power(&self) {
        for server in self.running() {
            self.crash_guest(server);
        }
    }

    /// What is on the host.
    pub(crate) fn seen(&self) -> HostSeen {
        HostSeen {
            host: self.id,
            held: self.fake.holdings().unwrap_or_default(),
            under_way: self.fake.under_way(),
        }
    }
}

/// One process's way to its host.
#[derive(Clone)]
pub(crate) struct Reach {
    host: Arc<HostBed>,
    /// Where its disks are, if not on the host.
    pool: Option<Arc<HostBed>>,
    gate: Arc<Gate>,
    rng: Arc<Mutex<Rng>>,
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reach of {}", self.host.name)
    }
}

impl Reach {
    pub(crate) fn new(host: Arc<HostBed>, pool: Option<Arc<HostBed>>, gate: Arc<Gate>, rng: Rng) -> Self {
        Self {
            host,
            pool,
            gate,
            rng: Arc::new(Mutex::new(rng)),
        }
    }

    pub(crate) fn hypervisor(&self) -> Arc<SimHypervisor> {
        Arc::new(SimHypervisor {
            inner: self.host.fake.hypervisor(),
            reach: self.clone(),
        })
    }

    pub(crate) fn storage(&self) -> Arc<SimStorage> {
        let mut reach = self.clone();
        if let Some(pool) = reach.pool.take() {
            reach.host = pool;
        }
        Arc::new(SimStorage {
            inner: reach.host.fake.storage(),
            reach,
        })
    }

    async fn wait(&self) {
        let ms = {
            let mut rng = self.rng.lock();
            match rng.below(8) {
                0..=4 => 0,
                5..=6 => rng.within(1, 20),
                _ => rng.within(20, 800),
            }
        };
        if ms > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        self.gate.pass().await;
    }

    /// A verb: it takes a while, it happens, it takes a while.
    async fn verb<T>(&self, verb: impl Future<Output = Result<T>>) -> Result<T> {
        self.gate.pass().await;
        self.wait().await;
        let done = self.host.reporting(verb).await;
        self.wait().await;
        done
    }
}

/// A fake hypervisor behind a process's gate.
#[derive(Debug)]
pub(crate) struct SimHypervisor {
    inner: FakeHypervisor,
    reach: Reach,
}

#[async_trait]
impl Hypervisor for SimHypervisor {
    fn capability(&self) -> Capability {
        self.inner.capability()
    }
    async fn facts(&self) -> Result<HostFacts> {
        self.reach.verb(self.inner.facts()).await
    }
    async fn define(&self, spec: &VmSpec) -> Result<()> {
        self.reach.verb(self.inner.define(spec)).await
    }
    async fn start(&self, id: ServerId, generation: u64) -> Result<()> {
        self.reach.verb(self.inner.start(id, generation)).await
    }
    async fn stop(&self, id: ServerId, generation: u64, mode: StopMode) -> Result<Stopped> {
        self.reach.verb(self.inner.stop(id, generation, mode)).await
    }
    async fn undefine(&self, id: ServerId, generation: u64) -> Result<()> {
        self.reach.verb(self.inner.undefine(id, generation)).await
    }
    async fn inspect(&self, id: ServerId) -> Result<Inspection> {
        self.reach.verb(self.inner.inspect(id)).await
    }
    async fn recover(&self) -> Result<Vec<Recovered>> {
        self.reach.verb(self.inner.recover()).await
    }
    async fn list(&self) -> Result<Vec<Recovered>> {
        self.reach.verb(self.inner.list()).await
    }
    fn events(&self) -> BoxStream<'static, VmEvent> {
        let gate = self.reach.gate.clone();
        stream::unfold((self.inner.events(), gate), |(mut events, gate)| async move {
            let event = events.next().await?;
            gate.pass().await;
            Some((event, (events, gate)))
        })
        .boxed()
    }
    fn as_console(&self) -> Option<&dyn Console> {
        self.inner.as_console()
    }
    fn as_pause(&self) -> Option<&dyn skyloom_hypervisor::Pause> {
        self.inner.as_pause()
    }
    fn as_suspend(&self) -> Option<&dyn skyloom_hypervisor::Suspend> {
        self.inner.as_suspend()
    }
    fn as_snapshots(&self) -> Option<&dyn skyloom_hypervisor::Snapshots> {
        self.inner.as_snapshots()
    }
    fn as_hotplug(&self) -> Option<&dyn skyloom_hypervisor::Hotplug> {
        self.inner.as_hotplug()
    }
    fn as_screen(&self) -> Option<&dyn skyloom_hypervisor::Screen> {
        self.inner.as_screen()
    }
    fn as_guest_agent(&self) -> Option<&dyn skyloom_hypervisor::GuestAgent> {
        self.inner.as_guest_agent()
    }
    fn as_migration(&self) -> Option<&dyn Migration> {
        self.inner.as_migration().map(|_| self as &dyn Migration)
    }
}

/// Both sides of a hand-over are effects of one verb: those of the other host are reported by whoever of it works next.
#[async_trait]
impl Migration for SimHypervisor {
    async fn receive(&self, spec: &VmSpec) -> Result<Incoming> {
        self.reach.verb(self.inner.receive(spec)).await
    }
    async fn send(&self, id: ServerId, generation: u64, address: &str) -> Result<()> {
        self.reach.verb(self.inner.send(id, generation, address)).await
    }
    async fn migration(&self, id: ServerId) -> Result<Migrating> {
        self.reach.verb(self.inner.migration(id)).await
    }
    async fn cancel(&self, id: ServerId, generation: u64) -> Result<()> {
        self.reach.verb(self.inner.cancel(id, generation)).await
    }
    async fn force(&self, id: ServerId, generation: u64, downtime: Duration) -> Result<()> {
        self.reach.verb(self.inner.force(id, generation, downtime)).await
    }
    async fn hand_over(&self, id: ServerId, generation: u64) -> Result<Stream> {
        self.reach.verb(self.inner.hand_over(id, generation)).await
    }
    async fn take_over(&self, id: ServerId, generation: u64) -> Result<()> {
        self.reach.verb(self.inner.take_over(id, generation)).await
    }
}

/// A fake pool behind a process's gate.
#[derive(Debug)]
pub(crate) struct SimStorage {
    inner: FakeStorage,
    reach: Reach,
}

#[async_trait]
impl HostVolumes for SimStorage {
    async fn create_volume(&self, order: &VolumeOrder) -> Result<VolumeInfo> {
        self.reach.verb(self.inner.create_volume(order)).await
    }
    async fn volume(&self, at: &VolumeAt) -> Result<Option<VolumeInfo>> {
        self.reach.verb(self.inner.volume(at)).await
    }
    async fn read_volume(&self, at: &VolumeAt) -> Result<VolumeFile> {
        self.reach.verb(self.inner.read_volume(at)).await
    }
    async fn grow_volume(&self, at: &VolumeAt, bytes: u64) -> Result<VolumeInfo> {
        self.reach.verb(self.inner.grow_volume(at, bytes)).await
    }
    async fn delete_volume(&self, at: &VolumeAt) -> Result<()> {
        self.reach.verb(self.inner.delete_volume(at)).await
    }
    async fn volumes(&self) -> Result<Vec<VolumeInfo>> {
        self.reach.verb(self.inner.volumes()).await
    }
    async fn snapshot_volume(&self, at: &VolumeAt, snapshot: SnapshotId) -> Result<VolumeSnapshot> {
        self.reach.verb(self.inner.snapshot_volume(at, snapshot)).await
    }
    async fn revert_volume(&self, at: &VolumeAt, snapshot: SnapshotId) -> Result<()> {
        self.reach.verb(self.inner.revert_volume(at, snapshot)).await
    }
    async fn forget_volume_snapshot(&self, at: &VolumeAt, snapshot: SnapshotId) -> Result<()> {
        self.reach
            .verb(self.inner.forget_volume_snapshot(at, snapshot))
            .await
    }
    async fn volume_snapshots(&self, at: &VolumeAt) -> Result<Vec<VolumeSnapshot>> {
        self.reach.verb(self.inner.volume_snapshots(at)).await
    }
}

#[async_trait]
impl HostStorage for SimStorage {
    async fn cached_image(&self, image: &ImageSpec) -> Result<Option<CachedImage>> {
        self.reach.verb(self.inner.cached_image(image)).await
    }
    async fn cache_image(
        &self,
        image: &ImageSpec,
        content: BoxStream<'static, std::io::Result<bytes::Bytes>>,
        progress: ProgressFn,
    ) -> Result<CachedImage> {
        let verb = self.inner.cache_image(image, content, progress);
        self.reach.verb(verb).await
    }
    async fn create_overlay(&self, overlay: &OverlaySpec) -> Result<DiskInfo> {
        let verb = self.inner.create_overlay(overlay);
        self.reach.verb(verb).await
    }
    async fn create_seed(&self, server: ServerId, disk: &str, iso: &[u8]) -> Result<DiskInfo> {
        self.reach.verb(self.inner.create_seed(server, disk, iso)).await
    }
    async fn delete_disk(&self, server: ServerId, disk: &str) -> Result<()> {
        self.reach.verb(self.inner.delete_disk(server, disk)).await
    }
    async fn delete_server(&self, server: ServerId) -> Result<()> {
        self.reach.verb(self.inner.delete_server(server)).await
    }
    async fn disks(&self, server: ServerId) -> Result<Vec<DiskInfo>> {
        self.reach.verb(self.inner.disks(server)).await
    }
    async fn servers(&self) -> Result<Vec<ServerId>> {
        self.reach.verb(self.inner.servers()).await
    }
}
