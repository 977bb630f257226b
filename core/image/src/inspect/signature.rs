//! All signatures at once: every format that a tool could take the file for.

use std::fmt;
use std::io::{Read, Seek};

use super::{Refusal, Source, be32, le32};

/// A format that content can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Raw,
    Qcow2,
    Qed,
    Vmdk,
    Vhd,
    Vhdx,
    Vdi,
    Luks,
    Iso,
    Udf,
    Parallels,
    Cow,
    Bochs,
    Dmg,
    Cloop,
    Compressed,
    Archive,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "a raw disk",
            Self::Qcow2 => "qcow2",
            Self::Qed => "QED",
            Self::Vmdk => "VMDK",
            Self::Vhd => "VHD",
            Self::Vhdx => "VHDX",
            Self::Vdi => "VDI",
            Self::Luks => "LUKS",
            Self::Iso => "an ISO 9660 CD",
            Self::Udf => "a UDF disc",
            Self::Parallels => "Parallels",
            Self::Cow => "COW",
            Self::Bochs => "Bochs",
            Self::Dmg => "DMG",
            Self::Cloop => "cloop",
            Self::Compressed => "a compressed file",
            Self::Archive => "an archive",
        })
    }
}

/// What the signatures say.
pub(super) struct Seen {
    /// All formats that match, each once; none means raw.
    pub formats: Vec<Found>,
    /// The first bytes of the file.
    pub head: Vec<u8>,
    /// The first sector ends in 55 AA.
    pub boot_signature: bool,
    /// A GPT header stands in the second sector.
    pub gpt: bool,
}

const HEAD: u64 = 4096;

/// Signatures at fixed places near the start.
const MAGICS: &[(Found, usize, &[u8])] = &[
    (Found::Qcow2, 0, b"QFI\xfb"),
    (Found::Qed, 0, b"QED\0"),
    (Found::Vmdk, 0, b"KDMV"),
    (Found::Vmdk, 0, b"COWD"),
    (Found::Vhd, 0, b"conectix"),
    (Found::Vhdx, 0, b"vhdxfile"),
    (Found::Vdi, 0, b"<<< "),
    (Found::Luks, 0, b"LUKS\xba\xbe"),
    (Found::Luks, 0, b"SKUL\xba\xbe"),
    (Found::Parallels, 0, b"WithoutFreeSpace"),
    (Found::Parallels, 0, b"WithouFreSpacExt"),
    (Found::Cow, 0, b"OOOM"),
    (Found::Bochs, 0, b"Bochs Virtual HD Image"),
    (Found::Cloop, 0, b"#!/bin/sh\n#V2.0 Format"),
    (Found::Compressed, 0, b"\x1f\x8b"),
    (Found::Compressed, 0, b"\xfd7zXZ\0"),
    (Found::Compressed, 0, b"\x28\xb5\x2f\xfd"),
    (Found::Compressed, 0, b"\x04\x22\x4d\x18"),
    (Found::Compressed, 4, b"1AY&SY"),
    (Found::Archive, 0, b"PK\x03\x04"),
    (Found::Archive, 0, b"7z\xbc\xaf\x27\x1c"),
    (Found::Archive, 257, b"ustar"),
];

/// Looks at the start, the volume descriptors and the end of the file.
pub(super) fn look<R: Read + Seek>(file: &mut Source<'_, R>) -> Result<Seen, Refusal> {
    let head = file.read_up_to(0, HEAD)?;
    let mut formats = Vec::new();
    let mut add = |found| {
        if !formats.contains(&found) {
            formats.push(found);
        }
    };
    for (found, at, magic) in MAGICS {
        if head.get(*at..).is_some_and(|rest| rest.starts_with(magic)) {
            add(*found);
        }
    }
    if le32(&head, 0x40) == 0xbeda_107f {
        add(Found::Vdi);
    }
    if vmdk_descriptor(&head) {
        add(Found::Vmdk);
    }

    // Volume descriptors of CDs and DVDs: 2048-byte sectors from number 16 on; a few are enough to see the first set.
    let descriptors = file.read_up_to(16 * 2048, 8 * 2048)?;
    for sector in descriptors.chunks(2048) {
        match sector.get(1..6) {
            Some(b"CD001") => add(Found::Iso),
            Some(b"BEA01" | b"NSR02" | b"NSR03") => add(Found::Udf),
            _ => {}
        }
    }

    // Trailers: the VHD footer is the last sector (511 bytes in old files), and so is that of DMG.
    let last = file.read_up_to(file.len.saturating_sub(512), 512)?;
    if last.starts_with(b"conectix") || last.get(1..).is_some_and(|rest| rest.starts_with(b"conectix")) {
        add(Found::Vhd);
    }
    if be32(&last, 0) == u32::from_be_bytes(*b"koly") {
        add(Found::Dmg);
    }
    Ok(Seen {
        boot_signature: head.get(510..512) == Some(&[0x55, 0xaa]),
        gpt: head.get(512..520) == Some(b"EFI PART"),
        formats,
        head,
    })
}

/// VMDK descriptors are text: `# Disk DescriptorFile`, or what QEMU takes for one (comments and blank lines, then
/// `version=`). They name other files, so any likeness counts.
fn vmdk_descriptor(head: &[u8]) -> bool {
    let title = b"# disk descriptorfile";
    let lower: Vec<u8> = head.iter().take(1024).map(u8::to_ascii_lowercase).collect();
    if lower.windows(title.len()).any(|w| w == title) {
        return true;
    }
    for line in head.split(|b| *b == b'\n') {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        return line.to_ascii_lowercase().starts_with(b"version=");
    }
    false
}
