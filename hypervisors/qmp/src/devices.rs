//! The devices of a guest, as JSON: the same for its command line and for hot-plugging.
//!
//! Each disk and each NIC sits below a PCI Express root port of its own, so that it can come and go; which port is part
//! of the guest's [`Shape`], so that addresses stay as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skyloom_hypervisor::{DiskSpec, Error, ErrorKind, NicSpec, Result, VmSpec};
use skyloom_model::{DiskFormat, MacAddr, NicKind, ServerId};

use crate::qcow2;

/// Root ports, and so disks and NICs, that a guest can have.
pub(crate) const PORTS: u8 = 24;
/// The first slot of root ports on the root bus; each slot has eight.
const FIRST_SLOT: u8 = 0x10;

/// What a guest is made of: the definition of its start, with what came and went since, and where that is plugged in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shape {
    pub(crate) spec: VmSpec,
    /// Number of the root port by device id.
    pub(crate) ports: BTreeMap<String, u8>,
}

impl Shape {
    /// Disks first, then NICs, in their order.
    pub(crate) fn new(spec: VmSpec) -> Self {
        let ports = devices_of(&spec).zip(0..).collect();
        Self { spec, ports }
    }

    /// With ports that somebody tells; `None` when they are not those of its devices, each its own.
    pub(crate) fn plugged(spec: VmSpec, ports: BTreeMap<String, u8>) -> Option<Self> {
        let devices: BTreeSet<String> = devices_of(&spec).collect();
        let taken: BTreeSet<u8> = ports.values().copied().filter(|port| *port < PORTS).collect();
        let fits = ports.keys().eq(devices.iter()) && taken.len() == ports.len();
        fits.then_some(Self { spec, ports })
    }

    /// The port of a device that is there, or one for a new one.
    pub(crate) fn port_for(&self, device: &str) -> Option<u8> {
        let free = || (0..PORTS).find(|port| !self.ports.values().any(|p| p == port));
        self.ports.get(device).copied().or_else(free)
    }

    pub(crate) fn disk(&self, name: &str) -> Option<&DiskSpec> {
        self.spec.disks.iter().find(|d| d.name == name)
    }
}

/// Ids of its disks and NICs, in their order.
fn devices_of(spec: &VmSpec) -> impl Iterator<Item = String> {
    let disks = spec.disks.iter().map(|d| disk_id(&d.name));
    disks.chain(spec.nics.iter().map(|n| nic_id(n.mac)))
}

/// Id of a disk's device and of its block node.
pub(crate) fn disk_id(name: &str) -> String {
    format!("disk-{name}")
}

/// Id of a NIC's device.
pub(crate) fn nic_id(mac: MacAddr) -> String {
    format!("nic-{}", mac.to_string().replace(':', ""))
}

/// Id of a NIC's backend.
pub(crate) fn net_id(mac: MacAddr) -> String {
    format!("net-{}", mac.to_string().replace(':', ""))
}

/// For each disk the file below it. A disk that claims to be no overlay gets none, whatever its header says.
pub(crate) fn backing_files(spec: &VmSpec) -> Result<Vec<Option<PathBuf>>> {
    spec.disks.iter().map(|disk| backing_of(spec.id, disk)).collect()
}

/// The file below a disk.
pub(crate) fn backing_of(id: ServerId, disk: &DiskSpec) -> Result<Option<PathBuf>> {
    let error = |kind| {
        Error::new(kind, "open disk")
            .with("server", id)
            .with("disk", disk.path.display())
    };
    let readable = std::fs::metadata(&disk.path).and_then(|_| match disk.backing_format {
        Some(_) => qcow2::backing_file(&disk.path),
        None => Ok(None),
    });
    let below = readable.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => error(ErrorKind::NotFound),
        std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
            error(ErrorKind::Corrupt).because(e)
        }
        _ => error(ErrorKind::Unavailable).because(e),
    })?;
    match below {
        None if disk.backing_format.is_some() => {
            Err(error(ErrorKind::Corrupt).with("because", "it has no backing file"))
        }
        Some(path) if !path.is_absolute() || path.to_str().is_none() => Err(error(ErrorKind::Refused).with(
            "because",
            "the path of its backing file is not absolute and UTF-8",
        )),
        below => Ok(below),
    }
}

/// A file and its format. The chain ends here unless somebody adds a `backing`.
pub(crate) fn block_node(format: DiskFormat, path: &Path, read_only: bool) -> Value {
    let file = json!({
        "driver": "file",
        "filename": path,
        "read-only": read_only,
        "locking": "on",
        "discard": "unmap",
    });
    let mut node =
        json!({ "driver": format.as_str(), "read-only": read_only, "discard": "unmap", "file": file });
    if format == DiskFormat::Qcow2 {
        // Said explicitly, so that QEMU never follows the header.
        node["backing"] = Value::Null;
    }
    node
}

/// A disk's block node, over the file below it.
pub(crate) fn disk_node(disk: &DiskSpec, below: Option<&PathBuf>) -> Value {
    let mut node = block_node(disk.format, &disk.path, disk.read_only);
    if let (Some(path), Some(format)) = (below, disk.backing_format) {
        node["backing"] = block_node(format, path, true);
    }
    node["node-name"] = json!(disk_id(&disk.name));
    node
}

