//! `server.pause`, `server.unpause`, `server.suspend`, `server.resume`, `server.reset-state`: one order to the host, and what was seen
//! afterwards into the record.

use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, TaskFlow};
use skyloom_model::{JobSpec, Lifecycle, Place, PowerState, Reason, Server, ServerId, Task, TaskEnd};
use skyloom_store::Key;

use super::records::power_reads;
use super::server_power::{beside, planned, settled};
use super::{Outputs, START_SECONDS, Step, output};
use crate::jobs::{Seen, ServerInput};

/// Holds a guest's CPUs, or lets them go on; keeps its memory on disk, or goes on with that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerHold {
    /// Hold the CPUs.
    Pause,
    /// Let them go on.
    Unpause,
    /// Off, with the memory on disk.
    Suspend,
    /// On, with that memory.
    Resume,
}

impl ServerHold {
    /// All values.
    pub const ALL: [Self; 4] = [Self::Pause, Self::Unpause, Self::Suspend, Self::Resume];

    const fn job(self) -> (&'static str, &'static str) {
        match self {
            Self::Pause => ("vm.pause", "hold the virtual machine's CPUs"),
            Self::Unpause => ("vm.unpause", "let the virtual machine's CPUs go on"),
            Self::Suspend => ("vm.suspend", "write the virtual machine's memory to disk"),
            Self::Resume => ("vm.resume", "go on with the virtual machine's memory"),
        }
    }
}

impl TaskFlow for ServerHold {
    fn name(&self) -> &'static str {
        match self {
            Self::Pause => "server.pause",
            Self::Unpause => "server.unpause",
            Self::Suspend => "server.suspend",
            Self::Resume => "server.resume",
        }
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        power_reads(task, have).unwrap_or_default()
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        planned(task, cx, |server, place| {
            Ok(vec![hold(*self, skyloom_model::Resource::id(server), place)?])
        })
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        settled(task, cx, |server| {
            if cx.end != TaskEnd::Done {
                return;
            }
            if let Some(power) = output::<Seen>(cx.outputs, self.job().0).and_then(|seen| seen.power) {
                server.status.power = power;
            }
            if *self == Self::Resume {
                server.status.launched_at = Some(cx.now);
            }
        })
    }
}

/// One of these jobs. It stands in other flows, too: a start of what is suspended resumes it.
pub(super) fn hold(what: ServerHold, server: ServerId, place: Place) -> Result<JobSpec, Reason> {
    let (kind, title) = what.job();
    let step = Step::new(kind, title, place, &ServerInput { server })?;
    Ok(step.weight(5).within(START_SECONDS).done())
}

/// Asks the host what a server's domain is, and writes that.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerResetState;

impl TaskFlow for ServerResetState {
    fn name(&self) -> &'static str {
        "server.reset-state"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        power_reads(task, have).unwrap_or_default()
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        beside(task, cx, |server, place| {
            let input = ServerInput {
                server: skyloom_model::Resource::id(server),
            };
            let step = Step::new("vm.look", "look at the virtual machine", place, &input)?;
            Ok(vec![step.attempts(5, 1000).within(60).done()])
        })
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        settled(task, cx, |server: &mut Server| {
            let Some(seen) = output::<Seen>(cx.outputs, "vm.look").filter(|_| cx.end == TaskEnd::Done) else {
                return;
            };
            match seen.power {
                Some(power) => {
                    server.status.lifecycle = Lifecycle::Active;
                    server.status.power = power;
                }
                None => {
                    server.status.lifecycle = Lifecycle::Error;
                    server.status.power = PowerState::Stopped;
                    let reason = Reason::new("server.no_domain", "its host has no virtual machine of it");
                    server.status.fault = Some(reason.hint("delete the server, or rebuild it"));
                }
            }
            server.spec.running = server.status.power.may_execute();
        })
    }
}
