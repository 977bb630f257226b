//! SHA-256 while copying: the hash is of exactly the bytes that the inner writer took.

use std::fmt::Write as _;
use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

/// What was hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// SHA-256 in lower-case hex.
    pub sha256: String,
    /// How many bytes.
    pub bytes: u64,
}

/// A writer that hashes what it passes on. Wrap [`io::sink`] to hash only.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W> HashingWriter<W> {
    /// Wraps `inner`.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            bytes: 0,
        }
    }
    /// How many bytes went through so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
    /// Takes in bytes that another writer has already taken.
    pub fn update(&mut self, taken: &[u8]) {
        self.hash.update(taken);
        self.bytes += taken.len() as u64;
    }
    /// The inner writer and the hash of all that went through. Flushing is the caller's.
    pub fn finish(self) -> (W, Digest) {
        let mut sha256 = String::with_capacity(64);
        for byte in self.hash.finalize() {
            let _ = write!(sha256, "{byte:02x}");
        }
        let digest = Digest {
            sha256,
            bytes: self.bytes,
        };
        (self.inner, digest)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = self.inner.write(data)?;
        self.update(data.get(..taken).unwrap_or(data));
        Ok(taken)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The SHA-256 of all that `reader` still has.
///
/// # Errors
/// Those of the reader.
pub fn sha256_of(reader: &mut impl Read) -> io::Result<Digest> {
    let mut hashing = HashingWriter::new(io::sink());
    io::copy(reader, &mut hashing)?;
    Ok(hashing.finish().1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes three bytes a call.
    struct Slow(Vec<u8>);
    impl Write for Slow {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            let n = data.len().min(3);
            self.0.extend_from_slice(&data[..n]);
            Ok(n)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn hashes_what_the_inner_writer_took() {
        let mut w = HashingWriter::new(Slow(Vec::new()));
        assert_eq!(w.write(b"abcdef").unwrap(), 3);
        let (inner, digest) = w.finish();
        assert_eq!(inner.0, b"abc");
        // FIPS 180-2, example B.1.
        assert_eq!(
            digest.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(digest.bytes, 3);
    }

    #[test]
    fn empty_input_has_the_known_hash() {
        let digest = sha256_of(&mut io::empty()).unwrap();
        assert_eq!(
            digest.sha256,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
