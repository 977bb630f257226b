//! Start, stop and take-over of one domain. Everything here runs while the domain's `op` is held.
//!
//! ```text
//!  live.json:  Starting ──spawn, greeting, PCI──> Running ──cont──> confirmed
//!  crash here: ^ no QEMU: off; QEMU: finish      ^ paused guest: the next start goes on with `cont`
//! ```

use std::process::Stdio;
use std::sync::Arc;

use skyloom_hypervisor::{Error, ErrorKind, Result, StopMode, Stopped, VmSpec};
use skyloom_model::PowerState;
use tokio::process::{Child, Command};

use crate::abilities::{arrival, hotplug, pause, snapshots, suspend};
use crate::argv;
use crate::client::Client;
use crate::command::power_of;
use crate::devices::{self, Shape};
use crate::dir;
use crate::errors::{self, blocking};
use crate::monitor::monitor;
use crate::process::{self, ProcessId};
use crate::record::{Arrival, Entry, Launch, Live, Run};
use crate::tasks::Tasks;
use crate::vm::{Glance, HOST_REQUEST, Vm};

/// What there is to work on.
#[derive(Debug)]
pub(crate) enum Now {
    /// No process.
    Off,
    /// A process whose guest may run.
    Up(ProcessId),
    /// A process whose guest is off; its monitor task ends it.
    Halted(ProcessId),
}

/// Ensures that a monitor task looks after the process.
pub(crate) fn look_after(tasks: &Arc<Tasks>, vm: &Arc<Vm>, process: &ProcessId, child: Option<Child>) {
    let mut monitored = vm.monitored.lock();
    if monitored.as_ref() != Some(process) {
        *monitored = Some(process.clone());
        tasks.spawn(monitor(Arc::clone(vm), process.clone(), child));
    }
}

/// Compares the record with the processes there are, and finishes what an earlier agent left half done.
pub(crate) async fn settle(tasks: &Arc<Tasks>, vm: &Arc<Vm>) -> Result<Now> {
    let live = vm.record.lock().await.live.clone();
    if let Live::Starting { launch } = live {
        return adopt_half_started(tasks, vm, launch).await;
    }
    if let Live::Saving { run } = &live
        && run.process.alive()
    {
        look_after(tasks, vm, &run.process, None);
        suspend::go_on(vm, run).await?;
        return Ok(Now::Up(run.process.clone()));
    }
    if let Live::Receiving {
        arrival: Arrival::Starting { .. },
    } = live
    {
        // Nobody was told to send.
        if let Some(process) = find(vm).await {
            kill(vm, &process, "recover").await?;
        }
        vm.note_end(None, None).await;
        return Ok(Now::Off);
    }
    let Some(process) = live.process().cloned() else {
        return Ok(Now::Off);
    };
    if !process.alive() {
        // Its monitor task knows more of the end, when there is one.
        if vm.monitored.lock().is_none()
            || !vm
                .wait_for(vm.env.config.timeouts.inspect, |g| *g == Glance::Off)
                .await
        {
            vm.note_end(Some(&process), None).await;
        }
        return Ok(Now::Off);
    }
    look_after(tasks, vm, &process, None);
    let off = |live| {
        matches!(
            live,
            Live::Halted { .. } | Live::Saved { .. } | Live::HandedOver { .. } | Live::Receiving { .. }
        )
    };
    Ok(if off(live) {
        Now::Halted(process)
    } else {
        Now::Up(process)
    })
}

/// What an agent does that comes back: it also holds a guest again that was to be held.
pub(crate) async fn take_over(tasks: &Arc<Tasks>, vm: &Arc<Vm>) -> Result<()> {
    match settle(tasks, vm).await? {
        Now::Off => Ok(()),
        Now::Halted(process) if vm.is_saved().await => end_process(vm, &process, "recover").await,
        Now::Halted(process) => arrival::recover(vm, &process).await,
        Now::Up(_) if vm.is_held().await => pause::hold(vm, "recover").await,
        Now::Up(_) => Ok(()),
    }
}

async fn adopt_half_started(tasks: &Arc<Tasks>, vm: &Arc<Vm>, launch: Launch) -> Result<Now> {
    match find(vm).await {
        Some(process) => {
            tracing::info!(server = %vm.id, pid = process.pid, "adopting a QEMU whose start was cut short");
            look_after(tasks, vm, &process, None);
            if launch.entry != Entry::Boot {
                // Nobody knows how far its memory is. Its CPUs have not run: it can be begun anew.
                end_process(vm, &process, "start").await?;
                return Ok(Now::Off);
            }
            finish_launch(vm, &process, launch, u64::MAX).await?;
            Ok(Now::Up(process))
        }
        None => {
            vm.note_end(None, None).await;
            Ok(Now::Off)
        }
    }
}

