//! Tests of the domain XML.

use super::*;
use crate::kept::Element;
use proptest::prelude::*;
use serde::Deserialize;
use skyloom_model::{MacAddr, Name, ProjectId, ServerId};

pub(crate) fn spec() -> VmSpec {
    let disk = |name: &str, path: &str, overlay: bool| DiskSpec {
        name: name.into(),
        path: path.into(),
        format: if overlay {
            DiskFormat::Qcow2
        } else {
            DiskFormat::Raw
        },
        backing_format: overlay.then_some(DiskFormat::Qcow2),
        read_only: !overlay,
        limits: None,
    };
    VmSpec {
        id: ServerId::from_uuid(uuid::Uuid::from_u128(7)),
        project: ProjectId::from_uuid(uuid::Uuid::from_u128(8)),
        generation: 1,
        name: Name::new("x'/><evil a=\"").unwrap(),
        vcpus: 2,
        memory_mib: 256,
        disks: vec![
            disk("root", "/pool/a'\"<&>.qcow2", true),
            disk("seed", "/pool/seed.iso", false),
        ],
        nics: vec![NicSpec {
            kind: NicKind::User,
            mac: MacAddr::qemu([1, 2, 3]),
            device: None,
        }],
        boot: Boot::FirstDisk,
    }
}

#[derive(Debug, Deserialize)]
struct Read {
    #[serde(rename = "@type")]
    kind: String,
    name: String,
    metadata: ReadMetadata,
    os: ReadOs,
    devices: ReadDevices,
}
#[derive(Debug, Deserialize)]
struct ReadMetadata {
    domain: Element,
}
#[derive(Debug, Deserialize)]
struct ReadOs {
    cmdline: Option<String>,
}
#[derive(Debug, Deserialize)]
struct ReadDevices {
    #[serde(default)]
    disk: Vec<ReadDisk>,
    #[serde(default)]
    interface: Vec<ReadNic>,
}
#[derive(Debug, Deserialize)]
struct ReadDisk {
    driver: ReadDriver,
    source: ReadSource,
    #[serde(rename = "backingStore")]
    below: ReadBelow,
    readonly: Option<()>,
    iotune: Option<ReadTune>,
    boot: Option<ReadBoot>,
}
#[derive(Debug, Deserialize)]
struct ReadDriver {
    #[serde(rename = "@type")]
    format: String,
}
#[derive(Debug, Deserialize)]
struct ReadSource {
    #[serde(rename = "@file")]
    file: String,
}
#[derive(Debug, Deserialize)]
struct ReadBelow {
    source: Option<ReadSource>,
    format: Option<ReadType>,
    #[serde(rename = "backingStore")]
    below: Option<Box<ReadBelow>>,
}
#[derive(Debug, Deserialize)]
struct ReadType {
    #[serde(rename = "@type")]
    kind: String,
}
#[derive(Debug, Deserialize)]
struct ReadTune {
    total_bytes_sec: Option<u64>,
    total_iops_sec: Option<u64>,
}
#[derive(Debug, Deserialize)]
struct ReadBoot {
    #[serde(rename = "@order")]
    order: u32,
}
#[derive(Debug, Deserialize)]
struct ReadNic {
    #[serde(rename = "@type")]
    kind: String,
    target: Option<ReadTap>,
}
#[derive(Debug, Deserialize)]
struct ReadTap {
    #[serde(rename = "@dev")]
    dev: String,
}

fn around(below: Option<&[Option<PathBuf>]>) -> Around<'_> {
    Around {
        kind: Kind::Qemu(AcceleratorKind::Tcg),
        emulator: None,
        confine: false,
        console: Some(Path::new("/c/serial.log")),
        below,
    }
}

fn made(spec: &VmSpec, below: Option<&[Option<PathBuf>]>) -> (String, Read) {
    let xml = definition(&Kept::new(spec.clone()), &around(below)).unwrap();
    let read = quick_xml::de::from_str(&xml).unwrap();
    (xml, read)
}

