//! Serial numbers and fingerprints: how certificates and keys are named in records and logs.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::{PkiError, PkiErrorKind};

/// Longest serial number in hex digits: RFC 5280 allows 20 bytes.
const MAX_SERIAL: usize = 40;

/// A certificate's serial number: lower-case hex without leading zero bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial(String);

impl Serial {
    /// From the big-endian bytes in a certificate; `None` when there are more than a serial number may have, or none but zeros.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let first = bytes.iter().position(|b| *b != 0)?;
        let text = hex(&bytes[first..]);
        (text.len() <= MAX_SERIAL).then_some(Self(text))
    }
    /// The hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// SHA-256 of a certificate or public key in DER: lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Of these bytes.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(hex(digest(&SHA256, der).as_ref()))
    }
    /// The 64 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl From<Serial> for String {
    fn from(serial: Serial) -> Self {
        serial.0
    }
}
impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.0
    }
}

impl TryFrom<String> for Serial {
    type Error = PkiError;
    fn try_from(text: String) -> Result<Self, PkiError> {
        let whole = !text.is_empty() && text.len() <= MAX_SERIAL && text.len().is_multiple_of(2);
        if whole && is_hex(&text) && !text.starts_with("00") {
            return Ok(Self(text));
        }
        Err(PkiError::new(
            PkiErrorKind::Malformed,
            "this is no serial number of a certificate",
            "give its bytes in lower-case hex",
        ))
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = PkiError;
    fn try_from(text: String) -> Result<Self, PkiError> {
        if text.len() == 64 && is_hex(&text) {
            return Ok(Self(text));
        }
        Err(PkiError::new(
            PkiErrorKind::Malformed,
            "this is no fingerprint",
            "give the SHA-256 in 64 lower-case hex digits",
        ))
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |text, byte| {
            text + &format!("{byte:02x}")
        })
}
