//! What callers ask for of volumes and snapshots, and what they are answered. Unknown fields are refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skyloom_model::{DiskFormat, IoLimits, ServerId, Snapshot, SnapshotId, Task, Volume, VolumeId};

/// Makes a volume: of zeroes, or as a copy of an image, of a disk in a snapshot, or of another volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateVolume {
    /// Display name.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "data", min_length = 1, max_length = 255)
    )]
    pub name: String,
    /// Size in GiB, 1 to 65536; by default as large as what it is a copy of.
    #[cfg_attr(feature = "openapi", schema(example = 10, minimum = 1, maximum = 65_536))]
    pub size_gib: Option<u64>,
    /// Format of its file; by default `qcow2`. Raw volumes take no snapshots.
    pub format: Option<DiskFormat>,
    /// Id or name of the image that it is a copy of.
    pub image: Option<String>,
    /// The volume that it is a copy of. No server may have it.
    pub volume: Option<VolumeId>,
    /// The snapshot of which it is a copy of one disk.
    pub snapshot: Option<SnapshotId>,
    /// Which disk of the snapshot; by default its first.
    #[cfg_attr(feature = "openapi", schema(example = "root"))]
    pub disk: Option<String>,
    /// Name of the shared pool that it lives in; by default it lives on one host.
    #[cfg_attr(feature = "openapi", schema(example = "fast"))]
    pub pool: Option<String>,
    /// The server beside which it is made, so that it can be attached to it.
    pub server: Option<ServerId>,
    /// What it may do, at most.
    pub limits: Option<IoLimits>,
    /// Free text, at most 1024 bytes.
    #[cfg_attr(feature = "openapi", schema(max_length = 1024))]
    pub description: String,
    /// Free marks.
    pub labels: BTreeMap<String, String>,
}

/// A volume of a new server: one that is there, or one that is made with the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerVolume {
    /// A volume that is there; nothing else is said of what is made then.
    pub volume: Option<VolumeId>,
    /// Name of the new volume; by default the server's, with a number.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "data", min_length = 1, max_length = 255)
    )]
    pub name: Option<String>,
    /// Size of the new volume in GiB, 1 to 65536; by default as large as what it is a copy of.
    #[cfg_attr(feature = "openapi", schema(example = 10, minimum = 1, maximum = 65_536))]
    pub size_gib: Option<u64>,
    /// Format of its file; by default `qcow2`.
    pub format: Option<DiskFormat>,
    /// Id or name of the image that it is a copy of.
    pub image: Option<String>,
    /// The snapshot of which it is a copy of one disk.
    pub snapshot: Option<SnapshotId>,
    /// Which disk of the snapshot; by default its first.
    #[cfg_attr(feature = "openapi", schema(example = "root"))]
    pub disk: Option<String>,
    /// Name of the shared pool that it lives in; by default it lives on the server's host.
    #[cfg_attr(feature = "openapi", schema(example = "fast"))]
    pub pool: Option<String>,
    /// Whether the volume is deleted with the server; by default it is kept.
    pub delete_with_server: bool,
    /// Whether the server boots from it, instead of a root disk of its own. At most one.
    pub boot: bool,
}

/// Makes a volume larger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GrowVolume {
    /// Its new size in GiB: more than now.
    #[cfg_attr(feature = "openapi", schema(example = 20, minimum = 1, maximum = 65_536))]
    pub size_gib: u64,
}

/// Gives a volume to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttachVolume {
    /// Which server.
    pub server: ServerId,
    /// Whether the volume is deleted with the server; by default it is kept.
    #[serde(default)]
    pub delete_with_server: bool,
}

/// What a volume may do, at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LimitVolume {
    /// The limits; none lifts them.
    #[serde(default)]
    pub limits: Option<IoLimits>,
}

/// Takes a snapshot of all disks of a server, or of one volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateSnapshot {
    /// Display name.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "before-upgrade", min_length = 1, max_length = 255)
    )]
    pub name: String,
    /// The server; its disks stand still at the same moment.
    pub server: Option<ServerId>,
    /// With the guest's memory; only of a server that runs.
    pub memory: bool,
    /// The volume, instead of a server.
    pub volume: Option<VolumeId>,
    /// Free text, at most 1024 bytes.
    #[cfg_attr(feature = "openapi", schema(max_length = 1024))]
    pub description: String,
    /// Free marks.
    pub labels: BTreeMap<String, String>,
}

/// A volume, and the task that changes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VolumeTask {
    /// As it is now.
    pub volume: Volume,
    /// What was begun.
    pub task: Task,
}

/// A snapshot, and the task that changes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SnapshotTask {
    /// As it is now.
    pub snapshot: Snapshot,
    /// What was begun.
    pub task: Task,
}
