//! `server.shelve`, `server.offload` and `server.unshelve`: a server is kept as an image of its root disk, on no host, and made again.
//!
//! ```text
//!  shelve     freeze (off, the disk held still) ──> save (a copy is sent and inspected) ──> publish      back: on again, no image
//!                                                            │ done: shelved; the image is the server's alone
//!  offload    domain, disks and ports go from the host ──> its claim is given back                       asked for by the cloud itself
//!  unshelve   as server.create, over that image                                                          back: shelved as before
//!                                                            │ done: server.tidy deletes the image
//! ```
//!
//! Nothing is removed before the image is whole and the server's record says so: that is why they are tasks of their own, each with a
//! way back or none needed. A server that boots from a volume has no disk to keep: it is only turned off. What lies on volumes stays
//! there, and so does the server's room on the hosts of local ones.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, StageEnd, TaskFlow};
use skyloom_model::{
    Image, ImageId, Lifecycle, PowerState, Reason, Server, ServerId, StageOutcome, Task, TaskEnd,
};
use skyloom_store::{Key, Txn};

use super::fence::{fenced, home_key};
use super::image::conclude;
use super::image_save::{SaveParams, of_server, published};
use super::records::{
    bind_ports, give_back, image_key, quota_reads, release_claim, restart_reads, seen, server_reads,
    subject_key, take_seen,
};
use super::server_create::{another, came_up, on_a_host};
use super::server_delete::{forgotten, from_elsewhere};
use super::server_power::{planned, settled};
use super::server_rescue::halt;
use super::{Outputs, Step, StopParams, params};
use crate::amounts;
use crate::facade::timer;

/// Turns a server off and keeps its root disk as an image.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerShelve;
/// Has the host of a shelved server forget it.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerOffload;
/// Makes a shelved server again.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerUnshelve;

/// Parameters of `server.shelve`. Those of `server.unshelve` are of a server that is created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShelveParams {
    /// The image that its root disk becomes; none: it boots from a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) keep: Option<KeepParams>,
    /// How the guest is stopped.
    pub(crate) stop: StopParams,
}

/// An image that a root disk becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeepParams {
    /// Which.
    pub(crate) image: ImageId,
    /// How it is made.
    pub(crate) save: SaveParams,
}

impl KeepParams {
    /// Adds: the image is whole, or as if it had never been asked for.
    pub(super) fn settled(&self, txn: Txn, task: &Task, cx: &SettleContext<'_>) -> Result<Txn, Reason> {
        let at = image_key(task, self.image)?;
        let Some(mut image) = cx.records.get::<Image>(&at)? else {
            return Ok(txn);
        };
        match cx.end {
            TaskEnd::Failed | TaskEnd::Cancelled => {
                let txn = cx.records.delete(txn, &at);
                give_back(txn, task, cx.records, &amounts::of_image())
            }
            TaskEnd::Done | TaskEnd::Abandoned => {
                conclude(&mut image, cx)?;
                cx.records.put(txn, &at, &image)
            }
        }
    }

    /// The stage that follows when the disk of `server` has been held still, or was copied.
    pub(super) fn next(
        &self,
        task: &Task,
        server: &Server,
        end: &StageEnd<'_>,
        cx: &PlanContext<'_>,
    ) -> Result<Option<Planned>, Refusal> {
        let key = image_key(task, self.image)?;
        let mut image: Image = cx.records.need(&key)?;
        let mut planned = match end.stage {
            FREEZE => of_server(task, &image, &self.save, server, end, cx.records)?,
            SAVE => Planned {
                stage: PUBLISH.to_owned(),
                jobs: vec![published(&mut image, &self.save, end, cx)?],
                generation: server.meta.generation,
                changes: cx.records.put(Txn::new(), &key, &image)?,
                ..Planned::default()
            },
            _ => return Ok(None),
        };
        // The way back goes through all stages in order.
        let before = end.plan.last_stage().map(|stage| stage.jobs.clone());
        let before = before.unwrap_or_default();
        for job in planned.jobs.iter_mut().filter(|job| job.after.is_empty()) {
            job.after.clone_from(&before);
        }
        Ok(Some(planned))
    }
}

pub(super) const FREEZE: &str = "freeze";
const SAVE: &str = "save";
pub(super) const PUBLISH: &str = "publish";

/// Whether a stage is one of those that make an image of a disk.
pub(super) fn copies(stage: &str) -> bool {
    matches!(stage, FREEZE | SAVE | PUBLISH)
}

/// The part of a commit that has the server looked at soon.
pub(super) fn look_soon(task: &Task, cx: &SettleContext<'_>) -> Result<Txn, Reason> {
    timer(cx.now, task.scope, ServerId::from_uuid(task.subject.id))
        .map_err(|e| Reason::new("record.unencodable", e.to_string()))
}

