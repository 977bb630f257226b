//! One error for all stores: a portable kind, a retry class, what was tried on what, and the native source.

use std::error::Error as StdError;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn StdError + Send + Sync>;

/// What went wrong, independent of the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The outcome of a commit is not known: it may or may not have happened. Read back before trying again.
    Unknown,
    /// The store cannot be reached or is not ready; nothing happened.
    Unavailable,
    /// The call took longer than its limit; for reads. (A commit that timed out is `Unknown`.)
    Timeout,
    /// Too many calls at once; nothing happened.
    Overloaded,
    /// No room left in the store; nothing happened.
    Full,
    /// The transaction or value is over a limit; nothing happened.
    TooLarge,
    /// The history asked for has been compacted.
    Compacted,
    /// The caller may not see or change this; nothing happened.
    Denied,
    /// The request makes no sense; nothing happened.
    Invalid,
    /// A stored value or file is damaged, or not what its type says.
    Corrupt,
    /// The data was written by a newer version than this program understands.
    TooNew,
    /// This store cannot do that.
    Unsupported,
    /// The document is not there (typed calls that need one).
    NotFound,
    /// A typed call found other contents than it needs, also after its retries.
    Conflict,
    /// A bug, here or in the backend.
    Internal,
}

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The same call will fail again.
    Permanent,
    /// The same call may work later.
    Transient,
    /// A lower layer has already retried as long as it may; do not multiply that.
    Exhausted,
}

impl ErrorKind {
    /// The class that this kind has unless the place that knows says otherwise.
    #[must_use]
    pub const fn default_class(self) -> Class {
        match self {
            Self::Unavailable | Self::Timeout | Self::Overloaded => Class::Transient,
            Self::Unknown
            | Self::Full
            | Self::TooLarge
            | Self::Compacted
            | Self::Denied
            | Self::Invalid
            | Self::Corrupt
            | Self::TooNew
            | Self::Unsupported
            | Self::NotFound
            | Self::Conflict
            | Self::Internal => Class::Permanent,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Unknown => "outcome unknown",
            Self::Unavailable => "store unavailable",
            Self::Timeout => "timed out",
            Self::Overloaded => "too many calls at once",
            Self::Full => "store full",
            Self::TooLarge => "too large",
            Self::Compacted => "history compacted",
            Self::Denied => "not allowed",
            Self::Invalid => "invalid request",
            Self::Corrupt => "corrupt data",
            Self::TooNew => "written by a newer version",
            Self::Unsupported => "not supported",
            Self::NotFound => "not found",
            Self::Conflict => "conflict",
            Self::Internal => "internal error",
        }
    }
}

/// A store error. `Display` is one line and does not repeat the source; use [`skyloom_model::report`] for the chain.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    class: Class,
    operation: &'static str,
    context: Vec<(&'static str, String)>,
    source: Option<Source>,
}

impl Error {
    /// An error of `kind` while doing `operation`, with the kind's default class.
    #[must_use]
    pub fn new(kind: ErrorKind, operation: &'static str) -> Self {
        Self(Box::new(Inner {
            kind,
            class: kind.default_class(),
            operation,
            context: Vec::new(),
            source: None,
        }))
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((name, value.to_string()));
        self
    }

    /// Adds the native cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Overrides the class.
    #[must_use]
    pub fn class_is(mut self, class: Class) -> Self {
        self.0.class = class;
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same may work later, however often a layer below has tried it: nobody was reached, there was no room, or
    /// nobody can tell what happened. For whoever waits minutes, not for whoever retries calls.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::Unknown
                | ErrorKind::Unavailable
                | ErrorKind::Timeout
                | ErrorKind::Overloaded
                | ErrorKind::Full
        )
    }
    /// Whether trying again can help.
    #[must_use]
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// What was being done.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.operation, self.0.kind.text())?;
        for (i, (name, value)) in self.0.context.iter().enumerate() {
            write!(f, "{}{name} {value}", if i == 0 { " (" } else { ", " })?;
        }
        if self.0.context.is_empty() {
            Ok(())
        } else {
            f.write_str(")")
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("store::Error")
            .field("kind", &self.0.kind)
            .field("class", &self.0.class)
            .field("operation", &self.0.operation)
            .field("context", &self.0.context)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}
