//! Raw content: it must be a whole disk with a partition table or boot sector that makes sense.
//!
//! Raw is the format that everything else can pose as, so "looks like nothing" is not enough.

use std::io::{Read, Seek};

use skyloom_model::DiskFormat;

use super::signature::Seen;
use super::{ImageFacts, Limits, Refusal, Source, check_virtual_size, le16, le32, le64};

const SECTOR: u64 = 512;

pub(super) fn inspect<R: Read + Seek>(
    file: &mut Source<'_, R>,
    seen: &Seen,
    limits: &Limits,
) -> Result<ImageFacts, Refusal> {
    check_virtual_size(file.len, limits)?;
    if !file.len.is_multiple_of(SECTOR) {
        return Err(Refusal::truncated(format!(
            "a raw disk has whole sectors of 512 bytes, this file has {} bytes",
            file.len
        )));
    }
    if !limits.allow_any_raw {
        check_layout(&seen.head, seen, file.len / SECTOR)?;
    }
    Ok(ImageFacts {
        format: DiskFormat::Raw,
        virtual_size: file.len,
        file_size: file.len,
        cluster_size: None,
        version: None,
    })
}

fn check_layout(head: &[u8], seen: &Seen, sectors: u64) -> Result<(), Refusal> {
    if !seen.boot_signature {
        return Err(no_disk(
            "its first sector is neither a partition table nor a boot sector",
        ));
    }
    if fat_boot_sector(head, sectors) {
        return Ok(());
    }
    let protective = check_mbr(head, sectors)?;
    match (protective, seen.gpt) {
        (true, true) => check_gpt(head, sectors),
        (true, false) => Err(no_disk("its MBR protects a GPT that is not there")),
        (false, true) => Err(no_disk("it has a GPT without a protective MBR")),
        (false, false) => Ok(()),
    }
}

fn no_disk(message: &str) -> Refusal {
    Refusal::new(
        "image.raw_not_a_disk",
        format!("the raw content is no whole disk: {message}"),
    )
    .hint("Upload a whole disk with an MBR or GPT, or convert the image to qcow2.")
}

/// A FAT file system over the whole disk.
fn fat_boot_sector(head: &[u8], sectors: u64) -> bool {
    let jump = matches!(head, [0xeb, _, 0x90, ..] | [0xe9, ..]);
    let sector_bytes = le16(head, 11);
    let cluster_sectors = head.get(13).copied().unwrap_or(0);
    let fats = head.get(16).copied().unwrap_or(0);
    let total = match le16(head, 19) {
        0 => u64::from(le32(head, 32)),
        small => u64::from(small),
    };
    jump && matches!(sector_bytes, 512 | 1024 | 2048 | 4096)
        && cluster_sectors.is_power_of_two()
        && le16(head, 14) > 0
        && matches!(fats, 1 | 2)
        && total > 0
        && total * u64::from(sector_bytes) / SECTOR <= sectors
}

/// Whether the MBR only protects a GPT.
fn check_mbr(head: &[u8], sectors: u64) -> Result<bool, Refusal> {
    let mut used = 0;
    let mut protective = false;
    for entry in head.get(446..510).unwrap_or_default().chunks(16) {
        let flag = entry.first().copied().unwrap_or(0);
        let kind = entry.get(4).copied().unwrap_or(0);
        if !matches!(flag, 0 | 0x80) {
            return Err(no_disk("a partition entry has an impossible boot flag"));
        }
        if kind == 0 {
            continue;
        }
        used += 1;
        let first = u64::from(le32(entry, 8));
        let count = u64::from(le32(entry, 12));
        if kind == 0xee {
            // Its length may be the largest number instead of the disk's.
            protective = first == 1;
        } else if first == 0 || count == 0 {
            return Err(no_disk("a partition is empty or lies over the partition table"));
        } else if first + count > sectors {
            return Err(Refusal::truncated(format!(
                "a partition ends at sector {}, but the disk has {sectors}",
                first + count
            )));
        }
    }
    if used == 0 {
        return Err(no_disk("its partition table is empty"));
    }
    Ok(protective)
}

fn check_gpt(head: &[u8], sectors: u64) -> Result<(), Refusal> {
    let header = head.get(512..).unwrap_or_default();
    let size = le32(header, 12);
    let (own, first, last) = (le64(header, 24), le64(header, 40), le64(header, 48));
    let (entries, entry_size) = (le32(header, 80), le32(header, 84));
    let sane = le32(header, 8) == 0x0001_0000
        && (92..=512).contains(&size)
        && own == 1
        && first <= last
        && (1..=1024).contains(&entries)
        && (128..=4096).contains(&entry_size)
        && entry_size.is_power_of_two();
    if !sane {
        return Err(no_disk("its GPT header makes no sense"));
    }
    if last >= sectors {
        return Err(Refusal::truncated(format!(
            "the GPT reaches to sector {last}, but the disk has {sectors}"
        )));
    }
    Ok(())
}
