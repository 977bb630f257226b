//! `server.resize`, and what becomes of it: `server.confirm-resize` or `server.revert-resize`.
//!
//! ```text
//!  resize:   larger claim ── vm.halt ──> vm.switch (new flavor) ──> disk.grow ──> vm.start      way back: old flavor, on again
//!                │ done: `resized`, larger of both sizes reserved, timer
//!                ├─ confirm: claim and quota of the new size
//!                └─ revert:  vm.halt ──> vm.switch (old flavor) ──> vm.start: claim and quota of the old size
//! ```
//!
//! The new flavor stands in the server's spec from the request on, the old one in `status.resize`. The request charges the quota, the
//! plan's commit the host, both with what is more; what is less is given back in the commit that ends the matter.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, TaskFlow};
use skyloom_model::ablation::{Rule, kept};
use skyloom_model::{
    Claim, FlavorRef, JobId, JobSpec, Lifecycle, Place, PowerState, Reason, Resource as _, Server, ServerId,
    Task, TaskEnd,
};
use skyloom_scheduler::fleet::Report;
use skyloom_scheduler::{NoFit, Request};
use skyloom_store::{Guard, Key, Revision, Txn};

use super::definition::{definition, root};
use super::records::{claim_key, give_back, ledger_key, quota_reads, server_reads, size_claim, subject_key};
use super::server_create::told;
use super::server_power::{beside, planned, settled, start, started};
use super::server_rescue::halt;
use super::{Outputs, Step, StopParams, params};
use crate::amounts;
use crate::facade::timer;
use crate::jobs::{GrowDiskInput, SwitchInput};

/// Gives a server another size.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerResize;
/// Keeps that size.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerConfirmResize;
/// Goes back to the size before.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerRevertResize;

/// Parameters of `server.resize`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResizeParams {
    /// How the guest is stopped.
    pub(crate) stop: StopParams,
    /// The host's CPU architecture.
    pub(crate) architecture: String,
    /// After how many seconds it confirms itself; 0: never.
    pub(crate) confirm_after_seconds: u32,
}

/// The job that makes the root disk larger.
const GROW: &str = "disk.grow";

fn reads(task: &Task, have: &Records) -> Vec<Key> {
    let mut keys = server_reads(task, have).unwrap_or_default();
    keys.extend(quota_reads(task, have).unwrap_or_default());
    keys
}

impl TaskFlow for ServerResize {
    fn name(&self) -> &'static str {
        "server.resize"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        reads(task, have)
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let how: ResizeParams = params(task)?;
        let server: Server = cx.records.need(&subject_key(task)?)?;
        let former = with_flavor(&server, former(&server)?);
        let (claimed, report) = claimed(&server, &how.architecture, cx)?;
        let mut planned = planned(task, cx, |server, place| {
            let mut jobs = switched(task, cx, (&former, server), place, how.stop)?;
            let disk_of = |server: &Server| server.spec.flavor.spec.resources.disk_gib;
            let (wanted, has) = (disk_of(server), disk_of(&former));
            if wanted > has && server.spec.boot_volume.is_none() {
                let input = GrowDiskInput {
                    server: server.id(),
                    disk: root(server),
                    bytes: wanted.saturating_mul(1 << 30),
                };
                let grow = Step::new(GROW, "make the root disk larger", place, &input)?;
                jobs.push(grow.after([JobId::new("vm.switch")]).within(600).done());
            }
            turned_on(&mut jobs, server, place)?;
            Ok(jobs)
        })?;
        planned.changes = planned.changes.and(claimed);
        planned.placement = Some(told(&report)?);
        Ok(planned)
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let how: ResizeParams = params(task)?;
        let grown = cx.outputs.contains_key(&JobId::new(GROW));
        let after = SignedDuration::from_secs(how.confirm_after_seconds.into());
        let until = (how.confirm_after_seconds > 0)
            .then(|| cx.now.checked_add(after).ok())
            .flatten();
        let mut settled = sized(task, cx, |server| match cx.end {
            TaskEnd::Done => {
                server.status.overlays.resized = true;
                if let Some(resize) = &mut server.status.resize {
                    resize.confirm_at = until;
                }
                switched_over(server, cx);
            }
            TaskEnd::Failed | TaskEnd::Cancelled => {
                take_back(server, grown);
                // The way back has gone under the generation after the order's.
                if cx.plan.is_some() {
                    server.meta.generation += 1;
                }
            }
            // Nobody knows of which size it is: a confirmation or the way back puts it right.
            TaskEnd::Abandoned => server.status.overlays.resized = true,
        })?;
        if let (TaskEnd::Done, Some(until)) = (cx.end, until) {
            let mark = timer(until, task.scope, ServerId::from_uuid(task.subject.id))
                .map_err(|e| Reason::new("record.unencodable", e.to_string()))?;
            settled.changes = settled.changes.and(mark);
        }
        Ok(settled)
    }
}

impl TaskFlow for ServerConfirmResize {
    fn name(&self) -> &'static str {
        "server.confirm-resize"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        reads(task, have)
    }

    /// Nothing on the host.
    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        beside(task, cx, |_, _| Ok(Vec::new()))
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        sized(task, cx, |server| {
            if cx.end == TaskEnd::Done {
                server.status.overlays.resized = false;
                server.status.resize = None;
            }
        })
    }
}

