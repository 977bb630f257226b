//! The fake hypervisor's abilities: verbs on the world's records.

use async_trait::async_trait;
use skyloom_model::{IoLimits, MacAddr, Secret, ServerId, SnapshotId};

use super::script::FaultPoint;
use super::{FakeHypervisor, FakeWorld};
use crate::{
    DiskSpec, GuestAgent, Hotplug, NicSpec, Pause, Result, Screen, SnapshotFound, SnapshotOrder, Snapshots,
    Suspend,
};

#[async_trait]
impl Pause for FakeHypervisor {
    async fn pause(&self, id: ServerId, generation: u64) -> Result<()> {
        let work = move |w: &FakeWorld, _| w.pause_now(id, generation);
        self.world.perform(FaultPoint::Pause, Some(id), work).await
    }
    async fn unpause(&self, id: ServerId, generation: u64) -> Result<()> {
        let work = move |w: &FakeWorld, _| w.unpause_now(id, generation);
        self.world.perform(FaultPoint::Unpause, Some(id), work).await
    }
}

#[async_trait]
impl Suspend for FakeHypervisor {
    async fn suspend(&self, id: ServerId, generation: u64) -> Result<()> {
        let work = move |w: &FakeWorld, _| w.suspend_now(id, generation);
        self.world.perform(FaultPoint::Suspend, Some(id), work).await
    }
}

#[async_trait]
impl Snapshots for FakeHypervisor {
    async fn take(&self, id: ServerId, generation: u64, order: &SnapshotOrder) -> Result<SnapshotFound> {
        let order = order.clone();
        let work = move |w: &FakeWorld, half| w.take_now(id, generation, &order, half);
        self.world
            .perform_in_steps(FaultPoint::TakeSnapshot, id, work)
            .await
    }
    async fn revert(&self, id: ServerId, generation: u64, snapshot: SnapshotId) -> Result<()> {
        let work = move |w: &FakeWorld, half| w.revert_now(id, generation, snapshot, half);
        self.world
            .perform_in_steps(FaultPoint::RevertSnapshot, id, work)
            .await
    }
    async fn forget(&self, id: ServerId, generation: u64, snapshot: SnapshotId) -> Result<()> {
        let work = move |w: &FakeWorld, half| w.forget_now(id, generation, snapshot, half);
        self.world
            .perform_in_steps(FaultPoint::ForgetSnapshot, id, work)
            .await
    }
    async fn snapshots(&self, id: ServerId) -> Result<Vec<SnapshotFound>> {
        self.world
            .look(FaultPoint::Snapshots, Some(id), |w| w.snapshots_of(id))
            .await
    }
}

#[async_trait]
impl Hotplug for FakeHypervisor {
    async fn attach_disk(&self, id: ServerId, generation: u64, disk: &DiskSpec) -> Result<()> {
        let disk = disk.clone();
        let work = move |w: &FakeWorld, half| w.attach_disk_now(id, generation, &disk, half);
        self.world
            .perform_in_steps(FaultPoint::AttachDisk, id, work)
            .await
    }
    async fn detach_disk(&self, id: ServerId, generation: u64, disk: &str) -> Result<()> {
        let disk = disk.to_owned();
        let work = move |w: &FakeWorld, half| w.detach_disk_now(id, generation, &disk, half);
        self.world
            .perform_in_steps(FaultPoint::DetachDisk, id, work)
            .await
    }
    async fn grow_disk(&self, id: ServerId, generation: u64, disk: &str, bytes: u64) -> Result<()> {
        let disk = disk.to_owned();
        let work = move |w: &FakeWorld, _| w.grow_disk_now(id, generation, &disk, bytes);
        self.world.perform(FaultPoint::GrowDisk, Some(id), work).await
    }
    async fn limit_disk(
        &self,
        id: ServerId,
        generation: u64,
        disk: &str,
        limits: Option<IoLimits>,
    ) -> Result<()> {
        let disk = disk.to_owned();
        let work = move |w: &FakeWorld, _| w.limit_disk_now(id, generation, &disk, limits);
        self.world.perform(FaultPoint::LimitDisk, Some(id), work).await
    }
    async fn attach_nic(&self, id: ServerId, generation: u64, nic: &NicSpec) -> Result<()> {
        let nic = nic.clone();
        let work = move |w: &FakeWorld, half| w.attach_nic_now(id, generation, &nic, half);
        self.world.perform_in_steps(FaultPoint::AttachNic, id, work).await
    }
    async fn detach_nic(&self, id: ServerId, generation: u64, mac: MacAddr) -> Result<()> {
        let work = move |w: &FakeWorld, half| w.detach_nic_now(id, generation, mac, half);
        self.world.perform_in_steps(FaultPoint::DetachNic, id, work).await
    }
}

#[async_trait]
impl Screen for FakeHypervisor {
    async fn screenshot(&self, id: ServerId) -> Result<Vec<u8>> {
        self.world
            .look(FaultPoint::Screenshot, Some(id), |w| w.screen_of(id))
            .await
    }
}

#[async_trait]
impl GuestAgent for FakeHypervisor {
    async fn answers(&self, id: ServerId) -> Result<bool> {
        self.world
            .look(FaultPoint::AgentAnswers, Some(id), |w| w.agent_answers(id))
            .await
    }
    async fn set_password(&self, id: ServerId, user: &str, _: &Secret<String>) -> Result<()> {
        let user = user.to_owned();
        let work = move |w: &FakeWorld, _| w.set_password_now(id, &user);
        self.world.perform(FaultPoint::SetPassword, Some(id), work).await
    }
}
