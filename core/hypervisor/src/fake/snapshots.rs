//! Fake disks' content, and snapshots of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use skyloom_model::{DiskFormat, PowerState, ServerId, SnapshotId, Timestamp};

use super::book::{FakeDomain, Note};
use super::guests::{error, ordered};
use super::history::EffectKind;
use super::script::FaultPoint;
use super::world::FakeWorld;
use crate::{DiskSpec, ErrorKind, Result, SnapshotFound, SnapshotOrder, VmSpec};

/// What is on a fake disk: one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platter {
    /// The number.
    pub content: u64,
    /// Bytes that the disk describes.
    pub bytes: u64,
}

impl Default for Platter {
    fn default() -> Self {
        Self {
            content: 0,
            bytes: 1 << 30,
        }
    }
}

/// A fake snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FakeSnapshot {
    /// Which.
    pub snapshot: SnapshotId,
    /// Whether it was ended.
    pub whole: bool,
    /// Its disks: name, file and what was on it.
    pub disks: BTreeMap<String, (PathBuf, Platter)>,
    /// The guest, if its memory was kept.
    pub memory: Option<FakeMemory>,
}

/// A fake guest's memory on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FakeMemory {
    /// What it was made of.
    pub guest: VmSpec,
    /// Whether it was held.
    pub held: bool,
    /// The number in it.
    pub number: u64,
}

impl FakeSnapshot {
    /// A fake has no clock: all are of one time.
    fn found(&self) -> SnapshotFound {
        let bytes = self.memory.as_ref().map_or(0, |m| m.guest.memory_mib << 20);
        SnapshotFound {
            snapshot: self.snapshot,
            disks: self
                .disks
                .iter()
                .map(|(name, (_, p))| (name.clone(), p.bytes))
                .collect(),
            memory_bytes: bytes,
            taken_at: Timestamp::UNIX_EPOCH,
        }
    }
}

impl FakeDomain {
    /// What the domain is made of now: the guest, or the definition of one that is off.
    pub(super) fn made_of(&self) -> &VmSpec {
        self.guest.as_ref().unwrap_or(&self.spec)
    }
    pub(super) fn platter(&self, path: &Path) -> Platter {
        self.platters.get(path).copied().unwrap_or_default()
    }
    fn disks_of(&self, order: &SnapshotOrder, id: ServerId) -> Result<Vec<DiskSpec>> {
        let refuse = |kind, why| Err(error(kind, FaultPoint::TakeSnapshot, id).with("because", why));
        if order.disks.is_empty() {
            return refuse(ErrorKind::Invalid, "no disk is named");
        }
        let mut found: Vec<DiskSpec> = Vec::new();
        for name in &order.disks {
            let Some(disk) = self.made_of().disks.iter().find(|d| d.name == *name) else {
                return refuse(ErrorKind::NotFound, "it has no such disk");
            };
            if disk.read_only || found.iter().any(|d| d.name == *name) {
                return refuse(ErrorKind::Invalid, "a disk is read-only or named twice");
            }
            if disk.format != DiskFormat::Qcow2 {
                return refuse(ErrorKind::Unsupported, "the format keeps no snapshots");
            }
            found.push(disk.clone());
        }
        Ok(found)
    }
}

impl FakeWorld {
    pub(super) fn take_now(
        &self,
        id: ServerId,
        generation: u64,
        order: &SnapshotOrder,
        half: bool,
    ) -> Result<SnapshotFound> {
        let point = FaultPoint::TakeSnapshot;
        let keeps_memory = self.0.capability.memory_snapshots;
        let full = self.no_room()?;
        self.0.ledger.book(id, |book, note| {
            let domain = ordered(book, note, point, id, generation)?;
            let disks = domain.disks_of(order, id)?;
            if let Some(there) = domain
                .snapshots
                .iter()
                .find(|s| s.snapshot == order.snapshot && s.whole)
            {
                let same = there.disks.keys().all(|n| order.disks.contains(n))
                    && there.disks.len() == order.disks.len()
                    && there.memory.is_some() == order.memory;
                return if same {
                    Ok(there.found())
                } else {
                    Err(error(ErrorKind::Conflict, point, id)
                        .with("because", "it is there with other content"))
                };
            }
            if order.memory && !(keeps_memory && domain.power.may_execute()) {
                return Err(
                    error(ErrorKind::Unsupported, point, id).with("because", "there is no memory to keep")
                );
            }
            if full {
                return Err(error(ErrorKind::Full, point, id));
            }
            let of = |d: DiskSpec| (d.name, (d.path.clone(), domain.platter(&d.path)));
            let taken = FakeSnapshot {
                snapshot: order.snapshot,
                whole: !half,
                disks: disks.into_iter().map(of).collect(),
                memory: order.memory.then(|| FakeMemory {
                    guest: domain.made_of().clone(),
                    held: domain.power == PowerState::Paused,
                    number: domain.memory,
                }),
            };
            domain.snapshots.retain(|s| s.snapshot != order.snapshot);
            let found = taken.found();
            domain.snapshots.push(taken);
            note.changed = true;
            if !half {
                let snapshot = order.snapshot;
                note.effect(generation, EffectKind::SnapshotTaken { snapshot });
            }
            Ok(found)
        })?
    }

