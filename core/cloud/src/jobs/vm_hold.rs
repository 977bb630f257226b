//! `vm.pause`, `vm.unpause`, `vm.suspend`, `vm.resume`, `vm.look`.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use skyloom_flow::{Job, JobContext, JobError, Undo};
use skyloom_hypervisor::{Error, ErrorKind, Hypervisor, Inspection, Pause, Suspend};
use skyloom_model::{PowerState, ServerId};

use super::vm::cannot_tell;
use super::{ServerInput, host_error};

/// What these jobs give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// The power state that was seen afterwards; nothing: there is no domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) power: Option<PowerState>,
}

/// What is done to a guest that keeps its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Pause,
    Unpause,
    Suspend,
    Resume,
}

/// Does it.
#[derive(Debug)]
pub(super) struct HoldGuest {
    pub(super) verb: Verb,
    pub(super) hypervisor: Arc<dyn Hypervisor>,
}

impl HoldGuest {
    fn pausing(&self) -> Result<&dyn Pause, JobError> {
        self.hypervisor.as_pause().ok_or_else(|| unsupported("pause"))
    }

    fn suspending(&self) -> Result<&dyn Suspend, JobError> {
        self.hypervisor.as_suspend().ok_or_else(|| unsupported("suspend"))
    }

    async fn power(&self, server: ServerId) -> Result<Option<PowerState>, JobError> {
        power(&*self.hypervisor, server).await
    }

    async fn perform(&self, verb: Verb, server: ServerId, generation: u64) -> Result<(), JobError> {
        match verb {
            Verb::Pause => self.pausing()?.pause(server, generation).await,
            Verb::Unpause => self.pausing()?.unpause(server, generation).await,
            Verb::Suspend => self.suspending()?.suspend(server, generation).await,
            Verb::Resume => self.hypervisor.start(server, generation).await,
        }
        .map_err(host_error)
    }
}

#[async_trait]
impl Job for HoldGuest {
    fn kind(&self) -> &'static str {
        match self.verb {
            Verb::Pause => "vm.pause",
            Verb::Unpause => "vm.unpause",
            Verb::Suspend => "vm.suspend",
            Verb::Resume => "vm.resume",
        }
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let ServerInput { server } = cx.input()?;
        cx.may_act()?;
        self.perform(self.verb, server, cx.record.generation).await?;
        cx.output(&Seen {
            power: self.power(server).await?,
        })
    }

    /// As it was before: a guest that was held goes on, one that went on is held. One that has ended by itself has ended.
    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let ServerInput { server } = cx.input()?;
        let seen = self.power(server).await?;
        let (back, after) = match self.verb {
            Verb::Pause => (Verb::Unpause, PowerState::Paused),
            Verb::Unpause => (Verb::Pause, PowerState::Running),
            Verb::Suspend => (Verb::Resume, PowerState::Suspended),
            Verb::Resume => (Verb::Suspend, PowerState::Running),
        };
        if seen != Some(after) {
            return Ok(Undo::Moot("it is not as this step leaves it".to_owned()));
        }
        match self.perform(back, server, cx.record.generation).await {
            Ok(()) => Ok(Undo::Undone),
            Err(error) if error.0.code == ErrorKind::Stale.code() => {
                Ok(Undo::Moot("the domain belongs to a newer order".to_owned()))
            }
            Err(error) => Err(error),
        }
    }
}

/// Only looks at a domain.
#[derive(Debug)]
pub(super) struct LookAtGuest {
    pub(super) hypervisor: Arc<dyn Hypervisor>,
}

#[async_trait]
impl Job for LookAtGuest {
    fn kind(&self) -> &'static str {
        "vm.look"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let ServerInput { server } = cx.input()?;
        cx.output(&Seen {
            power: power(&*self.hypervisor, server).await?,
        })
    }

    async fn undo(&self, _cx: &JobContext<'_>) -> Result<Undo, JobError> {
        Ok(Undo::Moot("looking changes nothing".to_owned()))
    }
}

async fn power(hypervisor: &dyn Hypervisor, server: ServerId) -> Result<Option<PowerState>, JobError> {
    match hypervisor.inspect(server).await.map_err(host_error)? {
        Inspection::Found { power, .. } => Ok(Some(power)),
        Inspection::Absent => Ok(None),
        Inspection::CannotTell { reason } => Err(cannot_tell(&reason)),
    }
}

fn unsupported(ability: &'static str) -> JobError {
    host_error(Error::new(ErrorKind::Unsupported, ability))
}
