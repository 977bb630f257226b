//! What agents report beside their jobs.

use async_trait::async_trait;
use skyloom_flow::Companion;
use skyloom_hypervisor::{FakeWorld, Hypervisor as _, Inspection};
use skyloom_model::{HostId, JobRecord, ProjectId, ServerId, Timestamp, VmObservation, paths};
use skyloom_store::{Txn, Value};

use crate::world::key;

/// Tells what a host's domain is after each job, as its agent does.
#[derive(Debug)]
pub(super) struct Witness {
    pub(super) host: HostId,
    pub(super) fake: FakeWorld,
    /// Of all servers.
    pub(super) project: ProjectId,
}

impl Witness {
    pub(super) async fn look(&self, server: ServerId) -> Txn {
        let at = key(&paths::host_vm(self.host, server));
        match self.fake.hypervisor().inspect(server).await {
            Ok(Inspection::Found { generation, power }) => {
                let seen = VmObservation {
                    server,
                    project: self.project,
                    generation,
                    power,
                    cause: None,
                    accelerator: None,
                    observed_at: Timestamp::UNIX_EPOCH,
                };
                Txn::new().put(at, Value::json(&seen).unwrap())
            }
            _ => Txn::new().delete(at),
        }
    }
}

#[async_trait]
impl Companion for Witness {
    async fn writes(&self, record: &JobRecord) -> Txn {
        match record.spec.input["server"].as_str() {
            Some(server) => self.look(server.parse().unwrap()).await,
            None => Txn::new(),
        }
    }
}
