//! The verbs of the cloud as flows: tasks into plans, ends into records. Pure.

mod definition;
mod fence;
mod host;
mod image;
mod image_save;
mod moving;
mod params;
mod port_attach;
mod port_rewire;
mod ports;
mod records;
mod server_access;
mod server_clone;
mod server_create;
mod server_create_volumes;
mod server_delete;
mod server_evacuate;
mod server_hold;
mod server_live_migrate;
mod server_migrate;
mod server_power;
mod server_rebuild;
mod server_recycle;
mod server_rescue;
mod server_resize;
mod server_shelve;
mod snapshot;
mod volume;
mod volume_attach;
mod volume_records;
mod volume_room;
mod wiring;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use skyloom_flow::{FlowRegistry, Refusal, SettleContext};
use skyloom_model::{JobId, JobSpec, Place, Reason, RetryPolicy};
use skyloom_scheduler::NoFit;

pub use host::{ClaimRelease, HostSweep};
pub use image::{ImageDelete, ImageImport};
pub(crate) use image_save::{ImageSave, SaveOf, SaveParams};
pub use moving::STORAGE;
pub(crate) use moving::{Sees, elsewhere};
pub(crate) use params::NewVolume;
pub use params::{
    BaseImage, CreateParams, ImportParams, PortPlan, RecycleParams, ReleaseParams, StopParams, SweepParams,
};
pub(crate) use port_attach::{PlugParams, ServerAttachPort, ServerDetachPort};
pub(crate) use port_rewire::RewireParams;
pub use server_access::ServerAccess;
pub(crate) use server_clone::CloneParams;
pub use server_clone::ServerClone;
pub(crate) use server_create::group_of;
pub use server_create::{NETWORKS, ServerCreate};
pub use server_delete::ServerDelete;
pub use server_evacuate::ServerEvacuate;
pub(crate) use server_evacuate::{EvacuateParams, not_fenced};
pub use server_hold::{ServerHold, ServerResetState};
pub use server_live_migrate::ServerLiveMigrate;
pub(crate) use server_live_migrate::{LiveParams, past_return};
pub(crate) use server_migrate::MigrateParams;
pub use server_migrate::ServerMigrate;
pub use server_power::{ServerReboot, ServerStart, ServerStop};
pub use server_rebuild::{RebuildParams, ServerRebuild, ServerTidy};
pub use server_recycle::ServerRecycle;
pub use server_rescue::{RescueParams, ServerStartRescue, ServerStopRescue};
pub(crate) use server_resize::ResizeParams;
pub use server_resize::{ServerConfirmResize, ServerResize, ServerRevertResize};
pub(crate) use server_shelve::{KeepParams, ShelveParams};
pub use server_shelve::{ServerOffload, ServerShelve, ServerUnshelve};
pub(crate) use snapshot::{SnapshotCreate, SnapshotDelete, SnapshotRevert};
pub(crate) use volume::{GrowParams, LimitParams, VolumeCreateParams, VolumeFrom, pool_label};
pub(crate) use volume::{VolumeCreate, VolumeDelete, VolumeGrow, VolumeLimit};
pub(crate) use volume_attach::{VolumeAttach, VolumeDetach};

