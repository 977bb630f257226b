//! What hot-plugging does to fake domains: the definition first, then the guest.

use skyloom_model::{IoLimits, MacAddr, PowerState, ServerId};

use super::book::{FakeDomain, Note};
use super::guests::{error, ordered};
use super::history::EffectKind;
use super::script::FaultPoint;
use super::world::FakeWorld;
use crate::{DiskSpec, ErrorKind, NicSpec, Result, VmSpec};

/// The definition, then the guest if there is one and it is to be changed.
fn both(domain: &mut FakeDomain, half: bool) -> impl Iterator<Item = &mut VmSpec> {
    let guest = domain.guest.as_mut().filter(|_| !half);
    std::iter::once(&mut domain.spec).chain(guest)
}

impl FakeWorld {
    /// The domain, which is not suspended.
    fn plug<T>(
        &self,
        id: ServerId,
        generation: u64,
        point: FaultPoint,
        change: impl FnOnce(&mut FakeDomain, &mut Note) -> Result<T>,
    ) -> Result<T> {
        self.0.ledger.book(id, |book, note| {
            let domain = ordered(book, note, point, id, generation)?;
            if domain.power == PowerState::Suspended {
                return Err(error(ErrorKind::Conflict, point, id).with("because", "it is suspended"));
            }
            change(domain, note)
        })?
    }

    fn holds_device(&self, id: ServerId) -> Result<bool> {
        self.0.ledger.script(|s| (false, s.holds_on.contains(&id)))
    }

    pub(super) fn attach_disk_now(
        &self,
        id: ServerId,
        generation: u64,
        disk: &DiskSpec,
        half: bool,
    ) -> Result<()> {
        let point = FaultPoint::AttachDisk;
        self.plug(id, generation, point, |domain, note| {
            let other = |s: &VmSpec| s.disks.iter().any(|d| d.name == disk.name && d.path != disk.path);
            if other(&domain.spec) || domain.guest.as_ref().is_some_and(other) {
                return Err(
                    error(ErrorKind::Conflict, point, id).with("because", "that disk has another file")
                );
            }
            let mut changed = false;
            for spec in both(domain, half) {
                if !spec.disks.iter().any(|d| d.name == disk.name) {
                    spec.disks.push(disk.clone());
                    changed = true;
                }
            }
            if changed {
                let disk = disk.name.clone();
                note.effect(generation, EffectKind::DiskAttached { disk });
            }
            Ok(())
        })
    }

    pub(super) fn detach_disk_now(
        &self,
        id: ServerId,
        generation: u64,
        disk: &str,
        half: bool,
    ) -> Result<()> {
        let point = FaultPoint::DetachDisk;
        let holds = self.holds_device(id)?;
        self.plug(id, generation, point, |domain, note| {
            let held = holds
                && domain
                    .guest
                    .as_ref()
                    .is_some_and(|g| g.disks.iter().any(|d| d.name == disk));
            let mut changed = false;
            for spec in both(domain, half || held) {
                let before = spec.disks.len();
                spec.disks.retain(|d| d.name != disk);
                changed |= spec.disks.len() < before;
            }
            if changed {
                let disk = disk.to_owned();
                note.effect(generation, EffectKind::DiskDetached { disk });
            }
            if held && !half {
                Err(refused(point, id))
            } else {
                Ok(())
            }
        })
    }

    pub(super) fn grow_disk_now(&self, id: ServerId, generation: u64, disk: &str, bytes: u64) -> Result<()> {
        let point = FaultPoint::GrowDisk;
        let full = self.no_room()?;
        self.plug(id, generation, point, |domain, note| {
            let path = disk_of(domain, disk, point, id)?.path.clone();
            if domain.platter(&path).bytes >= bytes {
                return Ok(());
            }
            if full {
                return Err(error(ErrorKind::Full, point, id));
            }
            domain.platters.entry(path).or_default().bytes = bytes;
            let disk = disk.to_owned();
            note.effect(generation, EffectKind::DiskGrown { disk, bytes });
            Ok(())
        })
    }

    pub(super) fn limit_disk_now(
        &self,
        id: ServerId,
        generation: u64,
        disk: &str,
        limits: Option<IoLimits>,
    ) -> Result<()> {
        let point = FaultPoint::LimitDisk;
        self.plug(id, generation, point, |domain, note| {
            disk_of(domain, disk, point, id)?;
            let mut changed = false;
            for spec in both(domain, false) {
                for there in spec.disks.iter_mut().filter(|d| d.name == disk) {
                    changed |= there.limits != limits;
                    there.limits = limits;
                }
            }
            if changed {
                let disk = disk.to_owned();
                note.effect(generation, EffectKind::DiskLimited { disk });
            }
            Ok(())
        })
    }

    pub(super) fn attach_nic_now(
        &self,
        id: ServerId,
        generation: u64,
        nic: &NicSpec,
        half: bool,
    ) -> Result<()> {
        let point = FaultPoint::AttachNic;
        self.plug(id, generation, point, |domain, note| {
            let other = |s: &VmSpec| s.nics.iter().any(|n| n.mac == nic.mac && n != nic);
            if other(&domain.spec) || domain.guest.as_ref().is_some_and(other) {
                return Err(error(ErrorKind::Conflict, point, id).with("because", "that NIC is elsewhere"));
            }
            let mut changed = false;
            for spec in both(domain, half) {
                if !spec.nics.contains(nic) {
                    spec.nics.push(nic.clone());
                    changed = true;
                }
            }
            if changed {
                note.effect(generation, EffectKind::NicAttached { mac: nic.mac });
            }
            Ok(())
        })
    }

    pub(super) fn detach_nic_now(
        &self,
        id: ServerId,
        generation: u64,
        mac: MacAddr,
        half: bool,
    ) -> Result<()> {
        let point = FaultPoint::DetachNic;
        let holds = self.holds_device(id)?;
        self.plug(id, generation, point, |domain, note| {
            let held = holds
                && domain
                    .guest
                    .as_ref()
                    .is_some_and(|g| g.nics.iter().any(|n| n.mac == mac));
            let mut changed = false;
            for spec in both(domain, half || held) {
                let before = spec.nics.len();
                spec.nics.retain(|n| n.mac != mac);
                changed |= spec.nics.len() < before;
            }
            if changed {
                note.effect(generation, EffectKind::NicDetached { mac });
            }
            if held && !half {
                Err(refused(point, id))
            } else {
                Ok(())
            }
        })
    }
}

fn refused(point: FaultPoint, id: ServerId) -> crate::Error {
    error(ErrorKind::Refused, point, id)
        .with("because", "the guest does not let go")
        .class_is(crate::Class::Transient)
}

fn disk_of<'a>(domain: &'a FakeDomain, name: &str, point: FaultPoint, id: ServerId) -> Result<&'a DiskSpec> {
    let found = domain.made_of().disks.iter().find(|d| d.name == name);
    found.ok_or_else(|| error(ErrorKind::NotFound, point, id).with("disk", name))
}
