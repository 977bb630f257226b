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
    /// Given for somebody else, or not for this login.
    Audience,
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
    /// No role counts in the scope that was asked for, or there is no such scope.
    NoRole,
    /// The password must be changed before it can be used.
    PasswordExpired,
    /// What was proven is not enough, or not of one user, or proves nothing by itself.
    Insufficient,
    /// A credential that has one scope and gets no other.
    NotRescopable,
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

impl Why {
    /// The same as a code, for the audit.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::UnknownUser => "auth.unknown_user",
            Self::WrongPassword => "auth.wrong_password",
            Self::NoCode => "auth.no_code",
            Self::WrongCode => "auth.wrong_code",
            Self::UsedCode => "auth.used_code",
            Self::UnknownSecret => "auth.unknown_secret",
            Self::MistypedSecret => "auth.mistyped_secret",
            Self::TooLong => "auth.too_long",
            Self::Malformed => "auth.malformed",
            Self::Header => "auth.header",
            Self::UnknownKey => "auth.unknown_key",
            Self::Signature => "auth.signature",
            Self::Issuer => "auth.issuer",
            Self::Audience => "auth.audience",
            Self::Expired => "auth.expired",
            Self::NotYet => "auth.not_yet",
            Self::Gone => "auth.gone",
            Self::Outdated => "auth.outdated",
            Self::Revoked => "auth.revoked",
            Self::NoRole => "auth.no_role",
            Self::PasswordExpired => "auth.password_expired",
            Self::Insufficient => "auth.insufficient",
            Self::NotRescopable => "auth.not_rescopable",
        }
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
            Self::Audience => "token for somebody else or another login",
            Self::Expired => "token ended",
            Self::NotYet => "token not yet valid",
            Self::Gone => "user, domain, scope or credential gone or disabled",
            Self::Outdated => "user, domain, scope or credential changed since",
            Self::Revoked => "token taken back",
            Self::NoRole => "no role in that scope, or no such scope",
            Self::PasswordExpired => "password to be changed",
            Self::Insufficient => "not enough proven",
            Self::NotRescopable => "credential of one scope used for another",
        })
    }
}

impl From<Why> for Denied {
    fn from(why: Why) -> Self {
        Self(why)
    }
}
