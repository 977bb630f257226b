//! NICs that come and go, each with its port in the host's network: `nic.attach`, `nic.detach`.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skyloom_flow::{Job, JobContext, JobError, Undo};
use skyloom_hypervisor::{Hypervisor, NicSpec, PortWiring};
use skyloom_model::ServerId;

use super::plug::{hotplug, or_absent, undone};
use super::port::{self, Network, PortGone};

/// What jobs on NICs work with.
#[derive(Debug, Clone)]
pub(super) struct NicParts {
    pub(super) hypervisor: Arc<dyn Hypervisor>,
    pub(super) network: Network,
}

/// A NIC of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NicInput {
    /// Whose.
    pub(crate) server: ServerId,
    /// The NIC; its device is the host's to say.
    pub(crate) nic: NicSpec,
    /// How its port is wired; nothing for one that is in no network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wiring: Option<PortWiring>,
}

impl NicParts {
    async fn attach(&self, input: NicInput, generation: u64) -> Result<(), JobError> {
        let NicInput { server, nic, wiring } = input;
        // A domain without it is defined anew at its next start, which wires the port.
        let Some(hotplug) = hotplug(&*self.hypervisor, server).await? else {
            return Ok(());
        };
        let mut nics = [nic];
        port::plug(&self.network, wiring.as_slice(), &mut nics).await?;
        or_absent(hotplug.attach_nic(server, generation, &nics[0]).await)
    }

    /// The NIC first: what has no NIC any more needs no port.
    async fn detach(&self, input: NicInput, generation: u64) -> Result<(), JobError> {
        if let Some(hotplug) = hotplug(&*self.hypervisor, input.server).await? {
            or_absent(hotplug.detach_nic(input.server, generation, input.nic.mac).await)?;
        }
        match &input.wiring {
            Some(wiring) => port::unplug(&self.network, &[PortGone::of(wiring)]).await,
            None => Ok(()),
        }
    }
}

/// Gives a NIC to a domain.
#[derive(Debug)]
pub(super) struct Attach(pub(super) NicParts);

#[async_trait]
impl Job for Attach {
    fn kind(&self) -> &'static str {
        "nic.attach"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        cx.may_act()?;
        self.0.attach(cx.input()?, cx.record.generation).await?;
        Ok(json!({}))
    }

    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        undone(self.0.detach(cx.input()?, cx.record.generation).await)
    }
}

/// Takes a NIC from a domain.
#[derive(Debug)]
pub(super) struct Detach(pub(super) NicParts);

#[async_trait]
impl Job for Detach {
    fn kind(&self) -> &'static str {
        "nic.detach"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        cx.may_act()?;
        self.0.detach(cx.input()?, cx.record.generation).await?;
        Ok(json!({}))
    }

    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        undone(self.0.attach(cx.input()?, cx.record.generation).await)
    }
}
