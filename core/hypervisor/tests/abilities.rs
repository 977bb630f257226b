//! The exam of the abilities can see: fakes with one bug each fail the case that is there for it.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

#[allow(dead_code, reason = "shared with the other exams")]
mod common;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use common::{FakeExam, Wrap};
use futures::FutureExt;
use futures::stream::BoxStream;
use skyloom_hypervisor::conformance::cases;
use skyloom_hypervisor::{
    Boot, Capability, Console, DiskSpec, Error, ErrorKind, FakeHypervisor, FakeWorld, GuestAgent, Hotplug,
    Hypervisor, Inspection, NicSpec, Pause, Recovered, Result, Screen, SnapshotFound, SnapshotOrder,
    Snapshots, StopMode, Stopped, Suspend, VmEvent, VmSpec,
};
use skyloom_model::{HostFacts, IoLimits, MacAddr, PowerState, Secret, ServerId, SnapshotId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    ClaimsTooMuch,
    PauseDoesNothing,
    UnpauseStarts,
    ObeysStalePauses,
    StartLeavesThePausedHeld,
    SuspendStops,
    BootsTheSuspended,
    ResumesUnderTheNewDefinition,
    SuspendOfTheOffIsFine,
    TakesEverySnapshotTwice,
    TakesOneDisk,
    TakesRawDisks,
    RevertsNothing,
    RevertStopsTheGuest,
    ForgetsNothing,
    ObeysStaleReverts,
    KeepsNoMemory,
    RevertLetsTheHeldGo,
    AttachOnlyDefines,
    AttachOnlyPlugs,
    TakesAnyFile,
    DetachLies,
    DetachIsFinal,
    GrowsNothing,
    LimitsWhatIsNotThere,
    KeepsNics,
    PlugsIntoTheSuspended,
    PictureIsText,
    AgentAlwaysAnswers,
    KnowsEveryUser,
    BootsTheDisk,
}

#[derive(Debug)]
struct Faulty(FakeHypervisor, Bug);

const NEWEST: u64 = u64::MAX;

impl Faulty {
    async fn power(&self, id: ServerId) -> Option<PowerState> {
        match self.0.inspect(id).await {
            Ok(Inspection::Found { power, .. }) => Some(power),
            _ => None,
        }
    }
    fn spec(&self, id: ServerId) -> Option<VmSpec> {
        self.0.world().domain(id).unwrap().map(|d| d.spec)
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
        let mut spec = spec.clone();
        if self.1 == Bug::BootsTheDisk {
            spec.boot = Boot::FirstDisk;
        }
        self.0.define(&spec).await
    }
    async fn start(&self, id: ServerId, generation: u64) -> Result<()> {
        match (self.1, self.power(id).await) {
            (Bug::StartLeavesThePausedHeld, Some(PowerState::Paused)) => return Ok(()),
            (Bug::BootsTheSuspended | Bug::ResumesUnderTheNewDefinition, Some(PowerState::Suspended)) => {
                self.0.stop(id, generation, StopMode::Force).await?;
            }
            _ => {}
        }
        self.0.start(id, generation).await
    }
    async fn stop(&self, id: ServerId, generation: u64, mode: StopMode) -> Result<Stopped> {
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
        (self.1 != Bug::ClaimsTooMuch).then_some(self as &dyn Pause)
    }
    fn as_suspend(&self) -> Option<&dyn Suspend> {
        Some(self)
    }
    fn as_snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }
    fn as_hotplug(&self) -> Option<&dyn Hotplug> {
        Some(self)
    }
    fn as_screen(&self) -> Option<&dyn Screen> {
        Some(self)
    }
    fn as_guest_agent(&self) -> Option<&dyn GuestAgent> {
        Some(self)
    }
}

#[async_trait]
impl Pause for Faulty {
    async fn pause(&self, id: ServerId, generation: u64) -> Result<()> {
        match self.1 {
            Bug::PauseDoesNothing => Ok(()),
            Bug::ObeysStalePauses => self.0.pause(id, NEWEST).await,
            _ => self.0.pause(id, generation).await,
        }
    }
    async fn unpause(&self, id: ServerId, generation: u64) -> Result<()> {
        match self.1 {
            Bug::UnpauseStarts => self.0.start(id, generation).await,
            _ => self.0.unpause(id, generation).await,
        }
    }
}

#[async_trait]
impl Suspend for Faulty {
    async fn suspend(&self, id: ServerId, generation: u64) -> Result<()> {
        match self.1 {
            Bug::SuspendStops => self.0.stop(id, generation, StopMode::Force).await.map(drop),
            Bug::SuspendOfTheOffIsFine if self.power(id).await == Some(PowerState::Stopped) => Ok(()),
            _ => self.0.suspend(id, generation).await,
        }
    }
}

