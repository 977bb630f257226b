//! Disks and NICs that come and go. The definition is changed first, durably, then the guest.

use std::ffi::CString;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use skyloom_hypervisor::{DiskSpec, Hotplug, NicSpec, Result};
use skyloom_model::{IoLimits, MacAddr, PowerState, ServerId};
use virt::connect::Connect;
use virt::domain::Domain;
use virt_sys as sys;

use super::has_guest;
use crate::LibvirtHypervisor;
use crate::domain::{self, Surroundings};
use crate::errors::Fault;
use crate::kept::Kept;
use crate::lifecycle::Core;
use crate::live::Live;
use crate::state::Seen;
use crate::{chain, monitor, raw, xml};

const ATTACH_DISK: &str = "attach disk";
const DETACH_DISK: &str = "detach disk";
const GROW_DISK: &str = "grow disk";
const LIMIT_DISK: &str = "limit disk";
const ATTACH_NIC: &str = "attach NIC";
const DETACH_NIC: &str = "detach NIC";
/// How often a guest is looked at that is to let go of something.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const NO_DISK: Fault = Fault::Absent;
const SUSPENDED: Fault = Fault::Conflict("its memory is on disk, and knows the devices as they are");
const HOLDS_ON: Fault = Fault::NotNow("the guest does not let go of it");

#[async_trait]
impl Hotplug for LibvirtHypervisor {
    async fn attach_disk(&self, id: ServerId, generation: u64, disk: &DiskSpec) -> Result<()> {
        let disk = disk.clone();
        self.finish(ATTACH_DISK, move |core| async move {
            let attach = move |plug: &mut Plug<'_>| plug.attach_disk(disk);
            core.plug(ATTACH_DISK, id, generation, attach).await
        })
        .await
    }

    async fn detach_disk(&self, id: ServerId, generation: u64, disk: &str) -> Result<()> {
        let disk = disk.to_owned();
        self.finish(DETACH_DISK, move |core| async move {
            core.detach_disk(id, generation, disk).await
        })
        .await
    }

    async fn grow_disk(&self, id: ServerId, generation: u64, disk: &str, bytes: u64) -> Result<()> {
        let disk = disk.to_owned();
        self.finish(GROW_DISK, move |core| async move {
            core.grow_disk(id, generation, disk, bytes).await
        })
        .await
    }

    async fn limit_disk(
        &self,
        id: ServerId,
        generation: u64,
        disk: &str,
        limits: Option<IoLimits>,
    ) -> Result<()> {
        let disk = disk.to_owned();
        self.finish(LIMIT_DISK, move |core| async move {
            let limit = move |plug: &mut Plug<'_>| plug.limit_disk(&disk, limits);
            core.plug(LIMIT_DISK, id, generation, limit).await
        })
        .await
    }

    async fn attach_nic(&self, id: ServerId, generation: u64, nic: &NicSpec) -> Result<()> {
        let nic = nic.clone();
        self.finish(ATTACH_NIC, move |core| async move {
            let attach = move |plug: &mut Plug<'_>| plug.attach_nic(nic);
            core.plug(ATTACH_NIC, id, generation, attach).await
        })
        .await
    }

    async fn detach_nic(&self, id: ServerId, generation: u64, mac: MacAddr) -> Result<()> {
        self.finish(DETACH_NIC, move |core| async move {
            let detach = move |plug: &mut Plug<'_>| plug.detach_nic(mac);
            core.plug(DETACH_NIC, id, generation, detach).await?;
            let gone = move |_: &Domain, live: &Live| Ok(!live.has_nic(mac));
            core.until_gone(DETACH_NIC, id, gone).await
        })
        .await
    }
}

impl Core {
    /// Does `work` on the domain while nobody else changes it.
    async fn plug<T: Send + 'static>(
        &self,
        operation: &'static str,
        id: ServerId,
        generation: u64,
        work: impl FnOnce(&mut Plug<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let slot = self.slots.get(id);
        let op = slot.op().await;
        let (_, seen) = self.obeyed(operation, &slot, id, generation).await?;
        if seen == Seen::Off(PowerState::Suspended) {
            return Err(SUSPENDED.of(operation, id));
        }
        let guest = has_guest(operation, id, seen)?;
        let (hold, host) = ((slot.record().await, op), self.surroundings(id));
        let limit = self.config.timeouts.plug;
        self.long(operation, id, limit, hold, move |conn| {
            let domain::Ours { domain, kept } = domain::must_find(conn, id)?;
            domain::not_older(&kept, generation)?;
            let live = if guest { Some(Live::of(&domain)?) } else { None };
            let host = host(conn);
            work(&mut Plug {
                conn,
                domain,
                kept,
                live,
                host,
            })
        })
        .await
    }

