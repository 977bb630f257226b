//! The HostVolumes contract: disks that outlive servers, in the host's own pool or in one that several hosts see.
//!
//! ```text
//!  create_volume(order) ──> temporary file, filled ── rename ──> volumes/{id}.{format}
//!  take/revert/forget   ──> a snapshot inside of the file: of a volume that no guest has open
//! ```
//!
//! A volume's format stands in its file's name and in its record: nobody ever looks into a file to find out. A volume that
//! a running guest has open is changed through the hypervisor ([`Hotplug`](crate::Hotplug),
//! [`Snapshots`](crate::Snapshots)); what is named here works on files that are at rest.

use std::fmt::Debug;
use std::path::PathBuf;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use skyloom_model::{DiskFormat, Pool, ServerId, SnapshotId, VolumeId};

use crate::{ImageSpec, Result};

/// The volumes of one host.
#[async_trait]
pub trait HostVolumes: Send + Sync + Debug {
    /// Ensures that the volume exists: whole or not at all. One that is there is left as it is, whatever a guest has
    /// written to it since, and may have grown.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when it is there in another format or smaller than ordered;
    /// [`NotFound`](crate::ErrorKind::NotFound) when what it is to be a copy of is not there, or there is no such pool;
    /// [`Invalid`](crate::ErrorKind::Invalid) when it is to be smaller than that.
    async fn create_volume(&self, order: &VolumeOrder) -> Result<VolumeInfo>;

    /// The volume, if it is there.
    async fn volume(&self, at: &VolumeAt) -> Result<Option<VolumeInfo>>;

    /// The bytes of the volume's file, as many as it has now. Nothing may have it open.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    async fn read_volume(&self, at: &VolumeAt) -> Result<VolumeFile>;

    /// Ensures that the volume has at least `bytes`. Nothing may have it open.
    async fn grow_volume(&self, at: &VolumeAt, bytes: u64) -> Result<VolumeInfo>;

    /// Ensures that the volume is gone, with its snapshots.
    async fn delete_volume(&self, at: &VolumeAt) -> Result<()>;

    /// Everything in the host's own pool and in the shared ones that it sees, own pool first, in id order.
    async fn volumes(&self) -> Result<Vec<VolumeInfo>>;

    /// Ensures that the volume has the snapshot. Nothing may have the volume open.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) when its format keeps none; [`NotFound`](crate::ErrorKind::NotFound).
    async fn snapshot_volume(&self, at: &VolumeAt, snapshot: SnapshotId) -> Result<VolumeSnapshot>;

    /// Makes the volume what it was then, size included. Nothing may have the volume open.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    async fn revert_volume(&self, at: &VolumeAt, snapshot: SnapshotId) -> Result<()>;

    /// Ensures that the volume has no such snapshot. One that is gone itself has none. Nothing may have the volume open.
    async fn forget_volume_snapshot(&self, at: &VolumeAt, snapshot: SnapshotId) -> Result<()>;

    /// The snapshots of a volume, in the order in which they were taken.
    async fn volume_snapshots(&self, at: &VolumeAt) -> Result<Vec<VolumeSnapshot>>;
}

/// Where a volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeAt {
    /// Which.
    pub volume: VolumeId,
    /// In which pool.
    pub pool: Pool,
}

/// A disk of which something is copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "of")]
pub enum DiskAt {
    /// A server's own.
    Server {
        /// Whose.
        server: ServerId,
        /// Its name.
        disk: String,
    },
    /// A volume.
    Volume(VolumeAt),
}

/// A volume to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeOrder {
    /// Which, and where.
    pub at: VolumeAt,
    /// The format of its file.
    pub format: DiskFormat,
    /// Its virtual size in bytes: whole sectors, and not smaller than what it is a copy of.
    pub size_bytes: u64,
    /// What it holds at first.
    pub content: VolumeContent,
}

/// What a new volume holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum VolumeContent {
    /// Zeroes.
    Zeroes,
    /// A copy of an image in the host's cache.
    Image {
        /// Which.
        image: ImageSpec,
    },
    /// A copy of a disk as it was in a snapshot, or as it is when nothing has it open.
    Disk {
        /// Which.
        disk: DiskAt,
        /// In which snapshot.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        snapshot: Option<SnapshotId>,
    },
}

/// A volume that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeInfo {
    /// Which, and where.
    pub at: VolumeAt,
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: DiskFormat,
    /// Bytes of the disk that it describes.
    pub size_bytes: u64,
    /// Bytes that the file takes.
    pub allocated_bytes: u64,
}

/// A volume's file to read.
pub struct VolumeFile {
    /// Its bytes.
    pub content: BoxStream<'static, std::io::Result<bytes::Bytes>>,
    /// How many.
    pub size_bytes: u64,
}

impl Debug for VolumeFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VolumeFile")
            .field("size_bytes", &self.size_bytes)
            .finish_non_exhaustive()
    }
}

/// A snapshot that a volume has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSnapshot {
    /// Which.
    pub snapshot: SnapshotId,
    /// Bytes of the disk that it describes.
    pub size_bytes: u64,
}