/// The QEMU of this domain, looked for among all processes.
pub(crate) async fn find(vm: &Arc<Vm>) -> Option<ProcessId> {
    let (dir, id) = (Arc::clone(&vm.dir), vm.id.to_string());
    blocking(move || Ok(process::find(dir.path(), &id)))
        .await
        .ok()
        .flatten()
}

/// Ensures that the domain runs.
pub(crate) async fn start(tasks: &Arc<Tasks>, vm: &Arc<Vm>, spec: &VmSpec) -> Result<()> {
    match settle(tasks, vm).await? {
        Now::Off => begin(tasks, vm, spec).await?,
        Now::Halted(process) => {
            end_process(vm, &process, "start").await?;
            begin(tasks, vm, spec).await?;
        }
        Now::Up(process) => {
            let client = client_of(vm, "start").await?;
            let state = status(vm, &client, "start").await?;
            match power_of(&state) {
                Some(PowerState::Running) => return unstop(vm).await,
                Some(PowerState::Paused) => {
                    unstop(vm).await?;
                    vm.note_paused(false).await?;
                }
                Some(PowerState::Stopped | PowerState::Suspended | PowerState::Crashed) => {
                    end_process(vm, &process, "start").await?;
                    begin(tasks, vm, spec).await?;
                }
                Some(PowerState::Unknown) | None => {
                    return Err(vm.error(ErrorKind::Unsupported, "start").with("run state", state));
                }
            }
        }
    }
    resume(vm, "start").await
}

/// A new process: at its boot, or where it was suspended.
async fn begin(tasks: &Arc<Tasks>, vm: &Arc<Vm>, spec: &VmSpec) -> Result<()> {
    match vm.memory().await {
        Some(shape) => launch(tasks, vm, spec.generation, shape, Entry::Memory).await,
        None => launch(tasks, vm, spec.generation, Shape::new(spec.clone()), Entry::Boot).await,
    }
}

/// A stop that an earlier agent did not finish is no longer wanted.
async fn unstop(vm: &Arc<Vm>) -> Result<()> {
    let mut record = vm.record.lock().await;
    if let Live::Stopping { run } = &record.live {
        let running = Live::Running { run: run.clone() };
        vm.set_live(&mut record, running).await?;
    }
    Ok(())
}

/// A new process, with its CPUs held.
pub(crate) async fn launch(
    tasks: &Arc<Tasks>,
    vm: &Arc<Vm>,
    generation: u64,
    shape: Shape,
    entry: Entry,
) -> Result<()> {
    let ready = prepare(vm, generation, shape, entry, entry == Entry::Memory).await?;
    let launch = ready.launch.clone();
    let starting = Live::Starting {
        launch: launch.clone(),
    };
    vm.set_live(&mut *vm.record.lock().await, starting).await?;
    let log_from = ready.log_from;
    let process = run(tasks, vm, ready).await?;
    finish_launch(vm, &process, launch, log_from).await
}

/// A QEMU that is about to be started.
pub(crate) struct Prepared {
    pub(crate) launch: Launch,
    stderr: std::fs::File,
    pub(crate) log_from: u64,
}

/// Makes what a QEMU needs. `incoming`: its memory will be told over the monitor.
pub(crate) async fn prepare(
    vm: &Arc<Vm>,
    generation: u64,
    shape: Shape,
    entry: Entry,
    incoming: bool,
) -> Result<Prepared> {
    let config = &vm.env.config;
    let prepared = {
        let (shape, dir, run_as) = (shape.clone(), Arc::clone(&vm.dir), config.run_as);
        let work = move || {
            let accelerator = crate::accel::probe();
            let argv = devices::backing_files(&shape.spec)
                .map(|below| argv::build(&shape, accelerator.kind, &below, incoming));
            let stderr = dir.prepare(run_as)?;
            Ok((accelerator, argv, stderr, dir.len(dir::QEMU_LOG)))
        };
        blocking(work)
            .await
            .map_err(|e| errors::file("start", vm.id, e))?
    };
    let (accelerator, argv, stderr, log_from) = prepared;
    let mut full = vec![config.qemu.display().to_string()];
    full.extend(argv?);
    let launch = Launch {
        generation,
        accelerator,
        argv: full,
        at: config.clock.now(),
        shape: Some(shape),
        entry,
    };
    Ok(Prepared {
        launch,
        stderr,
        log_from,
    })
}

