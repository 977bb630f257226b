//! The command line of a QEMU, made from a [`VmSpec`] without pasting: every compound argument is one JSON document.
//!
//! Only ids, numbers, our own paths and checked device names stand on it. The display name does not: it is text for
//! people, in `desc.json`.

use std::collections::HashSet;
use std::path::PathBuf;

use serde_json::json;
use skyloom_hypervisor::{Boot, Error, ErrorKind, Result, VmSpec};
use skyloom_model::{DiskFormat, NicKind};

use crate::accel::AcceleratorKind;
use crate::devices::{self, Shape};
use crate::dir;

/// Id of the serial port's backend.
pub(crate) const SERIAL_ID: &str = "serial0";
/// Each has a root port of its own.
const MAX_DEVICES: usize = devices::PORTS as usize;
/// What a virtio disk can show of its serial number.
const MAX_DISK_NAME: usize = 20;
/// Longest name of a network device that Linux takes.
const MAX_DEVICE_NAME: usize = 15;

/// Longest command line that Linux takes on x86.
const MAX_COMMAND_LINE: usize = 2047;

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
    if let Boot::Kernel {
        kernel,
        initrd,
        command_line,
    } = &spec.boot
    {
        let mut files = std::iter::once(kernel).chain(initrd);
        if !files.all(|f| f.is_absolute() && f.to_str().is_some()) {
            return bad("the path of a kernel is absolute and UTF-8");
        }
        if command_line.len() > MAX_COMMAND_LINE || command_line.contains('\0') {
            return bad("a kernel's command line has at most 2047 bytes, and no zero");
        }
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
        if !disk.path.is_absolute() || disk.path.to_str().is_none() {
            return bad("a disk's path is absolute and UTF-8");
        }
        if disk.backing_format.is_some() && disk.format != DiskFormat::Qcow2 {
            return bad("only a qcow2 disk can be an overlay");
        }
    }
    let mut addresses = HashSet::new();
    for nic in &spec.nics {
        if !addresses.insert(nic.mac) {
            return bad("two NICs have one address");
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let named = |d: &String| (1..=MAX_DEVICE_NAME).contains(&d.len()) && d.bytes().all(plain);
        match (nic.kind, &nic.device) {
            (NicKind::User, None) => {}
            (NicKind::Tap, Some(device)) if named(device) => {}
            (NicKind::User, Some(_)) => return bad("a user-mode NIC has no device"),
            (NicKind::Tap, _) => return bad("a tap's name has 1 to 15 letters, digits and -"),
        }
    }
    Ok(())
}

