//! The configuration of `skyloom-agent`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use skyloom_bin::store::StoreConfig;
use skyloom_bin::telemetry::LogConfig;

/// All sections.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct AgentConfig {
    pub(crate) log: LogConfig,
    pub(crate) store: StoreConfig,
    pub(crate) agent: HostConfig,
    pub(crate) hypervisor: HypervisorConfig,
    pub(crate) network: NetworkConfig,
    pub(crate) health: HealthConfig,
}

/// Which host this is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct HostConfig {
    /// The host's id, as `skyloom host add` printed it. A host that has joined has it in its certificate.
    pub(crate) host: String,
    /// Its name, as the operator entered it.
    pub(crate) name: String,
    /// Where disks, images and guests' files are kept; `pki` below it has the host's key and certificate.
    pub(crate) data_dir: PathBuf,
    /// File with a join token, to become a host with a certificate of its own instead of a token in `store.token_file`.
    pub(crate) join_token_file: Option<PathBuf>,
    /// Directories of volumes that several hosts see, by the name of their pool. Each holds a file `skyloom-pool` with that name.
    pub(crate) pools: BTreeMap<String, PathBuf>,
    /// The directory of images and servers' disks, where several hosts see it: servers go from one to another with their disks.
    pub(crate) disks: Option<DisksConfig>,
    /// GiB that cached images may take; nothing is no limit. What disks lie on stays, whatever it takes.
    pub(crate) image_cache_gib: Option<u64>,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            host: String::new(),
            name: "host".into(),
            data_dir: "/var/lib/skyloom/host".into(),
            join_token_file: None,
            pools: BTreeMap::new(),
            disks: None,
            image_cache_gib: None,
        }
    }
}

/// A directory that several hosts see. It holds a file `skyloom-disks` with its id.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DisksConfig {
    /// What tells it from others; the same on each host.
    pub(crate) id: String,
    /// Where it is; the same on each host.
    pub(crate) path: PathBuf,
}

/// What runs the guests.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct HypervisorConfig {
    /// `qmp`, `libvirt` or `fake`.
    pub(crate) kind: Kind,
    /// QEMU's system emulator.
    pub(crate) qemu: PathBuf,
    /// Address and port of this host at which guests of other hosts come in with their memory; nothing: none do. What comes is neither
    /// encrypted nor authenticated: a network that hosts alone reach. By libvirt, only the address counts.
    pub(crate) migration: Option<SocketAddr>,
    /// Of the kind `libvirt`.
    pub(crate) libvirt: LibvirtConfig,
}

impl Default for HypervisorConfig {
    fn default() -> Self {
        Self {
            kind: Kind::Qmp,
            qemu: "/usr/bin/qemu-system-x86_64".into(),
            migration: None,
            libvirt: LibvirtConfig::default(),
        }
    }
}

/// Which libvirt daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LibvirtConfig {
    /// Its URI.
    pub(crate) uri: String,
    /// User and group id that the daemon runs as, when that is not the agent's own user: disks and logs are given to it.
    pub(crate) uid: Option<u32>,
    /// See `uid`.
    pub(crate) gid: Option<u32>,
}

impl Default for LibvirtConfig {
    fn default() -> Self {
        Self {
            uri: "qemu:///session".into(),
            uid: None,
            gid: None,
        }
    }
}

/// The hypervisors of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// QEMU over QMP.
    Qmp,
    /// QEMU by libvirt; only in programs built with that feature.
    Libvirt,
    /// Simulated guests.
    Fake,
}

/// How guests are plugged into networks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NetworkConfig {
    /// `user` for the user network alone, `bridge` for networks on Linux bridges, which takes root.
    pub(crate) driver: Driver,
    /// User id that may open taps, when QEMU does not run as root.
    pub(crate) tap_user: Option<u32>,
    /// Devices that carry a network to other hosts, by the network's id.
    pub(crate) uplinks: BTreeMap<String, String>,
}

/// The networks of this program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Driver {
    /// QEMU's user network: no privileges, outgoing connections only.
    #[default]
    User,
    /// Linux bridges, taps and nftables.
    Bridge,
}

/// Where health and metrics are served.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct HealthConfig {
    /// Address and port; nothing listens without it.
    pub(crate) listen: Option<SocketAddr>,
}
