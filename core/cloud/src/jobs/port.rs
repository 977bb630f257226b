//! Ports of guests in their host's network: `port.ensure`, `port.remove`.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skyloom_flow::{Job, JobContext, JobError, Undo};
use skyloom_hypervisor::{ErrorKind, HostNetwork, NicSpec, PortWiring};
use skyloom_model::PortId;

use super::host_error;

/// A host's network, if it has one.
pub(super) type Network = Option<Arc<dyn HostNetwork>>;

fn needed(network: &Network) -> Result<&dyn HostNetwork, JobError> {
    let missing = || JobError::permanent("host.no_network", "the host cannot plug guests into networks");
    network.as_deref().ok_or_else(missing)
}

/// Ensures the ports, and gives each of their NICs its device.
pub(super) async fn plug(
    network: &Network,
    wirings: &[PortWiring],
    nics: &mut [NicSpec],
) -> Result<(), JobError> {
    for wiring in wirings {
        let made = needed(network)?.ensure_port(wiring).await.map_err(host_error)?;
        if let Some(nic) = nics.iter_mut().find(|nic| nic.mac == wiring.mac) {
            nic.kind = made.kind;
            nic.device = made.device;
        }
    }
    Ok(())
}

/// A port that is to go, if it is of no newer generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortGone {
    /// Which.
    pub(crate) port: PortId,
    /// The newest generation that is removed.
    pub(crate) generation: u64,
}

impl PortGone {
    /// What `plug` made of a wiring.
    pub(crate) const fn of(wiring: &PortWiring) -> Self {
        Self {
            port: wiring.port,
            generation: wiring.generation,
        }
    }
}

/// Ensures that nothing is left of the ports. A newer order for one has overtaken this one: that port stays.
pub(super) async fn unplug(network: &Network, ports: &[PortGone]) -> Result<(), JobError> {
    for gone in ports {
        match needed(network)?.remove_port(gone.port, gone.generation).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Stale => {}
            Err(error) => return Err(host_error(error)),
        }
    }
    Ok(())
}

/// Input of `port.remove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemovePortsInput {
    /// The ports.
    pub(crate) ports: Vec<PortGone>,
}

/// Takes ports from the host's network.
#[derive(Debug)]
pub(super) struct Remove {
    pub(super) network: Network,
}

#[async_trait]
impl Job for Remove {
    fn kind(&self) -> &'static str {
        "port.remove"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let RemovePortsInput { ports } = cx.input()?;
        cx.may_act()?;
        unplug(&self.network, &ports).await?;
        Ok(json!({}))
    }

    async fn undo(&self, _cx: &JobContext<'_>) -> Result<Undo, JobError> {
        Ok(Undo::Moot("the next start plugs them in anew".to_owned()))
    }
}

/// Input of `port.ensure`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EnsurePortsInput {
    /// As the ports are to be.
    pub(crate) wirings: Vec<PortWiring>,
}

/// Has ports that are there take on what has changed. Guests are not disturbed.
#[derive(Debug)]
pub(super) struct Ensure {
    pub(super) network: Network,
}

#[async_trait]
impl Job for Ensure {
    fn kind(&self) -> &'static str {
        "port.ensure"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let EnsurePortsInput { wirings } = cx.input()?;
        cx.may_act()?;
        for wiring in &wirings {
            match needed(&self.network)?.ensure_port(wiring).await {
                Ok(_) => {}
                // Somebody who knew more was here before.
                Err(error) if error.kind() == ErrorKind::Stale => {}
                Err(error) => return Err(host_error(error)),
            }
        }
        Ok(json!({}))
    }

    async fn undo(&self, _cx: &JobContext<'_>) -> Result<Undo, JobError> {
        Ok(Undo::Moot("the records say what the ports are".to_owned()))
    }
}
