//! A guest's memory that comes from another host: the destination's half of a migration.
//!
//! ```text
//!  receive ──> Waiting ── a driver comes ──> Starting ── QEMU, CPUs held ──> Flowing ── its memory
//!                 ^          no QEMU yet, or none that was told to read         │
//!                 └──────────────────────────────────────────<──┘               │ HandedOver, and all is here
//!  its QEMU ends: Broken, for ever                                              v
//!                              Running <── take_over ─────────────────────── Complete
//! ```
//!
//! The QEMU is started when the source's driver comes, since only that knows which slot each device of the guest has. It
//! opens its disks when it is taken over (`late-block-activate`): until then they are the source's.

use std::sync::Arc;

use serde_json::{Value, json};
use skyloom_hypervisor::{Error, ErrorKind, Half, Incoming, Result, Step, Stream, VmSpec};
use skyloom_model::{PowerState, ServerId};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::hotplug;
use super::passage::{Answer, Sent, line_of};
use super::snapshots::kept::{self, Kept};
use crate::argv;
use crate::client::Client;
use crate::command::power_of;
use crate::core::{Core, stale};
use crate::devices::{self, Shape};
use crate::errors::{self, blocking};
use crate::lifecycle::{self, Now};
use crate::process::ProcessId;
use crate::record::{Arrival, Entry, Live, Run};
use crate::vm::Vm;

const RECEIVE: &str = "receive guest";
const TAKE_OVER: &str = "take guest over";

pub(crate) async fn receive(core: &Core, spec: &VmSpec) -> Result<Incoming> {
    let unsupported = || Error::new(ErrorKind::Unsupported, RECEIVE).with("server", spec.id);
    let migration = core.env.config.migration.ok_or_else(unsupported)?;
    let incoming = Incoming {
        address: migration.listen.to_string(),
    };
    argv::check(spec)?;
    let there = spec.clone();
    // A disk that cannot be seen from here is told of now, not when the guest comes.
    let seen = blocking(move || Ok(devices::backing_files(&there))).await;
    seen.map_err(|e| errors::file(RECEIVE, spec.id, e))??;
    loop {
        let vm = core.get_or_create(spec.id).await?;
        let _op = vm.op.lock().await;
        let mut record = vm.record.lock().await;
        if record.gone {
            continue;
        }
        let Some(desc) = record.usable(RECEIVE, spec.id)? else {
            // This first: what has a description and no more is booted by a start.
            let arrival = Arrival::Waiting;
            vm.set_live(&mut record, Live::Receiving { arrival }).await?;
            vm.set_desc(&mut record, RECEIVE, spec.clone()).await?;
            return Ok(incoming);
        };
        let mut wanted = desc.spec.clone();
        if wanted.generation > spec.generation {
            return Err(stale(RECEIVE, spec.id, spec.generation, wanted.generation));
        }
        let conflict = |why| vm.error(ErrorKind::Conflict, RECEIVE).with("because", why);
        let stream = Stream::Waiting;
        record.live.half().step(Step::Receive, stream).map_err(conflict)?;
        if wanted.generation < spec.generation {
            match &record.live {
                Live::Receiving {
                    arrival: Arrival::Waiting,
                } => wanted = spec.clone(),
                _ => wanted.generation = spec.generation,
            }
            vm.set_desc(&mut record, RECEIVE, wanted).await?;
        }
        return Ok(incoming);
    }
}

/// What comes, as this host can take it: an `Err` says why not.
fn fitting(core: &Core, spec: &VmSpec, sent: &Sent) -> Result<(Shape, Vec<Kept>), &'static str> {
    if spec.generation != sent.generation {
        return Err("another generation of it is waited for");
    }
    if (spec.vcpus, spec.memory_mib) != (sent.vcpus, sent.memory_mib) {
        return Err("its size is another one than that which is waited for");
    }
    if core.qemu_version != sent.qemu_version {
        return Err("its QEMU is of another version than this host's");
    }
    if crate::accel::probe().kind != sent.accelerator {
        return Err("its accelerator is another one than this host's");
    }
    let snapshots = sent.snapshots.iter().cloned().map(|k| k.on_other_host(spec));
    let Some(snapshots) = snapshots.collect() else {
        return Err("a snapshot with memory is made of what the domain is not made of any more");
    };
    let shape = Shape::plugged(spec.clone(), sent.ports.clone());
    let shape = shape.ok_or("its disks and NICs are others than those that are waited for")?;
    Ok((shape, snapshots))
}

