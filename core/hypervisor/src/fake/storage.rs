//! The fake pool: content is read, counted and hashed, and then forgotten; disks are records.

use std::path::PathBuf;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use skyloom_model::{DiskFormat, ServerId};

use super::FakeWorld;
use super::history::{Effect, EffectKind};
use super::script::FaultPoint;
use crate::{
    CachedImage, DiskInfo, Error, ErrorKind, HostStorage, ImageSpec, OverlaySpec, ProgressFn, Result,
};

/// The pool of a [`FakeWorld`].
#[derive(Debug)]
pub struct FakeStorage {
    world: FakeWorld,
}

/// A disk's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FakeDisk {
    format: DiskFormat,
    /// SHA-256 of the image below it, or of the whole content if there is none below.
    sha256: String,
    base: Option<DiskFormat>,
}

/// A cached image's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FakeImage {
    format: DiskFormat,
    size_bytes: u64,
    pub(super) effect: Effect,
}

const SEED: &str = "seed";

impl FakeStorage {
    pub(super) fn new(world: FakeWorld) -> Self {
        Self { world }
    }
    /// The host that it belongs to.
    #[must_use]
    pub fn world(&self) -> &FakeWorld {
        &self.world
    }

    /// SHA-256 (lower-case hex) of the server's config drive, if it has one.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn seed_sha256(&self, server: ServerId) -> Result<Option<String>> {
        Ok(self.world.read(server)?.disks.get(SEED).map(|d| d.sha256.clone()))
    }
    /// Everything in the pool by path: images, then disks.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn contents(&self) -> Result<Vec<PathBuf>> {
        let (images, servers) = self
            .world
            .look(|records| Ok((records.keys("images")?, records.keys("servers")?)))?;
        let mut all: Vec<PathBuf> = images.iter().map(|key| self.world.root().join(key)).collect();
        for key in servers {
            let Some(server) = key.rsplit('/').next().and_then(|id| id.parse::<ServerId>().ok()) else {
                continue;
            };
            all.extend(self.infos(server)?.into_iter().map(|d| d.path));
        }
        Ok(all)
    }

    fn info(&self, server: ServerId, name: &str, disk: &FakeDisk) -> DiskInfo {
        let path = self
            .world
            .root()
            .join("disks")
            .join(server.to_string())
            .join(name);
        DiskInfo {
            name: name.to_owned(),
            path,
            format: disk.format,
            backing_format: disk.base,
        }
    }
    fn infos(&self, server: ServerId) -> Result<Vec<DiskInfo>> {
        Ok(self
            .world
            .read(server)?
            .disks
            .iter()
            .map(|(name, disk)| self.info(server, name, disk))
            .collect())
    }
    fn image(&self, image: &ImageSpec) -> Result<Option<CachedImage>> {
        let key = image_key(image)?;
        let held = self.world.look(|records| records.get::<FakeImage>(&key))?;
        Ok(held.map(|i| CachedImage {
            path: self.world.root().join(key),
            format: i.format,
        }))
    }
}

/// The image's key; a digest that is none is refused, as it would make a path.
fn image_key(image: &ImageSpec) -> Result<String> {
    let digest = &image.sha256;
    let hex = digest.len() == 64
        && digest
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if hex {
        Ok(format!("images/{digest}"))
    } else {
        Err(Error::new(ErrorKind::Invalid, "name image").with("sha256", format!("{digest:?}")))
    }
}

/// Disk names make paths: letters, digits and `-` only.
fn check_disk_name(name: &str, point: FaultPoint) -> Result<()> {
    let good = !name.is_empty()
        && name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if good {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::Invalid, point.operation()).with("disk", format!("{name:?}")))
    }
}

/// Lower-case hex.
fn hex(digest: &[u8]) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

#[async_trait]
impl HostStorage for FakeStorage {
    async fn cached_image(&self, image: &ImageSpec) -> Result<Option<CachedImage>> {
        let after = self.world.enter(FaultPoint::CachedImage, None).await?;
        self.world
            .leave(after, FaultPoint::CachedImage, self.image(image)?)
            .await
    }

