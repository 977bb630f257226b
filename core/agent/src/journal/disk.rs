//! The journal's file: reading it back, appending, putting a new one in its place.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use skyloom_flow::journal::{JournalError, JournalErrorKind, JournalState, Line};

/// The format that this version writes.
const FORMAT: u16 = 1;
/// A file of this length is written anew with what is still known, unless that is most of it.
const LARGE: u64 = 1 << 20;

const FILE: &str = "journal";
const NEW_FILE: &str = "journal.new";

/// One line of the file: what was synced together, and a checksum of its text.
#[derive(Serialize, Deserialize)]
struct Sealed<'a> {
    sum: String,
    #[serde(borrow)]
    text: &'a RawValue,
}

/// What a line says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Text {
    /// The first line.
    Format(u16),
    /// Any other.
    Lines(Vec<Line>),
}

/// The open file.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    file: File,
    length: u64,
    /// Its length when it was last written anew.
    compact: u64,
    /// A write or sync has failed: what the file has is not known, and it must be written anew.
    suspect: bool,
}

impl Disk {
    /// Reads what is there; makes an empty journal where there is none.
    pub(super) fn open(folder: &Path) -> Result<(Self, JournalState), JournalError> {
        let path = folder.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let (file, length) = create(folder, &[])?;
                let disk = Self {
                    folder: folder.to_owned(),
                    file,
                    length,
                    compact: length,
                    suspect: false,
                };
                return Ok((disk, JournalState::default()));
            }
            Err(e) => return Err(io_error("the journal cannot be read", &path, e)),
        };
        let (state, sound) = read(&bytes).map_err(|(number, why)| {
            JournalError::new(
                JournalErrorKind::Corrupt,
                format!(
                    "the journal {} cannot be used, line {number}: {why}; compare this host's guests with the store, then put \
                     the file away and start again",
                    path.display()
                ),
            )
        })?;
        let broken = |e| io_error("the journal cannot be written", &path, e);
        let file = OpenOptions::new().append(true).open(&path).map_err(broken)?;
        if sound < bytes.len() {
            tracing::warn!(path = %path.display(), bytes = bytes.len() - sound, "the journal's last line was cut off");
            file.set_len(sound as u64).map_err(broken)?;
            file.sync_all().map_err(broken)?;
        }
        let disk = Self {
            folder: folder.to_owned(),
            file,
            length: sound as u64,
            compact: 0,
            suspect: false,
        };
        Ok((disk, state))
    }

    /// Makes `lines` durable. `known` gives what is known without them.
    pub(super) fn append(
        &mut self,
        lines: &[Line],
        known: impl FnOnce() -> Vec<Line>,
    ) -> Result<(), JournalError> {
        let large = self.length > LARGE && self.length > self.compact.saturating_mul(4);
        let done = if self.suspect || large {
            let mut all = known();
            all.extend_from_slice(lines);
            create(&self.folder, &all).map(|(file, length)| {
                (self.file, self.length, self.compact) = (file, length, length);
            })
        } else {
            let path = self.folder.join(FILE);
            seal(&Text::Lines(lines.to_vec()))
                .and_then(|line| {
                    self.file.write_all(&line)?;
                    self.file.sync_data()?;
                    self.length += line.len() as u64;
                    Ok(())
                })
                .map_err(|e| io_error("the journal cannot be written", &path, e))
        };
        self.suspect = done.is_err();
        done
    }
}

/// Puts a journal that says `lines` in the place of the one that is there.
fn create(folder: &Path, lines: &[Line]) -> Result<(File, u64), JournalError> {
    let (path, new) = (folder.join(FILE), folder.join(NEW_FILE));
    let write = || {
        let mut bytes = seal(&Text::Format(FORMAT))?;
        if !lines.is_empty() {
            bytes.extend(seal(&Text::Lines(lines.to_vec()))?);
        }
        match std::fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(folder)?.sync_all()?;
        Ok((file, bytes.len() as u64))
    };
    write().map_err(|e| io_error("the journal cannot be written anew", &path, e))
}