/// The source's driver is here: a QEMU is started and reads the connection from here on.
pub(crate) async fn take_in(core: &Arc<Core>, sent: Sent, mut socket: TcpStream) -> std::io::Result<()> {
    let Ok(vm) = core.there(RECEIVE, sent.server) else {
        return refuse(&mut socket, "nobody waits for it here").await;
    };
    let _op = vm.op.lock().await;
    let fits = {
        let record = vm.record.lock().await;
        let waits = matches!(
            record.live,
            Live::Receiving {
                arrival: Arrival::Waiting
            }
        );
        match &record.desc {
            Some(desc) if waits && record.damaged.is_none() => fitting(core, &desc.spec, &sent),
            _ => Err("nobody waits for it here"),
        }
    };
    let (shape, snapshots) = match fits {
        Ok(fits) => fits,
        Err(why) => return refuse(&mut socket, why).await,
    };
    let started = async {
        kept::write(&vm, RECEIVE, &snapshots).await?;
        let ready = lifecycle::prepare(&vm, sent.generation, shape, Entry::Boot, true).await?;
        let (launch, log_from) = (ready.launch.clone(), ready.log_from);
        note(
            &vm,
            Arrival::Starting {
                launch: launch.clone(),
            },
        )
        .await?;
        let process = lifecycle::run(&core.tasks, &vm, ready).await?;
        let Some(client) = vm.wait_client(vm.env.config.timeouts.start).await else {
            return Err(lifecycle::start_error(&vm, log_from).await);
        };
        let run = Run {
            launch,
            process,
            qemu_version: client.version().to_owned(),
            paused: false,
        };
        note(&vm, Arrival::Flowing { run: run.clone() }).await?;
        Ok((client, run.process))
    };
    let (client, process) = match started.await {
        Ok(started) => started,
        Err(e) => {
            wait_again(core, &vm).await.map_err(std::io::Error::other)?;
            return refuse(&mut socket, &skyloom_model::report(&e)).await;
        }
    };
    let mut socket = socket.into_std()?;
    socket.set_nonblocking(false)?;
    // The answer is the last step: before it nothing comes, and whoever dies before it has another one come.
    if let Err(e) = read_from(&vm, &client, socket.try_clone()?).await {
        wait_again(core, &vm).await.map_err(std::io::Error::other)?;
        let because = skyloom_model::report(&e);
        let line = line_of(&Answer::Refused { because })?;
        return blocking(move || std::io::Write::write_all(&mut socket, &line)).await;
    }
    let line = line_of(&Answer::Go { ticket: process })?;
    blocking(move || std::io::Write::write_all(&mut socket, &line)).await
}

async fn refuse(socket: &mut TcpStream, because: &str) -> std::io::Result<()> {
    let because = because.chars().take(500).collect();
    socket.write_all(&line_of(&Answer::Refused { because })?).await
}

async fn note(vm: &Arc<Vm>, arrival: Arrival) -> Result<()> {
    vm.set_live(&mut *vm.record.lock().await, Live::Receiving { arrival })
        .await
}

/// Nobody was told to send: ends what there is, so that another one can come.
async fn wait_again(core: &Core, vm: &Arc<Vm>) -> Result<()> {
    if let Now::Up(process) | Now::Halted(process) = lifecycle::settle(&core.tasks, vm).await? {
        lifecycle::kill(vm, &process, RECEIVE).await?;
    }
    note(vm, Arrival::Waiting).await
}

async fn read_from(vm: &Vm, client: &Client, socket: std::net::TcpStream) -> Result<()> {
    let limit = vm.env.config.timeouts.command;
    let failed = |e| errors::monitor(RECEIVE, vm.id, e);
    let late = json!({ "capabilities": [{ "capability": "late-block-activate", "state": true }] });
    client
        .execute("migrate-set-capabilities", late, limit)
        .await
        .map_err(failed)?;
    client
        .execute_with("getfd", json!({ "fdname": "guest" }), socket.into(), limit)
        .await
        .map_err(failed)?;
    client
        .execute("migrate-incoming", json!({ "uri": "fd:guest" }), limit)
        .await
        .map(drop)
        .map_err(failed)
}

/// Whether QEMU has all of the guest's memory; `None` when it was not told to read.
async fn has_all(vm: &Arc<Vm>, client: &Client) -> Result<Option<bool>> {
    let limit = vm.env.config.timeouts.command;
    let answer = client.execute("query-migrate", Value::Null, limit).await;
    let answer = answer.map_err(|e| errors::monitor(RECEIVE, vm.id, e))?;
    Ok(match answer.get("status").and_then(Value::as_str) {
        None | Some("none") => None,
        status => Some(status == Some("completed")),
    })
}

