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
    CachedImage, DiskInfo, Error, ErrorKind, HostStorage, ImageSpec, OverlaySpec, ProgressFn, Result, is_seed,
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

pub(super) const SEED: &str = "seed";

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
        let ledger = &self.world.0.ledger;
        ledger.read(server, |book| book.disks.get(SEED).map(|d| d.sha256.clone()))
    }
    /// Everything in the pool by path: images, then disks.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn contents(&self) -> Result<Vec<PathBuf>> {
        let ledger = &self.world.0.ledger;
        let images = ledger.images()?;
        let mut all: Vec<PathBuf> = images
            .iter()
            .map(|sha256| self.world.image_path(sha256))
            .collect();
        ledger.each(|server, book| {
            all.extend(book.disks.keys().map(|disk| self.world.disk_path(server, disk)));
        })?;
        let volumes = self.world.shelved()?;
        all.extend(
            volumes
                .iter()
                .map(|(id, held)| self.world.volume_info(*id, held).path),
        );
        Ok(all)
    }
}

impl FakeWorld {
    fn image_path(&self, sha256: &str) -> PathBuf {
        self.0.root.join("images").join(sha256)
    }
    fn disk_path(&self, server: ServerId, disk: &str) -> PathBuf {
        self.0.root.join("disks").join(server.to_string()).join(disk)
    }
    fn disk_info(&self, server: ServerId, name: &str, disk: &FakeDisk) -> DiskInfo {
        DiskInfo {
            name: name.to_owned(),
            path: self.disk_path(server, name),
            format: disk.format,
            backing_format: disk.base,
        }
    }
    /// The image, if it is cached.
    fn image(&self, image: &ImageSpec) -> Result<Option<CachedImage>> {
        check_digest(image)?;
        let held = self.0.ledger.image(&image.sha256)?;
        Ok(held.map(|i| CachedImage {
            path: self.image_path(&image.sha256),
            format: i.format,
        }))
    }
    pub(super) fn no_room(&self) -> Result<bool> {
        self.0.ledger.script(|s| (false, s.pool_full))
    }

    fn keep_image(&self, image: &ImageSpec) -> Result<CachedImage> {
        if let Some(cached) = self.image(image)? {
            return Ok(cached);
        }
        if self.no_room()? {
            return Err(full(FaultPoint::CacheImage));
        }
        self.0.ledger.put_image(&image.sha256, |effect| FakeImage {
            format: image.format,
            size_bytes: image.size_bytes,
            effect,
        })?;
        Ok(CachedImage {
            path: self.image_path(&image.sha256),
            format: image.format,
        })
    }

    fn create_overlay_now(&self, overlay: &OverlaySpec) -> Result<DiskInfo> {
        let point = FaultPoint::CreateOverlay;
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
        let info = self.disk_info(overlay.server, &overlay.disk, &disk);
        let no_room = self.no_room()?;
        self.0.ledger.book(overlay.server, |book, note| {
            match book.disks.get(&overlay.disk) {
                Some(there) if *there == disk => {}
                Some(there) => {
                    return Err(Error::new(ErrorKind::Conflict, point.operation())
                        .with("server", overlay.server)
                        .with("disk", &overlay.disk)
                        .with("want base", &disk.sha256)
                        .with("have base", &there.sha256));
                }
                None if no_room => return Err(full(point)),
                None => {
                    book.disks.insert(overlay.disk.clone(), disk);
                    let disk = overlay.disk.clone();
                    note.effect(0, EffectKind::DiskCreated { disk });
                }
            }
            Ok(())
        })??;
        Ok(info)
    }

    fn create_seed_now(&self, server: ServerId, name: &str, disk: &FakeDisk) -> Result<DiskInfo> {
        let no_room = self.no_room()?;
        self.0.ledger.book(server, |book, note| {
            let kind = match book.disks.get(name) {
                Some(there) if there == disk => return Ok(()),
                _ if no_room => return Err(full(FaultPoint::CreateSeed)),
                Some(_) => EffectKind::SeedReplaced,
                None => EffectKind::DiskCreated {
                    disk: name.to_owned(),
                },
            };
            book.disks.insert(name.to_owned(), disk.clone());
            note.effect(0, kind);
            Ok(())
        })??;
        Ok(self.disk_info(server, name, disk))
    }

    fn delete_disk_now(&self, server: ServerId, disk: &str) -> Result<()> {
        self.0.ledger.book(server, |book, note| {
            if let Some((disk, _)) = book.disks.remove_entry(disk) {
                note.effect(0, EffectKind::DiskDeleted { disk });
            }
        })
    }

    fn delete_server_now(&self, server: ServerId) -> Result<()> {
        self.0.ledger.book(server, |book, note| {
            for disk in std::mem::take(&mut book.disks).into_keys() {
                note.effect(0, EffectKind::DiskDeleted { disk });
            }
        })
    }
}

