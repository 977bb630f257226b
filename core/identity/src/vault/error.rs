//! What can go wrong with sealed secrets.

use std::error::Error as StdError;

use skyloom_model::Reason;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VaultErrorKind {
    /// No key of that name is here.
    UnknownKey,
    /// The sealed text was changed, cut, or sealed for another place.
    Damaged,
    /// Sealed by a newer version.
    TooNew,
    /// Too much to seal.
    TooLarge,
    /// A key file cannot be used as it is.
    KeyFile,
    /// The key service cannot be reached; nothing happened.
    Unavailable,
    /// A bug, here or below.
    Internal,
}

/// A secret was not sealed or not opened: what, on what, and what to do about it. Holds no secret.
#[derive(Debug, thiserror::Error)]
#[error("{what}; {hint}")]
pub struct VaultError {
    kind: VaultErrorKind,
    what: String,
    hint: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl VaultError {
    /// An error.
    pub fn new(kind: VaultErrorKind, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            hint: hint.into(),
            source: None,
        }
    }
    /// Adds the native cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> VaultErrorKind {
        self.kind
    }
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.hint
    }
    /// The same as data.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let code = match self.kind {
            VaultErrorKind::UnknownKey => "vault.unknown_key",
            VaultErrorKind::Damaged => "vault.damaged",
            VaultErrorKind::TooNew => "vault.too_new",
            VaultErrorKind::TooLarge => "vault.too_large",
            VaultErrorKind::KeyFile => "vault.key_file",
            VaultErrorKind::Unavailable => "vault.unavailable",
            VaultErrorKind::Internal => "vault.internal",
        };
        let reason = Reason::new(code, self.what.clone()).hint(self.hint.clone());
        match self.kind {
            VaultErrorKind::Unavailable => reason.retryable(),
            _ => reason,
        }
    }
}
