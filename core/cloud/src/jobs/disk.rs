//! `disk.overlay` and `disk.delete_all`.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use skyloom_flow::{Job, JobContext, JobError, Undo};
use skyloom_hypervisor::{HostStorage, Hypervisor, Inspection, OverlaySpec};
use skyloom_model::ablation::{Rule, kept};

use super::vm::cannot_tell;
use super::{ServerInput, host_error};

/// Makes a disk over a cached image.
#[derive(Debug)]
pub(super) struct Overlay {
    pub(super) storage: Arc<dyn HostStorage>,
}

#[async_trait]
impl Job for Overlay {
    fn kind(&self) -> &'static str {
        "disk.overlay"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let spec: OverlaySpec = cx.input()?;
        // The verb itself looks first: a disk over the same image is left alone, another one is a conflict.
        let disk = self.storage.create_overlay(&spec).await.map_err(host_error)?;
        Ok(json!({ "disk": disk.name }))
    }

    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let spec: OverlaySpec = cx.input()?;
        self.storage
            .delete_disk(spec.server, &spec.disk)
            .await
            .map_err(host_error)?;
        Ok(Undo::Undone)
    }
}

/// Deletes everything of a server that has no domain.
#[derive(Debug)]
pub(super) struct DeleteAll {
    pub(super) hypervisor: Arc<dyn Hypervisor>,
    pub(super) storage: Arc<dyn HostStorage>,
}

#[async_trait]
impl Job for DeleteAll {
    fn kind(&self) -> &'static str {
        "disk.delete_all"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let ServerInput { server } = cx.input()?;
        if kept(Rule::ObserveBeforeAct) {
            match self.hypervisor.inspect(server).await.map_err(host_error)? {
                Inspection::Absent => {}
                Inspection::Found { .. } => {
                    let message = format!("the domain of {server} is there: its disks are not deleted");
                    return Err(JobError::permanent("host.domain_there", message));
                }
                Inspection::CannotTell { reason } => return Err(cannot_tell(&reason)),
            }
        }
        self.storage.delete_server(server).await.map_err(host_error)?;
        let left = self.storage.disks(server).await.map_err(host_error)?;
        if left.is_empty() {
            return Ok(json!({}));
        }
        let names: Vec<&str> = left.iter().map(|d| d.name.as_str()).collect();
        Err(JobError::transient(
            "host.disks_left",
            format!("disks of {server} are still there: {}", names.join(", ")),
        ))
    }

    async fn undo(&self, _cx: &JobContext<'_>) -> Result<Undo, JobError> {
        Ok(Undo::Moot("deleted disks are not made again".to_owned()))
    }
}
