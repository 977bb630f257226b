//! Looks at a disk image before any tool does: reads the first and last bytes with all signatures at once, then the
//! tables of the format that was found, and answers with facts or a refusal.
//!
//! The rules (each learned from a published hole): the claimed format must be the found one; nothing that names another
//! file (backing file, external data file, descriptor) passes; unknown features are refused rather than ignored; a file
//! that two formats claim is refused; every count and offset is checked against the file before it is followed.
//! Reading is bounded: tables are streamed, and no table is larger than QEMU itself allows.

mod boot;
mod qcow2;
mod raw;
mod signature;

use std::io::{self, Read, Seek, SeekFrom};

use skyloom_model::{DiskFormat, Reason};

use self::signature::Found;

/// What an image may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the file.
    pub max_file: u64,
    /// Bytes of the disk that the guest sees.
    pub max_virtual: u64,
    /// Accepts raw content without a partition table or boot sector, such as a bare file system. Content that looks
    /// like another format is refused all the same.
    pub allow_any_raw: bool,
}

impl Default for Limits {
    /// 64 GiB files, 2 TiB disks, raw disks only with a partition table or boot sector.
    fn default() -> Self {
        Self {
            max_file: 64 << 30,
            max_virtual: 2 << 40,
            allow_any_raw: false,
        }
    }
}

/// What is known of an accepted image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its format: the claimed one.
    pub format: DiskFormat,
    /// Bytes of the disk that the guest sees.
    pub virtual_size: u64,
    /// Bytes of the file.
    pub file_size: u64,
    /// qcow2: bytes of a cluster.
    pub cluster_size: Option<u64>,
    /// qcow2: version of the format (2 or 3).
    pub version: Option<u32>,
}

/// Why an image does not pass.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The content is refused.
    #[error("{0}")]
    Content(Reason),
    /// The file could not be read: nothing is known of the content.
    #[error("the image cannot be read")]
    Read(#[source] io::Error),
}

impl Refusal {
    fn new(code: &str, message: impl Into<String>) -> Self {
        Self::Content(Reason::new(code, message))
    }
    fn hint(self, hint: &str) -> Self {
        match self {
            Self::Content(reason) => Self::Content(reason.hint(hint)),
            other => other,
        }
    }
    fn corrupt(message: impl Into<String>) -> Self {
        Self::new("image.corrupt", message)
    }
    fn truncated(message: impl Into<String>) -> Self {
        Self::new("image.truncated", message)
            .hint("The file is shorter than its own tables say: upload it again.")
    }
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Content(reason) => &reason.code,
            Self::Read(_) => "image.read_failed",
        }
    }
    /// The refusal as it is stored and shown.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Content(reason) => reason.clone(),
            Self::Read(_) => Reason::new("image.read_failed", skyloom_model::report(self)).retryable(),
        }
    }
}

const REFORMAT: &str =
    "Write the image anew with `qemu-img convert -f FORMAT -O qcow2 IN OUT` on a machine that you trust.";

