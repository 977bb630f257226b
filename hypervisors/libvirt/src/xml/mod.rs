//! The domain XML of a [`VmSpec`], made by a serializer: no value is ever pasted.
//!
//! The domain's name is the server's id. The display name stands nowhere but in our own element (see `kept.rs`). Every
//! device is named, formats and the whole chain of each disk too, so that libvirt and QEMU choose and probe nothing.

mod model;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use skyloom_hypervisor::{Boot, DiskSpec, Error, ErrorKind, Half, NicSpec, Result, VmSpec};
use skyloom_model::{DiskFormat, IoLimits, NicKind};
use skyloom_qemu::accel::AcceleratorKind;

use self::model::{
    Address, Arg, Below, Channel, ChannelTarget, Clock, CommandLine, Controller, Devices, Disk, Domain,
    Driver, Empty, Enabled, Features, FileSource, Interface, IoTune, Log, Machine, Memory, Metadata, Mode,
    Model, Named, Order, Os, Serial, SerialTarget, Switch, Tap, Target, Typed, Video,
};
use crate::kept::Kept;

/// Devices that a domain may have beside the machine's own.
const MAX_DEVICES: usize = 24;
/// Ports for devices that come while the guest runs.
const SPARE_PORTS: usize = 8;
/// What a virtio disk can show of its serial number.
const MAX_DISK_NAME: usize = 20;

/// What runs a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// QEMU, with this accelerator.
    Qemu(AcceleratorKind),
    /// libvirt's test driver: nothing runs.
    Test,
}

/// What else a definition needs.
#[derive(Debug)]
pub(crate) struct Around<'a> {
    pub(crate) kind: Kind,
    pub(crate) emulator: Option<&'a Path>,
    /// Whether the daemon confines guests as it is configured to. A session daemon cannot.
    pub(crate) confine: bool,
    /// Where the serial port writes to.
    pub(crate) console: Option<&'a Path>,
    /// For each disk the file below it; `None`: the disks are not known yet, and are left out.
    pub(crate) below: Option<&'a [Option<PathBuf>]>,
}

/// Checks what a domain asks for, before anything is kept of it.
pub(crate) fn check(spec: &VmSpec) -> Result<()> {
    let bad = |what: &str| {
        Err(Error::new(ErrorKind::Invalid, "define")
            .with("server", spec.id)
            .with("because", what))
    };
    if !(1..=255).contains(&spec.vcpus) {
        return bad("a domain has 1 to 255 CPUs");
    }
    if !(1..=4 * 1024 * 1024).contains(&spec.memory_mib) {
        return bad("a domain has 1 MiB to 4 TiB of memory");
    }
    if spec.disks.len() + spec.nics.len() > MAX_DEVICES {
        return bad("a domain has at most 24 disks and NICs");
    }
    let mut names = HashSet::new();
    for disk in &spec.disks {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if disk.name.is_empty() || disk.name.len() > MAX_DISK_NAME || !disk.name.bytes().all(plain) {
            return bad("a disk's name has 1 to 20 of a-z, 0-9 and -");
        }
        if !names.insert(&disk.name) {
            return bad("two disks have one name");
        }
        if !disk.path.is_absolute() || !can_stand(&disk.path) {
            return bad("a disk's path is absolute, UTF-8 and printable");
        }
        if disk.backing_format.is_some() && disk.format != DiskFormat::Qcow2 {
            return bad("only a qcow2 disk can be an overlay");
        }
    }
    for nic in &spec.nics {
        // A kind with a device of the host is that device; only the user-mode network has none.
        let known = match &nic.device {
            Some(device) => is_device(device),
            None => nic.kind == NicKind::User,
        };
        if !known {
            return bad("a NIC is of the user-mode network or names its device");
        }
    }
    if let Boot::Kernel {
        kernel,
        initrd,
        command_line,
    } = &spec.boot
    {
        let files = std::iter::once(kernel).chain(initrd);
        if !files.into_iter().all(|p| p.is_absolute() && can_stand(p)) || !printable(command_line) {
            return bad("a kernel's files and command line are absolute and printable");
        }
    }
    Ok(())
}