/// Starts what is on record; when there is no process, that is noted.
pub(crate) async fn run(tasks: &Arc<Tasks>, vm: &Arc<Vm>, ready: Prepared) -> Result<ProcessId> {
    let config = &vm.env.config;
    let Prepared {
        launch,
        stderr,
        log_from,
    } = ready;
    *vm.shutdown_reason.lock() = None;

    let spawned = spawn(vm, &launch.argv, stderr).map_err(|e| {
        let program = config.setsid.display().to_string();
        errors::file("start", vm.id, e).with("program", program)
    });
    let mut child = match spawned {
        Ok(child) => child,
        Err(e) => {
            vm.note_end(None, None).await;
            return Err(e);
        }
    };
    let Some(process) = child.id().and_then(ProcessId::of) else {
        let _ = child.wait().await;
        vm.note_end(None, None).await;
        return Err(start_error(vm, log_from).await);
    };
    look_after(tasks, vm, &process, Some(child));
    Ok(process)
}

/// QEMU in a session of its own: neither a signal to our process group nor the end of our terminal reaches it, and it
/// is no worse off when we die. `setsid` replaces itself by QEMU, so that our child is QEMU.
fn spawn(vm: &Arc<Vm>, argv: &[String], stderr: std::fs::File) -> std::io::Result<Child> {
    let config = &vm.env.config;
    let mut command = Command::new(&config.setsid);
    command
        .args(argv)
        .current_dir(vm.dir.path())
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(false);
    command.stdout(stderr.try_clone()?).stderr(stderr);
    if let Some(user) = config.run_as {
        command.uid(user.uid).gid(user.gid);
    }
    command.spawn()
}

/// From a spawned QEMU to a recorded one: its CPUs are still held.
async fn finish_launch(vm: &Arc<Vm>, process: &ProcessId, launch: Launch, log_from: u64) -> Result<()> {
    let result = async {
        let limits = vm.env.config.timeouts;
        let Some(client) = vm.wait_client(limits.start).await else {
            return Err(start_error(vm, log_from).await);
        };
        let paused = match launch.entry {
            Entry::Boot => false,
            Entry::Memory => suspend::load(vm, &client).await.map(|()| false)?,
            Entry::Snapshot { snapshot } => snapshots::load(vm, &client, snapshot).await?,
        };
        if let Some(shape) = &launch.shape {
            hotplug::limit_all(vm, &client, shape).await?;
        }
        let memory = launch.entry == Entry::Memory;
        let run = Run {
            launch,
            process: process.clone(),
            qemu_version: client.version().to_owned(),
            paused,
        };
        vm.set_live(&mut *vm.record.lock().await, Live::Running { run })
            .await?;
        if memory {
            // From here on the guest may run and change its disks: nobody goes back to this memory.
            vm.drop_memory().await;
        }
        Ok(())
    };
    let result = result.await;
    if result.is_err() {
        // Its CPUs have not run: nothing is lost by ending it.
        end_process(vm, process, "start").await?;
    }
    result
}

pub(crate) async fn start_error(vm: &Arc<Vm>, log_from: u64) -> Error {
    let dir = Arc::clone(&vm.dir);
    let words = blocking(move || Ok(dir.text_from(dir::QEMU_LOG, log_from, 2000)))
        .await
        .unwrap_or_default();
    let kind = if words.is_empty() {
        ErrorKind::Timeout
    } else {
        errors::start_kind(&words)
    };
    vm.error(kind, "start")
        .with("QEMU", if words.is_empty() { "said nothing" } else { &words })
}

/// Lets the CPUs run and makes sure that they do.
pub(crate) async fn resume(vm: &Arc<Vm>, operation: &'static str) -> Result<()> {
    let limits = vm.env.config.timeouts;
    let client = client_of(vm, operation).await?;
    client
        .cont(limits.command)
        .await
        .map_err(|e| errors::monitor(operation, vm.id, e))?;
    let state = status(vm, &client, operation).await?;
    match power_of(&state) {
        Some(PowerState::Running) => vm.publish(PowerState::Running, Some(HOST_REQUEST)),
        // A guest may be quick to shut down again: it did run.
        Some(PowerState::Stopped) => {}
        _ => return Err(vm.error(ErrorKind::Refused, operation).with("run state", state)),
    }
    Ok(())
}

pub(crate) async fn client_of(vm: &Arc<Vm>, operation: &'static str) -> Result<Client> {
    let limit = vm.env.config.timeouts.inspect;
    let none = || {
        vm.error(ErrorKind::Unavailable, operation)
            .with("because", "its monitor cannot be reached")
    };
    vm.wait_client(limit).await.ok_or_else(none)
}

pub(crate) async fn status(vm: &Arc<Vm>, client: &Client, operation: &'static str) -> Result<String> {
    let limit = vm.env.config.timeouts.command;
    client
        .query_status(limit)
        .await
        .map_err(|e| errors::monitor(operation, vm.id, e))
}

