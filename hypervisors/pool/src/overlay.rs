//! Empty qcow2 overlays, written and read back by ourselves.
//!
//! ```text
//!  cluster 0    header (version 3), extension "backing format", name of the backing file
//!  cluster 1    refcount table: one entry, cluster 2
//!  cluster 2    refcount block: 1 for each cluster of this file
//!  cluster 3..  L1 table, all zero: every read goes to the backing file
//! ```
//!
//! The format of the backing file stands in the header, so that nobody ever probes what a guest may have written.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use skyloom_model::DiskFormat;

const MAGIC: [u8; 4] = *b"QFI\xfb";
const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Bytes of the disk that one L1 entry covers: a cluster of 8-byte L2 entries.
const PER_L1_ENTRY: u64 = CLUSTER * (CLUSTER / 8);
const HEADER_LEN: u32 = 104;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const MAX_NAME: usize = 1023;
/// Largest disk: its L1 table is well below QEMU's limit and its refcounts fit in one block.
pub(crate) const MAX_SIZE: u64 = 64 << 40;

/// What the header of an overlay says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes of the disk that the guest sees.
    pub(crate) size: u64,
    /// The file below.
    pub(crate) backing: Option<PathBuf>,
    /// Its format, as the header names it.
    pub(crate) backing_format: Option<DiskFormat>,
}

/// Writes an empty overlay of `size` bytes over `backing`, or one of zeroes over nothing, to an empty file.
pub(crate) fn write(file: &mut File, backing: Option<(&Path, DiskFormat)>, size: u64) -> io::Result<()> {
    let name = backing.map_or(&[][..], |(path, _)| path.as_os_str().as_bytes());
    let absolute = backing.is_none_or(|(path, _)| path.is_absolute());
    if name.len() > MAX_NAME || !absolute || !size.is_multiple_of(512) || size > MAX_SIZE {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let l1_entries = size.div_ceil(PER_L1_ENTRY);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER).max(1);
    let clusters = 3 + l1_clusters;

    let mut extensions = Vec::new();
    if let Some((_, format)) = backing {
        extensions.extend(BACKING_FORMAT.to_be_bytes());
        extensions.extend((format.as_str().len() as u32).to_be_bytes());
        extensions.extend(format.as_str().as_bytes());
        extensions.resize(extensions.len().next_multiple_of(8), 0);
    }
    extensions.extend([0; 8]);
    let name_at = backing.map_or(0, |_| u64::from(HEADER_LEN) + extensions.len() as u64);

    let mut head = Vec::with_capacity(CLUSTER as usize);
    head.extend(MAGIC);
    head.extend(3_u32.to_be_bytes());
    head.extend(name_at.to_be_bytes());
    head.extend((name.len() as u32).to_be_bytes());
    head.extend(CLUSTER_BITS.to_be_bytes());
    head.extend(size.to_be_bytes());
    head.extend(0_u32.to_be_bytes()); // no encryption
    head.extend((l1_entries as u32).to_be_bytes());
    head.extend((3 * CLUSTER).to_be_bytes()); // L1 table
    head.extend(CLUSTER.to_be_bytes()); // refcount table
    head.extend(1_u32.to_be_bytes()); // its clusters
    head.extend(0_u32.to_be_bytes()); // no snapshots
    head.extend([0; 8]);
    head.extend([0; 24]); // no features
    head.extend(4_u32.to_be_bytes()); // refcounts of 16 bits
    head.extend(HEADER_LEN.to_be_bytes());
    head.extend(extensions);
    head.extend(name);
    head.resize(CLUSTER as usize, 0);
    head.extend((2 * CLUSTER).to_be_bytes());
    head.resize(2 * CLUSTER as usize, 0);
    for _ in 0..clusters {
        head.extend(1_u16.to_be_bytes());
    }
    file.write_all(&head)?;
    file.set_len(clusters * CLUSTER)
}

/// Reads the header of a qcow2 file.
pub(crate) fn read(file: &mut File) -> io::Result<Header> {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(CLUSTER).read_to_end(&mut head)?;
    let bytes = |at: usize, len: usize| at.checked_add(len).and_then(|end| head.get(at..end));
    let number = |at: usize, len: usize| {
        let found = bytes(at, len).ok_or_else(|| damaged("the header is cut short"))?;
        io::Result::Ok(found.iter().fold(0_u64, |n, b| (n << 8) | u64::from(*b)))
    };
    if bytes(0, 4) != Some(&MAGIC) {
        return Err(damaged("is no qcow2 file"));
    }
    let version = number(4, 4)?;
    let name_at = number(8, 8)? as usize;
    let backing = match name_at {
        0 => None,
        at => {
            let len = number(16, 4)? as usize;
            let name = bytes(at, len).filter(|n| (1..=MAX_NAME).contains(&n.len()));
            let name = name.ok_or_else(|| damaged("the name of the backing file lies outside"))?;
            Some(PathBuf::from(OsString::from_vec(name.to_vec())))
        }
    };
    let mut at = if version >= 3 {
        number(100, 4)? as usize
    } else {
        72
    };
    let mut backing_format = None;
    // Extensions end with type 0; each takes at least 8 bytes, so that this ends.
    while let (kind @ 1.., len) = (number(at, 4)?, number(at.saturating_add(4), 4)? as usize) {
        if kind == u64::from(BACKING_FORMAT) {
            backing_format = match bytes(at + 8, len) {
                Some(b"raw") => Some(DiskFormat::Raw),
                Some(b"qcow2") => Some(DiskFormat::Qcow2),
                _ => return Err(damaged("the backing file has a format that we do not make")),
            };
        }
        at = at.saturating_add(8).saturating_add(len.next_multiple_of(8));
    }
    Ok(Header {
        size: number(24, 8)?,
        backing,
        backing_format,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn roundtrip(backing: &Path, format: DiskFormat, size: u64) -> io::Result<Header> {
        let mut file = tempfile::tempfile()?;
        write(&mut file, Some((backing, format)), size)?;
        read(&mut file)
    }

    #[test]
    fn over_nothing_there_is_nothing() {
        let mut file = tempfile::tempfile().unwrap();
        write(&mut file, None, 1 << 20).unwrap();
        let wanted = Header {
            size: 1 << 20,
            backing: None,
            backing_format: None,
        };
        assert_eq!(read(&mut file).unwrap(), wanted);
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let base = Path::new("/pool/base");
        assert!(roundtrip(base, DiskFormat::Raw, 513).is_err());
        assert!(roundtrip(base, DiskFormat::Raw, MAX_SIZE + 512).is_err());
        assert!(roundtrip(Path::new("relative"), DiskFormat::Raw, 512).is_err());
        assert!(roundtrip(Path::new(&format!("/{}", "x".repeat(1023))), DiskFormat::Raw, 512).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(name in "/[ -~]{1,200}", sectors in 0..MAX_SIZE / 512, raw in any::<bool>()) {
            let format = if raw { DiskFormat::Raw } else { DiskFormat::Qcow2 };
            let path = PathBuf::from(name);
            let wanted = Header { size: sectors * 512, backing: Some(path.clone()), backing_format: Some(format) };
            prop_assert_eq!(roundtrip(&path, format, sectors * 512)?, wanted);
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_panic(tail in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut file = tempfile::tempfile()?;
            file.write_all(&[b"QFI\xfb\0\0\0\x03".as_slice(), &tail].concat())?;
            let _ = read(&mut file);
        }
    }
}
