//! qcow2: header, header extensions, refcount table, L1 table, L2 tables. All offsets are checked before they are
//! followed; what can name another file, and what this code does not know, is refused.
//!
//! Format: <https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.txt>

use std::io::{Read, Seek};

use skyloom_model::DiskFormat;

use super::{ImageFacts, Limits, REFORMAT, Refusal, Source, be32, be64, check_virtual_size};

const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;
const INCOMPATIBLE_COMPRESSION: u64 = 1 << 3;
const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;
/// Dirty (refcounts to be repaired), corrupt, data file, compression type, extended L2.
const INCOMPATIBLE_KNOWN: u64 = 0b1_1111;

const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const EXTENSION_FEATURE_NAMES: u32 = 0x6803_f857;
const EXTENSION_ENCRYPTION: u32 = 0x0537_be77;

/// QEMU's own limits.
const MAX_L1_BYTES: u64 = 32 << 20;
const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;

/// Bits 9 to 55: where a table or cluster lies.
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;

/// Table bytes read at once.
const CHUNK: u64 = 64 << 10;

/// What the header says, after its checks.
struct Header {
    version: u32,
    cluster_bits: u32,
    size: u64,
    l1_entries: u64,
    l1_offset: u64,
    refcount_offset: u64,
    refcount_bytes: u64,
    extended_l2: bool,
    length: u64,
}

impl Header {
    const fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }
}

pub(super) fn inspect<R: Read + Seek>(
    file: &mut Source<'_, R>,
    limits: &Limits,
) -> Result<ImageFacts, Refusal> {
    let mut head = file.read_up_to(0, 112)?;
    head.resize(112, 0);
    let header = parse(&head)?;
    check_virtual_size(header.size, limits)?;
    check_extensions(file, &header)?;
    check_refcounts(file, &header)?;
    check_l1(file, &header)?;
    Ok(ImageFacts {
        format: DiskFormat::Qcow2,
        virtual_size: header.size,
        file_size: file.len,
        cluster_size: Some(header.cluster()),
        version: Some(header.version),
    })
}

/// The fixed part of the header. What names another file is looked at first, so that its refusal says so.
fn parse(head: &[u8]) -> Result<Header, Refusal> {
    let version = be32(head, 4);
    if !matches!(version, 2 | 3) {
        return Err(Refusal::new(
            "image.version",
            format!("qcow2 version {version} is not accepted"),
        )
        .hint(REFORMAT));
    }
    if be64(head, 8) != 0 || be32(head, 16) != 0 {
        return Err(backing_file());
    }
    let incompatible = if version == 3 { be64(head, 72) } else { 0 };
    if incompatible & INCOMPATIBLE_DATA_FILE != 0 {
        return Err(data_file());
    }
    if incompatible & !INCOMPATIBLE_KNOWN != 0 {
        let message = format!("the image needs features that are not known (bits {incompatible:#x})");
        return Err(Refusal::new("image.unknown_feature", message).hint(REFORMAT));
    }
    if incompatible & INCOMPATIBLE_CORRUPT != 0 {
        return Err(Refusal::corrupt("the image is marked as corrupt").hint(REFORMAT));
    }
    if be32(head, 32) != 0 {
        return Err(encrypted());
    }
    if be32(head, 60) != 0 {
        let message = format!("the image has {} internal snapshots", be32(head, 60));
        return Err(Refusal::new("image.has_snapshots", message).hint(REFORMAT));
    }
    let cluster_bits = be32(head, 20);
    let extended_l2 = incompatible & INCOMPATIBLE_EXTENDED_L2 != 0;
    let smallest = if extended_l2 { 14 } else { 9 };
    if !(smallest..=21).contains(&cluster_bits) {
        return Err(Refusal::corrupt(format!(
            "clusters of 2^{cluster_bits} bytes are not possible"
        )));
    }
    let cluster = 1_u64 << cluster_bits;

    let length = if version == 3 {
        u64::from(be32(head, 100))
    } else {
        72
    };
    if version == 3 && (length < 104 || !length.is_multiple_of(8) || length > cluster) {
        return Err(Refusal::corrupt(format!(
            "a header of {length} bytes is not possible"
        )));
    }
    if version == 3 && be32(head, 96) > 6 {
        return Err(Refusal::corrupt("the width of reference counts is not possible"));
    }
    // The compression type has a field only in longer headers: 0 is zlib, 1 zstd.
    let compression = if length > 104 {
        head.get(104).copied().unwrap_or(0)
    } else {
        0
    };
    let marked = incompatible & INCOMPATIBLE_COMPRESSION != 0;
    if compression > 1 || marked != (compression == 1) {
        let message = format!("compression type {compression} is not known or not marked");
        return Err(Refusal::new("image.unknown_feature", message).hint(REFORMAT));
    }

    let size = be64(head, 24);
    if size == 0 || !size.is_multiple_of(512) {
        return Err(Refusal::corrupt(format!(
            "a disk of {size} bytes is not possible"
        )));
    }
    Ok(Header {
        version,
        cluster_bits,
        size,
        l1_entries: u64::from(be32(head, 36)),
        l1_offset: be64(head, 40),
        refcount_offset: be64(head, 48),
        refcount_bytes: u64::from(be32(head, 56)) << cluster_bits,
        extended_l2,
        length,
    })
}

