//! What can go wrong with certificates and keys.

use std::error::Error as StdError;

use skyloom_model::Reason;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PkiErrorKind {
    /// It cannot be read as what it should be.
    Malformed,
    /// It is longer than any real one.
    TooLarge,
    /// The request's signature is not by the key in it.
    BadSignature,
    /// A kind of key, name or usage that is not taken here.
    NotAllowed,
    /// None of our roots has signed it.
    Foreign,
    /// Certificate and key do not belong together.
    Mismatch,
    /// Its time is over.
    Expired,
    /// Nothing can be read there.
    Unreadable,
    /// A bug, here or below.
    Internal,
}

/// A certificate, key or request is refused: what, on what, and what to do about it. Holds no secret.
#[derive(Debug, thiserror::Error)]
#[error("{what}; {hint}")]
pub struct PkiError {
    kind: PkiErrorKind,
    what: String,
    hint: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl PkiError {
    /// An error.
    pub fn new(kind: PkiErrorKind, what: impl Into<String>, hint: impl Into<String>) -> Self {
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
    pub fn kind(&self) -> PkiErrorKind {
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
            PkiErrorKind::Malformed => "pki.malformed",
            PkiErrorKind::TooLarge => "pki.too_large",
            PkiErrorKind::BadSignature => "pki.bad_signature",
            PkiErrorKind::NotAllowed => "pki.not_allowed",
            PkiErrorKind::Foreign => "pki.foreign",
            PkiErrorKind::Mismatch => "pki.mismatch",
            PkiErrorKind::Expired => "pki.expired",
            PkiErrorKind::Unreadable => "pki.unreadable",
            PkiErrorKind::Internal => "pki.internal",
        };
        Reason::new(code, self.what.clone()).hint(self.hint.clone())
    }

    pub(crate) fn internal(what: &str, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(PkiErrorKind::Internal, what, "report this with the log around it").with_source(source)
    }
}
