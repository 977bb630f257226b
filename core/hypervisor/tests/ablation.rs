//! The exam can see: fakes with one bug each fail the case that is there for it.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

mod common;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use common::{FakeExam, Wrap, WrapPool};
use futures::FutureExt;
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use skyloom_hypervisor::conformance::{cases, storage_cases};
use skyloom_hypervisor::{
    CachedImage, Capability, Console, DiskInfo, Error, ErrorKind, FakeHypervisor, FakeStorage, FakeWorld,
    HostStorage, HostVolumes, Hypervisor, ImageSpec, Inspection, OverlaySpec, ProgressFn, Recovered, Result,
    StopMode, Stopped, VmEvent, VmEventKind, VmSpec, VolumeAt, VolumeFile, VolumeInfo, VolumeOrder,
    VolumeSnapshot,
};
use skyloom_model::{HostFacts, PowerState, ServerId, SnapshotId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    ForgetsGenerationAtDefine,
    ObeysStaleStops,
    ObeysStaleUndefines,
    StartsAnyGeneration,
    RefusesNewerStarts,
    ForgetsNewerStarts,
    ForgetsNewerStops,
    TakesOnOnlyWhatItDoes,
    TakesOnInMemoryOnly,
    RestartsOnDefine,
    SaysForced,
    UndefineLeavesTheRest,
    InspectNeverAbsent,
    RecoverFindsNothing,
    RecoverLosesTheStopped,
    ListLosesTheStopped,
    ListWaits,
    DropsEvents,
    NeverSaysLost,
    WholeConsole,
}

/// The third part is what it remembers until it is opened again; the fourth is held by a stop.
#[derive(Debug)]
struct Broken(
    FakeHypervisor,
    Bug,
    Mutex<BTreeMap<ServerId, u64>>,
    tokio::sync::Mutex<()>,
);

const NEWEST: u64 = u64::MAX;

fn broken(world: FakeWorld, bug: Bug) -> Arc<dyn Hypervisor> {
    Arc::new(Broken(
        world.hypervisor(),
        bug,
        Mutex::default(),
        tokio::sync::Mutex::default(),
    ))
}

fn is_stopped(found: &Recovered) -> bool {
    matches!(
        found.inspection,
        Inspection::Found {
            power: PowerState::Stopped,
            ..
        }
    )
}

impl Broken {
    /// The generation with which a start or stop is passed on.
    async fn passed_on(&self, id: ServerId, asked: u64, forgets: bool) -> Result<u64> {
        let carried = self.generation(id, asked).await;
        if self.1 != Bug::TakesOnInMemoryOnly {
            return Ok(if forgets { asked.min(carried) } else { asked });
        }
        let mut taken = self.2.lock();
        let newest = taken.entry(id).or_insert(asked);
        if asked < *newest {
            return Err(Error::new(ErrorKind::Stale, "take an order"));
        }
        *newest = asked;
        Ok(asked.min(carried))
    }
    async fn generation(&self, id: ServerId, asked: u64) -> u64 {
        match self.0.inspect(id).await {
            Ok(Inspection::Found { generation, .. }) => generation,
            _ => asked,
        }
    }
    async fn is_off(&self, id: ServerId) -> bool {
        matches!(self.0.inspect(id).await, Ok(Inspection::Found { power, .. }) if !power.may_execute())
    }
}

