//! From native errors to the contract's.

use std::io;

use skyloom_hypervisor::{Error, ErrorKind};
use skyloom_model::ServerId;

use crate::client::ClientError;

/// A file operation failed.
pub(crate) fn file(operation: &'static str, id: ServerId, error: io::Error) -> Error {
    Error::new(io_kind(&error), operation)
        .with("server", id)
        .because(error)
}

pub(crate) fn io_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => ErrorKind::Corrupt,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Refused,
        _ => ErrorKind::Unavailable,
    }
}

/// A monitor command failed.
pub(crate) fn monitor(operation: &'static str, id: ServerId, error: ClientError) -> Error {
    let kind = match &error {
        ClientError::Timeout { .. } => ErrorKind::Timeout,
        ClientError::Refused(_) => ErrorKind::Refused,
        ClientError::Io(_) | ClientError::Wire(_) | ClientError::Unexpected(_) | ClientError::Closed => {
            ErrorKind::Unavailable
        }
    };
    Error::new(kind, operation).with("server", id).because(error)
}

/// What QEMU's last words mean.
pub(crate) fn start_kind(words: &str) -> ErrorKind {
    let says = |text: &str| words.contains(text);
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
