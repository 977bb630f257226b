//! What a domain is made of. Everything is decided: the hypervisor chooses nothing but how to run CPUs.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use skyloom_model::{DiskFormat, MacAddr, Name, NicKind, ProjectId, ServerId};

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
    /// Disks in device order; the first is booted from.
    pub disks: Vec<DiskSpec>,
    /// NICs in device order.
    pub nics: Vec<NicSpec>,
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
}

/// A NIC of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicSpec {
    /// How it is made.
    pub kind: NicKind,
    /// Its MAC address.
    pub mac: MacAddr,
}
