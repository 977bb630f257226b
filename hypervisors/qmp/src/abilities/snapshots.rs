//! Snapshots inside of qcow2 files, under the snapshot's id.
//!
//! ```text
//!  take    snapshots.json: begun ──> all disks ──> snapshots.json: whole
//!  forget  snapshots.json: begun ──> all disks ──> snapshots.json without it
//! ```
//!
//! What is begun and not whole is not told of, and is removed before it is taken anew. A running guest's disks stand still
//! in one transaction of QEMU's, or in one job of it that writes the memory, too.

pub(crate) mod kept;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use skyloom_hypervisor::{DiskSpec, ErrorKind, Result, SnapshotFound, SnapshotOrder, VmSpec};
use skyloom_model::{DiskFormat, PowerState, ServerId, SnapshotId};

use self::kept::{Kept, KeptMemory};
use super::{Guest, guest, hotplug};
use crate::client::Client;
use crate::core::Core;
use crate::devices::disk_id;
use crate::lifecycle;
use crate::record::Entry;
use crate::vm::Vm;
use crate::{errors, img, jobs};

const TAKE: &str = "take snapshot";
const REVERT: &str = "revert to snapshot";
const FORGET: &str = "forget snapshot";

pub(crate) async fn take(
    core: &Core,
    id: ServerId,
    generation: u64,
    order: &SnapshotOrder,
) -> Result<SnapshotFound> {
    let vm = core.there(TAKE, id)?;
    let _op = vm.op.lock().await;
    let spec = core.obeyed(&vm, TAKE, generation).await?;
    let guest = guest(core, &vm, TAKE).await?;
    let made_of = made_of(&vm, guest.as_ref(), spec).await;
    let disks = disks_of(&vm, &made_of, order)?;
    let mut all = kept::read(&vm, TAKE).await?;
    if let Some(there) = all.iter().find(|k| k.found.snapshot == order.snapshot) {
        if there.whole && there.fits(order) {
            return Ok(there.found.clone());
        }
        if there.whole {
            let why = "it is there with other content";
            return Err(vm.error(ErrorKind::Conflict, TAKE).with("because", why));
        }
        remove(&vm, guest.as_ref(), &made_of, order.snapshot, TAKE).await?;
        all.retain(|k| k.found.snapshot != order.snapshot);
    }
    let memory = match (&guest, order.memory) {
        (_, false) => None,
        (Some(guest), true) if guest.power.may_execute() => {
            let shape = vm.run().await.and_then(|r| r.launch.shape);
            let held = guest.power == PowerState::Paused;
            shape.map(|shape| KeptMemory {
                shape,
                held,
                disk: disks[0].name.clone(),
            })
        }
        (_, true) => None,
    };
    if order.memory && memory.is_none() {
        let why = "there is no memory to keep";
        return Err(vm.error(ErrorKind::Unsupported, TAKE).with("because", why));
    }
    all.push(Kept {
        whole: false,
        files: disks.iter().map(|d| (d.name.clone(), d.path.clone())).collect(),
        memory,
        found: SnapshotFound {
            snapshot: order.snapshot,
            disks: Vec::new(),
            memory_bytes: 0,
            taken_at: vm.env.config.clock.now(),
        },
    });
    kept::write(&vm, TAKE, &all).await?;
    match make(&vm, guest.as_ref(), &disks, order).await {
        Ok((sizes, memory_bytes)) => {
            let at = all.len() - 1;
            all[at].whole = true;
            all[at].found.disks = sizes;
            all[at].found.memory_bytes = memory_bytes;
            kept::write(&vm, TAKE, &all).await?;
            Ok(all.swap_remove(at).found)
        }
        Err(e) => {
            // Where this fails, too, the record still says that it was begun.
            if let Err(also) = remove(&vm, guest.as_ref(), &made_of, order.snapshot, TAKE).await {
                tracing::warn!(server = %id, error = %skyloom_model::report(&also), "half a snapshot stays for now");
            } else {
                all.pop();
                kept::write(&vm, TAKE, &all).await?;
            }
            Err(e)
        }
    }
}

