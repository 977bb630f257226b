//! Help, completion scripts and versions.

use clap::CommandFactory as _;
use clap_complete::Shell;
use serde_json::json;

use crate::app::App;
use crate::args::Cli;
use crate::client::{Target, types::About};
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::out::{self, Format};

/// `skyloom help …`.
pub(super) fn topic(words: &[String]) -> Result<()> {
    if words == ["exit-codes"] {
        return out::raw(&Exit::help());
    }
    let mut command = Cli::command();
    command.build();
    let mut at = &mut command;
    for word in words {
        at = at.find_subcommand_mut(word).ok_or_else(|| {
            CliError::usage(format!("there is no help on \"{word}\"")).hint("see `skyloom help`")
        })?;
    }
    out::raw(&at.render_long_help().to_string())
}

/// `skyloom completion …`.
pub(super) fn completion(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "skyloom", &mut script);
    out::raw(&String::from_utf8_lossy(&script))
}

/// `skyloom version`: the cloud's own is shown where one can be asked.
pub(super) async fn version(app: &App) -> Result<()> {
    let own = env!("CARGO_PKG_VERSION");
    let cloud = match app.client() {
        Ok(client) => client.get::<About>(Target::new(["v1"])).await.map_err(Some),
        Err(_) => Err(None),
    };
    match app.globals.output {
        Format::Table | Format::Wide => {
            let cloud = match cloud {
                Ok(about) => format!("{} {}", about.name, about.version),
                Err(None) => "none configured".to_owned(),
                Err(Some(_)) => "not reachable".to_owned(),
            };
            out::raw(&out::details(&[
                ("Program", format!("skyloom {own}")),
                ("Cloud", cloud),
            ]))
        }
        _ => app.print().document(
            &json!({ "program": own, "cloud": cloud.ok().map(|about| about.version) }),
            own,
        ),
    }
}
