//! Names of people and what belongs to them.
//!
//! A name is 1 to 255 characters without control characters and without outer white space. It is shown as it was written and compared without
//! regard to case (and so kept unique in its domain), as Keystone on MySQL does it: nobody can be `Alice` beside `alice`. Marks and widths count.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};

/// Most characters of a name; descriptions and other texts may have four times as many.
const MAX_NAME_CHARS: usize = 255;

/// Most characters of a description.
pub const MAX_TEXT_LEN: usize = 1024;

/// What names are unique in: each kind for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameKind {
    /// Domains, all together.
    Domain,
    /// Users of a domain.
    User,
    /// Groups of a domain.
    Group,
    /// Roles of a domain, or the global ones.
    Role,
    /// Projects of a domain.
    Project,
    /// Application credentials of a user.
    Credential,
    /// Public halves of EC2 keys, all together.
    Ec2,
}

impl fmt::Display for NameKind {
    /// As it stands in store keys and messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Domain => "domain",
            Self::User => "user",
            Self::Group => "group",
            Self::Role => "role",
            Self::Project => "project",
            Self::Credential => "credential",
            Self::Ec2 => "ec2",
        })
    }
}

/// Why a name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NamePolicyError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// Over the limit.
    #[error("is longer than 255 characters")]
    TooLong,
    /// Control characters, line separators, direction marks or outer white space.
    #[error("has control characters or outer white space")]
    NotPrintable,
}

/// Whether `name` can be a name.
///
/// # Errors
/// See [`NamePolicyError`].
pub fn check_name(name: &str) -> Result<(), NamePolicyError> {
    if name.is_empty() {
        return Err(NamePolicyError::Empty);
    }
    if name.chars().nth(MAX_NAME_CHARS).is_some() {
        return Err(NamePolicyError::TooLong);
    }
    // Bidirectional overrides and line separators would let one name pose as another in a list.
    let hidden = |c: char| {
        c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if name.chars().any(hidden) || name.trim() != name {
        return Err(NamePolicyError::NotPrintable);
    }
    Ok(())
}

/// The form in which names are compared.
#[must_use]
pub fn fold_name(name: &str) -> String {
    name.to_lowercase()
}

/// The hash under which the claim of a name lies: SHA-256 of its compared form in lower-case hex.
#[must_use]
pub fn name_hash(name: &str) -> String {
    sha256_hex(fold_name(name).as_bytes())
}

/// SHA-256 in lower-case hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n & 15)]);
    let hash = digest(&SHA256, bytes);
    hash.as_ref()
        .iter()
        .flat_map(|b| [digit(b >> 4), digit(*b)])
        .collect()
}
