//! One-time codes of a second factor (RFC 6238), and the recovery codes for the day when the device is lost.
//!
//! ```text
//! Totp (secret, sealed at rest) ──verify(code, now, &TotpUse)──> Unrecorded<TotpUse> ──record(save)──> Method::Totp
//! RecoveryCodes (hashes)        ──verify(code)─────────────────> Unrecorded<RecoveryCodes> ──record(save)──> Method::Totp
//! ```
//!
//! A code counts once. So a right code is not yet a proof: what must be remembered of it comes out as [`Unrecorded`], and only saving
//! that gives the [`Method`] that a principal names. Save it with a guard on the revision that was read: of two logins with one code
//! at the same moment one is then refused by the store.

mod base32;
mod recovery;

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use skyloom_model::{Ids, Secret, Timestamp};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use crate::{Denied, Method, Why};

pub use recovery::RecoveryCodes;

/// Bytes of a new secret: as many as SHA-1 gives (RFC 4226, section 4).
const SECRET: usize = 20;
/// Longest secret that is taken over from elsewhere.
const MAX_SECRET: usize = 128;

/// The hash in a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TotpAlgorithm {
    /// What every authenticator knows.
    #[default]
    #[serde(rename = "SHA1")]
    Sha1,
    /// SHA-256.
    #[serde(rename = "SHA256")]
    Sha256,
    /// SHA-512.
    #[serde(rename = "SHA512")]
    Sha512,
}

impl TotpAlgorithm {
    const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
            Self::Sha512 => "SHA512",
        }
    }
    const fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

/// How codes are made. The default is what authenticators expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TotpConfig {
    /// The hash.
    pub algorithm: TotpAlgorithm,
    /// Digits of a code: 6 to 8.
    pub digits: u8,
    /// Seconds that a code is shown.
    pub period: u32,
    /// How many steps a device's clock may be off, to both sides; 2 at most.
    pub skew: u8,
}

impl Default for TotpConfig {
    fn default() -> Self {
        Self {
            algorithm: TotpAlgorithm::Sha1,
            digits: 6,
            period: 30,
            skew: 1,
        }
    }
}

/// Why a second factor cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TotpError {
    /// The numbers make no sense.
    #[error(
        "a code of {digits} digits every {period} s with {skew} steps to each side; 6 to 8 digits, 10 to 300 s and 2 steps are allowed"
    )]
    Config {
        /// Digits.
        digits: u8,
        /// Seconds.
        period: u32,
        /// Steps.
        skew: u8,
    },
    /// The secret has another length.
    #[error("a secret of {0} bytes; 10 to 128 are allowed")]
    Length(usize),
    /// The secret is not base32.
    #[error("the secret is not base32: letters A to Z and digits 2 to 7")]
    Base32,
}

/// A user's second factor.
#[derive(Clone)]
pub struct Totp {
    config: TotpConfig,
    secret: Secret<Vec<u8>>,
}

impl fmt::Debug for Totp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Totp")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What is remembered of the codes that were used. Lies in the record, beside the sealed secret.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TotpUse {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_step: Option<u64>,
}

/// A right code of which the use is not recorded yet, so it proves nothing yet.
#[derive(Debug)]
#[must_use = "a code that is not recorded as used can be used again"]
pub struct Unrecorded<T>(T);

impl<T> Unrecorded<T> {
    /// Saves what is now known of used codes; then, and only then, the factor is proven.
    ///
    /// # Errors
    /// Those of `save`: nothing is proven then.
    pub async fn record<E>(self, save: impl AsyncFnOnce(T) -> Result<(), E>) -> Result<Method, E> {
        save(self.0).await?;
        Ok(Method::Totp)
    }
}

impl Totp {
    /// A new factor with a fresh secret.
    ///
    /// # Errors
    /// [`TotpError::Config`].
    pub fn generate(config: TotpConfig, ids: &dyn Ids) -> Result<Self, TotpError> {
        let mut secret = vec![0; SECRET];
        ids.random(&mut secret);
        Self::from_secret(config, Secret::new(secret))
    }

