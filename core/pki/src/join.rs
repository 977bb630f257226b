//! Join tokens: what lets a machine become a host once.
//!
//! An operator enters a host and gets its token, shown once. The machine presents it with its name and a request for a certificate.
//! The first key that comes with it takes it: [`JoinTokenRecord::redeem`] gives the record as it is afterwards, and whoever writes
//! that under the revision of the record before has used it. An answer that gets lost is asked for again with the same key, for a
//! few minutes. Another key never gets anything: it is told, and so is the audit, since somebody has the token who should not.
//! Who raises the host's epoch deletes its join token as well.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use skyloom_model::{HostId, Hostname, Ids, Reason, Secret, Timestamp};
use subtle::ConstantTimeEq as _;

use crate::lifetimes::later;
use crate::{Fingerprint, Lifetimes};

const PREFIX: &str = "skyjoin_";
/// Characters of 32 bytes in base64url.
const RANDOM: usize = 43;

/// A join token, as it is kept: without the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenRecord {
    /// The host that it is for.
    pub host: HostId,
    /// The name that the operator entered for it.
    pub name: Hostname,
    /// SHA-256 of the token: it is found by this.
    pub hash: Fingerprint,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when it may be used.
    pub until: Timestamp,
    /// The key that has used it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<JoinUse>,
}

/// Who has used a join token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinUse {
    /// When.
    pub at: Timestamp,
    /// The public key that got the certificate.
    pub key: Fingerprint,
}

/// A new join token.
#[derive(Debug)]
pub struct JoinToken {
    /// The token: shown once, kept nowhere.
    pub token: Secret<String>,
    /// What is kept.
    pub record: JoinTokenRecord,
}

/// What using a join token came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redeemed {
    /// It is used now, if this record can be written in place of the one before.
    First(JoinTokenRecord),
    /// This key has used it before and asks again: nothing to be written.
    Again,
}

/// Why a join token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum JoinRefused {
    /// It does not look like one, or is not the one of this record.
    #[error("this is no join token of this cloud")]
    Unknown,
    /// It is for a host of another name.
    #[error("this join token is for another host")]
    OtherHost,
    /// Another key has used it, or the same one too long ago.
    #[error("this join token has been used")]
    Used,
    /// Its time is over.
    #[error("this join token has expired")]
    Expired,
}

impl JoinRefused {
    /// The same as a code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unknown => "join.unknown",
            Self::OtherHost => "join.other_host",
            Self::Used => "join.used",
            Self::Expired => "join.expired",
        }
    }

    /// The same as data.
    #[must_use]
    pub fn reason(self) -> Reason {
        let hint = match self {
            Self::Unknown => "copy the whole token as it was shown, or make a new one",
            Self::OtherHost => "use it on the host that it was made for, under the name entered there",
            Self::Used => {
                "if it was not this host that used it, revoke the host's certificates; then make a new token"
            }
            Self::Expired => "make a new one for this host",
        };
        Reason::new(self.code(), self.to_string()).hint(hint)
    }
}

impl JoinToken {
    /// Makes one for this host.
    #[must_use]
    pub fn generate(
        host: HostId,
        name: Hostname,
        ids: &dyn Ids,
        now: Timestamp,
        lifetimes: &Lifetimes,
    ) -> Self {
        let mut bytes = [0; 32];
        ids.random(&mut bytes);
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        Self {
            record: JoinTokenRecord {
                host,
                name,
                hash: Fingerprint::of(token.as_bytes()),
                created_at: now,
                until: later(now, lifetimes.join),
                used: None,
            },
            token: Secret::new(token),
        }
    }

    /// The hash under which the record of a presented token would be found.
    ///
    /// # Errors
    /// [`JoinRefused::Unknown`] without a look-up, when no token looks like this.
    pub fn hash(presented: &str) -> Result<Fingerprint, JoinRefused> {
        let random = presented.strip_prefix(PREFIX).ok_or(JoinRefused::Unknown)?;
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if random.len() != RANDOM || !random.bytes().all(fits) {
            return Err(JoinRefused::Unknown);
        }
        Ok(Fingerprint::of(presented.as_bytes()))
    }
}

impl JoinTokenRecord {
    /// Uses it: with the token, for the host of this name, with this public key.
    ///
    /// # Errors
    /// [`JoinRefused`]; the record stays as it is.
    pub fn redeem(
        &self,
        presented: &str,
        name: &Hostname,
        key: &Fingerprint,
        now: Timestamp,
        again: Duration,
    ) -> Result<Redeemed, JoinRefused> {
        let hash = JoinToken::hash(presented)?;
        if !bool::from(hash.as_str().as_bytes().ct_eq(self.hash.as_str().as_bytes())) {
            return Err(JoinRefused::Unknown);
        }
        if !name.as_str().eq_ignore_ascii_case(self.name.as_str()) {
            return Err(JoinRefused::OtherHost);
        }
        match &self.used {
            Some(used) if used.key == *key && now < later(used.at, again) => Ok(Redeemed::Again),
            Some(_) => Err(JoinRefused::Used),
            None if now >= self.until => Err(JoinRefused::Expired),
            None => {
                let mut next = self.clone();
                next.used = Some(JoinUse {
                    at: now,
                    key: key.clone(),
                });
                Ok(Redeemed::First(next))
            }
        }
    }
}
