//! A guest's memory on disk.
//!
//! ```text
//!  Running ──> Saving ── QEMU writes into the file that we gave it ──> file whole, renamed ──> Saved ──> Ended (suspended)
//!     ^           │ an error, or an agent that died: the guest goes on                          │
//!     └───────────┘                                                    QEMU ends; its CPUs were held since before
//!  Ended (suspended) ──> Starting (from memory) ── QEMU reads the file, CPUs held ──> Running, file removed ──> cont
//! ```
//!
//! QEMU gets the open file over the monitor socket: it needs no right to the directory, and writes on when the agent dies.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use skyloom_hypervisor::{Error, ErrorKind, Result};
use skyloom_model::ServerId;

use super::{Guest, guest};
use crate::client::Client;
use crate::core::Core;
use crate::dir;
use crate::errors::{self, blocking};
use crate::lifecycle;
use crate::record::{Live, Run};
use crate::vm::Vm;

/// How often the monitor is asked how far the memory is.
const LOOK_AGAIN: Duration = Duration::from_millis(30);
/// Bytes per second: as fast as it can.
const FAST: u64 = 1 << 40;

pub(crate) async fn suspend(core: &Core, id: ServerId, generation: u64) -> Result<()> {
    let vm = core.there("suspend", id)?;
    let _op = vm.op.lock().await;
    core.obeyed(&vm, "suspend", generation).await?;
    match guest(core, &vm, "suspend").await? {
        Some(guest) if guest.power.may_execute() => save(&vm, &guest).await,
        None if vm.memory().await.is_some() => Ok(()),
        _ => Err(vm
            .error(ErrorKind::Conflict, "suspend")
            .with("because", "it is off")),
    }
}

async fn save(vm: &Arc<Vm>, guest: &Guest) -> Result<()> {
    let Some(run) = vm.run().await.filter(|r| r.launch.shape.is_some()) else {
        return Err(vm
            .error(ErrorKind::Conflict, "suspend")
            .with("because", "it is being stopped, or an earlier version started it"));
    };
    let dir = Arc::clone(&vm.dir);
    let file = blocking(move || dir.new_memory()).await;
    let file = Arc::new(file.map_err(|e| errors::file("suspend", vm.id, e))?);
    vm.set_live(&mut *vm.record.lock().await, Live::Saving { run: run.clone() })
        .await?;
    let saved = async {
        let theirs = file.try_clone().map_err(|e| errors::file("suspend", vm.id, e))?;
        write(vm, &guest.client, theirs.into()).await?;
        let (dir, file) = (Arc::clone(&vm.dir), Arc::clone(&file));
        let kept = blocking(move || dir.keep_memory(&file)).await;
        kept.map_err(|e| errors::file("suspend", vm.id, e))?;
        let run = run.clone();
        vm.set_live(&mut *vm.record.lock().await, Live::Saved { run })
            .await
    };
    if let Err(e) = saved.await {
        go_on(vm, &run).await?;
        return Err(e);
    }
    lifecycle::end_process(vm, &guest.process, "suspend").await
}

/// The guest goes on as it was before its memory was to be written.
pub(crate) async fn go_on(vm: &Arc<Vm>, run: &Run) -> Result<()> {
    // First: memory under its name must never be older than what the guest does from here on.
    let dir = Arc::clone(&vm.dir);
    let dropped = blocking(move || dir.drop_memory()).await;
    dropped.map_err(|e| errors::file("suspend", vm.id, e))?;
    vm.set_live(&mut *vm.record.lock().await, Live::Running { run: run.clone() })
        .await?;
    let on = async {
        let limit = vm.env.config.timeouts.command;
        let client = lifecycle::client_of(vm, "suspend").await?;
        let failed = |e| errors::monitor("suspend", vm.id, e);
        client
            .execute("migrate_cancel", Value::Null, limit)
            .await
            .map_err(failed)?;
        let under_way =
            |s: &str| matches!(s, "setup" | "active" | "device" | "pre-switchover" | "cancelling");
        while under_way(&progress(vm, &client).await?.0) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        if !run.paused {
            client.cont(limit).await.map_err(failed)?;
        }
        Ok::<(), Error>(())
    };
    let limit = vm.env.config.timeouts.inspect * 4;
    match tokio::time::timeout(limit, on).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => {
            tracing::warn!(server = %vm.id, error = %skyloom_model::report(&e), "a guest is held after a suspend that failed");
        }
        Err(_) => tracing::warn!(server = %vm.id, "a guest is held after a suspend that failed"),
    }
    Ok(())
}

async fn write(vm: &Arc<Vm>, client: &Client, file: OwnedFd) -> Result<()> {
    let limit = vm.env.config.timeouts.command;
    let failed = |e| errors::monitor("suspend", vm.id, e);
    client.stop(limit).await.map_err(failed)?;
    let fast = json!({ "max-bandwidth": FAST });
    client
        .execute("migrate-set-parameters", fast, limit)
        .await
        .map_err(failed)?;
    client
        .execute_with("getfd", json!({ "fdname": "memory" }), file, limit)
        .await
        .map_err(failed)?;
    client
        .execute("migrate", json!({ "uri": "fd:memory" }), limit)
        .await
        .map_err(failed)?;
    until_complete(vm, client, "suspend").await
}

/// Reads the memory into a QEMU that waits for it.
pub(crate) async fn load(vm: &Arc<Vm>, client: &Client) -> Result<()> {
    let limit = vm.env.config.timeouts.command;
    let dir = Arc::clone(&vm.dir);
    let file = blocking(move || std::fs::File::open(dir.join(dir::MEMORY))).await;
    let file = file.map_err(|e| match e.kind() {
        // Nobody else removes it: only a stop helps.
        std::io::ErrorKind::NotFound => vm
            .error(ErrorKind::Corrupt, "start")
            .with("because", "its memory is gone")
            .because(e),
        _ => errors::file("start", vm.id, e),
    })?;
    let failed = |e| errors::monitor("start", vm.id, e).with("while", "its memory is read");
    client
        .execute_with("getfd", json!({ "fdname": "memory" }), file.into(), limit)
        .await
        .map_err(failed)?;
    client
        .execute("migrate-incoming", json!({ "uri": "fd:memory" }), limit)
        .await
        .map_err(failed)?;
    until_complete(vm, client, "start").await
}

async fn until_complete(vm: &Arc<Vm>, client: &Client, operation: &'static str) -> Result<()> {
    let limit = vm.env.config.timeouts.memory;
    let complete = async {
        loop {
            let (status, why) = progress(vm, client).await?;
            match status.as_str() {
                "completed" => return Ok(()),
                "failed" | "cancelled" => {
                    let full = why.contains("No space left") || vm.dir.is_full();
                    let kind = if full { ErrorKind::Full } else { ErrorKind::Refused };
                    return Err(vm.error(kind, operation).with("QEMU", why.escape_debug()));
                }
                _ => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    };
    let late = |_| {
        vm.error(ErrorKind::Timeout, operation)
            .with("after", format!("{limit:?}"))
    };
    tokio::time::timeout(limit, complete).await.map_err(late)?
}

/// Status, and what went wrong.
async fn progress(vm: &Arc<Vm>, client: &Client) -> Result<(String, String)> {
    let limit = vm.env.config.timeouts.command;
    let answer = client.execute("query-migrate", Value::Null, limit).await;
    let answer = answer.map_err(|e| errors::monitor("ask for memory", vm.id, e))?;
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
    Ok((
        text("status").to_owned(),
        text("error-desc").chars().take(500).collect(),
    ))
}
