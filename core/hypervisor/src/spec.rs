//! What a domain is made of. Everything is decided: the hypervisor chooses nothing but how to run CPUs.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use skyloom_model::{DiskFormat, IoLimits, MacAddr, Name, NicKind, ProjectId, ServerId};

/// A domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmSpec {
    /// Whose.
    pub id: ServerId,
    /// Whose project: kept with the domain, so that an adopted one can be reported.
    pub project: ProjectId,
    /// The order's generation: written into the domain.
    pub generation: u64,
    /// Display name. Text, never an argument that is parsed.
    pub name: Name,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disks in device order; the first is booted from, unless `boot` says otherwise.
    pub disks: Vec<DiskSpec>,
    /// NICs in device order.
    pub nics: Vec<NicSpec>,
    /// What it boots.
    #[serde(default)]
    pub boot: Boot,
}

/// What a domain boots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub enum Boot {
    /// Its first disk.
    #[default]
    FirstDisk,
    /// A kernel that the host loads into the guest's memory: as a rescue system does.
    Kernel {
        /// The kernel's file.
        kernel: PathBuf,
        /// The first file system's.
        initrd: Option<PathBuf>,
        /// The kernel's command line. One argument of the hypervisor, never parsed by the host.
        command_line: String,
    },
}

/// A disk of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// Name in the domain, such as `root` or `seed`; also the device's serial number.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its format; never probed.
    pub format: DiskFormat,
    /// Format of its backing file, when it is an overlay.
    pub backing_format: Option<DiskFormat>,
    /// Whether the guest may not write to it.
    pub read_only: bool,
    /// What it may do, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<IoLimits>,
}

/// A NIC of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicSpec {
    /// How it is made.
    pub kind: NicKind,
    /// Its MAC address: what tells it from the domain's other NICs.
    pub mac: MacAddr,
    /// The host's device that it is plugged into, of kinds that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}
