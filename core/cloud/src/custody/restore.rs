//! Puts a backup back: into an empty store, as a new incarnation, with the fleet on hold.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use skyloom_model::{Clock, Copying, FORMAT, Hold, Ids, Incarnation, Origin, Timestamp};
use skyloom_store::{Error, ErrorKind, Key, Result, Store, Value};

use super::backup::{Line, Trailer, VERSION, disk};
use super::digest::{Tally, Tallying};
use super::fill::{self, Filler, Target};
use crate::hash::hex;

const RESTORE: &str = "restore store";
/// Longest line of a backup in bytes: a document of the largest size, and its key.
const LONGEST: u64 = 16 << 20;

/// The first line of a backup: where it is from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHeader {
    /// The version of the file's format.
    pub skyloom_backup: u16,
    /// Which cloud, in which incarnation.
    #[serde(flatten)]
    pub incarnation: Incarnation,
    /// As of which revision of its store.
    pub revision: u64,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// The store's address, without secrets.
    pub source: String,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestoreSummary {
    /// What is in the store now.
    #[serde(flatten)]
    pub tally: Tally,
    /// How many of the records this call has written; the others were there from a call before.
    pub written: u64,
    /// What was put back.
    pub header: BackupHeader,
    /// The store's incarnation.
    pub incarnation: Incarnation,
    /// The hold on the fleet.
    pub hold: Hold,
}

/// Reads a whole backup and says where it is from and what is in it.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when it is cut off, changed or no backup; [`ErrorKind::TooNew`].
pub fn inspect_backup(file: &Path) -> Result<(BackupHeader, Tally)> {
    read(file).map(|read| (read.header, read.tally))
}

/// Puts the backup `file` back into the empty store `to`. The file is read and checked as a whole before anything is written. The
/// store becomes an incarnation newer than any that hosts may have obeyed, and the fleet is held: the records are older than the
/// world. A call that was cut off is gone on with by the next one with the same file. Blocks its thread while it reads. `by` is
/// who asked for it.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when the file is damaged; [`ErrorKind::Invalid`] when `to` is not empty; those of the store.
pub async fn restore(
    file: &Path,
    to: &dyn Store,
    by: &str,
    clock: &dyn Clock,
    ids: &dyn Ids,
) -> Result<RestoreSummary> {
    let Checked {
        header,
        tally,
        file_sha256,
    } = read(file)?;
    let source = format!("the backup of {} (sha256 {file_sha256})", header.taken_at);
    let mut filler = match fill::target(to, RESTORE).await? {
        Target::Empty => {
            let mark = Copying {
                format: FORMAT,
                source,
                from: Some(header.incarnation),
                at: header.revision,
                after: None,
                since: clock.now(),
            };
            Filler::begin(to, RESTORE, mark).await?
        }
        Target::Begun(mark) if mark.value.source == source => Filler::resume(to, RESTORE, mark),
        Target::Begun(mark) => {
            return Err(Error::new(ErrorKind::Invalid, RESTORE)
                .with("the target is half filled from", mark.value.source)
                .with("what to do", "end that, or empty the target"));
        }
    };
    let mut lines = Lines::open(file)?;
    lines.next()?;
    loop {
        let number = lines.number + 1;
        let Some(text) = lines.next()?.filter(|text| !is_last(text)) else {
            break;
        };
        let (key, value) = record(text, file, number)?;
        filler.put(key, value).await?;
    }
    let now = clock.now();
    let custody = fill::custody(&header.incarnation, Origin::Restored, ids, now);
    let reason = format!("restored from the backup of {}", header.taken_at);
    let (hold, told) = fill::held(&custody, reason, by, ids, now)?;
    let written = filler.finish(&tally, &custody, Some(&hold), Some(&told)).await?;
    Ok(RestoreSummary {
        tally,
        written,
        header,
        incarnation: custody.incarnation,
        hold,
    })
}

/// A file that is sound.
struct Checked {
    header: BackupHeader,
    tally: Tally,
    file_sha256: String,
}

/// Reads all of `file`: its form, the order of its keys, its count, its hashes.
fn read(file: &Path) -> Result<Checked> {
    let mut lines = Lines::open(file)?;
    let damaged = |number: u64, why: &str| {
        Error::new(ErrorKind::Corrupt, RESTORE)
            .with("file", file.display())
            .with("line", number)
            .with("why", why)
    };
    let first = lines
        .next()?
        .ok_or_else(|| damaged(1, "the file is empty"))?
        .to_vec();
    let header: BackupHeader = serde_json::from_slice(&first)
        .map_err(|e| damaged(1, "it is no first line of a backup").because(e))?;
    if header.skyloom_backup > VERSION {
        return Err(Error::new(ErrorKind::TooNew, RESTORE)
            .with("file", file.display())
            .with("format", header.skyloom_backup));
    }
    let mut hash = Sha256::new();
    hash.update(&first);
    let mut tallying = Tallying::default();
    let mut before: Option<Key> = None;
    loop {
        let number = lines.number + 1;
        let Some(text) = lines.next()? else {
            return Err(damaged(number, "the file is cut off: its last line is missing"));
        };
        if is_last(text) {
            let Trailer { end } = serde_json::from_slice(text)
                .map_err(|e| damaged(number, "it is no last line of a backup").because(e))?;
            let file_sha256 = hex(&hash.finalize());
            let tally = tallying.end();
            if end.file_sha256 != file_sha256 || end.tally != tally {
                return Err(damaged(number, "the file was changed: its hash is another"));
            }
            if lines.next()?.is_some() {
                return Err(damaged(number + 1, "there is more after the last line"));
            }
            return Ok(Checked {
                header,
                tally,
                file_sha256,
            });
        }
        hash.update(text);
        let (key, value) = record(text, file, number)?;
        if before.as_ref().is_some_and(|before| key <= *before) || super::snapshot::of_cloud(&key) {
            return Err(damaged(number, "its key has no place here"));
        }
        tallying.add(&key, &value)?;
        before = Some(key);
    }
}

fn is_last(text: &[u8]) -> bool {
    text.starts_with(b"{\"end\":")
}

fn record(text: &[u8], file: &Path, number: u64) -> Result<(Key, Value)> {
    let damaged = || {
        Error::new(ErrorKind::Corrupt, RESTORE)
            .with("file", file.display())
            .with("line", number)
    };
    let line: Line<'_> = serde_json::from_slice(text).map_err(|e| damaged().because(e))?;
    let key = Key::parse(line.k).map_err(|e| damaged().because(e))?;
    Ok((key, Value::from_json_bytes(line.v.get().as_bytes().to_vec())))
}

/// The lines of a file, each of bounded length.
struct Lines<'f> {
    path: &'f Path,
    file: BufReader<File>,
    line: Vec<u8>,
    number: u64,
}

impl<'f> Lines<'f> {
    fn open(path: &'f Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| disk(RESTORE, path, e))?;
        Ok(Self {
            path,
            file: BufReader::with_capacity(1 << 18, file),
            line: Vec::new(),
            number: 0,
        })
    }

    /// The next line with its line break.
    fn next(&mut self) -> Result<Option<&[u8]>> {
        self.line.clear();
        let read = (&mut self.file)
            .take(LONGEST)
            .read_until(b'\n', &mut self.line)
            .map_err(|e| disk(RESTORE, self.path, e))?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.line.last() != Some(&b'\n') {
            return Err(Error::new(ErrorKind::Corrupt, RESTORE)
                .with("file", self.path.display())
                .with("line", self.number)
                .with("why", "it is cut off or too long"));
        }
        Ok(Some(&self.line))
    }
}
