//! From sqlx's errors to the store's.

use skyloom_store::{Error, ErrorKind};

/// SQLite's primary result codes that mean something to a caller.
const ERROR: i32 = 1;
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READONLY: i32 = 8;
const IOERR: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const TOOBIG: i32 = 18;
const NOTADB: i32 = 26;

/// SQLite's primary result code.
fn code(e: &sqlx::Error) -> Option<i32> {
    let extended: i32 = e.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

/// Whether the disk, or the size allowed for the file, was too small.
pub(crate) fn is_full(e: &sqlx::Error) -> bool {
    code(e) == Some(FULL)
}

/// Whether somebody else's transaction was in the way.
pub(crate) fn is_busy(e: &sqlx::Error) -> bool {
    code(e) == Some(BUSY)
}

/// Whether a ROLLBACK failed because there was nothing to roll back.
pub(crate) fn is_no_transaction(e: &sqlx::Error) -> bool {
    code(e) == Some(ERROR)
}

/// What `e` means to a caller whose call did nothing.
pub(crate) fn kind(e: &sqlx::Error) -> ErrorKind {
    match e {
        sqlx::Error::Database(_) => match code(e) {
            Some(BUSY | LOCKED | READONLY | IOERR | CANTOPEN) => ErrorKind::Unavailable,
            Some(CORRUPT | NOTADB) => ErrorKind::Corrupt,
            Some(FULL) => ErrorKind::Full,
            Some(TOOBIG) => ErrorKind::TooLarge,
            _ => ErrorKind::Internal,
        },
        sqlx::Error::PoolTimedOut => ErrorKind::Overloaded,
        sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed | sqlx::Error::Io(_) => ErrorKind::Unavailable,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Internal,
    }
}

/// The error of `operation`, which did nothing.
pub(crate) fn from_sql(operation: &'static str, e: sqlx::Error) -> Error {
    let error = Error::new(kind(&e), operation);
    let error = match error.kind() {
        ErrorKind::Corrupt => error.with("hint", "the database file is damaged; restore it from a backup"),
        _ => error,
    };
    error.because(e)
}

/// For `map_err`.
pub(crate) fn sql(operation: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |e| from_sql(operation, e)
}

/// The store has been closed.
pub(crate) fn closed(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, operation).with("state", "the store is closed")
}