/// Whether libvirt's XML can hold the text as it is.
fn printable(text: &str) -> bool {
    !text
        .chars()
        .any(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'))
}

pub(crate) fn can_stand(path: &Path) -> bool {
    path.to_str().is_some_and(printable)
}

/// The name of a network device of the host.
fn is_device(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !matches!(name, "." | "..")
}

/// Paths were checked to be UTF-8.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// `vda`, `vdb`, … of the disk at this place.
pub(crate) fn target(at: usize) -> String {
    let letter = char::from(b'a' + u8::try_from(at % 26).unwrap_or_default());
    format!("vd{letter}")
}

fn disk(disk: &DiskSpec, dev: String, below: Option<&Path>, boots: bool) -> Disk {
    let end = || Below {
        kind: None,
        format: None,
        source: None,
        below: None,
    };
    let below = match (below, disk.backing_format) {
        (Some(path), Some(format)) => Below {
            kind: Some("file"),
            format: Some(Typed {
                kind: format.as_str(),
            }),
            source: Some(FileSource { file: text(path) }),
            below: Some(Empty {}),
        },
        _ => end(),
    };
    let limit = |limits: IoLimits| IoTune {
        total_bytes_sec: limits.bytes,
        total_iops_sec: limits.operations,
    };
    Disk {
        kind: "file",
        device: "disk",
        driver: Driver {
            name: "qemu",
            format: disk.format.as_str(),
            discard: "unmap",
        },
        source: FileSource {
            file: text(&disk.path),
        },
        below,
        target: Target { dev, bus: "virtio" },
        iotune: disk.limits.map(limit),
        readonly: disk.read_only.then_some(Empty {}),
        serial: disk.name.clone(),
        boot: boots.then_some(Order { order: 1 }),
    }
}

fn interface(nic: &NicSpec) -> Interface {
    Interface {
        kind: if nic.device.is_some() { "ethernet" } else { "user" },
        mac: Address {
            address: nic.mac.to_string(),
        },
        target: nic.device.clone().map(|dev| Tap { dev, managed: "no" }),
        model: Typed { kind: "virtio" },
        // Nothing boots from the network here, and iPXE's files need not be installed.
        rom: Enabled { enabled: "no" },
    }
}

/// No USB, and a port for each device: the spec's, the agent's channel, and those to come.
fn controllers(spec: &VmSpec) -> Vec<Controller> {
    let ports = spec.disks.len() + spec.nics.len() + 1 + SPARE_PORTS;
    let pci = |model| Controller { kind: "pci", model };
    let usb = Controller {
        kind: "usb",
        model: "none",
    };
    [usb, pci("pcie-root")]
        .into_iter()
        .chain(std::iter::repeat_with(|| pci("pcie-root-port")).take(ports))
        .collect()
}

/// One disk, as the device `dev`.
pub(crate) fn disk_device(
    spec: &DiskSpec,
    dev: String,
    below: Option<&Path>,
) -> std::result::Result<String, String> {
    quick_xml::se::to_string(&disk(spec, dev, below, false)).map_err(|e| e.to_string())
}

/// One NIC.
pub(crate) fn nic_device(nic: &NicSpec) -> std::result::Result<String, String> {
    quick_xml::se::to_string(&interface(nic)).map_err(|e| e.to_string())
}

/// The whole definition.
pub(crate) fn definition(kept: &Kept, around: &Around<'_>) -> Result<String, String> {
    let spec = &kept.spec;
    let qemu = matches!(around.kind, Kind::Qemu(_));
    let (kind, cpu) = match around.kind {
        Kind::Qemu(AcceleratorKind::Kvm) => ("kvm", Some("host-passthrough")),
        Kind::Qemu(AcceleratorKind::Tcg) => ("qemu", Some("maximum")),
        Kind::Test => ("test", None),
    };
    let (kernel, initrd, cmdline) = match &spec.boot {
        Boot::FirstDisk => (None, None, None),
        Boot::Kernel {
            kernel,
            initrd,
            command_line,
        } => (
            Some(text(kernel)),
            initrd.as_deref().map(text),
            Some(command_line.clone()),
        ),
    };
    let id = spec.id.to_string();
    let first_disk = spec.boot == Boot::FirstDisk;
    let disks = around.below.map(|below| {
        let below = below.iter().map(Option::as_deref);
        let each = spec.disks.iter().zip(below).enumerate();
        each.map(|(at, (d, below))| disk(d, target(at), below, at == 0 && first_disk))
            .collect()
    });
    // libvirt has no word for a domain that waits for another host's QEMU to send its memory.
    let waits = qemu && kept.way.half == Half::Receiving;
    let domain = Domain {
        kind,
        qemu: waits.then_some("http://libvirt.org/schemas/domain/qemu/1.0"),
        name: id.clone(),
        uuid: id,
        metadata: Metadata { domain: kept.part()? },
        memory: Memory {
            unit: "MiB",
            amount: spec.memory_mib,
        },
        vcpu: spec.vcpus,
        os: Os {
            machine: Machine {
                arch: qemu.then_some("x86_64"),
                machine: qemu.then_some("q35"),
                kind: "hvm",
            },
            kernel,
            initrd,
            cmdline,
        },
        features: Features {
            acpi: Empty {},
            apic: Empty {},
            vmport: qemu.then_some(Switch { state: "off" }),
        },
        cpu: cpu.map(|mode| Mode { mode }),
        clock: Clock { offset: "utc" },
        on_poweroff: "destroy",
        on_reboot: "restart",
        on_crash: "destroy",
        devices: Devices {
            emulator: around.emulator.map(text),
            disk: disks.unwrap_or_default(),
            controller: if qemu { controllers(spec) } else { Vec::new() },
            interface: spec.nics.iter().map(interface).collect(),
            serial: around.console.map(|path| Serial {
                kind: "file",
                source: Log {
                    path: text(path),
                    append: "on",
                },
                target: SerialTarget {
                    kind: "isa-serial",
                    port: 0,
                    model: Named { name: "isa-serial" },
                },
            }),
            // The guest agent's, whether there is one or not.
            channel: qemu.then_some(Channel {
                kind: "unix",
                target: ChannelTarget {
                    kind: "virtio",
                    name: "org.qemu.guest_agent.0",
                },
            }),
            // What the guest shows, to nobody but `screenshot`.
            video: Video {
                model: Typed {
                    kind: if qemu { "vga" } else { "none" },
                },
            },
            memballoon: Model { model: "none" },
        },
        seclabel: (qemu && !around.confine).then_some(Typed { kind: "none" }),
        commandline: waits.then(|| CommandLine {
            args: ["-incoming", "defer"].map(|value| Arg { value }).into(),
        }),
    };
    quick_xml::se::to_string(&domain).map_err(|e| e.to_string())
}

#[cfg(test)]
pub(crate) mod tests;
