//! The configuration of `skyloom-api`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use skyloom::api::{ApiLimits, EdgeConfig, Network, NotANetwork, RateLimits, ServeLimits};
use skyloom::cloud::TaskLimits;
use skyloom::openstack::identity::OpenstackConfig;
use skyloom_bin::archive::ArchiveSection;
use skyloom_bin::exit::MainError;
use skyloom_bin::identity::IdentitySection;
use skyloom_bin::oidc::OidcSection;
use skyloom_bin::store::StoreConfig;
use skyloom_bin::telemetry::LogConfig;

use crate::pki::PkiSection;

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
    pub(crate) servers: ServersConfig,
    pub(crate) limits: LimitsConfig,
    pub(crate) edge: EdgeSection,
    pub(crate) pki: PkiSection,
    pub(crate) bootstrap: BootstrapConfig,
    pub(crate) identity: IdentitySection,
    /// Identity providers on whose word users log in.
    pub(crate) oidc: Vec<OidcSection>,
    /// OpenStack's Keystone API at `/identity`.
    pub(crate) openstack: OpenstackConfig,
}

/// Where the API listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ListenConfig {
    /// Address and port; port 0 picks a free one.
    pub(crate) listen: SocketAddr,
    /// Certificate chain in PEM; with `tls_key` the API speaks TLS.
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key in PEM. Both files are followed: what is new there is shown from the next handshake on.
    pub(crate) tls_key: Option<PathBuf>,
    /// Speak TLS 1.2 too, for clients that cannot be changed.
    pub(crate) tls12: bool,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8780)),
            tls_cert: None,
            tls_key: None,
            tls12: false,
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

/// Longest time in the recycle bin.
const MOST_RECYCLE_HOURS: u32 = 8760;

/// What holds for servers of which nobody says something else.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ServersConfig {
    /// For how many hours deleted ones are kept in the recycle bin, at most a year of hours; 0: not at all.
    pub(crate) recycle_hours: u32,
}

impl ServersConfig {
    /// Whether it makes sense.
    pub(crate) fn check(&self) -> Result<(), MainError> {
        if self.recycle_hours > MOST_RECYCLE_HOURS {
            let most = format!("at most {MOST_RECYCLE_HOURS}");
            return Err(MainError::usage("servers.recycle_hours is too long", most));
        }
        Ok(())
    }
}

/// What the first start leaves behind.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct BootstrapConfig {
    /// The administrator's token is written here, readable by its owner only; without it, to standard output.
    pub(crate) token_file: Option<PathBuf>,
    /// The same of the administrator's password.
    pub(crate) password_file: Option<PathBuf>,
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

/// Who is believed and how often who may ask.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct EdgeSection {
    /// Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed, such as `10.0.0.0/8`.
    pub(crate) trusted_proxies: Vec<String>,
    /// Days for which browsers shall insist on TLS; 0 tells them nothing.
    pub(crate) hsts_days: u32,
    /// Logins each second of one source; five seconds' worth at once. 0 sets no bound, here and below.
    pub(crate) logins: u32,
    /// Requests without a good credential each second of one source.
    pub(crate) anonymous: u32,
    /// Reads each second of one token.
    pub(crate) reads: u32,
    /// Changes each second of one token.
    pub(crate) writes: u32,
    /// Streams opened each second by one token.
    pub(crate) streams: u32,
    /// Requests each second of one agent.
    pub(crate) agents: u32,
}

impl Default for EdgeSection {
    fn default() -> Self {
        Self {
            trusted_proxies: Vec::new(),
            hsts_days: 365,
            logins: 20,
            anonymous: 100,
            reads: 1000,
            writes: 500,
            streams: 100,
            agents: 500,
        }
    }
}

impl EdgeSection {
    pub(crate) fn config(&self) -> Result<EdgeConfig, NotANetwork> {
        let proxies: Result<Vec<Network>, _> = self.trusted_proxies.iter().map(|text| text.parse()).collect();
        let each = RateLimits::per_second;
        let rates = RateLimits::default()
            .with_sources(each(self.logins), each(self.anonymous))
            .with_tokens(each(self.reads), each(self.writes), each(self.streams))
            .with_agents(each(self.agents));
        Ok(EdgeConfig::default()
            .with_trusted_proxies(proxies?)
            .with_hsts(Duration::from_secs(u64::from(self.hsts_days) * 86_400))
            .with_rates(rates))
    }
}
