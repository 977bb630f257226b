//! `server.start-rescue` and `server.stop-rescue`, in stages, as the Cloudpods guide has them: look at what the stage before
//! gave, then plan the next. What takes long (fetching the rescue system) comes while the server still runs.
//!
//! ```text
//!  start:  fetch ──> stop ──> prepare (disk, config drive) ──> boot (domain, power)
//!                     │ failed: it runs again as before        └─ failed: domain as before, disks gone, it runs again
//!  stop:   off, domain and power as before; the rescue system's disks are spare then, and server.tidy deletes them
//! ```
//!
//! Jobs name those of the stage before, so that the way back goes through all stages in order. The rescue stands in `spec.rescue` from the request on, so each start in between boots the rescue system; it is taken out
//! in the commit that ends the task, when the way there failed or the way out has succeeded.

use serde::{Deserialize, Serialize};
use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, StageEnd, TaskFlow};
use skyloom_hypervisor::OverlaySpec;
use skyloom_model::{
    JobId, JobSpec, Lifecycle, Place, PowerState, RESCUE_DISK, RESCUE_SEED, Reason, RescueMedia,
    Resource as _, Scope, Server, ServerId, StageOutcome, Task, TaskEnd,
};
use skyloom_store::{Key, Txn};

use super::definition::{applied, definition};
use super::records::{order, restart_reads, subject_key, take_seen};
use super::server_power::start;
use super::{BaseImage, Outputs, PortPlan, Step, StopParams, output, params};
use crate::facade::timer;
use crate::jobs::{
    CacheInput, DeleteDiskInput, HaltInput, SeedInput, SeedOf, ServerInput, Started, StopInput, SwitchInput,
};

/// Boots a server's rescue system.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerStartRescue;
/// Boots a server from its own disks again.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerStopRescue;

/// Parameters of `server.start-rescue`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RescueParams {
    /// The images of the rescue system as they were when it was asked for: the disk's, or the kernel's and the first file system's.
    pub images: Vec<BaseImage>,
    /// The server's ports, in device order.
    pub ports: Vec<PortPlan>,
    /// How its guest is stopped.
    pub stop: StopParams,
}

const FETCH: &str = "fetch";
const STOP: &str = "stop";
const PREPARE: &str = "prepare";
const BOOT: &str = "boot";
const LEAVE: &str = "leave";

impl TaskFlow for ServerStartRescue {
    fn name(&self) -> &'static str {
        "server.start-rescue"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        restart_reads(task, have).unwrap_or_default()
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let RescueParams { images, .. } = params(task)?;
        first_stage(task, cx, FETCH, |_, place| {
            let fetch = |(at, image): (usize, &BaseImage)| {
                let input = CacheInput { image: image.spec() };
                let step = Step::new(
                    "image.cache",
                    "fetch the rescue system to the host",
                    place,
                    &input,
                )?;
                let id = JobId::new(format!("image.cache.{at}"));
                Ok(step.id(id).attempts(5, 1000).weight(10).done())
            };
            images.iter().enumerate().map(fetch).collect()
        })
    }

    fn next(
        &self,
        task: &Task,
        end: &StageEnd<'_>,
        cx: &mut PlanContext<'_>,
    ) -> Result<Option<Planned>, Refusal> {
        if *end.outcome != StageOutcome::Done {
            // Everything before is undone, and the server is what it was.
            return Ok(None);
        }
        let how: RescueParams = params(task)?;
        let (server, place) = placed(task, cx)?;
        let (stage, mut jobs) = match end.stage {
            FETCH => (STOP, vec![halt(&server, place, how.stop)?]),
            STOP => (PREPARE, prepare(&server, place, &how)?),
            PREPARE => (BOOT, boot(task, &server, place, cx)?),
            _ => return Ok(None),
        };
        let before = end
            .plan
            .last_stage()
            .map(|stage| stage.jobs.clone())
            .unwrap_or_default();
        for job in jobs.iter_mut().filter(|job| job.after.is_empty()) {
            job.after.clone_from(&before);
        }
        let lend = match (stage, task.scope, place) {
            (PREPARE, Scope::Project(project), Place::Host(host)) => vec![(project, server.id(), host)],
            _ => Vec::new(),
        };
        Ok(Some(Planned {
            stage: stage.to_owned(),
            jobs,
            generation: server.meta.generation,
            lend,
            ..Planned::default()
        }))
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        settled(task, cx, |server| match cx.end {
            TaskEnd::Done => {
                server.status.overlays.rescued = true;
                server.status.spare_disks.retain(|disk| !is_rescues(disk));
                started(server, cx);
            }
            TaskEnd::Failed | TaskEnd::Cancelled => server.spec.rescue = None,
            // Nobody knows which system it runs: the rescue can be left, or the server deleted.
            TaskEnd::Abandoned => server.status.overlays.rescued = true,
        })
    }
}

