//! Disks and NICs that come and go.
//!
//! ```text
//!  desc.json ──> live.json (which port) ──> blockdev-add / netdev_add ──> device_add
//!  desc.json ──> device_del ── the guest lets go ──> blockdev-del / netdev_del ──> live.json
//! ```
//!
//! What QEMU has is asked for each time: a verb that was cut short is finished by its repetition.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use skyloom_hypervisor::{Class, DiskSpec, Error, ErrorKind, NicSpec, Result, VmSpec};
use skyloom_model::{IoLimits, MacAddr, ServerId};

use super::{Guest, guest};
use crate::client::{Client, ClientError};
use crate::core::Core;
use crate::devices::{self, Shape, disk_id, net_id, nic_id};
use crate::errors::{self, blocking};
use crate::vm::Vm;
use crate::{argv, img};

/// How often a guest that does not let go is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// More than this QEMU does not take.
const MOST: u64 = 1_000_000_000_000_000;

/// A disk or a NIC.
#[derive(Debug, Clone)]
enum Thing {
    Disk(DiskSpec),
    Nic(NicSpec),
}

impl Thing {
    fn device(&self) -> String {
        match self {
            Self::Disk(disk) => disk_id(&disk.name),
            Self::Nic(nic) => nic_id(nic.mac),
        }
    }
    /// Whether it is there; a conflict when another one is in its place.
    fn in_place(&self, spec: &VmSpec) -> Result<bool, &'static str> {
        match self {
            Self::Disk(disk) => match spec.disks.iter().find(|d| d.name == disk.name) {
                Some(there) if there.path != disk.path => Err("a disk of that name has another file"),
                there => Ok(there.is_some()),
            },
            Self::Nic(nic) => match spec.nics.iter().find(|n| n.mac == nic.mac) {
                Some(there) if there != nic => Err("a NIC of that address is plugged in elsewhere"),
                there => Ok(there.is_some()),
            },
        }
    }
    fn add_to(&self, spec: &mut VmSpec) {
        match self {
            Self::Disk(disk) => spec.disks.push(disk.clone()),
            Self::Nic(nic) => spec.nics.push(nic.clone()),
        }
    }
}

/// The domain's definition and its guest, for a change of its devices.
async fn plug(
    core: &Core,
    vm: &Arc<Vm>,
    generation: u64,
    operation: &'static str,
) -> Result<(VmSpec, Option<Guest>)> {
    let spec = core.obeyed(vm, operation, generation).await?;
    let guest = guest(core, vm, operation).await?;
    if guest.is_none() && vm.memory().await.is_some() {
        return Err(vm
            .error(ErrorKind::Conflict, operation)
            .with("because", "it is suspended"));
    }
    Ok((spec, guest))
}

async fn describe(vm: &Vm, operation: &'static str, spec: &VmSpec) -> Result<()> {
    let mut record = vm.record.lock().await;
    vm.set_desc(&mut record, operation, spec.clone()).await
}

pub(crate) async fn attach_disk(core: &Core, id: ServerId, generation: u64, disk: DiskSpec) -> Result<()> {
    attach(core, id, generation, &Thing::Disk(disk), "attach disk").await
}

pub(crate) async fn attach_nic(core: &Core, id: ServerId, generation: u64, nic: NicSpec) -> Result<()> {
    attach(core, id, generation, &Thing::Nic(nic), "attach NIC").await
}

async fn attach(
    core: &Core,
    id: ServerId,
    generation: u64,
    thing: &Thing,
    operation: &'static str,
) -> Result<()> {
    let vm = core.there(operation, id)?;
    let _op = vm.op.lock().await;
    let (spec, guest) = plug(core, &vm, generation, operation).await?;
    let conflict = |why| vm.error(ErrorKind::Conflict, operation).with("because", why);
    let defined = thing.in_place(&spec).map_err(conflict)?;
    let shape = match &guest {
        Some(_) => Some(shape_of(&vm, operation).await?),
        None => None,
    };
    if let Some(shape) = &shape {
        thing.in_place(&shape.spec).map_err(conflict)?;
    }
    let mut wanted = spec.clone();
    if !defined {
        thing.add_to(&mut wanted);
        argv::check(&wanted)?;
        describe(&vm, operation, &wanted).await?;
    }
    let (Some(guest), Some(shape)) = (guest, shape) else {
        return Ok(());
    };
    let plugged = plug_in(&vm, &guest.client, shape, thing, operation).await;
    if plugged.is_err() && !defined {
        describe(&vm, operation, &spec).await?;
    }
    plugged
}