/// What the domain's disks are now: the guest's, running or suspended, or those of the definition.
async fn made_of(vm: &Vm, guest: Option<&Guest>, spec: VmSpec) -> VmSpec {
    let shape = match guest {
        Some(_) => vm.run().await.and_then(|r| r.launch.shape),
        None => vm.memory().await,
    };
    shape.map_or(spec, |s| s.spec)
}

fn disks_of(vm: &Vm, spec: &VmSpec, order: &SnapshotOrder) -> Result<Vec<DiskSpec>> {
    let refuse = |kind, why| Err(vm.error(kind, TAKE).with("because", why));
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

/// Makes it in all disks; tells their sizes and that of the memory.
async fn make(
    vm: &Vm,
    guest: Option<&Guest>,
    disks: &[DiskSpec],
    order: &SnapshotOrder,
) -> Result<(Vec<(String, u64)>, u64)> {
    let name = order.snapshot.to_string();
    let mut told = Vec::with_capacity(disks.len());
    match guest {
        Some(guest) => {
            let nodes: Vec<String> = disks.iter().map(|d| disk_id(&d.name)).collect();
            if order.memory {
                let job = json!({ "tag": name, "vmstate": nodes[0], "devices": nodes });
                jobs::run(vm, &guest.client, TAKE, "snapshot-save", job).await?;
            } else {
                let each = nodes
                    .iter()
                    .map(|n| json!({ "type": "blockdev-snapshot-internal-sync", "data": { "device": n, "name": name } }));
                let all = json!({ "actions": each.collect::<Vec<Value>>() });
                let limit = vm.env.config.timeouts.memory;
                let taken = guest.client.execute("transaction", all, limit).await;
                taken.map_err(|e| errors::monitor(TAKE, vm.id, e))?;
            }
            for disk in disks {
                told.push(hotplug::info(vm, &guest.client, TAKE, disk).await?);
            }
        }
        None => {
            for disk in disks {
                img::snapshot(vm, TAKE, "-c", &name, disk).await?;
                told.push(img::info(vm, TAKE, disk).await?);
            }
        }
    }
    let mut memory = 0;
    let mut sizes = Vec::with_capacity(disks.len());
    for (disk, info) in disks.iter().zip(told) {
        let Some(there) = info.snapshots.iter().find(|s| s.name == name) else {
            let why = "a disk does not hold it";
            return Err(vm.error(ErrorKind::Refused, TAKE).with("because", why));
        };
        memory += there.vm_state_size;
        sizes.push((disk.name.clone(), info.virtual_size));
    }
    Ok((sizes, memory))
}

/// Removes it from every disk that may hold it.
async fn remove(
    vm: &Vm,
    guest: Option<&Guest>,
    spec: &VmSpec,
    snapshot: SnapshotId,
    operation: &'static str,
) -> Result<()> {
    let name = snapshot.to_string();
    let disks = spec
        .disks
        .iter()
        .filter(|d| !d.read_only && d.format == DiskFormat::Qcow2);
    match guest {
        Some(guest) => {
            let nodes: Vec<String> = disks.map(|d| disk_id(&d.name)).collect();
            if nodes.is_empty() {
                return Ok(());
            }
            let job = json!({ "tag": name, "devices": nodes });
            jobs::run(vm, &guest.client, operation, "snapshot-delete", job).await
        }
        None => {
            for disk in disks {
                let info = img::info(vm, operation, disk).await?;
                // One name can be there twice, after a take that was cut short.
                for _ in info.snapshots.iter().filter(|s| s.name == name) {
                    img::snapshot(vm, operation, "-d", &name, disk).await?;
                }
            }
            Ok(())
        }
    }
}

pub(crate) async fn revert(core: &Core, id: ServerId, generation: u64, snapshot: SnapshotId) -> Result<()> {
    let vm = core.there(REVERT, id)?;
    let _op = vm.op.lock().await;
    let spec = core.obeyed(&vm, REVERT, generation).await?;
    let guest = guest(core, &vm, REVERT).await?;
    let all = kept::read(&vm, REVERT).await?;
    let there = all.into_iter().find(|k| k.found.snapshot == snapshot && k.whole);
    let there = there.ok_or_else(|| vm.error(ErrorKind::NotFound, REVERT).with("snapshot", snapshot))?;
    let conflict = |why| Err(vm.error(ErrorKind::Conflict, REVERT).with("because", why));
    if there.memory.is_none() && (guest.is_some() || vm.memory().await.is_some()) {
        return conflict("it is not off, and no memory was kept");
    }
    let file = |(name, path): (&String, &PathBuf)| {
        let same = |d: &&DiskSpec| d.name == *name && d.path == *path;
        spec.disks.iter().find(same).cloned()
    };
    let Some(disks) = there.files.iter().map(file).collect::<Option<Vec<DiskSpec>>>() else {
        return conflict("a disk of it is no longer the domain's");
    };
    let Some(memory) = there.memory else {
        for disk in &disks {
            img::snapshot(&vm, REVERT, "-a", &snapshot.to_string(), disk).await?;
        }
        return Ok(());
    };
    // A new process: one that fails to read leaves no guest behind that is half another one.
    match guest {
        Some(guest) => lifecycle::force_off(&vm, &guest.process, REVERT).await?,
        None => lifecycle::acknowledge(&vm).await?,
    }
    let entry = Entry::Snapshot { snapshot };
    lifecycle::launch(&core.tasks, &vm, generation, memory.shape, entry).await?;
    if memory.held {
        vm.publish(PowerState::Paused, Some(crate::vm::HOST_REQUEST));
        return Ok(());
    }
    lifecycle::resume(&vm, REVERT).await
}

/// Reads disks and memory of a snapshot into a QEMU whose CPUs have not run. Tells whether they stay held.
pub(crate) async fn load(vm: &Arc<Vm>, client: &Client, snapshot: SnapshotId) -> Result<bool> {
    let all = kept::read(vm, REVERT).await?;
    let there = all.into_iter().find(|k| k.found.snapshot == snapshot && k.whole);
    let Some((files, memory)) = there.and_then(|k| Some((k.files, k.memory?))) else {
        return Err(vm.error(ErrorKind::NotFound, REVERT).with("snapshot", snapshot));
    };
    let nodes: Vec<String> = files.keys().map(|name| disk_id(name)).collect();
    let job = json!({ "tag": snapshot.to_string(), "vmstate": disk_id(&memory.disk), "devices": nodes });
    jobs::run(vm, client, REVERT, "snapshot-load", job).await?;
    Ok(memory.held)
}

pub(crate) async fn forget(core: &Core, id: ServerId, generation: u64, snapshot: SnapshotId) -> Result<()> {
    let vm = core.there(FORGET, id)?;
    let _op = vm.op.lock().await;
    let spec = core.obeyed(&vm, FORGET, generation).await?;
    let guest = guest(core, &vm, FORGET).await?;
    let mut all = kept::read(&vm, FORGET).await?;
    if let Some(there) = all.iter_mut().find(|k| k.found.snapshot == snapshot && k.whole) {
        there.whole = false;
        kept::write(&vm, FORGET, &all).await?;
    }
    let made_of = made_of(&vm, guest.as_ref(), spec).await;
    remove(&vm, guest.as_ref(), &made_of, snapshot, FORGET).await?;
    let before = all.len();
    all.retain(|k| k.found.snapshot != snapshot);
    if all.len() < before {
        kept::write(&vm, FORGET, &all).await?;
    }
    Ok(())
}

pub(crate) async fn list(core: &Core, id: ServerId) -> Result<Vec<SnapshotFound>> {
    const LIST: &str = "list snapshots";
    let vm = core.there(LIST, id)?;
    if vm.record.lock().await.desc.is_none() {
        return Err(vm.error(ErrorKind::NotFound, LIST));
    }
    let all = kept::read(&vm, LIST).await?;
    Ok(all.into_iter().filter(|k| k.whole).map(|k| k.found).collect())
}
