//! One error for all hypervisors and pools: a portable kind, a retry class, what was tried on what, the native source.

use std::error::Error as StdError;
use std::fmt;

use serde::{Deserialize, Serialize};
use skyloom_model::Reason;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, independent of the hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The domain, disk or image is not there.
    NotFound,
    /// The order is of an older generation than the domain.
    Stale,
    /// Something else is where this should be.
    Conflict,
    /// The request makes no sense, or the content is refused.
    Invalid,
    /// The host has no room (disk, memory).
    Full,
    /// The hypervisor or its monitor cannot be reached now.
    Unavailable,
    /// It took too long; what is must be looked up.
    Timeout,
    /// The hypervisor refused.
    Refused,
    /// A file is damaged.
    Corrupt,
    /// This hypervisor cannot do that.
    Unsupported,
    /// A bug.
    Internal,
}

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The same call will fail again.
    Permanent,
    /// The same call may work later.
    Transient,
}

impl ErrorKind {
    /// The class that this kind has unless the place that knows says otherwise.
    #[must_use]
    pub const fn default_class(self) -> Class {
        match self {
            Self::Unavailable | Self::Timeout | Self::Full => Class::Transient,
            Self::NotFound
            | Self::Stale
            | Self::Conflict
            | Self::Invalid
            | Self::Refused
            | Self::Corrupt
            | Self::Unsupported
            | Self::Internal => Class::Permanent,
        }
    }

    /// The stable code, below `host.`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotFound => "host.not_found",
            Self::Stale => "host.stale_order",
            Self::Conflict => "host.conflict",
            Self::Invalid => "host.invalid",
            Self::Full => "host.full",
            Self::Unavailable => "host.unavailable",
            Self::Timeout => "host.timeout",
            Self::Refused => "host.refused",
            Self::Corrupt => "host.corrupt",
            Self::Unsupported => "host.unsupported",
            Self::Internal => "host.internal",
        }
    }
}

/// A hypervisor or storage error.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    class: Class,
    operation: &'static str,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn StdError + Send + Sync>>,
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
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
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
    /// Whether trying again can help.
    #[must_use]
    pub fn class(&self) -> Class {
        self.0.class
    }
    /// What was tried, and the kind.
    fn what(&self) -> String {
        let kind = self.0.kind.code().trim_start_matches("host.").replace('_', " ");
        format!("{}: {kind}", self.0.operation)
    }
    /// As a reason for a job's record: what was tried and the kind for everybody, facts and causes as its detail. A source that
    /// is itself a [`Reason`] stays as it is.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let mut reason = match self.0.source.as_ref().and_then(|s| s.downcast_ref::<Reason>()) {
            Some(inner) => inner.clone(),
            None => Reason::new(self.0.kind.code(), self.what()).detail(skyloom_model::report(self)),
        };
        reason.retryable = matches!(self.0.class, Class::Transient);
        reason
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what())?;
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
        f.debug_struct("hypervisor::Error")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_looks_like_inside_is_told_in_the_detail_alone() {
        let error = Error::new(ErrorKind::Full, "disk.create")
            .with("file", "/srv/pool/x.qcow2")
            .because("no space left on /srv");
        let reason = error.reason();
        assert_eq!(reason.message, "disk.create: full");
        let detail = "disk.create: full (file /srv/pool/x.qcow2): no space left on /srv";
        assert_eq!(reason.detail.as_deref(), Some(detail));
        assert_eq!(
            reason.whole(),
            format!("disk.create: full [host.full] ({detail})")
        );

        let own = Reason::new("image.has_backing_file", "it names another file").hint("flatten it");
        let refused = Error::new(ErrorKind::Invalid, "image.check")
            .with("file", "/srv/x")
            .because(own.clone());
        assert_eq!(refused.reason(), own);
    }
}