    /// Waits until the guest has let go.
    async fn until_gone(
        &self,
        operation: &'static str,
        id: ServerId,
        gone: impl Fn(&Domain, &Live) -> Result<bool, Fault> + Clone + Send + 'static,
    ) -> Result<()> {
        let gone = async {
            loop {
                let gone = gone.clone();
                let looked = self.step(operation, id, (), move |conn| {
                    let domain = domain::must_find(conn, id)?.domain;
                    match domain::see(&domain)? {
                        Seen::Off(_) => Ok(true),
                        _ => gone(&domain, &Live::of(&domain)?),
                    }
                });
                if looked.await? {
                    return Ok(());
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        // libvirt has waited for the guest, too.
        let limit = self.config.timeouts.plug / 10;
        let holds_on = |_| Err(HOLDS_ON.of(operation, id));
        tokio::time::timeout(limit, gone).await.unwrap_or_else(holds_on)
    }

    async fn detach_disk(&self, id: ServerId, generation: u64, disk: String) -> Result<()> {
        let name = disk.clone();
        let file = self
            .plug(DETACH_DISK, id, generation, move |plug| plug.detach_disk(&disk))
            .await?;
        let Some(file) = file else { return Ok(()) };
        self.until_gone(DETACH_DISK, id, move |domain, live| {
            Ok(live.disk(&name).is_none() && !monitor::holds(domain, &file)?)
        })
        .await
    }

    async fn grow_disk(&self, id: ServerId, generation: u64, name: String, bytes: u64) -> Result<()> {
        let bytes = bytes
            .checked_next_multiple_of(512)
            .ok_or_else(|| Fault::Invalid("no disk is as big").of(GROW_DISK, id))?;
        let off = self.plug(GROW_DISK, id, generation, move |plug| {
            plug.grow_disk(&name, bytes)
        });
        let Some(disk) = off.await? else {
            return Ok(());
        };
        // Again: what is off now stays so, or QEMU's own lock says no.
        let slot = self.slots.get(id);
        let _op = slot.op().await;
        let img = self.img(GROW_DISK, id);
        if img.info(&disk).await?.virtual_size < bytes {
            img.resize(&disk, bytes).await?;
        }
        Ok(())
    }
}

/// A domain whose devices change. All of this blocks: it runs on a thread of a lane.
struct Plug<'a> {
    conn: &'a Connect,
    domain: Domain,
    kept: Kept,
    /// `None` when it is off.
    live: Option<Live>,
    host: Surroundings,
}

impl Plug<'_> {
    /// Writes the changed definition.
    fn keep(&self) -> Result<(), Fault> {
        xml::check(&self.kept.spec).map_err(Fault::Said)?;
        let below = chain::below(&self.kept.spec).ok();
        domain::define(self.conn, &self.kept, &self.host, below.as_deref()).map(drop)
    }

    fn plug_in(&self, device: Result<String, String>) -> Result<(), Fault> {
        let device = device.map_err(Fault::Unwritable)?;
        self.domain
            .attach_device_flags(&device, sys::VIR_DOMAIN_AFFECT_LIVE)?;
        Ok(())
    }

    /// Asks the guest to let go. libvirt waits a while, and says nothing when that was not enough.
    fn plug_out(&self, device: Result<String, String>) -> Result<(), Fault> {
        let device = device.map_err(Fault::Unwritable)?;
        if let Err(e) = self
            .domain
            .detach_device_flags(&device, sys::VIR_DOMAIN_AFFECT_LIVE)
        {
            // It may have been asked before, or say that it does not want to: what counts is what is in the end.
            tracing::debug!(error = %e, "a device is not let go of");
        }
        Ok(())
    }

    fn attach_disk(&mut self, disk: DiskSpec) -> Result<(), Fault> {
        const OTHER: Fault = Fault::Conflict("a disk of that name has another file");
        let there = self.live.as_ref().and_then(|live| live.disk(&disk.name));
        if there.is_some_and(|(_, file)| file != Some(&disk.path)) {
            return Err(OTHER);
        }
        match self.kept.spec.disks.iter().find(|d| d.name == disk.name) {
            Some(known) if known.path != disk.path => return Err(OTHER),
            Some(_) => {}
            None => {
                self.kept.spec.disks.push(disk.clone());
                self.keep()?;
            }
        }
        let Some(live) = &self.live else { return Ok(()) };
        if live.disk(&disk.name).is_some() {
            return Ok(());
        }
        let target = live
            .free_target()
            .ok_or(Fault::Conflict("a domain has at most 26 disks"))?;
        let below = chain::below_one(&self.kept.spec, &disk).map_err(Fault::Said)?;
        self.plug_in(xml::disk_device(&disk, target, below.as_deref()))
    }

    /// The file of the disk that the guest was asked to let go of, if it had it.
    fn detach_disk(&mut self, name: &str) -> Result<Option<PathBuf>, Fault> {
        let known = self.kept.spec.disks.iter().position(|d| d.name == name);
        let known = known.map(|at| self.kept.spec.disks.remove(at));
        if known.is_some() {
            self.keep()?;
        }
        let there = self.live.as_ref().and_then(|live| live.disk(name));
        let Some((dev, Some(file))) = there else {
            return Ok(None);
        };
        let device = DiskSpec {
            name: name.to_owned(),
            path: file.to_owned(),
            format: known.map_or(skyloom_model::DiskFormat::Raw, |d| d.format),
            backing_format: None,
            read_only: false,
            limits: None,
        };
        self.plug_out(xml::disk_device(&device, dev.to_owned(), None))?;
        Ok(Some(file.to_owned()))
    }

    /// The disk, when no guest has it open: then its file is to be grown.
    fn grow_disk(&mut self, name: &str, bytes: u64) -> Result<Option<DiskSpec>, Fault> {
        let disk = self
            .kept
            .spec
            .disks
            .iter()
            .find(|d| d.name == name)
            .ok_or(NO_DISK)?;
        let Some((dev, _)) = self.live.as_ref().and_then(|live| live.disk(name)) else {
            return Ok(Some(disk.clone()));
        };
        if self.domain.get_block_info(dev, 0)?.capacity < bytes {
            self.domain
                .block_resize(dev, bytes, sys::VIR_DOMAIN_BLOCK_RESIZE_BYTES)?;
        }
        Ok(None)
    }

    fn limit_disk(&mut self, name: &str, limits: Option<IoLimits>) -> Result<(), Fault> {
        let disks = &mut self.kept.spec.disks;
        let disk = disks.iter_mut().find(|d| d.name == name).ok_or(NO_DISK)?;
        if disk.limits != limits {
            disk.limits = limits;
            self.keep()?;
        }
        let Some((dev, _)) = self.live.as_ref().and_then(|live| live.disk(name)) else {
            return Ok(());
        };
        let limits = limits.unwrap_or_default();
        let dev = CString::new(dev).map_err(|_| Fault::Damaged("a device's name has a NUL".to_owned()))?;
        let (bytes, operations) = (limits.bytes.unwrap_or(0), limits.operations.unwrap_or(0));
        Ok(raw::limit_disk(&self.domain, &dev, bytes, operations)?)
    }

    fn attach_nic(&mut self, nic: NicSpec) -> Result<(), Fault> {
        if !self.kept.spec.nics.iter().any(|n| n.mac == nic.mac) {
            self.kept.spec.nics.push(nic.clone());
            self.keep()?;
        }
        match &self.live {
            Some(live) if !live.has_nic(nic.mac) => self.plug_in(xml::nic_device(&nic)),
            _ => Ok(()),
        }
    }

    fn detach_nic(&mut self, mac: MacAddr) -> Result<(), Fault> {
        let known = self.kept.spec.nics.iter().position(|n| n.mac == mac);
        let known = known.map(|at| self.kept.spec.nics.remove(at));
        if known.is_some() {
            self.keep()?;
        }
        if !self.live.as_ref().is_some_and(|live| live.has_nic(mac)) {
            return Ok(());
        }
        // libvirt finds it by its address.
        let nic = known.unwrap_or(NicSpec {
            kind: skyloom_model::NicKind::User,
            mac,
            device: None,
        });
        self.plug_out(xml::nic_device(&nic))
    }
}
