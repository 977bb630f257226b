//! Guests that are held, in their place or on disk.

use std::sync::Arc;

use async_trait::async_trait;
use skyloom_hypervisor::{Pause, Result, Suspend};
use skyloom_model::{PowerState, ServerId};

use crate::LibvirtHypervisor;
use crate::domain;
use crate::errors::Fault;
use crate::lifecycle::Core;
use crate::state::Seen;

/// The domain has no guest that could be held.
const OFF: Fault = Fault::Conflict("it is off");

#[async_trait]
impl Pause for LibvirtHypervisor {
    async fn pause(&self, id: ServerId, generation: u64) -> Result<()> {
        self.finish(
            "pause",
            move |core| async move { core.pause(id, generation).await },
        )
        .await
    }

    async fn unpause(&self, id: ServerId, generation: u64) -> Result<()> {
        self.finish("unpause", move |core| async move {
            core.unpause(id, generation).await
        })
        .await
    }
}

#[async_trait]
impl Suspend for LibvirtHypervisor {
    async fn suspend(&self, id: ServerId, generation: u64) -> Result<()> {
        self.finish("suspend", move |core| async move {
            core.suspend(id, generation).await
        })
        .await
    }
}

impl Core {
    async fn pause(self: &Arc<Self>, id: ServerId, generation: u64) -> Result<()> {
        let slot = self.slots.get(id);
        let op = slot.op().await;
        match self.obeyed("pause", &slot, id, generation).await?.1 {
            Seen::Held => Ok(()),
            Seen::Up => {
                self.step("pause", id, op, move |conn| domain::hold(conn, id))
                    .await
            }
            _ => Err(OFF.of("pause", id)),
        }
    }

    async fn unpause(self: &Arc<Self>, id: ServerId, generation: u64) -> Result<()> {
        let slot = self.slots.get(id);
        let op = slot.op().await;
        match self.obeyed("unpause", &slot, id, generation).await?.1 {
            Seen::Up => Ok(()),
            Seen::Held => {
                let resumed = self.step("unpause", id, op, move |conn| domain::resume(conn, id));
                resumed.await
            }
            _ => Err(OFF.of("unpause", id)),
        }
    }

    async fn suspend(self: &Arc<Self>, id: ServerId, generation: u64) -> Result<()> {
        let slot = self.slots.get(id);
        let op = slot.op().await;
        match self.obeyed("suspend", &slot, id, generation).await?.1 {
            Seen::Off(PowerState::Suspended) => Ok(()),
            Seen::Up | Seen::Held => {
                let limit = self.config.timeouts.memory;
                let saved = self.long("suspend", id, limit, op, move |conn| domain::save(conn, id));
                saved.await
            }
            _ => Err(OFF.of("suspend", id)),
        }
    }
}
