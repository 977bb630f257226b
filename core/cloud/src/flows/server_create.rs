//! `server.create`: choose a host, then image → disk → (config drive) → domain → power; when that host cannot, the next best.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, StageEnd, TaskFlow};
use skyloom_hypervisor::OverlaySpec;
use skyloom_model::{
    HostId, JobId, JobSpec, Lifecycle, NicKind, Place, Placement, Plan, PowerState, Reason, Resource as _,
    Scope, Server, StageOutcome, Task, TaskEnd, Timestamp, paths,
};
use skyloom_scheduler::fleet::Report;
use skyloom_scheduler::{NoFit, Request};
use skyloom_store::{Key, Txn};

use super::definition::{applied, definition};
use super::records::{
    bind_ports, key, order, release_claim, server_reads, subject_key, take_claim, take_seen,
};
use super::server_create_volumes::{
    new_volumes, placed as volumes_placed, reserved, room, settle_volumes, volume_jobs, volume_reads,
};
use super::{CreateParams, Outputs, START_SECONDS, Step, last_output, params, refused};
use crate::jobs::{CacheInput, SeedInput, SeedOf, ServerInput, Started};

/// Makes a server on a host.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerCreate;

impl TaskFlow for ServerCreate {
    fn name(&self) -> &'static str {
        "server.create"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        let mut keys = server_reads(task, have).unwrap_or_default();
        let of_volumes = params(task).and_then(|params| volume_reads(task, &params, have));
        keys.extend(of_volumes.unwrap_or_default());
        keys
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        on_a_host(task, cx, &params(task)?, BTreeSet::new())
    }

    fn next(
        &self,
        task: &Task,
        end: &StageEnd<'_>,
        cx: &mut PlanContext<'_>,
    ) -> Result<Option<Planned>, Refusal> {
        another(task, end, cx, &params(task)?)
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        made(task, cx, &params(task)?, |_| {})
    }
}

/// The server is made, or has failed. `change` has the last word on its record.
pub(super) fn made(
    task: &Task,
    cx: &SettleContext<'_>,
    params: &CreateParams,
    change: impl FnOnce(&mut Server),
) -> Result<Settled, Reason> {
    let at = subject_key(task)?;
    let Some(mut server) = cx.records.get::<Server>(&at)? else {
        return Ok(Settled::default());
    };
    server.meta.updated_at = cx.now;
    server.status.activity = None;
    let (mut changes, room) = settle_volumes(Txn::new(), task, params, &mut server, cx)?;
    let mut result = None;
    match cx.end {
        TaskEnd::Done => {
            server.status.lifecycle = Lifecycle::Active;
            server.status.power = PowerState::Stopped;
            server.status.fault = None;
            server.status.addresses = params.ports.iter().map(|p| p.address.to_string()).collect();
            came_up(&mut server, cx);
            changes = changes.and(take_seen(&mut server, cx)?);
            changes = bind_ports(changes, task, &server, cx.records, true)?;
            result = Some(result_of(&server));
        }
        TaskEnd::Failed | TaskEnd::Cancelled => {
            server.status.lifecycle = Lifecycle::Error;
            server.status.power = PowerState::Stopped;
            server.status.fault = cx.reason.cloned();
            changes = release_claim(changes, &server, cx.records, room)?;
            if server.status.placement.take().is_some() {
                server.meta.generation += 1;
            }
        }
        TaskEnd::Abandoned => {
            server.status.lifecycle = Lifecycle::Error;
            server.status.fault = cx.reason.cloned();
        }
    }
    change(&mut server);
    Ok(Settled {
        changes: cx.records.put(changes, &at, &server)?,
        result,
    })
}

/// The trait of hosts that can plug guests into networks.
pub const NETWORKS: &str = "networks";

/// Hosts that are tried before a create is given up.
pub(super) const MAX_HOSTS: usize = 3;

/// What is next when a stage is over: another host, where one may do what the last could not.
pub(super) fn another(
    task: &Task,
    end: &StageEnd<'_>,
    cx: &PlanContext<'_>,
    params: &CreateParams,
) -> Result<Option<Planned>, Refusal> {
    let StageOutcome::Undone(reason) = end.outcome else {
        return Ok(None);
    };
    let tried: BTreeSet<HostId> = hosts_of(end.plan).collect();
    if task.cancel || tried.len() >= MAX_HOSTS || !another_host_may_do(&reason.code) {
        return Ok(None);
    }
    // When there is no other host, the task ends for the reason of the last one.
    on_a_host(task, cx, params, tried).map(Some)
}

