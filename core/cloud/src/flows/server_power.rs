//! `server.start`, `server.stop`, `server.reboot`.

use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, TaskFlow};
use skyloom_model::{
    JobId, JobSpec, Lifecycle, Place, PowerState, Reason, Resource as _, Server, ServerId, Task, TaskEnd,
};
use skyloom_store::{Key, Txn};

use super::definition::{applied, definition};
use super::records::{order, power_reads, restart_reads, subject_key, take_seen};
use super::server_evacuate::ServerEvacuate;
use super::server_hold::{ServerHold, hold};
use super::{Outputs, START_SECONDS, Step, StopParams, output, params};
use crate::jobs::{Seen, ServerInput, Started, StopInput};

/// Turns a server on.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerStart;
/// Turns a server off.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerStop;
/// Turns a server off and on again.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerReboot;

impl TaskFlow for ServerStart {
    fn name(&self) -> &'static str {
        "server.start"
    }
    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        restart_reads(task, have).unwrap_or_default()
    }
    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        planned(task, cx, |server, place| {
            if server.status.power == PowerState::Suspended {
                return Ok(vec![hold(ServerHold::Resume, server.id(), place)?]);
            }
            let (define, mut on) = (define(task, cx, server, place)?, start(server.id(), place)?);
            on.after = vec![define.id.clone()];
            Ok(vec![define, on])
        })
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        settled(task, cx, |server| match cx.end {
            TaskEnd::Done => started(server, cx),
            // The way back has forced it off, or kept its memory once more.
            TaskEnd::Failed | TaskEnd::Cancelled if cx.plan.is_some() => {
                if server.status.power != PowerState::Suspended {
                    server.status.power = PowerState::Stopped;
                }
            }
            TaskEnd::Failed | TaskEnd::Cancelled | TaskEnd::Abandoned => {}
        })
    }
}

impl TaskFlow for ServerStop {
    fn name(&self) -> &'static str {
        "server.stop"
    }
    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        power_reads(task, have).unwrap_or_default()
    }
    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let how: StopParams = params(task)?;
        planned(task, cx, |server, place| Ok(vec![stop(server.id(), place, how)?]))
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        settled(task, cx, |server| {
            if stopped(cx) {
                server.status.power = PowerState::Stopped;
            }
        })
    }
}

impl TaskFlow for ServerReboot {
    fn name(&self) -> &'static str {
        "server.reboot"
    }
    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        restart_reads(task, have).unwrap_or_default()
    }
    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let how: StopParams = params(task)?;
        planned(task, cx, |server, place| {
            // The definition first: it takes effect when the guest is turned on.
            let define = define(task, cx, server, place)?;
            let mut off = stop(server.id(), place, how)?;
            let mut on = start(server.id(), place)?;
            off.after = vec![define.id.clone()];
            on.after = vec![off.id.clone()];
            Ok(vec![define, off, on])
        })
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        settled(task, cx, |server| match cx.end {
            TaskEnd::Done => {
                started(server, cx);
                server.status.lifecycle = Lifecycle::Active;
            }
            TaskEnd::Failed | TaskEnd::Cancelled if stopped(cx) => {
                server.status.power = PowerState::Stopped;
            }
            TaskEnd::Failed | TaskEnd::Cancelled | TaskEnd::Abandoned => {}
        })
    }
}

/// The domain as the records want it by now.
pub(super) fn define(
    task: &Task,
    cx: &PlanContext<'_>,
    server: &Server,
    place: Place,
) -> Result<JobSpec, Reason> {
    let input = definition(task, server, cx.records, true)?;
    let step = Step::new("vm.define", "define the virtual machine", place, &input)?;
    Ok(step.weight(2).within(120).done())
}

pub(super) fn start(server: ServerId, place: Place) -> Result<JobSpec, Reason> {
    let step = Step::new(
        "vm.start",
        "start the virtual machine",
        place,
        &ServerInput { server },
    )?;
    Ok(step.weight(5).within(START_SECONDS).done())
}