fn seal(text: &Text) -> io::Result<Vec<u8>> {
    let text = serde_json::value::to_raw_value(text)?;
    let sealed = Sealed {
        sum: sum(text.get()),
        text: &text,
    };
    let mut line = serde_json::to_vec(&sealed)?;
    line.push(b'\n');
    Ok(line)
}

fn unseal(line: &[u8]) -> Result<Text, String> {
    let sealed: Sealed<'_> =
        serde_json::from_slice(line).map_err(|e| format!("no line of a journal: {e}"))?;
    if sealed.sum != sum(sealed.text.get()) {
        return Err("its checksum is wrong".into());
    }
    serde_json::from_str(sealed.text.get()).map_err(|e| format!("it is of a newer version: {e}"))
}

/// The first 16 digits of the SHA-256 of `text`.
fn sum(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// What `bytes` say, and up to where they are sound; or the number of the line that cannot be used, and why.
fn read(bytes: &[u8]) -> Result<(JournalState, usize), (usize, String)> {
    let mut state = JournalState::default();
    let mut sound = 0;
    for (index, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        let number = index + 1;
        let text = match line.strip_suffix(b"\n") {
            Some(line) => unseal(line),
            None => Err("it is cut off".into()),
        };
        match (index, text) {
            (0, Ok(Text::Format(FORMAT))) => {}
            (0, Ok(Text::Format(newer))) => {
                return Err((number, format!("format {newer} is of a newer version")));
            }
            (0, Ok(Text::Lines(_))) => return Err((number, "it must say the format".into())),
            (_, Ok(Text::Format(_))) => return Err((number, "only the first line says the format".into())),
            (_, Ok(Text::Lines(lines))) => lines.into_iter().for_each(|line| state.apply(line)),
            (0, Err(why)) => return Err((number, why)),
            // A crash damages the last line only.
            (_, Err(why)) if begins_sound(line) || followed(&bytes[sound + line.len()..]) => {
                return Err((number, why));
            }
            (_, Err(_)) => return Ok((state, sound)),
        }
        sound += line.len();
    }
    if sound == 0 {
        return Err((1, "it is empty".into()));
    }
    Ok((state, sound))
}

/// Whether there is more behind a sound line than could be its damaged end: another line followed.
fn begins_sound(line: &[u8]) -> bool {
    let mut values = serde_json::Deserializer::from_slice(line).into_iter::<Sealed<'_>>();
    match values.next() {
        Some(Ok(sealed)) => sealed.sum == sum(sealed.text.get()) && values.byte_offset() + 1 < line.len(),
        _ => false,
    }
}

/// Whether `rest` has a sound line.
fn followed(rest: &[u8]) -> bool {
    rest.split_inclusive(|b| *b == b'\n')
        .filter_map(|line| line.strip_suffix(b"\n"))
        .any(|line| unseal(line).is_ok())
}

pub(super) fn io_error(what: &str, path: &Path, error: io::Error) -> JournalError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => JournalErrorKind::Full,
        _ => JournalErrorKind::Io,
    };
    JournalError::new(kind, format!("{what} ({})", path.display())).because(error)
}