async fn shape_of(vm: &Vm, operation: &'static str) -> Result<Shape> {
    let shape = vm.run().await.and_then(|r| r.launch.shape);
    let why = "it is being stopped, or an earlier version started it";
    shape.ok_or_else(|| vm.error(ErrorKind::Conflict, operation).with("because", why))
}

async fn plug_in(
    vm: &Arc<Vm>,
    client: &Client,
    before: Shape,
    thing: &Thing,
    operation: &'static str,
) -> Result<()> {
    let device = thing.device();
    let there = before.ports.contains_key(&device);
    if there && devices_of(vm, client, operation).await?.contains(&device) {
        return Ok(());
    }
    let Some(port) = before.port_for(&device) else {
        return Err(vm
            .error(ErrorKind::Refused, operation)
            .with("because", "all its slots are taken"));
    };
    let mut after = before.clone();
    if !there {
        thing.add_to(&mut after.spec);
        after.ports.insert(device.clone(), port);
    }
    vm.note_shape(after).await?;
    let added = add(vm, client, thing, port, operation).await;
    if added.is_err() && !devices_of(vm, client, operation).await?.contains(&device) {
        remove_backend(vm, client, thing, operation).await?;
        vm.note_shape(without(before, &device)).await?;
    }
    added
}

/// The shape without a device.
fn without(mut shape: Shape, device: &str) -> Shape {
    shape.spec.disks.retain(|d| disk_id(&d.name) != device);
    shape.spec.nics.retain(|n| nic_id(n.mac) != device);
    shape.ports.remove(device);
    shape
}

async fn add(vm: &Arc<Vm>, client: &Client, thing: &Thing, port: u8, operation: &'static str) -> Result<()> {
    let limit = vm.env.config.timeouts.command;
    let failed = |e| refusal(vm, operation, e);
    let device = match thing {
        Thing::Disk(disk) => {
            if !nodes_of(vm, client, operation)
                .await?
                .contains(&disk_id(&disk.name))
            {
                let (id, of) = (vm.id, disk.clone());
                let below = blocking(move || Ok(devices::backing_of(id, &of))).await;
                let below = below.map_err(|e| errors::file(operation, id, e))??;
                let node = devices::disk_node(disk, below.as_ref());
                client
                    .execute("blockdev-add", node, limit)
                    .await
                    .map_err(failed)?;
            }
            devices::disk_device(disk, port)
        }
        Thing::Nic(nic) => {
            // One that was left behind by a verb that was cut short is as good, but cannot be looked for.
            remove_backend(vm, client, thing, operation).await?;
            let backend = devices::nic_backend(nic);
            client
                .execute("netdev_add", backend, limit)
                .await
                .map_err(failed)?;
            devices::nic_device(nic, port)
        }
    };
    client
        .execute("device_add", device, limit)
        .await
        .map_err(failed)?;
    match thing {
        Thing::Disk(disk) if disk.limits.is_some() => throttle(vm, client, disk, operation).await,
        _ => Ok(()),
    }
}

fn refusal(vm: &Vm, operation: &'static str, error: ClientError) -> Error {
    let kind = match &error {
        ClientError::Refused(refusal) => errors::start_kind(&refusal.text),
        _ => return errors::monitor(operation, vm.id, error),
    };
    vm.error(kind, operation).because(error)
}

/// Ensures that the block node or the network backend is gone.
async fn remove_backend(vm: &Vm, client: &Client, thing: &Thing, operation: &'static str) -> Result<()> {
    let limit = vm.env.config.timeouts.command;
    let removed = match thing {
        Thing::Disk(disk) => {
            let node = disk_id(&disk.name);
            if !nodes_of(vm, client, operation).await?.contains(&node) {
                return Ok(());
            }
            client
                .execute("blockdev-del", json!({ "node-name": node }), limit)
                .await
        }
        Thing::Nic(nic) => {
            let gone = client
                .execute("netdev_del", json!({ "id": net_id(nic.mac) }), limit)
                .await;
            match gone {
                Err(ClientError::Refused(r))
                    if r.class == "DeviceNotFound" || r.text.contains("not found") =>
                {
                    return Ok(());
                }
                gone => gone,
            }
        }
    };
    removed
        .map(drop)
        .map_err(|e| errors::monitor(operation, vm.id, e))
}

pub(crate) async fn detach_disk(core: &Core, id: ServerId, generation: u64, disk: &str) -> Result<()> {
    detach(core, id, generation, &disk_id(disk), "detach disk").await
}

