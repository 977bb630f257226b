//! Snapshots inside of qcow2 files, under the snapshot's id.
//!
//! ```text
//!  take    record: begun ──> all disks ──> record: whole
//!  forget  record: begun ──> all disks ──> record without it
//! ```
//!
//! Disks of a domain that is off are `qemu-img`'s. libvirt's own snapshots are of all disks or none, and need memory; so a
//! running guest's disks are asked for at QEMU's monitor, by libvirt: in one transaction, or in one job that writes the
//! memory, too. Memory goes on in a guest that is made as the one was that it is of.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use skyloom_hypervisor::{
    DiskSpec, Error, ErrorKind, Result, SnapshotFound, SnapshotOrder, Snapshots, VmSpec,
};
use skyloom_model::{DiskFormat, PowerState, ServerId, SnapshotId, report};
use virt::domain::Domain;
use virt_sys as sys;

use super::has_guest;
use super::record::{self, Memory, Snapshot};
use crate::LibvirtHypervisor;
use crate::domain;
use crate::errors::{self, Fault, blocking};
use crate::img::Img;
use crate::lifecycle::Core;
use crate::monitor;
use crate::order::Hold;
use crate::state::Seen;

const TAKE: &str = "take snapshot";
const REVERT: &str = "revert to snapshot";
const FORGET: &str = "forget snapshot";
/// How often a job is asked for.
const LOOK_AGAIN: Duration = Duration::from_millis(30);

#[async_trait]
impl Snapshots for LibvirtHypervisor {
    async fn take(&self, id: ServerId, generation: u64, order: &SnapshotOrder) -> Result<SnapshotFound> {
        let order = order.clone();
        self.finish(TAKE, move |core| async move {
            core.take(id, generation, &order).await
        })
        .await
    }

    async fn revert(&self, id: ServerId, generation: u64, snapshot: SnapshotId) -> Result<()> {
        self.finish(REVERT, move |core| async move {
            core.revert(id, generation, snapshot).await
        })
        .await
    }

    async fn forget(&self, id: ServerId, generation: u64, snapshot: SnapshotId) -> Result<()> {
        self.finish(FORGET, move |core| async move {
            core.forget(id, generation, snapshot).await
        })
        .await
    }

    async fn snapshots(&self, id: ServerId) -> Result<Vec<SnapshotFound>> {
        const OPERATION: &str = "list snapshots";
        let limit = self.core.config.timeouts.command;
        let there = self
            .core
            .look
            .call(limit, (), move |conn| domain::must_find(conn, id).map(drop));
        there.await.map_err(|fault| fault.of(OPERATION, id))?;
        let all = self.core.records(OPERATION, id).await?;
        Ok(all.into_iter().filter(|s| s.whole).map(|s| s.found).collect())
    }
}

impl Core {
    async fn records(&self, operation: &'static str, id: ServerId) -> Result<Vec<Snapshot>> {
        let dir = self.logs.of(id);
        let read = blocking(move || record::read(&dir)).await;
        read.map_err(|e| errors::file(operation, e).with("server", id))
    }

    async fn record(&self, operation: &'static str, id: ServerId, all: &[Snapshot]) -> Result<()> {
        let (dir, all) = (self.logs.of(id), all.to_vec());
        let written = blocking(move || record::write(&dir, all)).await;
        written.map_err(|e| errors::file(operation, e).with("server", id))
    }

