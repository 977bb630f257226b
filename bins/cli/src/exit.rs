//! The exit codes: part of the interface, documented by `skyloom help exit-codes`.

use std::fmt::Write as _;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Unexpected = 1,
    Usage = 2,
    NotLoggedIn = 3,
    Forbidden = 4,
    NotFound = 5,
    Conflict = 6,
    Capacity = 7,
    TimedOut = 8,
    TaskFailed = 9,
    Interrupted = 130,
}

impl Exit {
    const ALL: [(Self, &'static str); 11] = [
        (Self::Done, "done"),
        (
            Self::Unexpected,
            "unexpected: the cloud cannot be reached, answered oddly or has a fault",
        ),
        (Self::Usage, "usage: wrong flags or input; nothing was changed"),
        (
            Self::NotLoggedIn,
            "not logged in: no token, or one that is not accepted",
        ),
        (Self::Forbidden, "forbidden: the token may not do this"),
        (Self::NotFound, "not found"),
        (
            Self::Conflict,
            "conflict: it exists already, is busy or in the wrong state, or has changed meanwhile",
        ),
        (
            Self::Capacity,
            "quota or capacity: no room for what was asked, or too much under way",
        ),
        (
            Self::TimedOut,
            "timed out waiting: the task is still running, nothing has failed",
        ),
        (Self::TaskFailed, "the task failed, was cancelled or is stuck"),
        (
            Self::Interrupted,
            "interrupted (^C): a task that was waited for goes on",
        ),
    ];

    /// As the operating system sees it.
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }

    /// The table of `skyloom help exit-codes`.
    pub(crate) fn help() -> String {
        let mut text = String::from("Exit codes of skyloom:\n\n");
        for (exit, meaning) in Self::ALL {
            let _ = writeln!(text, "  {:>3}  {meaning}", exit.code());
        }
        text.push_str(
            "\nA script that retries should do so on 8 (wait again with `skyloom task wait`) and may on 7.\n",
        );
        text
    }

    /// What an answer of the API means. `code` is the problem's own, more exact than the status.
    pub(crate) fn of_problem(status: u16, code: &str) -> Self {
        if code.starts_with("quota.") || code.starts_with("placement.") {
            return Self::Capacity;
        }
        if code.ends_with(".not_found") {
            return Self::NotFound;
        }
        if code == "idempotency.key_reused" {
            return Self::Conflict;
        }
        match status {
            401 => Self::NotLoggedIn,
            403 => Self::Forbidden,
            404 | 410 => Self::NotFound,
            409 | 412 | 428 => Self::Conflict,
            429 | 507 => Self::Capacity,
            400 | 405 | 411 | 413 | 415 | 422 => Self::Usage,
            _ => Self::Unexpected,
        }
    }

    /// What the reason of a task that did not succeed means.
    pub(crate) fn of_task(code: &str) -> Self {
        if code.starts_with("quota.") || code.starts_with("placement.") {
            Self::Capacity
        } else {
            Self::TaskFailed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn problems_map_to_the_documented_codes() {
        for (status, code, want) in [
            (401, "token.missing", Exit::NotLoggedIn),
            (403, "role.denied", Exit::Forbidden),
            (404, "server.not_found", Exit::NotFound),
            (422, "flavor.not_found", Exit::NotFound),
            (409, "server.busy", Exit::Conflict),
            (412, "precondition.failed", Exit::Conflict),
            (422, "idempotency.key_reused", Exit::Conflict),
            (507, "", Exit::Capacity),
            (429, "tasks.too_many", Exit::Capacity),
            (409, "quota.exceeded", Exit::Capacity),
            (409, "placement.no_host", Exit::Capacity),
            (422, "metadata.invalid", Exit::Usage),
            (400, "body.malformed", Exit::Usage),
            (500, "", Exit::Unexpected),
            (504, "host.no_answer", Exit::Unexpected),
        ] {
            assert_eq!(Exit::of_problem(status, code), want, "{status} {code}");
        }
        assert_eq!(Exit::of_task("placement.no_host"), Exit::Capacity);
        assert_eq!(Exit::of_task("disk.full"), Exit::TaskFailed);
    }

    #[test]
    fn the_help_names_every_code_once() {
        let help = Exit::help();
        for code in ["  0  ", "  1  ", "  5  ", "  9  ", "130  "] {
            assert_eq!(help.matches(code).count(), 1, "{code}");
        }
    }
}
