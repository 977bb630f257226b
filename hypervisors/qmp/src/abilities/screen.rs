//! A picture of the guest's screen: QEMU writes it into its directory, we read it, bounded.

use std::sync::Arc;

use serde_json::json;
use skyloom_hypervisor::{ErrorKind, Inspection, Result};
use skyloom_model::ServerId;

use crate::core::Core;
use crate::dir;
use crate::errors::{self, blocking};
use crate::lifecycle;
use crate::vm::Vm;

/// Longest picture.
const MAX_BYTES: u64 = 8 << 20;
const OPERATION: &str = "take screenshot";

/// The domain, if its guest executes or is held. Waits for no verb.
pub(super) async fn executing(core: &Core, operation: &'static str, id: ServerId) -> Result<Arc<Vm>> {
    let vm = core.there(operation, id)?;
    match core.inspect(id).await {
        Inspection::Found { power, .. } if power.may_execute() => Ok(vm),
        Inspection::Found { .. } => Err(vm
            .error(ErrorKind::Conflict, operation)
            .with("because", "it is off")),
        Inspection::Absent => Err(vm.error(ErrorKind::NotFound, operation)),
        Inspection::CannotTell { reason } => Err(vm
            .error(ErrorKind::Unavailable, operation)
            .with("because", reason)),
    }
}

pub(super) async fn screenshot(core: &Core, id: ServerId) -> Result<Vec<u8>> {
    let vm = executing(core, OPERATION, id).await?;
    let _talking = vm.talking.lock().await;
    let client = lifecycle::client_of(&vm, OPERATION).await?;
    let wanted = json!({ "filename": dir::PICTURE, "device": "screen", "format": "png" });
    let limit = vm.env.config.timeouts.command;
    let made = client.execute("screendump", wanted, limit).await;
    made.map_err(|e| errors::monitor(OPERATION, id, e))?;
    let dir = Arc::clone(&vm.dir);
    let picture = blocking(move || dir.take(dir::PICTURE, MAX_BYTES)).await;
    picture.map_err(|e| errors::file(OPERATION, id, e))
}
