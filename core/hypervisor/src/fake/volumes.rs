//! The fake pool's volumes: records of what they would hold.
//!
//! A volume's book lies among the servers' under the volume's own id, in the host's ledger or in that of the world that
//! stands for a shared pool; faults, steps and late verbs are this host's in either case.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use skyloom_model::{DiskFormat, Name, Pool, ServerId, SnapshotId, VolumeId};

use super::history::EffectKind;
use super::script::FaultPoint;
use super::{FakeStorage, FakeWorld, qcow2};
use crate::{
    DiskAt, Error, ErrorKind, HostVolumes, Result, VolumeAt, VolumeContent, VolumeFile, VolumeInfo,
    VolumeOrder, VolumeSnapshot,
};

/// A volume's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FakeVolume {
    /// Where it is.
    pub pool: Pool,
    /// Format of its file.
    pub format: DiskFormat,
    /// Bytes of the disk.
    pub size_bytes: u64,
    /// What it holds: what it was made of, or what [`FakeWorld::write_volume`] told.
    pub content: String,
    /// Its snapshots, in order, with size and content.
    pub snapshots: Vec<(SnapshotId, u64, String)>,
}

/// What a volume of zeroes holds.
const ZEROES: &str = "zeroes";

/// Under which id a volume's book lies.
fn shelf(volume: VolumeId) -> ServerId {
    ServerId::from_uuid(volume.uuid())
}

fn missing(point: FaultPoint, at: &VolumeAt) -> Error {
    Error::new(ErrorKind::NotFound, point.operation()).with("volume", at.volume)
}

impl FakeWorld {
    /// The world that holds a pool.
    fn pool(&self, point: FaultPoint, pool: &Pool) -> Result<&Self> {
        match pool {
            Pool::Local => Ok(self),
            Pool::Shared { name } => self.0.shared.get(name).ok_or_else(|| {
                Error::new(ErrorKind::NotFound, point.operation()).with("pool", name.as_str())
            }),
        }
    }

    pub(super) fn volume_info(&self, volume: VolumeId, held: &FakeVolume) -> VolumeInfo {
        let file = format!("{volume}.{}", held.format.as_str());
        let path: PathBuf = match &held.pool {
            Pool::Local => self.0.root.join("volumes").join(file),
            Pool::Shared { name } => PathBuf::from("/fake-pools").join(name.as_str()).join(file),
        };
        VolumeInfo {
            at: VolumeAt {
                volume,
                pool: held.pool.clone(),
            },
            path,
            format: held.format,
            size_bytes: held.size_bytes,
            allocated_bytes: if held.content == ZEROES {
                0
            } else {
                held.size_bytes
            },
        }
    }

    fn held(&self, point: FaultPoint, at: &VolumeAt) -> Result<Option<FakeVolume>> {
        let ledger = &self.pool(point, &at.pool)?.0.ledger;
        ledger.read(shelf(at.volume), |book| book.volume.clone())
    }

    /// What a guest would have written to a volume: it holds `content` from now on.
    ///
    /// # Errors
    /// When the ledger cannot be used, or there is no such volume.
    pub fn write_volume(&self, at: &VolumeAt, content: &str) -> Result<()> {
        self.with_volume(FaultPoint::LookVolume, at, |held| {
            content.clone_into(&mut held.content);
            Ok(((), Some(None)))
        })
    }

    /// A volume's record.
    ///
    /// # Errors
    /// When the ledger cannot be used, or there is no such pool.
    pub fn fake_volume(&self, at: &VolumeAt) -> Result<Option<FakeVolume>> {
        self.held(FaultPoint::LookVolume, at)
    }

    /// Changes a volume that is there. `change` says what it did, if anything is to be written.
    fn with_volume<T>(
        &self,
        point: FaultPoint,
        at: &VolumeAt,
        change: impl FnOnce(&mut FakeVolume) -> Result<(T, Option<Option<EffectKind>>)>,
    ) -> Result<T> {
        let ledger = &self.pool(point, &at.pool)?.0.ledger;
        ledger.book(shelf(at.volume), |book, note| {
            let held = book.volume.as_mut().ok_or_else(|| missing(point, at))?;
            let (done, wrote) = change(held)?;
            if let Some(effect) = wrote {
                note.changed = true;
                if let Some(effect) = effect {
                    note.effect(0, effect);
                }
            }
            Ok(done)
        })?
    }