impl TaskFlow for ServerStopRescue {
    fn name(&self) -> &'static str {
        "server.stop-rescue"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        restart_reads(task, have).unwrap_or_default()
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let how: StopParams = params(task)?;
        let (server, _) = placed(task, cx)?;
        let own = without_rescue(&server);
        let switch = SwitchInput {
            to: definition(task, &own, cx.records, true)?,
            back: definition(task, &server, cx.records, true)?,
        };
        first_stage(task, cx, LEAVE, |server, place| {
            let off = halt(server, place, how)?;
            let change = Step::new(
                "vm.switch",
                "boot from the server's own disks again",
                place,
                &switch,
            )?;
            let change = change.after([off.id.clone()]).weight(2).within(120).done();
            let mut jobs = vec![off, change];
            if former(server) == PowerState::Running {
                let mut on = start(server.id(), place)?;
                on.after = vec![JobId::new("vm.switch")];
                jobs.push(on);
            }
            Ok(jobs)
        })
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let mut settled = settled(task, cx, |server| {
            if cx.end == TaskEnd::Done {
                server.spec.rescue = None;
                server.status.overlays.rescued = false;
                server.status.power = PowerState::Stopped;
                server.status.spare_disks.retain(|disk| !is_rescues(disk));
                server
                    .status
                    .spare_disks
                    .extend([RESCUE_DISK.to_owned(), RESCUE_SEED.to_owned()]);
                started(server, cx);
            }
        })?;
        if cx.end == TaskEnd::Done {
            let mark = timer(cx.now, task.scope, ServerId::from_uuid(task.subject.id))
                .map_err(|e| Reason::new("record.unencodable", e.to_string()))?;
            settled.changes = settled.changes.and(mark);
        }
        Ok(settled)
    }
}

/// Whether a disk is of the rescue system.
fn is_rescues(disk: &str) -> bool {
    disk == RESCUE_DISK || disk == RESCUE_SEED
}

/// What the server was before the rescue.
fn former(server: &Server) -> PowerState {
    server
        .spec
        .rescue
        .as_ref()
        .map_or(PowerState::Stopped, |rescue| rescue.former_power)
}

/// The server as it is without a rescue.
fn without_rescue(server: &Server) -> Server {
    let mut own = server.clone();
    own.spec.rescue = None;
    own
}

fn placed(task: &Task, cx: &PlanContext<'_>) -> Result<(Server, Place), Refusal> {
    let server: Server = cx.records.need(&subject_key(task)?)?;
    match &server.status.placement {
        Some(placement) => {
            let place = Place::Host(placement.host);
            Ok((server, place))
        }
        None => Err(Reason::new("server.not_placed", "the server is on no host").into()),
    }
}

/// The stage that begins the order.
fn first_stage(
    task: &Task,
    cx: &PlanContext<'_>,
    stage: &str,
    jobs: impl FnOnce(&Server, Place) -> Result<Vec<JobSpec>, Reason>,
) -> Result<Planned, Refusal> {
    let (mut server, place) = placed(task, cx)?;
    let jobs = jobs(&server, place)?;
    order(&mut server, cx);
    Ok(Planned {
        stage: stage.to_owned(),
        jobs,
        generation: server.meta.generation,
        changes: cx.records.put(Txn::new(), &subject_key(task)?, &server)?,
        ..Planned::default()
    })
}

