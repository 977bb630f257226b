//! `skyloom keypair …`

use clap::Subcommand;
use serde_json::json;
use skyloom_model::{Keypair, Resource as _};

use super::{list, read_text, removal, show};
use crate::app::App;
use crate::args::{ListArgs, WaitArgs, YesArg};
use crate::client::kind;
use crate::error::{CliError, Result};

/// Largest file that can be a public key.
const MAX_KEY: u64 = 16 * 1024;

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Give the cloud a public SSH key
    #[command(after_help = "Examples:
  skyloom keypair create me --public-key-file ~/.ssh/id_ed25519.pub
  ssh-add -L | head -1 | skyloom keypair create me --public-key-file -")]
    Create {
        /// Its name
        name: String,
        /// File with the public key, or `-` for stdin
        #[arg(long, value_name = "FILE")]
        public_key_file: String,
    },
    /// List keys
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  skyloom keypair list
  skyloom keypair list -o wide"
    )]
    List(ListArgs),
    /// Show one key
    #[command(after_help = "Examples:
  skyloom keypair show me
  skyloom keypair show me -o json")]
    Show {
        /// Name, id or beginning of an id
        keypair: String,
    },
    /// Remove keys; servers made with them keep them
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  skyloom keypair delete me
  skyloom keypair delete me old --yes"
    )]
    Delete {
        /// Names, ids or beginnings of ids
        #[arg(required = true)]
        keypairs: Vec<String>,
        #[command(flatten)]
        yes: YesArg,
    },
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Create {
            name,
            public_key_file,
        } => {
            let text = read_text(&public_key_file, "public key", MAX_KEY)?;
            if text.contains("PRIVATE KEY") {
                return Err(CliError::usage(format!(
                    "{public_key_file} holds a private key; it was not sent"
                ))
                .hint("give the public one, which ends in .pub"));
            }
            let request = json!({ "name": name, "public_key": text.trim() });
            let keypair: Keypair = app.client()?.post(kind(Keypair::KIND), &request).await?;
            app.print().one(&keypair)
        }
        Verb::List(args) => list::<Keypair>(app, &args).await,
        Verb::Show { keypair } => show::<Keypair>(app, &keypair).await,
        Verb::Delete { keypairs, yes } => {
            removal::run::<Keypair>(app, &keypairs, "delete", yes, &WaitArgs::default()).await
        }
    }
}
