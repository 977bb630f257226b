//! `skyloom sim …`: a scripted day on simulated hosts. Talks to no cloud.

use clap::Subcommand;
use skyloom_sim::Violation;
use skyloom_sim::play::{BUILT_IN, Moment, Options, Play, Played, ScriptError};

use super::read_text;
use crate::app::App;
use crate::error::{CliError, Result};
use crate::out::{self, Format};
use crate::text::clean_lines;

/// Longest script in bytes.
const MOST_SCRIPT: u64 = 1024 * 1024;

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Play a day: creates, failures and whatever else a script says, on simulated hosts in virtual time
    ///
    /// The engines, agents and the API are the real ones. Every commit and effect is checked against the invariants; one
    /// seed and one script give one trace. With -o wide each event has a line of its own.
    #[command(after_help = "Examples:
  skyloom sim run
  skyloom sim run --seed 42 --hosts 500 --script day.toml
  skyloom sim run --script day.toml --until 12:00 -o json")]
    Run(RunArgs),
    /// Print the script that is played when none is named: one to begin with
    #[command(after_help = "Examples:
  skyloom sim script
  skyloom sim script > day.toml")]
    Script,
}

/// Flags of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// What is drawn follows from this number
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// The script; `-` is standard input
    #[arg(long, value_name = "FILE")]
    script: Option<String>,
    /// So many hosts; the script's groups grow or shrink alike
    #[arg(long, value_name = "N")]
    hosts: Option<usize>,
    /// So many engines
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    engines: Option<u8>,
    /// End the day at this time (12:00), or so long after its start (90m)
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// Show the last N steps of the trace first
    #[arg(long, value_name = "N", default_value_t = 0)]
    trace: usize,
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Run(args) => play(app, &args).await,
        Verb::Script => out::raw(BUILT_IN),
    }
}

async fn play(app: &App, args: &RunArgs) -> Result<()> {
    let options = Options::seed(args.seed)
        .with_hosts(args.hosts)
        .with_engines(args.engines.map(usize::from))
        .with_until(args.until)
        .with_trace(args.trace);
    let play = match &args.script {
        Some(path) => {
            let text = read_text(path, "script", MOST_SCRIPT)?;
            Play::parse(&text, &options).map_err(|e| refused(path, &e))?
        }
        None => Play::parse(BUILT_IN, &options).map_err(|e| refused("the built-in day", &e))?,
    };
    if app.interactive {
        out::message("playing …");
    }
    // It has a runtime of its own, in which time is virtual.
    let played = tokio::task::spawn_blocking(move || play.run())
        .await
        .map_err(|e| CliError::unexpected(format!("the simulator ended: {e}")))?;
    show(app, &played)?;
    verdict(played.violation.as_ref(), args)
}

fn verdict(violation: Option<&Violation>, args: &RunArgs) -> Result<()> {
    match violation {
        None => Ok(()),
        Some(v) => Err(
            CliError::unexpected(format!("{} is broken at {:?}", v.invariant, v.at))
                .detail(v.what.clone())
                .hint(format!("the same again: {}", reproducer(args))),
        ),
    }
}

fn refused(script: &str, error: &ScriptError) -> CliError {
    let refused = CliError::usage(format!("{script}: {error}"));
    match &error.hint {
        Some(hint) => refused.hint(hint),
        None => refused.hint("`skyloom sim script` prints one to compare with"),
    }
}

fn show(app: &App, played: &Played) -> Result<()> {
    match app.globals.output {
        Format::Table | Format::Wide => {
            let mut text: String = played.trace.iter().map(|line| format!("{line}\n")).collect();
            text.push_str(&match app.globals.output {
                Format::Wide => format!("{played:#}"),
                _ => played.to_string(),
            });
            out::raw(&clean_lines(&text))
        }
        _ => app.print().document(&out::json(played)?, &played.summary.hash),
    }
}

/// The command that plays the same again.
fn reproducer(args: &RunArgs) -> String {
    let mut line = format!("skyloom sim run --seed {}", args.seed);
    let mut add = |flag: &str, value: Option<String>| {
        if let Some(value) = value {
            line.push_str(&format!(" --{flag} {value}"));
        }
    };
    add("script", args.script.clone());
    add("hosts", args.hosts.map(|n| n.to_string()));
    add("engines", args.engines.map(|n| n.to_string()));
    add("until", args.until.map(|until| until.to_string()));
    line + " --trace 200"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_invariant_ends_with_1_and_the_line_that_repeats_it() {
        let args = RunArgs {
            seed: 7,
            script: Some("day.toml".to_owned()),
            hosts: Some(500),
            engines: None,
            until: Some(Moment::Clock(std::time::Duration::from_secs(12 * 3600))),
            trace: 0,
        };
        assert!(verdict(None, &args).is_ok());
        let violation = Violation {
            invariant: "I6",
            what: "too much is claimed".to_owned(),
            at: std::time::Duration::from_secs(3),
        };
        let error = verdict(Some(&violation), &args).unwrap_err();
        assert_eq!(error.exit, crate::exit::Exit::Unexpected);
        assert_eq!(
            error.render(false),
            "error: I6 is broken at 3s\n  too much is claimed\n  hint: the same again: \
             skyloom sim run --seed 7 --script day.toml --hosts 500 --until 12:00 --trace 200\n"
        );
    }
}
