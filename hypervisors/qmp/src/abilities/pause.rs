//! Holding a guest's CPUs. On record first: an agent that dies in between is followed by one that holds them.

use std::sync::Arc;

use skyloom_hypervisor::{ErrorKind, Result};
use skyloom_model::{PowerState, ServerId};

use super::guest;
use crate::command::power_of;
use crate::core::Core;
use crate::errors;
use crate::lifecycle;
use crate::vm::{HOST_REQUEST, Vm};

pub(crate) async fn pause(core: &Core, id: ServerId, generation: u64) -> Result<()> {
    let vm = core.there("pause", id)?;
    let _op = vm.op.lock().await;
    core.obeyed(&vm, "pause", generation).await?;
    match guest(core, &vm, "pause").await? {
        Some(guest) if guest.power.may_execute() => hold(&vm, "pause").await,
        _ => Err(vm
            .error(ErrorKind::Conflict, "pause")
            .with("because", "it is off")),
    }
}

pub(crate) async fn unpause(core: &Core, id: ServerId, generation: u64) -> Result<()> {
    let vm = core.there("unpause", id)?;
    let _op = vm.op.lock().await;
    core.obeyed(&vm, "unpause", generation).await?;
    match guest(core, &vm, "unpause").await? {
        Some(guest) if guest.power.may_execute() => {
            vm.note_paused(false).await?;
            if guest.power == PowerState::Running {
                return Ok(());
            }
            lifecycle::resume(&vm, "unpause").await
        }
        _ => Err(vm
            .error(ErrorKind::Conflict, "unpause")
            .with("because", "it is off")),
    }
}

/// Holds the CPUs of a guest that is there, and makes sure that they are held.
pub(crate) async fn hold(vm: &Arc<Vm>, operation: &'static str) -> Result<()> {
    let limit = vm.env.config.timeouts.command;
    vm.note_paused(true).await?;
    let client = lifecycle::client_of(vm, operation).await?;
    let stopped = client.stop(limit).await;
    stopped.map_err(|e| errors::monitor(operation, vm.id, e))?;
    let state = lifecycle::status(vm, &client, operation).await?;
    if power_of(&state) != Some(PowerState::Paused) {
        return Err(vm.error(ErrorKind::Refused, operation).with("run state", state));
    }
    vm.publish(PowerState::Paused, Some(HOST_REQUEST));
    Ok(())
}
