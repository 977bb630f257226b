//! One answer to everybody whose credential was not taken; the true reason is for the audit alone.

use std::fmt;

use serde::{Deserialize, Serialize};
use skyloom_model::Reason;

/// A credential was not taken. What is shown of it is the same for every cause, so nobody learns which part was wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the credentials were not accepted")]
pub struct Denied(Why);

/// Why a credential was not taken: for the audit, never for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Why {
    /// There is no such user, or the user has no password.
    UnknownUser,
    /// Another password.
    WrongPassword,
    /// No code where a second factor is needed.
    NoCode,
    /// Not the code of now.
    WrongCode,
    /// The right code, but it (or a later one) has been used.
    UsedCode,
    /// Nothing has this secret's hash.
    UnknownSecret,
    /// The secret's checksum is not that of its other characters.
    MistypedSecret,
    /// Longer than anything that we give out.
    TooLong,
    /// Not of the form that we give out.
    Malformed,
    /// A token's header asks for something else than our one algorithm and type.
    Header,
    /// Signed with a key that is not in the ring, or not any more.
    UnknownKey,
    /// The signature is not of that text by that key.
    Signature,
    /// Given by somebody else.
    Issuer,
    /// It has ended.
    Expired,
    /// It has not begun.
    NotYet,
    /// What it rests on is deleted or disabled.
    Gone,
    /// What it rests on has changed since (an epoch was raised).
    Outdated,
    /// It, or a token that it was made from, was taken back.
    Revoked,
}

impl Denied {
    /// Denied for that reason.
    #[must_use]
    pub const fn new(why: Why) -> Self {
        Self(why)
    }
    /// The true reason: for the audit.
    #[must_use]
    pub const fn why(&self) -> Why {
        self.0
    }
    /// What the caller is told: the same in every case.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::new("auth.denied", self.to_string()).hint("log in again, or check the secret that was given")
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownUser => "no such user, or no password set",
            Self::WrongPassword => "wrong password",
            Self::NoCode => "no code of the second factor",
            Self::WrongCode => "wrong code of the second factor",
            Self::UsedCode => "code of the second factor used before",
            Self::UnknownSecret => "unknown secret",
            Self::MistypedSecret => "mistyped secret",
            Self::TooLong => "longer than any credential",
            Self::Malformed => "not of a credential's form",
            Self::Header => "token header not allowed",
            Self::UnknownKey => "token signed with an unknown key",
            Self::Signature => "token signature wrong",
            Self::Issuer => "token of another issuer",
            Self::Expired => "token ended",
            Self::NotYet => "token not yet valid",
            Self::Gone => "user, domain, scope or credential gone or disabled",
            Self::Outdated => "user, domain, scope or credential changed since",
            Self::Revoked => "token taken back",
        })
    }
}

impl From<Why> for Denied {
    fn from(why: Why) -> Self {
        Self(why)
    }
}