/// Inspects the `file_len` bytes of `reader` that are claimed to be of format `claimed`.
///
/// # Errors
/// [`Refusal::Content`] with one of the codes `image.too_large`, `image.truncated`,
/// `image.polyglot`, `image.format_mismatch`, `image.version`, `image.has_backing_file`, `image.has_data_file`,
/// `image.has_snapshots`, `image.encrypted`, `image.unknown_feature`, `image.corrupt`, `image.raw_not_a_disk`,
/// `image.no_kernel`, `image.no_initrd`;
/// [`Refusal::Read`] when the reader fails.
pub fn inspect<R: Read + Seek>(
    reader: &mut R,
    file_len: u64,
    claimed: DiskFormat,
    limits: &Limits,
) -> Result<ImageFacts, Refusal> {
    if file_len > limits.max_file {
        let message = format!("the file has {file_len} bytes; {} are allowed", limits.max_file);
        return Err(Refusal::new("image.too_large", message));
    }
    let mut file = Source {
        reader,
        len: file_len,
    };
    match claimed {
        DiskFormat::Kernel => return boot::kernel(&mut file),
        DiskFormat::Initrd => return boot::initrd(&mut file),
        DiskFormat::Raw | DiskFormat::Qcow2 => {}
    }
    let seen = signature::look(&mut file)?;
    let found = match seen.formats.as_slice() {
        [] => Found::Raw,
        [one] => *one,
        many => return Err(polyglot(many)),
    };
    if file_len < 512 && matches!(found, Found::Raw | Found::Qcow2) {
        return Err(Refusal::truncated(format!(
            "a file of {file_len} bytes is no disk image"
        )));
    }
    match (claimed, found) {
        (DiskFormat::Qcow2, Found::Qcow2) => {
            if seen.boot_signature || seen.gpt {
                let message = "the file is a qcow2 image and has a partition table at the same time";
                return Err(Refusal::new("image.polyglot", message).hint(REFORMAT));
            }
            qcow2::inspect(&mut file, limits)
        }
        (DiskFormat::Raw, Found::Raw) => raw::inspect(&mut file, &seen, limits),
        (claimed, found) => {
            let message = format!(
                "the image is said to be {}, but its content is {found}",
                claimed.as_str()
            );
            Err(Refusal::new("image.format_mismatch", message)
                .hint("Say the format that the file has; accepted are raw and qcow2."))
        }
    }
}

fn polyglot(formats: &[Found]) -> Refusal {
    let names: Vec<String> = formats.iter().map(Found::to_string).collect();
    let message = format!("the file is of several formats at once: {}", names.join(", "));
    Refusal::new("image.polyglot", message).hint(REFORMAT)
}

fn check_virtual_size(size: u64, limits: &Limits) -> Result<(), Refusal> {
    if size > limits.max_virtual {
        let message = format!("the disk has {size} bytes; {} are allowed", limits.max_virtual);
        return Err(Refusal::new("image.too_large", message));
    }
    Ok(())
}

/// The file with its length: reads exact ranges, and says `truncated` when they are not there.
struct Source<'a, R> {
    reader: &'a mut R,
    len: u64,
}

impl<R: Read + Seek> Source<'_, R> {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Refusal> {
        self.check_range(offset, buffer.len() as u64, "a table")?;
        self.reader.seek(SeekFrom::Start(offset)).map_err(Refusal::Read)?;
        self.reader
            .read_exact(buffer)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => Refusal::truncated("the file ends before its length"),
                _ => Refusal::Read(error),
            })
    }
    /// Up to `max` bytes from `offset`, fewer only at the end of the file.
    fn read_up_to(&mut self, offset: u64, max: u64) -> Result<Vec<u8>, Refusal> {
        let there = self.len.saturating_sub(offset).min(max);
        if there == 0 {
            return Ok(Vec::new());
        }
        let mut buffer =
            vec![0; usize::try_from(there).map_err(|_| Refusal::corrupt("a table is too large"))?];
        self.read_at(offset, &mut buffer)?;
        Ok(buffer)
    }
    /// Whether `len` bytes from `offset` lie in the file.
    fn check_range(&self, offset: u64, len: u64, what: &str) -> Result<(), Refusal> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(Refusal::truncated(format!(
                "{what} lies at {offset} (+{len}), but the file has {} bytes",
                self.len
            ))),
        }
    }
}

/// A big-endian number; bytes past the end of `data` read as a zero number.
fn be32(data: &[u8], at: usize) -> u32 {
    bytes(data, at).map_or(0, u32::from_be_bytes)
}
fn be64(data: &[u8], at: usize) -> u64 {
    bytes(data, at).map_or(0, u64::from_be_bytes)
}
fn le16(data: &[u8], at: usize) -> u16 {
    bytes(data, at).map_or(0, u16::from_le_bytes)
}
fn le32(data: &[u8], at: usize) -> u32 {
    bytes(data, at).map_or(0, u32::from_le_bytes)
}
fn le64(data: &[u8], at: usize) -> u64 {
    bytes(data, at).map_or(0, u64::from_le_bytes)
}
fn bytes<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..at.checked_add(N)?)?.try_into().ok()
}
