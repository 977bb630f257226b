//! One run of the program: what every command is given, and how it ends.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::sync::Arc;

use parking_lot::Mutex;
use skyloom_model::{Clock, Ids, OsIds, SystemClock, TaskId};

use crate::args::{Command, Globals, WaitArgs};
use crate::client::Client;
use crate::context::{self, Files};
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::nouns;
use crate::out::{self, Printer};

/// What every command is given.
pub(crate) struct App {
    pub(crate) globals: Globals,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    /// Whether somebody watches stderr and can answer on stdin.
    pub(crate) interactive: bool,
    /// The task that is being waited for: it goes on when the wait is interrupted.
    pub(crate) waiting: Mutex<Option<TaskId>>,
}

impl App {
    fn new(globals: Globals) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Self {
            globals: globals.with_environment(),
            ids: Arc::new(OsIds::new(clock.clone())),
            clock,
            interactive: io::stdin().is_terminal() && io::stderr().is_terminal(),
            waiting: Mutex::new(None),
        }
    }

    /// The cloud that flags, environment and files name.
    pub(crate) fn client(&self) -> Result<Client> {
        let connection = context::connection(&self.globals, Files::of_user().as_ref())?;
        let client = Client::new(
            connection,
            self.clock.clone(),
            self.ids.clone(),
            self.globals.debug,
        )?;
        Ok(if self.globals.dry_run {
            client.dry_run(self.print())
        } else {
            client
        })
    }

    /// Prints results in the format asked for.
    pub(crate) fn print(&self) -> Printer {
        Printer {
            format: self.globals.output,
            now: self.clock.now(),
        }
    }

    /// Whether a command that started work waits for it.
    pub(crate) fn waits(&self, args: &WaitArgs) -> bool {
        args.wait || (self.interactive && !args.no_wait)
    }

    /// Asks before something is taken away. `what` completes "really …?".
    pub(crate) async fn confirm(&self, yes: bool, what: &str) -> Result<()> {
        if yes || self.globals.dry_run {
            return Ok(());
        }
        if !self.interactive {
            return Err(CliError::usage(format!("would {what}, but nobody can be asked"))
                .hint("say --yes to do it without a question"));
        }
        out::prompt(&format!("Really {what}? [y/N] "));
        // On a thread of its own: ^C is heard while it waits.
        let answer = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            io::stdin().read_line(&mut line).map(|_| line)
        });
        let line = match answer.await {
            Ok(Ok(line)) => line,
            _ => String::new(),
        };
        if matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            Ok(())
        } else {
            Err(CliError::usage("not confirmed; nothing was changed"))
        }
    }
}

/// Whether stderr shows colours.
fn colour() -> bool {
    io::stderr().is_terminal() && skyloom_bin::environment::text("NO_COLOR").is_none()
}

/// Shows an error and gives its exit code.
pub(crate) fn fail(error: &CliError) -> ExitCode {
    let text = error.render(colour());
    if !text.is_empty() {
        out::message(text.trim_end_matches('\n'));
    }
    ExitCode::from(error.exit.code())
}

/// Shows an error of one of several things; the command goes on with the others.
pub(crate) fn report(error: &CliError) {
    let _ = fail(error);
}

/// Runs one command to its end, or until ^C.
pub(crate) fn run(globals: Globals, command: Command) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&CliError::unexpected(format!("cannot start: {error}"))),
    };
    let app = App::new(globals);
    let result = runtime.block_on(async {
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => Err(interrupted(&app)),
            result = nouns::run(&app, command) => result,
        }
    });
    // A question that was not answered must not hold the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn interrupted(app: &App) -> CliError {
    if let Some(task) = app.waiting.lock().take() {
        out::message(&format!(
            "detached: task {task} keeps running\n  look again: skyloom task wait {task}\n  end it: skyloom task cancel {task}"
        ));
    } else {
        out::message("interrupted");
    }
    CliError::quiet(Exit::Interrupted)
}