    /// What a copy would hold, and the bytes of what is copied.
    fn copied(&self, point: FaultPoint, content: &VolumeContent) -> Result<(String, u64)> {
        match content {
            VolumeContent::Zeroes => Ok((ZEROES.to_owned(), 0)),
            VolumeContent::Image { image } => match self.0.ledger.image(&image.sha256)? {
                Some(_) => Ok((format!("image {}", image.sha256), 0)),
                None => Err(Error::new(ErrorKind::NotFound, point.operation()).with("image", image.id)),
            },
            VolumeContent::Disk {
                disk: DiskAt::Volume(at),
                snapshot,
            } => {
                let held = self.held(point, at)?.ok_or_else(|| missing(point, at))?;
                match snapshot {
                    None => Ok((held.content, held.size_bytes)),
                    Some(wanted) => held
                        .snapshots
                        .into_iter()
                        .find(|(id, ..)| id == wanted)
                        .map(|(_, size, content)| (content, size))
                        .ok_or_else(|| missing(point, at).with("snapshot", wanted)),
                }
            }
            VolumeContent::Disk {
                disk: DiskAt::Server { server, disk },
                snapshot,
            } => {
                let there = self
                    .0
                    .ledger
                    .read(*server, |book| book.disks.contains_key(disk))?;
                if !there {
                    return Err(Error::new(ErrorKind::NotFound, point.operation())
                        .with("server", server)
                        .with("disk", disk));
                }
                let moment = snapshot.map(|s| s.to_string()).unwrap_or_default();
                Ok((format!("disk {server} {disk} {moment}"), 0))
            }
        }
    }

    fn create_volume_now(&self, order: &VolumeOrder) -> Result<VolumeInfo> {
        let point = FaultPoint::CreateVolume;
        let home = self.pool(point, &order.at.pool)?;
        let error = |kind| Error::new(kind, point.operation()).with("volume", order.at.volume);
        if let Some(there) = self.held(point, &order.at)? {
            if there.format != order.format || there.size_bytes < order.size_bytes {
                return Err(error(ErrorKind::Conflict).with("there", format!("{there:?}")));
            }
            return Ok(self.volume_info(order.at.volume, &there));
        }
        let (content, least) = self.copied(point, &order.content)?;
        if !order.size_bytes.is_multiple_of(512) || order.size_bytes < least {
            return Err(error(ErrorKind::Invalid).with("size", order.size_bytes));
        }
        if self.0.ledger.script(|s| (false, s.pool_full))? {
            return Err(error(ErrorKind::Full).with("fake", "the pool is full"));
        }
        let made = FakeVolume {
            pool: order.at.pool.clone(),
            format: order.format,
            size_bytes: order.size_bytes,
            content,
            snapshots: Vec::new(),
        };
        let info = self.volume_info(order.at.volume, &made);
        home.0.ledger.book(shelf(order.at.volume), |book, note| {
            book.volume = Some(made);
            note.effect(0, EffectKind::VolumeCreated);
        })?;
        Ok(info)
    }

    fn delete_volume_now(&self, at: &VolumeAt) -> Result<()> {
        let ledger = &self.pool(FaultPoint::DeleteVolume, &at.pool)?.0.ledger;
        ledger.book(shelf(at.volume), |book, note| {
            if book.volume.take().is_some() {
                note.effect(0, EffectKind::VolumeDeleted);
            }
        })
    }

    fn snapshot_volume_now(&self, at: &VolumeAt, snapshot: SnapshotId) -> Result<VolumeSnapshot> {
        let point = FaultPoint::SnapshotVolume;
        self.with_volume(point, at, |held| {
            if held.format == DiskFormat::Raw {
                return Err(Error::new(ErrorKind::Unsupported, point.operation()).with("volume", at.volume));
            }
            if let Some((_, size_bytes, _)) = held.snapshots.iter().find(|(id, ..)| *id == snapshot) {
                let size_bytes = *size_bytes;
                return Ok((VolumeSnapshot { snapshot, size_bytes }, None));
            }
            let size_bytes = held.size_bytes;
            held.snapshots.push((snapshot, size_bytes, held.content.clone()));
            let effect = EffectKind::VolumeSnapshotTaken { snapshot };
            Ok((VolumeSnapshot { snapshot, size_bytes }, Some(Some(effect))))
        })
    }

    fn revert_volume_now(&self, at: &VolumeAt, snapshot: SnapshotId) -> Result<()> {
        let point = FaultPoint::RevertVolume;
        self.with_volume(point, at, |held| {
            let kept = held.snapshots.iter().find(|(id, ..)| *id == snapshot).cloned();
            let (_, size, content) = kept.ok_or_else(|| missing(point, at).with("snapshot", snapshot))?;
            (held.size_bytes, held.content) = (size, content);
            Ok(((), Some(Some(EffectKind::VolumeReverted { snapshot }))))
        })
    }