#[test]
fn formats_and_chains_are_named_and_the_display_name_is_nowhere() {
    let below = [Some(PathBuf::from("/pool/base'<x>.qcow2")), None];
    let (xml, read) = made(&spec(), Some(&below));
    assert!(!xml.contains("<evil"), "{xml}");
    assert_eq!((read.kind.as_str(), read.name), ("qemu", spec().id.to_string()));
    let [root, seed] = read.devices.disk.as_slice() else {
        panic!("{xml}")
    };
    assert_eq!(root.source.file, "/pool/a'\"<&>.qcow2");
    assert_eq!(root.driver.format, "qcow2");
    let under = &root.below;
    assert_eq!(under.source.as_ref().unwrap().file, "/pool/base'<x>.qcow2");
    assert_eq!(under.format.as_ref().unwrap().kind, "qcow2");
    let end = under.below.as_ref().unwrap();
    assert!(end.source.is_none(), "the chain ends where we say: {xml}");
    assert!(seed.below.source.is_none() && seed.readonly.is_some() && root.readonly.is_none());
    assert_eq!(root.boot.as_ref().map(|b| b.order), Some(1));
    assert!(seed.boot.is_none());
    let kept = quick_xml::se::to_string(&read.metadata.domain).unwrap();
    assert_eq!(Kept::read(spec().id, &kept).unwrap().spec, spec());
    for needed in [
        "<model type=\"vga\"/>",
        "<controller type=\"usb\" model=\"none\"/>",
        "<seclabel type=\"none\"/>",
    ] {
        assert!(xml.contains(needed), "{needed} in {xml}");
    }
}

#[test]
fn a_disk_that_is_no_overlay_gets_no_chain_and_unknown_chains_no_disk() {
    let mut spec = spec();
    spec.disks[0].backing_format = None;
    let (_, read) = made(&spec, Some(&[Some("/etc/shadow".into()), None]));
    assert!(read.devices.disk[0].below.source.is_none());
    assert!(made(&spec, None).1.devices.disk.is_empty());
}

#[test]
fn limits_kernels_and_devices_of_the_host_are_told() {
    let mut spec = spec();
    spec.disks[0].limits = Some(IoLimits {
        operations: Some(100),
        bytes: None,
    });
    spec.nics[0].device = Some("sk-1".into());
    let line = "console=ttyS0 x=\"<&>\"";
    spec.boot = Boot::Kernel {
        kernel: "/r/vmlinuz".into(),
        initrd: None,
        command_line: line.into(),
    };
    check(&spec).unwrap();
    let (_, read) = made(&spec, Some(&[None, None]));
    let tune = read.devices.disk[0].iotune.as_ref().unwrap();
    assert_eq!((tune.total_iops_sec, tune.total_bytes_sec), (Some(100), None));
    assert!(read.devices.disk[0].boot.is_none());
    assert_eq!(read.os.cmdline.as_deref(), Some(line));
    let nic = &read.devices.interface[0];
    assert_eq!(nic.kind, "ethernet");
    assert_eq!(nic.target.as_ref().unwrap().dev, "sk-1");
}

#[test]
fn bad_specs_are_refused() {
    type Change = fn(&mut VmSpec);
    let bad: [Change; 14] = [
        |s| s.vcpus = 0,
        |s| s.vcpus = 256,
        |s| s.memory_mib = 0,
        |s| s.disks[0].name = "a,b".into(),
        |s| s.disks[0].name = String::new(),
        |s| s.disks[0].name = "x".repeat(21),
        |s| s.disks[0].name = "../x".into(),
        |s| s.disks[1].name = "root".into(),
        |s| s.disks[0].path = "relative".into(),
        |s| s.disks[0].path = "/a\0b".into(),
        |s| s.disks[0].path = "/a\u{ffff}b".into(),
        |s| s.disks[0].format = DiskFormat::Raw,
        |s| s.nics[0].device = Some("a/b".into()),
        |s| {
            s.boot = Boot::Kernel {
                kernel: "/k".into(),
                initrd: None,
                command_line: "a\nb".into(),
            }
        },
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

proptest! {
    #[test]
    fn whatever_a_path_holds_it_stays_one_value(name in "[^\u{0}-\u{1f}\u{7f}-\u{9f}\u{fffe}\u{ffff}]{1,40}") {
        let mut spec = spec();
        spec.disks[0].path = format!("/p/{name}").into();
        check(&spec).unwrap();
        let (_, read) = made(&spec, Some(&[None, None]));
        prop_assert_eq!(&read.devices.disk[0].source.file, &format!("/p/{name}"));
        prop_assert_eq!(read.devices.disk.len(), 2);
    }
}
