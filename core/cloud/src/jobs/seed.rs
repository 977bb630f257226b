//! `disk.seed`: the config drive, with secrets lent to this host for the time of the task.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skyloom_flow::{Job, JobContext, JobError, Undo};
use skyloom_hypervisor::HostStorage;
use skyloom_image::{SeedNic, SeedSpec};
use skyloom_model::{HostId, Hostname, RESCUE_SEED, Secret, ServerId, ServerSecrets, paths};
use skyloom_store::{DynBackend, Key};

use super::host_error;
use crate::flows::PortPlan;

/// Name of the first user of a guest.
pub(super) const FIRST_USER: &str = "skyloom";
/// Name of the first user of a rescue system.
const RESCUER: &str = "root";
/// The disk's name.
const DISK: &str = "seed";

/// For which system a config drive is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SeedOf {
    /// The server's own.
    #[default]
    Server,
    /// Its rescue system: with a user, a password and a disk of its own.
    Rescue,
}

impl SeedOf {
    const fn disk(self) -> &'static str {
        match self {
            Self::Server => DISK,
            Self::Rescue => RESCUE_SEED,
        }
    }
}

/// Input of `disk.seed`: all that is no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SeedInput {
    /// For which system.
    #[serde(default)]
    pub(crate) of: SeedOf,
    /// Which server; also the instance id.
    pub(crate) server: ServerId,
    /// Which edition of its config drive; a new one has an instance id of its own, so that the guest reads it as if for the first time.
    #[serde(default)]
    pub(crate) edition: u32,
    /// Whether there is a config drive already: no way back removes it.
    #[serde(default)]
    pub(crate) stays: bool,
    /// What the guest calls itself.
    pub(crate) hostname: Hostname,
    /// Public keys of the first user.
    pub(crate) ssh_keys: Vec<String>,
    /// Free metadata.
    pub(crate) metadata: BTreeMap<String, String>,
    /// NICs in device order.
    pub(crate) ports: Vec<PortPlan>,
}

/// Makes a config drive.
#[derive(Debug)]
pub(super) struct Seed {
    pub(super) host: HostId,
    pub(super) storage: Arc<dyn HostStorage>,
    pub(super) backend: DynBackend,
}

/// The secrets of a server that are lent to this host.
pub(super) async fn lent(
    backend: &DynBackend,
    host: HostId,
    server: ServerId,
) -> Result<ServerSecrets, JobError> {
    let key = Key::parse(&paths::lent(host, server))
        .map_err(|e| JobError::permanent("secrets.bad_key", e.to_string()))?;
    match backend.get(&key).await? {
        Some(found) => Ok(found.value.parse()?),
        None => Err(JobError::transient(
            "secrets.not_lent",
            "the server's secrets are not here yet",
        )),
    }
}

#[async_trait]
impl Job for Seed {
    fn kind(&self) -> &'static str {
        "disk.seed"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let input: SeedInput = cx.input()?;
        let secrets = lent(&self.backend, self.host, input.server).await?;
        let (user, hash, user_data) = match input.of {
            SeedOf::Server => (FIRST_USER, Some(secrets.password_hash), secrets.user_data),
            SeedOf::Rescue => (RESCUER, secrets.rescue_password_hash, None),
        };
        let iso = SeedSpec {
            instance_id: match input.edition {
                0 => input.server.to_string(),
                edition => format!("{}-{edition}", input.server),
            },
            hostname: input.hostname,
            default_user: user.to_owned(),
            ssh_keys: input.ssh_keys,
            password_hash: hash.filter(|hash| !hash.is_empty()).map(Secret::new),
            user_data: user_data.map(Secret::new),
            metadata: input.metadata,
            nics: input.ports.into_iter().map(nic).collect(),
        }
        .iso()?;
        let disk = self
            .storage
            .create_seed(input.server, input.of.disk(), &iso)
            .await
            .map_err(host_error)?;
        Ok(json!({ "disk": disk.name }))
    }

    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let input: SeedInput = cx.input()?;
        if input.stays {
            return Ok(Undo::Moot("it says what the records say".to_owned()));
        }
        self.storage
            .delete_disk(input.server, input.of.disk())
            .await
            .map_err(host_error)?;
        Ok(Undo::Undone)
    }
}

fn nic(port: PortPlan) -> SeedNic {
    SeedNic {
        mac: port.mac,
        address: port.address,
        prefix_len: port.prefix_len,
        gateway: port.gateway,
        dns: port.dns,
    }
}
