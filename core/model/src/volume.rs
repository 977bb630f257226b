//! Disks that outlive servers, and what was kept of a moment.
//!
//! A volume lives in a pool: of one host (`Pool::Local`), or of a directory that many hosts see (`Pool::Shared`). Its file
//! is named by its id. A snapshot's record comes into the world in the commit that makes its task; its state and sizes
//! are what the host last confirmed.

use serde::{Deserialize, Serialize};

use crate::{
    Activity, DiskFormat, HostId, HostLedger, ImageRef, Meta, Name, Reason, Resource, ServerId, SnapshotId,
    Timestamp, VolumeId,
};

/// A disk of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Volume {
    /// Identity.
    pub meta: Meta,
    /// What is wanted.
    pub spec: VolumeSpec,
    /// What is.
    pub status: VolumeStatus,
}

/// What is wanted of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VolumeSpec {
    /// Size in GiB. Grows, never shrinks.
    pub size_gib: u64,
    /// Format of its file.
    pub format: DiskFormat,
    /// What it holds at first.
    pub source: VolumeSource,
    /// Where it lives.
    pub pool: Pool,
    /// Whether a server can boot from it.
    pub bootable: bool,
    /// Whose system is on it, where that is known, through however many copies: what a server needs to boot from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemOf>,
    /// What it may do, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<IoLimits>,
    /// Text of its owner.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// The image that a volume's system came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SystemOf {
    /// Which image.
    pub image: ImageRef,
    /// Its CPU architecture.
    pub architecture: String,
}

/// What a volume holds at first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum VolumeSource {
    /// Zeroes.
    Blank,
    /// A copy of an image.
    Image {
        /// Which.
        image: ImageRef,
    },
    /// A copy of one disk of a snapshot.
    Snapshot {
        /// Which.
        snapshot: SnapshotId,
        /// Name of the disk in it.
        disk: String,
    },
    /// A copy of another volume.
    Volume {
        /// Which.
        volume: VolumeId,
    },
}

/// Where disks live.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Pool {
    /// A directory of one host.
    Local,
    /// A directory that many hosts see under one name.
    Shared {
        /// Its name.
        name: Name,
    },
}

/// What a disk may do, at most, each second. Nothing said: as much as it can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IoLimits {
    /// Reads and writes together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<u64>,
    /// Bytes read and written together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// How far a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum VolumeState {
    /// Being made.
    Creating,
    /// Usable, attached to no server.
    Available,
    /// Attached to a server, or being attached or detached: see `activity`.
    InUse,
    /// Making or removing it failed; see `status.fault`.
    Error,
    /// Being removed.
    Deleting,
}

impl VolumeState {
    /// All values.
    pub const ALL: [Self; 5] = [
        Self::Creating,
        Self::Available,
        Self::InUse,
        Self::Error,
        Self::Deleting,
    ];
    /// Whether it stays like this without a task under way.
    #[must_use]
    pub const fn steady(self) -> bool {
        match self {
            Self::Available | Self::InUse | Self::Error => true,
            Self::Creating | Self::Deleting => false,
        }
    }
}

/// What is known of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VolumeStatus {
    /// How far it is.
    pub state: VolumeState,
    /// The task under way, if any. At most one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<Activity>,
    /// The host that has it; none while nobody has chosen one. Of a shared pool: the one that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostId>,
    /// GiB of the host's disk that its ledger counts for it; nothing in a shared pool.
    #[serde(default)]
    pub reserved_gib: u64,
    /// Which server has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<Attachment>,
    /// Bytes that its file takes, as last measured.
    #[serde(default)]
    pub allocated_bytes: u64,
    /// Why it is in error, or why the last thing asked of it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Reason>,
}

impl VolumeStatus {
    /// Of a volume that is to be made.
    #[must_use]
    pub const fn creating() -> Self {
        Self {
            state: VolumeState::Creating,
            activity: None,
            host: None,
            reserved_gib: 0,
            attachment: None,
            allocated_bytes: 0,
            fault: None,
        }
    }
}

/// A volume's place in a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Attachment {
    /// Which server.
    pub server: ServerId,
    /// Name of the disk in it, also the serial number that the guest sees.
    pub disk: String,
    /// Since when.
    pub at: Timestamp,
    /// Whether the volume ends with the server.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delete_with_server: bool,
}

/// The name of a volume's disk in a server: what the guest sees as its serial number. 16 characters.
#[must_use]
pub fn disk_of(volume: VolumeId) -> String {
    format!("vol-{}", &volume.uuid().simple().to_string()[20..])
}

/// The state of disks at one moment, and of memory where it was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Snapshot {
    /// Identity.
    pub meta: Meta,
    /// What is wanted.
    pub spec: SnapshotSpec,
    /// What is.
    pub status: SnapshotStatus,
}

/// What is wanted of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SnapshotSpec {
    /// Of what.
    pub of: SnapshotOf,
    /// Text of its owner.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// Of what a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SnapshotOf {
    /// All disks of a server that the guest may write to, at the same moment.
    Server {
        /// Which.
        server: ServerId,
        /// With the guest's memory: reverting goes on from there.
        memory: bool,
    },
    /// One volume.
    Volume {
        /// Which.
        volume: VolumeId,
    },
}

/// How far a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SnapshotState {
    /// Being taken.
    Creating,
    /// Usable.
    Available,
    /// Taking or removing it failed; see `status.fault`.
    Error,
    /// Being removed.
    Deleting,
}

impl SnapshotState {
    /// All values.
    pub const ALL: [Self; 4] = [Self::Creating, Self::Available, Self::Error, Self::Deleting];
    /// Whether it stays like this without a task under way.
    #[must_use]
    pub const fn steady(self) -> bool {
        match self {
            Self::Available | Self::Error => true,
            Self::Creating | Self::Deleting => false,
        }
    }
}

/// What is known of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SnapshotStatus {
    /// How far it is.
    pub state: SnapshotState,
    /// The task under way, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<Activity>,
    /// Its disks, as the host confirmed them.
    #[serde(default)]
    pub disks: Vec<SnapshotDisk>,
    /// Bytes of memory that it keeps.
    #[serde(default)]
    pub memory_bytes: u64,
    /// When the disks stood still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_at: Option<Timestamp>,
    /// Why it is in error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Reason>,
}

/// A disk of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SnapshotDisk {
    /// Its name in the server.
    pub name: String,
    /// The volume, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeId>,
    /// Bytes of the disk that it describes.
    pub virtual_size_bytes: u64,
}

impl HostLedger {
    /// The ledger with so many GiB more for volumes.
    #[must_use]
    pub fn with_volumes(&self, gib: u64) -> Self {
        let mut after = self.clone();
        after.used.disk_gib = after.used.disk_gib.saturating_add(gib);
        after.volume_gib = after.volume_gib.saturating_add(gib);
        after
    }

    /// The ledger with so many GiB less for volumes, which must have been in it.
    #[must_use]
    pub fn without_volumes(&self, gib: u64) -> Self {
        let mut after = self.clone();
        after.used.disk_gib = after.used.disk_gib.saturating_sub(gib);
        after.volume_gib = after.volume_gib.saturating_sub(gib);
        after
    }
}

impl Resource for Volume {
    const KIND: &'static str = "volumes";
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut Meta {
        &mut self.meta
    }
}

impl Resource for Snapshot {
    const KIND: &'static str = "snapshots";
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut Meta {
        &mut self.meta
    }
}
