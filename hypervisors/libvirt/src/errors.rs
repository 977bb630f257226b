//! From what can go wrong in a call to the contract's errors.

use std::io;
use std::time::Duration;

use skyloom_hypervisor::{Class, Error, ErrorKind};
use skyloom_model::ServerId;
use virt::error::{ErrorDomain, ErrorNumber};

/// Why a call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// There is no such domain.
    #[error("there is no such domain")]
    Absent,
    /// A domain of this id that carries nothing of us.
    #[error("the domain of this id is not ours")]
    Foreign,
    /// What it carries of us makes no sense.
    #[error("what the domain carries of us cannot be used: {0}")]
    Damaged(String),
    /// The domain is of a newer generation.
    #[error("ordered generation {ordered}, there is {there}")]
    Stale {
        /// The order's.
        ordered: u64,
        /// The domain's.
        there: u64,
    },
    /// It cannot be done as things are.
    #[error("{0}")]
    Conflict(&'static str),
    /// It makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// It was refused, and may be allowed later.
    #[error("{0}")]
    NotNow(&'static str),
    /// QEMU refused what we asked its monitor for.
    #[error("QEMU refused: {0}")]
    Qemu(String),
    /// Its monitor answered what makes no sense.
    #[error("the monitor's answer has no {0}")]
    Monitor(&'static str),
    /// libvirt refused.
    #[error(transparent)]
    Libvirt(#[from] virt::error::Error),
    /// Nothing waits for a guest where it is to go.
    #[error("nothing waits there")]
    Nobody,
    /// There is no connection.
    #[error("libvirt cannot be reached: {0}")]
    Down(String),
    /// No answer in time. Whether it was done is not known.
    #[error("no answer from libvirt within {0:?}")]
    Late(Duration),
    /// The hypervisor was closed.
    #[error("the hypervisor is closed")]
    Closed,
    /// What the contract's own error says: a disk that cannot be used, a spec that makes no sense.
    #[error(transparent)]
    Said(Error),
    /// Not what this crate is for.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// A bug: XML of ours that cannot be written.
    #[error("the definition cannot be written: {0}")]
    Unwritable(String),
}

impl Fault {
    /// As the contract's error.
    pub(crate) fn of(self, operation: &'static str, id: ServerId) -> Error {
        match self {
            Self::Said(error) => error,
            other => other.plain(operation).with("server", id),
        }
    }

    /// The same without a server.
    pub(crate) fn plain(self, operation: &'static str) -> Error {
        let later = matches!(self, Self::NotNow(_));
        let kind = match &self {
            Self::Absent => ErrorKind::NotFound,
            Self::Foreign | Self::Conflict(_) => ErrorKind::Conflict,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::NotNow(_) => ErrorKind::Refused,
            Self::Damaged(_) => ErrorKind::Corrupt,
            Self::Stale { .. } => ErrorKind::Stale,
            Self::Libvirt(e) => kind(e),
            Self::Qemu(text) => words(text),
            Self::Monitor(_) => ErrorKind::Unavailable,
            Self::Down(_) | Self::Closed | Self::Nobody => ErrorKind::Unavailable,
            Self::Late(_) => ErrorKind::Timeout,
            Self::Said(e) => e.kind(),
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Unwritable(_) => ErrorKind::Internal,
        };
        let error = Error::new(kind, operation).because(self);
        if later {
            error.class_is(Class::Transient)
        } else {
            error
        }
    }
}

/// Whether the error says that the connection is of no use any more.
pub(crate) fn is_dead(error: &virt::error::Error) -> bool {
    matches!(error.domain(), ErrorDomain::Rpc | ErrorDomain::Remote)
        && matches!(
            error.code(),
            ErrorNumber::SystemError
                | ErrorNumber::InternalError
                | ErrorNumber::Rpc
                | ErrorNumber::InvalidConn
                | ErrorNumber::NoConnect
                | ErrorNumber::OperationFailed
        )
}

/// What libvirt's number, and where that says nothing QEMU's last words, mean.
fn kind(error: &virt::error::Error) -> ErrorKind {
    if is_dead(error) {
        return ErrorKind::Unavailable;
    }
    match error.code() {
        ErrorNumber::NoDomain | ErrorNumber::NoDomainSnapshot => ErrorKind::NotFound,
        ErrorNumber::NoConnect | ErrorNumber::InvalidConn | ErrorNumber::Rpc | ErrorNumber::AuthFailed => {
            ErrorKind::Unavailable
        }
        ErrorNumber::OperationTimeout | ErrorNumber::ResourceBusy => ErrorKind::Timeout,
        ErrorNumber::NoSupport | ErrorNumber::ConfigUnsupported | ErrorNumber::ArgumentUnsupported => {
            ErrorKind::Unsupported
        }
        ErrorNumber::NoMemory => ErrorKind::Full,
        ErrorNumber::DomExist => ErrorKind::Conflict,
        ErrorNumber::XmlError | ErrorNumber::XmlDetail | ErrorNumber::InvalidArg => ErrorKind::Invalid,
        _ => words(error.message()),
    }
}

/// What a refusal in words means.
pub(crate) fn words(text: &str) -> ErrorKind {
    let says = |part: &str| text.contains(part);
    if says("Cannot allocate memory") || says("cannot set up guest memory") || says("No space left on device")
    {
        ErrorKind::Full
    } else if says("Failed to get") && says("lock") {
        ErrorKind::Conflict
    } else if says("No such file or directory") {
        ErrorKind::NotFound
    } else {
        ErrorKind::Refused
    }
}

/// A file operation failed.
pub(crate) fn file(operation: &'static str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        io::ErrorKind::WouldBlock => ErrorKind::Conflict,
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => ErrorKind::Corrupt,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Refused,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, operation).because(error)
}

/// Runs file work off the runtime's threads.
pub(crate) async fn blocking<T, F>(work: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
