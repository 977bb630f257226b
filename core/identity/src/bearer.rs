//! Bearer tokens: signed, short-lived, verified without a read of the store.
//!
//! ```text
//! SigningKeyRecord (private half sealed) ──TokenSigner::open──> issue(TokenRequest) ──> compact JWS, EdDSA and nothing else
//!            └─ public half ──KeyRing──> TokenVerifier::verify(token, now, &dyn Epochs)
//!                 size ─ header ─ key in the ring ─ signature ─┬─ key still there ─ issuer ─ times ─ epochs ─ not revoked ──> TokenClaims
//!                        (remembered by the token's SHA-256) ──┘
//! ```
//!
//! A token says who was proven, how, where, and the [`TokenEpochs`] of all that it rests on. It says nothing of roles: those are looked
//! up at each call. Only the signature's verdict is remembered; everything that can change is compared at each use. A token made from
//! another one never ends later than that, is revoked with it, and names it for the audit.

mod cache;
mod claims;
mod ring;
mod sign;
mod verify;

use skyloom_model::Reason;

use crate::VaultError;

pub use claims::{Epochs, Grounds, MAX_CHAIN, TokenClaims, TokenEpochs};
pub use ring::{KeyRing, RingPlan, RingPolicy, SigningKeyRecord};
pub use sign::{IssuedToken, SignerConfig, TokenRequest, TokenSigner};
pub use verify::{TokenVerifier, VerifierConfig};

/// Longest token in bytes. Longer ones are refused before anything is parsed.
pub const MAX_TOKEN: usize = 4096;
/// The one type of our tokens (RFC 8725, section 3.11).
const TYPE: &str = "sky+jwt";
/// The one algorithm.
const ALGORITHM: &str = "EdDSA";

/// A token was not made, or a signing key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// There is no key to sign with.
    #[error("there is no signing key; wait for the key ring, or run its rotation")]
    NoKey,
    /// What the token is made from has ended.
    #[error("the credential or token that this one is made from has ended; log in again")]
    Ended,
    /// Made from a token that was made from a token, and so on.
    #[error("a token cannot be made from a token more than {MAX_CHAIN} times; log in again")]
    ChainTooLong,
    /// The token that it is made from is another user's.
    #[error("a token of one user cannot be made from a token of another")]
    ParentOfAnother,
    /// Too long with all that it says.
    #[error("the token would have {0} bytes; {MAX_TOKEN} are allowed")]
    TooLong(usize),
    /// A key record is damaged.
    #[error("the signing key {kid} is damaged: {what}; delete its record, all its tokens end then")]
    DamagedKey {
        /// Which.
        kid: String,
        /// What is wrong.
        what: String,
    },
    /// A key's private half does not open.
    #[error("a signing key does not open")]
    Vault(#[from] VaultError),
    /// A bug, here or below.
    #[error("making a token failed: {0}")]
    Internal(String),
}

impl TokenError {
    /// The same as data.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let code = match self {
            Self::NoKey => "token.no_key",
            Self::Ended => "token.ended",
            Self::ChainTooLong => "token.chain_too_long",
            Self::ParentOfAnother => "token.parent_of_another",
            Self::TooLong(_) => "token.too_long",
            Self::DamagedKey { .. } => "token.damaged_key",
            Self::Vault(error) => return error.reason(),
            Self::Internal(_) => "token.internal",
        };
        let reason = Reason::new(code, self.to_string());
        if matches!(self, Self::NoKey) {
            reason.retryable()
        } else {
            reason
        }
    }
}
