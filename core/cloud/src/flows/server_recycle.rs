//! `server.recycle`: off, and into the recycle bin. Disks, addresses and quota stay taken.

use jiff::SignedDuration;
use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, TaskFlow};
use skyloom_model::{Lifecycle, PowerState, Reason, Resource as _, ServerId, Task, TaskEnd};
use skyloom_store::Key;

use super::records::power_reads;
use super::server_power::{planned, settled, stop, stopped};
use super::{Outputs, RecycleParams, StopParams, params};
use crate::facade::timer;

/// Puts a server into the recycle bin.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerRecycle;

impl TaskFlow for ServerRecycle {
    fn name(&self) -> &'static str {
        "server.recycle"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        power_reads(task, have).unwrap_or_default()
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let how: RecycleParams = params(task)?;
        let how = StopParams {
            force: false,
            timeout_seconds: how.timeout_seconds,
        };
        planned(task, cx, |server, place| Ok(vec![stop(server.id(), place, how)?]))
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let how: RecycleParams = params(task)?;
        let until = cx
            .now
            .checked_add(SignedDuration::from_hours(how.keep_hours.into()))
            .ok();
        let mut settled = settled(task, cx, |server| {
            if stopped(cx) {
                server.status.power = PowerState::Stopped;
            }
            if cx.end == TaskEnd::Done {
                server.status.lifecycle = Lifecycle::Recycled;
                server.status.purge_at = until;
            }
        })?;
        if let (TaskEnd::Done, Some(until)) = (cx.end, until) {
            let mark = timer(until, task.scope, ServerId::from_uuid(task.subject.id))
                .map_err(|e| Reason::new("record.unencodable", e.to_string()))?;
            settled.changes = settled.changes.and(mark);
        }
        Ok(settled)
    }
}