    fn forget_volume_snapshot_now(&self, at: &VolumeAt, snapshot: SnapshotId) -> Result<()> {
        let point = FaultPoint::ForgetVolumeSnapshot;
        let done = self.with_volume(point, at, |held| {
            let before = held.snapshots.len();
            held.snapshots.retain(|(id, ..)| *id != snapshot);
            let gone = held.snapshots.len() < before;
            Ok((
                (),
                gone.then_some(Some(EffectKind::VolumeSnapshotForgotten { snapshot })),
            ))
        });
        match done {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// The volumes of one world, in id order.
    pub(super) fn shelved(&self) -> Result<BTreeMap<VolumeId, FakeVolume>> {
        let mut all = BTreeMap::new();
        self.0.ledger.each(|id, book| {
            if let Some(held) = &book.volume {
                all.insert(VolumeId::from_uuid(id.uuid()), held.clone());
            }
        })?;
        Ok(all)
    }
}

#[async_trait]
impl HostVolumes for FakeStorage {
    async fn create_volume(&self, order: &VolumeOrder) -> Result<VolumeInfo> {
        let (on, order) = (Some(shelf(order.at.volume)), order.clone());
        let create = move |w: &FakeWorld, _| w.create_volume_now(&order);
        self.world().perform(FaultPoint::CreateVolume, on, create).await
    }

    async fn volume(&self, at: &VolumeAt) -> Result<Option<VolumeInfo>> {
        let (point, on) = (FaultPoint::LookVolume, Some(shelf(at.volume)));
        let look = |w: &FakeWorld| Ok(w.held(point, at)?.map(|held| w.volume_info(at.volume, &held)));
        self.world().look(point, on, look).await
    }

    /// What it holds, in whole sectors, or in a file of its format.
    async fn read_volume(&self, at: &VolumeAt) -> Result<VolumeFile> {
        let (point, on) = (FaultPoint::LookVolume, Some(shelf(at.volume)));
        let look = |w: &FakeWorld| w.held(point, at)?.ok_or_else(|| missing(point, at));
        let held = self.world().look(point, on, look).await?;
        let mut bytes = held.content.into_bytes();
        if held.format == DiskFormat::Qcow2 {
            bytes = qcow2::file(held.size_bytes, &bytes);
        }
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        Ok(VolumeFile {
            size_bytes: bytes.len() as u64,
            content: futures::stream::iter([Ok(Bytes::from(bytes))]).boxed(),
        })
    }

    async fn grow_volume(&self, at: &VolumeAt, bytes: u64) -> Result<VolumeInfo> {
        let (point, on, at) = (FaultPoint::GrowVolume, Some(shelf(at.volume)), at.clone());
        let grow = move |w: &FakeWorld, _| {
            let held = w.with_volume(point, &at, |held| {
                let grown = held.size_bytes < bytes;
                held.size_bytes = held.size_bytes.max(bytes);
                Ok((
                    held.clone(),
                    grown.then_some(Some(EffectKind::VolumeGrown { bytes })),
                ))
            })?;
            Ok(w.volume_info(at.volume, &held))
        };
        self.world().perform(point, on, grow).await
    }

    async fn delete_volume(&self, at: &VolumeAt) -> Result<()> {
        let (on, at) = (Some(shelf(at.volume)), at.clone());
        let delete = move |w: &FakeWorld, _| w.delete_volume_now(&at);
        self.world().perform(FaultPoint::DeleteVolume, on, delete).await
    }

    async fn volumes(&self) -> Result<Vec<VolumeInfo>> {
        let list = |w: &FakeWorld| {
            let worlds = std::iter::once(w).chain(w.0.shared.values());
            let mut all = Vec::new();
            for world in worlds {
                let there = world.shelved()?;
                all.extend(there.iter().map(|(id, held)| w.volume_info(*id, held)));
            }
            Ok(all)
        };
        self.world().look(FaultPoint::Volumes, None, list).await
    }

    async fn snapshot_volume(&self, at: &VolumeAt, snapshot: SnapshotId) -> Result<VolumeSnapshot> {
        let (on, at) = (Some(shelf(at.volume)), at.clone());
        let take = move |w: &FakeWorld, _| w.snapshot_volume_now(&at, snapshot);
        self.world().perform(FaultPoint::SnapshotVolume, on, take).await
    }

    async fn revert_volume(&self, at: &VolumeAt, snapshot: SnapshotId) -> Result<()> {
        let (on, at) = (Some(shelf(at.volume)), at.clone());
        let revert = move |w: &FakeWorld, _| w.revert_volume_now(&at, snapshot);
        self.world().perform(FaultPoint::RevertVolume, on, revert).await
    }

    async fn forget_volume_snapshot(&self, at: &VolumeAt, snapshot: SnapshotId) -> Result<()> {
        let (on, at) = (Some(shelf(at.volume)), at.clone());
        let forget = move |w: &FakeWorld, _| w.forget_volume_snapshot_now(&at, snapshot);
        let point = FaultPoint::ForgetVolumeSnapshot;
        self.world().perform(point, on, forget).await
    }

    async fn volume_snapshots(&self, at: &VolumeAt) -> Result<Vec<VolumeSnapshot>> {
        let (point, on) = (FaultPoint::LookVolume, Some(shelf(at.volume)));
        let look = |w: &FakeWorld| {
            let held = w.held(point, at)?.ok_or_else(|| missing(point, at))?;
            let kept = held.snapshots.into_iter();
            Ok(kept
                .map(|(snapshot, size_bytes, _)| VolumeSnapshot { snapshot, size_bytes })
                .collect())
        };
        self.world().look(point, on, look).await
    }
}

/// The shared pools that a host sees, by name.
pub(super) type Shared = BTreeMap<Name, FakeWorld>;
