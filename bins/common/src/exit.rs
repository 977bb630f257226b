//! From an outcome to an exit code and one message on stderr.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::telemetry::TelemetryError;

/// Why a process ends badly.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct MainError {
    context: String,
    hint: Option<String>,
    code: u8,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl MainError {
    /// The work failed: exit code 1. `context` says what was being done.
    pub fn failed(context: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            context: context.into(),
            hint: None,
            code: 1,
            source: Some(source.into()),
        }
    }
    /// It was asked wrongly (flags, configuration): exit code 2.
    pub fn usage(context: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            code: 2,
            ..Self::failed(context, source)
        }
    }
    /// A signal cut the shutdown short: exit code 130.
    #[must_use]
    pub fn abandoned() -> Self {
        Self {
            context: "ended by a second signal before the shutdown was complete".into(),
            hint: None,
            code: 130,
            source: None,
        }
    }
    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.code
    }
    /// What is shown: `error: …` with the causes, then the hint.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!("error: {}\n", skyloom_model::report(self));
        if let Some(hint) = &self.hint {
            text.push_str(&format!("  hint: {hint}\n"));
        }
        text
    }
}

impl From<ConfigError> for MainError {
    fn from(error: ConfigError) -> Self {
        Self::usage("the configuration is not usable", error)
    }
}

impl From<TelemetryError> for MainError {
    fn from(error: TelemetryError) -> Self {
        Self::usage("logs or metrics cannot be set up", error)
    }
}

/// Ends `main`: nothing is printed for a good end; a bad one is shown once on stderr and gives its exit code.
#[must_use]
pub fn main_result(result: Result<(), MainError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when stderr is gone.
            let _ = std::io::stderr().write_all(error.render().as_bytes());
            ExitCode::from(error.code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_and_the_hint_are_shown_once() {
        let error = MainError::failed("cannot open the store", std::io::Error::other("disk full"))
            .hint("free some space");
        assert_eq!(
            error.render(),
            "error: cannot open the store: disk full\n  hint: free some space\n"
        );
        assert_eq!(error.code(), 1);
        assert_eq!(MainError::usage("x", "y").code(), 2);
        assert_eq!(MainError::abandoned().code(), 130);
    }
}