#[async_trait]
impl Hypervisor for Broken {
    fn capability(&self) -> Capability {
        self.0.capability()
    }
    async fn facts(&self) -> Result<HostFacts> {
        self.0.facts().await
    }
    async fn define(&self, spec: &VmSpec) -> Result<()> {
        let mut spec = spec.clone();
        match self.1 {
            Bug::ForgetsGenerationAtDefine => {
                spec.generation = self.generation(spec.id, spec.generation).await
            }
            Bug::RestartsOnDefine => {
                self.0.stop(spec.id, NEWEST, StopMode::Force).await?;
            }
            _ => {}
        }
        self.0.define(&spec).await
    }
    async fn start(&self, id: ServerId, generation: u64) -> Result<()> {
        let generation = match self.1 {
            Bug::StartsAnyGeneration => self.generation(id, generation).await,
            Bug::RefusesNewerStarts if self.generation(id, generation).await < generation => {
                return Err(Error::new(ErrorKind::Stale, "start"));
            }
            bug => {
                self.passed_on(id, generation, bug == Bug::ForgetsNewerStarts)
                    .await?
            }
        };
        self.0.start(id, generation).await
    }
    async fn stop(&self, id: ServerId, generation: u64, mode: StopMode) -> Result<Stopped> {
        let _busy = self.3.lock().await;
        let generation = match self.1 {
            Bug::ObeysStaleStops => NEWEST,
            Bug::TakesOnOnlyWhatItDoes if self.is_off(id).await => return Ok(Stopped::AlreadyOff),
            bug => {
                self.passed_on(id, generation, bug == Bug::ForgetsNewerStops)
                    .await?
            }
        };
        let how = self.0.stop(id, generation, mode).await?;
        Ok(if self.1 == Bug::SaysForced {
            Stopped::Forced
        } else {
            how
        })
    }
    async fn undefine(&self, id: ServerId, generation: u64) -> Result<()> {
        match self.1 {
            Bug::ObeysStaleUndefines => self.0.undefine(id, NEWEST).await,
            Bug::UndefineLeavesTheRest => self.0.stop(id, generation, StopMode::Force).await.map(|_| ()),
            _ => self.0.undefine(id, generation).await,
        }
    }
    async fn inspect(&self, id: ServerId) -> Result<Inspection> {
        match self.0.inspect(id).await? {
            Inspection::Absent if self.1 == Bug::InspectNeverAbsent => Ok(Inspection::Found {
                generation: 0,
                power: PowerState::Stopped,
            }),
            Inspection::Found { generation, power } => Ok(Inspection::Found {
                generation: self.2.lock().get(&id).copied().unwrap_or(generation),
                power,
            }),
            seen => Ok(seen),
        }
    }
    async fn recover(&self) -> Result<Vec<Recovered>> {
        let mut found = self.0.recover().await?;
        found.retain(|r| match self.1 {
            Bug::RecoverFindsNothing => false,
            Bug::RecoverLosesTheStopped => !is_stopped(r),
            _ => true,
        });
        Ok(found)
    }
    async fn list(&self) -> Result<Vec<Recovered>> {
        let _busy = match self.1 {
            Bug::ListWaits => Some(self.3.lock().await),
            _ => None,
        };
        let mut found = self.0.list().await?;
        found.retain(|r| self.1 != Bug::ListLosesTheStopped || !is_stopped(r));
        Ok(found)
    }
    fn events(&self) -> BoxStream<'static, VmEvent> {
        match self.1 {
            Bug::DropsEvents => stream::pending().boxed(),
            Bug::NeverSaysLost => self
                .0
                .events()
                .filter(|e| futures::future::ready(e.kind != VmEventKind::Lost))
                .boxed(),
            _ => self.0.events(),
        }
    }
    fn as_console(&self) -> Option<&dyn Console> {
        Some(self)
    }
    fn as_pause(&self) -> Option<&dyn skyloom_hypervisor::Pause> {
        self.0.as_pause()
    }
    fn as_suspend(&self) -> Option<&dyn skyloom_hypervisor::Suspend> {
        self.0.as_suspend()
    }
    fn as_snapshots(&self) -> Option<&dyn skyloom_hypervisor::Snapshots> {
        self.0.as_snapshots()
    }
    fn as_hotplug(&self) -> Option<&dyn skyloom_hypervisor::Hotplug> {
        self.0.as_hotplug()
    }
    fn as_screen(&self) -> Option<&dyn skyloom_hypervisor::Screen> {
        self.0.as_screen()
    }
    fn as_guest_agent(&self) -> Option<&dyn skyloom_hypervisor::GuestAgent> {
        self.0.as_guest_agent()
    }
}

#[async_trait]
impl Console for Broken {
    async fn console_tail(&self, id: ServerId, max_bytes: usize) -> Result<Vec<u8>> {
        let bytes = if self.1 == Bug::WholeConsole {
            usize::MAX
        } else {
            max_bytes
        };
        self.0.console_tail(id, bytes).await
    }
}

/// The names of the cases that this hypervisor fails.
async fn failed(wrap: Wrap) -> Vec<&'static str> {
    let exam = FakeExam {
        wrap,
        ..FakeExam::new(false)
    };
    let mut failed = Vec::new();
    for case in cases() {
        if AssertUnwindSafe(case.run(&exam)).catch_unwind().await.is_err() {
            failed.push(case.name);
        }
    }
    failed
}

