//! The optional abilities: each is a file, and here are the traits. Verbs run to their end, as the others do.

mod agent;
pub(crate) mod arrival;
pub(crate) mod hotplug;
pub(crate) mod migration;
pub(crate) mod passage;
pub(crate) mod pause;
mod screen;
pub(crate) mod snapshots;
pub(crate) mod suspend;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use skyloom_hypervisor::{
    DiskSpec, ErrorKind, GuestAgent, Hotplug, Incoming, Migrating, Migration, NicSpec, Pause, Result, Screen,
    SnapshotFound, SnapshotOrder, Snapshots, Stream, Suspend, VmSpec,
};
use skyloom_model::{IoLimits, MacAddr, PowerState, Secret, ServerId, SnapshotId};

use crate::QmpHypervisor;
use crate::client::Client;
use crate::command::power_of;
use crate::core::Core;
use crate::lifecycle::{self, Now};
use crate::process::ProcessId;
use crate::vm::Vm;

/// A guest in its process.
#[derive(Debug)]
pub(crate) struct Guest {
    process: ProcessId,
    client: Client,
    power: PowerState,
}

/// The guest; `None` when the domain is off, and then no process is left that holds its disks.
async fn guest(core: &Core, vm: &Arc<Vm>, operation: &'static str) -> Result<Option<Guest>> {
    let process = match lifecycle::settle(&core.tasks, vm).await? {
        Now::Off => return Ok(None),
        Now::Halted(process) => {
            lifecycle::end_process(vm, &process, operation).await?;
            return Ok(None);
        }
        Now::Up(process) => process,
    };
    let client = lifecycle::client_of(vm, operation).await?;
    let state = lifecycle::status(vm, &client, operation).await?;
    match power_of(&state) {
        Some(PowerState::Stopped | PowerState::Suspended) => {
            lifecycle::end_process(vm, &process, operation).await?;
            Ok(None)
        }
        Some(power) => Ok(Some(Guest {
            process,
            client,
            power,
        })),
        None => Err(vm
            .error(ErrorKind::Unsupported, operation)
            .with("run state", state)),
    }
}

#[async_trait]
impl Pause for QmpHypervisor {
    async fn pause(&self, id: ServerId, generation: u64) -> Result<()> {
        let core = Arc::clone(&self.core);
        let work = async move { pause::pause(&core, id, generation).await };
        self.core.tasks.finish("pause", work).await
    }
    async fn unpause(&self, id: ServerId, generation: u64) -> Result<()> {
        let core = Arc::clone(&self.core);
        let work = async move { pause::unpause(&core, id, generation).await };
        self.core.tasks.finish("unpause", work).await
    }
}

#[async_trait]
impl Suspend for QmpHypervisor {
    async fn suspend(&self, id: ServerId, generation: u64) -> Result<()> {
        let core = Arc::clone(&self.core);
        let work = async move { suspend::suspend(&core, id, generation).await };
        self.core.tasks.finish("suspend", work).await
    }
}

#[async_trait]
impl Snapshots for QmpHypervisor {
    async fn take(&self, id: ServerId, generation: u64, order: &SnapshotOrder) -> Result<SnapshotFound> {
        let (core, order) = (Arc::clone(&self.core), order.clone());
        let work = async move { snapshots::take(&core, id, generation, &order).await };
        self.core.tasks.finish("take snapshot", work).await
    }
    async fn revert(&self, id: ServerId, generation: u64, snapshot: SnapshotId) -> Result<()> {
        let core = Arc::clone(&self.core);
        let work = async move { snapshots::revert(&core, id, generation, snapshot).await };
        self.core.tasks.finish("revert to snapshot", work).await
    }
    async fn forget(&self, id: ServerId, generation: u64, snapshot: SnapshotId) -> Result<()> {
        let core = Arc::clone(&self.core);
        let work = async move { snapshots::forget(&core, id, generation, snapshot).await };
        self.core.tasks.finish("forget snapshot", work).await
    }
    async fn snapshots(&self, id: ServerId) -> Result<Vec<SnapshotFound>> {
        snapshots::list(&self.core, id).await
    }
}

