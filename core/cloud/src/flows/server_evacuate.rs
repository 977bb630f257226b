//! `server.evacuate`: to another host, because its own has been fenced. Nothing is asked of that host.
//!
//! ```text
//!  destination      vm.define (g) ──> vm.start (g)        only if it is wanted on
//!  back             undefined     <── off                 it stays where it was: on a host that is off
//! ```
//!
//! What is left of it on the fenced host is of an older order: a sweep removes it when that host comes back (`host unfence`).

use serde::{Deserialize, Serialize};
use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, TaskFlow};
use skyloom_model::{HostId, Place, PowerState, Reason, Resource as _, Server, Task, TaskEnd};
use skyloom_store::Key;

use super::definition::definition;
use super::fence::{fenced, home_key};
use super::moving::{begin, end, moving_reads};
use super::records::subject_key;
use super::server_power::{start, started};
use super::{Outputs, Step, params};

/// Brings a server back to life elsewhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerEvacuate;

/// Parameters of `server.evacuate`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EvacuateParams {
    /// The only host that is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<HostId>,
}

/// Why a server is not evacuated whose host may run.
pub(crate) fn not_fenced(server: &Server) -> Reason {
    let host = server.status.placement.as_ref();
    let name = host.map_or_else(|| "none".to_owned(), |placed| placed.host_name.to_string());
    let message = format!("its host, {name}, is not fenced: its guest may run there");
    Reason::new("host.not_fenced", message)
        .hint("make sure that the host is off, say so with `skyloom host fence`, and ask again")
}

impl TaskFlow for ServerEvacuate {
    fn name(&self) -> &'static str {
        "server.evacuate"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        let mut keys = moving_reads(task, have).unwrap_or_default();
        keys.extend(home_key(task, have));
        keys
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let wanted: EvacuateParams = params(task)?;
        let before: Server = cx.records.need(&subject_key(task)?)?;
        let home = home_key(task, cx.records).filter(|_| fenced(task, cx.records));
        let home = home.ok_or_else(|| not_fenced(&before))?;
        let moving = begin(task, cx, false, wanted.host)?;
        let server = &moving.server;
        let to = Place::Host(moving.to);
        let there = definition(task, server, cx.records, false)?;
        let define = Step::new("vm.define", "make it on the other host", to, &there)?;
        let define = define.weight(2).within(120).done();
        let mut jobs = vec![define];
        if server.spec.running {
            let mut on = start(server.id(), to)?;
            on.after = jobs.iter().map(|job| job.id.clone()).collect();
            jobs.push(on);
        }
        Ok(Planned {
            jobs,
            placement: Some(moving.explanation),
            // Whoever takes the fence away is asked first.
            changes: cx.records.guard(moving.changes, &home),
            generation: server.meta.generation,
            ..Planned::default()
        })
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let done = cx.end == TaskEnd::Done;
        end(task, cx, done, |server| {
            if done {
                server.status.power = PowerState::Stopped;
                server.status.overlays.host_unreachable = false;
                started(server, cx);
            }
        })
    }
}
