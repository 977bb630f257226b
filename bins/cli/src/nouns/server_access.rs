//! `skyloom server set-password` and `set-keys`

use serde_json::json;
use skyloom_model::{Keypair, Resource as _, Server};

use super::read_secret;
use super::server::Outcome;
use crate::app::App;
use crate::args::WaitArgs;
use crate::client::one;
use crate::client::types::ServerAccepted;
use crate::error::Result;
use crate::out::{self, Format};
use crate::resolve;

/// Which password.
#[derive(Debug, clap::Args)]
pub(crate) struct PasswordArgs {
    /// Name, id or beginning of an id
    server: String,
    /// The password from a file, or from stdin with `-`; without it one is made and shown once
    #[arg(long, value_name = "FILE")]
    password_file: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Which keys.
#[derive(Debug, clap::Args)]
pub(crate) struct KeysArgs {
    /// Name, id or beginning of an id
    server: String,
    /// SSH key, in place of those that it has; may be given several times
    #[arg(long = "key", value_name = "KEYPAIR", required_unless_present = "no_keys")]
    keys: Vec<String>,
    /// No key at all
    #[arg(long, conflicts_with = "keys")]
    no_keys: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn password(app: &App, args: PasswordArgs) -> Result<()> {
    let password = args.password_file.as_deref();
    let password = password.map(|path| read_secret(path, "password")).transpose()?;
    let client = app.client()?;
    let server: Server = resolve::one(&client, &args.server).await?;
    let target = one(Server::KIND, server.meta.id)
        .then("actions")
        .then("set-password");
    let accepted: ServerAccepted = client.post(target, &json!({ "password": password })).await?;
    if accepted.password.is_some()
        && matches!(app.globals.output, Format::Table | Format::Wide | Format::Name)
    {
        // Before the wait: whatever becomes of that, the password is not lost.
        out::shown_once("the first user's password", accepted.password.as_deref());
    }
    Outcome::of(app, &client, accepted, &args.wait).await?.print(app)
}

pub(super) async fn keys(app: &App, args: KeysArgs) -> Result<()> {
    let client = app.client()?;
    let server: Server = resolve::one(&client, &args.server).await?;
    let keys: Vec<Keypair> = resolve::many(&client, &args.keys).await?;
    let keys: Vec<String> = keys.iter().map(|key| key.meta.id.to_string()).collect();
    let target = one(Server::KIND, server.meta.id).then("actions").then("set-keys");
    let accepted: ServerAccepted = client.post(target, &json!({ "keypairs": keys })).await?;
    Outcome::of(app, &client, accepted, &args.wait).await?.print(app)
}
