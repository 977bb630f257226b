//! Running the built binary in an empty environment.

use std::process::Stdio;

use tokio::process::Command;

use crate::stub::{Stub, TOKEN};

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// Asserts the exit code; shows everything when it is another.
    #[track_caller]
    pub(crate) fn code(self, want: i32) -> Self {
        assert_eq!(self.code, want, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
    /// stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }
    /// Asserts that stderr has all these texts.
    #[track_caller]
    pub(crate) fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.err.contains(text), "no {text:?} in stderr:\n{}", self.err);
        }
        self
    }
}

/// The program with nothing in its environment.
pub(crate) fn bare(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skyloom"));
    command
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// The program with the stub's endpoint and token.
pub(crate) fn command(stub: &Stub, args: &[&str]) -> Command {
    let mut command = bare(args);
    command
        .env("SKYLOOM_ENDPOINT", &stub.endpoint)
        .env("SKYLOOM_TOKEN", TOKEN);
    command
}

/// Runs it to its end.
pub(crate) async fn finish(mut command: Command) -> Run {
    let output = command.spawn().unwrap().wait_with_output().await.unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs it against the stub.
pub(crate) async fn run(stub: &Stub, args: &[&str]) -> Run {
    finish(command(stub, args)).await
}