/// All flows of this crate.
#[must_use]
pub fn cloud_flows() -> FlowRegistry {
    let held = ServerHold::ALL
        .into_iter()
        .fold(FlowRegistry::new(), FlowRegistry::with);
    held.with(ServerCreate)
        .with(ServerClone)
        .with(ServerStart)
        .with(ServerStop)
        .with(ServerReboot)
        .with(ServerDelete)
        .with(ServerRebuild)
        .with(ServerTidy)
        .with(ServerRecycle)
        .with(ServerResetState)
        .with(ServerStartRescue)
        .with(ServerStopRescue)
        .with(ServerAccess::Password)
        .with(ServerAccess::Keys)
        .with(ServerResize)
        .with(ServerConfirmResize)
        .with(ServerRevertResize)
        .with(ServerAttachPort)
        .with(ServerDetachPort)
        .with(ServerMigrate)
        .with(ServerLiveMigrate)
        .with(ServerEvacuate)
        .with(ServerShelve)
        .with(ServerOffload)
        .with(ServerUnshelve)
        .with(ImageImport)
        .with(ImageDelete)
        .with(ImageSave)
        .with(VolumeCreate)
        .with(VolumeDelete)
        .with(VolumeGrow)
        .with(VolumeLimit)
        .with(VolumeAttach)
        .with(VolumeDetach)
        .with(SnapshotCreate)
        .with(SnapshotRevert)
        .with(SnapshotDelete)
        .with(port_rewire::PortRewire)
        .with(HostSweep)
        .with(ClaimRelease)
}

/// No host can take it; what was said of the hosts is kept.
fn refused(no: &NoFit) -> Refusal {
    match serde_json::to_value(&no.report) {
        Ok(report) => Refusal::NoHost(no.reason(), Box::new(report)),
        Err(_) => Refusal::Fail(no.reason()),
    }
}

/// How long a start may take: the hypervisor answers when the guest's CPUs execute, not when it has booted.
const START_SECONDS: u64 = 300;

/// A job of a plan; its id is its kind unless said otherwise.
struct Step {
    spec: JobSpec,
}

impl Step {
    fn new<T: Serialize>(kind: &str, title: &str, place: Place, input: &T) -> Result<Self, Reason> {
        let input = serde_json::to_value(input).map_err(|e| {
            Reason::new(
                "plan.bad_input",
                format!("the input of {kind} cannot be written: {e}"),
            )
        })?;
        Ok(Self {
            spec: JobSpec {
                id: JobId::new(kind),
                kind: kind.to_owned(),
                title: title.to_owned(),
                input,
                after: Vec::new(),
                place,
                retry: RetryPolicy::default(),
                weight: 1,
                timeout_ms: None,
            },
        })
    }
    fn id(mut self, id: JobId) -> Self {
        self.spec.id = id;
        self
    }
    fn after(mut self, after: impl IntoIterator<Item = JobId>) -> Self {
        self.spec.after.extend(after);
        self
    }
    fn weight(mut self, weight: u32) -> Self {
        self.spec.weight = weight;
        self
    }
    /// How long one try may take.
    fn within(mut self, seconds: u64) -> Self {
        self.spec.timeout_ms = Some(seconds.saturating_mul(1000));
        self
    }
    fn attempts(mut self, max_attempts: u32, backoff_ms: u64) -> Self {
        self.spec.retry = RetryPolicy {
            max_attempts,
            backoff_ms,
        };
        self
    }
    fn done(self) -> JobSpec {
        self.spec
    }
}

/// What the jobs of a task gave.
type Outputs = BTreeMap<JobId, Value>;

/// A task's parameters as a `T`.
fn params<T: serde::de::DeserializeOwned>(task: &skyloom_model::Task) -> Result<T, Reason> {
    T::deserialize(&task.params).map_err(|e| {
        Reason::new(
            "task.bad_params",
            format!("the task's parameters cannot be read: {e}"),
        )
    })
}

/// What the latest job of a kind gave that gave anything, as a `T`.
fn last_output<T: serde::de::DeserializeOwned>(cx: &SettleContext<'_>, kind: &str) -> Option<T> {
    let jobs = cx.plan?.jobs.iter().rev();
    jobs.filter(|job| job.kind == kind)
        .find_map(|job| output(cx.outputs, job.id.as_str()))
}

/// What a job gave, as a `T`; nothing if there is no such job or it gave something else.
fn output<T: serde::de::DeserializeOwned>(outputs: &Outputs, job: &str) -> Option<T> {
    T::deserialize(outputs.get(&JobId::new(job))?).ok()
}
