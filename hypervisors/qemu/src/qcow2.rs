//! Reads from a qcow2 header which file lies below an overlay.
//!
//! QEMU would open whatever the header names. We read the name, and tell QEMU the whole chain ourselves.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The file below the qcow2 file at `path`; `None` when there is none.
///
/// # Errors
/// What opening and reading the file gives; `InvalidData` or `UnexpectedEof` when it is no sound qcow2 file.
pub fn backing_file(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut file = File::open(path)?;
    let mut head = [0; 20];
    file.read_exact(&mut head)?;
    let u32_at = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if head[..4] != *b"QFI\xfb" || !matches!(u32_at(4), 2 | 3) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "is no qcow2 file"));
    }
    let offset = (u64::from(u32_at(8)) << 32) | u64::from(u32_at(12));
    let len = u32_at(16);
    if offset == 0 {
        return Ok(None);
    }
    if len == 0 || len > 1023 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the name of its backing file has an impossible length",
        ));
    }
    let mut name = vec![0; len as usize];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut name)?;
    Ok(Some(PathBuf::from(std::ffi::OsString::from_vec(name))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(offset: u64, name: &[u8]) -> Vec<u8> {
        let mut bytes = b"QFI\xfb\0\0\0\x03".to_vec();
        bytes.extend(offset.to_be_bytes());
        bytes.extend((name.len() as u32).to_be_bytes());
        bytes.resize(offset as usize, 0);
        bytes.extend(name);
        bytes
    }

    #[test]
    fn the_name_is_read_and_damage_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("d");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            backing_file(&path)
        };
        assert_eq!(
            read(&header(112, b"/pool/base.qcow2")).unwrap(),
            Some("/pool/base.qcow2".into())
        );
        assert_eq!(
            read(&[b"QFI\xfb\0\0\0\x03".as_slice(), &[0; 40]].concat()).unwrap(),
            None
        );
        assert!(read(b"QFI\xfb").is_err());
        assert!(read(&[0; 64]).is_err());
        assert!(read(&header(112, &[b'x'; 2000])).is_err());
        assert!(read(&header(112, b"/pool/base.qcow2")[..115]).is_err());
    }
}
