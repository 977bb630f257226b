//! Why a change was refused.

use std::fmt;

use crate::NameKind;

/// A result of changes.
pub type ChangeResult<T> = Result<T, ChangeError>;

/// Why a change was refused or failed. Nothing happened, unless [`ChangeError::Store`] says that nobody can tell.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// Something that the change needs is not there (any more).
    #[error("there is no {what} {id}")]
    NotFound {
        /// What sort of thing.
        what: &'static str,
        /// Which.
        id: String,
        /// Where it would be.
        path: String,
    },
    /// Somebody else has the name.
    #[error("there is already a {kind} with the name {name:?}")]
    NameTaken {
        /// What sort of thing.
        kind: NameKind,
        /// The name.
        name: String,
        /// Where the name is claimed.
        path: String,
    },
    /// It does not fit what is, or others changed the same records again and again.
    #[error("{0}")]
    Conflict(String),
    /// It cannot go while something else needs it.
    #[error("the {what} is in use: {by}")]
    InUse {
        /// What sort of thing.
        what: &'static str,
        /// What needs it.
        by: String,
    },
    /// A wrong value.
    #[error("{field}: {why}")]
    Invalid {
        /// Of which field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Whoever asks may not do that with the credential in hand.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] skyloom_store::Error),
}

impl ChangeError {
    pub(super) fn not_found(what: &'static str, id: impl fmt::Display, path: String) -> Self {
        let id = id.to_string();
        Self::NotFound { what, id, path }
    }

    pub(super) fn invalid(field: &'static str, why: impl fmt::Display) -> Self {
        let why = why.to_string();
        Self::Invalid { field, why }
    }
}