    pub(super) const fn img(&self, operation: &'static str, id: ServerId) -> Img<'_> {
        Img {
            config: &self.config,
            operation,
            id,
        }
    }

    async fn take(&self, id: ServerId, generation: u64, order: &SnapshotOrder) -> Result<SnapshotFound> {
        let slot = self.slots.get(id);
        let op = slot.op().await;
        let (kept, seen) = self.obeyed(TAKE, &slot, id, generation).await?;
        let disks = disks_of(&kept.spec, order)?;
        let guest = has_guest(TAKE, id, seen)?;
        let mut all = self.records(TAKE, id).await?;
        if let Some(there) = all.iter().find(|s| s.found.snapshot == order.snapshot) {
            if there.whole && there.fits(order) {
                return Ok(there.found.clone());
            }
            if there.whole {
                return Err(Fault::Conflict("it is there with other content").of(TAKE, id));
            }
            self.remove_snapshot(TAKE, id, guest, &kept.spec, order.snapshot, &op)
                .await?;
            all.retain(|s| s.found.snapshot != order.snapshot);
        }
        if order.memory && !guest {
            return Err(Fault::Unsupported("memory of a guest that is off".to_owned()).of(TAKE, id));
        }
        let memory = if order.memory {
            let definition = self.step(TAKE, id, Arc::clone(&op), move |conn| {
                let domain = domain::must_find(conn, id)?.domain;
                Ok(domain.get_xml_desc(0)?)
            });
            Some(Memory {
                definition: definition.await?,
                held: seen == Seen::Held,
            })
        } else {
            None
        };
        all.push(Snapshot {
            files: disks.iter().map(|d| (d.name.clone(), d.path.clone())).collect(),
            memory,
            whole: false,
            found: SnapshotFound {
                snapshot: order.snapshot,
                disks: Vec::new(),
                memory_bytes: 0,
                taken_at: self.config.clock.now(),
            },
        });
        self.record(TAKE, id, &all).await?;
        let made = if guest {
            self.make_in_guest(id, &disks, order, &op).await
        } else {
            self.make_in_files(id, &disks, order.snapshot).await
        };
        match made {
            Ok((sizes, memory_bytes)) => {
                let at = all.len() - 1;
                all[at].found.disks = sizes;
                all[at].found.memory_bytes = memory_bytes;
                all[at].whole = true;
                self.record(TAKE, id, &all).await?;
                Ok(all.swap_remove(at).found)
            }
            Err(e) => {
                // Where this fails, too, the record still says that it was begun.
                match self
                    .remove_snapshot(TAKE, id, guest, &kept.spec, order.snapshot, &op)
                    .await
                {
                    Ok(()) => {
                        all.pop();
                        self.record(TAKE, id, &all).await?;
                    }
                    Err(also) => {
                        tracing::warn!(server = %id, error = %report(&also), "half a snapshot stays for now");
                    }
                }
                Err(e)
            }
        }
    }

    /// Sizes of the disks, and no memory.
    async fn make_in_files(
        &self,
        id: ServerId,
        disks: &[DiskSpec],
        snapshot: SnapshotId,
    ) -> Result<(Vec<(String, u64)>, u64)> {
        let img = self.img(TAKE, id);
        let mut sizes = Vec::new();
        for disk in disks {
            img.snapshot("-c", &snapshot.to_string(), disk).await?;
            sizes.push((disk.name.clone(), img.info(disk).await?.virtual_size));
        }
        Ok((sizes, 0))
    }

    /// Sizes of the disks, and of the memory.
    async fn make_in_guest(
        &self,
        id: ServerId,
        disks: &[DiskSpec],
        order: &SnapshotOrder,
        op: &Hold,
    ) -> Result<(Vec<(String, u64)>, u64)> {
        let (name, paths) = (order.snapshot.to_string(), paths(disks));
        if order.memory {
            self.job(TAKE, "snapshot-save", id, &name, &paths, op).await?;
        } else {
            let (name, paths) = (name.clone(), paths.clone());
            let taken = self.step(TAKE, id, Arc::clone(op), move |conn| {
                let domain = domain::must_find(conn, id)?.domain;
                monitor::take(&domain, &name, &nodes(&domain, &paths)?)
            });
            taken.await?;
        }
        let names: Vec<String> = disks.iter().map(|d| d.name.clone()).collect();
        self.step(TAKE, id, Arc::clone(op), move |conn| {
            let domain = domain::must_find(conn, id)?.domain;
            let (mut sizes, mut memory) = (Vec::new(), 0);
            for (disk, path) in names.into_iter().zip(&paths) {
                let info = monitor::node(&domain, path)?.1;
                let ours = info.snapshots.iter().find(|s| s.name == name);
                memory += ours.ok_or(Fault::Monitor("snapshot"))?.vm_state_size;
                sizes.push((disk, info.virtual_size));
            }
            Ok((sizes, memory))
        })
        .await
    }

    /// Runs a job with memory to its end. While QEMU writes memory it does not answer: that is no failure.
    async fn job(
        &self,
        operation: &'static str,
        command: &'static str,
        id: ServerId,
        name: &str,
        paths: &[PathBuf],
        op: &Hold,
    ) -> Result<()> {
        let limit = self.config.timeouts.memory;
        let whole = async {
            // One that an earlier agent began; how it ended is nobody's concern.
            let _ = self.until_ended(operation, id, op).await;
            let (name, paths) = (name.to_owned(), paths.to_vec());
            let begun = self.long(operation, id, limit, Arc::clone(op), move |conn| {
                let domain = domain::must_find(conn, id)?.domain;
                let nodes = nodes(&domain, &paths)?;
                let first = nodes.first().ok_or(Fault::Monitor("node of the disk"))?;
                monitor::begin(&domain, command, &name, first, &nodes)
            });
            begun.await?;
            self.until_ended(operation, id, op).await
        };
        let late = |_| Err(Fault::Late(limit).of(operation, id));
        tokio::time::timeout(limit, whole).await.unwrap_or_else(late)
    }

    async fn until_ended(&self, operation: &'static str, id: ServerId, op: &Hold) -> Result<()> {
        let limit = self.config.timeouts.memory;
        loop {
            let ended = self.long(operation, id, limit, Arc::clone(op), move |conn| {
                monitor::ended(&domain::must_find(conn, id)?.domain)
            });
            if ended.await? {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Removes what there is of a snapshot in any disk of the domain.
    async fn remove_snapshot(
        &self,
        operation: &'static str,
        id: ServerId,
        guest: bool,
        spec: &VmSpec,
        snapshot: SnapshotId,
        op: &Hold,
    ) -> Result<()> {
        let keeps = |d: &&DiskSpec| d.format == DiskFormat::Qcow2 && !d.read_only;
        let disks: Vec<DiskSpec> = spec.disks.iter().filter(keeps).cloned().collect();
        let name = snapshot.to_string();
        if guest {
            let paths = paths(&disks);
            let removed = self.step(operation, id, Arc::clone(op), move |conn| {
                let domain = domain::must_find(conn, id)?.domain;
                for path in paths {
                    // A disk that came since its start is in no node.
                    let Ok((node, info)) = monitor::node(&domain, &path) else {
                        continue;
                    };
                    if info.snapshots.iter().any(|s| s.name == name) {
                        monitor::forget(&domain, &name, &node)?;
                    }
                }
                Ok(())
            });
            return removed.await;
        }
        let img = self.img(operation, id);
        for disk in &disks {
            let there = match img.info(disk).await {
                // One name can be there twice, after a take that was cut short.
                Ok(info) => info.snapshots.iter().filter(|s| s.name == name).count(),
                // No file, no snapshot in it.
                Err(e) if e.kind() == ErrorKind::NotFound => 0,
                Err(e) => return Err(e),
            };
            for _ in 0..there {
                img.snapshot("-d", &name, disk).await?;
            }
        }
        Ok(())
    }

    async fn forget(&self, id: ServerId, generation: u64, snapshot: SnapshotId) -> Result<()> {
        let slot = self.slots.get(id);
        let op = slot.op().await;
        let (kept, seen) = self.obeyed(FORGET, &slot, id, generation).await?;
        let guest = has_guest(FORGET, id, seen)?;
        let mut all = self.records(FORGET, id).await?;
        if let Some(there) = all.iter_mut().find(|s| s.found.snapshot == snapshot) {
            there.whole = false;
            self.record(FORGET, id, &all).await?;
        }
        self.remove_snapshot(FORGET, id, guest, &kept.spec, snapshot, &op)
            .await?;
        all.retain(|s| s.found.snapshot != snapshot);
        self.record(FORGET, id, &all).await
    }

    async fn revert(&self, id: ServerId, generation: u64, snapshot: SnapshotId) -> Result<()> {
        let slot = self.slots.get(id);
        let op = slot.op().await;
        let (kept, seen) = self.obeyed(REVERT, &slot, id, generation).await?;
        let guest = has_guest(REVERT, id, seen)?;
        let all = self.records(REVERT, id).await?;
        let there = all.into_iter().find(|s| s.whole && s.found.snapshot == snapshot);
        let there = there.ok_or_else(|| Fault::Absent.of(REVERT, id).with("snapshot", snapshot))?;
        let conflict = |why| Err(Fault::Conflict(why).of(REVERT, id));
        if seen == Seen::Off(PowerState::Suspended) && there.memory.is_none() {
            return conflict("its memory is on disk, and knows the disks as they are");
        }
        let is_there = |(name, path): &(String, PathBuf)| {
            kept.spec
                .disks
                .iter()
                .find(|d| d.name == *name && d.path == *path)
        };
        let disks: Option<Vec<&DiskSpec>> = there.files.iter().map(is_there).collect();
        let Some(disks) = disks else {
            return conflict("a disk of it is not there any more");
        };
        match there.memory {
            Some(memory) => {
                if guest {
                    self.force_off(REVERT, id, &op).await?;
                }
                let paths = there.files.into_iter().map(|(_, path)| path).collect();
                self.go_on(id, snapshot, memory, paths, &op).await
            }
            None if guest => conflict("its guest runs, and no memory was kept"),
            None => {
                let img = self.img(REVERT, id);
                for disk in disks {
                    img.snapshot("-a", &snapshot.to_string(), disk).await?;
                }
                Ok(())
            }
        }
    }

    /// Starts the guest that the memory is of, held, and lets it go on from there.
    async fn go_on(
        &self,
        id: ServerId,
        snapshot: SnapshotId,
        memory: Memory,
        paths: Vec<PathBuf>,
        op: &Hold,
    ) -> Result<()> {
        self.logs.prepare(id).await?;
        // A crash is over, and memory of another moment is of no use any more.
        let settled = self.step(REVERT, id, Arc::clone(op), move |conn| {
            domain::settle_off(conn, id)
        });
        settled.await?;
        let limit = self.config.timeouts.start;
        let begun = self.long(REVERT, id, limit, Arc::clone(op), move |conn| {
            let domain::Ours { domain, mut kept } = domain::must_find(conn, id)?;
            if kept.crash.is_some() {
                kept.crash = None;
                domain::keep(&domain, &kept)?;
            }
            Domain::create_xml(conn, &memory.definition, sys::VIR_DOMAIN_START_PAUSED)?;
            Ok(())
        });
        begun.await?;
        let name = snapshot.to_string();
        let loaded = self.job(REVERT, "snapshot-load", id, &name, &paths, op).await;
        if let Err(e) = loaded {
            // What is in its memory now is nobody's.
            self.force_off(REVERT, id, op).await?;
            return Err(e);
        }
        if memory.held {
            return Ok(());
        }
        let on = self.step(REVERT, id, Arc::clone(op), move |conn| domain::resume(conn, id));
        on.await
    }
}

fn paths(disks: &[DiskSpec]) -> Vec<PathBuf> {
    disks.iter().map(|d| d.path.clone()).collect()
}

fn nodes(domain: &Domain, paths: &[PathBuf]) -> Result<Vec<String>, Fault> {
    let each = paths.iter().map(|path| Ok(monitor::node(domain, path)?.0));
    each.collect()
}

/// The disks of an order, in name order.
fn disks_of(spec: &VmSpec, order: &SnapshotOrder) -> Result<Vec<DiskSpec>> {
    let refuse = |kind, why| {
        Err(Error::new(kind, TAKE)
            .with("server", spec.id)
            .with("because", why))
    };
    let mut found: BTreeMap<&str, DiskSpec> = BTreeMap::new();
    for name in &order.disks {
        let Some(disk) = spec.disks.iter().find(|d| d.name == *name) else {
            return refuse(ErrorKind::NotFound, "it has no such disk");
        };
        if disk.read_only {
            return refuse(ErrorKind::Invalid, "a disk is read-only");
        }
        if disk.format != DiskFormat::Qcow2 {
            return refuse(ErrorKind::Unsupported, "the format keeps no snapshots");
        }
        if found.insert(name, disk.clone()).is_some() {
            return refuse(ErrorKind::Invalid, "a disk is named twice");
        }
    }
    if found.is_empty() {
        return refuse(ErrorKind::Invalid, "no disk is named");
    }
    Ok(found.into_values().collect())
}