impl TaskFlow for ServerShelve {
    fn name(&self) -> &'static str {
        "server.shelve"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        let mut keys = restart_reads(task, have).unwrap_or_default();
        if let Ok(ShelveParams { keep: Some(keep), .. }) = params(task) {
            keys.extend(image_key(task, keep.image));
            keys.extend(quota_reads(task, have).unwrap_or_default());
        }
        keys
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let how: ShelveParams = params(task)?;
        let mut planned = planned(task, cx, |server, place| {
            let off = halt(server, place, how.stop)?;
            let Some(keep) = &how.keep else {
                return Ok(vec![off]);
            };
            let take = Step::new(
                "snapshot.take",
                "hold the disk still",
                place,
                &keep.save.moment(server),
            )?
            .after([off.id.clone()]);
            let take = take.attempts(3, 2000).weight(3).within(3600).done();
            Ok(vec![off, take])
        })?;
        FREEZE.clone_into(&mut planned.stage);
        Ok(planned)
    }

    fn next(
        &self,
        task: &Task,
        end: &StageEnd<'_>,
        cx: &mut PlanContext<'_>,
    ) -> Result<Option<Planned>, Refusal> {
        let how: ShelveParams = params(task)?;
        let Some(keep) = how.keep.filter(|_| *end.outcome == StageOutcome::Done) else {
            // Everything before is undone, and the server is what it was.
            return Ok(None);
        };
        let server: Server = cx.records.need(&subject_key(task)?)?;
        keep.next(task, &server, end, cx)
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let how: ShelveParams = params(task)?;
        let mut settled = settled(task, cx, |server| match cx.end {
            TaskEnd::Done => {
                server.status.lifecycle = Lifecycle::Shelved;
                server.status.power = PowerState::Stopped;
                server.status.own_image = how.keep.as_ref().map(|keep| keep.image);
            }
            // The way back has gone under the generation after the order's.
            TaskEnd::Failed | TaskEnd::Cancelled if cx.plan.is_some() => server.meta.generation += 1,
            TaskEnd::Failed | TaskEnd::Cancelled | TaskEnd::Abandoned => {}
        })?;
        if cx.end == TaskEnd::Done {
            settled.changes = settled.changes.and(look_soon(task, cx)?);
        }
        if let Some(keep) = how.keep {
            settled.changes = keep.settled(settled.changes, task, cx)?;
        }
        Ok(settled)
    }
}

impl TaskFlow for ServerOffload {
    fn name(&self) -> &'static str {
        "server.offload"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        let mut keys = server_reads(task, have).unwrap_or_default();
        keys.extend(home_key(task, have));
        keys
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let fenced = fenced(task, cx.records);
        let mut planned = planned(task, cx, |server, place| {
            if fenced {
                return from_elsewhere(server, cx);
            }
            forgotten(task, server, place, cx.records)
        })?;
        if let Some(at) = home_key(task, cx.records).filter(|_| fenced) {
            // Whoever takes the fence away is asked first.
            planned.changes = cx.records.guard(planned.changes, &at);
        }
        Ok(planned)
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let before: Option<Server> = cx.records.get(&subject_key(task)?)?;
        let done = cx.end == TaskEnd::Done;
        let mut settled = settled(task, cx, |server| {
            // Whatever is left there: it is asked for again, and the server is in its image and on its volumes.
            server.status.lifecycle = Lifecycle::Shelved;
            server.status.power = PowerState::Stopped;
            if done {
                server.status.placement = None;
                server.status.overlays.host_unreachable = false;
                server.status.accelerator = None;
                server.status.applied = None;
                server.status.root_disk = None;
                server.status.spare_disks.clear();
            }
        })?;
        let Some(before) = before else { return Ok(settled) };
        if done || seen(&before, cx.records)?.is_none() {
            settled.changes = bind_ports(settled.changes, task, &before, cx.records, false)?;
        }
        if done {
            settled.changes = release_claim(settled.changes, &before, cx.records, 0)?;
        }
        Ok(settled)
    }
}

impl TaskFlow for ServerUnshelve {
    fn name(&self) -> &'static str {
        "server.unshelve"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        server_reads(task, have).unwrap_or_default()
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
        let at = subject_key(task)?;
        let Some(mut server) = cx.records.get::<Server>(&at)? else {
            return Ok(Settled::default());
        };
        server.meta.updated_at = cx.now;
        server.status.activity = None;
        server.status.fault = cx.reason.cloned();
        let mut changes = Txn::new();
        match cx.end {
            TaskEnd::Done => {
                server.status.lifecycle = Lifecycle::Active;
                server.status.fault = None;
                came_up(&mut server, cx);
                changes = changes.and(take_seen(&mut server, cx)?).and(look_soon(task, cx)?);
                changes = bind_ports(changes, task, &server, cx.records, true)?;
            }
            TaskEnd::Failed | TaskEnd::Cancelled => {
                server.spec.running = false;
                changes = release_claim(changes, &server, cx.records, 0)?;
                if server.status.placement.take().is_some() {
                    server.meta.generation += 1;
                }
            }
            // Nobody knows what its host has of it. The image stays.
            TaskEnd::Abandoned => server.status.lifecycle = Lifecycle::Error,
        }
        Ok(Settled {
            changes: cx.records.put(changes, &at, &server)?,
            result: None,
        })
    }
}
