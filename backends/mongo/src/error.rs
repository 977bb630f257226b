//! From the driver's errors to the store's.

use std::collections::HashSet;

use mongodb::error::{
    Error as DriverError, ErrorKind as DriverKind, TRANSIENT_TRANSACTION_ERROR, WriteFailure,
};
use skyloom_store::{Error, ErrorKind};

/// The server's error codes that mean something to us.
pub(crate) const DUPLICATE_KEY: i32 = 11000;
pub(crate) const WRITE_CONFLICT: i32 = 112;
pub(crate) const MAX_TIME_EXPIRED: i32 = 50;

/// The server's code, wherever the driver has put it.
pub(crate) fn code(e: &DriverError) -> Option<i32> {
    match &*e.kind {
        DriverKind::Command(e) => Some(e.code),
        DriverKind::Write(WriteFailure::WriteError(e)) => Some(e.code),
        DriverKind::Write(WriteFailure::WriteConcernError(e)) => Some(e.code),
        DriverKind::InsertMany(e) => {
            let write = e.write_errors.iter().flatten().map(|e| e.code).next();
            write.or_else(|| e.write_concern_error.as_ref().map(|e| e.code))
        }
        _ => None,
    }
}

/// What a code means to a caller whose call did nothing.
fn kind_of_code(code: i32) -> ErrorKind {
    match code {
        // Unauthorized, AuthenticationFailed, UserNotFound, AtlasError
        13 | 18 | 11 | 8000 => ErrorKind::Denied,
        // MaxTimeMSExpired, NetworkInterfaceExceededTimeLimit, ExceededTimeLimit
        MAX_TIME_EXPIRED | 202 | 262 => ErrorKind::Timeout,
        // Host or network trouble, elections, shutdowns, write concerns that cannot be met now
        6 | 7 | 64 | 89 | 91 | 100 | 133 | 134 | 189 | 9001 | 10058 | 10107 | 11600 | 11602 | 13435
        | 13436 => ErrorKind::Unavailable,
        // Conflicts and ends of transactions: LockTimeout, WriteConflict, SnapshotTooOld, SnapshotUnavailable,
        // NoSuchTransaction, TransactionExceededLifetimeLimit, Interrupted, CursorKilled, CursorNotFound
        24 | WRITE_CONFLICT | 225 | 239 | 246 | 251 | 290 | 11601 | 237 | 43 => ErrorKind::Unavailable,
        // TooManyFilesOpen, ExceededMemoryLimit, IngressRequestRateLimitExceeded
        264 | 146 | 462 => ErrorKind::Overloaded,
        // OutOfDiskSpace
        14031 => ErrorKind::Full,
        // BSONObjectTooLarge, TransactionTooLarge, the old object limits
        10334 | 17280 | 17419 | 17420 | 257 => ErrorKind::TooLarge,
        // IllegalOperation, OperationNotSupportedInTransaction, CommandNotFound, CommandNotSupported
        20 | 263 | 59 | 115 => ErrorKind::Unsupported,
        _ => ErrorKind::Internal,
    }
}

/// What `e` means to a caller whose call did nothing.
pub(crate) fn kind(e: &DriverError) -> ErrorKind {
    if let Some(code) = code(e) {
        return kind_of_code(code);
    }
    match &*e.kind {
        DriverKind::ServerSelection { .. }
        | DriverKind::Io(_)
        | DriverKind::ConnectionPoolCleared { .. }
        | DriverKind::DnsResolve { .. }
        | DriverKind::Shutdown => ErrorKind::Unavailable,
        DriverKind::Authentication { .. } => ErrorKind::Denied,
        DriverKind::InvalidArgument { .. } | DriverKind::InvalidTlsConfig { .. } => ErrorKind::Invalid,
        DriverKind::SessionsNotSupported
        | DriverKind::Transaction { .. }
        | DriverKind::IncompatibleServer { .. } => ErrorKind::Unsupported,
        DriverKind::InvalidResponse { .. } | DriverKind::BsonDeserialization(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Internal,
    }
}

/// Whether the same may work if tried again at once.
pub(crate) fn is_passing(e: &DriverError) -> bool {
    e.contains_label(TRANSIENT_TRANSACTION_ERROR)
        || matches!(
            kind(e),
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Overloaded
        )
}

/// Whether the server was reached at all: only then can a write have happened.
pub(crate) fn was_sent(e: &DriverError) -> bool {
    !matches!(
        &*e.kind,
        DriverKind::ServerSelection { .. } | DriverKind::DnsResolve { .. } | DriverKind::Shutdown
    )
}

/// The labels, in order, for logs.
pub(crate) fn labels(e: &DriverError) -> Vec<&str> {
    let all: &HashSet<String> = e.labels();
    let mut all: Vec<&str> = all.iter().map(String::as_str).collect();
    all.sort_unstable();
    all
}

/// The error of `operation`, which did nothing.
pub(crate) fn from_driver(operation: &'static str, e: DriverError) -> Error {
    let error = Error::new(kind(&e), operation);
    let error = match error.kind() {
        ErrorKind::Unavailable if !was_sent(&e) => {
            error.with("hint", "no usable primary was found in time; are the servers up?")
        }
        ErrorKind::Denied => error.with("hint", "the user needs the roles that the README names"),
        ErrorKind::Unsupported => error.with("hint", "the store needs a replica set of MongoDB 6.0 or later"),
        _ => error,
    };
    error.because(e)
}

/// For `map_err`.
pub(crate) fn driver(operation: &'static str) -> impl Fn(DriverError) -> Error {
    move |e| from_driver(operation, e)
}

/// The store has been closed.
pub(crate) fn closed(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, operation).with("state", "the store is closed")
}

/// The collections are not there, or are older than this program.
pub(crate) fn unmigrated(why: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, "open store")
        .with("schema", why)
        .with("hint", "run `skyloom store migrate`")
}

/// A stored document that is not what it must be.
pub(crate) fn damaged(operation: &'static str, id: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, operation)
        .with("document", id)
        .with(
            "hint",
            "it was changed by hand or damaged; restore it from a backup",
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_kinds() {
        for (code, wanted) in [
            (13, ErrorKind::Denied),
            (50, ErrorKind::Timeout),
            (112, ErrorKind::Unavailable),
            (251, ErrorKind::Unavailable),
            (10107, ErrorKind::Unavailable),
            (10334, ErrorKind::TooLarge),
            (14031, ErrorKind::Full),
            (20, ErrorKind::Unsupported),
            (2, ErrorKind::Internal),
            (11000, ErrorKind::Internal),
        ] {
            assert_eq!(kind_of_code(code), wanted, "{code}");
        }
    }

    #[test]
    fn a_dead_connection_may_have_carried_the_call() {
        let io: DriverError =
            DriverKind::Io(std::sync::Arc::new(std::io::ErrorKind::BrokenPipe.into())).into();
        assert!(is_passing(&io) && was_sent(&io));
        assert_eq!(from_driver("get", io).kind(), ErrorKind::Unavailable);
        let refused: DriverError = DriverKind::Shutdown.into();
        assert!(!was_sent(&refused));
    }
}
