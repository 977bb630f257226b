//! `skyloom store …`: a store as a whole. Works on the store itself, without the cloud's API.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;
use serde_json::{Value, json};
use skyloom::cloud::custody;
use skyloom::{Opened, SchemaChange, StoreOptions};
use skyloom_bin::store::read_token;
use skyloom_model::Secret;

use crate::app::App;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::out;

/// What the addresses of stores look like.
const URI: &str = "URI";

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create or upgrade what a store keeps its records in
    #[command(after_help = "Examples:
  skyloom store migrate postgres://skyloom@db/cloud
  skyloom store migrate sqlite:///var/lib/skyloom/skyloom.db")]
    Migrate {
        /// The store
        #[arg(value_name = URI)]
        uri: String,
    },
    /// Look at every record of a store, changing nothing; ends with 1 when something is wrong
    #[command(after_help = "Examples:
  skyloom store check sqlite:///var/lib/skyloom/skyloom.db
  skyloom store check https://cloud.example:8780 --token-file /etc/skyloom/admin.token -o json")]
    Check {
        /// The store
        #[arg(value_name = URI)]
        uri: String,
        #[command(flatten)]
        access: Access,
    },
    /// Write a store, as it is at one moment, into a file that only you can read
    #[command(after_help = "Examples:
  skyloom store backup sqlite:///var/lib/skyloom/skyloom.db /backup/cloud.backup
  skyloom store backup https://cloud.example:8780 cloud.backup --token-file /etc/skyloom/admin.token")]
    Backup {
        /// The store
        #[arg(value_name = URI)]
        uri: String,
        /// The file; it must not be there
        file: PathBuf,
        #[command(flatten)]
        access: Access,
    },
    /// Put a backup back into an empty store; the fleet is held until `skyloom hold release`
    #[command(after_help = "Examples:
  skyloom store restore /backup/cloud.backup sqlite:///var/lib/skyloom/skyloom.db
  skyloom store restore cloud.backup postgres://skyloom@db/cloud")]
    Restore {
        /// The backup
        file: PathBuf,
        /// The store
        #[arg(value_name = URI)]
        uri: String,
    },
    /// Move a cloud: copy all records of one store into another, which must be empty
    #[command(after_help = "Examples:
  skyloom store copy --from sqlite:///var/lib/skyloom/skyloom.db --to postgres://skyloom@db/cloud
  skyloom store copy --from etcd://a:2379/cloud --to mongodb://b:27017/cloud")]
    Copy {
        /// The store to copy from
        #[arg(long, value_name = URI)]
        from: String,
        /// The empty store to copy to
        #[arg(long, value_name = URI)]
        to: String,
        #[command(flatten)]
        access: Access,
    },
}

/// How to get into the store of an API.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Access {
    /// A file with an administrator's token, for a store behind an API
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A file with certificate authorities in PEM, believed instead of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

pub(super) async fn run(app: &App, verb: Verb) -> Result<()> {
    match verb {
        Verb::Migrate { uri } => migrate(app, &uri).await,
        Verb::Check { uri, access } => check(app, &uri, &access).await,
        Verb::Backup { uri, file, access } => {
            let store = open(app, &uri, &access, true).await?;
            let done = custody::backup(&*store.backend, &skyloom::shown(&uri), &file, &*app.clock).await;
            let done = close(store, done).await?;
            print(app, &done, &file.display().to_string())
        }
        Verb::Restore { file, uri } => {
            let store = open(app, &uri, &Access::default(), false).await?;
            let by = skyloom_bin::environment::text("USER").unwrap_or_else(|| "an operator".to_owned());
            let done = custody::restore(&file, &*store.backend, &by, &*app.clock, &*app.ids).await;
            let done = close(store, done).await?;
            print(app, &done, &skyloom::shown(&uri))?;
            out::message(
                "the fleet is held: start API, engines and agents, look at `skyloom hold show`, then `skyloom hold release`",
            );
            Ok(())
        }
        Verb::Copy { from, to, access } => {
            let source = open(app, &from, &access, true).await?;
            let target = open(app, &to, &Access::default(), false).await?;
            let named = skyloom::shown(&from);
            let done =
                custody::copy(&*source.backend, &named, &*target.backend, &*app.clock, &*app.ids).await;
            let done = close(target, done).await;
            let done = close(source, Ok(done)).await??;
            print(app, &done, &skyloom::shown(&to))?;
            if done.source_moved_on {
                out::message("the source was written to meanwhile: what came later is not in the target");
            }
            Ok(())
        }
    }
}