    async fn cache_image(
        &self,
        image: &ImageSpec,
        mut content: BoxStream<'static, std::io::Result<bytes::Bytes>>,
        progress: ProgressFn,
    ) -> Result<CachedImage> {
        let point = FaultPoint::CacheImage;
        let after = self.world.enter(point, None).await?;
        if let Some(cached) = self.image(image)? {
            return self.world.leave(after, point, cached).await;
        }
        let (mut size, mut digest) = (0_u64, Sha256::new());
        while let Some(chunk) = content.next().await {
            let chunk =
                chunk.map_err(|e| Error::new(ErrorKind::Unavailable, "read image content").because(e))?;
            size += chunk.len() as u64;
            if size > image.size_bytes {
                break;
            }
            digest.update(&chunk);
            progress(size, image.size_bytes);
        }
        let refused = |what: &'static str, want: &dyn std::fmt::Display, have: &dyn std::fmt::Display| {
            Err(Error::new(ErrorKind::Invalid, point.operation())
                .with("image", image.id)
                .with("wrong", what)
                .with("want", want)
                .with("have", have))
        };
        if size != image.size_bytes {
            return refused("size", &image.size_bytes, &size);
        }
        let sha256 = hex(&digest.finalize());
        if sha256 != image.sha256 {
            return refused("sha256", &image.sha256, &sha256);
        }
        let key = image_key(image)?;
        self.world.put(&key, |at| {
            let effect = Effect {
                at,
                server: None,
                generation: 0,
                kind: EffectKind::ImageCached { sha256 },
            };
            FakeImage {
                format: image.format,
                size_bytes: size,
                effect,
            }
        })?;
        let cached = CachedImage {
            path: self.world.root().join(key),
            format: image.format,
        };
        self.world.leave(after, point, cached).await
    }

    async fn create_overlay(&self, overlay: &OverlaySpec) -> Result<DiskInfo> {
        let point = FaultPoint::CreateOverlay;
        let after = self.world.enter(point, Some(overlay.server)).await?;
        check_disk_name(&overlay.disk, point)?;
        let Some(base) = self.image(&overlay.base)? else {
            return Err(Error::new(ErrorKind::NotFound, point.operation()).with("image", overlay.base.id));
        };
        if overlay.base.format == DiskFormat::Raw && overlay.size_bytes < overlay.base.size_bytes {
            return Err(Error::new(ErrorKind::Invalid, point.operation()).with("size", overlay.size_bytes));
        }
        let disk = FakeDisk {
            format: DiskFormat::Qcow2,
            sha256: overlay.base.sha256.clone(),
            base: Some(base.format),
        };
        let info = self.info(overlay.server, &overlay.disk, &disk);
        self.world
            .book(overlay.server, |book, note| match book.disks.get(&overlay.disk) {
                Some(there) if *there == disk => Ok(()),
                Some(there) => Err(Error::new(ErrorKind::Conflict, point.operation())
                    .with("server", overlay.server)
                    .with("disk", &overlay.disk)
                    .with("want base", &disk.sha256)
                    .with("have base", &there.sha256)),
                None => {
                    book.disks.insert(overlay.disk.clone(), disk);
                    note.effect(
                        0,
                        EffectKind::DiskCreated {
                            disk: overlay.disk.clone(),
                        },
                    );
                    Ok(())
                }
            })??;
        self.world.leave(after, point, info).await
    }

    async fn create_seed(&self, server: ServerId, iso: &[u8]) -> Result<DiskInfo> {
        let point = FaultPoint::CreateSeed;
        let after = self.world.enter(point, Some(server)).await?;
        let disk = FakeDisk {
            format: DiskFormat::Raw,
            sha256: hex(&Sha256::digest(iso)),
            base: None,
        };
        let info = self.info(server, SEED, &disk);
        self.world.book(server, |book, note| {
            let kind = match book.disks.get(SEED) {
                Some(there) if *there == disk => return,
                Some(_) => EffectKind::SeedReplaced,
                None => EffectKind::DiskCreated {
                    disk: SEED.to_owned(),
                },
            };
            book.disks.insert(SEED.to_owned(), disk);
            note.effect(0, kind);
        })?;
        self.world.leave(after, point, info).await
    }

    async fn delete_disk(&self, server: ServerId, disk: &str) -> Result<()> {
        let point = FaultPoint::DeleteDisk;
        let after = self.world.enter(point, Some(server)).await?;
        check_disk_name(disk, point)?;
        self.world.book(server, |book, note| {
            if book.disks.remove(disk).is_some() {
                note.effect(
                    0,
                    EffectKind::DiskDeleted {
                        disk: disk.to_owned(),
                    },
                );
            }
        })?;
        self.world.leave(after, point, ()).await
    }

    async fn delete_server(&self, server: ServerId) -> Result<()> {
        let point = FaultPoint::DeleteServer;
        let after = self.world.enter(point, Some(server)).await?;
        self.world.book(server, |book, note| {
            for disk in std::mem::take(&mut book.disks).into_keys() {
                note.effect(0, EffectKind::DiskDeleted { disk });
            }
        })?;
        self.world.leave(after, point, ()).await
    }

    async fn disks(&self, server: ServerId) -> Result<Vec<DiskInfo>> {
        let after = self.world.enter(FaultPoint::Disks, Some(server)).await?;
        self.world
            .leave(after, FaultPoint::Disks, self.infos(server)?)
            .await
    }
}