pub(super) fn stop(server: ServerId, place: Place, how: StopParams) -> Result<JobSpec, Reason> {
    let input = StopInput {
        server,
        force: how.force,
        timeout_seconds: how.timeout_seconds,
    };
    // What the guest may take, and what forcing it off may take then.
    let seconds = u64::from(how.timeout_seconds) + 120;
    Ok(Step::new("vm.stop", "stop the virtual machine", place, &input)?
        .weight(5)
        .within(seconds)
        .done())
}

/// What is common: an order of a new generation to the server's host.
pub(super) fn planned(
    task: &Task,
    cx: &PlanContext<'_>,
    jobs: impl FnOnce(&Server, Place) -> Result<Vec<JobSpec>, Reason>,
) -> Result<Planned, Refusal> {
    let at = subject_key(task)?;
    let mut server: Server = cx.records.need(&at)?;
    let Some(placement) = &server.status.placement else {
        return Err(Reason::new("server.not_placed", "the server is on no host").into());
    };
    let jobs = jobs(&server, Place::Host(placement.host))?;
    order(&mut server, cx);
    Ok(Planned {
        jobs,
        generation: server.meta.generation,
        changes: cx.records.put(Txn::new(), &at, &server)?,
        ..Planned::default()
    })
}

/// Jobs that change nothing about the server's domain: no new order.
pub(super) fn beside(
    task: &Task,
    cx: &PlanContext<'_>,
    jobs: impl FnOnce(&Server, Place) -> Result<Vec<JobSpec>, Reason>,
) -> Result<Planned, Refusal> {
    let server: Server = cx.records.need(&subject_key(task)?)?;
    let Some(placement) = &server.status.placement else {
        return Err(Reason::new("server.not_placed", "the server is on no host").into());
    };
    Ok(Planned {
        jobs: jobs(&server, Place::Host(placement.host))?,
        generation: server.meta.generation,
        ..Planned::default()
    })
}

/// What is common: the activity ends, a failure is kept as a fault; only a stuck task makes the server unusable.
pub(super) fn settled(
    task: &Task,
    cx: &SettleContext<'_>,
    change: impl FnOnce(&mut Server),
) -> Result<Settled, Reason> {
    let at = subject_key(task)?;
    let Some(mut server) = cx.records.get::<Server>(&at)? else {
        return Ok(Settled::default());
    };
    server.status.activity = None;
    server.meta.updated_at = cx.now;
    match cx.end {
        TaskEnd::Done => server.status.fault = None,
        TaskEnd::Cancelled => {}
        TaskEnd::Failed => server.status.fault = cx.reason.cloned(),
        TaskEnd::Abandoned => {
            server.status.lifecycle = Lifecycle::Error;
            server.status.fault = cx.reason.cloned();
        }
    }
    change(&mut server);
    let last_look = take_seen(&mut server, cx)?;
    if cx.end != TaskEnd::Done && task.flow != ServerEvacuate.name() {
        // What was asked for is not wanted any more: what is, stays. An evacuation asks for nothing but what was wanted before.
        server.spec.running = server.status.power.may_execute();
    }
    Ok(Settled {
        changes: cx.records.put(last_look, &at, &server)?,
        result: None,
    })
}

pub(super) fn started(server: &mut Server, cx: &SettleContext<'_>) {
    if let Some(started) = output::<Started>(cx.outputs, "vm.start") {
        server.status.power = started.power;
        server.status.accelerator = started.accelerator;
        server.status.launched_at = Some(cx.now);
        server.status.applied = Some(applied(server));
    }
    if let Some(power) = output::<Seen>(cx.outputs, "vm.resume").and_then(|seen| seen.power) {
        server.status.power = power;
        server.status.launched_at = Some(cx.now);
    }
}

/// Whether the stop has succeeded, whatever came after.
pub(super) fn stopped(cx: &SettleContext<'_>) -> bool {
    cx.outputs.contains_key(&JobId::new("vm.stop"))
}
