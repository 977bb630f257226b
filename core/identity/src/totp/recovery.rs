//! Recovery codes: each opens once what the second factor opens, when the device is lost.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use skyloom_model::{Ids, Secret};
use subtle::ConstantTimeEq as _;

use super::{Unrecorded, base32};
use crate::{Denied, Why};

/// Bytes of a code: 16 characters of base32. Too many to try, so a plain hash is enough.
const CODE: usize = 10;
/// Most codes of one user.
const MAX: usize = 20;
/// Longest text that is looked at: 16 characters with something between them.
const MAX_TEXT: usize = 64;

/// The hashes of the codes that are left. Lies in the record of the second factor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecoveryCodes(Vec<String>);

impl RecoveryCodes {
    /// New codes (20 at most), and what is kept of them. They replace all former ones.
    #[must_use]
    pub fn generate(count: usize, ids: &dyn Ids) -> (Self, Vec<Secret<String>>) {
        let make = |_| {
            let mut bytes = [0; CODE];
            ids.random(&mut bytes);
            let text = base32::encode(&bytes).to_lowercase();
            let parts: Vec<&str> = [0..4, 4..8, 8..12, 12..16]
                .into_iter()
                .filter_map(|part| text.get(part))
                .collect();
            (hash(&bytes), Secret::new(parts.join("-")))
        };
        let (hashes, codes) = (0..count.min(MAX)).map(make).unzip();
        (Self(hashes), codes)
    }

    /// How many are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.0.len()
    }

    /// Compares a presented code with all that are left. What is to be recorded is the list without it.
    ///
    /// # Errors
    /// [`Denied`]: no code, or none of them (also one that was used).
    pub fn verify(&self, presented: &str) -> Result<Unrecorded<Self>, Denied> {
        if presented.is_empty() {
            return Err(Why::NoCode.into());
        }
        if presented.len() > MAX_TEXT {
            return Err(Why::WrongCode.into());
        }
        let bytes = base32::decode(presented)
            .filter(|bytes| bytes.len() == CODE)
            .ok_or(Why::WrongCode)?;
        let presented = hash(&bytes);
        let others = |kept: &&String| !bool::from(kept.as_bytes().ct_eq(presented.as_bytes()));
        let left: Vec<String> = self.0.iter().filter(others).cloned().collect();
        if left.len() == self.0.len() {
            return Err(Why::WrongCode.into());
        }
        Ok(Unrecorded(Self(left)))
    }
}

fn hash(code: &[u8]) -> String {
    let hash = digest(&SHA256, &[b"skyloom recovery code 1 ", code].concat());
    base32::encode(hash.as_ref())
}