fn backing_file() -> Refusal {
    Refusal::new("image.has_backing_file", "the image names a backing file").hint(REFORMAT)
}
fn data_file() -> Refusal {
    Refusal::new("image.has_data_file", "the image keeps its data in another file").hint(REFORMAT)
}
fn encrypted() -> Refusal {
    Refusal::new("image.encrypted", "the image is encrypted").hint(REFORMAT)
}

/// The list after the header, inside the first cluster.
fn check_extensions<R: Read + Seek>(file: &mut Source<'_, R>, header: &Header) -> Result<(), Refusal> {
    let first = file.read_up_to(0, header.cluster())?;
    let mut at = usize::try_from(header.length).map_err(|_| Refusal::corrupt("the header is too long"))?;
    loop {
        let Some(field) = first.get(at..at + 8) else {
            // A list that fills its cluster needs no end mark; one that the file cuts off does.
            return if first.len() as u64 == header.cluster() {
                Ok(())
            } else {
                Err(Refusal::truncated("the header extensions are cut off"))
            };
        };
        let (kind, len) = (be32(field, 0), be32(field, 4) as usize);
        match kind {
            EXTENSION_END => return Ok(()),
            EXTENSION_BACKING_FORMAT => return Err(backing_file()),
            EXTENSION_DATA_FILE => return Err(data_file()),
            EXTENSION_ENCRYPTION => return Err(encrypted()),
            EXTENSION_FEATURE_NAMES => {}
            other => {
                let message =
                    format!("the image has a header extension that is not accepted ({other:#010x})");
                return Err(Refusal::new("image.unknown_feature", message).hint(REFORMAT));
            }
        }
        let end = at.checked_add(8).and_then(|start| start.checked_add(len));
        match end.and_then(|end| end.checked_next_multiple_of(8)) {
            Some(next) if next <= first.len() => at = next,
            _ => {
                return Err(Refusal::corrupt(
                    "a header extension is longer than the header cluster",
                ));
            }
        }
    }
}

fn check_refcounts<R: Read + Seek>(file: &mut Source<'_, R>, header: &Header) -> Result<(), Refusal> {
    let (offset, bytes) = (header.refcount_offset, header.refcount_bytes);
    if bytes == 0 || bytes > MAX_REFCOUNT_TABLE_BYTES {
        return Err(Refusal::corrupt(format!(
            "a refcount table of {bytes} bytes is not possible"
        )));
    }
    check_table(file, header, offset, bytes, "the refcount table")?;
    let cluster = header.cluster();
    for_each_u64(file, offset, bytes, |file, entry| {
        if entry & 0x1ff != 0 {
            return Err(Refusal::corrupt("a refcount table entry has reserved bits"));
        }
        if entry != 0 {
            check_cluster(file, entry, cluster, "a refcount block")?;
        }
        Ok(())
    })
}