#[async_trait]
impl Snapshots for Faulty {
    async fn take(&self, id: ServerId, generation: u64, order: &SnapshotOrder) -> Result<SnapshotFound> {
        let mut order = order.clone();
        match self.1 {
            Bug::TakesEverySnapshotTwice => self.0.forget(id, generation, order.snapshot).await?,
            Bug::TakesOneDisk => order.disks.truncate(1),
            Bug::TakesRawDisks => order.disks.retain(|d| d != "raw"),
            Bug::KeepsNoMemory => order.memory = false,
            _ => {}
        }
        self.0.take(id, generation, &order).await
    }
    async fn revert(&self, id: ServerId, generation: u64, snapshot: SnapshotId) -> Result<()> {
        match self.1 {
            Bug::RevertsNothing => return Ok(()),
            Bug::RevertStopsTheGuest => {
                self.0.stop(id, generation, StopMode::Force).await?;
            }
            Bug::ObeysStaleReverts => return self.0.revert(id, NEWEST, snapshot).await,
            _ => {}
        }
        self.0.revert(id, generation, snapshot).await?;
        if self.1 == Bug::RevertLetsTheHeldGo {
            self.0.start(id, generation).await?;
        }
        Ok(())
    }
    async fn forget(&self, id: ServerId, generation: u64, snapshot: SnapshotId) -> Result<()> {
        match self.1 {
            Bug::ForgetsNothing => Ok(()),
            _ => self.0.forget(id, generation, snapshot).await,
        }
    }
    async fn snapshots(&self, id: ServerId) -> Result<Vec<SnapshotFound>> {
        self.0.snapshots(id).await
    }
}

#[async_trait]
impl Hotplug for Faulty {
    async fn attach_disk(&self, id: ServerId, generation: u64, disk: &DiskSpec) -> Result<()> {
        match self.1 {
            Bug::AttachOnlyDefines => {
                let mut spec = self
                    .spec(id)
                    .ok_or_else(|| Error::new(ErrorKind::NotFound, "attach"))?;
                if !spec.disks.contains(disk) {
                    spec.disks.push(disk.clone());
                }
                spec.generation += 1;
                self.0.define(&spec).await
            }
            Bug::AttachOnlyPlugs => {
                let before = self.spec(id);
                self.0.attach_disk(id, generation, disk).await?;
                let mut spec = before.unwrap();
                spec.generation = generation + 1;
                self.0.define(&spec).await
            }
            Bug::TakesAnyFile => match self.0.attach_disk(id, generation, disk).await {
                Err(e) if e.kind() == ErrorKind::Conflict => Ok(()),
                done => done,
            },
            Bug::PlugsIntoTheSuspended if self.power(id).await == Some(PowerState::Suspended) => Ok(()),
            _ => self.0.attach_disk(id, generation, disk).await,
        }
    }
    async fn detach_disk(&self, id: ServerId, generation: u64, disk: &str) -> Result<()> {
        let done = self.0.detach_disk(id, generation, disk).await;
        match (self.1, &done) {
            (Bug::DetachLies, Err(e)) if e.kind() == ErrorKind::Refused => Ok(()),
            (Bug::DetachIsFinal, Err(e)) if e.kind() == ErrorKind::Refused => {
                Err(Error::new(ErrorKind::Refused, "detach"))
            }
            _ => done,
        }
    }
    async fn grow_disk(&self, id: ServerId, generation: u64, disk: &str, bytes: u64) -> Result<()> {
        match self.1 {
            Bug::GrowsNothing => Ok(()),
            _ => self.0.grow_disk(id, generation, disk, bytes).await,
        }
    }
    async fn limit_disk(
        &self,
        id: ServerId,
        generation: u64,
        disk: &str,
        limits: Option<IoLimits>,
    ) -> Result<()> {
        match self.1 {
            Bug::LimitsWhatIsNotThere => Ok(()),
            _ => self.0.limit_disk(id, generation, disk, limits).await,
        }
    }
    async fn attach_nic(&self, id: ServerId, generation: u64, nic: &NicSpec) -> Result<()> {
        self.0.attach_nic(id, generation, nic).await
    }
    async fn detach_nic(&self, id: ServerId, generation: u64, mac: MacAddr) -> Result<()> {
        match self.1 {
            Bug::KeepsNics => Ok(()),
            _ => self.0.detach_nic(id, generation, mac).await,
        }
    }
}