/// How far the memory is that `ticket` takes in. `handed_over`: the source has let go of the guest, which is recorded when
/// all is here.
pub(crate) async fn arrived(
    core: &Core,
    id: ServerId,
    ticket: &ProcessId,
    handed_over: bool,
) -> Result<Answer> {
    let Ok(vm) = core.there(RECEIVE, id) else {
        return Ok(Answer::Lost);
    };
    let _op = vm.op.lock().await;
    lifecycle::settle(&core.tasks, &vm).await?;
    let live = {
        let record = vm.record.lock().await;
        record.usable(RECEIVE, id)?;
        record.live.clone()
    };
    match live {
        Live::Receiving {
            arrival: Arrival::Complete { run },
        } if run.process == *ticket => Ok(Answer::All),
        // Taken over already.
        Live::Running { run } if run.process == *ticket => Ok(Answer::All),
        Live::Receiving {
            arrival: Arrival::Flowing { run },
        } if run.process == *ticket => {
            let client = lifecycle::client_of(&vm, RECEIVE).await?;
            if has_all(&vm, &client).await? != Some(true) {
                return Ok(Answer::Part);
            }
            if handed_over {
                note(&vm, Arrival::Complete { run }).await?;
            }
            Ok(Answer::All)
        }
        _ => Ok(Answer::Lost),
    }
}

/// An agent has come back: a QEMU that was not told to read is of no use, and one whose guest is another host's is ended.
pub(crate) async fn recover(vm: &Arc<Vm>, process: &ProcessId) -> Result<()> {
    let live = vm.record.lock().await.live.clone();
    match live {
        Live::HandedOver { .. } => lifecycle::kill(vm, process, "recover").await,
        Live::Receiving {
            arrival: Arrival::Flowing { .. },
        } => {
            let client = lifecycle::client_of(vm, "recover").await?;
            if has_all(vm, &client).await?.is_some() {
                return Ok(());
            }
            lifecycle::kill(vm, process, "recover").await?;
            note(vm, Arrival::Waiting).await
        }
        _ => Ok(()),
    }
}

pub(crate) async fn take_over(core: &Core, id: ServerId, generation: u64) -> Result<()> {
    let vm = core.there(TAKE_OVER, id)?;
    let _op = vm.op.lock().await;
    let now = lifecycle::settle(&core.tasks, &vm).await?;
    let live = vm.record.lock().await.live.clone();
    let stream = match &live {
        Live::Receiving { arrival } => stream_of(arrival),
        _ => Stream::Waiting,
    };
    // An older order is told that it is, whatever the half says.
    let step = Step::TakeOver;
    core.obeyed_if(&vm, TAKE_OVER, generation, |half| half.step(step, stream))
        .await?;
    match live {
        Live::Receiving {
            arrival: Arrival::Complete { run },
        } => {
            let client = lifecycle::client_of(&vm, TAKE_OVER).await?;
            if let Some(shape) = &run.launch.shape {
                hotplug::limit_all(&vm, &client, shape).await?;
            }
            vm.set_live(&mut *vm.record.lock().await, Live::Running { run })
                .await?;
            lifecycle::resume(&vm, TAKE_OVER).await?;
            announce(&vm, &client).await;
            Ok(())
        }
        Live::Running { run } if matches!(now, Now::Up(_)) => {
            let client = lifecycle::client_of(&vm, TAKE_OVER).await?;
            let state = lifecycle::status(&vm, &client, TAKE_OVER).await?;
            if power_of(&state) == Some(PowerState::Paused) && !run.paused {
                lifecycle::resume(&vm, TAKE_OVER).await?;
                announce(&vm, &client).await;
            }
            Ok(())
        }
        _ => Err(vm
            .error(ErrorKind::Conflict, TAKE_OVER)
            .with("because", "it is off")),
    }
}

/// Tells switches where the guest's addresses are now. They learn it from its next frame otherwise.
async fn announce(vm: &Arc<Vm>, client: &Client) {
    let rounds = json!({ "initial": 50, "max": 550, "rounds": 5, "step": 100 });
    let limit = vm.env.config.timeouts.command;
    if let Err(e) = client.execute("announce-self", rounds, limit).await {
        tracing::warn!(server = %vm.id, error = %skyloom_model::report(&e), "cannot announce a guest");
    }
}

/// What a destination knows of its stream.
pub(crate) const fn stream_of(arrival: &Arrival) -> Stream {
    match arrival {
        Arrival::Waiting => Stream::Waiting,
        Arrival::Starting { .. } | Arrival::Flowing { .. } => Stream::Flowing,
        Arrival::Complete { .. } => Stream::Complete,
        Arrival::Broken => Stream::Broken,
    }
}

/// The half of a domain, and what it says of its stream, where that is its own.
pub(crate) const fn told(live: &Live) -> (Half, Stream) {
    let stream = match live {
        Live::Receiving { arrival } => stream_of(arrival),
        Live::HandedOver { stream, .. } => *stream,
        _ => Stream::Waiting,
    };
    (live.half(), stream)
}
