//! Printing error chains once.

use std::error::Error;
use std::fmt::Write as _;

/// The error and its causes on one line, outermost first.
#[must_use]
pub fn report(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let _ = write!(text, ": {cause}");
        next = cause.source();
    }
    text
}