/// It has been turned on, on whichever host that was.
pub(super) fn came_up(server: &mut Server, cx: &SettleContext<'_>) {
    if let Some(started) = last_output::<Started>(cx, "vm.start") {
        server.status.power = started.power;
        server.status.accelerator = started.accelerator;
        server.status.launched_at = Some(cx.now);
        server.status.applied = Some(applied(server));
    }
}

/// Whether a create that failed with this code may succeed on another host. What is not named here may: a try costs little.
///
/// | code | why no other host can |
/// | --- | --- |
/// | `task.…` | it was given up: cancelled, too late, too many tries |
/// | `plan.…`, `record.…`, `job.bad_input`, `job.bad_output` | the records or the code are wrong, everywhere |
/// | `image.…` but `image.content_unavailable` | the content is gone or refused by what it is |
/// | `seed.…`, `secrets.…` but `secrets.not_lent` | the config drive cannot be made from what was asked for |
/// | `host.invalid` | the request makes no sense |
fn another_host_may_do(code: &str) -> bool {
    let (area, what) = code.split_once('.').unwrap_or((code, ""));
    match area {
        "task" | "plan" | "record" | "seed" => false,
        "image" => what == "content_unavailable",
        "secrets" => what == "not_lent",
        "job" => !matches!(what, "bad_input" | "bad_output"),
        "host" => what != "invalid",
        _ => true,
    }
}

/// No host can take it: it waits for room, or ends. Who had a host that failed it waits for no other.
fn no_host(no: &NoFit, until: Option<Timestamp>, cx: &PlanContext<'_>) -> Refusal {
    match until.filter(|until| cx.now < *until) {
        Some(until) => Refusal::WaitForRoom(no.reason(), until),
        None => refused(no),
    }
}

/// The hosts that a plan's stages were to make it on.
fn hosts_of(plan: &Plan) -> impl Iterator<Item = HostId> {
    let defines = plan.jobs.iter().filter(|job| job.kind == "vm.define");
    defines.filter_map(|job| match job.place {
        Place::Host(host) => Some(host),
        Place::Engine => None,
    })
}

/// The stage on a host that was not tried: the share of the host before it is given back in the same commit.
pub(super) fn on_a_host(
    task: &Task,
    cx: &PlanContext<'_>,
    params: &CreateParams,
    tried: BTreeSet<HostId>,
) -> Result<Planned, Refusal> {
    let at = subject_key(task)?;
    let mut server: Server = cx.records.need(&at)?;
    let Scope::Project(project) = task.scope else {
        return Err(Reason::new("task.bad_scope", "a server belongs to a project").into());
    };
    let attempt = tried.len() + 1;
    let mut volumes = new_volumes(task, params, cx.records)?;
    let mut request = request(&server, params, task.scope, tried);
    let room = room(&volumes);
    request.resources.disk_gib = request.resources.disk_gib.saturating_add(room);
    let mut placed = cx
        .scheduler
        .place(&request, cx.inventory)
        .map_err(|no| no_host(&no, params.room_until.filter(|_| attempt == 1), cx))?;
    // The volumes outlive the server's claim, so their room is none of it.
    placed.claim.resources.disk_gib = placed.claim.resources.disk_gib.saturating_sub(room);
    placed.ledger_after.volume_gib = placed.ledger_after.volume_gib.saturating_add(room);
    let mut changes = release_claim(Txn::new(), &server, cx.records, reserved(&volumes))?;
    changes = volumes_placed(changes, task, &mut volumes, placed.host, cx.records)?;
    if let Some(before) = &server.status.placement {
        // Not read here: nobody but the lender needs to see it.
        changes = changes.delete(key(&paths::lent(before.host, server.id()))?);
    }
    order(&mut server, cx);
    server.status.placement = Some(Placement {
        host: placed.host,
        host_name: placed.name.clone(),
        by: Some(task.id),
    });
    changes = take_claim(changes, server.id(), &placed)?;
    let changes = cx.records.put(changes, &at, &server)?;
    let report = told(&placed.report)?;
    let lend = if server.spec.config_drive {
        vec![(project, server.id(), placed.host)]
    } else {
        Vec::new()
    };
    Ok(Planned {
        stage: if attempt == 1 {
            String::new()
        } else {
            format!("host-{attempt}")
        },
        jobs: jobs(task, cx, &server, params, attempt)?,
        placement: Some(report),
        changes,
        generation: server.meta.generation,
        lend,
    })
}

/// A decision's report as it stands in the plan.
pub(super) fn told(report: &Report) -> Result<Value, Reason> {
    serde_json::to_value(report).map_err(|e| Reason::new("placement.unencodable", e.to_string()))
}