/// The same error for another who waits.
pub(super) fn copy(error: &JournalError) -> JournalError {
    JournalError::new(error.kind(), skyloom_model::report(error))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use skyloom_flow::journal::{Effect, Intent};
    use skyloom_model::{Id, JobId, JobWant};
    use skyloom_store::{LeaseName, Revision};

    use super::*;

    fn line(step: u8) -> Line {
        let effect = Effect {
            task: Id::from_uuid(uuid::Uuid::from_u128(u128::from(step % 3))),
            job: JobId::new("vm.start"),
            want: JobWant::Run,
        };
        let attempt = u32::from(step / 128);
        match step % 4 {
            0 | 1 => Line::Intent(Intent {
                effect,
                attempt,
                generation: 3,
                order: Revision(17),
            }),
            2 => Line::Outcome {
                effect,
                attempt,
                outcome: Ok(Some(json!({ "é\n": step }))),
            },
            _ => Line::Forget(effect),
        }
    }

    /// A file, and what is known after each of its lines.
    fn history(batches: &[Vec<u8>]) -> (Vec<u8>, Vec<(usize, JournalState)>) {
        let mut bytes = seal(&Text::Format(FORMAT)).unwrap();
        let mut state = JournalState::default();
        let mut marks = vec![(bytes.len(), state.clone())];
        for batch in batches {
            let lines: Vec<Line> = batch.iter().map(|step| line(*step)).collect();
            bytes.extend(seal(&Text::Lines(lines.clone())).unwrap());
            lines.into_iter().for_each(|line| state.apply(line));
            marks.push((bytes.len(), state.clone()));
        }
        (bytes, marks)
    }

    fn batches() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 1..4), 1..5)
    }

    #[test]
    fn what_a_newer_version_wrote_is_refused() {
        let newer = seal(&Text::Format(FORMAT + 1)).unwrap();
        let (number, why) = read(&newer).unwrap_err();
        assert_eq!((number, why.as_str()), (1, "format 2 is of a newer version"));
        let text = serde_json::value::RawValue::from_string(r#"{"verses":[]}"#.into()).unwrap();
        let sealed = Sealed {
            sum: sum(text.get()),
            text: &text,
        };
        let line = serde_json::to_vec(&sealed).unwrap();
        assert!(unseal(&line).unwrap_err().contains("newer version"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// However much of the end is missing: exactly the whole lines count, and less than the first line is refused.
        #[test]
        fn every_truncation_leaves_whole_lines(batches in batches()) {
            let (bytes, marks) = history(&batches);
            for length in 0..=bytes.len() {
                let whole = marks.iter().rev().find(|(end, _)| *end <= length);
                let expected = whole.map(|(end, state)| (state.clone(), *end));
                prop_assert_eq!(read(&bytes[..length]).ok(), expected, "{} bytes", length);
            }
        }

        /// However one byte of the last line is changed: it does not count, and all before it does. A byte changed
        /// elsewhere is refused.
        #[test]
        fn no_flipped_byte_is_believed(batches in batches(), flip in 1..=255_u8) {
            let (bytes, marks) = history(&batches);
            let (last, before) = &marks[marks.len() - 2];
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                let expected = (at >= *last).then(|| (before.clone(), *last));
                prop_assert_eq!(read(&damaged).ok(), expected, "byte {}", at);
            }
        }

        /// Whatever stands behind the last line.
        #[test]
        fn no_garbage_is_believed(batches in batches(), garbage in prop::collection::vec(any::<u8>(), 1..99)) {
            let (mut bytes, marks) = history(&batches);
            bytes.extend(&garbage);
            let (end, state) = &marks[marks.len() - 1];
            prop_assert_eq!(read(&bytes), Ok((state.clone(), *end)));
        }
    }

    #[test]
    fn after_a_full_disk_the_file_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let held = |epoch| Line::Held {
            lease: LeaseName::parse("hosts/h").unwrap(),
            epoch,
        };
        let (mut disk, _) = Disk::open(folder.path()).unwrap();
        disk.append(&[held(1)], Vec::new).unwrap();
        disk.file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let full = disk.append(&[held(2)], Vec::new).unwrap_err();
        assert_eq!(full.kind(), JournalErrorKind::Full);
        disk.append(&[held(4)], || vec![held(3)]).unwrap();
        disk.append(&[held(5)], || panic!("the file is sound")).unwrap();
        let bytes = std::fs::read(folder.path().join(FILE)).unwrap();
        assert_eq!(bytes.iter().filter(|b| **b == b'\n').count(), 3);
        assert_eq!(read(&bytes).unwrap().0.lines(), [held(5)]);
    }

    #[test]
    fn a_file_that_cannot_be_put_in_place_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let (mut disk, _) = Disk::open(folder.path()).unwrap();
        disk.suspect = true;
        std::fs::create_dir(folder.path().join(NEW_FILE)).unwrap();
        let refused = disk.append(&[], Vec::new).unwrap_err();
        assert_eq!(refused.kind(), JournalErrorKind::Io);
        std::fs::remove_dir(folder.path().join(NEW_FILE)).unwrap();
        disk.append(&[], Vec::new).unwrap();
        assert!(!disk.suspect);
    }
}
