//! A guest that goes to another host: the source's half of a migration. The destination's is [`super::arrival`].
//!
//! ```text
//!  Running ── send ──> Sending ── QEMU's passes; all is sent: it holds the guest by itself (`postmigrate`) ── Ready
//!     ^ cancel, stop      │ a stream that broke: QEMU lets the guest go on, or we do
//!     └───────────────────┤
//!                         │ hand_over: the destination says that it has all
//!                         v
//!                     HandedOver, durably ──> kill ──> the destination is told, and records it: Complete
//! ```
//!
//! QEMU's stream is whole before the guest is handed over, and the last word is the drivers' own. A QEMU that has sent all
//! never lets its guest go again by itself, whatever becomes of the connection; one that has not is not handed over. (With
//! QEMU's `pause-before-switchover` the last pass would come after the record, and a lost connection would let the guest
//! run.) What is lost after `HandedOver` is one small message, which is repeated.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use skyloom_hypervisor::{ErrorKind, Half, Migrating, Progress, Result, Step, Stream};
use skyloom_model::{PowerState, ServerId};

use super::arrival::{self, told};
use super::passage::{Answer, Say, Sent, ask};
use super::snapshots::kept;
use crate::client::Client;
use crate::command::power_of;
use crate::core::{Core, by};
use crate::errors;
use crate::lifecycle;
use crate::record::{Goal, Live, Run};
use crate::vm::Vm;

const SEND: &str = "send guest";
const LOOK: &str = "look at migration";
const CANCEL: &str = "cancel migration";
const FORCE: &str = "force migration";
const HAND_OVER: &str = "hand guest over";

/// How often QEMU is asked whether it has ended its stream.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What QEMU says of its stream.
struct Seen {
    status: String,
    progress: Progress,
}

impl Seen {
    fn flows(&self) -> bool {
        matches!(
            self.status.as_str(),
            "setup" | "active" | "device" | "pre-switchover" | "wait-unplug" | "cancelling"
        )
    }
}

async fn seen(vm: &Vm, client: &Client, operation: &'static str) -> Result<Seen> {
    let limit = vm.env.config.timeouts.command;
    let answer = client.execute("query-migrate", Value::Null, limit).await;
    let answer = answer.map_err(|e| errors::monitor(operation, vm.id, e))?;
    let ram = &answer["ram"];
    let number = |name: &str| ram[name].as_u64().unwrap_or_default();
    let downtime = answer["downtime"]
        .as_u64()
        .or(answer["expected-downtime"].as_u64());
    Ok(Seen {
        status: answer["status"].as_str().unwrap_or("none").to_owned(),
        progress: Progress {
            pass: number("dirty-sync-count"),
            total_bytes: number("total"),
            sent_bytes: number("transferred"),
            remaining_bytes: number("remaining"),
            dirtied_per_second: number("dirty-pages-rate").saturating_mul(number("page-size")),
            sent_per_second: (ram["mbps"].as_f64().unwrap_or_default() * 125_000.0) as u64,
            downtime: Duration::from_millis(downtime.unwrap_or_default()),
        },
    })
}

/// Asks the destination's driver. An `Err` is no answer.
async fn asked(vm: &Vm, goal: &Goal, handed_over: bool, operation: &'static str) -> Result<Answer> {
    let (server, ticket) = (vm.id, goal.ticket.clone());
    let say = if handed_over {
        Say::HandedOver { server, ticket }
    } else {
        Say::Arrived { server, ticket }
    };
    let limits = vm.env.config.timeouts;
    let answer = ask(&goal.address, &say, limits.connect, limits.inspect * 2).await;
    let unreachable = |e| {
        vm.error(ErrorKind::Unavailable, operation)
            .with("destination", &goal.address)
            .because(e)
    };
    answer.map(|(answer, _)| answer).map_err(unreachable)
}

