//! Which file lies below each disk, read by ourselves: neither libvirt nor QEMU follows a header.

use std::path::PathBuf;

use skyloom_hypervisor::{DiskSpec, Error, ErrorKind, Result, VmSpec};
use skyloom_qemu::qcow2;

use crate::xml::can_stand;

/// For each disk the file below it. A disk that claims to be no overlay gets none, whatever its header says.
pub(crate) fn below(spec: &VmSpec) -> Result<Vec<Option<PathBuf>>> {
    spec.disks.iter().map(|disk| below_one(spec, disk)).collect()
}

pub(crate) fn below_one(spec: &VmSpec, disk: &DiskSpec) -> Result<Option<PathBuf>> {
    let error = |kind| {
        Error::new(kind, "start")
            .with("server", spec.id)
            .with("disk", disk.path.display())
    };
    let readable = std::fs::metadata(&disk.path).and_then(|_| match disk.backing_format {
        Some(_) => qcow2::backing_file(&disk.path),
        None => Ok(None),
    });
    let below = readable.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => error(ErrorKind::NotFound),
        std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
            error(ErrorKind::Corrupt).because(e)
        }
        _ => error(ErrorKind::Unavailable).because(e),
    })?;
    match below {
        None if disk.backing_format.is_some() => {
            Err(error(ErrorKind::Corrupt).with("because", "it has no backing file"))
        }
        Some(path) if !path.is_absolute() || !can_stand(&path) => Err(error(ErrorKind::Refused).with(
            "because",
            "the path of its backing file is not absolute, UTF-8 and printable",
        )),
        below => Ok(below),
    }
}