#[async_trait]
impl Hotplug for QmpHypervisor {
    async fn attach_disk(&self, id: ServerId, generation: u64, disk: &DiskSpec) -> Result<()> {
        let (core, disk) = (Arc::clone(&self.core), disk.clone());
        let work = async move { hotplug::attach_disk(&core, id, generation, disk).await };
        self.core.tasks.finish("attach disk", work).await
    }
    async fn detach_disk(&self, id: ServerId, generation: u64, disk: &str) -> Result<()> {
        let (core, disk) = (Arc::clone(&self.core), disk.to_owned());
        let work = async move { hotplug::detach_disk(&core, id, generation, &disk).await };
        self.core.tasks.finish("detach disk", work).await
    }
    async fn grow_disk(&self, id: ServerId, generation: u64, disk: &str, bytes: u64) -> Result<()> {
        let (core, disk) = (Arc::clone(&self.core), disk.to_owned());
        let work = async move { hotplug::grow_disk(&core, id, generation, &disk, bytes).await };
        self.core.tasks.finish("grow disk", work).await
    }
    async fn limit_disk(
        &self,
        id: ServerId,
        generation: u64,
        disk: &str,
        limits: Option<IoLimits>,
    ) -> Result<()> {
        let (core, disk) = (Arc::clone(&self.core), disk.to_owned());
        let work = async move { hotplug::limit_disk(&core, id, generation, &disk, limits).await };
        self.core.tasks.finish("limit disk", work).await
    }
    async fn attach_nic(&self, id: ServerId, generation: u64, nic: &NicSpec) -> Result<()> {
        let (core, nic) = (Arc::clone(&self.core), nic.clone());
        let work = async move { hotplug::attach_nic(&core, id, generation, nic).await };
        self.core.tasks.finish("attach NIC", work).await
    }
    async fn detach_nic(&self, id: ServerId, generation: u64, mac: MacAddr) -> Result<()> {
        let core = Arc::clone(&self.core);
        let work = async move { hotplug::detach_nic(&core, id, generation, mac).await };
        self.core.tasks.finish("detach NIC", work).await
    }
}

#[async_trait]
impl Migration for QmpHypervisor {
    async fn receive(&self, spec: &VmSpec) -> Result<Incoming> {
        let (core, spec) = (Arc::clone(&self.core), spec.clone());
        let work = async move { migration::receive(&core, &spec).await };
        self.core.tasks.finish("receive guest", work).await
    }
    async fn send(&self, id: ServerId, generation: u64, address: &str) -> Result<()> {
        let (core, address) = (Arc::clone(&self.core), address.to_owned());
        let work = async move { migration::send(&core, id, generation, &address).await };
        self.core.tasks.finish("send guest", work).await
    }
    async fn migration(&self, id: ServerId) -> Result<Migrating> {
        let core = Arc::clone(&self.core);
        let work = async move { migration::migration(&core, id).await };
        self.core.tasks.finish("look at migration", work).await
    }
    async fn cancel(&self, id: ServerId, generation: u64) -> Result<()> {
        let core = Arc::clone(&self.core);
        let work = async move { migration::cancel(&core, id, generation).await };
        self.core.tasks.finish("cancel migration", work).await
    }
    async fn force(&self, id: ServerId, generation: u64, downtime: Duration) -> Result<()> {
        let core = Arc::clone(&self.core);
        let work = async move { migration::force(&core, id, generation, downtime).await };
        self.core.tasks.finish("force migration", work).await
    }
    async fn hand_over(&self, id: ServerId, generation: u64) -> Result<Stream> {
        let core = Arc::clone(&self.core);
        let work = async move { migration::hand_over(&core, id, generation).await };
        self.core.tasks.finish("hand guest over", work).await
    }
    async fn take_over(&self, id: ServerId, generation: u64) -> Result<()> {
        let core = Arc::clone(&self.core);
        let work = async move { migration::take_over(&core, id, generation).await };
        self.core.tasks.finish("take guest over", work).await
    }
}

#[async_trait]
impl Screen for QmpHypervisor {
    async fn screenshot(&self, id: ServerId) -> Result<Vec<u8>> {
        screen::screenshot(&self.core, id).await
    }
}

#[async_trait]
impl GuestAgent for QmpHypervisor {
    async fn answers(&self, id: ServerId) -> Result<bool> {
        agent::answers(&self.core, id).await
    }
    async fn set_password(&self, id: ServerId, user: &str, hash: &Secret<String>) -> Result<()> {
        agent::set_password(&self.core, id, user, hash).await
    }
}
