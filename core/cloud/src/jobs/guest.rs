//! `guest.set-password`: the agent in a guest sets the first user's password, from its hash.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use skyloom_flow::{Job, JobContext, JobError, Undo};
use skyloom_hypervisor::{ErrorKind, Hypervisor};
use skyloom_model::{HostId, Secret};
use skyloom_store::DynBackend;

use super::seed::{FIRST_USER, lent};
use super::{ServerInput, host_error};

/// What `guest.set-password` gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub(crate) enum Told {
    /// The agent has set it.
    Set,
    /// No agent answers.
    Silent,
    /// It would not.
    Refused {
        /// Why, in the guest's words: untrusted, bounded.
        why: String,
    },
}

/// Has the agent in a guest set a password.
#[derive(Debug)]
pub(super) struct SetPassword {
    pub(super) host: HostId,
    pub(super) hypervisor: Arc<dyn Hypervisor>,
    pub(super) backend: DynBackend,
}

#[async_trait]
impl Job for SetPassword {
    fn kind(&self) -> &'static str {
        "guest.set-password"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let ServerInput { server } = cx.input()?;
        let hash = Secret::new(lent(&self.backend, self.host, server).await?.password_hash);
        let Some(agent) = self.hypervisor.as_guest_agent() else {
            return cx.output(&Told::Silent);
        };
        if !agent.answers(server).await.map_err(host_error)? {
            return cx.output(&Told::Silent);
        }
        cx.may_act()?;
        let told = match agent.set_password(server, FIRST_USER, &hash).await {
            Ok(()) => Told::Set,
            // It has fallen silent, or the guest has ended.
            Err(e) if matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Conflict) => Told::Silent,
            Err(e) if e.kind() == ErrorKind::Refused => Told::Refused {
                why: e.reason().message,
            },
            Err(e) => return Err(host_error(e)),
        };
        cx.output(&told)
    }

    async fn undo(&self, _cx: &JobContext<'_>) -> Result<Undo, JobError> {
        Ok(Undo::Moot("nobody knows the password before".to_owned()))
    }
}