pub(crate) async fn detach_nic(core: &Core, id: ServerId, generation: u64, mac: MacAddr) -> Result<()> {
    detach(core, id, generation, &nic_id(mac), "detach NIC").await
}

async fn detach(
    core: &Core,
    id: ServerId,
    generation: u64,
    device: &str,
    operation: &'static str,
) -> Result<()> {
    let vm = core.there(operation, id)?;
    let _op = vm.op.lock().await;
    let (spec, guest) = plug(core, &vm, generation, operation).await?;
    let mut wanted = spec.clone();
    wanted.disks.retain(|d| disk_id(&d.name) != device);
    wanted.nics.retain(|n| nic_id(n.mac) != device);
    if wanted != spec {
        describe(&vm, operation, &wanted).await?;
    }
    let Some(guest) = guest else { return Ok(()) };
    let shape = shape_of(&vm, operation).await?;
    let disk = shape.spec.disks.iter().find(|d| disk_id(&d.name) == device);
    let nic = shape.spec.nics.iter().find(|n| nic_id(n.mac) == device);
    let thing = match (disk, nic) {
        (Some(disk), _) => Thing::Disk(disk.clone()),
        (None, Some(nic)) => Thing::Nic(nic.clone()),
        (None, None) => return Ok(()),
    };
    let limit = vm.env.config.timeouts.unplug;
    match tokio::time::timeout(limit, until_let_go(&vm, &guest.client, device, operation)).await {
        Ok(gone) => gone?,
        Err(_) => {
            return Err(vm
                .error(ErrorKind::Refused, operation)
                .with("because", "the guest does not let go")
                .class_is(Class::Transient));
        }
    }
    remove_backend(&vm, &guest.client, &thing, operation).await?;
    vm.note_shape(without(shape, device)).await
}

/// Asks the guest to let go of the device until it has.
async fn until_let_go(vm: &Vm, client: &Client, device: &str, operation: &'static str) -> Result<()> {
    let mut events = client.events();
    while devices_of(vm, client, operation).await?.contains(device) {
        let asked = client
            .execute(
                "device_del",
                json!({ "id": device }),
                vm.env.config.timeouts.command,
            )
            .await;
        match asked {
            // It is being asked already, or has just gone.
            Ok(_) | Err(ClientError::Refused(_)) => {}
            Err(e) => return Err(errors::monitor(operation, vm.id, e)),
        }
        let deleted = async {
            loop {
                match events.recv().await {
                    Ok(e) if e.name == "DEVICE_DELETED" && e.data.get("device") == Some(&json!(device)) => {
                        return;
                    }
                    Ok(_) => {}
                    // What was lost is looked up.
                    Err(_) => return,
                }
            }
        };
        // Early in its boot a guest does not hear it.
        let _ = tokio::time::timeout(ASK_AGAIN, deleted).await;
    }
    Ok(())
}

/// Ids of the devices that QEMU has.
async fn devices_of(vm: &Vm, client: &Client, operation: &'static str) -> Result<BTreeSet<String>> {
    let path = json!({ "path": "/machine/peripheral" });
    names(vm, client, operation, "qom-list", path, "name").await
}

/// Names of the block nodes that QEMU has.
async fn nodes_of(vm: &Vm, client: &Client, operation: &'static str) -> Result<BTreeSet<String>> {
    let flat = json!({ "flat": true });
    names(
        vm,
        client,
        operation,
        "query-named-block-nodes",
        flat,
        "node-name",
    )
    .await
}

async fn names(
    vm: &Vm,
    client: &Client,
    operation: &'static str,
    command: &'static str,
    arguments: Value,
    field: &str,
) -> Result<BTreeSet<String>> {
    let limit = vm.env.config.timeouts.command;
    let answer = client.execute(command, arguments, limit).await;
    let answer = answer.map_err(|e| errors::monitor(operation, vm.id, e))?;
    let each = answer.as_array().into_iter().flatten();
    let named = each.filter_map(|one| one.get(field).and_then(Value::as_str));
    Ok(named.map(str::to_owned).collect())
}