    pub(super) fn revert_now(
        &self,
        id: ServerId,
        generation: u64,
        snapshot: SnapshotId,
        half: bool,
    ) -> Result<()> {
        let point = FaultPoint::RevertSnapshot;
        let power = self.0.ledger.book(id, |book, note| {
            let domain = ordered(book, note, point, id, generation)?;
            let there = domain
                .snapshots
                .iter()
                .find(|s| s.snapshot == snapshot && s.whole);
            let missing = || error(ErrorKind::NotFound, point, id).with("snapshot", snapshot);
            let there = there.cloned().ok_or_else(missing)?;
            let conflict = |why| Err(error(ErrorKind::Conflict, point, id).with("because", why));
            if there.memory.is_none() && (domain.power.may_execute() || domain.power == PowerState::Suspended)
            {
                return conflict("it is not off");
            }
            let known = |(name, (path, _)): (&String, &(PathBuf, Platter))| {
                domain
                    .spec
                    .disks
                    .iter()
                    .any(|d| d.name == *name && d.path == *path)
            };
            if !there.disks.iter().all(known) {
                return conflict("a disk of it is no longer the domain's");
            }
            Ok(go_back(domain, note, generation, there, half))
        })??;
        match power {
            Some(power) => self.tell(id, power, "host-request"),
            None => Ok(()),
        }
    }

    pub(super) fn forget_now(
        &self,
        id: ServerId,
        generation: u64,
        snapshot: SnapshotId,
        half: bool,
    ) -> Result<()> {
        self.0.ledger.book(id, |book, note| {
            let domain = ordered(book, note, FaultPoint::ForgetSnapshot, id, generation)?;
            let before = domain.snapshots.len();
            if half {
                let there = domain.snapshots.iter_mut().filter(|s| s.snapshot == snapshot);
                there.for_each(|s| s.whole = false);
                note.changed = true;
                return Ok(());
            }
            domain.snapshots.retain(|s| s.snapshot != snapshot);
            if domain.snapshots.len() < before {
                note.effect(generation, EffectKind::SnapshotForgotten { snapshot });
            }
            Ok(())
        })?
    }

    pub(super) fn snapshots_of(&self, id: ServerId) -> Result<Vec<SnapshotFound>> {
        let found = self.0.ledger.read(id, |book| {
            let domain = book.domain.as_ref()?;
            let whole = domain.snapshots.iter().filter(|s| s.whole);
            Some(whole.map(FakeSnapshot::found).collect())
        })?;
        found.ok_or_else(|| error(ErrorKind::NotFound, FaultPoint::Snapshots, id))
    }

    /// Writes the disk's content, as the guest does.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn write_disk(&self, server: ServerId, path: &Path, content: u64) -> Result<()> {
        self.0.ledger.book(server, |book, note| {
            if let Some(domain) = &mut book.domain {
                domain.platters.entry(path.to_owned()).or_default().content = content;
                note.changed = true;
            }
        })
    }
    /// What is on the disk.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn read_disk(&self, server: ServerId, path: &Path) -> Result<Platter> {
        let read = |book: &super::book::Book| book.domain.as_ref().map(|d| d.platter(path));
        Ok(self.0.ledger.read(server, read)?.unwrap_or_default())
    }
}

/// Disks first, then the guest. Half of it: one disk, and a guest that is off. Tells the power state if it changed.
fn go_back(
    domain: &mut FakeDomain,
    note: &mut Note,
    generation: u64,
    there: FakeSnapshot,
    half: bool,
) -> Option<PowerState> {
    let before = domain.power;
    if domain.power.may_execute() {
        note.effect(generation, EffectKind::Stopped { graceful: false });
        domain.off(PowerState::Stopped);
    }
    let disks = there.disks.into_values().take(if half { 1 } else { usize::MAX });
    domain.platters.extend(disks);
    note.changed = true;
    if !half {
        if let Some(memory) = there.memory {
            if before == PowerState::Suspended {
                note.effect(generation, EffectKind::MemoryDropped);
            }
            note.effect(generation, EffectKind::Resumed);
            domain.guest = Some(memory.guest);
            domain.memory = memory.number;
            domain.power = if memory.held {
                PowerState::Paused
            } else {
                PowerState::Running
            };
        }
        let snapshot = there.snapshot;
        note.effect(generation, EffectKind::SnapshotReverted { snapshot });
    }
    (domain.power != before).then_some(domain.power)
}
