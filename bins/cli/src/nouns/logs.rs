//! Text that a guest wrote.

use crate::error::Result;
use crate::out;
use crate::text::clean_lines;

/// Prints it: as it is into a pipe, without what could drive a terminal onto one.
pub(super) fn print(text: &str) -> Result<()> {
    let mut shown = if out::stdout_is_terminal() {
        clean_lines(text)
    } else {
        text.to_owned()
    };
    if !shown.is_empty() && !shown.ends_with('\n') {
        shown.push('\n');
    }
    out::raw(&shown)
}
