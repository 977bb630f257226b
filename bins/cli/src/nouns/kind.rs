//! `skyloom kind …`

use clap::Subcommand;
use serde_json::Value;

use crate::app::App;
use crate::client::kind;
use crate::error::Result;

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show a kind's states, which of them are steady, and its actions
    #[command(after_help = "Examples:
  skyloom kind show server
  skyloom kind show server -o json")]
    Show {
        /// Which kind
        #[arg(default_value = "server")]
        kind: String,
    },
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    let Verb::Show { kind: name } = verb;
    let answer: Value = app.client()?.get(kind("kinds").then(&name)).await?;
    app.print().document(&answer, &name)
}
