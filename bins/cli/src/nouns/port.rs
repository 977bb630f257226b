//! `skyloom port …`

use clap::Subcommand;
use skyloom_model::Port;

use super::{list, show};
use crate::app::App;
use crate::args::ListArgs;
use crate::error::Result;

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List ports
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom port list
  skyloom port list -o wide"
    )]
    List(ListArgs),
    /// Show one port
    #[command(after_help = "Examples:
  skyloom port show 0198c0de
  skyloom port show 0198c0de -o json")]
    Show {
        /// Name, id or beginning of an id
        port: String,
    },
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::List(args) => list::<Port>(app, &args).await,
        Verb::Show { port } => show::<Port>(app, &port).await,
    }
}
