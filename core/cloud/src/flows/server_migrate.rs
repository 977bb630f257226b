//! `server.migrate`: to another host, off meanwhile. Its disks stay where they are: both hosts see them.
//!
//! ```text
//!  source        vm.halt (g - 1)                                        vm.leave (g)
//!  destination                  ──> vm.define (g) ──> vm.start (g) ──>
//!  back          start (g + 1)  <──  undefined    <──  off         <──  made anew (g + 1)
//! ```

use serde::{Deserialize, Serialize};
use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, StageEnd, TaskFlow};
use skyloom_model::{HostId, Place, PowerState, Reason, Resource as _, Task, TaskEnd};
use skyloom_store::Key;

use super::definition::definition;
use super::moving::{begin, end, moving_reads, ports_of};
use super::server_power::{start, started};
use super::server_rescue::halt;
use super::{Outputs, Step, StopParams, params};
use crate::jobs::LeaveInput;

/// Moves a server that is off, or is turned off for it.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerMigrate;

/// Parameters of `server.migrate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MigrateParams {
    /// The only host that is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<HostId>,
    /// How the guest is stopped.
    pub(crate) stop: StopParams,
}

impl TaskFlow for ServerMigrate {
    fn name(&self) -> &'static str {
        "server.migrate"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        moving_reads(task, have).unwrap_or_default()
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let how: MigrateParams = params(task)?;
        let moving = begin(task, cx, false, how.host)?;
        let server = &moving.server;
        let (from, to) = (Place::Host(moving.from), Place::Host(moving.to));
        let there = definition(task, server, cx.records, false)?;
        let leave = LeaveInput {
            server: server.id(),
            ports: ports_of(&there.wirings),
            back: Some(definition(task, server, cx.records, true)?),
        };
        let off = halt(server, from, how.stop)?;
        let define = Step::new("vm.define", "make it on the other host", to, &there)?;
        let define = define.after([off.id.clone()]).weight(2).within(120).done();
        let mut jobs = vec![off, define];
        if server.status.power.may_execute() {
            let mut on = start(server.id(), to)?;
            on.after = jobs.last().map(|job| job.id.clone()).into_iter().collect();
            jobs.push(on);
        }
        let leave = Step::new("vm.leave", "leave nothing of it on the host before", from, &leave)?;
        let last = jobs.last().map(|job| job.id.clone());
        jobs.push(leave.after(last).attempts(5, 1000).within(120).done());
        Ok(Planned {
            jobs,
            placement: Some(moving.explanation),
            changes: moving.changes,
            generation: server.meta.generation,
            ..Planned::default()
        })
    }

    fn next(
        &self,
        _task: &Task,
        _end: &StageEnd<'_>,
        _cx: &mut PlanContext<'_>,
    ) -> Result<Option<Planned>, Refusal> {
        Ok(None)
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let done = cx.end == TaskEnd::Done;
        end(task, cx, done, |server| match cx.end {
            TaskEnd::Done => {
                server.status.power = PowerState::Stopped;
                started(server, cx);
            }
            // The way back has gone under the generation after the order's.
            TaskEnd::Failed | TaskEnd::Cancelled if cx.plan.is_some() => server.meta.generation += 1,
            TaskEnd::Failed | TaskEnd::Cancelled | TaskEnd::Abandoned => {}
        })
    }
}
