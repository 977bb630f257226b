//! From etcd's errors to the store's.
//!
//! What matters most is whether a commit may have happened. etcd answers many things with the code "unavailable", some
//! before it proposes the request to the cluster and some after, so its messages are told apart one by one; what is
//! not known here counts as no answer.

use std::error::Error as StdError;

use etcd_client::Error as Native;
use skyloom_store::{Error, ErrorKind};
use tonic::{Code, ConnectError, Status};

/// What a call may have done that got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing that matters: it reads, or doing it again does no harm.
    Nothing,
    /// Nobody can tell.
    Unknown,
}

/// What an error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) kind: ErrorKind,
    /// Nothing happened, and another member may do better.
    pub(crate) elsewhere: bool,
    /// The connection is not worth keeping.
    pub(crate) broken: bool,
}

/// How the server says things that matter to a caller. Whatever stands here was refused before anything was done.
const SAYINGS: &[(&str, ErrorKind, bool)] = &[
    ("etcdserver: no leader", ErrorKind::Unavailable, true),
    ("etcdserver: not capable", ErrorKind::Unavailable, true),
    (
        "etcdserver: rpc not supported for learner",
        ErrorKind::Unavailable,
        true,
    ),
    (
        "etcdserver: revision of auth store is old",
        ErrorKind::Unavailable,
        true,
    ),
    ("etcdserver: too many requests", ErrorKind::Overloaded, false),
    (
        "etcdserver: mvcc: database space exceeded",
        ErrorKind::Full,
        false,
    ),
    ("etcdserver: request is too large", ErrorKind::TooLarge, false),
    (
        "etcdserver: too many operations in txn request",
        ErrorKind::TooLarge,
        false,
    ),
    (
        "grpc: received message larger than max",
        ErrorKind::TooLarge,
        false,
    ),
    (
        "grpc: received message after decompression larger than max",
        ErrorKind::TooLarge,
        false,
    ),
    (
        "etcdserver: mvcc: required revision has been compacted",
        ErrorKind::Compacted,
        false,
    ),
    (
        "etcdserver: mvcc: required revision is a future revision",
        ErrorKind::Invalid,
        false,
    ),
    ("etcdserver: too large lease TTL", ErrorKind::Invalid, false),
    (
        "etcdserver: requested lease not found",
        ErrorKind::NotFound,
        false,
    ),
    ("etcdserver: permission denied", ErrorKind::Denied, false),
    ("etcdserver: authentication failed", ErrorKind::Denied, false),
    (
        "etcdserver: authentication is not enabled",
        ErrorKind::Denied,
        false,
    ),
    ("etcdserver: invalid auth token", ErrorKind::Denied, false),
    ("etcdserver: user name is empty", ErrorKind::Denied, false),
    ("etcdserver: corrupt cluster", ErrorKind::Corrupt, false),
];

/// What `e` means to a caller whose unanswered call has this fate.
pub(crate) fn judge(e: &Native, fate: Fate) -> Verdict {
    let status = match e {
        Native::GRpcStatus(status) => status,
        Native::TransportError(e) if never_sent(e) => return unreachable_node(),
        Native::TransportError(_) | Native::IoError(_) => return unanswered(fate, ErrorKind::Unavailable),
        Native::LeaseKeepAliveError(_) => return answered(ErrorKind::NotFound),
        Native::InvalidArgs(_) | Native::InvalidUri(_) | Native::InvalidMetadataValue(_) => {
            return answered(ErrorKind::Invalid);
        }
        // A stream that ended before it said anything, and what this crate does not use.
        _ => return unanswered(fate, ErrorKind::Unavailable),
    };
    if never_sent(status) {
        return unreachable_node();
    }
    let message = status.message();
    if let Some((_, kind, elsewhere)) = SAYINGS.iter().find(|(text, ..)| message.starts_with(text)) {
        return Verdict {
            kind: *kind,
            elsewhere: *elsewhere,
            broken: false,
        };
    }
    match status.code() {
        Code::InvalidArgument | Code::FailedPrecondition | Code::AlreadyExists | Code::NotFound => {
            answered(ErrorKind::Invalid)
        }
        Code::PermissionDenied | Code::Unauthenticated => answered(ErrorKind::Denied),
        Code::Unimplemented => answered(ErrorKind::Unsupported),
        // Said by this side of an answer that it does not take in.
        Code::OutOfRange => answered(ErrorKind::TooLarge),
        Code::DeadlineExceeded => unanswered(fate, ErrorKind::Timeout),
        _ => unanswered(fate, ErrorKind::Unavailable),
    }
}

