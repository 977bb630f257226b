//! Kernels and first file systems: files that a hypervisor loads into a guest's memory as they are.
//!
//! The hypervisor itself reads the kernel's header, and nothing of the first file system; the guest unpacks that. So the kernel's
//! header must make sense, and the first file system must be what kernels take: a cpio archive, plain or compressed.

use std::io::{Read, Seek};

use skyloom_model::DiskFormat;

use super::{ImageFacts, Refusal, Source, le16};

/// Most bytes of a kernel or a first file system: a guest has to have them in its memory.
const MAX_FILE: u64 = 512 << 20;
/// Where the protocol's header begins, and the first version of it that has all that a hypervisor of today reads.
const HEADER: usize = 0x202;
const OLDEST: u16 = 0x0206;

/// What a first file system may begin with: cpio, gzip, xz, zstd, lz4, bzip2, lzma.
const ARCHIVES: [&[u8]; 8] = [
    b"070701",
    b"070702",
    b"\x1f\x8b",
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",
    b"\x02\x21\x4c\x18",
    b"BZh",
    b"\x5d\0\0",
];

pub(super) fn kernel<R: Read + Seek>(file: &mut Source<'_, R>) -> Result<ImageFacts, Refusal> {
    let head = bounded(file, "image.no_kernel")?;
    let no_kernel = |what: &str| {
        Refusal::new(
            "image.no_kernel",
            format!("the content is no kernel of x86: {what}"),
        )
    };
    if head.len() < 0x264 {
        return Err(no_kernel("it is too short for a header"));
    }
    if le16(&head, 0x1fe) != 0xaa55 || head[HEADER..HEADER + 4] != *b"HdrS" {
        return Err(no_kernel("it has no header of the boot protocol"));
    }
    let version = le16(&head, 0x206);
    if version < OLDEST {
        return Err(no_kernel(&format!("its boot protocol {:#x} is too old", version)));
    }
    let setup_sectors = u64::from(match head[0x1f1] {
        0 => 4,
        n => n,
    });
    if (setup_sectors + 1) * 512 >= file.len {
        return Err(no_kernel("its real-mode part is longer than the file"));
    }
    Ok(facts(DiskFormat::Kernel, file.len))
}

pub(super) fn initrd<R: Read + Seek>(file: &mut Source<'_, R>) -> Result<ImageFacts, Refusal> {
    let head = bounded(file, "image.no_initrd")?;
    if !ARCHIVES.iter().any(|magic| head.starts_with(magic)) {
        let message =
            "the content is no first file system: it begins like no cpio archive, plain or compressed";
        return Err(Refusal::new("image.no_initrd", message));
    }
    Ok(facts(DiskFormat::Initrd, file.len))
}

fn bounded<R: Read + Seek>(file: &mut Source<'_, R>, code: &str) -> Result<Vec<u8>, Refusal> {
    if file.len > MAX_FILE {
        let message = format!("the file has {} bytes; {MAX_FILE} are allowed", file.len);
        return Err(Refusal::new("image.too_large", message));
    }
    if file.len < 16 {
        return Err(Refusal::new(code, "the file is empty, or nearly"));
    }
    file.read_up_to(0, 4096)
}

fn facts(format: DiskFormat, len: u64) -> ImageFacts {
    ImageFacts {
        format,
        virtual_size: len,
        file_size: len,
        cluster_size: None,
        version: None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::super::{Limits, inspect};
    use super::*;

    /// The least that counts as a kernel.
    fn least() -> Vec<u8> {
        let mut file = vec![0; 8192];
        file[0x1f1] = 4;
        file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        file[HEADER..HEADER + 4].copy_from_slice(b"HdrS");
        file[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
        file
    }

    fn code(content: Vec<u8>, claimed: DiskFormat) -> Result<ImageFacts, String> {
        let len = content.len() as u64;
        inspect(&mut Cursor::new(content), len, claimed, &Limits::default())
            .map_err(|refusal| refusal.reason().code)
    }

    #[test]
    fn kernels_have_a_header_that_makes_sense() {
        let facts = code(least(), DiskFormat::Kernel).unwrap();
        assert_eq!((facts.format, facts.file_size), (DiskFormat::Kernel, 8192));
        type Change = fn(&mut Vec<u8>);
        let bad: [Change; 5] = [
            |k| k[0x1fe] = 0,
            |k| k[HEADER] = b'X',
            |k| k[0x206..0x208].copy_from_slice(&[0, 2]),
            |k| k[0x1f1] = 255,
            |k| k.truncate(0x210),
        ];
        for change in bad {
            let mut kernel = least();
            change(&mut kernel);
            assert_eq!(code(kernel, DiskFormat::Kernel).unwrap_err(), "image.no_kernel");
        }
    }

    #[test]
    fn first_file_systems_begin_as_archives_do() {
        for magic in ARCHIVES {
            let mut file = magic.to_vec();
            file.resize(600, 0);
            assert!(code(file, DiskFormat::Initrd).is_ok());
        }
        for bad in [
            least(),
            b"QFI\xfb0123456789abcdef".to_vec(),
            b"KDMV0123456789abcdef".to_vec(),
            Vec::new(),
        ] {
            assert_eq!(code(bad, DiskFormat::Initrd).unwrap_err(), "image.no_initrd");
        }
    }

    #[test]
    fn what_is_loaded_is_no_disk() {
        assert!(code(least(), DiskFormat::Qcow2).is_err());
        let mut archive = b"\x1f\x8b".to_vec();
        archive.resize(1024, 0);
        assert!(code(archive, DiskFormat::Raw).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_without_harm(content in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = code(content.clone(), DiskFormat::Kernel);
            let _ = code(content, DiskFormat::Initrd);
        }
    }
}
