//! `snapshot.take`, `snapshot.revert`, `snapshot.forget`: through the domain where a server has the disks, in the pool otherwise.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skyloom_flow::{Job, JobContext, JobError, Undo};
use skyloom_hypervisor::{ErrorKind, SnapshotOrder, Snapshots, VolumeAt};
use skyloom_model::{ServerId, SnapshotId, Timestamp, disk_of};

use super::host_error;
use super::volume::VolumeParts;

/// Where the disks of a snapshot are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "in")]
pub(crate) enum Target {
    /// In a domain, whether it runs or not.
    Domain {
        /// Which.
        server: ServerId,
        /// Names of the disks.
        disks: Vec<String>,
        /// With the guest's memory.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        memory: bool,
    },
    /// In a volume that nothing has open.
    File {
        /// Which.
        at: VolumeAt,
    },
}

/// Input of the three jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotInput {
    /// Which snapshot.
    pub(crate) snapshot: SnapshotId,
    /// Of what.
    pub(crate) target: Target,
    /// What volumes are to be at least after a revert: they never shrink.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sizes: Vec<(VolumeAt, u64)>,
}

/// What `snapshot.take` gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Taken {
    /// Its disks with the bytes that they describe.
    pub(crate) disks: Vec<(String, u64)>,
    /// Bytes of memory.
    pub(crate) memory_bytes: u64,
    /// When the disks stood still, if the host said so.
    pub(crate) taken_at: Option<Timestamp>,
}

fn ability(parts: &VolumeParts) -> Result<&dyn Snapshots, JobError> {
    parts.hypervisor.as_snapshots().ok_or_else(|| {
        let message = "the host's hypervisor takes no snapshots";
        JobError::permanent(ErrorKind::Unsupported.code(), message)
    })
}

impl SnapshotInput {
    async fn forget(&self, parts: &VolumeParts, generation: u64) -> Result<(), JobError> {
        let gone = match &self.target {
            Target::Domain { server, .. } => ability(parts)?.forget(*server, generation, self.snapshot).await,
            Target::File { at } => parts.storage.forget_volume_snapshot(at, self.snapshot).await,
        };
        match gone {
            // Without a domain there are no disks that anybody could look into.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            gone => gone.map_err(host_error),
        }
    }
}

/// Takes a snapshot.
#[derive(Debug)]
pub(super) struct Take(pub(super) VolumeParts);

#[async_trait]
impl Job for Take {
    fn kind(&self) -> &'static str {
        "snapshot.take"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let input: SnapshotInput = cx.input()?;
        let taken = match &input.target {
            Target::Domain {
                server,
                disks,
                memory,
            } => {
                let order = SnapshotOrder {
                    snapshot: input.snapshot,
                    disks: disks.clone(),
                    memory: *memory,
                };
                let taken = ability(&self.0)?
                    .take(*server, cx.record.generation, &order)
                    .await;
                let found = taken.map_err(host_error)?;
                Taken {
                    disks: found.disks,
                    memory_bytes: found.memory_bytes,
                    taken_at: Some(found.taken_at),
                }
            }
            Target::File { at } => {
                let taken = self.0.storage.snapshot_volume(at, input.snapshot).await;
                Taken {
                    disks: vec![(disk_of(at.volume), taken.map_err(host_error)?.size_bytes)],
                    memory_bytes: 0,
                    taken_at: None,
                }
            }
        };
        cx.output(&taken)
    }

    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let input: SnapshotInput = cx.input()?;
        input.forget(&self.0, cx.record.generation).await?;
        Ok(Undo::Undone)
    }
}

/// Makes disks what they were in a snapshot.
#[derive(Debug)]
pub(super) struct Revert(pub(super) VolumeParts);

#[async_trait]
impl Job for Revert {
    fn kind(&self) -> &'static str {
        "snapshot.revert"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let input: SnapshotInput = cx.input()?;
        match &input.target {
            Target::Domain { server, .. } => {
                let snapshots = ability(&self.0)?;
                let reverted = snapshots.revert(*server, cx.record.generation, input.snapshot);
                reverted.await.map_err(host_error)?;
            }
            Target::File { at } => {
                let reverted = self.0.storage.revert_volume(at, input.snapshot).await;
                reverted.map_err(host_error)?;
            }
        }
        for (at, bytes) in &input.sizes {
            let grown = self.0.storage.grow_volume(at, *bytes).await;
            grown.map_err(host_error)?;
        }
        Ok(json!({}))
    }

    async fn undo(&self, _cx: &JobContext<'_>) -> Result<Undo, JobError> {
        Ok(Undo::Moot("what was written since is gone".to_owned()))
    }
}

/// Removes a snapshot.
#[derive(Debug)]
pub(super) struct Forget(pub(super) VolumeParts);

#[async_trait]
impl Job for Forget {
    fn kind(&self) -> &'static str {
        "snapshot.forget"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let input: SnapshotInput = cx.input()?;
        input.forget(&self.0, cx.record.generation).await?;
        Ok(json!({}))
    }

    async fn undo(&self, _cx: &JobContext<'_>) -> Result<Undo, JobError> {
        Ok(Undo::Moot("a deleted snapshot is not taken again".to_owned()))
    }
}