/// Nothing came back in time.
pub(crate) fn unanswered(fate: Fate, kind: ErrorKind) -> Verdict {
    Verdict {
        kind: match fate {
            Fate::Nothing => kind,
            Fate::Unknown => ErrorKind::Unknown,
        },
        elsewhere: fate == Fate::Nothing && kind != ErrorKind::Timeout,
        broken: true,
    }
}

fn answered(kind: ErrorKind) -> Verdict {
    Verdict {
        kind,
        elsewhere: false,
        broken: false,
    }
}

fn unreachable_node() -> Verdict {
    Verdict {
        kind: ErrorKind::Unavailable,
        elsewhere: true,
        broken: true,
    }
}

/// Whether there was no connection, so that the request cannot have left.
fn never_sent(e: &(dyn StdError + 'static)) -> bool {
    causes(e).any(|cause| cause.is::<ConnectError>())
}

/// `e` and what it came from.
fn causes<'e>(e: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(e), |e: &&'e (dyn StdError + 'static)| StdError::source(*e))
}

/// An error as it is told to people, and to everybody who waited for the same thing.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) kind: ErrorKind,
    pub(crate) hint: Option<&'static str>,
    pub(crate) why: String,
}

impl Told {
    pub(crate) fn new(kind: ErrorKind, why: impl Into<String>) -> Self {
        Self {
            kind,
            hint: None,
            why: why.into(),
        }
    }

    pub(crate) fn of(e: &Native, verdict: Verdict) -> Self {
        let why = match e {
            Native::GRpcStatus(status) => chain(status),
            Native::TransportError(e) => chain(e),
            other => other.to_string(),
        };
        Self {
            kind: verdict.kind,
            hint: hint(&why, verdict.kind),
            why,
        }
    }

    /// The error of `operation` at `address`.
    pub(crate) fn at(self, operation: &'static str, address: &str) -> Error {
        let error = Error::new(self.kind, operation).with("endpoint", address);
        match self.hint {
            Some(hint) => error.with("hint", hint),
            None => error,
        }
        .because(self.why)
    }
}

/// All causes in one line, none twice.
fn chain(e: &(dyn StdError + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in causes(e) {
        // A status tells its code and all of its metadata; its message is what is meant.
        let text = match cause.downcast_ref::<Status>() {
            Some(status) => status.message().to_owned(),
            None => cause.to_string(),
        };
        if !text.is_empty() && !parts.iter().any(|p| p.contains(&text)) {
            parts.push(text);
        }
    }
    parts.join(": ")
}

fn hint(text: &str, kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        _ if text.contains("UnknownIssuer") || text.contains("BadSignature") => {
            "the server's certificate is not from the authority in ca; is it this cluster's CA file?"
        }
        _ if text.contains("not valid for name") => {
            "the server's certificate is for another name; set server_name to the one it has"
        }
        _ if text.contains("received fatal alert") => {
            "the server refuses the client certificate, or its absence; set cert and key to what it knows"
        }
        _ if text.contains("certificate") => "the server's certificate cannot be accepted",
        _ if text.contains("authentication failed") => "user or password are wrong",
        _ if text.contains("user name is empty") => "the server wants a user; set user and password",
        _ if text.contains("authentication is not enabled") => {
            "the server knows no users; leave user and password out, or enable authentication"
        }
        ErrorKind::Denied => "the user's roles do not allow this below the prefix",
        ErrorKind::Full => "etcd is over its quota: compact, defragment, then disarm the alarm",
        ErrorKind::Unavailable if text.contains("no leader") => {
            "the cluster has no leader; are enough members up?"
        }
        ErrorKind::Unavailable if text.contains("refused") => "is etcd running there?",
        ErrorKind::Unavailable if text.contains("dns error") => "the host's name is not known",
        ErrorKind::Unavailable
            if text.contains("frame with invalid size") || text.contains("invalid HTTP version") =>
        {
            "the other side does not speak plain HTTP/2; does it want TLS? set ca"
        }
        _ => return None,
    })
}