    /// The factor of a secret: as unsealed, or taken over from elsewhere.
    ///
    /// # Errors
    /// [`TotpError`].
    pub fn from_secret(config: TotpConfig, secret: Secret<Vec<u8>>) -> Result<Self, TotpError> {
        let TotpConfig {
            digits, period, skew, ..
        } = config;
        if !(6..=8).contains(&digits) || !(10..=300).contains(&period) || skew > 2 {
            return Err(TotpError::Config { digits, period, skew });
        }
        let length = secret.expose().len();
        if !(10..=MAX_SECRET).contains(&length) {
            return Err(TotpError::Length(length));
        }
        Ok(Self { config, secret })
    }

    /// The factor of a secret in base32, as other systems write it.
    ///
    /// # Errors
    /// [`TotpError`].
    pub fn from_base32(config: TotpConfig, text: &str) -> Result<Self, TotpError> {
        if text.len() > MAX_SECRET * 2 {
            return Err(TotpError::Length(text.len()));
        }
        let secret = base32::decode(text).ok_or(TotpError::Base32)?;
        Self::from_secret(config, Secret::new(secret))
    }

    /// The secret: to seal it.
    #[must_use]
    pub fn secret(&self) -> &Secret<Vec<u8>> {
        &self.secret
    }

    /// The secret in base32: to be typed into a device, shown once.
    #[must_use]
    pub fn base32(&self) -> Secret<String> {
        Secret::new(base32::encode(self.secret.expose()))
    }

    /// The `otpauth://` address that authenticators read from a picture. Holds the secret.
    #[must_use]
    pub fn enrolment_uri(&self, issuer: &str, account: &str) -> Secret<String> {
        let TotpConfig {
            algorithm,
            digits,
            period,
            ..
        } = self.config;
        let (issuer, account) = (percent(issuer), percent(account));
        let secret = base32::encode(self.secret.expose());
        let algorithm = algorithm.name();
        Secret::new(format!(
            "otpauth://totp/{issuer}:{account}?secret={secret}&issuer={issuer}&algorithm={algorithm}&digits={digits}&period={period}"
        ))
    }

    /// The code of a moment: for tests and for clients.
    #[must_use]
    pub fn code_at(&self, at: Timestamp) -> String {
        self.code(self.step(at))
    }

    /// Compares a presented code with those of now and of the steps around it. All are computed and compared whatever is found.
    ///
    /// # Errors
    /// [`Denied`]: no code, another one, or one that is not newer than the last one used.
    pub fn verify(
        &self,
        presented: &str,
        now: Timestamp,
        used: &TotpUse,
    ) -> Result<Unrecorded<TotpUse>, Denied> {
        if presented.is_empty() {
            return Err(Why::NoCode.into());
        }
        if presented.len() != usize::from(self.config.digits)
            || !presented.bytes().all(|b| b.is_ascii_digit())
        {
            return Err(Why::WrongCode.into());
        }
        let middle = self.step(now);
        let skew = u64::from(self.config.skew);
        // Steps begin at 1, so 0 is "none of them".
        let mut found = 0;
        for step in middle.saturating_sub(skew).max(1)..=middle.saturating_add(skew) {
            let equal = self.code(step).as_bytes().ct_eq(presented.as_bytes());
            found.conditional_assign(&step, equal);
        }
        match found {
            0 => Err(Why::WrongCode.into()),
            step if used.last_step.is_some_and(|last| step <= last) => Err(Why::UsedCode.into()),
            step => Ok(Unrecorded(TotpUse {
                last_step: Some(step),
            })),
        }
    }

    fn step(&self, at: Timestamp) -> u64 {
        let since = Duration::try_from(at.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
        since.as_secs() / u64::from(self.config.period)
    }

    /// RFC 4226, section 5.3.
    fn code(&self, step: u64) -> String {
        let key = hmac::Key::new(self.config.algorithm.hmac(), self.secret.expose());
        let tag = hmac::sign(&key, &step.to_be_bytes());
        let tag = tag.as_ref();
        let at = tag.last().map_or(0, |last| usize::from(last & 15));
        let four = tag.get(at..at + 4).unwrap_or_default();
        let number = four.iter().fold(0u32, |n, byte| (n << 8) | u32::from(*byte)) & 0x7fff_ffff;
        let width = usize::from(self.config.digits);
        format!("{:0width$}", number % 10u32.pow(u32::from(self.config.digits)))
    }
}

/// Percent-encoding of everything but RFC 3986's unreserved characters.
fn percent(text: &str) -> String {
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out += &format!("%{byte:02X}");
            }
            out
        })
}
