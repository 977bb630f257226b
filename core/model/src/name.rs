//! Display names and host names: checked once, at the door.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest display name in bytes.
pub const MAX_NAME_LEN: usize = 255;

/// Display text that names a resource. Never used as a path, an argument or an identifier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, min_length = 1, max_length = 255, example = "web-1"))]
pub struct Name(String);

/// A host name: RFC 1123 labels of letters, digits and `-`, at most 63 bytes in all (one label or dotted).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, min_length = 1, max_length = 63, example = "web-1", pattern = r"^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$"))]
pub struct Hostname(String);

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// Over the limit.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// Control characters, line separators or outer white space.
    #[error("has control characters or outer white space")]
    NotPrintable,
    /// Not RFC 1123.
    #[error("is no host name: use letters, digits and '-' in labels divided by '.'")]
    NotAHostname,
}

impl Name {
    /// Checks `text`: 1 to 255 bytes, printable, no outer white space.
    ///
    /// # Errors
    /// See [`NameError`].
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_NAME_LEN {
            return Err(NameError::TooLong(MAX_NAME_LEN));
        }
        // Bidirectional overrides and line separators would let one name pose as another in a list.
        let hidden = |c: char| {
            c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
        };
        if text.chars().any(hidden) || text.trim() != text {
            return Err(NameError::NotPrintable);
        }
        Ok(Self(text))
    }
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Hostname {
    /// Checks `text`.
    ///
    /// # Errors
    /// See [`NameError`].
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > 63 {
            return Err(NameError::TooLong(63));
        }
        let label = |l: &str| {
            !l.is_empty()
                && !l.starts_with('-')
                && !l.ends_with('-')
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if text.split('.').all(label) {
            Ok(Self(text))
        } else {
            Err(NameError::NotAHostname)
        }
    }
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        Self::new(s)
    }
}
impl From<Name> for String {
    fn from(n: Name) -> Self {
        n.0
    }
}
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl TryFrom<String> for Hostname {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        Self::new(s)
    }
}
impl From<Hostname> for String {
    fn from(n: Hostname) -> Self {
        n.0
    }
}
impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_odd_text_and_refuse_hidden_text() {
        for good in [
            "web-1",
            "x,process=evil",
            "-drive",
            "$(touch /tmp/p)",
            "云 主机",
            "../../etc/passwd",
        ] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in ["", " a", "a\n", "a\0b", "\u{202e}abc", &"x".repeat(256)] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hostnames_are_rfc_1123() {
        assert!(Hostname::new("web-1.example.org").is_ok());
        for bad in ["", "-a", "a-", "a..b", "a_b", "a b", "a\nb", &"a".repeat(64), "ä"] {
            assert!(Hostname::new(bad).is_err(), "{bad:?}");
        }
    }
}
