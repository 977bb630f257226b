//! The configuration of `skyloom-api`.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use skyloom::api::{ApiLimits, ServeLimits};
use skyloom::cloud::TaskLimits;
use skyloom_bin::archive::ArchiveSection;
use skyloom_bin::store::StoreConfig;
use skyloom_bin::telemetry::LogConfig;

/// All sections.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ApiConfig {
    pub(crate) log: LogConfig,
    pub(crate) store: StoreConfig,
    pub(crate) archive: ArchiveSection,
    pub(crate) api: ListenConfig,
    pub(crate) images: ImagesConfig,
    pub(crate) tasks: TasksConfig,
    pub(crate) limits: LimitsConfig,
    pub(crate) bootstrap: BootstrapConfig,
}

/// Where the API listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ListenConfig {
    /// Address and port; port 0 picks a free one.
    pub(crate) listen: SocketAddr,
    /// Certificate chain in PEM; with `tls_key` the API speaks TLS.
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key in PEM.
    pub(crate) tls_key: Option<PathBuf>,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8780)),
            tls_cert: None,
            tls_key: None,
        }
    }
}

/// Where image content is kept. Engines need the same folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ImagesConfig {
    pub(crate) dir: PathBuf,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            dir: "/var/lib/skyloom/images".into(),
        }
    }
}

/// How many tasks may be unfinished; beyond that requests for more are answered with 429.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TasksConfig {
    /// Of one project.
    pub(crate) per_project: usize,
    /// Of all projects together.
    pub(crate) in_all: usize,
}

impl Default for TasksConfig {
    fn default() -> Self {
        let TaskLimits { per_project, in_all } = TaskLimits::default();
        Self { per_project, in_all }
    }
}

impl From<TasksConfig> for TaskLimits {
    fn from(config: TasksConfig) -> Self {
        Self {
            per_project: config.per_project,
            in_all: config.in_all,
        }
    }
}

/// What the first start leaves behind.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct BootstrapConfig {
    /// The administrator's token is written here, readable by its owner only; without it, to standard output.
    pub(crate) token_file: Option<PathBuf>,
}

/// What clients can make this process hold.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LimitsConfig {
    /// Open connections; each takes a file descriptor.
    pub(crate) connections: usize,
    /// Connections of one token.
    pub(crate) connections_per_token: usize,
    /// Open streams (watches) of all; an agent has three.
    pub(crate) streams: usize,
    /// Open streams of one token.
    pub(crate) streams_per_token: usize,
    /// MiB of requests and answers in flight.
    pub(crate) mib: usize,
    /// MiB of one token's.
    pub(crate) mib_per_token: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let api = ApiLimits::default();
        Self {
            connections: ServeLimits::default().max_connections,
            connections_per_token: api.max_connections_per_token,
            streams: api.max_streams,
            streams_per_token: api.max_streams_per_token,
            mib: api.max_bytes >> 20,
            mib_per_token: api.max_bytes_per_token >> 20,
        }
    }
}

impl LimitsConfig {
    pub(crate) fn api(&self) -> ApiLimits {
        ApiLimits::default()
            .with_max_connections_per_token(self.connections_per_token)
            .with_max_streams(self.streams, self.streams_per_token)
            .with_max_bytes(
                self.mib.saturating_mul(1 << 20),
                self.mib_per_token.saturating_mul(1 << 20),
            )
    }

    pub(crate) fn serve(&self) -> ServeLimits {
        ServeLimits::default().with_max_connections(self.connections)
    }
}