async fn migrate(app: &App, uri: &str) -> Result<()> {
    let options = StoreOptions::new(app.clock.clone(), app.ids.clone());
    let done = skyloom::migrate_store(uri, &options)
        .await
        .map_err(|e| failed(uri, &e))?;
    let did = match done {
        SchemaChange::NotNeeded => "nothing to do: this kind of store has no schema".to_owned(),
        SchemaChange::Opened => "the store is there".to_owned(),
        SchemaChange::Created => "an empty store was made".to_owned(),
        SchemaChange::Current => "nothing to do: the schema is of this version".to_owned(),
        SchemaChange::Upgraded { from, to } => format!("the schema was upgraded from version {from} to {to}"),
        _ => "done".to_owned(),
    };
    let shown = skyloom::shown(uri);
    print(app, &json!({ "store": shown, "did": did }), &shown)
}

async fn check(app: &App, uri: &str, access: &Access) -> Result<()> {
    let store = open(app, uri, access, true).await?;
    let limits = store.backend.capability();
    let about = store.about.clone();
    let report = custody::check(&*store.backend).await;
    let report = close(store, report).await?;
    let mut shown = json!({
        "store": skyloom::shown(uri),
        "backend": uri.split_once(':').map_or(uri, |(scheme, _)| scheme),
        "durability": durability(uri, limits.durable),
        "server": about,
        "limits": {
            "operations_of_a_commit": limits.max_txn_ops,
            "bytes_of_a_document": limits.max_value_len,
            "documents_of_a_page": limits.max_page,
        },
    });
    if let (Value::Object(shown), Value::Object(more)) = (&mut shown, out::json(&report)?) {
        shown.extend(more);
    }
    app.print().document(&shown, &skyloom::shown(uri))?;
    if report.is_sound() {
        return Ok(());
    }
    let wrong = report.undecodable.len() + report.inconsistent.len();
    let error = match &report.unfinished_copy_from {
        Some(from) => CliError::unexpected(format!("a copy from {from} into this store has not ended"))
            .hint("give the same command again, or empty the store"),
        None => CliError::unexpected(format!("{wrong} records are not in order")),
    };
    Err(error)
}

/// Whether acknowledged commits are kept. Backends look at the settings of their servers when they open, and refuse unsafe ones.
fn durability(uri: &str, durable: bool) -> &'static str {
    let allowed = uri
        .split_once('?')
        .is_some_and(|(_, query)| query.split('&').any(|p| p == "allow_unsafe=true"));
    match (durable, allowed) {
        (false, _) => "unsafe: this store forgets when its process ends, or may lose what it acknowledged",
        (true, true) => "not known: the address says allow_unsafe=true, which takes any settings",
        (true, false) => "safe: the settings were looked at when the store was opened",
    }
}

async fn open(app: &App, uri: &str, access: &Access, existing: bool) -> Result<Opened> {
    let mut options = StoreOptions::new(app.clock.clone(), app.ids.clone());
    if existing {
        options = options.with_existing();
    }
    if let Some(file) = &access.token_file {
        options = options.with_token(read_token(file).map_err(|e| CliError::usage(e.to_string()))?);
    } else if let Some(token) = &app.globals.token {
        options = options.with_token(Secret::new(token.clone()));
    }
    if let Some(file) = &access.ca_file {
        let pem = std::fs::read(file)
            .map_err(|e| CliError::usage(format!("cannot read {}: {e}", file.display())))?;
        options = options.with_ca_pem(pem);
    }
    skyloom::open_store(uri, &options).await.map_err(|e| {
        let error = failed(uri, &e);
        match e.kind() {
            skyloom::store::ErrorKind::NotFound if !existing => {
                error.hint("make it with `skyloom store migrate`")
            }
            _ => error,
        }
    })
}

/// What came of the work, once the store is closed in order.
async fn close<T>(store: Opened, done: skyloom::store::Result<T>) -> Result<T> {
    let closed = store.close().await;
    let done = done.map_err(|e| refused(&e))?;
    closed.map_err(|e| refused(&e))?;
    Ok(done)
}

fn failed(uri: &str, error: &skyloom::store::Error) -> CliError {
    let text = skyloom_model::report(error);
    CliError::new(
        exit_of(error),
        format!("cannot open the store {}", skyloom::shown(uri)),
    )
    .detail(text)
}

fn refused(error: &skyloom::store::Error) -> CliError {
    CliError::new(exit_of(error), skyloom_model::report(error))
}

fn exit_of(error: &skyloom::store::Error) -> Exit {
    use skyloom::store::ErrorKind as Kind;
    match error.kind() {
        Kind::Invalid | Kind::Unsupported | Kind::NotFound => Exit::Usage,
        Kind::Denied => Exit::Forbidden,
        Kind::Conflict => Exit::Conflict,
        _ => Exit::Unexpected,
    }
}

fn print(app: &App, done: &impl Serialize, name: &str) -> Result<()> {
    app.print().document(&out::json(done)?, name)
}
