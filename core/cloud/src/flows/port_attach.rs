//! `server.attach-port` and `server.detach-port`: a port comes to a server that is there, or goes.
//!
//! ```text
//!  attach:  port says whose it is ── nic.attach ──> the server has the port         way back: nobody's again
//!  detach:                           nic.detach ──> neither has the other
//! ```
//!
//! Between the two commits `port.rewire` waits: what it would tell the host was made with or without this port.

use serde::{Deserialize, Serialize};
use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, TaskFlow};
use skyloom_hypervisor::NicSpec;
use skyloom_model::{Port, PortId, Reason, Resource as _, Server, Task, TaskEnd};
use skyloom_store::Key;

use super::records::{port_key, power_reads, subject_key};
use super::server_power::{planned, settled};
use super::wiring::{wiring, wiring_reads};
use super::{Outputs, Step, params};
use crate::jobs::NicInput;

/// The flows' names.
pub(super) const PLUGS: [&str; 2] = ["server.attach-port", "server.detach-port"];

/// Gives a port to a server.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ServerAttachPort;
/// Takes a port from its server.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ServerDetachPort;

/// Parameters of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlugParams {
    /// Which port.
    pub(crate) port: PortId,
}

fn reads(task: &Task, have: &Records) -> Result<Vec<Key>, Reason> {
    let port = params::<PlugParams>(task)?.port;
    let mut keys = power_reads(task, have)?;
    keys.push(port_key(task, port)?);
    if let Some(server) = have.get::<Server>(&subject_key(task)?)? {
        keys.extend(wiring_reads(task, have, &with_port(server, port))?);
    }
    Ok(keys)
}

fn with_port(mut server: Server, port: PortId) -> Server {
    if !server.spec.ports.contains(&port) {
        server.spec.ports.push(port);
    }
    server
}

fn plan(task: &Task, cx: &PlanContext<'_>, kind: &str, title: &str) -> Result<Planned, Refusal> {
    let id = params::<PlugParams>(task)?.port;
    planned(task, cx, |server, place| {
        let port: Port = cx.records.need(&port_key(task, id)?)?;
        let wiring = match port.spec.network {
            Some(_) => Some(wiring(task, server, &port, cx.records)?),
            None => None,
        };
        let input = NicInput {
            server: server.id(),
            nic: NicSpec {
                device: None,
                kind: port.spec.kind,
                mac: port.spec.mac,
            },
            wiring,
        };
        // A guest may take its time to let go of a device.
        let step = Step::new(kind, title, place, &input)?;
        Ok(vec![step.attempts(3, 2000).within(300).done()])
    })
}

/// The end of both: `stays` says whether the server has the port from now on.
fn end(task: &Task, cx: &SettleContext<'_>, stays: bool) -> Result<Settled, Reason> {
    let id = params::<PlugParams>(task)?.port;
    let mut settled = settled(task, cx, |server| {
        let applied = server.status.applied.as_mut().map(|applied| &mut applied.ports);
        // What the guest is made of is not what was wanted when the host has not done it.
        let applied = applied.filter(|_| cx.end == TaskEnd::Done);
        for ports in [Some(&mut server.spec.ports), applied].into_iter().flatten() {
            ports.retain(|port| stays || *port != id);
            if stays && !ports.contains(&id) {
                ports.push(id);
            }
        }
    })?;
    let at = port_key(task, id)?;
    if let Some(mut port) = cx.records.get::<Port>(&at)? {
        port.status.bound = stays;
        if !stays {
            port.spec.server = None;
            port.spec.goes_with_server = false;
        }
        port.meta.updated_at = cx.now;
        settled.changes = cx.records.put(settled.changes, &at, &port)?;
    }
    Ok(settled)
}

impl TaskFlow for ServerAttachPort {
    fn name(&self) -> &'static str {
        PLUGS[0]
    }
    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        reads(task, have).unwrap_or_default()
    }
    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        plan(task, cx, "nic.attach", "plug the port in")
    }
    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        // What was abandoned may have happened: nobody else gets the port before it was detached.
        end(task, cx, matches!(cx.end, TaskEnd::Done | TaskEnd::Abandoned))
    }
}

impl TaskFlow for ServerDetachPort {
    fn name(&self) -> &'static str {
        PLUGS[1]
    }
    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        reads(task, have).unwrap_or_default()
    }
    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        plan(task, cx, "nic.detach", "unplug the port")
    }
    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        end(task, cx, cx.end != TaskEnd::Done)
    }
}
