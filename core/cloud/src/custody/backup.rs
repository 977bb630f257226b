//! A cloud in one file: lines of JSON, of which the last says how many there are and what their hash is.
//!
//! ```text
//! {"skyloom_backup":1,"cluster":…,"number":…,"id":…,"revision":…,"taken_at":…,"source":…}
//! {"k":"active/…","v":{…}}
//! …
//! {"end":{"records":…,"sha256":…,"file_sha256":…}}
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use skyloom_model::Clock;
use skyloom_store::{Error, ErrorKind, KeyValue, Result, Store};

use super::digest::{Tally, Tallying};
use super::restore::BackupHeader;
use super::snapshot::{Snapshot, source};
use crate::hash::hex;

/// The version of the file's format.
pub(super) const VERSION: u16 = 1;

const BACKUP: &str = "back up store";

/// A record's line.
#[derive(Serialize, Deserialize)]
pub(super) struct Line<'a> {
    pub(super) k: &'a str,
    #[serde(borrow)]
    pub(super) v: &'a RawValue,
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Trailer {
    pub(super) end: End,
}

/// What the last line says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct End {
    #[serde(flatten)]
    pub(super) tally: Tally,
    /// SHA-256 of all lines before.
    pub(super) file_sha256: String,
}

/// What a backup did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupSummary {
    /// What is in the file.
    #[serde(flatten)]
    pub tally: Tally,
    /// Where it is from.
    pub header: BackupHeader,
    /// How long the file is.
    pub bytes: u64,
}

/// Writes all records of `from`, as of one revision, into `file`, which is there only when it is complete: it is written beside
/// it, synced, and put in place. Only its owner can read it, for there are hashes of secrets in it. Blocks its thread while it
/// writes. `named` is the source's address as it may be shown.
///
/// # Errors
/// [`ErrorKind::Invalid`] when there is such a file already; those of the disk and of the store.
pub async fn backup(from: &dyn Store, named: &str, file: &Path, clock: &dyn Clock) -> Result<BackupSummary> {
    let wrong = |e: io::Error| disk(BACKUP, file, e);
    if file.try_exists().map_err(wrong)? {
        return Err(Error::new(ErrorKind::Invalid, BACKUP).with("there is already a file", file.display()));
    }
    let source = source(from, BACKUP).await?;
    let mut snapshot = Snapshot::now(from).await?;
    let header = BackupHeader {
        skyloom_backup: VERSION,
        incarnation: source.incarnation,
        revision: snapshot.revision().0,
        taken_at: clock.now(),
        source: named.to_owned(),
    };
    let part = part_of(file);
    let mut out = Out::create(&part).map_err(wrong)?;
    out.line(&header).map_err(wrong)?;
    let mut tallying = Tallying::default();
    while let Some(records) = snapshot.page().await? {
        for kv in records {
            tallying.add(&kv.key, &kv.value)?;
            out.record(&kv).map_err(wrong)?;
        }
    }
    let tally = tallying.end();
    let bytes = out.end(&tally).map_err(wrong)?;
    std::fs::rename(&part, file).map_err(wrong)?;
    let folder = file
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(folder).and_then(|f| f.sync_all()).map_err(wrong)?;
    Ok(BackupSummary { tally, header, bytes })
}

fn part_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

pub(super) fn disk(operation: &'static str, file: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Invalid, operation)
        .with("file", file.display())
        .because(error)
}

/// The file that is being written.
struct Out {
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl Out {
    fn create(path: &Path) -> io::Result<Self> {
        // What a call that was cut off has left is of no use; its access rights might be others.
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Self {
            file: BufWriter::with_capacity(1 << 18, file),
            hash: Sha256::new(),
            bytes: 0,
        })
    }

    fn record(&mut self, kv: &KeyValue) -> io::Result<()> {
        let text = std::str::from_utf8(kv.value.bytes()).map_err(io::Error::other)?;
        // A document may have been written with line breaks in it.
        let compact: Box<RawValue> = if text.contains('\n') {
            serde_json::value::to_raw_value(&serde_json::from_str::<serde_json::Value>(text)?)?
        } else {
            RawValue::from_string(text.to_owned())?
        };
        self.line(&Line {
            k: kv.key.as_str(),
            v: &compact,
        })
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.hash.update(&text);
        self.bytes += text.len() as u64;
        self.file.write_all(&text)
    }

    fn end(mut self, tally: &Tally) -> io::Result<u64> {
        let trailer = Trailer {
            end: End {
                tally: tally.clone(),
                file_sha256: hex(&self.hash.clone().finalize()),
            },
        };
        self.line(&trailer)?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        Ok(self.bytes)
    }
}
