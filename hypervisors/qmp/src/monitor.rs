//! The task that looks after one QEMU: keeps the monitor connection, notes what happens, notices the end.
//!
//! It ends with the process that it looks after; when it is dropped (the agent ends) the guest runs on.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use skyloom_hypervisor::{VmEvent, VmEventKind};
use skyloom_model::PowerState;
use tokio::process::Child;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;

use crate::client::{self, Client, ClientError};
use crate::command::power_of;
use crate::dir;
use crate::errors::blocking;
use crate::process::ProcessId;
use crate::vm::Vm;

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Runs until `process` has ended and that is noted.
pub(crate) async fn monitor(vm: Arc<Vm>, process: ProcessId, child: Option<Child>) {
    let mut exited = std::pin::pin!(process.exited());
    let mut pause = FIRST_PAUSE;
    loop {
        tokio::select! {
            biased;
            () = &mut exited => break,
            talked = converse(&vm, &process) => pause = if talked { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) },
        }
        vm.client.send_replace(None);
        tokio::select! {
            biased;
            () = &mut exited => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    vm.client.send_replace(None);
    let status = match child {
        Some(mut child) => child.wait().await.ok(),
        None => None,
    };
    vm.note_end(Some(&process), status).await;
    *vm.monitored.lock() = None;
}

/// One connection, from greeting to end. Tells whether there was one.
async fn converse(vm: &Arc<Vm>, process: &ProcessId) -> bool {
    let (client, connection) = match client::connect(
        &vm.dir.socket(dir::SOCKET),
        vm.env.config.timeouts.connect,
    )
    .await
    {
        Ok(both) => both,
        Err(e) => {
            tracing::debug!(server = %vm.id, error = %skyloom_model::report(&e), "no monitor connection yet");
            return false;
        }
    };
    if client.peer_pid() != Some(process.pid) {
        tracing::warn!(server = %vm.id, pid = process.pid, peer = ?client.peer_pid(), "a foreign process owns the monitor socket");
        return false;
    }
    // What follows waits for what the connection brings: it goes first, so that a flood of input does not starve it.
    let why = tokio::select! {
        biased;
        why = follow(vm, process, &client) => why,
        why = connection.run() => why,
    };
    tracing::debug!(server = %vm.id, error = %skyloom_model::report(&why), "monitor connection ended");
    true
}

/// The truth first, then what happens. Ends only with an error.
async fn follow(vm: &Arc<Vm>, process: &ProcessId, client: &Client) -> ClientError {
    match talk(vm, process, client).await {
        Ok(never) => match never {},
        Err(e) => e,
    }
}

async fn talk(
    vm: &Arc<Vm>,
    process: &ProcessId,
    client: &Client,
) -> Result<std::convert::Infallible, ClientError> {
    let limits = vm.env.config.timeouts;
    let mut events = client.events();
    observe(vm, process, client).await?;
    vm.client.send_replace(Some(client.clone()));
    let mut ticks = tokio::time::interval(limits.log_check);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // An earlier agent may have ended in the middle of a rotation.
    let mut reopen = true;
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => reopen = rotate(vm, client, reopen).await,
            event = events.recv() => match event {
                Ok(event) if event.name == "SHUTDOWN" => {
                    let reason = event.data.get("reason").and_then(Value::as_str).unwrap_or("guest-shutdown");
                    *vm.shutdown_reason.lock() = Some(reason.to_owned());
                    if event.data.get("guest") == Some(&Value::Bool(true)) {
                        halted(vm, process, client).await;
                    }
                }
                Ok(event) => {
                    tracing::debug!(server = %vm.id, event = %event.name.escape_debug(), "QMP event");
                    if matches!(event.name.as_str(), "STOP" | "RESUME" | "GUEST_PANICKED") {
                        observe(vm, process, client).await?;
                    }
                }
                Err(RecvError::Lagged(_)) => {
                    let _ = vm.env.events.send(VmEvent { id: Some(vm.id), kind: VmEventKind::Lost });
                    observe(vm, process, client).await?;
                }
                Err(RecvError::Closed) => return Err(ClientError::Closed),
            },
        }
    }
}

/// Asks for the run state and notes it.
async fn observe(vm: &Arc<Vm>, process: &ProcessId, client: &Client) -> Result<(), ClientError> {
    let state = client.query_status(vm.env.config.timeouts.command).await?;
    match power_of(&state) {
        Some(PowerState::Stopped) => halted(vm, process, client).await,
        Some(power) if vm.is_up() && state != "prelaunch" => vm.publish(power, None),
        _ => {}
    }
    Ok(())
}

/// The guest is off: notes that with its cause, then ends the process, which has nothing more to do.
async fn halted(vm: &Arc<Vm>, process: &ProcessId, client: &Client) {
    let reason = vm.shutdown_reason.lock().clone();
    vm.note_halt(process, reason.as_deref().unwrap_or("guest-shutdown"))
        .await;
    let limit = vm.env.config.timeouts.quit;
    if let Err(e) = client.quit(limit).await {
        tracing::debug!(server = %vm.id, error = %skyloom_model::report(&e), "quit after shutdown");
    }
    tokio::time::sleep(limit).await;
    // Still here: whoever waits on the process has not ended this task.
    if let Err(e) = process.kill() {
        tracing::warn!(server = %vm.id, error = %e, "cannot kill the QEMU of a guest that is off");
    }
}

/// Keeps the logs bounded. A failure (a full disk) is no reason to lose the guest: returns whether the serial log is
/// to be opened anew the next time.
async fn rotate(vm: &Arc<Vm>, client: &Client, reopen: bool) -> bool {
    let (dir, limit, run_as) = (Arc::clone(&vm.dir), vm.env.config.log_bytes, vm.env.config.run_as);
    let files = blocking(move || {
        dir.rotate_qemu_log(limit)?;
        let full = dir.len(dir::SERIAL) > limit;
        if full {
            std::fs::rename(dir.join(dir::SERIAL), dir.join(dir::SERIAL_OLD))?;
        }
        dir.create_serial(run_as)?;
        Ok(full)
    });
    // Until QEMU has opened the new file it writes to the renamed one: nothing is lost.
    let result = match files.await {
        Ok(full) if full || reopen => {
            client
                .reopen_serial(dir::SERIAL, vm.env.config.timeouts.command)
                .await
        }
        Ok(_) => Ok(()),
        Err(e) => Err(e.into()),
    };
    if let Err(e) = &result {
        tracing::warn!(server = %vm.id, error = %skyloom_model::report(e), "cannot rotate a domain's logs");
    }
    result.is_err()
}
