//! Writes an ISO 9660 volume with Joliet names: one directory, fixed dates, so equal input gives equal bytes.
//!
//! Layout, in sectors of 2048 bytes: 16 empty, primary and Joliet descriptor, terminator, four path tables, the two
//! directories, then the files, which both directories share. Readers that know Joliet (Linux, Windows, cloud-init)
//! see the names as given; others see them in upper case.

use std::collections::BTreeSet;

use skyloom_model::Reason;

const SECTOR: usize = 2048;
/// Sectors of the fixed part: descriptors end at 18, path tables take 19 to 22.
const FIRST_DIRECTORY: usize = 23;
/// 2000-01-01 00:00:00 UTC in a directory record, and in a descriptor.
const RECORD_DATE: [u8; 7] = [100, 1, 1, 0, 0, 0, 0];
const VOLUME_DATE: [u8; 17] = *b"2000010100000000\0";
const NO_DATE: [u8; 17] = *b"0000000000000000\0";

/// A file of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IsoFile<'a> {
    /// Its name: 1 to 30 of `a-z 0-9 - _ .`
    pub name: &'a str,
    /// Its content.
    pub content: &'a [u8],
}

/// The two name spaces of a volume.
#[derive(Clone, Copy, PartialEq)]
enum Names {
    Primary,
    Joliet,
}

/// Where a file's content lies.
#[derive(Clone, Copy)]
struct Extent {
    sector: u32,
    bytes: u32,
}