impl TaskFlow for ServerRevertResize {
    fn name(&self) -> &'static str {
        "server.revert-resize"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        reads(task, have)
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let how: StopParams = params(task)?;
        planned(task, cx, |server, place| {
            let former = with_flavor(server, former(server)?);
            let mut jobs = switched(task, cx, (server, &former), place, how)?;
            turned_on(&mut jobs, server, place)?;
            Ok(jobs)
        })
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        sized(task, cx, |server| match cx.end {
            TaskEnd::Done => {
                // It came with the resize, if at all: a server that boots from a volume has none.
                let grown = server.spec.boot_volume.is_none();
                take_back(server, grown);
                server.status.overlays.resized = false;
                switched_over(server, cx);
            }
            TaskEnd::Failed | TaskEnd::Cancelled => {
                if cx.plan.is_some() {
                    server.meta.generation += 1;
                }
            }
            TaskEnd::Abandoned => {}
        })
    }
}

fn former(server: &Server) -> Result<FlavorRef, Reason> {
    let resize = server.status.resize.as_ref();
    resize
        .map(|resize| resize.former.clone())
        .ok_or_else(|| Reason::new("server.not_resized", "no resize of the server is under way"))
}

fn with_flavor(server: &Server, flavor: FlavorRef) -> Server {
    let mut other = server.clone();
    other.spec.flavor = flavor;
    other
}

/// The former flavor again. A root disk that has `grown` stays as it is, and the flavor says so.
fn take_back(server: &mut Server, grown: bool) {
    let Some(resize) = server.status.resize.take() else {
        return;
    };
    let now = server.spec.flavor.spec.resources.disk_gib;
    server.spec.flavor = resize.former;
    if grown {
        let disk = &mut server.spec.flavor.spec.resources.disk_gib;
        *disk = now.max(*disk);
    }
}

/// What the plan's commit takes of the host (what the new flavor has more than the server's claim), and why it can.
fn claimed(server: &Server, architecture: &str, cx: &PlanContext<'_>) -> Result<(Txn, Report), Refusal> {
    let Some(placement) = &server.status.placement else {
        return Err(Reason::new("server.not_placed", "the server is on no host").into());
    };
    let at = claim_key(placement.host, server.id())?;
    let mut claim: Claim = cx.records.need(&at)?;
    let wanted = server.reserved();
    let more = wanted.minus(claim.resources);
    let mut request = Request::new(server.id(), more, architecture);
    request.only = Some(placement.host);
    request.labels = server.spec.flavor.spec.host_labels.clone();
    let placed = cx
        .scheduler
        .place(&request, cx.inventory)
        .map_err(|no| Refusal::Fail(no_room(&no)))?;
    // It is one server, as before.
    let mut ledger = placed.ledger_after;
    ledger.servers = ledger.servers.saturating_sub(1);
    claim.resources = claim.resources.plus(more);
    let ledger_at = ledger_key(placement.host)?;
    let ledger = skyloom_store::Value::json(&ledger)
        .map_err(|e| Reason::new("record.unencodable", skyloom_model::report(&e)))?;
    let mut txn = cx.records.put(Txn::new(), &at, &claim)?;
    if kept(Rule::ClaimCompare) {
        txn = txn.guard(Guard::Revision(
            ledger_at.clone(),
            Revision(placed.ledger_revision),
        ));
    }
    Ok((txn.put(ledger_at, ledger), placed.report))
}

/// That the host cannot take the difference of the flavors. Names no host.
fn no_room(no: &NoFit) -> Reason {
    let message = format!(
        "the server's host cannot take what the new flavor has more: {}",
        no.report.summary()
    );
    Reason::new("placement.no_host", message)
        .retryable()
        .hint("choose another flavor, or make a new server with it: that may be on another host")
}

/// Off, and made another way.
fn switched(
    task: &Task,
    cx: &PlanContext<'_>,
    (from, to): (&Server, &Server),
    place: Place,
    how: StopParams,
) -> Result<Vec<JobSpec>, Reason> {
    let off = halt(from, place, how)?;
    let input = SwitchInput {
        to: definition(task, to, cx.records, true)?,
        back: definition(task, from, cx.records, true)?,
    };
    let title = format!("make it of the flavor {}", to.spec.flavor.name);
    let switch = Step::new("vm.switch", &title, place, &input)?;
    let switch = switch.after([off.id.clone()]).weight(2).within(120).done();
    Ok(vec![off, switch])
}

/// Adds: on again, if it ran.
fn turned_on(jobs: &mut Vec<JobSpec>, server: &Server, place: Place) -> Result<(), Reason> {
    if server.status.power.may_execute() {
        let mut on = start(server.id(), place)?;
        on.after = jobs.last().map(|job| job.id.clone()).into_iter().collect();
        jobs.push(on);
    }
    Ok(())
}

fn switched_over(server: &mut Server, cx: &SettleContext<'_>) {
    server.status.lifecycle = Lifecycle::Active;
    server.status.power = PowerState::Stopped;
    started(server, cx);
}

/// What is common: what the server takes less than before is given back, by its host and to its project.
fn sized(task: &Task, cx: &SettleContext<'_>, change: impl FnOnce(&mut Server)) -> Result<Settled, Reason> {
    let Some(before) = cx.records.get::<Server>(&subject_key(task)?)? else {
        return Ok(Settled::default());
    };
    let mut size = before.reserved();
    let mut settled = settled(task, cx, |server| {
        change(server);
        size = server.reserved();
    })?;
    let mut txn = size_claim(settled.changes, &before, size, cx.records)?;
    let less = amounts::of_size(before.reserved().minus(size));
    if !less.is_empty() {
        txn = give_back(txn, task, cx.records, &less)?;
    }
    settled.changes = txn;
    Ok(settled)
}