/// The arguments, without the program. `incoming`: its memory will be told over the monitor.
pub(crate) fn build(
    shape: &Shape,
    accelerator: AcceleratorKind,
    below: &[Option<PathBuf>],
    incoming: bool,
) -> Vec<String> {
    let spec = &shape.spec;
    let id = spec.id.to_string();
    let mut argv: Vec<String> = Vec::new();
    let mut add = |option: &str, value: String| argv.extend([option.to_owned(), value]);

    add("-name", format!("guest={id}"));
    add("-uuid", id);
    add(
        "-machine",
        format!("q35,accel={},vmport=off,usb=off", accelerator.as_str()),
    );
    add("-cpu", accelerator.cpu().to_owned());
    add("-smp", format!("cpus={}", spec.vcpus));
    add("-m", format!("size={}M", spec.memory_mib));
    add("-rtc", "base=utc".to_owned());
    add("-vga", "none".to_owned());
    add("-display", "none".to_owned());
    add(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".to_owned(),
    );
    add(
        "-chardev",
        format!("socket,id=qmp,path={},server=on,wait=off", dir::SOCKET),
    );
    add("-mon", "chardev=qmp,mode=control".to_owned());
    add(
        "-chardev",
        format!("file,id={SERIAL_ID},path={},append=on", dir::SERIAL),
    );
    add(
        "-device",
        json!({ "driver": "isa-serial", "id": "serial", "chardev": SERIAL_ID }).to_string(),
    );

    add(
        "-chardev",
        format!("socket,id=agent,path={},server=on,wait=off", dir::AGENT),
    );
    for device in devices::machine() {
        add("-device", device.to_string());
    }
    let port = |device: String| shape.ports.get(&device).copied().unwrap_or_default();
    for (at, disk) in spec.disks.iter().enumerate() {
        let node = devices::disk_node(disk, below.get(at).and_then(Option::as_ref));
        add("-blockdev", node.to_string());
        let mut device = devices::disk_device(disk, port(devices::disk_id(&disk.name)));
        if at == 0 && spec.boot == Boot::FirstDisk {
            device["bootindex"] = json!(0);
        }
        add("-device", device.to_string());
    }
    for nic in &spec.nics {
        add("-netdev", devices::nic_backend(nic).to_string());
        let device = devices::nic_device(nic, port(devices::nic_id(nic.mac)));
        add("-device", device.to_string());
    }
    if let Boot::Kernel {
        kernel,
        initrd,
        command_line,
    } = &spec.boot
    {
        add("-kernel", kernel.display().to_string());
        if let Some(initrd) = initrd {
            add("-initrd", initrd.display().to_string());
        }
        add("-append", command_line.clone());
    }
    if incoming {
        add("-incoming", "defer".to_owned());
    }
    // CPUs wait for our `cont`; after the guest's shutdown QEMU waits for our `quit`, so that its cause is never lost.
    argv.extend(["-nodefaults", "-no-user-config", "-S", "-no-shutdown"].map(str::to_owned));
    argv
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use skyloom_hypervisor::{DiskSpec, NicSpec};
    use skyloom_model::{MacAddr, Name, ProjectId, ServerId};

    fn spec() -> VmSpec {
        let disk = |name: &str, path: &str, backing| DiskSpec {
            limits: None,
            name: name.into(),
            path: path.into(),
            format: if backing {
                DiskFormat::Qcow2
            } else {
                DiskFormat::Raw
            },
            backing_format: backing.then_some(DiskFormat::Qcow2),
            read_only: !backing,
        };
        VmSpec {
            boot: skyloom_hypervisor::Boot::FirstDisk,
            id: ServerId::from_uuid(uuid::Uuid::from_u128(7)),
            project: ProjectId::from_uuid(uuid::Uuid::from_u128(8)),
            generation: 1,
            name: Name::new("x,process=evil,$(touch /tmp/p)").unwrap(),
            vcpus: 2,
            memory_mib: 256,
            disks: vec![
                disk("root", "/pool/a,file=/etc/shadow\"}", true),
                disk("seed", "/pool/seed.iso", false),
            ],
            nics: vec![NicSpec {
                device: None,
                kind: NicKind::User,
                mac: MacAddr::qemu([1, 2, 3]),
            }],
        }
    }

    fn json_after(argv: &[String], option: &str) -> Vec<Value> {
        let pairs = argv.iter().zip(&argv[1..]);
        pairs
            .filter(|(o, _)| *o == option)
            .filter_map(|(_, v)| serde_json::from_str(v).ok())
            .collect()
    }

    #[test]
    fn the_display_name_is_nowhere_and_paths_are_json_strings() {
        let spec = spec();
        let argv = build(
            &Shape::new(spec.clone()),
            AcceleratorKind::Tcg,
            &[Some("/pool/base,x.qcow2".into()), None],
            false,
        );
        assert!(
            argv.iter().all(|a| !a.contains("evil") && !a.contains("touch")),
            "{argv:?}"
        );
        let disks = json_after(&argv, "-blockdev");
        assert_eq!(disks.len(), 2);
        assert_eq!(disks[0]["file"]["filename"], "/pool/a,file=/etc/shadow\"}");
        assert_eq!(disks[0]["backing"]["file"]["filename"], "/pool/base,x.qcow2");
        assert_eq!(disks[0]["backing"]["driver"], "qcow2");
        assert_eq!(disks[0]["backing"]["read-only"], true);
        assert_eq!(
            disks[0]["backing"]["backing"],
            Value::Null,
            "the chain ends where we say"
        );
        assert_eq!(disks[1]["read-only"], true);
        let devices = json_after(&argv, "-device");
        assert_eq!(devices.iter().filter(|d| d.get("bootindex").is_some()).count(), 1);
        assert_eq!(json_after(&argv, "-netdev").len(), 1);
        for needed in ["-nodefaults", "-no-user-config", "-S", "-no-shutdown", "-sandbox"] {
            assert!(argv.iter().any(|a| a == needed), "{needed}");
        }
    }

    #[test]
    fn a_disk_that_is_no_overlay_gets_no_backing_whatever_its_header_says() {
        let mut spec = spec();
        spec.disks[0].backing_format = None;
        let argv = build(
            &Shape::new(spec.clone()),
            AcceleratorKind::Kvm,
            &[None, None],
            false,
        );
        let node = &json_after(&argv, "-blockdev")[0];
        assert_eq!(node.get("backing"), Some(&Value::Null));
    }

    #[test]
    fn a_tap_is_opened_by_its_name_and_runs_no_script() {
        let mut spec = spec();
        spec.nics.push(NicSpec {
            device: Some("skt0123456789ab".into()),
            kind: NicKind::Tap,
            mac: MacAddr::qemu([4, 5, 6]),
        });
        assert!(check(&spec).is_ok());
        let argv = build(
            &Shape::new(spec.clone()),
            AcceleratorKind::Tcg,
            &[None, None],
            false,
        );
        let tap = &json_after(&argv, "-netdev")[1];
        assert_eq!(tap["ifname"], "skt0123456789ab");
        assert_eq!((&tap["script"], &tap["downscript"]), (&json!("no"), &json!("no")));
        assert_eq!(tap["vhost"], false);
        for device in [None, Some(""), Some("a,script=/x"), Some("skt0123456789abc")] {
            spec.nics[1].device = device.map(str::to_owned);
            assert_eq!(check(&spec).unwrap_err().kind(), ErrorKind::Invalid, "{device:?}");
        }
        spec.nics[1].kind = NicKind::User;
        spec.nics[1].device = Some("skt0".into());
        assert_eq!(check(&spec).unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn a_kernel_is_booted_instead_of_the_first_disk_and_its_command_line_is_one_argument() {
        let mut spec = spec();
        let line = "-S,file=/etc/shadow \"quit\" $(reboot)";
        spec.boot = Boot::Kernel {
            kernel: "/boot/k,x".into(),
            initrd: Some("/boot/i".into()),
            command_line: line.into(),
        };
        assert!(check(&spec).is_ok());
        let argv = build(
            &Shape::new(spec.clone()),
            AcceleratorKind::Tcg,
            &[None, None],
            true,
        );
        let after = |option: &str| {
            argv.iter()
                .zip(&argv[1..])
                .find(|(o, _)| *o == option)
                .map(|(_, v)| v.as_str())
        };
        assert_eq!(after("-kernel"), Some("/boot/k,x"));
        assert_eq!(after("-initrd"), Some("/boot/i"));
        assert_eq!(after("-append"), Some(line));
        assert_eq!(after("-incoming"), Some("defer"));
        assert!(
            json_after(&argv, "-device")
                .iter()
                .all(|d| d.get("bootindex").is_none())
        );
        for (kernel, command_line) in [("k", ""), ("/k", "a\0b"), ("/k", &"x".repeat(2048))] {
            spec.boot = Boot::Kernel {
                kernel: kernel.into(),
                initrd: None,
                command_line: command_line.into(),
            };
            assert_eq!(check(&spec).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn bad_specs_are_refused() {
        type Change = fn(&mut VmSpec);
        let bad: [Change; 10] = [
            |s| s.vcpus = 0,
            |s| s.vcpus = 256,
            |s| s.memory_mib = 0,
            |s| s.disks[0].name = "a,b".into(),
            |s| s.disks[0].name = String::new(),
            |s| s.disks[0].name = "x".repeat(21),
            |s| s.disks[0].name = "../x".into(),
            |s| s.disks[1].name = "root".into(),
            |s| s.disks[0].path = "relative".into(),
            |s| s.disks[0].format = DiskFormat::Raw,
        ];
        assert!(check(&spec()).is_ok());
        for change in bad {
            let mut spec = spec();
            change(&mut spec);
            assert_eq!(check(&spec).unwrap_err().kind(), ErrorKind::Invalid);
        }
        let mut many = spec();
        many.nics = vec![many.nics[0].clone(); 24];
        assert_eq!(check(&many).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
