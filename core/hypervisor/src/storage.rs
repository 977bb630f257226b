//! The HostStorage contract: the disks of one host.
//!
//! Ids, never names, make paths; formats are always named; every verb says *ensure* and can be repeated after a crash.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use skyloom_model::{DiskFormat, ImageId, ServerId};

use crate::{HostVolumes, Result};

/// Tells (bytes done, bytes in all, 0 if not known).
pub type ProgressFn = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// The disks of one host. Its volumes are [`HostVolumes`].
#[async_trait]
pub trait HostStorage: HostVolumes + Send + Sync + Debug + 'static {
    /// The image in the host's cache, if it is there whole.
    async fn cached_image(&self, image: &ImageSpec) -> Result<Option<CachedImage>>;

    /// Ensures that the image is in the cache: writes `content` to a temporary file, checks size, SHA-256 and, by our
    /// own inspector, that it is what `image` says, then renames it into place. Nothing is left behind on failure.
    async fn cache_image(
        &self,
        image: &ImageSpec,
        content: BoxStream<'static, std::io::Result<bytes::Bytes>>,
        progress: ProgressFn,
    ) -> Result<CachedImage>;

    /// Ensures that the server's disk exists as a copy-on-write overlay over a cached image.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Conflict`] when a disk of that name exists with another backing image.
    async fn create_overlay(&self, overlay: &OverlaySpec) -> Result<DiskInfo>;

    /// Ensures that the server's config drive `disk` holds exactly `iso`. The file can be read by the host's owner only.
    /// The name of a config drive is `seed` or ends in `-seed` ([`is_seed`]); no other disk has such a name.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] when the name is another.
    async fn create_seed(&self, server: ServerId, disk: &str, iso: &[u8]) -> Result<DiskInfo>;

    /// Ensures that the disk is gone.
    async fn delete_disk(&self, server: ServerId, disk: &str) -> Result<()>;

    /// Ensures that nothing of the server is left in the pool.
    async fn delete_server(&self, server: ServerId) -> Result<()>;

    /// The disks that the pool holds for the server, in name order.
    async fn disks(&self, server: ServerId) -> Result<Vec<DiskInfo>>;

    /// All servers of which the pool holds anything, in id order.
    async fn servers(&self) -> Result<Vec<ServerId>>;
}

/// An image as a host needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSpec {
    /// Which image.
    pub id: ImageId,
    /// SHA-256 of the file in lower-case hex: the name in the cache.
    pub sha256: String,
    /// Its format.
    pub format: DiskFormat,
    /// Bytes of the file.
    pub size_bytes: u64,
}

/// An image in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedImage {
    /// Where.
    pub path: PathBuf,
    /// Its format.
    pub format: DiskFormat,
}

/// An overlay to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlaySpec {
    /// Whose disk.
    pub server: ServerId,
    /// Its name, such as `root`.
    pub disk: String,
    /// The image below it.
    pub base: ImageSpec,
    /// Its virtual size in bytes; not smaller than the image's.
    pub size_bytes: u64,
}

/// A disk in the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskInfo {
    /// Its name.
    pub name: String,
    /// Where.
    pub path: PathBuf,
    /// Its format.
    pub format: DiskFormat,
    /// Format of the file below it.
    pub backing_format: Option<DiskFormat>,
}

/// Whether a disk of this name is a config drive: made anew at will, read-only for the guest.
#[must_use]
pub fn is_seed(disk: &str) -> bool {
    disk == "seed" || disk.ends_with("-seed")
}
