//! Secrets that people type: without an echo, and never as an argument.

use std::io;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use skyloom_model::Secret;

use crate::app::App;
use crate::error::{CliError, Result};
use crate::nouns::read_secret;
use crate::out;

/// A terminal that shows nothing of what is typed, until this is dropped: at ^C too.
struct Silent(Termios);

impl Silent {
    fn new() -> Result<Self> {
        let failed = |e| {
            CliError::unexpected(format!(
                "the terminal cannot be made silent: {}",
                io::Error::from(e)
            ))
        };
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // Nothing more can be done about a terminal that is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// A line from stdin, on a thread of its own: ^C is heard while it waits.
async fn typed() -> Result<String> {
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    match read.await {
        Ok(Ok(line)) if line.ends_with('\n') => Ok(line.trim_end_matches(['\r', '\n']).to_owned()),
        _ => Err(CliError::usage("nothing was typed; nothing was changed")),
    }
}

/// What somebody answers to `question`.
pub(crate) async fn ask(app: &App, question: &str, otherwise: &str) -> Result<String> {
    if !app.interactive {
        return Err(CliError::usage(format!("{question}? nobody can be asked")).hint(otherwise));
    }
    out::prompt(&format!("{question}: "));
    typed().await
}

/// What somebody answers to `question`, unseen.
pub(crate) async fn ask_unseen(app: &App, question: &str, otherwise: &str) -> Result<Secret<String>> {
    if !app.interactive {
        return Err(CliError::usage(format!("{question}? nobody can be asked")).hint(otherwise));
    }
    let _silent = Silent::new()?;
    out::prompt(&format!("{question}: "));
    typed().await.map(Secret::new)
}

/// A password: of a file, of stdin (`-`), or typed.
pub(crate) async fn password(app: &App, file: Option<&str>, question: &str) -> Result<Secret<String>> {
    match file {
        Some(path) => read_secret(path, "password").map(Secret::new),
        None => ask_unseen(app, question, "give it with --password-file, or - for stdin").await,
    }
}

/// A new password: of a file, of stdin, or typed twice.
pub(crate) async fn new_password(app: &App, file: Option<&str>) -> Result<Secret<String>> {
    let first = password(app, file, "New password").await?;
    if file.is_none() {
        let again = ask_unseen(app, "The same again", "").await?;
        if first.expose() != again.expose() {
            return Err(CliError::usage("the two are not the same; nothing was changed"));
        }
    }
    Ok(first)
}