fn check_l1<R: Read + Seek>(file: &mut Source<'_, R>, header: &Header) -> Result<(), Refusal> {
    let cluster = header.cluster();
    let entry_bytes = if header.extended_l2 { 16 } else { 8 };
    let per_l2 = cluster / entry_bytes * cluster;
    let bytes = header.l1_entries * 8;
    if header.l1_entries < header.size.div_ceil(per_l2) || bytes > MAX_L1_BYTES {
        return Err(Refusal::corrupt(format!(
            "an L1 table of {} entries does not fit a disk of {} bytes",
            header.l1_entries, header.size
        )));
    }
    check_table(file, header, header.l1_offset, bytes, "the L1 table")?;
    let refcounts = header.refcount_offset..header.refcount_offset + header.refcount_bytes;
    let l1 = header.l1_offset..header.l1_offset + bytes;
    if l1.start < refcounts.end && refcounts.start < l1.end {
        return Err(Refusal::corrupt("the L1 table lies over the refcount table"));
    }

    let mut l2_tables = Vec::new();
    for_each_u64(file, header.l1_offset, bytes, |file, entry| {
        if entry & !(OFFSET_MASK | COPIED) != 0 {
            return Err(Refusal::corrupt("an L1 entry has reserved bits"));
        }
        let offset = entry & OFFSET_MASK;
        if offset != 0 {
            check_cluster(file, offset, cluster, "an L2 table")?;
            let end = offset + cluster;
            if (offset < l1.end && l1.start < end) || (offset < refcounts.end && refcounts.start < end) {
                return Err(Refusal::corrupt("an L2 table lies over another table"));
            }
            l2_tables.push(offset);
        }
        Ok(())
    })?;
    l2_tables.sort_unstable();
    if l2_tables.windows(2).any(|pair| pair.first() == pair.last()) {
        return Err(Refusal::corrupt("two L1 entries use one L2 table"));
    }
    for offset in l2_tables {
        check_l2(file, header, offset)?;
    }
    Ok(())
}

fn check_l2<R: Read + Seek>(file: &mut Source<'_, R>, header: &Header, offset: u64) -> Result<(), Refusal> {
    let cluster = header.cluster();
    // Bits for the sector count of compressed data lie above those of its offset.
    let split = 62 - (header.cluster_bits - 8);
    let mut is_bitmap = false;
    for_each_u64(file, offset, cluster, |file, entry| {
        if header.extended_l2 {
            // Every second word says which parts of the cluster are there: nothing that points anywhere.
            is_bitmap = !is_bitmap;
            if !is_bitmap {
                return Ok(());
            }
        }
        if entry & COMPRESSED != 0 {
            let start = entry & ((1 << split) - 1);
            let sectors = ((entry & !(COPIED | COMPRESSED)) >> split) + 1;
            let end = (start & !511) + sectors * 512;
            // The last sector may be counted whole though the file ends in it.
            if start >= file.len || end > file.len.saturating_add(cluster) {
                return Err(Refusal::truncated(format!(
                    "compressed data lies at {start}, but the file has {} bytes",
                    file.len
                )));
            }
            return Ok(());
        }
        let zero_bit = u64::from(header.version == 3 && !header.extended_l2);
        if entry & !(OFFSET_MASK | COPIED | zero_bit) != 0 {
            return Err(Refusal::corrupt("an L2 entry has reserved bits"));
        }
        let data = entry & OFFSET_MASK;
        if !data.is_multiple_of(cluster) {
            return Err(Refusal::corrupt("a data cluster is not aligned"));
        }
        // The last cluster of a file may be short: the rest reads as zeros.
        if data != 0 && data >= file.len {
            return Err(Refusal::truncated(format!(
                "a data cluster lies at {data}, but the file has {} bytes",
                file.len
            )));
        }
        Ok(())
    })
}

/// A top-level table: aligned, not in the header cluster, whole in the file.
fn check_table<R: Read + Seek>(
    file: &Source<'_, R>,
    header: &Header,
    offset: u64,
    bytes: u64,
    what: &str,
) -> Result<(), Refusal> {
    if offset < header.cluster() || !offset.is_multiple_of(header.cluster()) {
        return Err(Refusal::corrupt(format!(
            "{what} lies at an impossible place ({offset})"
        )));
    }
    file.check_range(offset, bytes, what)
}

fn check_cluster<R: Read + Seek>(
    file: &Source<'_, R>,
    offset: u64,
    cluster: u64,
    what: &str,
) -> Result<(), Refusal> {
    if !offset.is_multiple_of(cluster) {
        return Err(Refusal::corrupt(format!("{what} is not aligned")));
    }
    file.check_range(offset, cluster, what)
}

/// Walks a table of big-endian words in bounded pieces. The range was checked.
fn for_each_u64<R: Read + Seek>(
    file: &mut Source<'_, R>,
    offset: u64,
    bytes: u64,
    mut visit: impl FnMut(&Source<'_, R>, u64) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut done = 0;
    while done < bytes {
        let piece = file.read_up_to(offset + done, CHUNK.min(bytes - done))?;
        for word in piece.chunks_exact(8) {
            visit(file, be64(word, 0))?;
        }
        done += piece.len() as u64;
        if piece.is_empty() {
            return Err(Refusal::truncated("a table is cut off"));
        }
    }
    Ok(())
}
