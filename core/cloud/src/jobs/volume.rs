//! `volume.create`, `volume.delete`, `volume.grow`, `volume.attach`, `volume.detach`, `volume.limit`.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skyloom_flow::{Job, JobContext, JobError, Undo};
use skyloom_hypervisor::{DiskSpec, HostStorage, Hypervisor, VolumeAt, VolumeInfo, VolumeOrder};
use skyloom_model::{DiskFormat, IoLimits, ServerId};

use super::host_error;
use super::plug::{executes, hotplug, or_absent, undone};

/// What jobs on volumes work with.
#[derive(Debug, Clone)]
pub(super) struct VolumeParts {
    pub(super) hypervisor: Arc<dyn Hypervisor>,
    pub(super) storage: Arc<dyn HostStorage>,
}

/// What `volume.create` and `volume.grow` give: what the host measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Bytes of the disk.
    pub(crate) size_bytes: u64,
    /// Bytes that its file takes.
    pub(crate) allocated_bytes: u64,
}

/// A volume's place in a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlaceInput {
    /// Which server.
    pub(crate) server: ServerId,
    /// Name of the disk in it.
    pub(crate) disk: String,
    /// The volume.
    pub(crate) at: VolumeAt,
    /// What it may do, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<IoLimits>,
    /// What it might do before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<IoLimits>,
}

/// Input of `volume.grow`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GrowInput {
    /// The volume.
    pub(crate) at: VolumeAt,
    /// To how many bytes.
    pub(crate) bytes: u64,
    /// The server that has it, and the disk's name there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<(ServerId, String)>,
}

impl From<&VolumeInfo> for Measured {
    fn from(info: &VolumeInfo) -> Self {
        Self {
            size_bytes: info.size_bytes,
            allocated_bytes: info.allocated_bytes,
        }
    }
}

impl VolumeParts {
    pub(super) async fn info(&self, at: &VolumeAt) -> Result<VolumeInfo, JobError> {
        let there = self.storage.volume(at).await.map_err(host_error)?;
        there.ok_or_else(|| {
            let message = format!("the volume {} is not in the host's pool", at.volume);
            JobError::permanent("host.volume_missing", message)
        })
    }

    async fn attach(&self, input: &PlaceInput, generation: u64) -> Result<(), JobError> {
        let info = self.info(&input.at).await?;
        let disk = DiskSpec {
            name: input.disk.clone(),
            path: info.path,
            format: info.format,
            backing_format: None,
            read_only: false,
            limits: input.limits,
        };
        match hotplug(&*self.hypervisor, input.server).await? {
            // A domain without it is defined anew at its next start.
            Some(hotplug) => or_absent(hotplug.attach_disk(input.server, generation, &disk).await),
            None => Ok(()),
        }
    }

    async fn detach(&self, input: &PlaceInput, generation: u64) -> Result<(), JobError> {
        match hotplug(&*self.hypervisor, input.server).await? {
            Some(hotplug) => or_absent(hotplug.detach_disk(input.server, generation, &input.disk).await),
            None => Ok(()),
        }
    }

    async fn limit(
        &self,
        input: &PlaceInput,
        generation: u64,
        limits: Option<IoLimits>,
    ) -> Result<(), JobError> {
        match hotplug(&*self.hypervisor, input.server).await? {
            Some(hotplug) => or_absent(
                hotplug
                    .limit_disk(input.server, generation, &input.disk, limits)
                    .await,
            ),
            None => Ok(()),
        }
    }
}

/// Makes a volume.
#[derive(Debug)]
pub(super) struct Create(pub(super) VolumeParts);

#[async_trait]
impl Job for Create {
    fn kind(&self) -> &'static str {
        "volume.create"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let order: VolumeOrder = cx.input()?;
        // The verb itself looks first: a volume that is there is left alone.
        let made = self.0.storage.create_volume(&order).await.map_err(host_error)?;
        cx.output(&Measured::from(&made))
    }

    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let order: VolumeOrder = cx.input()?;
        let gone = self.0.storage.delete_volume(&order.at).await;
        gone.map_err(host_error)?;
        Ok(Undo::Undone)
    }
}

/// Removes a volume that no server has.
#[derive(Debug)]
pub(super) struct Delete(pub(super) VolumeParts);

#[async_trait]
impl Job for Delete {
    fn kind(&self) -> &'static str {
        "volume.delete"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let at: VolumeAt = cx.input()?;
        self.0.storage.delete_volume(&at).await.map_err(host_error)?;
        Ok(json!({}))
    }

    async fn undo(&self, _cx: &JobContext<'_>) -> Result<Undo, JobError> {
        Ok(Undo::Moot("a deleted volume is not made again".to_owned()))
    }
}

/// Makes a volume larger: its file, and what a guest sees of it.
#[derive(Debug)]
pub(super) struct Grow(pub(super) VolumeParts);

#[async_trait]
impl Job for Grow {
    fn kind(&self) -> &'static str {
        "volume.grow"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let input: GrowInput = cx.input()?;
        let mut measured = match &input.place {
            Some((server, disk)) if executes(&*self.0.hypervisor, *server).await? => {
                if let Some(hotplug) = hotplug(&*self.0.hypervisor, *server).await? {
                    let grown = hotplug.grow_disk(*server, cx.record.generation, disk, input.bytes);
                    grown.await.map_err(host_error)?;
                }
                Measured::from(&self.0.info(&input.at).await?)
            }
            _ => {
                let grown = self.0.storage.grow_volume(&input.at, input.bytes).await;
                Measured::from(&grown.map_err(host_error)?)
            }
        };
        measured.size_bytes = measured.size_bytes.max(input.bytes);
        cx.output(&measured)
    }

    async fn undo(&self, _cx: &JobContext<'_>) -> Result<Undo, JobError> {
        Ok(Undo::Moot("a disk is never made smaller".to_owned()))
    }
}

/// Gives a volume to a domain.
#[derive(Debug)]
pub(super) struct Attach(pub(super) VolumeParts);

#[async_trait]
impl Job for Attach {
    fn kind(&self) -> &'static str {
        "volume.attach"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let input: PlaceInput = cx.input()?;
        self.0.attach(&input, cx.record.generation).await?;
        Ok(json!({ "disk": input.disk }))
    }

    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let input: PlaceInput = cx.input()?;
        undone(self.0.detach(&input, cx.record.generation).await)
    }
}

/// Takes a volume from a domain: when this is done, nothing has its file open.
#[derive(Debug)]
pub(super) struct Detach(pub(super) VolumeParts);

#[async_trait]
impl Job for Detach {
    fn kind(&self) -> &'static str {
        "volume.detach"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let input: PlaceInput = cx.input()?;
        self.0.detach(&input, cx.record.generation).await?;
        Ok(json!({ "disk": input.disk }))
    }

    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let input: PlaceInput = cx.input()?;
        undone(self.0.attach(&input, cx.record.generation).await)
    }
}

/// Sets what a volume may do, at most.
#[derive(Debug)]
pub(super) struct Limit(pub(super) VolumeParts);

#[async_trait]
impl Job for Limit {
    fn kind(&self) -> &'static str {
        "volume.limit"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let input: PlaceInput = cx.input()?;
        self.0.limit(&input, cx.record.generation, input.limits).await?;
        Ok(json!({}))
    }

    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let input: PlaceInput = cx.input()?;
        undone(self.0.limit(&input, cx.record.generation, input.before).await)
    }
}

/// A format that keeps snapshots.
pub(crate) const fn keeps_snapshots(format: DiskFormat) -> bool {
    matches!(format, DiskFormat::Qcow2)
}
