//! One shape for everything that goes wrong.
//!
//! ```text
//! error: no host can run web-9 now
//!   2 hosts considered: …
//!   hint: retry with a smaller flavor
//!   code placement.no_host · request req-… · task …
//! ```

use std::fmt::Write as _;
use std::io;

use crate::exit::Exit;
use crate::text::clean;

/// What is wrong, what to do about it, and how the command ends.
#[derive(Debug, Clone)]
pub(crate) struct CliError {
    pub(crate) exit: Exit,
    message: String,
    details: Vec<String>,
    hint: Option<String>,
    notes: Vec<(&'static str, String)>,
    shown: bool,
}

/// What most functions here give.
pub(crate) type Result<T> = std::result::Result<T, CliError>;

impl CliError {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            details: Vec::new(),
            hint: None,
            notes: Vec::new(),
            shown: false,
        }
    }
    /// Asked wrongly.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }
    /// Nothing the user did.
    pub(crate) fn unexpected(message: impl Into<String>) -> Self {
        Self::new(Exit::Unexpected, message)
    }
    /// Ends with `exit` without a word: everything was said, or nobody listens.
    pub(crate) fn quiet(exit: Exit) -> Self {
        Self {
            shown: true,
            ..Self::new(exit, "")
        }
    }
    /// Adds an indented line.
    pub(crate) fn detail(mut self, line: impl Into<String>) -> Self {
        self.details.push(line.into());
        self
    }
    /// Adds indented lines.
    pub(crate) fn details(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(lines);
        self
    }
    /// Says what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Adds a fact to the last line, such as the request id.
    pub(crate) fn note(mut self, what: &'static str, value: impl Into<String>) -> Self {
        self.notes.push((what, value.into()));
        self
    }

    /// What stderr shows.
    pub(crate) fn render(&self, colour: bool) -> String {
        if self.shown {
            return String::new();
        }
        let (red, cyan, dim, off) = if colour {
            ("\x1b[1;31m", "\x1b[36m", "\x1b[2m", "\x1b[0m")
        } else {
            ("", "", "", "")
        };
        let mut text = format!("{red}error:{off} {}\n", clean(&self.message));
        for line in self.details.iter().flat_map(|d| d.lines()) {
            let _ = writeln!(text, "  {}", clean(line));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "  {cyan}hint:{off} {}", clean(hint));
        }
        if !self.notes.is_empty() {
            let notes: Vec<String> = self
                .notes
                .iter()
                .map(|(what, value)| format!("{what} {}", clean(value)))
                .collect();
            let _ = writeln!(text, "  {dim}{}{off}", notes.join(" · "));
        }
        text
    }
}

/// Writing to a closed pipe is no failure: the reader had enough.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::quiet(Exit::Done)
        } else {
            Self::unexpected(format!("cannot write the output: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_message_details_hint_notes() {
        let error = CliError::new(Exit::Capacity, "no host can run web-9")
            .detail("2 hosts considered")
            .hint("retry smaller")
            .note("code", "placement.no_host")
            .note("request", "req-1");
        assert_eq!(
            error.render(false),
            "error: no host can run web-9\n  2 hosts considered\n  hint: retry smaller\n  \
             code placement.no_host · request req-1\n"
        );
        assert!(error.render(true).starts_with("\x1b[1;31merror:\x1b[0m "));
    }

    #[test]
    fn text_of_others_cannot_drive_the_terminal() {
        let error = CliError::usage("a\x1b[2Jb").detail("c\x07d");
        assert!(!error.render(false).contains(['\x1b', '\x07']));
    }

    #[test]
    fn a_closed_pipe_is_quiet() {
        let error = CliError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((error.exit, error.render(false)), (Exit::Done, String::new()));
    }
}
