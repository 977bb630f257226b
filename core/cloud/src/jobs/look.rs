//! `host.look`: everything that lies on a host, whoever it belongs to.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use skyloom_flow::{Job, JobContext, JobError, Undo};
use skyloom_hypervisor::{HostStorage, Hypervisor, Inspection};
use skyloom_model::{PowerState, ServerId};

use super::host_error;

/// What `host.look` gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Looked {
    /// One for each server of which there is anything, in id order.
    pub(crate) things: Vec<Thing>,
}

/// What there is of one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Thing {
    /// Whose it was.
    pub(crate) server: ServerId,
    /// Generation and power state of its domain, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<(u64, PowerState)>,
    /// Why nobody can tell what its domain does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unclear: Option<String>,
    /// Whether the pool holds anything of it.
    pub(crate) disks: bool,
}

/// Looks at a host.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) hypervisor: Arc<dyn Hypervisor>,
    pub(super) storage: Arc<dyn HostStorage>,
}

#[async_trait]
impl Job for Look {
    fn kind(&self) -> &'static str {
        "host.look"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let mut things: BTreeMap<ServerId, Thing> = BTreeMap::new();
        let thing = |server| Thing {
            server,
            domain: None,
            unclear: None,
            disks: false,
        };
        for found in self.hypervisor.list().await.map_err(host_error)? {
            let seen = things.entry(found.id).or_insert_with(|| thing(found.id));
            match found.inspection {
                Inspection::Found { generation, power } => seen.domain = Some((generation, power)),
                Inspection::CannotTell { reason } => seen.unclear = Some(reason),
                Inspection::Absent => {}
            }
        }
        for server in self.storage.servers().await.map_err(host_error)? {
            things.entry(server).or_insert_with(|| thing(server)).disks = true;
        }
        cx.output(&Looked {
            things: things.into_values().collect(),
        })
    }

    async fn undo(&self, _cx: &JobContext<'_>) -> Result<Undo, JobError> {
        Ok(Undo::Moot("looking changes nothing".to_owned()))
    }
}
