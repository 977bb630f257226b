//! `port.rewire`: the hosts of servers learn what their security groups say now. No guest is disturbed, and no order is given.

use serde::{Deserialize, Serialize};
use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, StageEnd, TaskFlow};
use skyloom_model::{JobId, Lifecycle, Place, Reason, Resource as _, Server, ServerId, Task, paths};
use skyloom_store::Key;

use super::definition::definition_reads;
use super::records::key;
use super::wiring::{wiring_reads, wirings};
use super::{Outputs, Step, params};
use crate::jobs::EnsurePortsInput;

/// Parameters of `port.rewire`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RewireParams {
    /// Whose ports.
    pub(crate) servers: Vec<ServerId>,
}

/// Has hosts take on what has changed about ports.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PortRewire;

fn server_key(task: &Task, server: ServerId) -> Result<Key, Reason> {
    key(&paths::resource(Server::KIND, task.scope, server.uuid()))
}

fn reads(task: &Task, have: &Records) -> Result<Vec<Key>, Reason> {
    let mut keys = Vec::new();
    for id in params::<RewireParams>(task)?.servers {
        let at = server_key(task, id)?;
        if let Some(server) = have.get::<Server>(&at)? {
            keys.extend(definition_reads(task, &server)?);
            keys.extend(wiring_reads(task, have, &server)?);
        }
        keys.push(at);
    }
    Ok(keys)
}

impl TaskFlow for PortRewire {
    fn name(&self) -> &'static str {
        "port.rewire"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        reads(task, have).unwrap_or_default()
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let mut planned = Planned::default();
        for id in params::<RewireParams>(task)?.servers {
            let Some(server) = cx.records.get::<Server>(&server_key(task, id)?)? else {
                continue;
            };
            let Some(placement) = &server.status.placement else {
                continue;
            };
            // Its ports are being wired by what was known when that was planned.
            if server.status.lifecycle == Lifecycle::Building {
                let message = format!("the server {} is being made", server.meta.name);
                return Err(Refusal::Wait(Reason::new("server.busy", message)));
            }
            if server.status.lifecycle != Lifecycle::Active {
                continue;
            }
            let wirings = wirings(task, &server, cx.records)?;
            if wirings.is_empty() {
                continue;
            }
            let input = EnsurePortsInput { wirings };
            let place = Place::Host(placement.host);
            let step = Step::new("port.ensure", "wire a server's ports anew", place, &input)?;
            let id = JobId::new(format!("port.ensure@{}", planned.jobs.len() + 1));
            planned
                .jobs
                .push(step.id(id).attempts(10, 1000).within(120).done());
        }
        Ok(planned)
    }

    fn next(
        &self,
        _task: &Task,
        _end: &StageEnd<'_>,
        _cx: &mut PlanContext<'_>,
    ) -> Result<Option<Planned>, Refusal> {
        Ok(None)
    }

    fn settle(&self, _task: &Task, _cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        Ok(Settled::default())
    }
}