fn request(server: &Server, params: &CreateParams, scope: Scope, exclude: BTreeSet<HostId>) -> Request {
    let flavor = &server.spec.flavor.spec;
    let mut request = Request::new(server.id(), flavor.resources, params.architecture.clone());
    request.scope = Some(scope);
    request.exclude = exclude;
    request.only = params.host;
    if server.spec.boot_volume.is_some() {
        request.resources.disk_gib = 0;
    }
    request.labels = flavor.host_labels.clone();
    request.labels.extend(server.spec.host_labels.clone());
    let pools = params.pools.iter();
    request
        .labels
        .extend(pools.map(|label| (label.clone(), "yes".to_owned())));
    if params.ports.iter().any(|port| port.kind == NicKind::Tap) {
        request.traits.push(NETWORKS.to_owned());
    }
    // A group is the project's own; ledgers hold groups of all projects.
    request.anti_affinity_group = server
        .spec
        .anti_affinity_group
        .as_ref()
        .map(|g| group_of(scope, g));
    request
}

/// A group's name in ledgers.
pub(crate) fn group_of(scope: Scope, group: &str) -> String {
    format!("{scope}:{group}")
}

/// The jobs of the `attempt`th host; job names are unique over all stages.
fn jobs(
    task: &Task,
    cx: &PlanContext<'_>,
    server: &Server,
    params: &CreateParams,
    attempt: usize,
) -> Result<Vec<JobSpec>, Reason> {
    let (id, spec) = (server.id(), &server.spec);
    let Some(place) = server.status.placement.as_ref().map(|p| Place::Host(p.host)) else {
        return Err(Reason::new("server.not_placed", "the server is on no host"));
    };
    let job = |name: &str| match attempt {
        1 => JobId::new(name),
        n => JobId::new(format!("{name}@{n}")),
    };
    let (mut jobs, mut disks) = volume_jobs(task, params, place, cx.records, attempt)?;
    if let Some(image) = &params.image {
        let image = image.spec();
        let input = CacheInput { image: image.clone() };
        jobs.push(
            Step::new(
                "image.cache",
                "fetch the image into the host's cache",
                place,
                &input,
            )?
            .id(job("image.cache"))
            .attempts(5, 1000)
            .weight(10)
            .done(),
        );
        let overlay = OverlaySpec {
            server: id,
            disk: "root".to_owned(),
            base: image,
            size_bytes: spec.flavor.spec.resources.disk_gib.saturating_mul(1 << 30),
        };
        jobs.push(
            Step::new("disk.overlay", "make the root disk", place, &overlay)?
                .id(job("disk.root"))
                .after([job("image.cache")])
                .weight(2)
                .within(120)
                .done(),
        );
        disks.push(job("disk.root"));
    }
    if spec.config_drive {
        let input = SeedInput {
            of: SeedOf::Server,
            server: id,
            edition: server.status.drive_edition,
            stays: false,
            hostname: spec.hostname.clone(),
            ssh_keys: spec.ssh_keys.clone(),
            metadata: spec.metadata.clone(),
            ports: params.ports.clone(),
        };
        // The secrets are lent in the plan's commit; an agent behind a slow link may see the job first.
        jobs.push(
            Step::new("disk.seed", "make the config drive", place, &input)?
                .id(job("disk.seed"))
                .attempts(5, 500)
                .within(120)
                .done(),
        );
        disks.push(job("disk.seed"));
    }
    let define = definition(task, server, cx.records, false)?;
    jobs.push(
        Step::new("vm.define", "define the virtual machine", place, &define)?
            .id(job("vm.define"))
            .after(disks)
            .weight(2)
            .within(120)
            .done(),
    );
    if params.start {
        let start = Step::new(
            "vm.start",
            "start the virtual machine",
            place,
            &ServerInput { server: id },
        )?;
        let start = start.id(job("vm.start")).after([job("vm.define")]);
        jobs.push(start.weight(5).within(START_SECONDS).done());
    }
    Ok(jobs)
}

fn result_of(server: &Server) -> Value {
    json!({
        "server": server.id(),
        "host": server.status.placement.as_ref().map(|p| p.host_name.as_str()),
        "addresses": server.status.addresses,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_another_host_may_do_is_tried_elsewhere() {
        for code in [
            "host.full",
            "host.unavailable",
            "host.timeout",
            "host.cannot_tell",
            "job.timeout",
            "job.unknown_kind",
            "image.content_unavailable",
            "secrets.not_lent",
            "store.failed",
            "of.tomorrow",
        ] {
            assert!(another_host_may_do(code), "{code}");
        }
        for code in [
            "task.cancelled",
            "task.deadline",
            "plan.bad_input",
            "record.gone",
            "job.bad_input",
            "image.content_missing",
            "image.checksum_mismatch",
            "seed.ssh_key",
            "secrets.bad_key",
            "host.invalid",
        ] {
            assert!(!another_host_may_do(code), "{code}");
        }
    }
}