/// What QEMU says of a disk that it holds.
pub(super) async fn info(
    vm: &Vm,
    client: &Client,
    operation: &'static str,
    disk: &DiskSpec,
) -> Result<img::Info> {
    let limit = vm.env.config.timeouts.command;
    let nodes = client
        .execute("query-named-block-nodes", json!({ "flat": true }), limit)
        .await;
    let nodes = nodes.map_err(|e| errors::monitor(operation, vm.id, e))?;
    let node = disk_id(&disk.name);
    let ours = |n: &&Value| n.get("node-name").and_then(Value::as_str) == Some(&node);
    let image = nodes
        .as_array()
        .and_then(|all| all.iter().find(ours))
        .and_then(|n| n.get("image"));
    let missing = || vm.error(ErrorKind::NotFound, operation).with("disk", &disk.name);
    serde_json::from_value(image.ok_or_else(missing)?.clone())
        .map_err(|e| vm.error(ErrorKind::Unavailable, operation).because(e))
}

pub(crate) async fn grow_disk(
    core: &Core,
    id: ServerId,
    generation: u64,
    name: &str,
    bytes: u64,
) -> Result<()> {
    const OPERATION: &str = "grow disk";
    let vm = core.there(OPERATION, id)?;
    let _op = vm.op.lock().await;
    let (spec, guest) = plug(core, &vm, generation, OPERATION).await?;
    let missing = || vm.error(ErrorKind::NotFound, OPERATION).with("disk", name);
    let Some(bytes) = bytes
        .checked_next_multiple_of(512)
        .filter(|b| i64::try_from(*b).is_ok())
    else {
        return Err(vm.error(ErrorKind::Invalid, OPERATION).with("bytes", bytes));
    };
    if let Some(guest) = &guest
        && let Some(disk) = shape_of(&vm, OPERATION).await?.disk(name)
    {
        if info(&vm, &guest.client, OPERATION, disk).await?.virtual_size < bytes {
            let wanted = json!({ "node-name": disk_id(name), "size": bytes });
            let limit = vm.env.config.timeouts.memory;
            let grown = guest.client.execute("block_resize", wanted, limit).await;
            grown.map_err(|e| refusal(&vm, OPERATION, e))?;
        }
        return Ok(());
    }
    let disk = spec.disks.iter().find(|d| d.name == name).ok_or_else(missing)?;
    if img::info(&vm, OPERATION, disk).await?.virtual_size < bytes {
        img::resize(&vm, OPERATION, disk, bytes).await?;
    }
    Ok(())
}

pub(crate) async fn limit_disk(
    core: &Core,
    id: ServerId,
    generation: u64,
    name: &str,
    limits: Option<IoLimits>,
) -> Result<()> {
    const OPERATION: &str = "limit disk";
    let vm = core.there(OPERATION, id)?;
    let _op = vm.op.lock().await;
    let (mut spec, guest) = plug(core, &vm, generation, OPERATION).await?;
    let mut found = false;
    if let Some(disk) = spec.disks.iter_mut().find(|d| d.name == name) {
        found = true;
        if disk.limits != limits {
            disk.limits = limits;
            describe(&vm, OPERATION, &spec).await?;
        }
    }
    if let Some(guest) = &guest {
        let mut shape = shape_of(&vm, OPERATION).await?;
        if let Some(disk) = shape.spec.disks.iter_mut().find(|d| d.name == name) {
            found = true;
            disk.limits = limits;
            let disk = disk.clone();
            vm.note_shape(shape).await?;
            throttle(&vm, &guest.client, &disk, OPERATION).await?;
        }
    }
    if found {
        Ok(())
    } else {
        Err(vm.error(ErrorKind::NotFound, OPERATION).with("disk", name))
    }
}

/// Applies what a new guest's disks may do at most.
pub(crate) async fn limit_all(vm: &Vm, client: &Client, shape: &Shape) -> Result<()> {
    for disk in shape.spec.disks.iter().filter(|d| d.limits.is_some()) {
        throttle(vm, client, disk, "start").await?;
    }
    Ok(())
}

async fn throttle(vm: &Vm, client: &Client, disk: &DiskSpec, operation: &'static str) -> Result<()> {
    let limits = disk.limits.unwrap_or_default();
    // 0 means no limit to QEMU.
    let most = |n: Option<u64>| n.map_or(0, |n| n.clamp(1, MOST));
    let wanted = json!({
        "id": format!("/machine/peripheral/{}/virtio-backend", disk_id(&disk.name)),
        "bps": most(limits.bytes), "bps_rd": 0, "bps_wr": 0,
        "iops": most(limits.operations), "iops_rd": 0, "iops_wr": 0,
    });
    let limit = vm.env.config.timeouts.command;
    let limited = client.execute("block_set_io_throttle", wanted, limit).await;
    limited
        .map(drop)
        .map_err(|e| errors::monitor(operation, vm.id, e))
}