/// A disk's device.
pub(crate) fn disk_device(disk: &DiskSpec, port: u8) -> Value {
    let id = disk_id(&disk.name);
    json!({
        "driver": "virtio-blk-pci", "id": id, "drive": id, "serial": disk.name, "bus": port_id(port), "addr": "0x0",
    })
}

/// A NIC's backend.
pub(crate) fn nic_backend(nic: &NicSpec) -> Value {
    let id = net_id(nic.mac);
    match nic.kind {
        NicKind::User => json!({ "type": "user", "id": id }),
        // The device is there already: QEMU opens it, starts no script, and cannot make another one.
        NicKind::Tap => json!({
            "type": "tap", "id": id, "ifname": nic.device, "script": "no", "downscript": "no", "vhost": false,
        }),
    }
}

/// A NIC's device. An empty `romfile`: nothing boots from the network here, and iPXE's files need not be installed.
pub(crate) fn nic_device(nic: &NicSpec, port: u8) -> Value {
    json!({
        "driver": "virtio-net-pci", "id": nic_id(nic.mac), "netdev": net_id(nic.mac), "mac": nic.mac, "romfile": "",
        "bus": port_id(port), "addr": "0x0",
    })
}

fn port_id(port: u8) -> String {
    format!("port{port}")
}

/// What every guest has: a screen, a line to the agent in it, and the root ports.
pub(crate) fn machine() -> Vec<Value> {
    let mut all = vec![
        json!({ "driver": "VGA", "id": "screen", "vgamem_mb": 8, "bus": "pcie.0", "addr": "0x1" }),
        json!({ "driver": "virtio-serial-pci", "id": "lines", "max_ports": 2, "bus": "pcie.0", "addr": "0x2" }),
        json!({
            "driver": "virtserialport", "id": "agent", "chardev": "agent", "bus": "lines.0", "nr": 1,
            "name": "org.qemu.guest_agent.0",
        }),
    ];
    all.extend((0..PORTS).map(|port| {
        json!({
            "driver": "pcie-root-port", "id": port_id(port), "chassis": u16::from(port) + 1, "io-reserve": 0,
            "bus": "pcie.0", "addr": format!("{:#x}.{}", FIRST_SLOT + port / 8, port % 8), "multifunction": port % 8 == 0,
        })
    }));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use skyloom_model::{Name, ProjectId};

    fn shape() -> Shape {
        Shape::new(VmSpec {
            boot: skyloom_hypervisor::Boot::FirstDisk,
            id: ServerId::from_uuid(uuid::Uuid::from_u128(7)),
            project: ProjectId::from_uuid(uuid::Uuid::from_u128(8)),
            generation: 1,
            name: Name::new("x").unwrap(),
            vcpus: 2,
            memory_mib: 256,
            disks: vec![DiskSpec {
                limits: None,
                name: "root".into(),
                path: "/pool/a".into(),
                format: DiskFormat::Raw,
                backing_format: None,
                read_only: false,
            }],
            nics: vec![NicSpec {
                device: None,
                kind: NicKind::User,
                mac: MacAddr::qemu([1, 2, 3]),
            }],
        })
    }

    #[test]
    fn a_device_keeps_its_port_and_a_new_one_gets_the_first_that_is_free() {
        let mut shape = shape();
        assert_eq!(shape.ports["disk-root"], 0);
        assert_eq!(shape.ports[&nic_id(MacAddr::qemu([1, 2, 3]))], 1);
        assert_eq!(shape.port_for("disk-root"), Some(0));
        assert_eq!(shape.port_for("disk-data"), Some(2));
        shape.ports.remove("disk-root");
        assert_eq!(shape.port_for("disk-data"), Some(0));
        for port in 0..PORTS {
            shape.ports.insert(format!("x{port}"), port);
        }
        assert_eq!(shape.port_for("disk-data"), None, "all are taken");
    }

    #[test]
    fn ports_that_are_told_are_those_of_the_devices_each_its_own() {
        let good = shape();
        let nic = nic_id(MacAddr::qemu([1, 2, 3]));
        let told = |ports: &[(&str, u8)]| {
            let ports = ports.iter().map(|(d, p)| ((*d).to_owned(), *p)).collect();
            Shape::plugged(good.spec.clone(), ports)
        };
        let there = told(&[("disk-root", 7), (&nic, 3)]).unwrap();
        assert_eq!((there.ports["disk-root"], there.ports[&nic]), (7, 3));
        for bad in [
            &[][..],
            &[("disk-root", 7)],
            &[("disk-root", 3), (&nic, 3)],
            &[("disk-root", PORTS), (&nic, 3)],
            &[("disk-other", 7), (&nic, 3)],
            &[("disk-root", 7), (&nic, 3), ("disk-more", 4)],
        ] {
            assert_eq!(told(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn every_port_has_its_own_place() {
        let devices = machine();
        let mut places: Vec<String> = devices
            .iter()
            .filter(|d| d["bus"] == "pcie.0")
            .map(|d| d["addr"].to_string())
            .collect();
        let all = places.len();
        places.sort();
        places.dedup();
        assert_eq!((places.len(), all), (all, usize::from(PORTS) + 2));
    }
}
