//! `skyloom`: the command line of a Skyloom cloud.
//!
//! [`args`] says what can be typed; [`app`] holds what a command needs; each noun is a module in [`nouns`]. A command
//! resolves names ([`resolve`]), talks to the API ([`client`]), waits for tasks ([`wait`]) and prints records ([`out`]).
//! Whatever goes wrong is one [`error::CliError`] with an exit code of [`exit::Exit`].

mod app;
mod args;
mod client;
mod context;
mod dev;
mod error;
mod exit;
mod nouns;
mod out;
mod preview;
mod resolve;
mod secret;
mod steps;
mod text;
mod wait;

use std::process::ExitCode;

use clap::Parser as _;

/// Tasks are many small allocations, of which the system's allocator makes the most expensive part of a step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    skyloom_bin::tls::install_default_provider();
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help that nobody reads any more is no failure.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if cli.globals.dry_run && !nouns::can_be_shown(&cli.command) {
        let why = error::CliError::usage(
            "--dry-run goes with commands that change the cloud's resources, and with no others",
        );
        return app::fail(&why);
    }
    match cli.command {
        args::Command::Dev(dev) => dev::run(dev),
        command => app::run(cli.globals, command),
    }
}