pub(super) fn halt(server: &Server, place: Place, how: StopParams) -> Result<JobSpec, Reason> {
    let input = HaltInput {
        stop: StopInput {
            server: server.id(),
            force: how.force,
            timeout_seconds: how.timeout_seconds,
        },
        restart: server.status.power == PowerState::Running,
    };
    let step = Step::new("vm.halt", "stop the virtual machine", place, &input)?;
    let seconds = u64::from(how.timeout_seconds) + 120;
    Ok(step.weight(5).within(seconds).done())
}

/// The rescue system's own disks, beside the server's.
fn prepare(server: &Server, place: Place, how: &RescueParams) -> Result<Vec<JobSpec>, Reason> {
    let mut jobs = Vec::new();
    if let (Some(RescueMedia::Image { .. }), Some(image)) = (media(server), how.images.first()) {
        let overlay = OverlaySpec {
            server: server.id(),
            disk: RESCUE_DISK.to_owned(),
            base: image.spec(),
            size_bytes: image.virtual_size_bytes,
        };
        // One that a rescue before has left is not used again, whatever was done to it.
        let left = DeleteDiskInput {
            of: ServerInput { server: server.id() },
            disk: RESCUE_DISK.to_owned(),
        };
        let left = Step::new(
            "disk.delete",
            "delete what a rescue before has left",
            place,
            &left,
        )?;
        let step = Step::new("disk.overlay", "make the rescue system's disk", place, &overlay)?;
        let step = step.after([JobId::new("disk.delete")]);
        jobs.push(left.within(120).done());
        jobs.push(step.weight(2).within(120).done());
    }
    let seed = SeedInput {
        of: SeedOf::Rescue,
        server: server.id(),
        edition: 0,
        stays: false,
        hostname: server.spec.hostname.clone(),
        ssh_keys: server.spec.ssh_keys.clone(),
        metadata: server.spec.metadata.clone(),
        ports: how.ports.clone(),
    };
    // The secrets are lent in the stage's commit; an agent behind a slow link may see the job first.
    let step = Step::new("disk.seed", "make the rescue system's config drive", place, &seed)?;
    jobs.push(step.attempts(5, 500).within(120).done());
    Ok(jobs)
}

fn boot(task: &Task, server: &Server, place: Place, cx: &PlanContext<'_>) -> Result<Vec<JobSpec>, Reason> {
    let switch = SwitchInput {
        to: definition(task, server, cx.records, true)?,
        back: definition(task, &without_rescue(server), cx.records, true)?,
    };
    let change = Step::new(
        "vm.switch",
        "boot the rescue system, with the server's disks as data",
        place,
        &switch,
    )?;
    let mut on = start(server.id(), place)?;
    on.after = vec![JobId::new("vm.switch")];
    Ok(vec![change.weight(2).within(120).done(), on])
}

fn media(server: &Server) -> Option<&RescueMedia> {
    server.spec.rescue.as_ref().map(|rescue| &rescue.media)
}

fn started(server: &mut Server, cx: &SettleContext<'_>) {
    if let Some(started) = output::<Started>(cx.outputs, "vm.start") {
        server.status.power = started.power;
        server.status.accelerator = started.accelerator;
        server.status.launched_at = Some(cx.now);
        server.status.applied = Some(applied(server));
    }
}

/// What is common: the activity ends. After a failure the way back has gone under the generation after the order's.
fn settled(task: &Task, cx: &SettleContext<'_>, change: impl FnOnce(&mut Server)) -> Result<Settled, Reason> {
    let at = subject_key(task)?;
    let Some(mut server) = cx.records.get::<Server>(&at)? else {
        return Ok(Settled::default());
    };
    server.status.activity = None;
    server.meta.updated_at = cx.now;
    match cx.end {
        TaskEnd::Done => server.status.fault = None,
        TaskEnd::Failed | TaskEnd::Cancelled => server.status.fault = cx.reason.cloned(),
        TaskEnd::Abandoned => {
            server.status.lifecycle = Lifecycle::Error;
            server.status.fault = cx.reason.cloned();
        }
    }
    if cx.end != TaskEnd::Done && cx.plan.is_some() {
        server.meta.generation += 1;
    }
    change(&mut server);
    let last_look = take_seen(&mut server, cx)?;
    server.spec.running = server.status.power.may_execute();
    Ok(Settled {
        changes: cx.records.put(last_look, &at, &server)?,
        result: None,
    })
}
