//! Which snapshots a domain has: `<dir>/<server uuid>/snapshots.json`, replaced in one step that survives a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use skyloom_hypervisor::{SnapshotFound, SnapshotOrder};

const NAME: &str = "snapshots.json";
const FORMAT: u16 = 1;

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct Records {
    format: u16,
    snapshots: Vec<Snapshot>,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Snapshot {
    pub(super) found: SnapshotFound,
    /// Where each disk lies, in name order.
    pub(super) files: Vec<(String, PathBuf)>,
    pub(super) memory: Option<Memory>,
    /// Whether it was ended; one that was only begun is not there.
    pub(super) whole: bool,
}

/// What the guest was that the memory is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memory {
    /// Its definition, as libvirt had it.
    pub(super) definition: String,
    /// Its CPUs were held.
    pub(super) held: bool,
}

impl Snapshot {
    /// Whether this is what the order asks for.
    pub(super) fn fits(&self, order: &SnapshotOrder) -> bool {
        let mut names: Vec<&String> = order.disks.iter().collect();
        names.sort();
        self.memory.is_some() == order.memory && self.files.iter().map(|(name, _)| name).eq(names)
    }
}

/// Reads the records of the domain whose directory this is.
pub(super) fn read(dir: &Path) -> io::Result<Vec<Snapshot>> {
    let text = match fs::read(dir.join(NAME)) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let records: Records = serde_json::from_slice(&text)?;
    if records.format != FORMAT {
        let why = format!(
            "{NAME} has format {}, this program knows {FORMAT}",
            records.format
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(records.snapshots)
}

/// Writes them.
pub(super) fn write(dir: &Path, snapshots: Vec<Snapshot>) -> io::Result<()> {
    let temp = dir.join(format!(".{NAME}.tmp"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temp)?;
    let records = Records {
        format: FORMAT,
        snapshots,
    };
    file.write_all(&serde_json::to_vec_pretty(&records)?)?;
    file.sync_all()?;
    fs::rename(temp, dir.join(NAME))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use skyloom_model::{SnapshotId, Timestamp};

    #[test]
    fn records_come_back_and_damaged_ones_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(read(temp.path()).unwrap(), []);
        let snapshot = SnapshotId::from_uuid(uuid::Uuid::from_u128(3));
        let kept = Snapshot {
            found: SnapshotFound {
                snapshot,
                disks: vec![("root".into(), 512)],
                memory_bytes: 7,
                taken_at: Timestamp::UNIX_EPOCH,
            },
            files: vec![("data".into(), "/d".into()), ("root".into(), "/r".into())],
            memory: Some(Memory {
                definition: "<domain/>".into(),
                held: true,
            }),
            whole: true,
        };
        write(temp.path(), vec![kept.clone()]).unwrap();
        assert_eq!(read(temp.path()).unwrap().first(), Some(&kept));
        let order = |disks: &[&str], memory| SnapshotOrder {
            snapshot,
            disks: disks.iter().map(|d| (*d).to_owned()).collect(),
            memory,
        };
        assert!(kept.fits(&order(&["root", "data"], true)));
        assert!(!kept.fits(&order(&["root", "data"], false)));
        assert!(!kept.fits(&order(&["root"], true)));
        for bad in [r#"{"format": 2, "snapshots": []}"#, "{\"form"] {
            fs::write(temp.path().join(NAME), bad).unwrap();
            assert!(read(temp.path()).is_err());
        }
    }
}