fn full(point: FaultPoint) -> Error {
    Error::new(ErrorKind::Full, point.operation()).with("fake", "the pool is full")
}

/// A digest that is none is refused, as it would make a path.
fn check_digest(image: &ImageSpec) -> Result<()> {
    let digest = &image.sha256;
    let hex = digest.len() == 64
        && digest
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if hex {
        Ok(())
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
    let digits = digest.iter().flat_map(|b| [b >> 4, b & 15]);
    digits
        .filter_map(|d| char::from_digit(u32::from(d), 16))
        .collect()
}

/// Reads the content, which must be what was promised.
async fn check_content(
    image: &ImageSpec,
    mut content: BoxStream<'static, std::io::Result<bytes::Bytes>>,
    progress: ProgressFn,
) -> Result<()> {
    let (mut size, mut digest) = (0_u64, Sha256::new());
    while let Some(chunk) = content.next().await {
        let chunk = chunk.map_err(|e| Error::new(ErrorKind::Unavailable, "read image content").because(e))?;
        size += chunk.len() as u64;
        if size > image.size_bytes {
            break;
        }
        digest.update(&chunk);
        progress(size, image.size_bytes);
    }
    let refused = |what: &'static str, want: &dyn std::fmt::Display, have: &dyn std::fmt::Display| {
        Err(Error::new(ErrorKind::Invalid, FaultPoint::CacheImage.operation())
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
    Ok(())
}

#[async_trait]
impl HostStorage for FakeStorage {
    async fn cached_image(&self, image: &ImageSpec) -> Result<Option<CachedImage>> {
        let point = FaultPoint::CachedImage;
        self.world.look(point, None, |w| w.image(image)).await
    }

    async fn cache_image(
        &self,
        image: &ImageSpec,
        content: BoxStream<'static, std::io::Result<bytes::Bytes>>,
        progress: ProgressFn,
    ) -> Result<CachedImage> {
        let passage = self.world.enter(FaultPoint::CacheImage, None).await?;
        if self.world.image(image)?.is_none() {
            check_content(image, content, progress).await?;
        }
        let image = image.clone();
        let keep = move |w: &FakeWorld, _| w.keep_image(&image);
        let cached = self.world.carry_out(&passage, keep).await?;
        self.world.leave(passage, cached).await
    }

    async fn create_overlay(&self, overlay: &OverlaySpec) -> Result<DiskInfo> {
        let (point, wanted) = (FaultPoint::CreateOverlay, overlay.clone());
        let create = move |w: &FakeWorld, _| w.create_overlay_now(&wanted);
        self.world.perform(point, Some(overlay.server), create).await
    }

    async fn create_seed(&self, server: ServerId, disk: &str, iso: &[u8]) -> Result<DiskInfo> {
        let name = disk.to_owned();
        check_disk_name(&name, FaultPoint::CreateSeed)?;
        if !is_seed(&name) {
            return Err(Error::new(ErrorKind::Invalid, FaultPoint::CreateSeed.operation()).with("disk", name));
        }
        let disk = FakeDisk {
            format: DiskFormat::Raw,
            sha256: hex(&Sha256::digest(iso)),
            base: None,
        };
        let create = move |w: &FakeWorld, _| w.create_seed_now(server, &name, &disk);
        self.world
            .perform(FaultPoint::CreateSeed, Some(server), create)
            .await
    }

    async fn delete_disk(&self, server: ServerId, disk: &str) -> Result<()> {
        let (point, disk) = (FaultPoint::DeleteDisk, disk.to_owned());
        check_disk_name(&disk, point)?;
        let delete = move |w: &FakeWorld, _| w.delete_disk_now(server, &disk);
        self.world.perform(point, Some(server), delete).await
    }

    async fn delete_server(&self, server: ServerId) -> Result<()> {
        let delete = move |w: &FakeWorld, _| w.delete_server_now(server);
        self.world
            .perform(FaultPoint::DeleteServer, Some(server), delete)
            .await
    }

    async fn disks(&self, server: ServerId) -> Result<Vec<DiskInfo>> {
        let infos = |w: &FakeWorld| {
            w.0.ledger.read(server, |book| {
                let disks = book.disks.iter();
                disks
                    .map(|(name, disk)| w.disk_info(server, name, disk))
                    .collect()
            })
        };
        self.world.look(FaultPoint::Disks, Some(server), infos).await
    }

    async fn servers(&self) -> Result<Vec<ServerId>> {
        let servers = |w: &FakeWorld| {
            let mut all = Vec::new();
            w.0.ledger.each(|id, book| {
                if !book.disks.is_empty() {
                    all.push(id);
                }
            })?;
            Ok(all)
        };
        self.world.look(FaultPoint::Servers, None, servers).await
    }
}