/// How far the stream of a guest is that is on its way. One that ended before it was whole lets the guest go on here.
async fn progress(vm: &Arc<Vm>, run: &Run, to: Option<&Goal>) -> Result<(Stream, Progress)> {
    let client = lifecycle::client_of(vm, LOOK).await?;
    let Some(goal) = to else {
        let seen = let_go(vm, run, LOOK).await?;
        return Ok((Stream::Broken, seen.progress));
    };
    let now = seen(vm, &client, LOOK).await?;
    if now.flows() {
        return Ok((Stream::Flowing, now.progress));
    }
    // The stream is whole, and QEMU holds the guest for it.
    let held = lifecycle::status(vm, &client, LOOK).await? == "postmigrate";
    if now.status == "completed" && held {
        match asked(vm, goal, false, LOOK).await {
            Ok(Answer::Part) => return Ok((Stream::Flowing, now.progress)),
            // Who cannot be reached now has not lost it: a hand-over asks again, and is refused.
            Ok(Answer::All) | Err(_) => return Ok((Stream::Ready, now.progress)),
            Ok(_) => {}
        }
    }
    let_go(vm, run, LOOK).await?;
    Ok((Stream::Broken, now.progress))
}

/// The stream ends, and the guest goes on here. On record first: what was sent so far is worth nothing then.
async fn let_go(vm: &Arc<Vm>, run: &Run, operation: &'static str) -> Result<Seen> {
    let ended = Live::Sending {
        run: run.clone(),
        to: None,
    };
    {
        let mut record = vm.record.lock().await;
        if matches!(record.live, Live::Sending { to: Some(_), .. }) {
            vm.set_live(&mut record, ended).await?;
        }
    }
    let limit = vm.env.config.timeouts.command;
    let client = lifecycle::client_of(vm, operation).await?;
    let failed = |e| errors::monitor(operation, vm.id, e);
    client
        .execute("migrate_cancel", Value::Null, limit)
        .await
        .map_err(failed)?;
    let ended = async {
        loop {
            let now = seen(vm, &client, operation).await?;
            if !now.flows() {
                return Ok(now);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let late = |_| {
        vm.error(ErrorKind::Timeout, operation)
            .with("because", "the stream does not end")
    };
    let now = tokio::time::timeout(limit, ended).await.map_err(late)??;
    let state = lifecycle::status(vm, &client, operation).await?;
    if power_of(&state) == Some(PowerState::Paused) && !run.paused {
        lifecycle::resume(vm, operation).await?;
    }
    Ok(now)
}

async fn live(core: &Core, vm: &Arc<Vm>, operation: &'static str) -> Result<Live> {
    lifecycle::settle(&core.tasks, vm).await?;
    let record = vm.record.lock().await;
    if record.usable(operation, vm.id)?.is_none() {
        return Err(vm.error(ErrorKind::NotFound, operation));
    }
    Ok(record.live.clone())
}

pub(crate) async fn migration(core: &Core, id: ServerId) -> Result<Migrating> {
    let vm = core.there(LOOK, id)?;
    let _op = vm.op.lock().await;
    let live = live(core, &vm, LOOK).await?;
    let (half, stream) = told(&live);
    let (stream, progress) = match &live {
        Live::Sending { run, to } => progress(&vm, run, to.as_ref()).await?,
        _ => (stream, Progress::default()),
    };
    Ok(Migrating {
        half,
        stream,
        progress,
    })
}

pub(crate) async fn send(core: &Core, id: ServerId, generation: u64, address: &str) -> Result<()> {
    let vm = core.there(SEND, id)?;
    let _op = vm.op.lock().await;
    let live = live(core, &vm, SEND).await?;
    let spec = core.obeyed_if(&vm, SEND, generation, by(Step::Send)).await?;
    let conflict = |why: &'static str| vm.error(ErrorKind::Conflict, SEND).with("because", why);
    let run = match live {
        Live::Running { run } => run,
        Live::Sending { run, to } => {
            if progress(&vm, &run, to.as_ref()).await?.0 != Stream::Broken {
                return match to {
                    Some(goal) if goal.address == address => Ok(()),
                    _ => Err(conflict("it goes somewhere else")),
                };
            }
            run
        }
        _ => return Err(conflict("it does not run")),
    };
    let client = lifecycle::client_of(&vm, SEND).await?;
    let state = lifecycle::status(&vm, &client, SEND).await?;
    if power_of(&state) != Some(PowerState::Running) {
        return Err(conflict("it does not run"));
    }
    let Some(shape) = &run.launch.shape else {
        return Err(conflict("an earlier version started it"));
    };
    let here = vm.env.config.migration.map(|m| m.listen);
    if address
        .parse::<SocketAddr>()
        .ok()
        .is_none_or(|at| Some(at) == here)
    {
        return Err(vm
            .error(ErrorKind::Invalid, SEND)
            .with("because", "it is no address of another host")
            .with("address", address));
    }
    let sent = Sent {
        server: id,
        generation: spec.generation,
        vcpus: shape.spec.vcpus,
        memory_mib: shape.spec.memory_mib,
        ports: shape.ports.clone(),
        accelerator: run.launch.accelerator.kind,
        qemu_version: run.qemu_version.clone(),
        snapshots: kept::read(&vm, SEND).await?,
    };
    let limits = vm.env.config.timeouts;
    let nobody = || {
        vm.error(ErrorKind::Unavailable, SEND)
            .with("destination", address)
    };
    let asked = ask(address, &Say::Send(sent), limits.connect, limits.start * 2).await;
    let (ticket, socket) = match asked.map_err(|e| nobody().because(e))? {
        (Answer::Go { ticket }, socket) => (ticket, socket),
        (Answer::Refused { because }, _) => {
            let because: String = because.chars().take(500).collect();
            return Err(nobody().with("because", because.escape_debug()));
        }
        _ => return Err(nobody().with("because", "its answer makes no sense")),
    };
    let socket = socket.into_std().and_then(|s| {
        s.set_nonblocking(false)?;
        Ok(s)
    });
    let socket = socket.map_err(|e| errors::file(SEND, id, e))?;
    let to = Some(Goal {
        address: address.to_owned(),
        ticket,
    });
    let sending = Live::Sending { run: run.clone(), to };
    vm.set_live(&mut *vm.record.lock().await, sending).await?;
    let begun = begin(&vm, &client, socket).await;
    if begun.is_err() {
        let_go(&vm, &run, SEND).await?;
    }
    begun
}

async fn begin(vm: &Vm, client: &Client, socket: std::net::TcpStream) -> Result<()> {
    let config = &vm.env.config;
    let limit = config.timeouts.command;
    let failed = |e| errors::monitor(SEND, vm.id, e);
    let missing = || vm.error(ErrorKind::Unsupported, SEND);
    let migration = config.migration.ok_or_else(missing)?;
    // It can be slowed down, but is not before somebody says so.
    let capabilities = json!({ "capabilities": [{ "capability": "auto-converge", "state": true }] });
    let parameters = json!({
        "max-bandwidth": migration.bytes_per_second,
        "downtime-limit": millis(migration.downtime),
        "cpu-throttle-initial": 1, "cpu-throttle-increment": 1, "max-cpu-throttle": 1,
    });
    client
        .execute("migrate-set-capabilities", capabilities, limit)
        .await
        .map_err(failed)?;
    client
        .execute("migrate-set-parameters", parameters, limit)
        .await
        .map_err(failed)?;
    client
        .execute_with("getfd", json!({ "fdname": "guest" }), socket.into(), limit)
        .await
        .map_err(failed)?;
    client
        .execute("migrate", json!({ "uri": "fd:guest" }), limit)
        .await
        .map(drop)
        .map_err(failed)
}

/// QEMU takes at most 2000 seconds.
fn millis(downtime: Duration) -> u64 {
    u64::try_from(downtime.as_millis()).map_or(2_000_000, |ms| ms.clamp(1, 2_000_000))
}

pub(crate) async fn cancel(core: &Core, id: ServerId, generation: u64) -> Result<()> {
    let vm = core.there(CANCEL, id)?;
    let _op = vm.op.lock().await;
    let live = live(core, &vm, CANCEL).await?;
    core.obeyed_if(&vm, CANCEL, generation, by(Step::Cancel)).await?;
    let Live::Sending { run, .. } = live else {
        return Ok(());
    };
    let_go(&vm, &run, CANCEL).await?;
    vm.set_live(&mut *vm.record.lock().await, Live::Running { run })
        .await
}

pub(crate) async fn force(core: &Core, id: ServerId, generation: u64, downtime: Duration) -> Result<()> {
    let vm = core.there(FORCE, id)?;
    let _op = vm.op.lock().await;
    core.obeyed_if(&vm, FORCE, generation, by(Step::Force)).await?;
    let client = lifecycle::client_of(&vm, FORCE).await?;
    let parameters = json!({
        "downtime-limit": millis(downtime),
        "cpu-throttle-initial": 20, "cpu-throttle-increment": 20, "max-cpu-throttle": 99,
    });
    let limit = vm.env.config.timeouts.command;
    let forced = client.execute("migrate-set-parameters", parameters, limit).await;
    forced.map(drop).map_err(|e| errors::monitor(FORCE, id, e))
}

pub(crate) async fn hand_over(core: &Core, id: ServerId, generation: u64) -> Result<Stream> {
    let vm = core.there(HAND_OVER, id)?;
    let _op = vm.op.lock().await;
    let live = live(core, &vm, HAND_OVER).await?;
    let stream = match &live {
        // An older order must not let the guest go on.
        Live::Sending { run, to } if core.is_newest(&vm, generation).await => {
            progress(&vm, run, to.as_ref()).await?.0
        }
        _ => told(&live).1,
    };
    let step = Step::HandOver;
    core.obeyed_if(&vm, HAND_OVER, generation, |half| half.step(step, stream))
        .await?;
    if let Live::Sending { run, to: Some(goal) } = live {
        // The last question before the point of no return: all of it is there.
        if asked(&vm, &goal, false, HAND_OVER).await? != Answer::All {
            return Err(vm
                .error(ErrorKind::Conflict, HAND_OVER)
                .with("because", "the destination has not all of it"));
        }
        let handed_over = Live::HandedOver {
            run: Some(Box::new(run)),
            to: goal,
            stream: Stream::Ready,
        };
        vm.set_live(&mut *vm.record.lock().await, handed_over).await?;
    }
    finish(&vm).await
}

/// The rest of a switch-over: the guest's process ends, then the destination is told.
async fn finish(vm: &Arc<Vm>) -> Result<Stream> {
    let process = vm.record.lock().await.live.process().cloned();
    if let Some(process) = process {
        lifecycle::kill(vm, &process, HAND_OVER).await?;
    }
    let live = vm.record.lock().await.live.clone();
    let Live::HandedOver { run, to, stream } = live else {
        return Err(vm.error(ErrorKind::Conflict, HAND_OVER));
    };
    if stream != Stream::Ready {
        return Ok(stream);
    }
    let stream = match asked(vm, &to, true, HAND_OVER).await? {
        Answer::All => Stream::Complete,
        Answer::Lost => Stream::Broken,
        _ => {
            return Err(vm
                .error(ErrorKind::Unavailable, HAND_OVER)
                .with("because", "the destination's answer makes no sense"));
        }
    };
    let done = Live::HandedOver { run, to, stream };
    vm.set_live(&mut *vm.record.lock().await, done).await?;
    Ok(stream)
}

/// What a stop does first. Says whether the domain is off by that.
pub(crate) async fn before_stop(core: &Core, vm: &Arc<Vm>) -> Result<bool> {
    lifecycle::settle(&core.tasks, vm).await?;
    let live = vm.record.lock().await.live.clone();
    match live {
        Live::Sending { run, .. } => {
            if let Err(e) = let_go(vm, &run, "stop").await {
                tracing::debug!(server = %vm.id, error = %skyloom_model::report(&e), "a stream that is to end");
            }
            let mut record = vm.record.lock().await;
            if record.live.half() == Half::Sending {
                vm.set_live(&mut record, Live::Running { run }).await?;
            }
            Ok(false)
        }
        Live::HandedOver { run: Some(run), .. } => {
            lifecycle::kill(vm, &run.process, "stop").await?;
            Ok(true)
        }
        Live::HandedOver { .. } | Live::Receiving { .. } => Ok(true),
        _ => Ok(false),
    }
}

pub(crate) use arrival::{receive, take_over};