#[async_trait]
impl Screen for Faulty {
    async fn screenshot(&self, id: ServerId) -> Result<Vec<u8>> {
        match self.1 {
            Bug::PictureIsText => Ok(b"P6 1 1 255 abc".to_vec()),
            _ => self.0.screenshot(id).await,
        }
    }
}

#[async_trait]
impl GuestAgent for Faulty {
    async fn answers(&self, id: ServerId) -> Result<bool> {
        match self.1 {
            Bug::AgentAlwaysAnswers => Ok(true),
            _ => self.0.answers(id).await,
        }
    }
    async fn set_password(&self, id: ServerId, user: &str, password: &Secret<String>) -> Result<()> {
        let user = if self.1 == Bug::KnowsEveryUser {
            "root"
        } else {
            user
        };
        self.0.set_password(id, user, password).await
    }
}

async fn passes(wrap: Wrap, name: &str) -> bool {
    let exam = FakeExam {
        wrap,
        ..FakeExam::new(false)
    };
    let case = cases()
        .into_iter()
        .find(|c| c.name == name)
        .expect("a case of this name");
    AssertUnwindSafe(case.run(&exam)).catch_unwind().await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn each_bug_of_an_ability_fails_its_case() {
    macro_rules! faulty {
        ($bug:ident) => {
            |world: FakeWorld| Arc::new(Faulty(world.hypervisor(), Bug::$bug))
        };
    }
    let bugs: [(Wrap, &str); 31] = [
        (faulty!(ClaimsTooMuch), "capability_is_as_offered"),
        (faulty!(PauseDoesNothing), "pause_holds_the_guest"),
        (
            faulty!(UnpauseStarts),
            "pause_of_a_domain_that_is_off_is_a_conflict",
        ),
        (faulty!(ObeysStalePauses), "pause_of_an_older_generation_is_stale"),
        (faulty!(StartLeavesThePausedHeld), "paused_guest_can_be_started"),
        (
            faulty!(SuspendStops),
            "suspend_ends_the_process_and_start_goes_on",
        ),
        (faulty!(BootsTheSuspended), "suspended_guest_does_not_boot_again"),
        (
            faulty!(ResumesUnderTheNewDefinition),
            "suspended_guest_keeps_its_definition",
        ),
        (
            faulty!(SuspendOfTheOffIsFine),
            "suspend_of_a_domain_that_is_off_is_a_conflict",
        ),
        (faulty!(TakesEverySnapshotTwice), "take_twice_is_one_snapshot"),
        (faulty!(TakesOneDisk), "snapshot_brings_disks_back"),
        (faulty!(TakesRawDisks), "take_of_what_cannot_be_taken_is_refused"),
        (faulty!(RevertsNothing), "snapshot_brings_disks_back"),
        (
            faulty!(RevertStopsTheGuest),
            "revert_of_a_running_guest_is_a_conflict",
        ),
        (faulty!(ForgetsNothing), "forget_can_be_repeated"),
        (faulty!(ObeysStaleReverts), "take_of_an_older_generation_is_stale"),
        (faulty!(KeepsNoMemory), "memory_snapshot_leaves_the_guest_running"),
        (
            faulty!(RevertLetsTheHeldGo),
            "memory_snapshot_of_a_held_guest_is_held",
        ),
        (faulty!(AttachOnlyDefines), "disk_comes_to_a_running_guest"),
        (faulty!(AttachOnlyPlugs), "disk_comes_to_a_running_guest"),
        (faulty!(TakesAnyFile), "attach_of_another_file_is_a_conflict"),
        (
            faulty!(DetachLies),
            "guest_that_holds_on_keeps_its_disk_until_its_next_start",
        ),
        (
            faulty!(DetachIsFinal),
            "guest_that_holds_on_keeps_its_disk_until_its_next_start",
        ),
        (faulty!(GrowsNothing), "disk_grows_while_it_is_off"),
        (faulty!(LimitsWhatIsNotThere), "limits_come_and_go"),
        (faulty!(KeepsNics), "nics_come_and_go"),
        (
            faulty!(PlugsIntoTheSuspended),
            "plugging_into_a_suspended_domain_is_a_conflict",
        ),
        (faulty!(PictureIsText), "screenshot_is_a_picture"),
        (faulty!(AgentAlwaysAnswers), "guest_without_an_agent_is_silent"),
        (faulty!(KnowsEveryUser), "agent_sets_a_password"),
        (faulty!(BootsTheDisk), "kernel_gets_its_command_line"),
    ];
    for (wrap, case) in bugs {
        assert!(passes(faulty!(None), case).await, "without a bug {case} passes");
        assert!(!passes(wrap, case).await, "{case} does not see its bug");
    }
}
