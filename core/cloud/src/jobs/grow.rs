//! `disk.grow`: a disk of a server's own is made larger.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skyloom_flow::{Job, JobContext, JobError, Undo};
use skyloom_hypervisor::{ErrorKind, Hypervisor};
use skyloom_model::ServerId;

use super::host_error;

/// Input of `disk.grow`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GrowDiskInput {
    /// Whose.
    pub(crate) server: ServerId,
    /// Its name.
    pub(crate) disk: String,
    /// To how many bytes.
    pub(crate) bytes: u64,
}

/// Makes a disk larger.
#[derive(Debug)]
pub(super) struct GrowDisk {
    pub(super) hypervisor: Arc<dyn Hypervisor>,
}

#[async_trait]
impl Job for GrowDisk {
    fn kind(&self) -> &'static str {
        "disk.grow"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let GrowDiskInput { server, disk, bytes } = cx.input()?;
        let Some(hotplug) = self.hypervisor.as_hotplug() else {
            return Err(JobError::permanent(
                ErrorKind::Unsupported.code(),
                "the host's hypervisor changes no disks",
            ));
        };
        let grown = hotplug.grow_disk(server, cx.record.generation, &disk, bytes);
        grown.await.map_err(host_error)?;
        Ok(json!({ "disk": disk, "size_bytes": bytes }))
    }

    async fn undo(&self, _cx: &JobContext<'_>) -> Result<Undo, JobError> {
        Ok(Undo::Moot("a disk is never made smaller".to_owned()))
    }
}
