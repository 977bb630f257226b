//! `skyloom server clone`

use serde_json::json;
use skyloom_model::{Flavor, Resource as _, Server};

use super::read_secret;
use super::server::Outcome;
use crate::app::App;
use crate::args::WaitArgs;
use crate::client::kind;
use crate::client::types::ServerAccepted;
use crate::error::Result;
use crate::out::{self, Format};
use crate::resolve;

/// What is made after what.
#[derive(Debug, clap::Args)]
pub(crate) struct CloneArgs {
    /// Whose root disk is copied: name, id or beginning of an id
    server: String,
    /// Name of the new server
    name: String,
    /// Another size: name, id or beginning of an id
    #[arg(long)]
    flavor: Option<String>,
    /// First user's password from a file, or from stdin with `-`; without it one is made and shown once
    #[arg(long, value_name = "FILE")]
    password_file: Option<String>,
    /// Make it and leave it off
    #[arg(long)]
    no_start: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(app: &App, args: CloneArgs) -> Result<()> {
    let password = args.password_file.as_deref();
    let password = password.map(|path| read_secret(path, "password")).transpose()?;
    let client = app.client()?;
    let other: Server = resolve::one(&client, &args.server).await?;
    let mut body = json!({ "clone_of": other.meta.id, "name": args.name, "start": !args.no_start });
    if let Some(flavor) = &args.flavor {
        body["flavor"] = json!(resolve::one::<Flavor>(&client, flavor).await?.meta.id);
    }
    if let Some(password) = password {
        body["password"] = json!(password);
    }
    let accepted: ServerAccepted = client.post(kind(Server::KIND), &body).await?;
    if accepted.password.is_some()
        && matches!(app.globals.output, Format::Table | Format::Wide | Format::Name)
    {
        // Before the wait: whatever becomes of that, the password is not lost.
        out::shown_once("the password", accepted.password.as_deref());
    }
    Outcome::of(app, &client, accepted, &args.wait).await?.print(app)
}
