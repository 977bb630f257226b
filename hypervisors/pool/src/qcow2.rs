//! What a qcow2 file says of its size and snapshots, read by ourselves: no process for a look.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Most snapshots of one file. QEMU's own limit is higher.
const MAX_SNAPSHOTS: u32 = 4096;
/// Most bytes of a snapshot's extra data and names.
const MAX_TAIL: u64 = 64 << 10;

/// A snapshot in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) name: String,
    /// Bytes of the disk then.
    pub(crate) disk_size: u64,
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, b| (n << 8) | u64::from(*b))
}

/// The snapshots of a qcow2 file, in the order in which they were taken.
pub(crate) fn snapshots(file: &mut File) -> io::Result<Vec<Snapshot>> {
    let mut head = [0; 72];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut head)?;
    if head[..4] != *b"QFI\xfb" {
        return Err(damaged("is no qcow2 file"));
    }
    let (virtual_size, count) = (number(&head[24..32]), number(&head[60..64]));
    if count > u64::from(MAX_SNAPSHOTS) {
        return Err(damaged("has an impossible number of snapshots"));
    }
    let mut at = number(&head[64..72]);
    let mut found = Vec::new();
    for _ in 0..count {
        let mut entry = [0; 40];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut entry)?;
        let (id_len, name_len) = (number(&entry[12..14]), number(&entry[14..16]));
        let extra_len = number(&entry[36..40]);
        let tail_len = extra_len + id_len + name_len;
        if tail_len > MAX_TAIL {
            return Err(damaged("a snapshot's names are impossibly long"));
        }
        let mut tail = vec![0; tail_len as usize];
        file.read_exact(&mut tail)?;
        let (extra, names) = tail.split_at(extra_len as usize);
        let disk_size = extra.get(8..16).map_or(virtual_size, number);
        let name = names.split_at(id_len as usize).1;
        let name = String::from_utf8(name.to_vec()).map_err(|_| damaged("a snapshot's name is no text"))?;
        found.push(Snapshot { name, disk_size });
        at = at.saturating_add((40 + tail_len).next_multiple_of(8));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn header(count: u32, at: u64) -> Vec<u8> {
        let mut bytes = b"QFI\xfb\0\0\0\x03".to_vec();
        bytes.resize(24, 0);
        bytes.extend(4096_u64.to_be_bytes());
        bytes.resize(60, 0);
        bytes.extend(count.to_be_bytes());
        bytes.extend(at.to_be_bytes());
        bytes
    }

    #[test]
    fn the_table_is_read() {
        let mut bytes = header(2, 72);
        for (id, name, extra) in [("1", "first", Some(512_u64)), ("2", "second", None)] {
            let mut entry = vec![0; 12];
            entry.extend((id.len() as u16).to_be_bytes());
            entry.extend((name.len() as u16).to_be_bytes());
            entry.resize(36, 0);
            entry.extend((if extra.is_some() { 16_u32 } else { 0 }).to_be_bytes());
            if let Some(size) = extra {
                entry.extend([0; 8]);
                entry.extend(size.to_be_bytes());
            }
            entry.extend(id.as_bytes());
            entry.extend(name.as_bytes());
            entry.resize(entry.len().next_multiple_of(8), 0);
            bytes.extend(entry);
        }
        let found = snapshots(&mut file(&bytes)).unwrap();
        let found: Vec<_> = found.iter().map(|s| (s.name.as_str(), s.disk_size)).collect();
        assert_eq!(found, [("first", 512), ("second", 4096)]);
    }

    #[test]
    fn damage_is_refused() {
        assert!(snapshots(&mut file(b"QFI\xfb")).is_err());
        assert!(snapshots(&mut file(&[0; 80])).is_err());
        assert!(snapshots(&mut file(&header(1 << 20, 72))).is_err());
        assert!(snapshots(&mut file(&header(1, 1 << 40))).is_err());
    }

    proptest! {
        #[test]
        fn any_table_is_read_or_refused_without_panic(tail in prop::collection::vec(any::<u8>(), 0..300), count in 0_u32..5) {
            let _ = snapshots(&mut file(&[header(count, 72), tail].concat()));
        }
    }
}
