//! Random secrets that are shown once: API tokens, application credentials.
//!
//! `sky_`, 43 characters of base64url over 32 random bytes, and a checksum of 6 characters: a typo is told from an unknown secret
//! without a look-up, and scanners of source code can tell a real one from a look-alike. Secrets of before had no checksum; they are
//! found by their hash as they are. At rest is the SHA-256 of the whole text: there are 256 bits in it, nothing needs slowing down.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use skyloom_model::{Ids, Secret};

use crate::{Denied, Why};

const PREFIX: &str = "sky_";
/// Characters of 32 bytes in base64url.
const RANDOM: usize = 43;
const CHECKSUM: usize = 6;
/// How much of it is kept in clear, for lists and for search by prefix.
const HINT: usize = 8;
/// Longest text that is looked at: secrets that an operator set by hand are short, too.
const MAX: usize = 256;

/// SHA-256 of a secret, in lower-case hex: what is kept, and how it is found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretHash(String);

impl SecretHash {
    /// The hash of a whole secret.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        let hash = digest(&SHA256, secret.as_bytes());
        Self(
            hash.as_ref()
                .iter()
                .fold(String::with_capacity(64), |text, byte| {
                    text + &format!("{byte:02x}")
                }),
        )
    }
    /// The 64 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A new secret, and what may be kept of it.
#[derive(Debug)]
pub struct NewSecret {
    /// The secret: shown once, kept nowhere.
    pub secret: Secret<String>,
    /// What is kept.
    pub hash: SecretHash,
    /// Its first characters.
    pub hint: String,
}

impl NewSecret {
    /// Makes one.
    #[must_use]
    pub fn generate(ids: &dyn Ids) -> Self {
        let mut bytes = [0; 32];
        ids.random(&mut bytes);
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let secret = format!("{text}{}", checksum(&text));
        Self {
            hash: SecretHash::of(&secret),
            hint: secret.chars().take(HINT).collect(),
            secret: Secret::new(secret),
        }
    }
}

/// The hash under which a presented secret would be found.
///
/// # Errors
/// [`Denied`] without a look-up: empty, too long, characters that no secret has, or a checksum that is not its own.
pub fn parse_secret(presented: &str) -> Result<SecretHash, Denied> {
    if presented.len() > MAX {
        return Err(Why::TooLong.into());
    }
    if presented.is_empty() || !presented.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Why::Malformed.into());
    }
    let checked = PREFIX.len() + RANDOM;
    if presented.starts_with(PREFIX) && presented.len() == checked + CHECKSUM {
        let (text, sum) = presented.split_at(checked);
        // What is not secret needs no constant time: the sum is made from the text that the caller has anyway.
        if checksum(text) != sum {
            return Err(Why::MistypedSecret.into());
        }
    }
    Ok(SecretHash::of(presented))
}

/// The first 36 bits of the SHA-256, in base64url.
fn checksum(text: &str) -> String {
    let hash = digest(&SHA256, &[b"skyloom secret 1 ", text.as_bytes()].concat());
    URL_SAFE_NO_PAD.encode(hash).chars().take(CHECKSUM).collect()
}