/// The volume `label` (1 to 16 ASCII letters, digits, `-` or `_`) with `files` in its root directory.
///
/// # Errors
/// `seed.iso_name` for names or a label out of the rules or given twice, `seed.too_large` beyond 4 GiB.
pub fn volume(label: &str, files: &[IsoFile<'_>]) -> Result<Vec<u8>, Reason> {
    check_names(label, files)?;
    let mut sorted = files.to_vec();
    sorted.sort_unstable_by(|a, b| a.name.cmp(b.name));

    // Directory sizes depend on names only, so a first round with empty extents measures them.
    let measure = vec![Extent { sector: 0, bytes: 0 }; sorted.len()];
    let none = Extent { sector: 0, bytes: 0 };
    let primary_len = directory(Names::Primary, none, &sorted, &measure).len();
    let joliet_len = directory(Names::Joliet, none, &sorted, &measure).len();
    let primary = extent(FIRST_DIRECTORY, primary_len)?;
    let joliet = extent(FIRST_DIRECTORY + primary_len / SECTOR, joliet_len)?;

    let mut next = FIRST_DIRECTORY + (primary_len + joliet_len) / SECTOR;
    let mut extents = Vec::with_capacity(sorted.len());
    for file in &sorted {
        extents.push(extent(next, file.content.len())?);
        next += file.content.len().div_ceil(SECTOR);
    }
    let total = u32::try_from(next).map_err(|_| too_large())?;

    let mut out = vec![0; 16 * SECTOR];
    out.extend(descriptor(Names::Primary, label, total, primary));
    out.extend(descriptor(Names::Joliet, label, total, joliet));
    let mut end = b"\xffCD001\x01".to_vec();
    pad(&mut end);
    out.extend(end);
    for root in [primary, joliet] {
        out.extend(path_table(root.sector.to_le_bytes(), 1_u16.to_le_bytes()));
        out.extend(path_table(root.sector.to_be_bytes(), 1_u16.to_be_bytes()));
    }
    out.extend(directory(Names::Primary, primary, &sorted, &extents));
    out.extend(directory(Names::Joliet, joliet, &sorted, &extents));
    for file in &sorted {
        out.extend_from_slice(file.content);
        pad(&mut out);
    }
    Ok(out)
}

fn check_names(label: &str, files: &[IsoFile<'_>]) -> Result<(), Reason> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
    if label.is_empty() || label.len() > 16 || !label.bytes().all(plain) {
        return Err(Reason::new(
            "seed.iso_name",
            format!("{label:?} is no volume label"),
        ));
    }
    // Both name spaces must stay unique: the primary one makes '-' to '_' and knows no case.
    let mut seen = BTreeSet::new();
    for file in files {
        let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_' | b'.');
        let short = (1..=30).contains(&file.name.len());
        if !short || !file.name.bytes().all(good) || !seen.insert(primary_name(file.name)) {
            return Err(Reason::new(
                "seed.iso_name",
                format!("{:?} is no name for a file of a volume", file.name),
            ));
        }
    }
    Ok(())
}

fn too_large() -> Reason {
    Reason::new(
        "seed.too_large",
        "the content is too large for an ISO 9660 volume",
    )
}

fn extent(sector: usize, bytes: usize) -> Result<Extent, Reason> {
    Ok(Extent {
        sector: u32::try_from(sector).map_err(|_| too_large())?,
        bytes: u32::try_from(bytes).map_err(|_| too_large())?,
    })
}

/// Fills up with zeros to whole sectors.
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
}

fn both16(n: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (n.to_le_bytes(), n.to_be_bytes());
    [a, b, c, d]
}
fn both32(n: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (n.to_le_bytes(), n.to_be_bytes());
    [a, b, c, d, e, f, g, h]
}

fn utf16_be(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// `meta-data` is `META_DATA.;1`: names have one dot and a version.
fn primary_name(name: &str) -> Vec<u8> {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let tidy = |part: &str| part.to_ascii_uppercase().replace(['-', '.'], "_");
    format!("{}.{};1", tidy(stem), tidy(extension)).into_bytes()
}

/// Text padded with blanks of the name space.
fn text(names: Names, value: &str, len: usize) -> Vec<u8> {
    let mut field = match names {
        Names::Primary => value.as_bytes().to_vec(),
        Names::Joliet => utf16_be(value),
    };
    while field.len() < len {
        match names {
            Names::Joliet if len - field.len() >= 2 => field.extend([0, b' ']),
            Names::Joliet => field.push(0),
            Names::Primary => field.push(b' '),
        }
    }
    field
}

/// A volume descriptor (ECMA-119, 8.4; Joliet's is a supplementary one with the escape for UCS-2 level 3).
fn descriptor(names: Names, label: &str, total: u32, root: Extent) -> Vec<u8> {
    let (kind, escapes, tables) = match names {
        Names::Primary => (1, [0; 32], 19_u32),
        Names::Joliet => {
            let mut escapes = [0; 32];
            if let Some(first) = escapes.first_chunk_mut::<3>() {
                *first = *b"%/E";
            }
            (2, escapes, 21)
        }
    };
    let mut d = vec![kind];
    d.extend(b"CD001\x01\0");
    d.extend(text(names, "", 32));
    d.extend(text(names, label, 32));
    d.extend([0; 8]);
    d.extend(both32(total));
    d.extend(escapes);
    d.extend(both16(1));
    d.extend(both16(1));
    d.extend(both16(2048));
    d.extend(both32(10));
    d.extend(tables.to_le_bytes());
    d.extend([0; 4]);
    d.extend((tables + 1).to_be_bytes());
    d.extend([0; 4]);
    d.extend(record(&[0], root, true));
    for len in [128, 128, 128, 128, 37, 37, 37] {
        d.extend(text(names, "", len));
    }
    d.extend(VOLUME_DATE);
    d.extend(VOLUME_DATE);
    d.extend(NO_DATE);
    d.extend(NO_DATE);
    d.extend([1, 0]);
    pad(&mut d);
    d
}

/// A path table: the root directory alone.
fn path_table(sector: [u8; 4], parent: [u8; 2]) -> Vec<u8> {
    let mut table = vec![1, 0];
    table.extend(sector);
    table.extend(parent);
    table.extend([0, 0]);
    pad(&mut table);
    table
}

/// A directory: itself, its parent (itself again), the files in order. Records do not cross sectors.
fn directory(names: Names, own: Extent, files: &[IsoFile<'_>], extents: &[Extent]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(record(&[0], own, true));
    out.extend(record(&[1], own, true));
    let mut named: Vec<(Vec<u8>, Extent)> = files
        .iter()
        .zip(extents)
        .map(|(file, extent)| match names {
            Names::Primary => (primary_name(file.name), *extent),
            Names::Joliet => (utf16_be(&format!("{};1", file.name)), *extent),
        })
        .collect();
    named.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    for (name, extent) in named {
        let record = record(&name, extent, false);
        if SECTOR - out.len() % SECTOR < record.len() {
            pad(&mut out);
        }
        out.extend(record);
    }
    pad(&mut out);
    out
}

/// A directory record (ECMA-119, 9.1). Names are at most 64 bytes, so lengths fit a byte.
fn record(name: &[u8], extent: Extent, directory: bool) -> Vec<u8> {
    let len = (33 + name.len()).next_multiple_of(2);
    let mut r = vec![u8::try_from(len).unwrap_or(u8::MAX), 0];
    r.extend(both32(extent.sector));
    r.extend(both32(extent.bytes));
    r.extend(RECORD_DATE);
    r.extend([if directory { 2 } else { 0 }, 0, 0]);
    r.extend(both16(1));
    r.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    r.extend(name);
    r.resize(len, 0);
    r
}
