//! `vm.halt` and `vm.switch`: a guest is turned off and its domain made another way, for orders that have a way back to the
//! guest as it was.
//!
//! ```text
//!  there   vm.halt (g - 1) ──> vm.switch: define `to` (g) ──> vm.start (g)
//!  back    start (g + 1)   <── define `back` (g + 1)      <── off (g)
//! ```
//!
//! A domain keeps its making within one generation, so what turns it off works under the generation before its jobs', and the
//! way back under the one after: a host then refuses what is still on its way from the way there. A flow that uses these
//! jobs gives the server that last generation when it has failed.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skyloom_flow::{Job, JobContext, JobError, Undo};

use super::vm::{Define, DefineInput, Stop, StopInput, newer_or};
use super::{ServerInput, host_error};

/// Input of `vm.halt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HaltInput {
    /// How.
    #[serde(flatten)]
    pub(crate) stop: StopInput,
    /// Whether the way back turns it on again.
    pub(crate) restart: bool,
}

/// Turns a guest off; its way back turns it on again.
#[derive(Debug)]
pub(super) struct Halt(pub(super) Stop);

#[async_trait]
impl Job for Halt {
    fn kind(&self) -> &'static str {
        "vm.halt"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let HaltInput { stop, .. } = cx.input()?;
        self.0
            .ensure_off(stop, cx.record.generation.saturating_sub(1))
            .await
    }

    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let HaltInput { stop, restart } = cx.input()?;
        if !restart {
            return Ok(Undo::Moot("it was off before".to_owned()));
        }
        cx.may_act()?;
        match self.0.hypervisor.start(stop.server, back(cx)).await {
            Ok(()) => Ok(Undo::Undone),
            Err(error) => newer_or(error),
        }
    }
}

/// Input of `vm.switch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SwitchInput {
    /// The domain as it is to be.
    pub(crate) to: DefineInput,
    /// The domain as it was.
    pub(crate) back: DefineInput,
}

/// Makes a domain that is off another way.
#[derive(Debug)]
pub(super) struct Switch(pub(super) Define);

#[async_trait]
impl Job for Switch {
    fn kind(&self) -> &'static str {
        "vm.switch"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let SwitchInput { to, .. } = cx.input()?;
        self.0.ensure(to, cx.record.generation).await?;
        Ok(json!({}))
    }

    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let SwitchInput { back: former, .. } = cx.input()?;
        let spec = self.0.spec(former, back(cx)).await?;
        match self.0.hypervisor.define(&spec).await {
            Ok(()) => Ok(Undo::Undone),
            Err(error) => newer_or(error),
        }
    }
}

/// The generation of a job's way back.
fn back(cx: &JobContext<'_>) -> u64 {
    cx.record.generation + 1
}

/// Input of `disk.delete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeleteDiskInput {
    /// Whose.
    #[serde(flatten)]
    pub(crate) of: ServerInput,
    /// Its name.
    pub(crate) disk: String,
}

/// Removes a disk that no domain is made of any more.
#[derive(Debug)]
pub(super) struct DeleteDisk {
    pub(super) storage: std::sync::Arc<dyn skyloom_hypervisor::HostStorage>,
}

#[async_trait]
impl Job for DeleteDisk {
    fn kind(&self) -> &'static str {
        "disk.delete"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let DeleteDiskInput { of, disk } = cx.input()?;
        self.storage
            .delete_disk(of.server, &disk)
            .await
            .map_err(host_error)?;
        Ok(json!({}))
    }

    async fn undo(&self, _cx: &JobContext<'_>) -> Result<Undo, JobError> {
        Ok(Undo::Moot("a deleted disk is not made again".to_owned()))
    }
}
