//! `server.rebuild`: a new root disk over another image, under a name of its own; `server.tidy` deletes the old one later.
//!
//! ```text
//!  image ──> new disk ──> vm.halt ──> vm.switch (new root) ──> vm.start        way back: old root, on again, new disk gone
//!                                                                │ done: the old disk is spare
//!                                    server.tidy, asked for by the reconciler ──> spare disks are deleted
//! ```
//!
//! The old disk is not touched by the task that makes the new one, so its way back is whole until its end. Id, MAC addresses, addresses,
//! config drive and volumes stay.

use serde::{Deserialize, Serialize};
use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, TaskFlow};
use skyloom_hypervisor::OverlaySpec;
use skyloom_model::{
    ImageRef, JobId, Lifecycle, Place, PowerState, Reason, Resource as _, Server, Task, TaskEnd,
};
use skyloom_store::Key;

use super::definition::definition;
use super::records::{
    doubt_own_image, give_back, own_image_reads, power_reads, restart_reads, subject_key, without_own_image,
};
use super::server_delete::own_image;
use super::server_power::{beside, planned, settled, start, started};
use super::server_rescue::halt;
use super::{BaseImage, Outputs, Step, StopParams, params};
use crate::jobs::{CacheInput, DeleteDiskInput, ServerInput, SwitchInput};

/// Makes a server's root disk anew.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerRebuild;
/// Deletes disks that a server is no longer made of, and the image that it was shelved as.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerTidy;

/// Parameters of `server.rebuild`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuildParams {
    /// The image as it was when the rebuild was asked for.
    pub image: BaseImage,
    /// The new root disk's name.
    pub disk: String,
    /// How the guest is stopped.
    pub stop: StopParams,
}

impl TaskFlow for ServerRebuild {
    fn name(&self) -> &'static str {
        "server.rebuild"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        restart_reads(task, have).unwrap_or_default()
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let how: RebuildParams = params(task)?;
        planned(task, cx, |server, place| {
            let image = how.image.spec();
            let cache = CacheInput { image: image.clone() };
            let cache = Step::new(
                "image.cache",
                "fetch the image into the host's cache",
                place,
                &cache,
            )?;
            let overlay = OverlaySpec {
                server: server.id(),
                disk: how.disk.clone(),
                base: image,
                size_bytes: server.spec.flavor.spec.resources.disk_gib.saturating_mul(1 << 30),
            };
            let disk = Step::new("disk.overlay", "make the new root disk", place, &overlay)?
                .after([JobId::new("image.cache")])
                .weight(2)
                .within(120);
            let mut off = halt(server, place, how.stop)?;
            off.after = vec![JobId::new("disk.overlay")];
            let switch = SwitchInput {
                to: definition(task, &with_root(server, &how.disk), cx.records, true)?,
                back: definition(task, server, cx.records, true)?,
            };
            let switch = Step::new("vm.switch", "boot from the new root disk", place, &switch)?
                .after([off.id.clone()])
                .weight(2)
                .within(120);
            let mut jobs = vec![
                cache.attempts(5, 1000).weight(10).done(),
                disk.done(),
                off,
                switch.done(),
            ];
            if server.status.power.may_execute() {
                let mut on = start(server.id(), place)?;
                on.after = vec![JobId::new("vm.switch")];
                jobs.push(on);
            }
            Ok(jobs)
        })
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let how: RebuildParams = params(task)?;
        settled(task, cx, |server| match cx.end {
            TaskEnd::Done => {
                let before = server.status.root_disk.replace(how.disk.clone());
                let before = before.unwrap_or_else(|| super::definition::ROOT.to_owned());
                server.status.spare_disks.push(before);
                server.spec.image = ImageRef {
                    id: how.image.id,
                    name: how.image.name.clone(),
                };
                server.status.lifecycle = Lifecycle::Active;
                server.status.power = PowerState::Stopped;
                started(server, cx);
            }
            TaskEnd::Failed | TaskEnd::Cancelled => {
                // The way back has gone under the generation after the order's.
                if cx.plan.is_some() {
                    server.meta.generation += 1;
                }
            }
            // Nobody knows how far it came: both disks are kept, and a rebuild or a deletion puts it right.
            TaskEnd::Abandoned => {}
        })
    }
}

fn with_root(server: &Server, disk: &str) -> Server {
    let mut rebuilt = server.clone();
    rebuilt.status.root_disk = Some(disk.to_owned());
    rebuilt
}

impl TaskFlow for ServerTidy {
    fn name(&self) -> &'static str {
        "server.tidy"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        let mut keys = power_reads(task, have).unwrap_or_default();
        keys.extend(own_image_reads(task, have).unwrap_or_default());
        keys
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        beside(task, cx, |server, place| {
            let delete = |disk: &String| delete(server, place, disk);
            let disks = server.status.spare_disks.iter().map(delete);
            let image = own_image(task, server, cx.records)?;
            disks.chain(image.map(Ok)).collect()
        })
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let before: Option<Server> = cx.records.get(&subject_key(task)?)?;
        let mut settled = settled(task, cx, |server| {
            if cx.end == TaskEnd::Done {
                server.status.spare_disks.clear();
                server.status.own_image = None;
            }
        })?;
        let Some(before) = before else { return Ok(settled) };
        settled.changes = if cx.end == TaskEnd::Done {
            let (txn, of_image) = without_own_image(settled.changes, task, &before, cx.records)?;
            give_back(txn, task, cx.records, &of_image)?
        } else {
            doubt_own_image(settled.changes, task, &before, cx)?
        };
        Ok(settled)
    }
}

fn delete(server: &Server, place: Place, disk: &str) -> Result<skyloom_model::JobSpec, Reason> {
    let input = DeleteDiskInput {
        of: ServerInput { server: server.id() },
        disk: disk.to_owned(),
    };
    let step = Step::new("disk.delete", "delete the former root disk", place, &input)?;
    let id = JobId::new(format!("disk.delete.{disk}"));
    Ok(step.id(id).attempts(10, 1000).within(120).done())
}