/// Ensures that the domain is off.
pub(crate) async fn stop(tasks: &Arc<Tasks>, vm: &Arc<Vm>, mode: StopMode) -> Result<Stopped> {
    let process = match settle(tasks, vm).await? {
        Now::Off => {
            acknowledge(vm).await?;
            return Ok(Stopped::AlreadyOff);
        }
        Now::Halted(process) => {
            end_process(vm, &process, "stop").await?;
            acknowledge(vm).await?;
            return Ok(Stopped::AlreadyOff);
        }
        Now::Up(process) => process,
    };
    if let StopMode::Graceful { timeout } = mode
        && can_hear(vm).await
    {
        let asked = tokio::time::timeout(timeout, ask(vm)).await;
        if asked.is_ok() {
            let off = Glance::Off;
            if !vm.wait_for(vm.env.config.timeouts.quit, |g| *g == off).await {
                end_process(vm, &process, "stop").await?;
            }
            return Ok(Stopped::Gracefully);
        }
    }
    force_off(vm, &process, "stop").await?;
    Ok(Stopped::Forced)
}

/// Whether the guest's CPUs run, as far as can be told: a held guest hears no button.
async fn can_hear(vm: &Arc<Vm>) -> bool {
    match client_of(vm, "stop").await {
        Ok(client) => status(vm, &client, "stop")
            .await
            .is_ok_and(|s| power_of(&s) == Some(PowerState::Running)),
        Err(_) => true,
    }
}

/// A stop of a crashed domain makes it a stopped one, and so does one of a suspended domain, which loses its memory.
pub(crate) async fn acknowledge(vm: &Arc<Vm>) -> Result<()> {
    let mut record = vm.record.lock().await;
    if let Live::Ended {
        power: PowerState::Crashed | PowerState::Suspended,
        ..
    } = record.live
    {
        let at = vm.env.config.clock.now();
        let ended = Live::Ended {
            power: PowerState::Stopped,
            cause: HOST_REQUEST.to_owned(),
            at,
            memory: None,
        };
        vm.set_live(&mut record, ended).await?;
        drop(record);
        vm.drop_memory().await;
        vm.publish(PowerState::Stopped, Some(HOST_REQUEST));
    }
    Ok(())
}

/// Presses the power button, now and then, until the guest is off. Early in its boot a guest does not hear it.
async fn ask(vm: &Arc<Vm>) {
    let limits = vm.env.config.timeouts;
    loop {
        if let Some(client) = vm.wait_client(limits.connect).await
            && let Err(e) = client.system_powerdown(limits.command).await
        {
            tracing::debug!(server = %vm.id, error = %skyloom_model::report(&e), "cannot press the power button");
        }
        if vm
            .wait_for(limits.press_again, |g| matches!(g, Glance::Off | Glance::Halted))
            .await
        {
            return;
        }
    }
}

/// Off at once: `quit`, so that QEMU flushes what the guest was told is written; then a kill.
pub(crate) async fn force_off(vm: &Arc<Vm>, process: &ProcessId, operation: &'static str) -> Result<()> {
    let mut record = vm.record.lock().await;
    if let Live::Running { run } | Live::Sending { run, .. } = &record.live {
        let stopping = Live::Stopping { run: run.clone() };
        vm.set_live(&mut record, stopping).await?;
    }
    drop(record);
    end_process(vm, process, operation).await
}

/// Ends the process and waits until that is noted.
pub(crate) async fn end_process(vm: &Arc<Vm>, process: &ProcessId, operation: &'static str) -> Result<()> {
    let limits = vm.env.config.timeouts;
    let gone = async {
        let client = vm.client.borrow().clone();
        if let Some(client) = client {
            // Whether it answers or not: the end of the process is what counts.
            let _ = client.quit(limits.quit).await;
        }
        process.exited().await;
    };
    if tokio::time::timeout(limits.quit, gone).await.is_err() {
        return kill(vm, process, operation).await;
    }
    noted_end(vm, process).await;
    Ok(())
}

/// Kills the process and waits until its end is noted.
pub(crate) async fn kill(vm: &Arc<Vm>, process: &ProcessId, operation: &'static str) -> Result<()> {
    process.kill().map_err(|e| errors::file(operation, vm.id, e))?;
    let limit = vm.env.config.timeouts.kill;
    if tokio::time::timeout(limit, process.exited()).await.is_err() {
        return Err(vm
            .error(ErrorKind::Timeout, operation)
            .with("because", "its process does not end")
            .with("pid", process.pid));
    }
    noted_end(vm, process).await;
    Ok(())
}

/// Its monitor task knows more of the end.
async fn noted_end(vm: &Arc<Vm>, process: &ProcessId) {
    let limits = vm.env.config.timeouts;
    if !vm.wait_for(limits.inspect, |g| *g == Glance::Off).await {
        vm.note_end(Some(process), None).await;
    }
}