/// The store has been closed.
pub(crate) fn closed(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, operation).with("state", "the store is closed")
}

/// Something in etcd that this program did not write so.
pub(crate) fn corrupt(operation: &'static str, key: &[u8]) -> Error {
    Error::new(ErrorKind::Corrupt, operation).with("etcd key", String::from_utf8_lossy(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(code: Code, message: &str) -> Native {
        Native::GRpcStatus(Status::new(code, message))
    }

    #[test]
    fn only_what_may_have_happened_is_unknown() {
        let unknown = [
            (Code::Unavailable, "etcdserver: request timed out"),
            (
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to previous leader failure",
            ),
            (
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to connection lost",
            ),
            (Code::Unavailable, "etcdserver: server stopped"),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unknown, "transport error"),
            (Code::Cancelled, "h2 protocol error"),
            (Code::Internal, "something else"),
            (Code::DeadlineExceeded, "context deadline exceeded"),
        ];
        for (code, message) in unknown {
            let e = says(code, message);
            assert_eq!(judge(&e, Fate::Unknown).kind, ErrorKind::Unknown, "{message}");
            assert!(
                !judge(&e, Fate::Unknown).elsewhere,
                "{message} must not be done again"
            );
            let read = judge(&e, Fate::Nothing).kind;
            assert!(
                [ErrorKind::Unavailable, ErrorKind::Timeout].contains(&read),
                "{message}: {read:?}"
            );
        }
        let known = [
            (Code::Unavailable, "etcdserver: no leader", ErrorKind::Unavailable),
            (
                Code::ResourceExhausted,
                "etcdserver: too many requests",
                ErrorKind::Overloaded,
            ),
            (
                Code::ResourceExhausted,
                "grpc: received message larger than max (2 vs. 1)",
                ErrorKind::TooLarge,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: request is too large",
                ErrorKind::TooLarge,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: duplicate key given in txn request",
                ErrorKind::Invalid,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: user name is empty",
                ErrorKind::Denied,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: revision of auth store is old",
                ErrorKind::Unavailable,
            ),
            (
                Code::PermissionDenied,
                "etcdserver: permission denied",
                ErrorKind::Denied,
            ),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                ErrorKind::Compacted,
            ),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
                ErrorKind::Invalid,
            ),
            (
                Code::FailedPrecondition,
                "etcdserver: rpc not supported for learner",
                ErrorKind::Unavailable,
            ),
            (Code::DataLoss, "etcdserver: corrupt cluster", ErrorKind::Corrupt),
        ];
        for (code, message, kind) in known {
            assert_eq!(judge(&says(code, message), Fate::Unknown).kind, kind, "{message}");
        }
    }

    #[test]
    fn without_a_connection_nothing_was_sent() {
        let mut status = Status::unavailable("tcp connect error");
        status.set_source(std::sync::Arc::new(ConnectError("refused".into())));
        let verdict = judge(&Native::GRpcStatus(status), Fate::Unknown);
        assert_eq!(verdict.kind, ErrorKind::Unavailable);
        assert!(verdict.elsewhere && verdict.broken);
    }
}