#[tokio::test(start_paused = true)]
async fn each_bug_of_a_hypervisor_fails_its_case() {
    macro_rules! broken {
        ($bug:ident) => {
            |world: FakeWorld| broken(world, Bug::$bug)
        };
    }
    let bugs: [(Wrap, &str); 20] = [
        (
            broken!(ForgetsGenerationAtDefine),
            "define_brings_a_domain_to_a_newer_generation",
        ),
        (broken!(ObeysStaleStops), "stop_of_an_older_generation_is_stale"),
        (
            broken!(ObeysStaleUndefines),
            "undefine_of_an_older_generation_is_stale",
        ),
        (
            broken!(StartsAnyGeneration),
            "old_start_after_a_newer_stop_starts_nothing",
        ),
        (
            broken!(RefusesNewerStarts),
            "order_of_a_newer_generation_is_taken_on",
        ),
        (
            broken!(ForgetsNewerStarts),
            "newer_start_of_a_running_domain_is_taken_on",
        ),
        (
            broken!(ForgetsNewerStops),
            "old_start_after_a_newer_stop_starts_nothing",
        ),
        (
            broken!(TakesOnOnlyWhatItDoes),
            "newer_stop_of_a_domain_that_is_off_is_taken_on",
        ),
        (
            broken!(TakesOnInMemoryOnly),
            "old_start_after_reopening_starts_nothing",
        ),
        (
            broken!(RestartsOnDefine),
            "define_twice_does_not_disturb_the_guest",
        ),
        (broken!(SaysForced), "graceful_stop_is_answered"),
        (
            broken!(UndefineLeavesTheRest),
            "undefine_removes_a_running_domain",
        ),
        (
            broken!(InspectNeverAbsent),
            "inspect_of_an_unknown_domain_is_absent",
        ),
        (
            broken!(RecoverFindsNothing),
            "recover_finds_all_with_their_generations",
        ),
        (
            broken!(RecoverLosesTheStopped),
            "recover_finds_all_with_their_generations",
        ),
        (broken!(ListLosesTheStopped), "list_tells_what_inspect_tells"),
        (broken!(ListWaits), "list_does_not_wait_for_a_slow_stop"),
        (broken!(DropsEvents), "event_tells_of_a_start"),
        (broken!(NeverSaysLost), "slow_stream_is_told_lost"),
        (broken!(WholeConsole), "console_tail_is_bounded"),
    ];
    assert_eq!(
        failed(broken!(None)).await,
        [""; 0],
        "without a bug nothing fails"
    );
    for (wrap, case) in bugs {
        let failed = failed(wrap).await;
        assert!(
            failed.contains(&case),
            "{case} does not see its bug; failed: {failed:?}"
        );
        assert!(
            failed.len() < cases().len() / 2,
            "one bug fails a few cases: {failed:?}"
        );
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leak {
    KeepsTheSeedAtDelete,
    IgnoresTheContentsError,
    NamesNoBackingFormat,
    SeedIsNeverReplaced,
    CachesAnything,
    ListsNoSeeds,
    MakesVolumesAnew,
    ListsNoVolumes,
    RevertsNothing,
}

#[derive(Debug)]
struct Leaky(FakeStorage, Leak);

#[async_trait]
impl HostVolumes for Leaky {
    async fn create_volume(&self, order: &VolumeOrder) -> Result<VolumeInfo> {
        if self.1 == Leak::MakesVolumesAnew {
            self.0.delete_volume(&order.at).await?;
        }
        self.0.create_volume(order).await
    }
    async fn volume(&self, at: &VolumeAt) -> Result<Option<VolumeInfo>> {
        self.0.volume(at).await
    }
    async fn read_volume(&self, at: &VolumeAt) -> Result<VolumeFile> {
        self.0.read_volume(at).await
    }
    async fn grow_volume(&self, at: &VolumeAt, bytes: u64) -> Result<VolumeInfo> {
        self.0.grow_volume(at, bytes).await
    }
    async fn delete_volume(&self, at: &VolumeAt) -> Result<()> {
        self.0.delete_volume(at).await
    }
    async fn volumes(&self) -> Result<Vec<VolumeInfo>> {
        let mut all = self.0.volumes().await?;
        if self.1 == Leak::ListsNoVolumes {
            all.clear();
        }
        Ok(all)
    }
    async fn snapshot_volume(&self, at: &VolumeAt, snapshot: SnapshotId) -> Result<VolumeSnapshot> {
        self.0.snapshot_volume(at, snapshot).await
    }
    async fn revert_volume(&self, at: &VolumeAt, snapshot: SnapshotId) -> Result<()> {
        match self.1 {
            Leak::RevertsNothing => Ok(()),
            _ => self.0.revert_volume(at, snapshot).await,
        }
    }
    async fn forget_volume_snapshot(&self, at: &VolumeAt, snapshot: SnapshotId) -> Result<()> {
        self.0.forget_volume_snapshot(at, snapshot).await
    }
    async fn volume_snapshots(&self, at: &VolumeAt) -> Result<Vec<VolumeSnapshot>> {
        self.0.volume_snapshots(at).await
    }
}

#[async_trait]
impl HostStorage for Leaky {
    async fn cached_image(&self, image: &ImageSpec) -> Result<Option<CachedImage>> {
        self.0.cached_image(image).await
    }
    async fn cache_image(
        &self,
        image: &ImageSpec,
        content: BoxStream<'static, std::io::Result<bytes::Bytes>>,
        progress: ProgressFn,
    ) -> Result<CachedImage> {
        let done = self.0.cache_image(image, content, progress).await;
        let here = std::path::PathBuf::from("anywhere");
        match self.1 {
            Leak::IgnoresTheContentsError
                if done
                    .as_ref()
                    .is_err_and(|e| std::error::Error::source(e).is_some()) =>
            {
                Ok(CachedImage {
                    path: here,
                    format: image.format,
                })
            }
            Leak::CachesAnything if done.is_err() => Ok(CachedImage {
                path: here,
                format: image.format,
            }),
            _ => done,
        }
    }
    async fn create_overlay(&self, overlay: &OverlaySpec) -> Result<DiskInfo> {
        let made = self.0.create_overlay(overlay).await?;
        Ok(if self.1 == Leak::NamesNoBackingFormat {
            DiskInfo {
                backing_format: None,
                ..made
            }
        } else {
            made
        })
    }
    async fn create_seed(&self, server: ServerId, disk: &str, iso: &[u8]) -> Result<DiskInfo> {
        if self.1 == Leak::SeedIsNeverReplaced
            && let Some(seed) = self.0.disks(server).await?.into_iter().find(|d| d.name == disk)
        {
            return Ok(seed);
        }
        self.0.create_seed(server, disk, iso).await
    }
    async fn delete_disk(&self, server: ServerId, disk: &str) -> Result<()> {
        self.0.delete_disk(server, disk).await
    }
    async fn delete_server(&self, server: ServerId) -> Result<()> {
        if self.1 == Leak::KeepsTheSeedAtDelete {
            return self.0.delete_disk(server, "root").await;
        }
        self.0.delete_server(server).await
    }
    async fn disks(&self, server: ServerId) -> Result<Vec<DiskInfo>> {
        self.0.disks(server).await
    }
    async fn servers(&self) -> Result<Vec<ServerId>> {
        let mut servers = Vec::new();
        for server in self.0.servers().await? {
            let disks = self.0.disks(server).await?;
            if self.1 != Leak::ListsNoSeeds || disks.iter().any(|d| d.name != "seed") {
                servers.push(server);
            }
        }
        Ok(servers)
    }
}

#[tokio::test(start_paused = true)]
async fn each_bug_of_a_pool_fails_its_case() {
    macro_rules! leaky {
        ($leak:ident) => {
            |world: FakeWorld| Arc::new(Leaky(world.storage(), Leak::$leak)) as Arc<dyn HostStorage>
        };
    }
    let leaks: [(WrapPool, &str); 9] = [
        (leaky!(KeepsTheSeedAtDelete), "delete_server_leaves_nothing"),
        (leaky!(IgnoresTheContentsError), "broken_content_leaves_nothing"),
        (leaky!(NamesNoBackingFormat), "overlay_is_listed"),
        (leaky!(SeedIsNeverReplaced), "seed_is_replaced"),
        (leaky!(CachesAnything), "wrong_digest_is_refused"),
        (leaky!(ListsNoSeeds), "servers_with_anything_are_listed"),
        (leaky!(MakesVolumesAnew), "volume_twice_is_one_volume"),
        (leaky!(ListsNoVolumes), "volumes_are_listed_and_are_no_servers"),
        (leaky!(RevertsNothing), "snapshot_gives_back_what_was"),
    ];
    for (wrap_pool, expected) in leaks {
        let exam = FakeExam {
            wrap_pool,
            ..FakeExam::new(false)
        };
        let case = storage_cases()
            .into_iter()
            .find(|c| c.name == expected)
            .expect("a case of this name");
        assert!(
            AssertUnwindSafe(case.run(&exam)).catch_unwind().await.is_err(),
            "{expected} does not see its bug"
        );
    }
}
