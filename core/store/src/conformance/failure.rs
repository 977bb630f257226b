//! What a case answers.

use std::error::Error as StdError;
use std::fmt;

/// What the store did that it must not do.
pub struct Failure(String);

/// The end of a case.
pub type Verdict = Result<(), Failure>;

impl Failure {
    /// A failure with a reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// `Failure` is no `Error` itself, so that every error turns into one.
impl<E: StdError + 'static> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        let place = std::panic::Location::caller();
        Self(format!(
            "{}:{}: {}",
            place.file(),
            place.line(),
            skyloom_model::report(&error)
        ))
    }
}

/// Fails the case unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err($crate::conformance::Failure::new(format!("{}:{}: {}", file!(), line!(), format!($($why)+))));
        }
    };
}

/// Fails the case unless both are equal.
macro_rules! ensure_eq {
    ($left:expr, $right:expr, $($why:tt)+) => {
        match (&$left, &$right) {
            (left, right) => if left != right {
                let why = format!($($why)+);
                return Err($crate::conformance::Failure::new(format!(
                    "{}:{}: {why}\n   found: {left:?}\n  wanted: {right:?}", file!(), line!()
                )));
            }
        }
    };
}
pub(super) use {ensure, ensure_eq};
