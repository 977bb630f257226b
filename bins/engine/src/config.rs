//! The configuration of `skyloom-engine`.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use skyloom_bin::archive::ArchiveSection;
use skyloom_bin::store::StoreConfig;
use skyloom_bin::telemetry::LogConfig;

/// All sections.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct EngineConfig {
    pub(crate) log: LogConfig,
    pub(crate) store: StoreConfig,
    /// This engine moves finished tasks too when a store of its own is named here; else the API does.
    pub(crate) archive: ArchiveSection,
    pub(crate) engine: NameConfig,
    pub(crate) images: ImagesConfig,
    pub(crate) fetch: FetchConfig,
    pub(crate) health: HealthConfig,
}

/// Who this engine is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NameConfig {
    /// Unique among the engines of a cloud, the same after each restart.
    pub(crate) name: String,
}

impl Default for NameConfig {
    fn default() -> Self {
        Self {
            name: "engine-1".into(),
        }
    }
}

/// Where image content is kept: the API's folder.
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

/// What images may be fetched from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct FetchConfig {
    /// Address blocks besides the public Internet, such as `10.0.0.0/8`.
    pub(crate) allow: Vec<String>,
}

/// Where health and metrics are served.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct HealthConfig {
    /// Address and port; nothing listens without it.
    pub(crate) listen: Option<SocketAddr>,
}
